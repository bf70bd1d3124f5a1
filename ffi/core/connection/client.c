/* Clients, see client.h, and what the host asks about addresses (ringway.h). */
#include "connection/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "base/rate.h"

/* A token of the upgrade bucket is a millionth of an upgrade, so that upgrades per kilosecond are tokens per
 * millisecond. */
#define UPGRADE_TOKENS 1000000

enum peer_kind {
    PEER_UNKNOWN = 0,
    PEER_UNIX = 1,
    PEER_IP = 2,
    PEER_GONE = 3, /* it has reset the connection: nobody can tell its address any more (ENOTCONN) */
};

struct peer {
    enum peer_kind kind;
    uint8_t ip[16];        /* as in trusted.h */
    uint8_t address_bytes; /* of the socket: 4 or 16 */
    uint16_t port;
};

static struct peer peer_of(const struct rw_core *core, int32_t fd) {
    struct peer peer = {.kind = PEER_UNKNOWN};
    struct sockaddr_storage address = {0};
    int32_t result = rw_ring_peer_address(core->ring, fd, &address);
    if (result < 0) {
        peer.kind = result == -ENOTCONN ? PEER_GONE : PEER_UNKNOWN;
        return peer;
    }
    if (address.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&address;
        peer.kind = PEER_IP;
        peer.address_bytes = 4;
        peer.port = ntohs(in->sin_port);
        rw_ip_widen(peer.ip, (const uint8_t *)&in->sin_addr, 4);
    } else if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;
        peer.kind = PEER_IP;
        peer.address_bytes = 16;
        peer.port = ntohs(in6->sin6_port);
        rw_ip_widen(peer.ip, in6->sin6_addr.s6_addr, 16);
    } else if (address.ss_family == AF_UNIX) {
        peer.kind = PEER_UNIX;
    }
    return peer;
}

/* ------------------------------------------------------------------ counting */

static int count(struct rw_core *core, struct rw_slot *slot, const uint8_t *ip) {
    assert(slot->address_key == 0);
    if (core->ip_limit.most == 0) return 1;
    slot->address_key = rw_ip_limit_take(&core->ip_limit, ip);
    if (slot->address_key) return 1;
    RW_COUNT(core, refused_ip, 1);
    return 0;
}

void rw_client_release(struct rw_core *core, struct rw_slot *slot) {
    if (slot->address_key) rw_ip_limit_give(&core->ip_limit, slot->address_key);
    slot->address_key = 0;
}

/* ------------------------------------------------------------------ the connection */

/* Whoever reaches a Unix socket is let in by the permissions of its file: with trusted proxies, it is one. */
static int is_trusted(const struct rw_core *core, const struct peer *peer) {
    if (core->trusted.count == 0) return 0;
    return peer->kind == PEER_UNIX || (peer->kind == PEER_IP && rw_trusted_has(&core->trusted, peer->ip));
}

int rw_client_on_accept(struct rw_core *core, struct rw_slot *slot) {
    uint32_t flags = core->listeners[slot->listener].flags;
    int required = (flags & RW_LISTENER_PROXY_REQUIRED) != 0;
    if (flags & RW_LISTENER_PROXY_PROTOCOL) slot->preface = RW_PREFACE_PROXY;
    if (required) slot->preface = RW_PREFACE_PROXY_REQUIRED;
    if (core->trusted.count == 0 && (required || core->ip_limit.most == 0)) return 1;
    struct peer peer = peer_of(core, slot->fd);
    if (peer.kind == PEER_GONE) {
        /* As health checks do that only look whether somebody accepts. */
        RW_COUNT(core, refused_aborted, 1);
        return 0;
    }
    int trusted = is_trusted(core, &peer);
    slot->state.peer_trusted = trusted ? 1 : 0;
    if (required && !trusted) {
        RW_COUNT(core, refused_proxy, 1);
        return 0;
    }
    /* What somebody else writes there is not a header but a malformed request. */
    if (core->trusted.count && !trusted) slot->preface = RW_PREFACE_NONE;
    return trusted || peer.kind != PEER_IP || count(core, slot, peer.ip);
}

int rw_client_on_proxy_header(struct rw_core *core, struct rw_slot *slot, const struct rw_proxy_source *source) {
    memcpy(slot->proxied_address, source->address, sizeof slot->proxied_address);
    slot->proxied_port = source->port;
    slot->proxied_bytes = source->address_bytes;
    int believed = slot->state.peer_trusted || slot->preface == RW_PREFACE_PROXY_REQUIRED;
    /* LOCAL: the proxy's own connection, which stays what it is. */
    if (!believed || source->local) return 1;
    slot->state.peer_trusted = 0;
    /* a client, but the proxy cannot say which: nobody is left to be believed */
    if (source->address_bytes == 0) return 1;
    uint8_t ip[16];
    rw_ip_widen(ip, source->address, source->address_bytes);
    slot->state.peer_trusted = rw_trusted_has(&core->trusted, ip) ? 1 : 0;
    return slot->state.peer_trusted || count(core, slot, ip);
}

