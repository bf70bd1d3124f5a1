/* What a connection speaks: a table of operations for each protocol.
 *
 * Role: the seam between connection/ and the protocols above it, which fill one table each (http1/http.c, ws/ws.c) and
 * are named in one place, where a core is made (create.c). slot.state.protocol is an index into core->protocols; a
 * protocol may hand its connection over to another by writing it, as an upgrade does.
 *
 * Invariants: `sent`, `note_end`, `tell_closed`, `age` and `release` may be called in any phase but FREE, all others
 * only while the slot is OPEN. An operation may end the connection: whoever has called it looks at the phase again. */
#ifndef RW_PROTOCOL_H
#define RW_PROTOCOL_H

#include "connection/core.h"

/* Why a connection ends, where it is not the protocol itself that says so. */
enum rw_end_cause { RW_END_PEER_GONE, RW_END_BY_HOST, RW_END_NO_MEMORY, RW_END_WRITE_TIMEOUT };

struct rw_age_span;
struct rw_publication; /* delivery/publication.h */

struct rw_protocol {
    /* Names for ALPN (RFC 7301 §6), the best first, up to NULL. NULL: it is never chosen so. */
    const char *const *alpn;
    /* Output of a connection that is about to be served again waits for that: answers to a pipeline leave as one. */
    uint32_t gathers_output;

    /* -------------------------------------------------------------- bytes */
    /* An accepted connection begins to speak it. NULL: it is only handed over by another. */
    void (*open)(struct rw_core *core, struct rw_slot *slot);
    /* bytes[0..len) have come and nothing is kept in front of them. They may be changed. What it cannot take yet goes
     * to rw_connection_stash. */
    void (*input)(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len);
    /* Serve what is kept, and notices that are due. */
    void (*serve)(struct rw_core *core, struct rw_slot *slot);
    /* The kernel has taken some of the output. NULL: of no interest */
    void (*sent)(struct rw_core *core, struct rw_slot *slot);
    /* The kernel has taken all of it. */
    void (*drained)(struct rw_core *core, struct rw_slot *slot);
    /* ret: 1 a client is owed an answer that refusing its further input would take away. NULL: never */
    int (*owes_answer)(const struct rw_slot *slot);
    /* Input that must be kept goes past the budget (unfinished.h): say so, and end. */
    void (*refuse_input)(struct rw_core *core, struct rw_slot *slot);

    /* -------------------------------------------------------------- commands and questions of the host */
    /* A command about a request (ringway.h: RESPOND … UPGRADE). NULL: it has none. ret: >= 0, or enum rw_result */
    int32_t (*command)(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                       const uint8_t *data, uint64_t bytes);
    /* PAUSE, or RESUME with this window. NULL: nothing to say. ret: 0 nothing pauses it any more */
    int (*pause)(struct rw_slot *slot, int resume, uint32_t window);
    /* The host lets it go on: what was not read was not late. */
    void (*resumed)(struct rw_core *core, struct rw_slot *slot);
    /* The client's address, as the latest head has told it. out: 16 bytes. NULL: heads tell none. ret: 0, 4 or 16 */
    uint32_t (*client_address)(const struct rw_slot *slot, uint8_t *out);

    /* -------------------------------------------------------------- topics */
    /* Queue a message of a topic, in the form of the connection's dialect. NULL: connections of this protocol hear no
     * topics, and what follows is not asked. ret: enum rw_delivered */
    uint32_t (*deliver)(struct rw_core *core, struct rw_slot *slot, struct rw_publication *publication);
    /* ret: 1 it may subscribe, and be sent messages */
    int (*hears)(const struct rw_slot *slot);
    /* ret: 1 it hears the payload alone, in a WebSocket's frame that is the same for all such; as long as it lives */
    int (*hears_raw)(const struct rw_core *core, const struct rw_slot *slot);
    /* A log has lost so many messages before a connection that lags could take them: the policy for slow readers is
     * applied. NULL: there is none. ret: 1 it is told and goes on, 0 it ends */
    int (*fell_behind)(struct rw_core *core, struct rw_slot *slot, uint64_t messages);
    /* ret: where the connection counts its topics */
    uint32_t *(*topics)(struct rw_slot *slot);

    /* -------------------------------------------------------------- clock and end */
    /* A deadline may have come: look at what is due. */
    void (*timer)(struct rw_core *core, struct rw_slot *slot);
    /* The peer sends no more, and all it has sent was served as far as possible. */
    void (*peer_closed)(struct rw_core *core, struct rw_slot *slot);
    /* A drain begins. ret: 1 the connection has its turn in it. NULL: as all others of the protocol have */
    int (*drain)(struct rw_core *core, struct rw_slot *slot);
    /* Its turn has come. NULL: it has none. ret: 1 it was told to close, 0 it is closing already */
    int (*drain_now)(struct rw_core *core, struct rw_slot *slot);
    /* The first cause counts. Called before what ends the connection. */
    void (*note_end)(struct rw_slot *slot, enum rw_end_cause cause);
    /* ret: 1 the host knows that nothing more comes, 0 the batch is full */
    int (*tell_closed)(struct rw_core *core, struct rw_slot *slot);
    /* The slot is about to be given back: let go of what it holds. */
    void (*release)(struct rw_core *core, struct rw_slot *slot);
    /* Times of the past are set forward (age.h). NULL: it keeps none */
    void (*age)(struct rw_slot *slot, const struct rw_age_span *span);
};

static inline const struct rw_protocol *rw_protocol_of(const struct rw_core *core, const struct rw_slot *slot) {
    return core->protocols[slot->state.protocol];
}

#endif
