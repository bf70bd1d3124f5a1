/* Any bytes as an offer of permessage-deflate, as compressed messages of a peer, and as messages that are compressed
 * here and inflated again. Checks: what is agreed to is in range, and agrees with itself when offered back; inflating
 * keeps to its limit and its room, whatever comes; fragments, whole messages and messages on their own come out as they
 * went in, in any order, on shared and on dedicated streams. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_input.h"
#include "ws/deflate.h"

#define LIMIT_MAX (1u << 18)

static size_t take_length(struct input *input, size_t unit) {
    size_t wanted = (size_t)take(input) * unit;
    size_t left = (size_t)(input->end - input->at);
    return wanted < left ? wanted : left;
}

/* A block of its own, so that the sanitizer sees one byte too many. */
static uint8_t *take_bytes(struct input *input, size_t count) {
    uint8_t *bytes = malloc(count ? count : 1);
    CHECK(bytes != NULL);
    if (count) memcpy(bytes, input->at, count);
    input->at += count;
    return bytes;
}

static void check_offer(struct input *input) {
    uint32_t deflate = (uint32_t)take(input) | (uint32_t)(take(input) & 0x1F) << 8;
    size_t count = (size_t)(input->end - input->at);
    uint8_t *offer = take_bytes(input, count);
    uint8_t answer[RW_DEFLATE_ANSWER_BYTES_MAX], again[RW_DEFLATE_ANSWER_BYTES_MAX];
    struct rw_deflate_terms terms, second;
    uint32_t bytes = rw_deflate_negotiate(deflate, offer, count, 1, &terms, answer);
    free(offer);
    CHECK((bytes > 0) == terms.agreed && bytes <= sizeof answer);
    if (!bytes) return;
    CHECK(deflate != 0);
    CHECK(terms.send_window >= RW_DEFLATE_WINDOW_MIN && terms.send_window <= RW_DEFLATE_WINDOW_MAX);
    CHECK(terms.receive_window == 0 || (terms.receive_window >= 8 && terms.receive_window <= RW_DEFLATE_WINDOW_MAX));
    CHECK(rw_deflate_negotiate(deflate, answer, bytes, 1, &second, again) == bytes &&
          memcmp(answer, again, bytes) == 0);
}

static struct rw_core *open_core(void) {
    struct rw_core *core = calloc(1, sizeof *core);
    CHECK(core != NULL);
    core->stats = core->private_stats = aligned_alloc(RW_CACHE_LINE_BYTES, sizeof *core->stats);
    CHECK(core->stats != NULL);
    memset(core->stats, 0, sizeof *core->stats);
    CHECK(rw_ws_create(core) == RW_OK);
    core->buffers = rw_buffers_create();
    CHECK(core->buffers != NULL);
    return core;
}

static struct rw_slot *open_slot(struct rw_core *core, struct input *input) {
    static const char offer[] = "permessage-deflate; client_max_window_bits";
    uint32_t window = 9 + take(input) % 7;
    core->behaviors[0].deflate = take(input) & 1 ? 0x101u : window << 4 | (1 + take(input) % 9) | window << 8;
    struct rw_slot *slot = aligned_alloc(RW_CACHE_LINE_BYTES, sizeof *slot);
    CHECK(slot != NULL);
    memset(slot, 0, sizeof *slot);
    slot->state.protocol = RW_WS_PROTOCOL;
    struct rw_deflate_terms terms;
    uint8_t header[RW_DEFLATE_HEADER_BYTES_MAX];
    CHECK(rw_deflate_answer(core, 0, (const uint8_t *)offer, sizeof offer - 1, &terms, header) > header);
    rw_deflate_keep(slot, &terms);
    return slot;
}

static void close_all(struct rw_core *core, struct rw_slot *slot) {
    rw_deflate_release(core, slot);
    rw_ws_destroy(core);
    rw_buffers_destroy(core->buffers, 0);
    free(core->private_stats);
    free(core);
    free(slot);
}

