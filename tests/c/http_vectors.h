/* Test cases from Markdown: the pages of tests/vectors/http, whose notation valid.md tells.
 *
 * Role: reads one page and calls back for each case. A page that does not follow the notation fails the test: nothing
 * is skipped. */
#ifndef RW_HTTP_VECTORS_H
#define RW_HTTP_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR_BYTES_MAX 65536u
#define VECTOR_EXPECTATIONS_MAX 32u

struct vector_bytes {
    uint8_t at[VECTOR_BYTES_MAX];
    size_t bytes;
};

struct vector {
    const char *page;
    char title[160];
    bool chunked;
    struct vector_bytes input;
    uint32_t expectation_count;
    struct {
        char key[16];
        char value[1024]; /* still escaped */
    } expectations[VECTOR_EXPECTATIONS_MAX];
};

static void vector_fail(const struct vector *vector, const char *why, const char *what) {
    fail_msg("%s: \"%s\": %s%s%s", vector->page, vector->title, why, what[0] != '\0' ? ": " : "", what);
}

static void vector_push(struct vector_bytes *out, uint8_t byte) {
    assert_true(out->bytes < VECTOR_BYTES_MAX);
    out->at[out->bytes++] = byte;
}

/* Append text[0..len) with its escapes resolved. */
static void vector_unescape(struct vector *vector, const char *text, size_t len, struct vector_bytes *out) {
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\\') {
            vector_push(out, (uint8_t)text[i]);
            continue;
        }
        const char escape = ++i < len ? text[i] : '?';
        char *after = NULL;
        if (escape == 'r' || escape == 'n' || escape == 't' || escape == '0' || escape == '\\') {
            vector_push(out, escape == 'r'   ? '\r'
                             : escape == 'n' ? '\n'
                             : escape == 't' ? '\t'
                             : escape == '0' ? '\0'
                                             : '\\');
        } else if (escape == 'x' && i + 2 < len) {
            const char digits[3] = {text[i + 1], text[i + 2], '\0'};
            vector_push(out, (uint8_t)strtoul(digits, &after, 16));
            if (*after != '\0') vector_fail(vector, "bad escape", text);
            i += 2;
        } else if (escape == '{') {
            const unsigned long count = strtoul(text + i + 1, &after, 10);
            const char *close = memchr(text + i, '}', len - i);
            if (count == 0 || *after != ' ' || close == NULL || close < after)
                vector_fail(vector, "bad repetition", text);
            for (unsigned long n = 0; n < count; n++)
                vector_unescape(vector, after + 1, (size_t)(close - after) - 1, out);
            i = (size_t)(close - text);
        } else {
            vector_fail(vector, "bad escape", text);
        }
    }
}

/* The value of the nth expectation with this key, or NULL. */
static const char *vector_expected(const struct vector *vector, const char *key, uint32_t nth) {
    for (uint32_t i = 0; i < vector->expectation_count; i++) {
        if (strcmp(vector->expectations[i].key, key) == 0 && nth-- == 0) return vector->expectations[i].value;
    }
    return NULL;
}

/* `- key: value` */
static void vector_add_expectation(struct vector *vector, const char *line) {
    static const char *const keys[] = {"result", "method",  "target",   "host",   "flags", "length", "field",
                                       "key",    "version", "protocol", "origin", "body",  "rest",   "limits"};
    const char *colon = strchr(line, ':');
    assert_true(vector->expectation_count < VECTOR_EXPECTATIONS_MAX);
    if (colon == NULL || (size_t)(colon - line) >= sizeof(vector->expectations[0].key))
        vector_fail(vector, "no outcome", line);
    char *key = vector->expectations[vector->expectation_count].key;
    memcpy(key, line, (size_t)(colon - line));
    key[colon - line] = '\0';
    bool known = false;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) known = known || strcmp(keys[i], key) == 0;
    if (!known) vector_fail(vector, "unknown outcome", key);
    colon++;
    if (*colon == ' ') colon++;
    const size_t bytes = strlen(colon);
    assert_true(bytes < sizeof(vector->expectations[0].value));
    memcpy(vector->expectations[vector->expectation_count++].value, colon, bytes + 1);
}

static void vector_open_path(char *path, size_t bytes, const char *page) {
    const char *root = getenv("RW_VECTORS");
    const char *slash = strrchr(__FILE__, '/');
    if (root != NULL) snprintf(path, bytes, "%s/http/%s.md", root, page);
    else
        snprintf(path, bytes, "%.*s/../vectors/http/%s.md", slash == NULL ? 1 : (int)(slash - __FILE__),
                 slash == NULL ? "." : __FILE__, page);
}

/* Calls `run` for each case of a page. ret: how many there were */
static uint32_t vectors_run(const char *page, void (*run)(struct vector *vector)) {
    static struct vector vector;
    static char line[16384];
    char path[1024];
    uint32_t count = 0;
    bool titled = false;
    bool fenced = false;
    bool has_input = false;
    vector_open_path(path, sizeof(path), page);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail_msg("cannot read %s: run from the folder it was built in, or set RW_VECTORS to tests/vectors", path);
    vector.page = page;
    for (bool more = true; more;) {
        more = fgets(line, sizeof(line), file) != NULL;
        if (more) line[strcspn(line, "\n")] = '\0';
        if (fenced) {
            assert_true(more);
            if (strcmp(line, "```") == 0) fenced = false;
            else vector_unescape(&vector, line, strlen(line), &vector.input);
        } else if (!more || strncmp(line, "## ", 3) == 0) {
            if (titled) {
                if (!has_input || vector_expected(&vector, "result", 0) == NULL)
                    vector_fail(&vector, "a case has a fence and a result", "");
                run(&vector);
                count++;
            }
            snprintf(vector.title, sizeof(vector.title), "%.150s", more ? line + 3 : "");
            vector.input.bytes = 0;
            vector.expectation_count = 0;
            titled = true;
            has_input = false;
        } else if (titled && (strcmp(line, "```http") == 0 || strcmp(line, "```chunked") == 0)) {
            vector.chunked = line[3] == 'c';
            fenced = has_input = true;
        } else if (titled && strncmp(line, "- ", 2) == 0) {
            vector_add_expectation(&vector, line + 2);
        } else if (titled && line[0] != '\0') {
            vector_fail(&vector, "neither fence nor outcome", line);
        }
    }
    fclose(file);
    return count;
}

#endif
