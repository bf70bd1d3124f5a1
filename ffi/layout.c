/* Prints layout.ts: the constants and memory layouts of the ABI, as the compiler sees them.
 *
 * Role: headers → ffi/layout.ts, so that TypeScript never states an offset of its own. Run by `make layout`; `make
 * layout-check` compares. A value added to an enum, or a field added to a record, and forgotten here does not compile:
 * the lists below are checked against the headers by -Wswitch and by the sum of field sizes. Only the flags that share
 * bits by command or event (eventFlag, commandFlag) are not. */
#include <assert.h>
#include <ctype.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/slot.h"
#include "http1/http.h"
#include "ringway.h"
#include "state/logs.h"
#include "ws/ws.h"

/* ------------------------------------------------------------------ what the host needs of the headers */
/* Lists of macros, which the formatter would indent further with every line. */
/* clang-format off */
#define EVENT_TYPES(X)                                                                                         \
    X(RW_EVENT_NONE) X(RW_EVENT_REQUEST) X(RW_EVENT_BODY) X(RW_EVENT_ABORT) X(RW_EVENT_RESPONSE_DRAIN)         \
    X(RW_EVENT_OPEN) X(RW_EVENT_MESSAGE) X(RW_EVENT_CLOSE) X(RW_EVENT_WS_DRAIN) X(RW_EVENT_PING)               \
    X(RW_EVENT_PONG) X(RW_EVENT_DROPPED) X(RW_EVENT_CONNECT) X(RW_EVENT_DISCONNECT) X(RW_EVENT_SERVER_NAME) \
    X(RW_EVENT_INTEREST) X(RW_EVENT_MAIL) X(RW_EVENT_HALF_CLOSED) X(RW_EVENT_TOPIC) X(RW_EVENT_LOST)

#define COMMAND_TYPES(X)                                                                                       \
    X(RW_COMMAND_NONE) X(RW_COMMAND_RESPOND) X(RW_COMMAND_RESPOND_BEGIN) X(RW_COMMAND_RESPOND_CHUNK)           \
    X(RW_COMMAND_RESPOND_END) X(RW_COMMAND_RESPOND_ABORT) X(RW_COMMAND_BODY_ACK) X(RW_COMMAND_UPGRADE)         \
    X(RW_COMMAND_SEND) X(RW_COMMAND_WS_CLOSE) X(RW_COMMAND_PING) X(RW_COMMAND_SUBSCRIBE)                       \
    X(RW_COMMAND_UNSUBSCRIBE) X(RW_COMMAND_PUBLISH) X(RW_COMMAND_PAUSE) X(RW_COMMAND_RESUME)                   \
    X(RW_COMMAND_TERMINATE) X(RW_COMMAND_RESPOND_TRY) X(RW_COMMAND_SERVER_NAME) X(RW_COMMAND_MAIL) X(RW_COMMAND_RESPOND_EVENT) X(RW_COMMAND_RESPOND_PLACES)

#define METHODS(X)                                                                                             \
    X(RW_METHOD_OTHER) X(RW_METHOD_GET) X(RW_METHOD_HEAD) X(RW_METHOD_POST) X(RW_METHOD_PUT)                   \
    X(RW_METHOD_DELETE) X(RW_METHOD_CONNECT) X(RW_METHOD_OPTIONS) X(RW_METHOD_TRACE) X(RW_METHOD_PATCH)

#define BACKENDS(X) X(RW_BACKEND_AUTO) X(RW_BACKEND_IO_URING) X(RW_BACKEND_EPOLL) X(RW_BACKEND_SIM)

#define BEHAVIOR_FLAGS(X)                                                                                      \
    X(RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE) X(RW_BEHAVIOR_WANTS_PING) X(RW_BEHAVIOR_WANTS_PONG)                   \
    X(RW_BEHAVIOR_WANTS_DROPPED) X(RW_BEHAVIOR_WANTS_DRAIN) X(RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD)     \
    X(RW_BEHAVIOR_LIMIT_BEFORE) X(RW_BEHAVIOR_PAUSE_ON_RATE) X(RW_BEHAVIOR_POSITIONS)

