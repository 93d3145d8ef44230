// Stands in for the frozen Python: it finds its files as that does, through /proc/self/exe, and opens them late.
// VERSION prints azvnet-lib/answer, and fails when azvnet-lib/again, opened a little later, is of another bundle.
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[PATH_MAX];

static void read_file(const char *name, char *text, size_t room) {
    char path[PATH_MAX + 64];
    snprintf(path, sizeof(path), "%s/azvnet-lib/%s", folder, name);
    FILE *file = fopen(path, "r");
    size_t size = file ? fread(text, 1, room - 1, file) : 0;
    if (size == 0) {
        fprintf(stderr, "%s is missing\n", path);
        exit(3);
    }
    text[size] = '\0';
    fclose(file);
}

int main(int argc, char **argv) {
    char answer[4096], again[4096];
    ssize_t size = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    if (size < 0)
        return 2;
    dirname(folder);
    read_file("answer", answer, sizeof(answer));
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        read_file("version", answer, sizeof(answer));
        fputs(answer, stdout);
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "agent") == 0)
        return pause();
    usleep(3000);
    read_file("again", again, sizeof(again));
    if (strcmp(answer, again) != 0) {
        fputs("two bundles are mixed\n", stderr);
        return 4;
    }
    fputs(answer, stdout);
    return 0;
}
