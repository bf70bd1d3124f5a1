/* Who the client of a connection is, and what it may have: the peer of the socket, or whom proxies that are trusted
 * have told of.
 *
 *   socket's peer ──trusted?──> address in the PROXY header ──trusted?──> X-Forwarded-For or Forwarded, from the right,
 *   up to the first not trusted
 *
 * Role: decides whom a connection is counted for, and whether it is welcome. Up: connection (accept, PROXY header,
 * end), protocols (what heads tell, upgrades).
 * Down: trusted, proxy, ip_limit.
 * Invariants: slot.address_key is not 0 exactly while the connection is counted, once; trusted addresses and Unix
 * sockets are never counted; slot.state.peer_trusted says that the last hop known so far is believed about the one
 * before it. */
#ifndef RW_CLIENT_H
#define RW_CLIENT_H

#include "connection/protocol.h"
#include "connection/proxy.h"

/* A slot has been given to an accepted descriptor. Decides on slot.preface. ret: 1 welcome; 0 refused, and counted as
 * such */
int rw_client_on_accept(struct rw_core *core, struct rw_slot *slot);
/* Its PROXY header has come whole. ret as above */
int rw_client_on_proxy_header(struct rw_core *core, struct rw_slot *slot, const struct rw_proxy_source *source);
/* A head asks for a WebSocket, and the host is about to be asked. May be called again for the same head.
 * told[0..bytes): the client's address as that head has it, of 4 or 16 bytes; 0: it has none
 * ret: 0 welcome, else the status to answer, counted as refused: 429 too many of one address, 503 too many a second */
uint32_t rw_client_refuses_upgrade(struct rw_core *core, struct rw_slot *slot, const uint8_t *told, uint32_t bytes);
/* The host was asked. */
void rw_client_on_upgrade_asked(struct rw_core *core);
/* What a head has told (as above) holds for the connection from now on. */
void rw_client_is_told(struct rw_slot *slot, const uint8_t *told, uint32_t bytes);
/* A request is over, and the connection goes on: another client's may follow. */
void rw_client_on_next_request(struct rw_core *core, struct rw_slot *slot);
/* per_kilosecond: 0: no limit */
void rw_client_limit_upgrades(struct rw_upgrade_rate *rate, uint32_t per_kilosecond, uint32_t now_ms);
/* The connection has ended. */
void rw_client_release(struct rw_core *core, struct rw_slot *slot);

#endif
