/* Logged topics against a list of what was appended: two workers, clients that come with a position, stop reading,
 * vanish and come back, logs that are short, begin anew, and appends that nobody is told of, on rings that split and
 * delay by a seed.
 *
 * What must hold for every client, at any time: offsets of a topic rise by one within an epoch, but for its own
 * messages; what it gets at a position is what was appended there; a break is told before what comes after it. And in
 * the end, when all read and a second has passed: whoever is there has had the last of each log. Seeds run from 1;
 * RW_SEED=n runs one. */
#include "core_fixture.h"

#include "delivery/delivery.h"
#include "seeds.h"
#include "state/logs.h"

enum { WORKERS = 2, TOPICS = 3, CLIENTS = 8, SEEDS = 40, STEPS = 1200, CONNECTIONS_MAX = 100, ENTRIES_MAX = 4096 };
#define JSON 8u
#define RAW 7u

static const char *const names[TOPICS] = {"short", "longer", "long"};
static const uint32_t sizes[TOPICS] = {3, 40, 100000};

struct entry {
    struct rw_position at;
    uint32_t client, life; /* whose it was; client CLIENTS: nobody's */
};

struct topic {
    struct entry *entries; /* every one that was ever appended; its index is what it says */
    uint32_t count;
    struct rw_position end; /* epoch 0: there is no log, as far as is known */
};

struct client {
    struct peer *peer; /* NULL: away */
    uint32_t worker, life;
    struct rw_event open;
    struct rw_position at[TOPICS];     /* the last that it knows */
    uint8_t attached[TOPICS];          /* in this life */
    uint32_t directs[TOPICS][WORKERS]; /* the latest direct message of each worker that it has had */
};

struct world {
    struct host *hosts[WORKERS];
    struct topic topics[TOPICS];
    struct client clients[CLIENTS];
    uint64_t random;
    uint32_t connections[WORKERS], directs, recovered, lost;
};

static uint64_t below(struct world *world, uint64_t bound) {
    uint64_t z = world->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % bound;
}

static const struct entry *entry_at(const struct topic *topic, struct rw_position at) {
    for (uint32_t i = topic->count; i-- > 0;)
        if (topic->entries[i].at.epoch == at.epoch && topic->entries[i].at.offset == at.offset)
            return &topic->entries[i];
    return NULL;
}

/* ---------------------------------------------------------------- appending */

static void append(struct world *world, uint32_t worker, uint32_t t, uint32_t by, int quietly) {
    struct topic *topic = &world->topics[t];
    struct host *host = world->hosts[worker];
    if (topic->count == ENTRIES_MAX) return;
    struct entry *entry = &topic->entries[topic->count];
    *entry = (struct entry){.client = by};
    uint8_t bytes[1024];
    uint32_t name_bytes = (uint32_t)strlen(names[t]);
    memcpy(bytes, names[t], name_bytes);
    uint32_t text_bytes = (uint32_t)snprintf((char *)bytes + name_bytes, 16, "%u", topic->count);
    /* Of every length, so that queues are full at any place of a message. */
    uint32_t filled = text_bytes + (uint32_t)below(world, below(world, 4) ? 40 : 900);
    memset(bytes + name_bytes + text_bytes, ' ', filled - text_bytes);
    host_flush(host);
    if (quietly) {
        const struct rw_state_name name = rw_state_name(bytes, name_bytes);
        const struct rw_log_entry stored = {.payload = bytes + name_bytes, .bytes = filled, .flags = RW_SEND_TEXT};
        const struct rw_log_limits limits = {sizes[t], 3600};
        entry->client = CLIENTS;
        assert_int_equal(
            rw_log_append(host->core->state, &name, &stored, NULL, &limits, rw_logged_now_ms(), &entry->at, NULL),
            RW_OK);
    } else {
        struct rw_log_call call = {.topic_bytes = name_bytes,
                                   .payload_bytes = filled,
                                   .flags = RW_SEND_TEXT,
                                   .size = sizes[t],
                                   .seconds = 3600,
                                   .origin_worker = RW_NO_SLOT,
                                   .origin_slot = RW_NO_SLOT};
        if (by < CLIENTS) {
            entry->life = world->clients[by].life;
            call.origin_slot = world->clients[by].open.slot;
            call.origin_generation = world->clients[by].open.generation;
        }
        assert_int_equal(rw_core_log_append(host->core, &call, bytes), 0);
        entry->at = (struct rw_position){call.epoch, call.offset};
    }
    if (topic->end.epoch) {
        assert_true(entry->at.epoch == topic->end.epoch);
        assert_int_equal(entry->at.offset, topic->end.offset + 1);
    } else {
        assert_int_equal(entry->at.offset, 1);
    }
    topic->end = entry->at;
    topic->count++;
}