/* ------------------------------------------------------------------ requests */

static int count_told(struct rw_core *core, struct rw_slot *slot, const uint8_t *told, uint32_t bytes) {
    if (core->ip_limit.most == 0 || slot->address_key || bytes == 0) return 1;
    uint8_t ip[16];
    rw_ip_widen(ip, told, bytes);
    return rw_trusted_has(&core->trusted, ip) || count(core, slot, ip);
}

static int64_t upgrade_capacity(const struct rw_upgrade_rate *rate) {
    int64_t second = (int64_t)rate->per_kilosecond * 1000;
    return second > UPGRADE_TOKENS ? second : UPGRADE_TOKENS;
}

void rw_client_limit_upgrades(struct rw_upgrade_rate *rate, uint32_t per_kilosecond, uint32_t now_ms) {
    *rate = (struct rw_upgrade_rate){.per_kilosecond = per_kilosecond, .refilled_ms = now_ms};
    rate->tokens = upgrade_capacity(rate);
}

uint32_t rw_client_refuses_upgrade(struct rw_core *core, struct rw_slot *slot, const uint8_t *told, uint32_t bytes) {
    struct rw_upgrade_rate *rate = &core->upgrade_rate;
    if (rate->per_kilosecond) {
        rate->tokens = rw_rate_refill(rate->tokens, rate->per_kilosecond, upgrade_capacity(rate),
                                      core->now_ms - rate->refilled_ms);
        rate->refilled_ms = core->now_ms;
        if (rate->tokens < UPGRADE_TOKENS) {
            RW_COUNT(core, refused_upgrade_rate, 1);
            return 503;
        }
    }
    return count_told(core, slot, told, bytes) ? 0 : 429;
}

void rw_client_on_upgrade_asked(struct rw_core *core) {
    if (core->upgrade_rate.per_kilosecond) core->upgrade_rate.tokens -= UPGRADE_TOKENS;
}

void rw_client_is_told(struct rw_slot *slot, const uint8_t *told, uint32_t bytes) {
    if (bytes == 0) return;
    memcpy(slot->proxied_address, told, bytes);
    slot->proxied_bytes = (uint8_t)bytes;
    slot->proxied_port = 0;
}

void rw_client_on_next_request(struct rw_core *core, struct rw_slot *slot) {
    /* Behind a trusted peer it is a handshake that was counted, and the host has refused it. */
    if (slot->state.peer_trusted) rw_client_release(core, slot);
}

/* ------------------------------------------------------------------ questions of the host */

int32_t rw_core_trusted_proxies(struct rw_core *core, const struct rw_address_range *ranges, uint32_t count_of_ranges) {
    return rw_trusted_set(&core->trusted, ranges, count_of_ranges);
}

int32_t rw_core_remote_address(const struct rw_core *core, uint32_t slot_index, uint32_t generation, char *out,
                               uint32_t bytes, uint32_t *port) {
    const struct rw_slot *slot = rw_slot_pool_get(&core->pool, slot_index, generation);
    *port = 0;
    if (!slot || slot->fd < 0) return RW_ERR_STALE;
    struct peer peer = peer_of(core, slot->fd);
    if (peer.kind == PEER_UNIX) return 0;
    if (peer.kind != PEER_IP) return -ENOTCONN;
    *port = peer.port;
    int is_v4 = rw_ip_is_v4(peer.ip);
    return inet_ntop(is_v4 ? AF_INET : AF_INET6, peer.ip + (is_v4 ? 12 : 0), out, bytes) ? (int32_t)strlen(out)
                                                                                         : -errno;
}

int32_t rw_core_peer(const struct rw_core *core, uint32_t slot_index, uint32_t generation, uint32_t proxied,
                     uint8_t *out, uint32_t *port) {
    const struct rw_slot *slot = rw_slot_pool_get(&core->pool, slot_index, generation);
    *port = 0;
    if (!slot || slot->fd < 0) return RW_ERR_STALE;
    if (proxied) {
        const struct rw_protocol *protocol = rw_protocol_of(core, slot);
        uint32_t told = protocol->client_address ? protocol->client_address(slot, out) : 0;
        if (told) return (int32_t)told;
        *port = slot->proxied_port;
        memcpy(out, slot->proxied_address, slot->proxied_bytes);
        return slot->proxied_bytes;
    }
    struct peer peer = peer_of(core, slot->fd);
    if (peer.kind != PEER_IP) return 0;
    memcpy(out, peer.ip + (peer.address_bytes == 4 ? 12 : 0), peer.address_bytes);
    *port = peer.port;
    return peer.address_bytes;
}
