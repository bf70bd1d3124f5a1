/* Who the client of a connection is, and what it may have: the peer of the socket, or whom proxies that are trusted
 * have told of.
 *
 *   socket's peer ──trusted?──> address in the PROXY header ──trusted?──> X-Forwarded-For or Forwarded, from the right,
 *   up to the first not trusted
 *
 * Role: decides whom a connection is counted for, and whether it is welcome. Up: connection (accept, PROXY header,
 * end), http (heads, upgrades).
 * Down: trusted, forwarded, proxy, ip_limit.
 * Invariants: slot.address_key is not 0 exactly while the connection is counted, once; trusted addresses and Unix
 * sockets are never counted; slot.state.peer_trusted says that the last hop known so far is believed about the one
 * before it. */
#ifndef RW_CLIENT_H
#define RW_CLIENT_H

#include "connection/core.h"
#include "connection/proxy.h"

/* A slot has been given to an accepted descriptor. Decides on slot.preface. ret: 1 welcome; 0 refused, and counted as
 * such */
int rw_client_on_accept(struct rw_core *core, struct rw_slot *slot);
/* Its PROXY header has come whole. ret as above */
int rw_client_on_proxy_header(struct rw_core *core, struct rw_slot *slot, const struct rw_proxy_source *source);
/* core->head describes the head of the next request, which begins at bytes.
 * ret: RW_REQUEST_X_FORWARDED or RW_REQUEST_FORWARDED when a trusted proxy has written it, else 0 */
uint32_t rw_client_on_head(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes);
/* That head asks for a WebSocket, and the host is about to be asked. May be called again for the same head.
 * ret: 0 welcome, else the status to answer, counted as refused: 429 too many of one address, 503 too many a second */
uint32_t rw_client_refuses_upgrade(struct rw_core *core, struct rw_slot *slot);
/* The host was asked. */
void rw_client_on_upgrade_asked(struct rw_core *core);
/* The connection speaks WebSocket from now on: what the head told holds for it. Called while the slot still has its
 * HTTP state. */
void rw_client_on_upgraded(struct rw_slot *slot);
/* A request is over, and the connection goes on: another client's may follow. */
void rw_client_on_next_request(struct rw_core *core, struct rw_slot *slot);
/* per_kilosecond: 0: no limit */
void rw_client_limit_upgrades(struct rw_upgrade_rate *rate, uint32_t per_kilosecond, uint32_t now_ms);
/* The connection has ended. */
void rw_client_release(struct rw_core *core, struct rw_slot *slot);

#endif