static void forget(struct world *world, uint32_t t) {
    const struct rw_state_name name = rw_state_name((const uint8_t *)names[t], (uint32_t)strlen(names[t]));
    (void)rw_log_forget(world->hosts[0]->core->state, &name);
    world->topics[t].end = (struct rw_position){0};
}

/* ---------------------------------------------------------------- clients */

static void attach(struct world *world, uint32_t c, uint32_t t) {
    struct client *client = &world->clients[c];
    struct topic *topic = &world->topics[t];
    struct host *host = world->hosts[client->worker];
    uint8_t bytes[16];
    uint32_t name_bytes = (uint32_t)strlen(names[t]);
    memcpy(bytes, names[t], name_bytes);
    int has_position = client->at[t].epoch != 0 && below(world, 5) != 0;
    struct rw_log_call call = {.topic_bytes = name_bytes,
                               .has_position = has_position ? 1 : 0,
                               .epoch = client->at[t].epoch,
                               .offset = client->at[t].offset};
    host_flush(host);
    int32_t result = rw_core_attach(host->core, client->open.slot, client->open.generation, &call, bytes);
    if (client->attached[t]) {
        assert_int_equal(result, 0);
        return;
    }
    assert_int_equal(result, 1);
    if (!topic->end.epoch) {
        assert_int_equal(call.offset, 0);
        topic->end = (struct rw_position){call.epoch, 0};
    }
    assert_true(call.epoch == topic->end.epoch);
    assert_int_equal(call.offset, topic->end.offset);
    uint64_t first = topic->end.offset > sizes[t] ? topic->end.offset - sizes[t] + 1 : 1;
    int expected = has_position && client->at[t].epoch == topic->end.epoch && client->at[t].offset + 1 >= first;
    assert_int_equal((call.result & RW_ATTACH_RECOVERED) != 0, expected);
    client->attached[t] = 1;
    memset(client->directs[t], 0, sizeof client->directs[t]);
    if (expected) world->recovered++;
    else client->at[t] = topic->end;
}

static void connect_client(struct world *world, uint32_t c) {
    struct client *client = &world->clients[c];
    client->worker = (uint32_t)below(world, WORKERS);
    if (world->connections[client->worker] == CONNECTIONS_MAX) return;
    world->connections[client->worker]++;
    struct host *host = world->hosts[client->worker];
    client->peer = peer_open_ws(host, JSON, &client->open);
    client->life++;
    memset(client->attached, 0, sizeof client->attached);
}

static void disconnect_client(struct world *world, uint32_t c) {
    struct client *client = &world->clients[c];
    peer_close(world->hosts[client->worker], client->peer);
    (void)host_expect(world->hosts[client->worker], RW_EVENT_CLOSE);
    client->peer = NULL;
}

/* Its own messages lie between two that it gets. */
static void expect_follows(const struct world *world, uint32_t c, uint32_t t, struct rw_position at) {
    const struct client *client = &world->clients[c];
    assert_true(client->attached[t]);
    assert_true(at.epoch == client->at[t].epoch);
    assert_true(at.offset > client->at[t].offset);
    for (uint64_t offset = client->at[t].offset + 1; offset < at.offset; offset++) {
        const struct entry *own = entry_at(&world->topics[t], (struct rw_position){at.epoch, offset});
        assert_non_null(own);
        assert_int_equal(own->client, c);
        assert_int_equal(own->life, client->life);
    }
}