#define LISTEN_FLAGS(X) X(RW_LISTEN_IPV6_ONLY) X(RW_LISTEN_EXCLUSIVE) X(RW_LISTEN_LATER)

#define LISTENER_FLAGS(X) X(RW_LISTENER_WANTS_CONNECT) X(RW_LISTENER_WANTS_SERVER_NAME) X(RW_LISTENER_PROXY_PROTOCOL) \
    X(RW_LISTENER_PROXY_REQUIRED) X(RW_LISTENER_ABORT_AT_FIN)

#define CORE_FLAGS(X) X(RW_CORE_WANTS_INTEREST) X(RW_CORE_WANTS_MAIL) X(RW_CORE_FOLLOWS_LOGS)

#define PROXY_HEADERS(X) X(RW_PROXY_HEADER_NONE) X(RW_PROXY_HEADER_X_FORWARDED_FOR) X(RW_PROXY_HEADER_FORWARDED)

#define TLS_FLAGS(X) X(RW_TLS_CLIENT_OPTIONAL)

#define ABORT_CAUSES(X)                                                                                        \
    X(RW_ABORT_PEER_GONE) X(RW_ABORT_REFUSED) X(RW_ABORT_WRITE_TIMEOUT) X(RW_ABORT_BY_HOST) X(RW_ABORT_LENGTH)   \
    X(RW_ABORT_NO_MEMORY) X(RW_ABORT_DRAINED)

#define CLOSE_CAUSES(X)                                                                                        \
    X(RW_CLOSE_BY_HOST) X(RW_CLOSE_BY_PEER) X(RW_CLOSE_PEER_GONE) X(RW_CLOSE_PROTOCOL_ERROR)                   \
    X(RW_CLOSE_INVALID_UTF8) X(RW_CLOSE_TOO_BIG) X(RW_CLOSE_INVALID_DEFLATE) X(RW_CLOSE_IDLE)                  \
    X(RW_CLOSE_BACKPRESSURE) X(RW_CLOSE_LIFETIME) X(RW_CLOSE_WRITE_TIMEOUT) X(RW_CLOSE_DRAIN)                  \
    X(RW_CLOSE_NO_MEMORY) X(RW_CLOSE_MESSAGE_RATE) X(RW_CLOSE_BYTE_RATE) X(RW_CLOSE_UNFINISHED)                     \
    X(RW_CLOSE_MESSAGE_TIMEOUT) X(RW_CLOSE_INFLATE_WINDOWS)

#define SLOT_PHASES(X)                                                                                         \
    X(RW_PHASE_FREE) X(RW_PHASE_OPEN) X(RW_PHASE_FINISHING) X(RW_PHASE_LINGERING) X(RW_PHASE_CLOSING)

#define RESULTS(X)                                                                                             \
    X(RW_OK, "ok") X(RW_ERR_INVALID, "invalid") X(RW_ERR_STALE, "stale") X(RW_ERR_FULL, "full")                \
    X(RW_ERR_ABI, "abi") X(RW_ERR_UNSUPPORTED, "unsupported")                                                     \
    X(RW_ERR_BEHIND, "behind") X(RW_ERR_UNFOLLOWED, "unfollowed")

