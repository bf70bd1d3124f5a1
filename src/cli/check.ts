/** `ringway check`: load the config and say what it means. */
import { loadConfig } from '../config/load.ts';
import type { AdminAddress, ListenAddress, ResolvedConfig } from '../config/resolve.ts';

/** ret: what to print. Throws ConfigError. */
export async function check(configPath: string): Promise<string> {
  return summary(configPath, await loadConfig(configPath));
}

function summary(configPath: string, config: ResolvedConfig): string {
  const answers = [...(config.fetch ? ['HTTP'] : []), ...config.websocket.map((route) => `WebSocket ${route.pattern}`)];
  return [
    `${configPath}: correct`,
    `  listen   ${config.listen.map(addressText).join(', ')}`,
    `  admin    ${config.admin === false ? 'none' : addressText(config.admin)}`,
    `  workers  ${config.workers}`,
    `  answers  ${answers.join(', ')}`,
  ].join('\n');
}

function addressText(address: ListenAddress | AdminAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}
