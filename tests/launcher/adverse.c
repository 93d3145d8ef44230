// SPDX-License-Identifier: Apache-2.0
// Linked into a launcher of the tests with --wrap: every system call that moves bytes is interrupted first,
// would block next, and then moves only a part. The kernel is an old one.
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned calls;

static int refused(void) {
    static const int errors[] = {EINTR, EAGAIN, 0};
    errno = errors[calls++ % 3];
    return errno != 0;
}

static size_t part(size_t len) {
    static const size_t parts[] = {1, 3, 22, 4099, 65536};
    size_t most = parts[calls / 3 % 5];
    return len < most ? len : most;
}

ssize_t __real_read(int fd, void *bytes, size_t len);
ssize_t __wrap_read(int fd, void *bytes, size_t len);
ssize_t __wrap_read(int fd, void *bytes, size_t len) {
    return refused() ? -1 : __real_read(fd, bytes, part(len));
}

ssize_t __real_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_write(int fd, const void *bytes, size_t len) {
    return refused() ? -1 : __real_write(fd, bytes, part(len));
}

ssize_t __real_recv(int sock, void *bytes, size_t len, int flags);
ssize_t __wrap_recv(int sock, void *bytes, size_t len, int flags);
ssize_t __wrap_recv(int sock, void *bytes, size_t len, int flags) {
    static unsigned interrupted; // it would block often enough by itself: the agent takes its time
    if (interrupted++ % 2) {
        errno = EINTR;
        return -1;
    }
    calls++;
    return __real_recv(sock, bytes, part(len), flags);
}

ssize_t __real_sendmsg(int sock, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int sock, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int sock, const struct msghdr *message, int flags) {
    if (refused())
        return -1;
    struct iovec first = {message->msg_iov->iov_base, part(message->msg_iov->iov_len)};
    struct msghdr shorter = *message;
    shorter.msg_iov = &first;
    shorter.msg_iovlen = 1;
    return __real_sendmsg(sock, &shorter, flags);
}

// A kernel before Linux 6.3, which does not know MFD_NOEXEC_SEAL.
int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags) {
    if (flags & 8) {
        errno = EINVAL;
        return -1;
    }
    return __real_memfd_create(name, flags);
}

int __real_poll(struct pollfd *waited, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *waited, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *waited, nfds_t count, int timeout) {
    static unsigned polls;
    if (polls++ % 2) {
        errno = EINTR;
        return -1;
    }
    return __real_poll(waited, count, timeout);
}
