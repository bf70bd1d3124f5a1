/** `ringway health`: whether a gateway is alive, or ready; for the health checks of containers and services. */
import { exitCodes } from '../exit-codes.ts';
import type { AdminClient } from './admin-client.ts';

/** ret: what to print, and the exit code. Throws OperatingError when nobody answers. */
export async function health(client: AdminClient, wantsReady: boolean): Promise<{ text: string; exitCode: number }> {
  const response = await client.request(wantsReady ? '/readyz' : '/healthz');
  const text = (await response.text()).trim();
  return { text, exitCode: response.ok ? exitCodes.ok : exitCodes.failure };
}