static void take_message(struct world *world, uint32_t c, const char *text) {
    struct client *client = &world->clients[c];
    char name[16] = {0};
    unsigned long long epoch = 0, offset = 0;
    unsigned number = 0;
    uint32_t t = 0;
    if (sscanf(text, "{\"topic\":\"%15[a-z]\",\"data\":\"%u\"}", name, &number) == 2) {
        while (strcmp(names[t], name) != 0) t++;
        uint32_t *latest = &client->directs[t][number % WORKERS];
        assert_true(number > *latest);
        *latest = number;
        return;
    }
    int at_rest = 0;
    assert_int_equal(
        sscanf(text, "{\"topic\":\"%15[a-z]\",\"epoch\":\"%llx\",\"offset\":%llu,%n", name, &epoch, &offset, &at_rest),
        3);
    while (strcmp(names[t], name) != 0) t++;
    const struct rw_position at = {epoch, offset};
    if (strcmp(text + at_rest, "\"lost\":true}") == 0) {
        assert_true(client->attached[t]);
        /* Nothing that it has had is called lost. */
        assert_true(at.epoch != client->at[t].epoch || at.offset > client->at[t].offset);
        client->at[t] = at;
        world->lost++;
        return;
    }
    assert_int_equal(sscanf(text + at_rest, "\"data\":\"%u", &number), 1);
    expect_follows(world, c, t, at);
    assert_true(number < world->topics[t].count);
    const struct entry *entry = &world->topics[t].entries[number];
    assert_true(entry->at.epoch == at.epoch);
    assert_int_equal(entry->at.offset, at.offset);
    assert_false(entry->client == c && entry->life == client->life);
    client->at[t] = at;
}

/* ret: 1 something has come */
static int read_client(struct world *world, uint32_t c) {
    struct client *client = &world->clients[c];
    size_t before = client->peer->in_bytes;
    peer_pull(world->hosts[client->worker], client->peer);
    int came = client->peer->in_bytes > before;
    assert_false(client->peer->ended);
    for (;;) {
        const uint8_t *in = client->peer->in;
        size_t have = client->peer->in_bytes, head = 2;
        if (have < 2) return came;
        assert_int_equal(in[0], FIN_TEXT);
        size_t bytes = in[1];
        if (bytes == 126) {
            if (have < 4) return came;
            head = 4;
            bytes = (size_t)in[2] << 8 | in[3];
        }
        assert_true(bytes < 2000);
        if (have < head + bytes) return came;
        char text[2048];
        memcpy(text, in + head, bytes);
        text[bytes] = 0;
        peer_consume(client->peer, head + bytes);
        take_message(world, c, text);
    }
}

/* ---------------------------------------------------------------- a run */

static void be_unkind(struct world *world) {
    for (uint32_t i = 0; i < WORKERS; i++) {
        const struct rw_sim_faults faults = {.recv_split = (uint16_t)below(world, 500),
                                             .send_split = (uint16_t)below(world, 900),
                                             .delay = (uint16_t)below(world, 500)};
        rw_sim_faults_set(world->hosts[i]->core->ring, &faults);
    }
}

static void step(struct world *world) {
    uint32_t c = (uint32_t)below(world, CLIENTS), t = (uint32_t)below(world, TOPICS);
    struct client *client = &world->clients[c];
    struct host *host = world->hosts[below(world, WORKERS)];
    switch (below(world, 16)) {
        case 0:
        case 1:
        case 2:
            for (uint64_t burst = below(world, 12) + 1; burst-- > 0;)
                append(world, (uint32_t)below(world, WORKERS), t, CLIENTS, 0);
            break;
        case 3: append(world, (uint32_t)below(world, WORKERS), t, CLIENTS, 1); break;
        case 4:
            if (client->peer) append(world, client->worker, t, c, 0);
            break;
        case 5: {
            char text[16];
            /* Those of one worker come in their order. */
            uint32_t from = host == world->hosts[1];
            (void)snprintf(text, sizeof text, "%u", ++world->directs * WORKERS + from);
            host_publish(host, NULL, names[t], RW_SEND_TEXT, text, strlen(text));
            break;
        }
        case 6:
            if (client->peer) break;
            connect_client(world, c);
            if (client->peer) attach(world, c, t);
            break;
        case 7:
            if (client->peer && !below(world, 3)) disconnect_client(world, c);
            break;
        case 8:
            if (client->peer) attach(world, c, t);
            break;
        case 9:
            if (client->peer)
                rw_sim_peer_window(world->hosts[client->worker]->core->ring, client->peer->fd, below(world, 5000));
            break;
        case 10:
            if (client->peer) rw_sim_peer_window(world->hosts[client->worker]->core->ring, client->peer->fd, SIZE_MAX);
            break;
        case 11:
            if (!below(world, 12)) forget(world, t);
            break;
        case 12:
            if (!below(world, 8)) host_pass_time(host, 1200);
            break;
        case 13:
            if (client->peer) (void)read_client(world, c);
            break;
        default: host_turn(host);
    }
}

