/*
 * A library for LD_PRELOAD that lets system calls of a live process fail, fall short, take long, or be its last.
 *
 * Orders stand in a page that is shared with the test (FAULT_ORDERS names the file): which calls are meant, on which
 * paths, at which of them something happens, and what. Without the variable nothing is changed. Only calls through
 * libc are seen: those of CPython, SQLite and uvloop are; memory mapped stores (-shm, stamps) and io_uring are not.
 *
 * The idea of arming a live process through shared memory, and of failing at the k-th call for every k, is that of
 * SQLite's own "I/O error" tests and of libfiu.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, TRUNCATE = 4, OPEN = 8, RENAME = 16, UNLINK = 32, MKDIR = 64, LINK = 128, READ = 256 };
enum { FAIL = 1, SHORTEN = 2, DELAY = 3, KILL_BEFORE = 4, KILL_AFTER = 5, LIE = 6 };

/* Laid out as tests/faults/shim.py packs it. */
struct orders {
    volatile uint32_t armed, calls, action, error, delay_ms, sticky;
    volatile uint64_t k, count, fired;
    char path[512];
    /* Syncs of a descriptor after one of its syncs has failed, while it is still the same open file; and those of them
       before which as much was written again as had been lost: a database is, from its log. */
    volatile uint64_t synced_again, synced_rewritten;
};

enum { DESCRIPTORS = 65536 };
static volatile char failed_to_sync[DESCRIPTORS];
/* Bytes written since the last sync, and those that went with the sync that failed. */
static volatile uint64_t unsynced[DESCRIPTORS], lost[DESCRIPTORS];

static struct orders *orders;

__attribute__((constructor)) static void map_orders(void)
{
    const char *name = getenv("FAULT_ORDERS");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        orders = page;
    close(file);
}

/* Whether a path holds the text of the orders; one that ends in `$` must stand at the path's end. */
static int is_meant(const char *path)
{
    size_t size = strlen(orders->path), length = path ? strlen(path) : 0;
    if (!size)
        return 1;
    if (orders->path[size - 1] != '$')
        return path && strstr(path, orders->path) != NULL;
    return length >= size - 1 && !strncmp(path + length - (size - 1), orders->path, size - 1);
}

/* What is to be done at this call: 0 for nothing. */
static uint32_t decide(uint32_t call, const char *path)
{
    if (!orders || !orders->armed || !(orders->calls & call))
        return 0;
    if (!is_meant(path))
        return 0;
    uint64_t number = __sync_add_and_fetch(&orders->count, 1);
    if (!orders->k || !(number == orders->k || (orders->sticky && number > orders->k)))
        return 0;
    __sync_add_and_fetch(&orders->fired, 1);
    if (orders->action == KILL_BEFORE)
        raise(SIGKILL);
    if (orders->action == DELAY) {
        struct timespec pause = {orders->delay_ms / 1000, (orders->delay_ms % 1000) * 1000000L};
        nanosleep(&pause, NULL);
        return 0;
    }
    return orders->action;
}

static uint32_t decide_by_descriptor(uint32_t call, int descriptor)
{
    char link[64], path[512];
    if (!orders || !orders->armed || !(orders->calls & call))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return decide(call, path);
}

/* Most of the daemon's paths are relative to a descriptor: the whole path is what counts. */
static uint32_t decide_at(uint32_t call, int directory, const char *path)
{
    char link[64], whole[1024];
    if (!orders || !orders->armed || !(orders->calls & call))
        return 0;
    if (!path || path[0] == '/' || directory == AT_FDCWD)
        return decide(call, path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, whole, 500);
    if (length < 0)
        length = 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return decide(call, whole);
}

/* The next function of that name, and what it returns: or an error instead of it. */
#define NEXT(type, name, ...) static type (*next)(__VA_ARGS__); if (!next) next = dlsym(RTLD_NEXT, #name)
#define REFUSE_IF_TOLD do { if (action == FAIL) { errno = orders->error; return -1; } if (action == LIE) return 0; } while (0)
#define RETURN(value) do { __typeof__(value) result = (value); if (action == KILL_AFTER) raise(SIGKILL); return result; } while (0)
#define SHORTENED(size) ((action == SHORTEN && (size) > 1) ? (size) / 2 : (size))

static void note_write(int fd, size_t size)
{
    if (orders && fd >= 0 && fd < DESCRIPTORS)
        __sync_add_and_fetch(&unsynced[fd], size);
}

