/* Single system calls. */
#include "bench.h"
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

static int file = -1, other = -1;
static char buffer[4096];

static int getppid_body(long n) {
    while (n--) syscall(SYS_getppid);
    return 0;
}

static int clock_body(long n) {
    struct timespec t;
    while (n--) clock_gettime(CLOCK_MONOTONIC, &t);
    return 0;
}

static int clock_call_body(long n) {
    struct timespec t;
    while (n--) syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return 0;
}

static int yield_body(long n) {
    while (n--) sched_yield();
    return 0;
}

static void close_both(void) {
    close(file);
    if (other >= 0) close(other);
    other = -1;
}

static int open_zero(void) { return (file = open("/dev/zero", O_RDONLY)) < 0 ? failure() : 0; }
static int read_body(long n) {
    while (n--)
        if (read(file, buffer, 1) != 1) return failure();
    return 0;
}

static int open_null(void) { return (file = open("/dev/null", O_WRONLY)) < 0 ? failure() : 0; }
static int write_body(long n) {
    while (n--)
        if (write(file, buffer, 1) != 1) return failure();
    return 0;
}

static int make_file(void) {
    file = open(below("calls"), O_CREAT | O_RDWR | O_TRUNC, 0644);
    return file < 0 || write(file, buffer, sizeof buffer) != sizeof buffer ? failure() : 0;
}
static void drop_file(void) {
    close_both();
    unlink(below("calls"));
}
static int pread_body(long n) {
    while (n--)
        if (pread(file, buffer, sizeof buffer, 0) != sizeof buffer) return failure();
    return 0;
}
static int open_body(long n) {
    const char *path = below("calls");
    while (n--) {
        int f = open(path, O_RDONLY);
        if (f < 0 || close(f)) return failure();
    }
    return 0;
}
static int stat_body(long n) {
    const char *path = below("calls");
    struct stat s;
    while (n--)
        if (stat(path, &s)) return failure();
    return 0;
}

static void on_signal(int number) { (void)number; }
static int catch_signal(void) { return signal(SIGUSR1, on_signal) == SIG_ERR ? failure() : 0; }
static int signal_body(long n) {
    pid_t me = getpid();
    while (n--)
        if (kill(me, SIGUSR1)) return failure();
    return 0;
}

static int open_event(void) {
    struct epoll_event event = {.events = EPOLLIN};
    file = eventfd(0, 0);
    other = epoll_create1(0);
    return file < 0 || other < 0 || epoll_ctl(other, EPOLL_CTL_ADD, file, &event) ? failure() : 0;
}
static int event_body(long n) {
    struct epoll_event event;
    while (n--) {
        unsigned long long value = 1;
        if (write(file, &value, 8) != 8 || epoll_wait(other, &event, 1, -1) != 1 || read(file, &value, 8) != 8)
            return failure();
    }
    return 0;
}

const struct operation call_operations[] = {
    {"getppid", 0, 0, getppid_body, 1},
    {"read-zero", open_zero, close_both, read_body, 1},
    {"write-null", open_null, close_both, write_body, 1},
    {"pread-4k", make_file, drop_file, pread_body, 1},
    {"open-close", make_file, drop_file, open_body, 1},
    {"stat", make_file, drop_file, stat_body, 1},
    {"clock-libc", 0, 0, clock_body, 1},
    {"clock-call", 0, 0, clock_call_body, 1},
    {"sched-yield", 0, 0, yield_body, 1},
    {"signal-self", catch_signal, 0, signal_body, 1},
    {"eventfd-epoll", open_event, close_both, event_body, 1},
    {0},
};