/* All read, and whatever was lost on its way is found. */
static void settle(struct world *world) {
    for (uint32_t c = 0; c < CLIENTS; c++) {
        struct client *client = &world->clients[c];
        if (client->peer) rw_sim_peer_window(world->hosts[client->worker]->core->ring, client->peer->fd, SIZE_MAX);
    }
    for (uint32_t quiet = 0; quiet < 3; quiet++) {
        for (uint32_t i = 0; i < WORKERS; i++) host_pass_time(world->hosts[i], 1200);
        for (uint32_t c = 0; c < CLIENTS; c++) {
            if (world->clients[c].peer && read_client(world, c)) quiet = 0;
        }
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        for (uint32_t t = 0; t < TOPICS; t++) {
            const struct rw_position end = world->topics[t].end;
            if (!world->clients[c].peer || !world->clients[c].attached[t] || !end.epoch || end.offset == 0) continue;
            struct rw_position next = {end.epoch, end.offset + 1};
            if (world->clients[c].at[t].epoch != end.epoch || world->clients[c].at[t].offset < end.offset)
                expect_follows(world, c, t, next); /* only its own are missing */
        }
    }
    for (uint32_t i = 0; i < WORKERS; i++) assert_int_equal(rw_topics_lags(world->hosts[i]->core->topics), 0);
}

static uint32_t all_recovered, all_lost, all_lags;

static void run_seed(uint64_t seed) {
    static struct world world;
    memset(&world, 0, sizeof world);
    world.random = seed;
    int32_t node = rw_shm_create(WORKERS, 65536, 0, (uint64_t)16 << 20);
    assert_true(node >= 0);
    for (uint32_t i = 0; i < WORKERS; i++) {
        const struct rw_core_config config = {.shm_fd = node, .worker_index = i, .worker_count = WORKERS};
        world.hosts[i] = host_open_seeded(RW_BACKEND_SIM, &config, seed * 2 + i);
        host_behavior(world.hosts[i], JSON,
                      (struct rw_behavior){.flags = RW_BEHAVIOR_POSITIONS, .max_backpressure_bytes = 4096});
    }
    for (uint32_t t = 0; t < TOPICS; t++) {
        world.topics[t].entries = calloc(ENTRIES_MAX, sizeof(struct entry));
        assert_non_null(world.topics[t].entries);
    }
    be_unkind(&world);
    for (uint32_t i = 0; i < STEPS; i++) {
        step(&world);
        if (i % 300 == 299) settle(&world);
        if (i % 100 == 99) be_unkind(&world);
    }
    settle(&world);
    all_recovered += world.recovered;
    all_lost += world.lost;
    for (uint32_t i = 0; i < WORKERS; i++) {
        all_lags += (uint32_t)world.hosts[i]->core->stats->topic_lags;
        assert_int_equal(world.hosts[i]->core->stats->closes_backpressure, 0);
        rw_sim_faults_set(world.hosts[i]->core->ring, &(struct rw_sim_faults){0});
        host_close(world.hosts[i]);
    }
    for (uint32_t t = 0; t < TOPICS; t++) free(world.topics[t].entries);
    close(node);
}

static void a_client_gets_every_message_once_in_order_or_is_told(void **state) {
    (void)state;
    run_seeds(SEEDS, run_seed);
    /* All of it was tried. */
    if (getenv("RW_SEED")) return;
    assert_true(all_recovered > 100);
    assert_true(all_lost > 100);
    assert_true(all_lags > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_client_gets_every_message_once_in_order_or_is_told)};
    watch_seeds("core_logged_model_test");
    int failed = cmocka_run_group_tests_name("logged topics against a list", tests, NULL, NULL);
    say_seed();
    return failed;
}
