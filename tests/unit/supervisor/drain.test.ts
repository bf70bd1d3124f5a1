/** What a drain says of workers that do not stop in time. */
import { expect, test } from 'bun:test';
import { createLog } from '../../../src/log.ts';
import { devVariable } from '../../../src/process/boot.ts';
import { drainWorkers } from '../../../src/supervisor/drain.ts';
import type { WorkerProcess } from '../../../src/supervisor/worker-process.ts';

const plan = { signal: 'SIGHUP', code: 1001, timeoutSeconds: 0.1, timeoutOption: 'drain.timeout', servesQueues: false } as const;

/** Stops only when it is killed. */
function stubborn(): WorkerProcess {
  const { promise: stopped, resolve } = Promise.withResolvers<void>();
  const worker: Pick<WorkerProcess, 'state' | 'stopped' | 'drain' | 'kill'> = {
    state: 'draining',
    stopped,
    drain: () => {},
    kill: () => resolve(),
  };
  return worker as WorkerProcess;
}

test('connections that are cut off are a warning; in ringway dev, where browsers leave some at every change, they are not', async () => {
  const entries: { level: string; msg: string }[] = [];
  const log = createLog({ level: 'debug' }, { write: (line) => void entries.push(JSON.parse(line)) });
  const before = process.env[devVariable];
  delete process.env[devVariable];
  const drained = [drainWorkers([stubborn()], plan, log)];
  process.env[devVariable] = '1';
  drained.push(drainWorkers([stubborn(), stubborn()], plan, log));
  if (before === undefined) delete process.env[devVariable];
  else process.env[devVariable] = before;
  await Promise.all(drained);
  expect(entries.map(({ level, msg }) => [level, msg])).toEqual([
    ['warn', '1 of 1 workers had connections left after 0.1 s (drain.timeout); cut off'],
    ['debug', '2 of 2 workers had connections left after 0.1 s (drain.timeout); cut off'],
  ]);
});
