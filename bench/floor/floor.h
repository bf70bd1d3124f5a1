/* The floor: what echo and fan-out cost when nothing is done but to receive and to send.
 *
 *   floor.c   the ring, connections, rooms        wire.c   HTTP heads and frames, in place
 *
 * It asks the kernel for the same as the gateway does (multishot accept and receive, provided buffers, one send for all
 * that one receive has brought) and leaves out the rest: no JavaScript, no limits, no deadlines, no checks beyond what
 * keeps it in step, no message longer than a receive buffer. What a gateway costs above it is the gateway's own.
 * Listens on 127.0.0.1, at PORT. */
#ifndef FLOOR_H
#define FLOOR_H

#include <stddef.h>
#include <stdint.h>

enum request_kind { REQUEST_INCOMPLETE, REQUEST_HELLO, REQUEST_ECHO, REQUEST_ROOM, REQUEST_UNKNOWN };

struct request {
    enum request_kind kind;
    size_t head_bytes;
    char path[64];
    char answer[256]; /* a whole HTTP response */
    size_t answer_bytes;
};

/* The request at bytes[0..len), and what to answer. */
void wire_request(const uint8_t *bytes, size_t len, struct request *request);

struct frames {
    size_t consumed; /* of the input; the rest is an incomplete frame */
    size_t bytes;    /* of the output, which lies where the input began */
    int closed;      /* a Close frame, or something that is not spoken here */
};

/* Turn the client's whole frames at bytes[0..len) into the server's frames of the same messages, in place: those have
 * no mask, so they are shorter. Pings become pongs. */
struct frames wire_frames(uint8_t *bytes, size_t len);

#endif
