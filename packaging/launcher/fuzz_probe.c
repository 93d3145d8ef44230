// SPDX-License-Identifier: Apache-2.0
// Feeds the probe's reading of answers with whatever there is, and holds what it prints and how it ends against a
// second reading of HTTP. The socket is played here: no system call is made.
// See fuzz.h for how it is built.
#include "fuzz.h"

static struct { uint8_t bytes[1 << 17]; size_t size; } printed;

static ssize_t played_write(int fd, const void *bytes, size_t len) {
    if (fd != STDOUT_FILENO)
        return (ssize_t)len;
    len = next(&fed.pieces) % 3 && len > 1 ? len / 2 : len;
    memcpy(printed.bytes + printed.size, bytes, len);
    printed.size += len;
    return (ssize_t)len;
}

int probe(int argc, char **argv);
#define recv played_recv
#define write played_write
#define poll played_poll
#define clock_gettime played_clock
#define main probe
#include "probe.c"
#undef main

// The answer again, in other words: where its body begins, 0: it has none that counts.
static size_t body_of(const uint8_t *data, size_t size) {
    for (size_t at = 0; at + 4 <= size && at + 4 <= 8192; at++) {
        if (data[at] == '\0')
            return 0;
        if (data[at] == '\r' && data[at + 1] == '\n' && data[at + 2] == '\r' && data[at + 3] == '\n')
            return at + 4;
    }
    return 0;
}

static bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }

static bool is_http(const uint8_t *data, size_t head) {
    return head >= 16 && memcmp(data, "HTTP/1.", 7) == 0 && data[8] == ' ' && is_digit(data[9])
        && is_digit(data[10]) && is_digit(data[11]) && memcmp(data + 9, "000", 3) != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 5 || size > sizeof(printed.bytes))
        return 0;
    feed(data + 5, size - 5, (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3], data[4]);
    data += 5;
    size -= 5;
    printed.size = answer.have = answer.body = 0;
    deadline = 4000;
    int code = take_answer(3, "path", "page");
    size_t body = body_of(data, size);
    require(code == OK || code == NO);
    require(fed.seconds <= 4);
    require(printed.size <= size - body);
    require(memcmp(printed.bytes, data + body, printed.size) == 0);
    if (body == 0 || !is_http(data, body)) {
        require(code == NO && printed.size == 0);
        return 0;
    }
    if (code != OK)
        return 0;
    require(memcmp(data + 9, "200", 3) == 0);
    int64_t length = length_of(answer.bytes); // itself looked at below
    require(length == -1 ? fed.end == CLOSED && printed.size == size - body : length == (int64_t)printed.size);
    return 0;
}

#ifndef LIBFUZZER
static void check_lengths(void) {
    static const struct { const char *head; int64_t length; } known[] = {
        {"HTTP/1.1 200 OK\r\n", -1},
        {"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n", 12},
        {"HTTP/1.1 200 OK\r\ncontent-length:0\r\nA: b\r\n", 0},
        {"HTTP/1.1 200 OK\r\nX-Content-Length: 12\r\n", -1},
        {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", -2},
        {"HTTP/1.1 200 OK\r\nContent-Length: \r\n", -2},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1 2\r\n", -2},
        {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n", -2},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        require(length_of(known[i].head) == known[i].length);
}

// A good answer with bytes, fields and length changed here and there.
static size_t mutant(uint8_t *data, size_t room, uint32_t *state) {
    static const char *const starts[] = {"HTTP/1.1 200 OK", "HTTP/1.0 503 Service Unavailable", "HTTP/2 200 OK", "hello", ""};
    static const char *const fields[] = {"\r\nContent-Length: 10", "\r\ncontent-length:100", "\r\nContent-Length: x",
                                         "\r\nA: b", "\r\nContent-Length: 18446744073709551616", "\r\n\r\n", "\r", "\n"};
    size_t size = 5, body = next(state) % 4 ? 10 : next(state) % 300;
    for (int i = 0; i < 5; i++)
        data[i] = (uint8_t)next(state);
    size += strlen(strcpy((char *)data + size, starts[next(state) % 8 < 4 ? 0 : next(state) % 5]));
    for (uint32_t more = next(state) % 4; more > 0; more--)
        size += strlen(strcpy((char *)data + size, fields[next(state) % 8 < 5 ? next(state) % 4 : next(state) % 8]));
    if (next(state) % 30 == 0) { // a head at its limit
        size_t to = 5 + 8192 - 8 + next(state) % 16;
        size += (size_t)(stpcpy((char *)data + size, "\r\nX: ") - ((char *)data + size));
        memset(data + size, 'x', to - size);
        size = to;
    }
    size += strlen(strcpy((char *)data + size, "\r\n\r\n"));
    memset(data + size, 'b', body);
    size += body;
    for (uint32_t changes = next(state) % 3; changes > 0; changes--) {
        uint32_t at = 5 + next(state) % (uint32_t)(size - 5);
        if (next(state) % 3 == 0)
            size = at;
        else
            data[at] = (uint8_t)(next(state) % 4 ? next(state) : 0);
        if (size < 6)
            return size;
    }
    return size < room ? size : room;
}

int main(int argc, char **argv) {
    static uint8_t data[1 << 15];
    check_lengths();
    return run_mutants(argc, argv, data, sizeof(data));
}
#endif