/* ret: 0 the connection would be closed */
static int check_inflate(struct rw_core *core, struct rw_slot *slot, struct input *input) {
    uint64_t limit = (uint64_t)take(input) * (LIMIT_MAX / 255);
    size_t place_bytes = take(input) & 1 ? RW_EVENT_LARGE_BYTES : 64;
    size_t count = take_length(input, 8);
    uint8_t *data = take_bytes(input, count);
    uint8_t *place = malloc(place_bytes);
    CHECK(place != NULL);
    struct rw_inflated out = {0};
    enum rw_inflate_result result = rw_deflate_inflate(core, slot, data, count, place, place_bytes, limit, &out);
    CHECK(result != RW_INFLATE_NO_MEMORY);
    if (result == RW_INFLATE_OK) {
        CHECK(out.bytes <= limit && (out.buffer || out.bytes <= place_bytes));
        if (out.buffer) rw_buffers_release(core->buffers, out.buffer);
    }
    free(place);
    free(data);
    return result == RW_INFLATE_OK;
}

static void check_comes_back(struct rw_core *core, struct rw_slot *slot, const uint8_t *wire, size_t wire_bytes,
                             const uint8_t *text, size_t bytes) {
    uint8_t place[256];
    struct rw_inflated out;
    CHECK(rw_deflate_inflate(core, slot, wire, wire_bytes, place, sizeof place, LIMIT_MAX, &out) == RW_INFLATE_OK);
    const uint8_t *back = out.buffer ? rw_buffers_data(core->buffers, out.buffer) : place;
    CHECK(out.bytes == bytes && (bytes == 0 || memcmp(back, text, bytes) == 0));
    if (out.buffer) rw_buffers_release(core->buffers, out.buffer);
}

static void check_own(struct rw_core *core, struct rw_slot *slot, const uint8_t *text, size_t bytes, size_t cut,
                      int fragments) {
    uint8_t *wire = malloc(2 * bytes + 256);
    CHECK(wire != NULL);
    size_t used = 0;
    for (int part = 0; part < (fragments ? 3 : 1); part++) {
        static const enum rw_deflate_part parts[] = {RW_DEFLATE_FIRST, RW_DEFLATE_MIDDLE, RW_DEFLATE_LAST};
        const size_t ends[] = {0, cut, cut, bytes};
        rw_buffer out = RW_BUFFER_NONE;
        const uint8_t *from = fragments ? text + ends[part] : text;
        int64_t written = rw_deflate_own(core, slot, fragments ? parts[part] : RW_DEFLATE_WHOLE, from,
                                         fragments ? ends[part + 1] - ends[part] : bytes, &out);
        CHECK(written >= 0);
        memcpy(wire + used, rw_buffers_data(core->buffers, out), (size_t)written);
        used += (size_t)written;
        rw_buffers_release(core->buffers, out);
    }
    check_comes_back(core, slot, wire, used, text, bytes);
    free(wire);
}

static void check_round_trip(struct rw_core *core, struct rw_slot *slot, struct input *input) {
    uint8_t how = take(input);
    size_t count = take_length(input, how & 8 ? 64 : 4);
    uint8_t *text = take_bytes(input, count);
    if (how & 1 && rw_ws_of(slot)->deflate_flags & RW_WS_DEFLATE_TAKEOVER) {
        check_own(core, slot, text, count, count * (how >> 4) / 16, how & 2);
    } else if (count) {
        rw_buffer out;
        int64_t written =
            rw_deflate_alone(core, rw_deflate_window(rw_ws_of(slot)->deflate_window, count), text, count, &out);
        CHECK(written > 0);
        rw_ws_of(slot)->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
        check_comes_back(core, slot, rw_buffers_data(core->buffers, out), (size_t)written, text, count);
        rw_buffers_release(core->buffers, out);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {.at = data, .end = data + size};
    uint8_t kind = take(&input);
    if (kind % 3 == 0) {
        check_offer(&input);
        return 0;
    }
    struct rw_core *core = open_core();
    struct rw_slot *slot = open_slot(core, &input);
    while (input.at < input.end) {
        if (kind % 3 == 1) {
            if (!check_inflate(core, slot, &input)) break;
        } else {
            check_round_trip(core, slot, &input);
        }
    }
    close_all(core, slot);
    return 0;
}
