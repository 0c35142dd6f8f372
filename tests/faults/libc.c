/* Stands between a program and the C library: at the k-th write, sync, rename or unlink below a directory
 * named `audit`, the process dies (FAULT=die, after half of a write), or the call fails: once with EIO
 * (FAULT=once), from then on with ENOSPC (FAULT=full), which writing in place into the reserve does not meet, or with
 * EROFS (FAULT=readonly), or the first sync from then on and no other (FAULT=sync, EIO). FAULT=slow makes every sync
 * take FAULT_AT milliseconds longer. With FAULT_LOG every call that changes something is written there when it is
 * done, so that tests can tell what a power cut would have left. Used by tests/journal_faults.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int calls, synced, at = -1;
static char fault;
static int log_fd = -2;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...)                       \
    static type (*real)(__VA_ARGS__);               \
    if (!real) real = dlsym(RTLD_NEXT, #name)

static void begin(void) {
    if (at >= 0) return;
    const char *k = getenv("FAULT_AT"), *f = getenv("FAULT"), *log = getenv("FAULT_LOG");
    /* `sync` and `slow` share a letter with nothing once this is told apart. */
    fault = !f ? 0 : !strcmp(f, "sync") ? 'y' : f[0];
    log_fd = log ? (int)open(log, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    at = k ? atoi(k) : 1 << 30;
}

static int is_below(const char *path) {
    size_t length = strlen(path);
    if (strstr(path, "sqlite")) return 0; /* sessions are kept there, too, and are no evidence */
    return strstr(path, "/audit/") != NULL || (length > 6 && !strcmp(path + length - 6, "/audit"));
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

/* 1: below the directory; 2: the reserve, whose place on the disk is taken. */
static int is_ours(int fd) {
    char path[4096];
    if (fd <= 2 || !path_of(fd, path, sizeof path)) return 0;
    size_t length = strlen(path);
    if (length > 14 && !strcmp(path + length - 14, "/audit/reserve")) return 2;
    return is_below(path);
}

/* Whether the fault strikes at this call. */
static int strikes(int whose, int is_sync) {
    begin();
    int now = __sync_add_and_fetch(&calls, 1);
    switch (fault) {
    case 'f': return now >= at && whose != 2;
    case 'r': return now >= at;
    case 'y': return is_sync && now >= at && __sync_add_and_fetch(&synced, 1) == 1;
    case 's': return 0;
    default: return now == at;
    }
}

static int fail(void) {
    if (fault == 'd') _exit(9);
    errno = fault == 'f' ? ENOSPC : fault == 'r' ? EROFS : EIO;
    return -1;
}

static void wait_if_slow(void) {
    begin();
    if (fault == 's') usleep((useconds_t)at * 1000);
}

/* What was done, after it was done: a head of one line and the bytes that were written. Held under the turn. */
static void note(char what, const char *path, const char *other, long place, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (log_fd < 0) return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char head[9000];
    int size = snprintf(head, sizeof head, "%c\t%lld%09ld\t%ld\t%zu\t%s\t%s\n", what, (long long)now.tv_sec,
                        now.tv_nsec, place, length, path, other ? other : "");
    if (real(log_fd, head, (size_t)size) != size) abort();
    if (length && real(log_fd, bytes, length) != (ssize_t)length) abort();
}

static void note_fd(char what, int fd, long place, const void *bytes, size_t length) {
    char path[4096];
    if (log_fd >= 0 && path_of(fd, path, sizeof path)) note(what, path, NULL, place, bytes, length);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    int whose = is_ours(fd);
    if (!whose) return real(fd, bytes, length);
    if (strikes(whose, 0)) {
        if (fault != 'r' && real(fd, bytes, length / 2) < 0) return -1;
        return fail();
    }
    pthread_mutex_lock(&turn);
    ssize_t done = real(fd, bytes, length);
    if (done > 0) note_fd('W', fd, lseek(fd, 0, SEEK_CUR) - done, bytes, (size_t)done);
    pthread_mutex_unlock(&turn);
    return done;
}

#define IN_PLACE(name)                                                                  \
    ssize_t name(int fd, const void *bytes, size_t length, off_t place) {               \
        REAL(ssize_t, name, int, const void *, size_t, off_t);                          \
        int whose = is_ours(fd);                                                        \
        if (!whose) return real(fd, bytes, length, place);                              \
        if (strikes(whose, 0)) {                                                        \
            /* What fits into a sector is written whole or not at all. */               \
            if (fault != 'r' && length > 512 && real(fd, bytes, length / 2, place) < 0) return -1; \
            return fail();                                                              \
        }                                                                               \
        pthread_mutex_lock(&turn);                                                      \
        ssize_t done = real(fd, bytes, length, place);                                  \
        if (done > 0) note_fd('W', fd, (long)place, bytes, (size_t)done);               \
        pthread_mutex_unlock(&turn);                                                    \
        return done;                                                                    \
    }
IN_PLACE(pwrite)
IN_PLACE(pwrite64)

#define ON_FD(name)                                     \
    int name(int fd) {                                  \
        REAL(int, name, int);                           \
        int whose = is_ours(fd);                        \
        if (!whose) return real(fd);                    \
        if (strikes(whose, 1)) return fail();           \
        wait_if_slow();                                 \
        pthread_mutex_lock(&turn);                      \
        int done = real(fd);                            \
        if (!done) note_fd('S', fd, 0, NULL, 0);        \
        pthread_mutex_unlock(&turn);                    \
        return done;                                    \
    }
ON_FD(fsync)
ON_FD(fdatasync)

#define CUT(name)                                       \
    int name(int fd, off_t length) {                    \
        REAL(int, name, int, off_t);                    \
        int whose = is_ours(fd);                        \
        if (!whose) return real(fd, length);            \
        pthread_mutex_lock(&turn);                      \
        int done = real(fd, length);                    \
        if (!done) note_fd('T', fd, (long)length, NULL, 0); \
        pthread_mutex_unlock(&turn);                    \
        return done;                                    \
    }
CUT(ftruncate)
CUT(ftruncate64)

/* Making a file is no call that counts, but fails on what is read-only. */
static int opened(int fd, const char *path, int flags) {
    if (fd >= 0 && is_below(path)) note('C', path, NULL, flags & O_TRUNC ? 1 : 0, NULL, 0);
    return fd;
}

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        REAL(int, name, const char *, int, ...);                                \
        va_list more;                                                           \
        va_start(more, flags);                                                  \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                           \
        if (!(flags & O_CREAT) || !is_below(path)) return real(path, flags, mode); \
        begin();                                                                \
        if (fault == 'r' && calls >= at) return fail();                         \
        pthread_mutex_lock(&turn);                                              \
        int fd = opened(real(path, flags, mode), path, flags);                  \
        pthread_mutex_unlock(&turn);                                            \
        return fd;                                                              \
    }
