import { dirname } from 'node:path';

/** The machine does not let us: a port in use, no memory, a file in the way. The message is for the operator and names the remedy. */
export class OperatingError extends Error {
  readonly code = 'RW_OPERATING';
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'OperatingError';
  }
}

/** Stable code of a failed call ('EADDRINUSE', ...), or 'unknown'. */
export function errorCode(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : 'unknown';
}

/** Why `address` cannot be listened on, in a sentence that names the remedy. `option` is where the config says so, `path` that of a Unix socket. */
export function listenProblem(error: unknown, address: string, option: string, path?: string): OperatingError {
  const folder = path === undefined ? 'of the socket' : dirname(path);
  const remedies: Readonly<Record<string, string>> = {
    EADDRINUSE: `another process listens there already (find it with 'ss -lntxp'); stop it, or set ${option} to another address`,
    EACCES: `this user may not; ports below 1024 need the capability CAP_NET_BIND_SERVICE (or sysctl net.ipv4.ip_unprivileged_port_start), a Unix socket needs a folder that may be written to`,
    EPERM: 'the system forbids it; look at the security policy of the container or service',
    EADDRNOTAVAIL: `this machine has no such address; set ${option} to one that it has ('ip addr')`,
    EAFNOSUPPORT: `this system has no IPv6; set ${option} to an IPv4 address`,
    ENOENT: `the folder ${folder} does not exist; create it (mkdir -p ${folder}, or RuntimeDirectory= of a systemd unit), or set ${option} to another path`,
    ENOTDIR: `${folder} is not a folder, or lies below a file; set ${option} to another path`,
    EMFILE: 'no descriptors are left for this process; raise its limit (ulimit -n)',
    ENFILE: 'no descriptors are left on this machine; raise sysctl fs.file-max',
  };
  const code = errorCode(error);
  const reason = remedies[code] ?? (error instanceof Error ? error.message : String(error));
  return new OperatingError(`cannot listen on ${address}: ${reason} (${code})`, { cause: error });
}
