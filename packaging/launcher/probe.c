// SPDX-License-Identifier: Apache-2.0
// azvnet-probe PAGE [SECONDS]: asks the agent for a page on its Unix socket, prints what it says, and exits 0 where
// the answer is 200. For probes of the kubelet and for people: docs/kubernetes.md. Starting the frozen Python for
// that would cost a node more than its pods do.
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, NO = 1, USAGE = 2, DEFAULT_SECONDS = 4, MAX_SECONDS = 600, HEAD_LIMIT = 8192, PAGE_LIMIT = 64 };
static struct { char bytes[HEAD_LIMIT]; size_t have, body; } answer; // head, and what came with it of the body
static int64_t deadline;

static int64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

// After a system call that failed: whether to repeat it. At the deadline it says no, and errno is ETIMEDOUT.
static bool again(int fd, short events) {
    if (errno == EINTR)
        return true;
    if (errno != EAGAIN)
        return false;
    for (int64_t left; (left = deadline - now_ms()) > 0;)
        if (poll(&(struct pollfd){.fd = fd, .events = events}, 1, (int)left) > 0)
            return true;
    errno = ETIMEDOUT;
    return false;
}

static bool write_all(int fd, const char *bytes, size_t len) {
    for (ssize_t n; len > 0; bytes += n, len -= (size_t)n)
        while ((n = write(fd, bytes, len)) < 0)
            if (!again(fd, POLLOUT))
                return false;
    return true;
}

static int say(int code, const char *what, const char *about, const char *why) {
    const char *words[] = {"azvnet-probe: ", what, about, why[0] ? ": " : "", why, "\n"};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        (void)write_all(STDERR_FILENO, words[i], strlen(words[i]));
    return code;
}

static int failed(const char *what, const char *about) {
    const char *why = errno == ETIMEDOUT ? "no answer in time" : strerror(errno);
    return say(NO, what, about, why ? why : "?");
}

static int reach(const char *path) { // a connection to the agent, or -1
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int64_t left = deadline - now_ms();
    struct timeval patience = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 + 1}; // with a full backlog
    if (strlen(path) >= sizeof(name.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    (void)stpcpy(name.sun_path, path);
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0)
        return -1;
    while (connect(sock, (struct sockaddr *)&name, sizeof(name)) != 0)
        if (errno != EINTR) {
            errno = errno == EAGAIN ? ETIMEDOUT : errno;
            return -1;
        }
    return sock;
}

// The number behind "HTTP/1.x "; 0 where there is none.
static int status_of(const char *head) {
    if (strncmp(head, "HTTP/1.", 7) != 0 || head[7] == '\0' || head[8] != ' ')
        return 0;
    int status = 0;
    for (const char *c = head + 9; c < head + 12; c++) {
        if (*c < '0' || *c > '9')
            return 0;
        status = 10 * status + (*c - '0');
    }
    return status;
}

// Bytes of the body as the head says, -1 where it does not, -2 where it says what is no number.
static int64_t length_of(const char *head) {
    const char *at = strcasestr(head, "\r\nContent-Length:");
    int64_t length = 0;
    if (at == NULL)
        return -1;
    for (at += strlen("\r\nContent-Length:"); *at == ' '; at++)
        continue;
    if (*at < '0' || *at > '9')
        return -2;
    for (; *at >= '0' && *at <= '9'; at++)
        if ((length = 10 * length + (*at - '0')) > INT64_C(1) << 40)
            return -2;
    return *at == '\r' ? length : -2;
}