OPEN(open)
OPEN(open64)

#define ON_PATHS(name, letter, parameters, arguments, main, other, counts)      \
    int name parameters {                                                       \
        static int (*real) parameters;                                          \
        if (!real) real = dlsym(RTLD_NEXT, #name);                              \
        if (!is_below(main)) return real arguments;                             \
        if (counts && strikes(1, 0)) return fail();                             \
        begin();                                                                \
        if (fault == 'r' && calls >= at) return fail();                         \
        pthread_mutex_lock(&turn);                                              \
        int done = real arguments;                                              \
        if (!done) note(letter, main, other, 0, NULL, 0);                       \
        pthread_mutex_unlock(&turn);                                            \
        return done;                                                            \
    }
ON_PATHS(rename, 'R', (const char *from, const char *to), (from, to), to, from, 1)

/* Two names that change places; without that flag, a rename. */
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned int);
    if (!is_below(to)) return real(from_folder, from, to_folder, to, flags);
    if (strikes(1, 0)) return fail();
    pthread_mutex_lock(&turn);
    int done = real(from_folder, from, to_folder, to, flags);
    if (!done) note(flags & RENAME_EXCHANGE ? 'E' : 'R', to, from, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    return done;
}
ON_PATHS(unlink, 'U', (const char *path), (path), path, NULL, 1)
ON_PATHS(mkdir, 'D', (const char *path, mode_t mode), (path, mode), path, NULL, 0)
ON_PATHS(rmdir, 'X', (const char *path), (path), path, NULL, 0)