#define EVENT_FLAGS(X)                                                                                         \
    X(RW_EVENT_LARGE, "large") X(RW_REQUEST_HAS_BODY, "requestHasBody")                                        \
    X(RW_REQUEST_UPGRADE, "requestUpgrade") X(RW_REQUEST_TLS, "requestTls")                                    \
    X(RW_REQUEST_HTTP10, "requestHttp10") X(RW_REQUEST_ASTERISK, "requestAsterisk")                            \
    X(RW_REQUEST_AUTHORITY, "requestAuthority") X(RW_REQUEST_X_FORWARDED, "requestXForwarded")                 \
    X(RW_REQUEST_FORWARDED, "requestForwarded") X(RW_BODY_END, "bodyEnd") X(RW_WS_BINARY, "wsBinary")          \
    X(RW_DROPPED_PAYLOAD, "droppedPayload") X(RW_INTEREST_WANTED, "interestWanted")   \
    X(RW_HEARD_TEXT, "heardText") X(RW_HEARD_POSITION, "heardPosition") X(RW_HEARD_LOST, "heardLost")          \
    X(RW_HEARD_JOIN, "heardJoin") X(RW_HEARD_LEAVE, "heardLeave") X(RW_HEARD_COMPRESS, "heardCompress")

#define COMMAND_FLAGS(X)                                                                                       \
    X(RW_COMMAND_FROM_EVENT, "fromEvent") X(RW_SEND_TEXT, "sendText")         \
    X(RW_SEND_FIRST, "sendFirst") X(RW_SEND_CONTINUE, "sendContinue") X(RW_SEND_LAST, "sendLast")              \
    X(RW_SEND_COMPRESS, "sendCompress") X(RW_SEND_OWN, "sendOwn")                                              \
    X(RW_RESPOND_SIZED, "respondSized") X(RW_RESPOND_CLOSE, "respondClose")                                    \
    X(RW_RESPOND_STATUS_TEXT, "respondStatusText") X(RW_RESPOND_NO_LENGTH, "respondNoLength")                  \
    X(RW_RESPOND_EVENTS, "respondEvents")                                                                       \
    X(RW_UPGRADE_QUIET, "upgradeQuiet") X(RW_BODY_KEPT, "bodyKept") X(RW_PUBLISH_REMOTE, "publishRemote")       \
    X(RW_LOG_JOIN, "entryJoin") X(RW_LOG_LEAVE, "entryLeave")

#define EVENT_FIELDS(X, R) \
    X(R, type) X(R, flags) X(R, slot) X(R, generation) X(R, offset) X(R, bytes) X(R, arg0) X(R, arg1) X(R, request) X(R, stream)

#define COMMAND_FIELDS(X, R) \
    X(R, type) X(R, flags) X(R, slot) X(R, generation) X(R, offset) X(R, bytes) X(R, arg0) X(R, arg1) X(R, request) X(R, stream)

#define BEHAVIOR_FIELDS(X, R)                                                                                  \
    X(R, max_payload_bytes) X(R, max_backpressure_bytes) X(R, idle_timeout_ms) X(R, ping_interval_ms)          \
    X(R, max_lifetime_ms) X(R, close_timeout_ms) X(R, flags) X(R, deflate) X(R, deflate_min_bytes)          \
    X(R, messages_per_second) X(R, bytes_per_second) X(R, message_timeout_ms)

#define TLS_OPTIONS_FIELDS(X, R)                                                                               \
    X(R, key_file) X(R, cert_file) X(R, ca_file) X(R, passphrase) X(R, dh_params_file) X(R, ciphers)           \
    X(R, crl_file) X(R, ocsp_file) X(R, also) X(R, min_version) X(R, flags)

#define CORE_CONFIG_FIELDS(X, R)                                                                               \
    X(R, abi_version) X(R, backend) X(R, max_connections) X(R, ring_entries) X(R, recv_buffers)                \
    X(R, recv_buffer_bytes) X(R, sqpoll) X(R, sqpoll_cpu) X(R, sqpoll_idle_ms) X(R, wake_fd)                   \
    X(R, inbox_fd_first) X(R, shm_fd) X(R, worker_index) X(R, worker_count) X(R, max_head_bytes)               \
    X(R, max_target_bytes) X(R, max_header_count) X(R, max_body_bytes_lo) X(R, max_body_bytes_hi)              \
    X(R, head_timeout_ms) X(R, body_timeout_ms) X(R, keep_alive_timeout_ms) X(R, write_timeout_ms)             \
    X(R, linger_timeout_ms) X(R, response_high_water_bytes) X(R, body_window_bytes)                             \
    X(R, flags) X(R, max_connections_per_ip) X(R, upgrades_per_kilosecond) X(R, proxy_header) X(R, unfinished_kib) \
    X(R, topics_per_socket) X(R, topics) X(R, min_bytes_per_second) X(R, inflate_kib)                     \
    X(R, host_layout)

