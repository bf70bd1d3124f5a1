/* Users whose last connection has ended, by when their grace is over.
 *
 * Role: a wheel of two levels in five blocks of each shard that has had members; see presence_records.h.
 *
 *   cells 0..63    16 units each (1.024 s): those due within 64 of them from `turned` on
 *   cells 64..127  64 times that (65.5 s): later ones, moved to the first level when their time begins
 *
 * `turned` is where the wheel stands: in cells of the first level since the clock began. Everything due before it has been
 * found. Invariants: a user who waits is on the list of cell user->cell, and due no earlier than `turned`. */
#include "state/presence_records.h"

#define CELLS 64u
#define CELL_SHIFT 4u   /* units of a cell of the first level */
#define SECOND_SHIFT 6u /* of those, in one of the second */
#define CELLS_OF_BLOCK (RW_BLOCK_DATA_BYTES / sizeof(rw_block))
#define LOOKED_AT_MAX 256u    /* users of the present cell who are not due yet */
#define BEHIND_MAX (1u << 22) /* cells: 50 days in which somebody waits and nobody ticks */

static_assert(CELLS_OF_BLOCK * RW_WHEEL_BLOCKS >= RW_WHEEL_CELLS, "the wheel has its cells");
static_assert((RW_PRESENCE_GRACE_MS_MAX >> RW_DUE_UNIT_SHIFT >> CELL_SHIFT >> SECOND_SHIFT) + 2 < CELLS,
              "the longest grace is within one turn of the second level");

static struct rw_links *waiting_links(struct rw_tx *tx, rw_block block) {
    struct rw_present_user *user = rw_present_user_at(tx, block);
    return user == NULL ? NULL : &user->waiting;
}

/* ret: NULL: damage */
static rw_block *cell_at(struct rw_present_step *step, uint32_t cell) {
    struct rw_block_at *block =
        cell < RW_WHEEL_CELLS ? rw_block_at(&step->tx, step->roots->wheel[cell / CELLS_OF_BLOCK]) : NULL;
    if (block == NULL) {
        rw_tx_damaged(&step->tx);
        return NULL;
    }
    return (rw_block *)(void *)block->data + cell % CELLS_OF_BLOCK;
}

void rw_present_wheel_make(struct rw_present_step *step) {
    struct rw_tx *tx = &step->tx;
    if (step->roots->wheel[0] != 0) return;
    for (uint32_t i = 0; i < RW_WHEEL_BLOCKS; i++) {
        rw_block made = rw_blocks_take(tx, 1, NULL);
        struct rw_block_at *block = made == 0 ? NULL : rw_block_at(tx, made);
        if (block == NULL) {
            rw_tx_damaged(tx);
            return;
        }
        *block = (struct rw_block_at){0};
        RW_TX_SET(tx, step->roots->wheel[i], made);
    }
}

/* On the cell for its time, which may be an earlier one: then it is moved on when that comes. */
static void place(struct rw_present_step *step, rw_block block, struct rw_present_user *user) {
    struct rw_tx *tx = &step->tx;
    const uint32_t turned = step->roots->turned;
    uint32_t at = user->due >> CELL_SHIFT;
    if (at < turned) at = turned;
    uint32_t cell = at & (CELLS - 1);
    if (at - turned >= CELLS) {
        uint32_t second = at >> SECOND_SHIFT;
        const uint32_t farthest = (turned >> SECOND_SHIFT) + CELLS - 1;
        if (second > farthest) second = farthest;
        cell = CELLS + (second & (CELLS - 1));
    }
    rw_block *first = cell_at(step, cell);
    if (first == NULL) return;
    rw_present_push(tx, (struct rw_present_list){waiting_links, first, NULL}, block);
    RW_TX_SET(tx, user->cell, cell);
}

static void take_off(struct rw_present_step *step, rw_block block, struct rw_present_user *user) {
    rw_block *first = cell_at(step, user->cell);
    if (first != NULL) rw_present_unlink(&step->tx, (struct rw_present_list){waiting_links, first, NULL}, block);
}

void rw_present_wheel_add(struct rw_present_step *step, rw_block block, uint32_t due) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_roots *roots = step->roots;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    if (user == NULL) return;
    /* A wheel that nobody waits on stands still. */
    if (roots->waiting == 0) RW_TX_SET(tx, roots->turned, rw_present_units(step->now->monotonic_ms) >> CELL_SHIFT);
    RW_TX_SET(tx, user->due, due);
    RW_TX_SET(tx, user->flags, user->flags | RW_PRESENT_WAITS);
    RW_TX_SET(tx, roots->waiting, roots->waiting + 1);
    place(step, block, user);
}

void rw_present_wheel_remove(struct rw_present_step *step, rw_block block) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    if (user == NULL) return;
    take_off(step, block, user);
    RW_TX_SET(tx, user->flags, user->flags & ~RW_PRESENT_WAITS);
    RW_TX_SET(tx, step->roots->waiting, step->roots->waiting - 1);
}

/* One user of the second level whose time begins. ret: 0: there is none */
static int move_on(struct rw_present_step *step) {
    rw_block *first = cell_at(step, CELLS + (step->roots->turned >> SECOND_SHIFT & (CELLS - 1)));
    if (first == NULL || *first == 0) return 0;
    const rw_block block = *first;
    struct rw_present_user *user = rw_present_user_at(&step->tx, block);
    if (user == NULL) return 0;
    take_off(step, block, user);
    place(step, block, user);
    return 1;
}

/* Of the cell that the wheel stands at. ret: 0: none is due */
static rw_block due_of_cell(struct rw_present_step *step, rw_block first, uint32_t units) {
    rw_block block = first;
    for (uint32_t looked_at = 0; block != 0 && looked_at < LOOKED_AT_MAX; looked_at++) {
        const struct rw_present_user *user = rw_present_user_at(&step->tx, block);
        if (user == NULL) return 0;
        if (user->due <= units) return block;
        block = user->waiting.next;
    }
    return 0;
}

rw_block rw_present_wheel_due(struct rw_present_step *step, uint32_t *budget) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_roots *roots = step->roots;
    const uint32_t units = rw_present_units(step->now->monotonic_ms);
    if (roots->waiting != 0 && roots->turned < units >> CELL_SHIFT &&
        (units >> CELL_SHIFT) - roots->turned > BEHIND_MAX)
        rw_tx_damaged(tx);
    while (roots->waiting != 0 && roots->turned <= units >> CELL_SHIFT && *budget > 0 && !rw_tx_is_damaged(tx)) {
        rw_tx_commit(tx);
        if (move_on(step)) {
            (*budget)--;
            continue;
        }
        const rw_block *first = cell_at(step, roots->turned & (CELLS - 1));
        const rw_block due = first == NULL ? 0 : due_of_cell(step, *first, units);
        if (due != 0) {
            (*budget)--;
            return due;
        }
        if (roots->turned == units >> CELL_SHIFT) return 0; /* its users are due later */
        RW_TX_SET(tx, roots->turned, roots->turned + 1);
    }
    return 0;
}
