/* Lists of slots, see slot_list.h. */
#include "base/slot_list.h"

#include <errno.h>
#include <stdlib.h>

int32_t rw_slot_list_reserve(struct rw_slot_list *list, uint32_t capacity) {
    if (capacity <= list->capacity) return 0;
    uint32_t grown = list->capacity ? list->capacity : 256;
    while (grown < capacity) grown *= 2;
    uint32_t *items = realloc(list->items, grown * sizeof *items);
    if (!items) return -ENOMEM;
    list->items = items;
    list->capacity = grown;
    return 0;
}

int32_t rw_slot_list_push(struct rw_slot_list *list, uint32_t index) {
    if (list->count == list->capacity && rw_slot_list_reserve(list, list->count + 1) < 0) return -ENOMEM;
    list->items[list->count++] = index;
    return 0;
}