#define CORE_INFO_FIELDS(X, R)                                                                                 \
    X(R, events) X(R, payload) X(R, commands) X(R, data) X(R, slots) X(R, stats) X(R, events_capacity)         \
    X(R, payload_bytes) X(R, commands_capacity) X(R, data_bytes) X(R, backend) X(R, max_connections)        \
    X(R, view) X(R, interrupted) X(R, epoch) X(R, reserved)

#define ADDRESS_RANGE_FIELDS(X, R) X(R, address) X(R, prefix_bits)

#define LOG_CALL_FIELDS(X, R)                                                                                  \
    X(R, epoch) X(R, offset) X(R, time_ms) X(R, topic_bytes) X(R, key_bytes) X(R, key_seconds)                 \
    X(R, payload_bytes) X(R, flags) X(R, size) X(R, seconds) X(R, origin_worker) X(R, origin_epoch)            \
    X(R, origin_slot) X(R, origin_generation) X(R, has_position) X(R, result) X(R, reserved)

/* Of the slot the host reads only these, to answer without a call; held_bytes and topics, which lie in the union, of
 * WebSockets alone. */
#define SLOT_FIELDS(X, R) X(R, generation) X(R, state) X(R, out_bytes) X(R, out_unflushed) X(R, host_word)

/* ------------------------------------------------------------------ are the lists complete? */
#define CASE(name) case name:
#define CASE_AS(name, key) case name:
/* Without a default: -Wswitch names the value that a list lacks. */
#define ENUM_IS_LISTED(function, type, list, each) \
    static int function(enum type value) {         \
        switch (value) { list(each) return 1; }    \
        return 0;                                  \
    }
ENUM_IS_LISTED(event_type_is_listed, rw_event_type, EVENT_TYPES, CASE)
ENUM_IS_LISTED(command_type_is_listed, rw_command_type, COMMAND_TYPES, CASE)
ENUM_IS_LISTED(method_is_listed, rw_method, METHODS, CASE)
ENUM_IS_LISTED(backend_is_listed, rw_backend, BACKENDS, CASE)
ENUM_IS_LISTED(behavior_flag_is_listed, rw_behavior_flag, BEHAVIOR_FLAGS, CASE)
ENUM_IS_LISTED(listen_flag_is_listed, rw_listen_flag, LISTEN_FLAGS, CASE)
ENUM_IS_LISTED(listener_flag_is_listed, rw_listener_flag, LISTENER_FLAGS, CASE)
ENUM_IS_LISTED(core_flag_is_listed, rw_core_flag, CORE_FLAGS, CASE)
ENUM_IS_LISTED(proxy_header_is_listed, rw_proxy_header, PROXY_HEADERS, CASE)
ENUM_IS_LISTED(tls_flag_is_listed, rw_tls_flag, TLS_FLAGS, CASE)
ENUM_IS_LISTED(abort_cause_is_listed, rw_abort_cause, ABORT_CAUSES, CASE)
ENUM_IS_LISTED(close_cause_is_listed, rw_close_cause, CLOSE_CAUSES, CASE)
ENUM_IS_LISTED(phase_is_listed, rw_phase, SLOT_PHASES, CASE)
ENUM_IS_LISTED(result_is_listed, rw_result, RESULTS, CASE_AS)

