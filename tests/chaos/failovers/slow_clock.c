/* Preloaded into a server, it has its clock go CLOCK_BEHIND_MS milliseconds behind. libfaketime can't do this to a server with
   jemalloc: each of the two needs the other while it begins. */

#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long behind_ms(void) {
    const char *given = getenv("CLOCK_BEHIND_MS");
    return given ? atol(given) : 0;
}

static void set_back(struct timespec *now) {
    now->tv_sec -= behind_ms() / 1000;
    now->tv_nsec -= behind_ms() % 1000 * 1000000;
    if (now->tv_nsec < 0) {
        now->tv_sec -= 1;
        now->tv_nsec += 1000000000;
    }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) set_back(now);
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec at;
    int failed = clock_gettime(CLOCK_REALTIME, &at);
    if (!failed) *now = (struct timeval){at.tv_sec, at.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *now) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now) *now = at.tv_sec;
    return at.tv_sec;
}
