/* Fuzzes the members of topics: the input is a program of joins, leaves, ticks, questions and deaths of workers, and, when
 * its first byte says so, of words of the shared memory that are overwritten in between.
 *
 * Beyond the sanitizers it checks: a list and a count agree, every seat can be left once, nobody stays and no memory is
 * lost; and whatever lies in the memory, every call ends. */
#include <string.h>
#include <unistd.h>

#include "fuzz_input.h"
#include "ringway.h"
#include "state/log.h"
#include "state/presence_records.h"

enum { TOPICS = 3, USERS = 5, SEATS = 24, WORKERS = 3, OPS_MAX = 300 };

struct seat {
    rw_block block; /* 0: free */
    uint32_t worker, topic;
};

struct fuzz {
    struct input *input;
    struct rw_state *state;
    struct rw_shm_header *shm;
    uint64_t address;
    struct rw_presence workers[WORKERS];
    struct rw_presence_clock now;
    struct seat seats[SEATS];
    uint32_t is_shared;
    int is_corrupted;
};

static struct rw_state_name name_of(uint32_t topic) {
    static const uint8_t names[TOPICS][90] = {
        "\0pa", "\0pchat/1", "\0pchat/with/a/name/that/has/no/room/beside/the/record/of/a/topic/in/a/block"};
    return rw_state_name(names[topic], (uint32_t)strlen((const char *)names[topic] + 1) + 1);
}

static struct rw_presence_bytes user_of(uint32_t user) {
    static uint8_t bytes[USERS][1024];
    static const uint32_t counts[USERS] = {1, 36, 40, 41, 1024};
    memset(bytes[user], 'a' + (int)user, sizeof bytes[user]);
    return (struct rw_presence_bytes){bytes[user], counts[user]};
}

static void worker_starts(struct fuzz *fuzz, uint32_t worker) {
    _Atomic uint32_t *epoch = &rw_shm_worker(fuzz->shm, worker)->epoch;
    *epoch += 1 + *epoch % 2;
    fuzz->workers[worker] = (struct rw_presence){
        .state = fuzz->state, .shm = fuzz->shm, .worker = worker, .epoch = *epoch, .is_shared = fuzz->is_shared};
}

static struct rw_presence_seat connection(uint32_t seat) { return (struct rw_presence_seat){seat, seat + 7}; }

static void join(struct fuzz *fuzz) {
    static uint8_t info[RW_PRESENCE_INFO_BYTES_MAX];
    struct seat *seat = &fuzz->seats[take(fuzz->input) % SEATS];
    const uint8_t what = take(fuzz->input), more = take(fuzz->input);
    if (seat->block != 0) return;
    seat->worker = what % WORKERS;
    seat->topic = what / 8 % TOPICS;
    const struct rw_state_name name = name_of(seat->topic);
    const struct rw_presence_join joining = {.seat = connection((uint32_t)(seat - fuzz->seats)),
                                             .user = user_of(what / 32 % USERS),
                                             .info = {info, more < 200 ? more / 4u : (more - 199u) * 290u},
                                             .grace_ms = more % 8 * 1000u * (1u + more % 32u),
                                             .members_max = 20};
    const int32_t result = rw_presence_join(&fuzz->workers[seat->worker], &name, &joining, &fuzz->now, &seat->block);
    if (result < 0) seat->block = 0;
    else CHECK(seat->block != 0);
    CHECK(fuzz->is_corrupted || result >= 0 || result == RW_ERR_FULL);
}

static void leave(struct fuzz *fuzz) {
    const uint32_t number = take(fuzz->input) % SEATS;
    struct seat *seat = &fuzz->seats[number];
    if (seat->block == 0) return;
    const struct rw_state_name name = name_of(seat->topic);
    const int32_t result = rw_presence_leave(&fuzz->workers[seat->worker], &name, seat->block, connection(number),
                                             take(fuzz->input) & 1, &fuzz->now);
    CHECK(fuzz->is_corrupted || result >= 0);
    seat->block = 0;
}

static void on_left(void *context, const uint8_t *name, uint32_t name_bytes) {
    (void)context;
    CHECK(name_bytes > 2 && name[0] == 0 && name[1] == 'p');
}

static void ask(struct fuzz *fuzz) {
    const uint8_t what = take(fuzz->input);
    const struct rw_state_name name = name_of(what % TOPICS);
    struct rw_presence *presence = &fuzz->workers[what / 8 % WORKERS];
    const uint32_t room = what < 128 ? 300000 : what;
    uint8_t *out = malloc(room); /* exactly so large */
    struct rw_position position;
    struct rw_presence_count count;
    const int64_t needed = rw_presence_list(presence, &name, fuzz->now.wall_ms, out, room, &position);
    (void)rw_presence_count(presence, &name, &count);
    uint32_t users = 0, connections = 0;
    for (int64_t at = 0; needed > 0 && needed <= room && at < needed; users++) {
        uint32_t some;
        uint16_t bytes[2];
        CHECK(needed - at >= 8);
        memcpy(&some, out + at, 4);
        memcpy(bytes, out + at + 4, 4);
        connections += some;
        at += 8 + bytes[0] + bytes[1];
    }
    if (!fuzz->is_corrupted) {
        CHECK(needed >= 0);
        if (needed <= room) CHECK(users == count.users && connections == count.connections);
    }
    free(out);
}