#define SIZE(record, field) +sizeof(((struct record *)0)->field)
#define RECORD_IS_LISTED(record, fields)                                 \
    static_assert((0 fields(SIZE, record)) == sizeof(struct record), #record ": a field is not listed, or padded")
RECORD_IS_LISTED(rw_event, EVENT_FIELDS);
RECORD_IS_LISTED(rw_command, COMMAND_FIELDS);
RECORD_IS_LISTED(rw_behavior, BEHAVIOR_FIELDS);
RECORD_IS_LISTED(rw_tls_options, TLS_OPTIONS_FIELDS);
RECORD_IS_LISTED(rw_core_config, CORE_CONFIG_FIELDS);
RECORD_IS_LISTED(rw_core_info, CORE_INFO_FIELDS);
RECORD_IS_LISTED(rw_address_range, ADDRESS_RANGE_FIELDS);
RECORD_IS_LISTED(rw_log_call, LOG_CALL_FIELDS);
/* clang-format on */

/* ------------------------------------------------------------------ printing, as the formatter leaves it */

/* OUT_BYTES or out_bytes → outBytes */
static void print_camel(const char *name) {
    for (int upper = 0; *name != 0; name++) {
        if (*name == '_') {
            upper = 1;
            continue;
        }
        putchar(upper ? toupper((unsigned char)*name) : tolower((unsigned char)*name));
        upper = 0;
    }
}

static void begin(const char *about, const char *name) { printf("\n/** %s */\nexport const %s = {\n", about, name); }

static void end(void) { puts("} as const;"); }

static void entry(const char *key, int64_t value) { printf("  %s: %lld,\n", key, (long long)value); }

/* prefix: the beginning that all names of the enum share */
static void entry_camel(const char *name, const char *prefix, int64_t value) {
    assert(strncmp(name, prefix, strlen(prefix)) == 0);
    printf("  ");
    print_camel(name + strlen(prefix));
    printf(": %lld,\n", (long long)value);
}

#define PRINT_ENTRY(name) entry_camel(#name, prefix, name);
#define PRINT_ENTRY_AS(name, key) entry(key, name);
/* `bytes` is the size of the record; a field of that name goes by bytes_key. */
#define PRINT_FIELD(record, field)                                                               \
    if (strcmp(#field, "bytes") == 0) entry(bytes_key, (int64_t)offsetof(struct record, field)); \
    else entry_camel(#field, "", (int64_t)offsetof(struct record, field));

#define PRINT_ENUM(about, name, shared, list, is_listed, first) \
    do {                                                        \
        const char *prefix = shared;                            \
        assert(is_listed(first));                               \
        begin(about, name);                                     \
        list(PRINT_ENTRY) end();                                \
    } while (0)

#define PRINT_RECORD(about, name, record, fields, key_of_bytes) \
    do {                                                        \
        const char *bytes_key = key_of_bytes;                   \
        (void)bytes_key;                                        \
        begin(about, name);                                     \
        entry("bytes", (int64_t)sizeof(struct record));         \
        fields(PRINT_FIELD, record) end();                      \
    } while (0)

static void print_constants(void) {
    printf("\nexport const abiVersion = %u;\n", RW_ABI_VERSION);
    printf("\n/** In the slot field of a command: no connection. */\nexport const noSlot = %u;\n", RW_NO_SLOT);
    assert(result_is_listed(RW_OK));
    begin("enum rw_result", "result");
    RESULTS(PRINT_ENTRY_AS)
    end();
    PRINT_ENUM("enum rw_backend", "backend", "RW_BACKEND_", BACKENDS, backend_is_listed, RW_BACKEND_AUTO);
    PRINT_ENUM("enum rw_event_type", "eventType", "RW_EVENT_", EVENT_TYPES, event_type_is_listed, RW_EVENT_NONE);
    begin("enum rw_event_flag: bits of rw_event.flags; which of them apply depends on the type", "eventFlag");
    EVENT_FLAGS(PRINT_ENTRY_AS)
    end();
    PRINT_ENUM("enum rw_method", "method", "RW_METHOD_", METHODS, method_is_listed, RW_METHOD_OTHER);
    PRINT_ENUM("enum rw_command_type", "commandType", "RW_COMMAND_", COMMAND_TYPES, command_type_is_listed,
               RW_COMMAND_NONE);
    begin("enum rw_command_flag: bits of rw_command.flags; which of them apply depends on the type", "commandFlag");
    COMMAND_FLAGS(PRINT_ENTRY_AS)
    end();
    PRINT_ENUM("enum rw_behavior_flag", "behaviorFlag", "RW_BEHAVIOR_", BEHAVIOR_FLAGS, behavior_flag_is_listed,
               RW_BEHAVIOR_WANTS_PING);
    PRINT_ENUM("enum rw_listen_flag", "listenFlag", "RW_LISTEN_", LISTEN_FLAGS, listen_flag_is_listed,
               RW_LISTEN_EXCLUSIVE);
    PRINT_ENUM("enum rw_listener_flag", "listenerFlag", "RW_LISTENER_", LISTENER_FLAGS, listener_flag_is_listed,
               RW_LISTENER_WANTS_CONNECT);
    PRINT_ENUM("enum rw_core_flag", "coreFlag", "RW_CORE_", CORE_FLAGS, core_flag_is_listed, RW_CORE_WANTS_MAIL);
    PRINT_ENUM("enum rw_proxy_header", "proxyHeader", "RW_PROXY_HEADER_", PROXY_HEADERS, proxy_header_is_listed,
               RW_PROXY_HEADER_NONE);
    PRINT_ENUM("enum rw_tls_flag", "tlsFlag", "RW_TLS_", TLS_FLAGS, tls_flag_is_listed, RW_TLS_CLIENT_OPTIONAL);
    PRINT_ENUM("enum rw_abort_cause", "abortCause", "RW_ABORT_", ABORT_CAUSES, abort_cause_is_listed,
               RW_ABORT_PEER_GONE);
    PRINT_ENUM("enum rw_close_cause", "closeCause", "RW_CLOSE_", CLOSE_CAUSES, close_cause_is_listed, RW_CLOSE_BY_HOST);
    PRINT_ENUM("enum rw_phase: rw_slot.state & slotStateMask.phase", "slotPhase", "RW_PHASE_", SLOT_PHASES,
               phase_is_listed, RW_PHASE_FREE);
}

static void print_slot_state(void) {
    /* Where a compiler puts bit fields is its own affair: ask it. */
    struct rw_slot_state state = {.phase = 7};
    struct rw_slot_state websocket = {.protocol = RW_WS_PROTOCOL};
    struct rw_slot_state left = {.left_by_host = 1};
    uint32_t phase = 0;
    uint32_t is_websocket = 0;
    uint32_t left_by_host = 0;
    static_assert(sizeof state == sizeof phase, "the state is one word");
    memcpy(&phase, &state, sizeof phase);
    memcpy(&is_websocket, &websocket, sizeof is_websocket);
    memcpy(&left_by_host, &left, sizeof left_by_host);
    begin("Bits of rw_slot.state", "slotStateMask");
    entry("phase", phase);
    entry("websocket", is_websocket);
    entry("leftByHost", left_by_host);
    end();
}

static void print_slot(void) {
    begin("struct rw_slot, as far as the host reads it; heldBytes and topics only of a WebSocket, request (a u16) only "
          "of HTTP",
          "slotLayout");
    const char *bytes_key = "";
    entry("bytes", (int64_t)sizeof(struct rw_slot));
    SLOT_FIELDS(PRINT_FIELD, rw_slot)
    entry("heldBytes", (int64_t)offsetof(struct rw_slot, own) + offsetof(struct rw_slot_ws, held_bytes));
    entry("topics", (int64_t)offsetof(struct rw_slot, own) + offsetof(struct rw_slot_ws, topics));
    static_assert(
        (offsetof(struct rw_slot, own) + offsetof(struct rw_slot_http, exchange.request)) % sizeof(uint32_t) == 0,
        "the lower half of a word");
    entry("request", (int64_t)offsetof(struct rw_slot, own) + offsetof(struct rw_slot_http, exchange.request));
    end();
    print_slot_state();
}

static void print_records(void) {
    PRINT_RECORD("struct rw_event; payloadBytes is its field `bytes`", "eventLayout", rw_event, EVENT_FIELDS,
                 "payloadBytes");
    PRINT_RECORD("struct rw_command; dataBytes is its field `bytes`", "commandLayout", rw_command, COMMAND_FIELDS,
                 "dataBytes");
    PRINT_RECORD("struct rw_behavior", "behaviorLayout", rw_behavior, BEHAVIOR_FIELDS, "");
    PRINT_RECORD("struct rw_tls_options; the first nine are addresses", "tlsOptionsLayout", rw_tls_options,
                 TLS_OPTIONS_FIELDS, "");
    PRINT_RECORD("struct rw_core_config", "coreConfigLayout", rw_core_config, CORE_CONFIG_FIELDS, "");
    PRINT_RECORD("struct rw_core_info; the first six and view are u64", "coreInfoLayout", rw_core_info,
                 CORE_INFO_FIELDS, "");
    PRINT_RECORD("struct rw_address_range", "addressRangeLayout", rw_address_range, ADDRESS_RANGE_FIELDS, "");
    PRINT_RECORD("struct rw_log_call; the first three are u64", "logCallLayout", rw_log_call, LOG_CALL_FIELDS, "");
    print_slot();
}

static void print_stats_field(const char *kind, const char *field, size_t offset) {
    printf("    { name: '%s', kind: '", field);
    print_camel(kind);
    printf("', offset: %zu },\n", offset);
}

static void print_stats(void) {
    begin("struct rw_stats: every field is a u64, and named as in C; behind them are the words of the host, so many",
          "statsLayout");
    entry("bytes", (int64_t)sizeof(struct rw_stats));
    entry("hostCounters", (int64_t)offsetof(struct rw_stats, host_counters));
    entry("hostCountersMost", RW_HOST_COUNTERS);
    entry("hostGauges", (int64_t)offsetof(struct rw_stats, host_gauges));
    entry("hostGaugesMost", RW_HOST_GAUGES);
    puts("  fields: [");
#define PRINT_STATS_FIELD(kind, field) print_stats_field(#kind, #field, offsetof(struct rw_stats, field));
    RW_STATS_FIELDS(PRINT_STATS_FIELD)
#undef PRINT_STATS_FIELD
    puts("  ],");
    end();
}

static void print_capacity(void) {
    begin(
        "Sizes of the batches, in records and bytes; and how many topics there may be, unless a config says otherwise",
        "capacity");
    entry("eventsCapacity", RW_EVENTS_CAPACITY);
    entry("payloadBytes", RW_PAYLOAD_BYTES);
    entry("lendBytes", RW_LEND_BYTES);
    entry("commandsCapacity", RW_COMMANDS_CAPACITY);
    entry("dataBytes", RW_DATA_BYTES);
    entry("topicsPerSocket", RW_TOPICS_PER_SOCKET_DEFAULT);
    entry("topics", RW_TOPICS_DEFAULT);
    entry("windowEventBytes", RW_WINDOW_EVENT_BYTES);
    end();
}

int main(void) {
    puts("// Generated by ffi/layout.c from the C headers; not to be edited. To regenerate: make -C ffi layout");
    puts("// Layouts: `bytes` is the size of the record, every other number the offset of that field, in bytes.");
    print_constants();
    print_records();
    print_stats();
    print_capacity();
    /* A layout cut short by a full disk must not pass for one. */
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
