/* Lists of slots, by index. Bounded by the number of slots, because a slot is on each once at most.
 *
 * Role: who is to be looked at, in order. Up: connection. Down: nothing. */
#ifndef RW_SLOT_LIST_H
#define RW_SLOT_LIST_H

#include <stdint.h>

struct rw_slot_list {
    uint32_t *items;
    uint32_t count;
    uint32_t capacity;
};

/* Room for `capacity` items in all. ret: 0, or -ENOMEM */
int32_t rw_slot_list_reserve(struct rw_slot_list *list, uint32_t capacity);
/* ret: 0, or -ENOMEM */
int32_t rw_slot_list_push(struct rw_slot_list *list, uint32_t index);

#endif
