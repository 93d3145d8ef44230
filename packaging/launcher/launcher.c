// SPDX-License-Identifier: Apache-2.0
// What the runtime executes as `azvnet` and `azvnet-ipam`. It hands environment, stdin and the namespace's
// descriptor to the resident agent and prints the answer: docs/architecture.md, "Agent protocol, version 1".
// On any doubt it replaces itself by the frozen Python beside it. It understands nothing of what it carries.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifndef REPLY_DEADLINE_MS
#define REPLY_DEADLINE_MS 25000 // for request and reply together; the tests build with less
#endif
enum { CONNECT_DEADLINE_S = 1, LIMIT = 256 << 10, STDIN_LIMIT = 16 << 20, ENTRIES = 1 << 16 };
enum { VERSION = 1, AS_IPAM = 1, NETNS_ATTACHED = 2, CARRIED_OUT = 0, NOT_TAKEN = 1, NOEXEC_SEAL = 8 };
enum answer { DONE, NONE, LOST, HUNG };
struct header { // of request and reply, as it travels
    char magic[4];
    uint16_t version, kind; // the request has its flags in the place of the kind
    uint32_t first, second; // lengths in bytes: environment and stdin, stdout and stderr
    uint8_t code, reserved[7];
};
_Static_assert(sizeof(struct header) == 24 && sizeof(size_t) == 8 && __BYTE_ORDER__ == 1234, "64 bits, LE");
static struct { struct header header; char body[LIMIT + STDIN_LIMIT + 1]; } request;
static struct { struct header header; char body[LIMIT]; } reply;
static size_t env_len, stdin_len, entries;
static char *environment[ENTRIES + 3]; // ours: without AZVNET_AGENT, with AZVNET_CALL_ID

static int64_t now_ms(void) {
    struct timespec now = {0};
    return clock_gettime(CLOCK_MONOTONIC, &now), now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

// After a system call that failed: whether to repeat it. At the deadline it says no, and errno is EAGAIN.
static bool again(int fd, short events, int64_t deadline) {
    for (int64_t left; errno == EAGAIN && (left = deadline - now_ms()) > 0; errno = EAGAIN)
        if (poll(&(struct pollfd){.fd = fd, .events = events}, 1, (int)(left < 60000 ? left : 60000)) > 0)
            return true;
    return errno == EINTR;
}

static bool write_all(int fd, const char *bytes, size_t len) {
    for (ssize_t n; len > 0; bytes += n, len -= (size_t)n)
        while ((n = write(fd, bytes, len)) < 0)
            if (!again(fd, POLLOUT, INT64_MAX))
                return false;
    return true;
}

// The last resort, when not even Python can be started: the spec's error object, code 5 (I/O failure).
static _Noreturn void fail(const char *what, const char *path) {
    const char *why = strerror(errno);
    char *begin = stpcpy(stpcpy(reply.body, "{\"cniVersion\":\"1.0.0\",\"code\":5,\"msg\":\"azvnet: "), what);
    char *end = stpcpy(begin, path);
    for (char *c = begin; c < end; c++)
        *c = (signed char)*c < ' ' || *c == '"' || *c == '\\' ? '?' : *c; // what JSON would want escaped
    end = stpcpy(stpcpy(stpcpy(end, ": "), why ? why : "?"), "\"}\n");
    (void)signal(SIGPIPE, SIG_IGN);
    (void)write_all(STDOUT_FILENO, reply.body, (size_t)(end - reply.body));
    _exit(1);
}

static void give_stdin_back(void) { // rewound: Python is to find on it all that the runtime wrote
    int fd = memfd_create("stdin", MFD_CLOEXEC | NOEXEC_SEAL); // as hardened nodes insist on
    if (fd < 0 && errno == EINVAL) // before Linux 6.3
        fd = memfd_create("stdin", MFD_CLOEXEC);
    if (fd < 0 || !write_all(fd, request.body + env_len, stdin_len) || lseek(fd, 0, SEEK_SET) != 0
        || (stdin_len > STDIN_LIMIT && (errno = EFBIG)) || dup2(fd, STDIN_FILENO) != STDIN_FILENO)
        fail("cannot hand on the network configuration from ", "stdin");
}

static _Noreturn void become_python(char **argv, char **env) {
    static char path[4096 + sizeof("azvnet-python")];
    if (stdin_len > 0)
        give_stdin_back();
    if (readlink("/proc/self/exe", path, 4096) < 0)
        fail("cannot find its own directory: ", "/proc/self/exe");
    strcpy(strrchr(path, '/') + 1, "azvnet-python");
    (void)execve(path, argv, env);
    fail("the installation is incomplete, install it again: cannot execute ", path);
}

// Environment and, behind it, the name of the call into the request; false when they are beyond the bounds.
static bool carry_environment(void) {
    static char call_id[] = "AZVNET_CALL_ID=0123456789abcdef0123456789abcdef";
    unsigned char random[16];
    for (char **entry = environ; *entry != NULL && entries <= ENTRIES; entry++)
        if (strncmp(*entry, "AZVNET_AGENT=", 13) != 0)
            environment[entries++] = *entry;
    if (entries > ENTRIES || getrandom(random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
        return false;
    for (size_t i = 0; i < 2 * sizeof(random); i++)
        strchr(call_id, '=')[1 + i] = "0123456789abcdef"[random[i / 2] >> (i % 2 ? 0 : 4) & 15];
    if (getenv("AZVNET_CALL_ID") == NULL)
        environment[entries++] = call_id;
    for (size_t i = 0, size; i < entries; i++, env_len += size) {
        if ((size = strlen(environment[i]) + 1) > LIMIT - env_len)
            return false;
        memcpy(request.body + env_len, environment[i], size);
    }
    return true;
}

static int connect_to_agent(void) { // a socket at which a process of root listens, or -1
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int64_t patience[2] = {CONNECT_DEADLINE_S}; // a timeval of 64 bits; with a full backlog
    struct ucred peer = {.uid = 1};
    const char *given = getenv("AZVNET_RUN_DIR"), *dir = given ? given : "/run/azvnet";
    if (strlen(dir) + sizeof("/agent.sock") > sizeof(name.sun_path))
        return -1;
    (void)stpcpy(stpcpy(name.sun_path, dir), "/agent.sock");
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock > STDERR_FILENO // else a standard stream is closed, and Python is to find it so
        && setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, patience, sizeof(patience)) == 0
        && connect(sock, (struct sockaddr *)&name, sizeof(name)) == 0
        && getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof(peer)}) == 0 && peer.uid == 0)
        return sock;
    return -1; // exec closes it
}

