/**
 * The process that reads the config for a supervisor that reloads: loads it with the code on the disk, judges it, says what it means.
 * Role: started by supervisor/probe.ts, which ends it. It is no command for people.
 */

import { ConfigError } from '../config/config-error.ts';
import { loadConfig } from '../config/load.ts';
import type { TopicPolicySettings } from '../config/topics.ts';
import { provideModules } from '../own-modules.ts';
import type { ProbeMessage } from '../supervisor/probe.ts';
import { ownRelease } from '../supervisor/release.ts';
import { nodeSettings } from '../supervisor/settings.ts';
import { loadJudge } from './core-modules.ts';
import { probeWord } from './probe-word.ts';

/** `needsCore`: load the core in any case; else only to judge certificates. */
export async function probe(configPath: string, needsCore: boolean): Promise<never> {
  const send = process.send?.bind(process);
  if (send === undefined) throw new Error(`${probeWord} is for a supervisor that reloads`);
  process.on('disconnect', () => process.exit());
  // Those that go to the whole process group are the supervisor's to act on.
  for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM']) process.on(signal, () => {});
  send(await judge(configPath, needsCore));
  // The supervisor ends this process once it has read that.
  setInterval(() => {}, 60_000);
  return new Promise<never>(() => {});
}

async function judge(configPath: string, needsCore: boolean): Promise<ProbeMessage> {
  try {
    const config = await loadConfig(configPath, provideModules);
    if (needsCore || config.listen.some(({ tls }) => tls !== undefined)) (await loadJudge()).checkCertificates(config, configPath);
    const answers = [
      ...(config.fetch ? ['HTTP'] : []),
      ...config.websocket.map((route) => `WebSocket ${route.pattern}`),
      ...config.sse.map(({ path }) => `events ${path}`),
    ];
    const topics = config.topics.map(policyText);
    return { type: 'config', settings: nodeSettings(config), answers, topics, warnings: config.warnings, release: ownRelease };
  } catch (error) {
    if (error instanceof ConfigError) return { type: 'mistakes', where: configPath, mistakes: error.mistakes };
    return { type: 'failed', reason: error instanceof Error ? error.message : String(error) };
  }
}

/** What a policy does: 'chat/:room (100 messages for 300 s, presence)'. */
function policyText({ pattern, history, recover, presence, authorize, token }: TopicPolicySettings): string {
  const does = [
    ...(history === false ? [] : [`${history.size} messages for ${history.seconds} s${recover ? '' : ', not recovered'}`]),
    ...(presence === false ? [] : ['presence']),
    ...(authorize === undefined ? [] : ['authorize']),
    ...(token ? ['token'] : []),
  ];
  return `${pattern} (${does.length === 0 ? 'nothing' : does.join(', ')})`;
}
