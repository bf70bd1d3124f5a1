/* permessage-deflate (RFC 7692), as far as the load client checks it: that the server has agreed to it, that every
 * message comes compressed, and that the first one of each connection inflates to what was published. Later ones are
 * counted only: inflating all of them would make the client the slower side. */
#include "load.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct inflater {
    z_stream stream;
};

/* What browsers offer: the server may keep its window between messages, and choose a smaller one for us. */
const char deflate_offer[] = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

void deflate_check_answer(const uint8_t *head, size_t len) {
    if (memmem(head, len, "permessage-deflate", 18) == NULL)
        fail("the server does not compress: the handshake has no permessage-deflate");
}

void deflate_take(const struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    struct ws_reader *reader = &connection->reader.ws;
    uint8_t out[4096];
    if (reader->inflater == NULL) {
        reader->inflater = allocate(1, sizeof *reader->inflater);
        /* A raw stream, whose window is 32 KiB at most: RFC 7692 §7.1.2. */
        if (inflateInit2(&reader->inflater->stream, -MAX_WBITS) != Z_OK) fail("out of memory");
    }
    z_stream *stream = &reader->inflater->stream;
    stream->next_in = (uint8_t *)(uintptr_t)bytes; /* zlib declares it without const, and does not write to it */
    stream->avail_in = (uInt)len;
    do {
        stream->next_out = out;
        stream->avail_out = sizeof out;
        const int result = inflate(stream, Z_SYNC_FLUSH);
        if (result != Z_OK && result != Z_BUF_ERROR && result != Z_STREAM_END)
            fail("connection %u: a message that does not inflate", connection->index);
        ws_check(load, connection, out, sizeof out - stream->avail_out);
        if (result == Z_STREAM_END) break;
    } while (stream->avail_out == 0 || stream->avail_in > 0);
}

void deflate_end(const struct load *load, struct connection *connection) {
    static const uint8_t tail[] = {0x00, 0x00, 0xFF, 0xFF}; /* RFC 7692 §7.2.1: the sender has cut it off */
    deflate_take(load, connection, tail, sizeof tail);
    inflateEnd(&connection->reader.ws.inflater->stream);
    free(connection->reader.ws.inflater);
    connection->reader.ws.inflater = NULL;
}
