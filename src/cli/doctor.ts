/** `ringway doctor`: judge this machine, and say what to change. */
import { existsSync, readFileSync } from 'node:fs';
import { ConfigError } from '../config/config-error.ts';
import { defaultConfigPath } from '../config/defaults.ts';
import { loadConfig } from '../config/load.ts';
import { type ResolvedConfig, resolveConfig } from '../config/resolve.ts';
import { examine } from '../doctor/examine.ts';
import { count, type Finding, problem } from '../doctor/finding.ts';
import { type Goal, setGoal } from '../doctor/goal.ts';
import type { RingTrial } from '../doctor/kernel.ts';
import { Machine } from '../doctor/machine.ts';
import { exitCodes } from '../exit-codes.ts';
import { provideModules } from '../own-modules.ts';
import { cgroupCpuQuota } from '../process/cpus.ts';
import { version } from '../version.ts';
import { loadRingTrial } from './core-modules.ts';
import { configReader } from './read-config.ts';

export interface DoctorOptions {
  /** Undefined: gateway.config.ts where there is one, else the defaults. */
  readonly configPath: string | undefined;
  /** Of the whole node; undefined: what the config allows for. */
  readonly connections: number | undefined;
  readonly json: boolean;
  /** Told when the config takes long. */
  readonly tell?: (text: string) => void;
  /** Where /proc and /sys are; another place in tests. */
  readonly root?: string;
}

/** ret: what to print, and the exit code. Never throws for what is wrong with the machine or with the config: those are findings. */
export async function doctor({
  configPath,
  connections,
  json,
  root,
  tell = () => {},
}: DoctorOptions): Promise<{ text: string; exitCode: number }> {
  const machine = new Machine(root);
  const { config, mistakes } = await wishes(configPath, tell);
  const cpus = machine.cpus;
  const cpuQuota = cgroupCpuQuota(machine.text);
  const goal = setGoal(config, connections, cpus, cpuQuota);
  const { ring, whyNoCore } = await tryCore(config.io);
  const bun = { running: Bun.version, pinned: pinnedBun() };
  // Its client is loaded only where there is one to ask.
  const redis =
    config.redis === false ? [] : [await (await import('../doctor/redis.ts')).checkRedis(config.redis, config.topics.length > 0)];
  const findings = [...mistakes, ...whyNoCore, ...examine({ machine, goal, cpus, cpuQuota, bun, ring }), ...redis];
  const exitCode = findings.some(({ verdict }) => verdict === 'problem') ? exitCodes.failure : exitCodes.ok;
  return { text: json ? jsonText(goal, findings) : plainText(goal, findings), exitCode };
}

/** What the machine has to bear out. A config that cannot be used is a finding; then the defaults are judged. */
async function wishes(
  configPath: string | undefined,
  tell: (text: string) => void,
): Promise<{ config: ResolvedConfig; mistakes: Finding[] }> {
  const path = configPath ?? (existsSync(defaultConfigPath) ? defaultConfigPath : undefined);
  try {
    if (path !== undefined) {
      // One that does not get loaded must not keep us from judging.
      const verdict = await configReader(path, { withoutCore: true, tell })(new AbortController().signal);
      if (verdict.type === 'failed') throw new ConfigError(path, [verdict.reason]);
    }
    return {
      config: path === undefined ? resolveConfig(nothingAsked, process.env, 'environment') : await loadConfig(path, provideModules),
      mistakes: [],
    };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const what = `${error.message.replace(/:\n\s*/, ': ').replaceAll(/\n\s*/g, '; ')}; judged without it`;
    const remedy = { where: 'shell', change: path === undefined ? 'set or unset the variable' : `ringway check -c ${path}` } as const;
    return { config: resolveConfig(nothingAsked, {}), mistakes: [problem('config', what, remedy)] };
  }
}

/** A config with nothing but defaults. */
const nothingAsked = { fetch: () => new Response() };

async function tryCore(io: ResolvedConfig['io']): Promise<{ ring: RingTrial | undefined; whyNoCore: Finding[] }> {
  try {
    const { tryRing } = await loadRingTrial();
    return { ring: tryRing(io), whyNoCore: [] };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { ring: undefined, whyNoCore: [problem('core', why, { where: 'install', change: 'ringway build' })] };
  }
}

function pinnedBun(): string {
  const manifest: { readonly dependencies: { readonly bun: string } } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  );
  return manifest.dependencies.bun;
}

function jsonText({ connections, isAsked, workers }: Goal, findings: readonly Finding[]): string {
  return JSON.stringify({ version, judgedFor: { connections, isAsked, workers }, findings }, undefined, 2);
}

function plainText({ connections, isAsked, workers }: Goal, findings: readonly Finding[]): string {
  const why = isAsked ? '' : ', since nobody has said how many (--connections N, or limits.maxConnections)';
  const widest = Math.max(...findings.map(({ check }) => check.length));
  const indent = ' '.repeat(10 + widest + 2);
  const lines = findings.flatMap(({ verdict, check, what, remedies }) => [
    `${verdict.padEnd(8)}  ${check.padEnd(widest)}  ${what}`,
    ...remedies.map(({ where, change }) => `${indent}${where.padEnd(7)}  ${change}`),
  ]);
  const number = (wanted: Finding['verdict']) => findings.filter(({ verdict }) => verdict === wanted).length;
  const problems = number('problem');
  return [
    `ringway ${version}: judged for ${count(connections)} connections in ${workers} ${workers === 1 ? 'worker' : 'workers'}${why}`,
    '',
    ...lines,
    '',
    `${number('ok')} ok, ${number('advice')} advice, ${problems} ${problems === 1 ? 'problem' : 'problems'}`,
    ...(findings.some(({ remedies }) => remedies.some(({ change }) => change.startsWith('sysctl -w')))
      ? ["What 'sysctl -w' sets is gone after a boot: write it into /etc/sysctl.d/90-ringway.conf as well."]
      : []),
  ].join('\n');
}