static void store(struct fuzz *fuzz) {
    static uint8_t out[RW_PRESENCE_DIRTY_BYTES_MAX + 100];
    const uint8_t what = take(fuzz->input);
    struct rw_presence *presence = &fuzz->workers[what % WORKERS];
    uint64_t used;
    const int32_t count = rw_presence_take(presence, what / 4 % 8, &fuzz->now, out, sizeof out, &used);
    CHECK(count >= 0 && used <= sizeof out);
    if (count > 0 && what & 128) {
        uint64_t version;
        uint16_t bytes[3];
        uint8_t name[RW_TOPIC_BYTES_MAX] = {0, 'p'};
        memcpy(&version, out + 4, 8);
        memcpy(bytes, out + 12, 6);
        CHECK(bytes[0] + 2u <= sizeof name);
        memcpy(name + 2, out + 18, bytes[0]);
        const struct rw_state_name of = rw_state_name(name, 2u + bytes[0]);
        (void)rw_presence_acknowledge(presence, &of, (struct rw_presence_bytes){out + 18 + bytes[0], bytes[1]},
                                      version);
    }
    if (what == 99) (void)rw_presence_rewrite(presence, take(fuzz->input));
}

/* A word of what presence keeps of a shard, or of a block. */
static void corrupt(struct fuzz *fuzz) {
    const uint8_t what = take(fuzz->input), where = take(fuzz->input), how = take(fuzz->input);
    const uint32_t shard = name_of(what % TOPICS).shard;
    const rw_block first = shard * RW_CHUNK_BLOCKS + 1;
    uint32_t value = how < 20 ? 0 : how < 40 ? UINT32_MAX : how < 90 ? take(fuzz->input) : first + how % 40u;
    if (what & 8) {
        fuzz->state->shards[shard].words[where % RW_SHARD_WORDS] = value;
        return;
    }
    const rw_block block = first + (what >> 4) + (what & 4 ? 16u : 0u);
    ((uint32_t *)(void *)(fuzz->state->blocks + (uint64_t)(block - 1) * RW_BLOCK_BYTES))[where % 32] = value;
}

static void step(struct fuzz *fuzz) {
    const uint8_t op = take(fuzz->input);
    switch (op % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4: join(fuzz); break;
        case 5:
        case 6:
        case 7: leave(fuzz); break;
        case 8: fuzz->now.monotonic_ms += take(fuzz->input) * 40u; break;
        case 9: fuzz->now.monotonic_ms += take(fuzz->input) * 4000u; break;
        case 10:
        case 11:
            (void)rw_presence_tick(&fuzz->workers[op / 16 % WORKERS], &fuzz->now, 1 + take(fuzz->input), on_left, fuzz);
            break;
        case 12: ask(fuzz); break;
        case 13: store(fuzz); break;
        case 14: {
            const uint32_t worker = op / 16 % WORKERS;
            if (op & 128) rw_shm_worker_gone(fuzz->address, worker);
            worker_starts(fuzz, worker);
            for (uint32_t i = 0; i < SEATS; i++)
                if (fuzz->seats[i].worker == worker) fuzz->seats[i].block = 0;
            break;
        }
        default:
            if (fuzz->is_corrupted) corrupt(fuzz);
            break;
    }
    fuzz->now.wall_ms++;
}

static void expect_nobody_left(struct fuzz *fuzz) {
    for (uint32_t worker = 0; worker < WORKERS; worker++) rw_shm_worker_gone(fuzz->address, worker);
    fuzz->is_shared = 0; /* so that those who have gone are not kept */
    worker_starts(fuzz, 0);
    for (uint32_t round = 0; round < 3; round++) {
        while (rw_presence_tick(&fuzz->workers[0], &fuzz->now, 1000, on_left, fuzz)) continue;
        for (uint32_t i = 0; i < 4; i++) (void)rw_presence_tick(&fuzz->workers[0], &fuzz->now, 1000, on_left, fuzz);
        fuzz->now.monotonic_ms += RW_PRESENCE_GRACE_MS_MAX + 1000;
    }
    for (uint32_t topic = 0; topic < TOPICS; topic++) {
        struct rw_presence_count count;
        const struct rw_state_name name = name_of(topic);
        CHECK(rw_presence_count(&fuzz->workers[0], &name, &count) == RW_OK && count.users == 0 &&
              count.connections == 0);
        (void)rw_log_forget(fuzz->state, &name);
    }
    for (uint32_t i = 0; i < 8 * RW_STATE_SHARDS; i++) rw_logs_sweep(fuzz->state, fuzz->now.wall_ms);
    struct rw_topic_memory usage;
    rw_state_usage(fuzz->state, &usage);
    CHECK(usage.damaged == 0 && usage.used_bytes <= (uint64_t)TOPICS * RW_WHEEL_BLOCKS * RW_BLOCK_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    const int32_t fd = rw_shm_create(WORKERS, 65536, 0, RW_STATE_BYTES_MIN);
    CHECK(fd >= 0);
    struct fuzz fuzz = {.input = &input, .address = rw_shm_map(fd, 0), .now = {1700000000000ull, 9000000}};
    close(fd);
    fuzz.shm = rw_shm_at(fuzz.address);
    fuzz.state = rw_state_open(fuzz.shm);
    CHECK(fuzz.state != NULL);
    const uint8_t mode = take(&input);
    fuzz.is_corrupted = mode & 1;
    fuzz.is_shared = mode >> 1 & 1;
    for (uint32_t worker = 0; worker < WORKERS; worker++) worker_starts(&fuzz, worker);
    for (uint32_t i = 0; i < OPS_MAX && input.at < input.end; i++) step(&fuzz);
    if (!fuzz.is_corrupted) expect_nobody_left(&fuzz);
    rw_state_close(fuzz.state);
    rw_shm_unmap(fuzz.address);
    return 0;
}