// DONE: the agent has the whole request. LOST: it never will, but may have said why.
static enum answer send_request(int sock, bool as_ipam, int64_t deadline) {
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } rights = {
        .header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec rest = {&request, sizeof(request.header) + env_len + stdin_len};
    struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1, .msg_control = &rights};
    const char *netns = getenv("CNI_NETNS");
    // O_NONBLOCK: a path that names a FIFO must not hang the call; the agent says what is wrong with it
    int fd = netns ? open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    memcpy(CMSG_DATA(&rights.header), &fd, sizeof(fd));
    message.msg_controllen = fd < 0 ? 0 : sizeof(rights);
    int flags = (as_ipam ? AS_IPAM : 0) | (fd < 0 ? 0 : NETNS_ATTACHED);
    request.header = (struct header){{'A', 'Z', 'V', 'N'}, VERSION, (uint16_t)flags, (uint32_t)env_len,
                                     (uint32_t)stdin_len, 0, {0}};
    for (ssize_t n; rest.iov_len > 0; rest.iov_len -= (size_t)n) {
        while ((n = sendmsg(sock, &message, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0)
            if (!again(sock, POLLOUT, deadline))
                return errno == EAGAIN ? HUNG : LOST;
        rest.iov_base = (char *)rest.iov_base + n;
        message.msg_controllen = 0; // the descriptor went with the first byte
    }
    return DONE;
}

static enum answer read_reply(int sock, int64_t deadline) {
    const struct header *header = &reply.header;
    for (size_t have = 0, need = sizeof(*header); have < need;) {
        ssize_t n = recv(sock, (char *)&reply + have, sizeof(reply) - have, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && !again(sock, POLLIN, deadline)))
            return n < 0 && errno == EAGAIN ? HUNG : LOST;
        have += n < 0 ? 0 : (size_t)n;
        if (have < sizeof(*header))
            continue;
        if (memcmp(header->magic, "AZVR", 4) != 0 || header->version != VERSION || header->kind == NOT_TAKEN)
            return NONE;
        need = sizeof(*header) + header->first + header->second;
        if (header->kind != CARRIED_OUT || need > sizeof(reply))
            return LOST; // it may have been carried out: Python is to look before it does it again
    }
    return DONE;
}

static enum answer ask_agent(const char *name) {
    int sock = connect_to_agent();
    for (ssize_t n = 1; sock >= 0 && n > 0; stdin_len += (size_t)n) // to its end, or a byte beyond the limit
        while ((n = read(STDIN_FILENO, request.body + env_len + stdin_len, STDIN_LIMIT + 1 - stdin_len)) < 0)
            if (!again(STDIN_FILENO, POLLIN, INT64_MAX))
                return NONE;
    if (sock < 0 || stdin_len > LIMIT)
        return NONE;
    int64_t deadline = now_ms() + REPLY_DEADLINE_MS;
    const char *slash = name ? strrchr(name, '/') : NULL, *base = slash ? slash + 1 : name;
    enum answer sent = send_request(sock, base && strcmp(base, "azvnet-ipam") == 0, deadline);
    enum answer answer = sent == HUNG ? HUNG : read_reply(sock, sent == LOST ? 0 : deadline);
    return sent == LOST && answer != DONE ? NONE : answer; // what it never had, it has not carried out
}

int main(int argc, char **argv) {
    char w[][18] = {"AZVNET_AGENT=gone", "AZVNET_AGENT=none", "AZVNET_AGENT=lost", "AZVNET_AGENT=hung"};
    if (argc > 1 || getenv("CNI_COMMAND") == NULL || !carry_environment())
        become_python(argv, environ);
    enum answer answer = ask_agent(argv[0]);
    environment[entries] = w[answer]; // what became of the call, for Python
    if (answer != DONE)
        become_python(argv, environment);
    bool written = signal(SIGPIPE, SIG_IGN) != SIG_ERR && write_all(1, reply.body, reply.header.first);
    (void)write_all(STDERR_FILENO, reply.body + reply.header.first, reply.header.second); // may fail
    if (!written && reply.header.code == 0 && strcmp(getenv("CNI_COMMAND"), "ADD") == 0)
        become_python(argv, environment); // nobody got to know of what was made: it undoes that
    return written ? reply.header.code : 1;
}
