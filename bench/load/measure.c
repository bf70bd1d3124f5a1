/* Marks, latencies and the report.
 *
 * Latencies go into buckets of a logarithmic scale with 32 steps an octave: at most 3 % off, constant memory, one
 * increment each. */
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define STEP_BITS 5u

_Noreturn void fail(const char *format, ...) {
    va_list arguments;
    fflush(stdout);
    fputs("load: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

void *allocate(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (memory == NULL) fail("out of memory");
    return memory;
}

uint64_t clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void mark(const char *name) {
    puts(name);
    fflush(stdout); /* whoever runs us reads the server's CPU time at this moment */
}

void measure_begin(struct load *load) {
    mark("measure-begin");
    load->client_cpu_seconds = cpu_seconds();
    load->now = load->measured_from = clock_now();
}

void measure_end(struct load *load) {
    mark("measure-end");
    load->measured_ns = clock_now() - load->measured_from;
    load->client_cpu_seconds = cpu_seconds() - load->client_cpu_seconds;
    load->stage = STAGE_DONE;
}

/* Values below 2^STEP_BITS have a bucket each; above, a bucket is 1/32 of its octave. */
static uint32_t bucket_of(uint64_t ns) {
    if (ns < (1u << STEP_BITS)) return (uint32_t)ns;
    const uint32_t shift = 63u - (uint32_t)__builtin_clzll(ns) - STEP_BITS;
    return ((shift + 1) << STEP_BITS) + (uint32_t)(ns >> shift) - (1u << STEP_BITS);
}

static double bucket_middle_us(uint32_t bucket) {
    if (bucket < (1u << STEP_BITS)) return (double)bucket / 1e3;
    const uint32_t shift = (bucket >> STEP_BITS) - 1;
    const uint64_t low = (uint64_t)((bucket & ((1u << STEP_BITS) - 1)) + (1u << STEP_BITS)) << shift;
    return ((double)low + (double)((uint64_t)1 << shift) / 2) / 1e3;
}

_Static_assert(((64u - STEP_BITS) << STEP_BITS) <= LATENCY_BUCKETS, "every 64-bit value has a bucket");

void latency_add(struct load *load, uint64_t ns) {
    if (load->stage != STAGE_MEASURING) return;
    load->latencies[bucket_of(ns)]++;
    load->latency_count++;
    if (ns > load->latency_max) load->latency_max = ns;
}

static double percentile_us(const struct load *load, double share) {
    const uint64_t rank = (uint64_t)(share * (double)load->latency_count);
    uint64_t seen = 0;
    for (uint32_t bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
        seen += load->latencies[bucket];
        if (seen > rank) return bucket_middle_us(bucket);
    }
    return (double)load->latency_max / 1e3;
}

void report(const struct load *load) {
    const double seconds = (double)load->measured_ns / 1e9;
    printf("{\"command\":\"%s\",\"connections\":%u,\"in_flight\":%u", load->workload->name, load->options.connections,
           load->options.in_flight);
    if (load->workload->holds) printf(",\"open\":%u", load->open);
    else
        printf(",\"messages\":%llu,\"seconds\":%.6f,\"per_second\":%.1f,\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%."
               "2f,\"p999_us\":%.2f,\"max_us\":%.2f,"
               "\"client_cpu_seconds\":%.6f",
               (unsigned long long)load->messages, seconds, seconds > 0 ? (double)load->messages / seconds : 0.0,
               percentile_us(load, 0.50), percentile_us(load, 0.90), percentile_us(load, 0.99),
               percentile_us(load, 0.999), (double)load->latency_max / 1e3, load->client_cpu_seconds);
    if (load->workload->report != NULL) load->workload->report(load);
    puts("}");
    fflush(stdout);
}
