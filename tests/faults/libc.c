/* Stands between a program and the C library: at the k-th write, sync, rename or unlink below a directory
 * named `audit`, the process dies (FAULT=die, after half of a write), or the call fails: once with EIO
 * (FAULT=once) or from then on with ENOSPC (FAULT=full), which writing in place into the reserve does not meet. Used
 * by tests/journal_faults.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int calls, at = -1;
static char fault;

/* 1: below the directory; 2: the reserve, whose place on the disk is taken. */
static int is_ours(int fd) {
    char link[64], path[4096];
    if (fd <= 2) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (length > 14 && !strcmp(path + length - 14, "/audit/reserve")) return 2;
    return strstr(path, "/audit/") != NULL || (length > 6 && !strcmp(path + length - 6, "/audit"));
}

static int strikes(int whose) {
    if (at < 0) {
        const char *k = getenv("FAULT_AT"), *f = getenv("FAULT");
        fault = f ? f[0] : 0;
        at = k ? atoi(k) : 1 << 30;
    }
    int now = __sync_add_and_fetch(&calls, 1);
    return fault == 'f' ? now >= at && whose != 2 : now == at;
}

static int fail(void) {
    if (fault == 'd') _exit(9);
    errno = fault == 'f' ? ENOSPC : EIO;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    int whose = is_ours(fd);
    if (whose && strikes(whose)) {
        if (real(fd, bytes, length / 2) < 0) return -1;
        return fail();
    }
    return real(fd, bytes, length);
}

#define IN_PLACE(name)                                                                  \
    ssize_t name(int fd, const void *bytes, size_t length, off_t place) {               \
        static ssize_t (*real)(int, const void *, size_t, off_t);                       \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                      \
        int whose = is_ours(fd);                                                        \
        if (whose && strikes(whose)) {                                                  \
            /* What fits into a sector is written whole or not at all. */               \
            if (length > 512 && real(fd, bytes, length / 2, place) < 0) return -1;      \
            return fail();                                                              \
        }                                                                               \
        return real(fd, bytes, length, place);                                          \
    }
IN_PLACE(pwrite)
IN_PLACE(pwrite64)

#define ON_FD(name)                                     \
    int name(int fd) {                                  \
        static int (*real)(int);                        \
        if (!real) real = dlsym(RTLD_NEXT, #name);      \
        int whose = is_ours(fd);                        \
        return whose && strikes(whose) ? fail() : real(fd); \
    }
ON_FD(fsync)
ON_FD(fdatasync)

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = dlsym(RTLD_NEXT, "rename");
    return strstr(to, "/audit/") && strikes(1) ? fail() : real(from, to);
}

int unlink(const char *path) {
    static int (*real)(const char *);
    if (!real) real = dlsym(RTLD_NEXT, "unlink");
    return strstr(path, "/audit/") && strikes(1) ? fail() : real(path);
}
