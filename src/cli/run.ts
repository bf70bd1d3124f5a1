/** `ringway run`: one process of a program on every CPU, their topics joined, until all have stopped. */
import { closeSync, mkdtempSync, openSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaults } from '../config/defaults.ts';
import { createLog } from '../log.ts';
import { programWorkers } from '../process/boot.ts';
import type { NodeSettings } from '../supervisor/settings.ts';
import { type RunOptions, UsageError } from './arguments.ts';
import { loadNative } from './core-modules.ts';
import { Launcher } from './launcher.ts';
import { untilStopped } from './start.ts';

/** ret: the exit code. Throws UsageError and OperatingError. */
export async function run(options: RunOptions): Promise<number> {
  const launcher = Launcher.find();
  const program = findProgram(options.program);
  const native = await loadNative();
  // Standard output is the programs' alone.
  const log = createLog({ level: defaults.log.level, fd: 2 });
  const config: NodeSettings = {
    listen: [],
    admin: options.adminPort === undefined ? false : { kind: 'tcp', host: defaults.admin.host, port: options.adminPort, token: undefined },
    workers: options.workers,
    affinity: defaults.affinity,
    drain: options.drain,
  };
  const { Supervisor } = await import('../supervisor/supervisor.ts');
  const portsFd = namelessFile();
  const preload = fileURLToPath(new URL('../worker/program.ts', import.meta.url));
  const kind = programWorkers({ preload, program, args: options.args, portsFd });
  try {
    const supervisor = await Supervisor.start({ config, kind, native, log, judge: () => [] });
    launcher?.watch(native, supervisor, log);
    return await untilStopped(supervisor, log, launcher);
  } finally {
    closeSync(portsFd);
  }
}

function findProgram(path: string): string {
  const absolute = resolve(path);
  const found = statSync(absolute, { throwIfNoEntry: false });
  if (found === undefined) throw new UsageError(`${absolute}: there is no such file; write the path of a program`);
  if (!found.isFile()) throw new UsageError(`${absolute}: is not a file; write the path of a program, such as ${join(path, 'app.js')}`);
  return absolute;
}

/** A file that only descriptors lead to, for appending: nothing stays behind when the node is killed. */
function namelessFile(): number {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-'));
  const fd = openSync(join(folder, 'ports'), 'a+', 0o600);
  rmSync(folder, { recursive: true });
  return fd;
}
