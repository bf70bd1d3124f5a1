/** `ringway check`: load the config and say what it means. */
import { loadConfig } from '../config/load.ts';
import type { AdminAddress, ListenAddress, ResolvedConfig } from '../config/resolve.ts';
import type { TlsSettings } from '../config/tls.ts';
import { loadJudge } from './core-modules.ts';

/** ret: what to print. Throws ConfigError. */
export async function check(configPath: string): Promise<string> {
  const config = await loadConfig(configPath);
  if (config.listen.some(({ tls }) => tls !== undefined)) (await loadJudge()).checkCertificates(config, configPath);
  return summary(configPath, config);
}

function summary(configPath: string, config: ResolvedConfig): string {
  const answers = [...(config.fetch ? ['HTTP'] : []), ...config.websocket.map((route) => `WebSocket ${route.pattern}`)];
  return [
    `${configPath}: correct`,
    `  listen   ${config.listen.map((address) => addressText(address) + tlsText(address.tls)).join(', ')}`,
    `  admin    ${config.admin === false ? 'none' : addressText(config.admin)}`,
    `  workers  ${config.workers}`,
    `  answers  ${answers.join(', ')}`,
  ].join('\n');
}

function addressText(address: ListenAddress | AdminAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

function tlsText(tls: TlsSettings | undefined): string {
  if (tls === undefined) return '';
  return tls.serverNames.length === 0 ? ' (TLS)' : ` (TLS, also as ${tls.serverNames.map(({ name }) => name).join(', ')})`;
}
