// SPDX-License-Identifier: Apache-2.0
// Feeds the launcher's reading of replies, and its copying of the environment, with whatever there is, and holds
// the outcome against a second reading of the document. The socket is played here: no system call is made.
// See fuzz.h for how it is built.
#include "fuzz.h"

#include <sys/random.h>

int launcher(int argc, char **argv);
#define recv played_recv
#define poll played_poll
#define clock_gettime played_clock
#define main launcher
#include "launcher.c"
#undef main

static uint64_t little_endian(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | at[bytes];
    return value;
}

// The document again, in other words: what is to come of these bytes.
static enum answer expected(const uint8_t *data, size_t size) {
    enum answer cut_off = fed.end == SILENT ? HUNG : LOST;
    if (size < 24)
        return cut_off;
    if (memcmp(data, "AZVR", 4) != 0 || little_endian(data + 4, 2) != 1 || little_endian(data + 6, 2) == 1)
        return NONE;
    uint64_t body = little_endian(data + 8, 4) + little_endian(data + 12, 4);
    if (little_endian(data + 6, 2) != 0 || body > LIMIT)
        return LOST;
    return size - 24 < body ? cut_off : DONE;
}

static void fuzz_reply(const uint8_t *data, size_t size) {
    memset(&reply, 0, sizeof(reply.header));
    enum answer found = read_reply(3, 25000);
    require(found == expected(data, size));
    if (found == DONE) {
        uint64_t body = little_endian(data + 8, 4) + little_endian(data + 12, 4);
        require(memcmp(reply.body, data + 24, body) == 0 && reply.header.code == data[16]);
        require((uint64_t)reply.header.first + reply.header.second == body);
    }
}

static void fuzz_environment(const uint8_t *data, size_t size) {
    static char text[1 << 17], *given[1 << 16], **own;
    size_t count = 0, sent = 0;
    size = size < sizeof(text) - 1 ? size : sizeof(text) - 1;
    memcpy(text, data, size);
    text[size] = '\0';
    for (size_t at = 0; at < size && count < sizeof(given) / sizeof(*given) - 1; at += strlen(text + at) + 1)
        given[count++] = text + at;
    given[count] = NULL;
    own = environ;
    environ = given;
    env_len = entries = 0;
    bool named = getenv("AZVNET_CALL_ID") != NULL;
    require(carry_environment());
    environ = own;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(given[i], "AZVNET_AGENT=", 13) == 0)
            continue;
        require(strcmp(request.body + sent, given[i]) == 0);
        sent += strlen(given[i]) + 1;
    }
    if (!named) {
        require(strncmp(request.body + sent, "AZVNET_CALL_ID=", 15) == 0);
        require(strspn(request.body + sent + 15, "0123456789abcdef") == 32);
        sent += 48;
    }
    require(env_len == sent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 6)
        return 0;
    feed(data + 6, size - 6, (uint32_t)little_endian(data, 4), data[4]);
    (data[5] % 4 ? fuzz_reply : fuzz_environment)(data + 6, size - 6);
    return 0;
}

#ifndef LIBFUZZER
// A good reply or an environment, of any size, with bytes, fields and length changed here and there.
static size_t mutant(uint8_t *data, size_t room, uint32_t *state) {
    static const uint32_t lengths[] = {0, 1, 2, 23, 24, 262143, 262144, 262145, 0x7fffffff, 0x80000000, 0xffffffff};
    static const char *const words[] = {"AZVNET_AGENT=hung", "AZVNET_CALL_ID=", "AZVNET_AGENT", "=", "A=1"};
    bool large = next(state) % 100 == 0;
    size_t out = next(state) % (large ? 262145 : 300);
    size_t err = next(state) % (large ? 262145 - out : 100), size = 30 + out + err;
    memcpy(data + 6, "AZVR\1\0\0\0", 8);
    for (int i = 0; i < 6; i++)
        data[i] = (uint8_t)next(state);
    for (unsigned i = 0; i < 4; i++) {
        data[14 + i] = (uint8_t)(out >> 8 * i);
        data[18 + i] = (uint8_t)(err >> 8 * i);
    }
    for (size_t i = 22; i < (size < 400 ? size : 400); i++)
        data[i] = (uint8_t)next(state);
    for (uint32_t changes = next(state) % 4; changes > 0; changes--) {
        uint32_t kind = next(state) % 6, value = next(state), at = next(state) % 24;
        if (kind < 2)
            data[6 + at] = (uint8_t)value;
        else if (kind == 2)
            memcpy(data + 14 + at % 2 * 4, &lengths[value % 11], 4);
        else if (kind == 3)
            size = 6 + value % (size - 5);
        else if (kind == 4)
            size = size < room - 100 ? size + value % 100 : size;
        else
            strcpy((char *)data + 6 + at, words[value % 5]);
    }
    return size;
}

int main(int argc, char **argv) {
    static uint8_t data[6 + 24 + (256 << 10) + 1000];
    return run_mutants(argc, argv, data, sizeof(data));
}
#endif
