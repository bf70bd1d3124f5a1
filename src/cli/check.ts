/** `ringway check`: load the config and say what it means. */

import { ConfigError } from '../config/config-error.ts';
import type { AdminAddress, ListenAddress } from '../config/resolve.ts';
import type { TlsSettings } from '../config/tls.ts';
import { exitCodes } from '../exit-codes.ts';
import { configReader, type ReadConfig, type ReadOptions, soundConfig } from './read-config.ts';

/** ret: what to print. Throws ConfigError, and OperatingError when the config cannot be judged. */
export async function check(configPath: string, options: ReadOptions = {}): Promise<string> {
  const verdict = await configReader(configPath, { ...options, withoutCore: true })(new AbortController().signal);
  return summary(configPath, soundConfig(verdict));
}

/** The same for a program. ret: one JSON object, also for a config with mistakes, and the exit code. Throws OperatingError. */
export async function checkJson(configPath: string, options: ReadOptions = {}): Promise<{ text: string; exitCode: number }> {
  const verdict = await configReader(configPath, { ...options, withoutCore: true })(new AbortController().signal);
  try {
    const { settings, answers, topics, warnings } = soundConfig(verdict);
    const text = JSON.stringify({
      config: configPath,
      correct: true,
      listen: settings.listen.map((address) => ({ address: addressText(address), tls: address.tls !== undefined })),
      admin: settings.admin === false ? null : addressText(settings.admin),
      workers: settings.workers,
      answers: answers ?? [],
      topics: topics ?? [],
      warnings: warnings ?? [],
    });
    return { text, exitCode: exitCodes.ok };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { text: JSON.stringify({ config: configPath, correct: false, mistakes: error.mistakes }), exitCode: exitCodes.config };
  }
}

function summary(configPath: string, { settings, answers, topics = [], warnings = [] }: ReadConfig): string {
  return [
    `${configPath}: correct`,
    `  listen   ${settings.listen.map((address) => addressText(address) + tlsText(address.tls)).join(', ')}`,
    `  admin    ${settings.admin === false ? 'none' : addressText(settings.admin)}`,
    `  workers  ${settings.workers}`,
    `  answers  ${(answers ?? []).join(', ')}`,
    ...(topics.length === 0 ? [] : [`  topics   ${topics.join(', ')}`]),
    ...warnings.map((line) => `  warning  ${line}`),
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
