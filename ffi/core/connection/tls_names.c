/* Server names, see tls_names.h. */
#include "connection/tls_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint32_t rw_tls_name_normalize(char *out, const uint8_t *name, size_t bytes) {
    if (bytes && name[bytes - 1] == '.') bytes--;
    if (bytes == 0 || bytes > RW_TLS_NAME_BYTES_MAX) return 0;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t c = name[i];
        uint8_t lower = (uint8_t)((uint8_t)(c - 'A') < 26u ? c + 32 : c);
        /* Underscores are no host name's (RFC 1123 §2.1), but are met. */
        int allowed = (uint8_t)(lower - 'a') < 26u || (uint8_t)(c - '0') < 10u || c == '-' || c == '_';
        if (c == '*') allowed = i == 0 && bytes > 2 && name[1] == '.';
        if (c == '.') allowed = i > 0 && name[i - 1] != '.';
        if (!allowed) return 0;
        out[i] = (char)lower;
    }
    out[bytes] = 0;
    return (uint32_t)bytes;
}

/* ret: 1 and *at is its place, or 0 and *at is where it belongs */
static int search(const struct rw_tls_names *names, const char *name, uint32_t *at) {
    uint32_t low = 0, high = names->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(names->items[middle].name, name);
        if (order == 0) {
            *at = middle;
            return 1;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *at = low;
    return 0;
}

int32_t rw_tls_names_set(struct rw_tls_names *names, const char *name, uint16_t number,
                         const struct rw_tls_context *context) {
    uint32_t at;
    if (search(names, name, &at)) {
        rw_tls_context_release(&names->items[at].context);
        names->items[at].context = *context;
        names->items[at].number = number;
        return RW_OK;
    }
    if (names->count == names->capacity) {
        uint32_t capacity = names->capacity ? names->capacity * 2 : 8;
        struct rw_tls_name *items = realloc(names->items, capacity * sizeof *items);
        if (!items) return -ENOMEM;
        names->items = items;
        names->capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy) return -ENOMEM;
    memmove(&names->items[at + 1], &names->items[at], (names->count - at) * sizeof *names->items);
    names->items[at] = (struct rw_tls_name){.name = copy, .context = *context, .number = number};
    names->count++;
    return RW_OK;
}

static void forget(struct rw_tls_name *item) {
    rw_tls_context_release(&item->context);
    free(item->name);
}

void rw_tls_names_remove(struct rw_tls_names *names, const char *name) {
    uint32_t at;
    if (!search(names, name, &at)) return;
    forget(&names->items[at]);
    names->count--;
    memmove(&names->items[at], &names->items[at + 1], (names->count - at) * sizeof *names->items);
}

const struct rw_tls_name *rw_tls_names_find(const struct rw_tls_names *names, const char *name) {
    uint32_t at;
    if (search(names, name, &at)) return &names->items[at];
    const char *rest = strchr(name, '.');
    if (!rest) return NULL;
    char wildcard[RW_TLS_NAME_BYTES_MAX + 2];
    size_t bytes = strlen(rest);
    if (bytes + 2 > sizeof wildcard) return NULL;
    wildcard[0] = '*';
    memcpy(wildcard + 1, rest, bytes + 1);
    return search(names, wildcard, &at) ? &names->items[at] : NULL;
}

void rw_tls_names_clear(struct rw_tls_names *names) {
    for (uint32_t i = 0; i < names->count; i++) forget(&names->items[i]);
    free(names->items);
    *names = (struct rw_tls_names){0};
}
