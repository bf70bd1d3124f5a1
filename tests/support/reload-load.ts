/**
 * Load on a gateway while it reloads or upgrades, and the judgement of what became of it.
 * Role: for reload.test.ts and upgrade.test.ts. Down: reload-client.ts, the program that makes the load.
 */
import { expect } from 'bun:test';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import type { ClientOptions, Tally } from './reload-client.ts';

export interface Load {
  stop(): Promise<Tally>;
  kill(): void;
}

/** A client in a process of its own, see reload-client.ts. */
export async function startLoad(options: ClientOptions): Promise<Load> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, 'reload-client.ts'), JSON.stringify(options)], {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  let output = '';
  let problem = '';
  const reading = (async () => {
    for await (const chunk of child.stdout) output += new TextDecoder().decode(chunk);
  })();
  void (async () => {
    for await (const chunk of child.stderr) problem += new TextDecoder().decode(chunk);
  })();
  const load: Load = {
    async stop() {
      child.stdin.write('stop\n');
      await child.stdin.end();
      await reading;
      expect(problem).toBe('');
      return JSON.parse(output.split('\n')[1] ?? 'null') as Tally;
    },
    kill: () => child.kill('SIGKILL'),
  };
  await eventually('the load runs', () => output.includes('running'));
  return load;
}

/** Nothing was refused, reset or lost. */
export function expectWhole(tally: Tally): void {
  expect({ errors: tally.errors, lost: tally.lost }).toEqual({ errors: {}, lost: 0 });
  expect(tally.responses).toBeGreaterThan(0);
}
