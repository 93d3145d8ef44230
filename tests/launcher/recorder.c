// SPDX-License-Identifier: Apache-2.0
// Stands in the place of the frozen Python beside a launcher: writes down, into the directory `record` beside
// itself, everything that a program is started with. Exits with 42.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[4096];

static int create(const char *name) {
    char path[8192];
    snprintf(path, sizeof(path), "%s/record/%s", directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        exit(41);
    return fd;
}

static void copy(int from, const char *name) {
    static char bytes[1 << 16];
    int to = create(name);
    for (ssize_t n; (n = read(from, bytes, sizeof(bytes))) > 0;)
        if (write(to, bytes, (size_t)n) != n)
            exit(41);
    close(to);
}

static void copy_file(const char *path, const char *name) {
    int from = open(path, O_RDONLY | O_CLOEXEC);
    copy(from, name);
    close(from);
}

int main(void) {
    static char open_descriptors[1 << 16];
    size_t len = 0;
    for (int fd = 0; fd < 512; fd++) { // before any is opened here
        char link[64], target[4096];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t size = readlink(link, target, sizeof(target));
        if (size >= 0)
            len += (size_t)snprintf(open_descriptors + len, sizeof(open_descriptors) - len, "%d %.*s\n", fd,
                                    (int)size, target);
    }
    ssize_t size = readlink("/proc/self/exe", directory, sizeof(directory) - 1);
    directory[size > 0 ? size : 0] = '\0';
    *strrchr(directory, '/') = '\0';
    char path[8192];
    snprintf(path, sizeof(path), "%s/record", directory);
    mkdir(path, 0700);
    int fds = create("descriptors");
    if (write(fds, open_descriptors, len) != (ssize_t)len)
        return 41;
    dprintf(fds, "-1 %d\n", fcntl(STDIN_FILENO, F_GET_SEALS));
    close(fds);
    copy_file("/proc/self/cmdline", "cmdline");
    copy_file("/proc/self/environ", "environ");
    copy_file("/proc/self/status", "status");
    char *cwd = getcwd(NULL, 0);
    int out = create("cwd");
    if (write(out, cwd, strlen(cwd)) < 0)
        return 41;
    close(out);
    if (fcntl(STDIN_FILENO, F_GETFD) >= 0)
        copy(STDIN_FILENO, "stdin");
    puts("recorded");
    return 42;
}
