/**
 * The ports that programs of a node listen on when they ask for port 0: the same in all processes.
 *
 * Role: each process binds a port that the system chooses, then asks here which one holds. Up: worker/program.ts.
 * The answers lie in a file that the supervisor has opened for appending: `ordinal port\n` for each, of which the first for an
 * ordinal counts. A write to it goes to its end as one step (open(2), O_APPEND), so that all read the same first one, whoever was
 * quicker and whoever is killed meanwhile.
 */
import { fstatSync, readSync, writeSync } from 'node:fs';

/** The port of the process's listener number `ordinal` on port 0, when the system has chosen `chosen` for it. `fd`: the file. */
export function agreeOnPort(fd: number, ordinal: number, chosen: number): number {
  const found = findPort(fd, ordinal);
  if (found !== undefined) return found;
  writeSync(fd, `${ordinal} ${chosen}\n`);
  return findPort(fd, ordinal) ?? chosen;
}

function findPort(fd: number, ordinal: number): number | undefined {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  const length = readSync(fd, bytes, 0, bytes.length, 0);
  const line = bytes
    .toString('latin1', 0, length)
    .split('\n')
    .find((text) => text.startsWith(`${ordinal} `));
  return line === undefined ? undefined : Number(line.slice(line.indexOf(' ') + 1));
}
