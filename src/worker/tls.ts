/**
 * Puts the TLS of the config onto the listeners of a core.
 * Role: at the start of a worker, and when certificates are loaded again. Up: worker/main.ts. Down: ringway.h rw_core_listener_tls().
 */
import type { TlsSettings } from '../config/tls.ts';
import type { Core } from '../core/core.ts';

/** Connections that stand keep what they have. Throws TlsError; what was loaded until then is in use. */
export function applyTls(core: Core, listener: number, tls: TlsSettings): void {
  core.setTls(listener, tls.files);
  for (const [index, { name, files }] of tls.serverNames.entries()) core.setServerName(listener, { name, context: index + 1, files });
}
