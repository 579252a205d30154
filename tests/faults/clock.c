/*
 * A library for LD_PRELOAD that moves the wall clock of a live process, and no other clock.
 *
 * By how many seconds stands in a page that is shared with the test (CLOCK_ORDERS names the file) and counts from the
 * next call on. Without the variable nothing is changed. The kernel's own stamps, such as those of files, are not moved.
 *
 * libfaketime is no substitute: it moves the monotonic clock, too, or lets sleeps by that clock fail.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead_s;

__attribute__((constructor)) static void map_orders(void)
{
    const char *name = getenv("CLOCK_ORDERS");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        ahead_s = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *found)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, found);
    if (!result && ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        found->tv_sec += *ahead_s;
    return result;
}

time_t time(time_t *found)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found)
        *found = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}
