/**
 * Who may connect to a Unix socket: the mode and the group of its file (unix(7): whoever may write to it).
 *
 * Role: for the listeners of the config and for the admin listener. A socket is never open to more than the config says, not even between
 * its making and the change of its mode: listeners do not listen before, and the admin listener's file is made with a mode that lets nobody in.
 */
import { chmodSync, chownSync, readFileSync } from 'node:fs';
import type { UnixPermissions } from '../config/resolve.ts';
import { errorCode, OperatingError } from '../operating-error.ts';

/** As the system calls want it. undefined: as it is. */
export interface SocketFileMode {
  readonly mode: number | undefined;
  readonly groupId: number | undefined;
}

/** Look the group up. `option`: where the config says so. ret: undefined when there is nothing to change. Throws OperatingError. */
export function socketFileMode({ mode, group }: UnixPermissions, option: string): SocketFileMode | undefined {
  if (mode === undefined && group === undefined) return undefined;
  return { mode, groupId: group === undefined ? undefined : groupIdOf(group, option) };
}

/** Throws OperatingError. */
export function applySocketFileMode(path: string, { mode, groupId }: SocketFileMode, option: string): void {
  try {
    // First the group: a mode that lets it in must not let in the one before.
    if (groupId !== undefined) chownSync(path, -1, groupId);
    if (mode !== undefined) chmodSync(path, mode);
  } catch (error) {
    const reason =
      errorCode(error) === 'EPERM'
        ? `this user may not give it to group ${groupId}; set ${option}.group to a group that this user is in, or start as root`
        : String(error);
    throw new OperatingError(`cannot set who may connect to the Unix socket ${path}: ${reason} (${errorCode(error)})`, { cause: error });
  }
}

/** Make a socket file by `bind` that nobody but this user can connect to. */
export function bindPrivately<Result>(bind: () => Result): Result {
  const umask = process.umask(0o177);
  try {
    return bind();
  } finally {
    process.umask(umask);
  }
}

function groupIdOf(group: string | number, option: string): number {
  if (typeof group === 'number') return group;
  const id = groupEntry(group)?.split(':')[2];
  if (id === undefined || !/^\d+$/.test(id))
    throw new OperatingError(
      `${option}.group: there is no group ${JSON.stringify(group)} on this machine; write one that 'getent group' lists, or its number`,
    );
  return Number(id);
}

/** The line of group(5), wherever this system keeps its groups (nsswitch.conf(5)). */
function groupEntry(name: string): string | undefined {
  try {
    const { stdout } = Bun.spawnSync(['getent', 'group', name], { stderr: 'ignore' });
    // A name of digits would be taken for an id.
    return lineOf(stdout.toString(), name);
  } catch {
    // No getent, as in an image without a C library's tools.
    try {
      return lineOf(readFileSync('/etc/group', 'utf8'), name);
    } catch {
      return undefined;
    }
  }
}

function lineOf(text: string, name: string): string | undefined {
  return text.split('\n').find((line) => line.startsWith(`${name}:`));
}
