// SPDX-License-Identifier: Apache-2.0
// What fuzz.c and fuzz_probe.c share: a played socket whose bytes come in pieces, a played clock, and the rounds with
// mutants. A harness includes this first, replaces the calls in what it tests, and defines its mutant.
//
//   SOURCE=FILE.c LINK="-g -fsanitize=address,undefined -fno-sanitize-recover=all" STRIP=no build.sh fuzz
//   ./fuzz ROUNDS [SEED]          with the mutations of the harness
//   clang -g -O1 -fsanitize=fuzzer,address,undefined -DLIBFUZZER FILE.c -o fuzz && ./fuzz -max_total_time=60
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct {
    const uint8_t *bytes;
    size_t size, at;
    uint32_t pieces; // decides how the bytes are cut and where calls are interrupted
    enum { CLOSED, BROKEN, SILENT } end;
    time_t seconds;
} fed;

static void feed(const uint8_t *bytes, size_t size, uint32_t pieces, uint8_t end) {
    fed.bytes = bytes;
    fed.size = size;
    fed.at = 0;
    fed.pieces = pieces | 1;
    fed.end = end % 3 == 0 ? CLOSED : end % 3 == 1 ? BROKEN : SILENT;
    fed.seconds = 0;
}

static uint32_t next(uint32_t *state) { // xorshift
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static ssize_t played_recv(int sock, void *bytes, size_t len, int flags) {
    (void)sock, (void)flags;
    uint32_t chance = next(&fed.pieces);
    if (chance % 7 == 0 || (fed.at == fed.size && fed.end == SILENT)) {
        errno = chance % 2 && fed.at < fed.size ? EINTR : EAGAIN;
        return -1;
    }
    if (fed.at == fed.size && fed.end == BROKEN) {
        errno = ECONNRESET;
        return -1;
    }
    size_t left = fed.size - fed.at, piece = chance % 3 == 0 ? 1 : chance % 3 == 1 ? chance % 64 + 1 : left;
    piece = piece < left ? piece : left;
    piece = piece < len ? piece : len;
    memcpy(bytes, fed.bytes + fed.at, piece);
    fed.at += piece;
    return (ssize_t)piece;
}

static int played_poll(struct pollfd *waited, nfds_t count, int timeout) {
    (void)waited, (void)count, (void)timeout;
    if (fed.at < fed.size || fed.end != SILENT)
        return 1;
    fed.seconds++;
    return 0;
}

static int played_clock(clockid_t clock, struct timespec *now) {
    (void)clock;
    *now = (struct timespec){.tv_sec = fed.seconds};
    return 0;
}

static void require(bool holds) {
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef LIBFUZZER
// Makes an input of at most `room` bytes; returns its size.
static size_t mutant(uint8_t *data, size_t room, uint32_t *state);

static int run_mutants(int argc, char **argv, uint8_t *data, size_t room) {
    long rounds = argc > 1 ? atol(argv[1]) : 1000;
    uint32_t state = (uint32_t)(argc > 2 ? atol(argv[2]) : 1) * 2654435761U | 1;
    for (long i = 0; i < rounds; i++) {
        size_t size = mutant(data, room, &state);
        uint8_t *exact = malloc(size); // so that a step beyond the end is seen
        require(exact != NULL);
        LLVMFuzzerTestOneInput(memcpy(exact, data, size), size);
        free(exact);
    }
    return 0;
}
#endif