ssize_t write(int fd, const void *data, size_t size)
{
    NEXT(ssize_t, write, int, const void *, size_t);
    uint32_t action = decide_by_descriptor(WRITE, fd);
    REFUSE_IF_TOLD;
    RETURN(next(fd, data, SHORTENED(size)));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    NEXT(ssize_t, pwrite, int, const void *, size_t, off_t);
    uint32_t action = decide_by_descriptor(WRITE, fd);
    REFUSE_IF_TOLD;
    note_write(fd, size);
    RETURN(next(fd, data, SHORTENED(size), at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    uint32_t action = decide_by_descriptor(WRITE, fd);
    REFUSE_IF_TOLD;
    note_write(fd, size);
    RETURN(next(fd, data, SHORTENED(size), at));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    NEXT(ssize_t, writev, int, const struct iovec *, int);
    uint32_t action = decide_by_descriptor(WRITE, fd);
    REFUSE_IF_TOLD;
    RETURN(next(fd, parts, count));
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{
    NEXT(ssize_t, pread64, int, void *, size_t, off64_t);
    uint32_t action = decide_by_descriptor(READ, fd);
    REFUSE_IF_TOLD;
    RETURN(next(fd, data, SHORTENED(size), at));
}

/* Linux says of a failed sync once, and forgets the pages: to sync again and believe the answer loses them. */
static void note_sync(int fd, uint32_t action)
{
    if (!orders || fd < 0 || fd >= DESCRIPTORS)
        return;
    if (failed_to_sync[fd]) {
        __sync_add_and_fetch(&orders->synced_again, 1);
        if (unsynced[fd] >= lost[fd]) {
            __sync_add_and_fetch(&orders->synced_rewritten, 1);
            failed_to_sync[fd] = action == FAIL;
        }
    }
    if (action == FAIL && !failed_to_sync[fd]) {
        failed_to_sync[fd] = 1;
        lost[fd] = unsynced[fd];
    }
    unsynced[fd] = 0;
}

int close(int fd)
{
    NEXT(int, close, int);
    if (fd >= 0 && fd < DESCRIPTORS)
        failed_to_sync[fd] = 0, unsynced[fd] = lost[fd] = 0;
    return next(fd);
}

int fsync(int fd)
{
    NEXT(int, fsync, int);
    uint32_t action = decide_by_descriptor(SYNC, fd);
    note_sync(fd, action);
    REFUSE_IF_TOLD;
    RETURN(next(fd));
}

int fdatasync(int fd)
{
    NEXT(int, fdatasync, int);
    uint32_t action = decide_by_descriptor(SYNC, fd);
    note_sync(fd, action);
    REFUSE_IF_TOLD;
    RETURN(next(fd));
}

int ftruncate(int fd, off_t size)
{
    NEXT(int, ftruncate, int, off_t);
    uint32_t action = decide_by_descriptor(TRUNCATE, fd);
    REFUSE_IF_TOLD;
    RETURN(next(fd, size));
}

int ftruncate64(int fd, off64_t size)
{
    NEXT(int, ftruncate64, int, off64_t);
    uint32_t action = decide_by_descriptor(TRUNCATE, fd);
    REFUSE_IF_TOLD;
    RETURN(next(fd, size));
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    NEXT(int, posix_fallocate, int, off_t, off_t);
    uint32_t action = decide_by_descriptor(TRUNCATE, fd);
    if (action == FAIL)
        return orders->error;
    RETURN(next(fd, at, size));
}

int posix_fallocate64(int fd, off64_t at, off64_t size)
{
    NEXT(int, posix_fallocate64, int, off64_t, off64_t);
    uint32_t action = decide_by_descriptor(TRUNCATE, fd);
    if (action == FAIL)
        return orders->error;
    RETURN(next(fd, at, size));
}

int rename(const char *from, const char *to)
{
    NEXT(int, rename, const char *, const char *);
    uint32_t action = decide(RENAME, to);
    REFUSE_IF_TOLD;
    RETURN(next(from, to));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    NEXT(int, renameat, int, const char *, int, const char *);
    uint32_t action = decide_at(RENAME, to_fd, to);
    REFUSE_IF_TOLD;
    RETURN(next(from_fd, from, to_fd, to));
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    NEXT(int, renameat2, int, const char *, int, const char *, unsigned);
    uint32_t action = decide_at(RENAME, to_fd, to);
    REFUSE_IF_TOLD;
    RETURN(next(from_fd, from, to_fd, to, flags));
}

int unlink(const char *path)
{
    NEXT(int, unlink, const char *);
    uint32_t action = decide(UNLINK, path);
    REFUSE_IF_TOLD;
    RETURN(next(path));
}

int unlinkat(int fd, const char *path, int flags)
{
    NEXT(int, unlinkat, int, const char *, int);
    uint32_t action = decide_at(UNLINK, fd, path);
    REFUSE_IF_TOLD;
    RETURN(next(fd, path, flags));
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(int, mkdir, const char *, mode_t);
    uint32_t action = decide(MKDIR, path);
    REFUSE_IF_TOLD;
    RETURN(next(path, mode));
}

int mkdirat(int fd, const char *path, mode_t mode)
{
    NEXT(int, mkdirat, int, const char *, mode_t);
    uint32_t action = decide_at(MKDIR, fd, path);
    REFUSE_IF_TOLD;
    RETURN(next(fd, path, mode));
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    NEXT(int, linkat, int, const char *, int, const char *, int);
    uint32_t action = decide_at(LINK, to_fd, to);
    REFUSE_IF_TOLD;
    RETURN(next(from_fd, from, to_fd, to, flags));
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

#define OPENING(name) \
    int name(const char *path, int flags, ...) \
    { \
        NEXT(int, name, const char *, int, ...); \
        MODE_OF(flags) \
        uint32_t action = decide(OPEN, path); \
        REFUSE_IF_TOLD; \
        RETURN(next(path, flags, mode)); \
    }

#define OPENING_AT(name) \
    int name(int fd, const char *path, int flags, ...) \
    { \
        NEXT(int, name, int, const char *, int, ...); \
        MODE_OF(flags) \
        uint32_t action = decide_at(OPEN, fd, path); \
        REFUSE_IF_TOLD; \
        RETURN(next(fd, path, flags, mode)); \
    }

OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)

/* openat2 has no function of its own: the daemon calls it by its number. */
long syscall(long number, ...)
{
    NEXT(long, syscall, long, ...);
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
    long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    uint32_t action = number == SYS_openat2 ? decide_at(OPEN, (int)a, (const char *)b) : 0;
    REFUSE_IF_TOLD;
    RETURN(next(number, a, b, c, d, e, f));
}
