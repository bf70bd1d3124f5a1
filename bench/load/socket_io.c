/* The protocol of Socket.IO 4 within text messages, as far as a subscriber of one room needs it: engine.io's packets
 * are told by their first character, Socket.IO's by the second.
 *
 *   0{…}          the server begins            40      we join the main namespace        40{…}    the server agrees
 *   2             the server asks: alive?      3       we are                            42[…]    an event */
#include "load.h"

#include <string.h>

const char socket_io_begin[] = "42[\"m\",\"";
const char socket_io_end[] = "\"]";

void socket_io_take(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    if (len >= 1 && bytes[0] == '0') ws_send_text(load, connection, "40");
    else if (len >= 2 && memcmp(bytes, "40", 2) == 0) net_opened(load, connection);
    else if (len == 1 && bytes[0] == '2') ws_send_text(load, connection, "3");
    else fail("connection %u: Socket.IO says %.*s", connection->index, (int)(len < 80 ? len : 80), (const char *)bytes);
}