// Reads until the head is whole: bytes[body] is where the body begins, and the head ends with NUL instead of its
// empty line.
static bool read_head(int sock) {
    for (;;) {
        char *end = memmem(answer.bytes, answer.have, "\r\n\r\n", 4);
        if (end != NULL) {
            end[2] = '\0';
            answer.body = (size_t)(end - answer.bytes) + 4;
            return memchr(answer.bytes, '\0', (size_t)(end - answer.bytes)) == NULL || ((errno = EPROTO), false);
        }
        ssize_t n = recv(sock, answer.bytes + answer.have, sizeof(answer.bytes) - answer.have, MSG_DONTWAIT);
        if (n < 0 && again(sock, POLLIN))
            continue;
        if (n <= 0) { // it ended, or the head is longer than any of ours
            errno = n == 0 ? EPROTO : errno;
            return false;
        }
        answer.have += (size_t)n;
    }
}

// The body, as it comes, to stdout. False when it is not as long as the head said, or can't be written.
static bool pass_body_on(int sock) {
    static char piece[65536];
    int64_t length = length_of(answer.bytes), passed = (int64_t)(answer.have - answer.body);
    if (length == -2 || !write_all(STDOUT_FILENO, answer.bytes + answer.body, (size_t)passed)) {
        errno = length == -2 ? EPROTO : errno;
        return false;
    }
    while (length == -1 || passed < length) {
        ssize_t n = recv(sock, piece, sizeof(piece), MSG_DONTWAIT);
        if (n < 0 && again(sock, POLLIN))
            continue;
        if (n < 0 || (n > 0 && !write_all(STDOUT_FILENO, piece, (size_t)n)))
            return false;
        if (n == 0)
            break;
        passed += n;
    }
    errno = EPROTO;
    return length == -1 || passed == length;
}

static bool send_request(int sock, const char *page) {
    char request[PAGE_LIMIT + 64];
    const char *end = stpcpy(stpcpy(stpcpy(request, "GET /"), page), " HTTP/1.1\r\nHost: node\r\n\r\n");
    for (const char *at = request; at < end;) {
        ssize_t n = send(sock, at, (size_t)(end - at), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && !again(sock, POLLOUT))
            return false;
        at += n < 0 ? 0 : n;
    }
    return true;
}

// Reads and prints the answer; the exit code.
static int take_answer(int sock, const char *path, const char *page) {
    if (!read_head(sock))
        return failed("the agent does not answer at ", path);
    int status = status_of(answer.bytes);
    if (status == 0)
        return say(NO, "what answers is no HTTP server: ", path, "");
    if (!pass_body_on(sock))
        return failed("the answer is incomplete: ", page);
    return status == 200 ? OK : NO;
}

static int64_t milliseconds(const char *text) { // of whole seconds; 0: it is no number, or too large
    int64_t seconds = 0;
    for (; *text >= '0' && *text <= '9' && seconds <= MAX_SECONDS; text++)
        seconds = 10 * seconds + (*text - '0');
    return *text == '\0' && seconds <= MAX_SECONDS ? seconds * 1000 : 0;
}

static bool is_page(const char *name) {
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz");
    return len > 0 && len < PAGE_LIMIT && name[len] == '\0';
}

int main(int argc, char **argv) {
    static char path[4096];
    const char *page = argc > 1 ? argv[1] + (argv[1][0] == '/') : "", *given = getenv("AZVNET_RUN_DIR");
    const char *dir = given && given[0] ? given : "/run/azvnet";
    int64_t patience = argc > 2 ? milliseconds(argv[2]) : DEFAULT_SECONDS * INT64_C(1000);
    (void)signal(SIGPIPE, SIG_IGN);
    deadline = now_ms() + patience;
    if (argc > 3 || !is_page(page) || patience == 0)
        return say(USAGE, "usage: azvnet-probe healthz|readyz|metrics|info [SECONDS]", "", "");
    if (strlen(dir) > sizeof(path) - sizeof("/http.sock"))
        return say(USAGE, "AZVNET_RUN_DIR is too long", "", "");
    (void)stpcpy(stpcpy(path, dir), "/http.sock");
    int sock = reach(path);
    if (sock < 0)
        return failed("the agent can't be reached at ", path);
    if (!send_request(sock, page))
        return failed("the agent does not answer at ", path);
    return take_answer(sock, path, page);
}
