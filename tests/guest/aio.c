/* Linux's own asynchronous I/O: contexts, requests, events. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "say.h"

static int setup(unsigned events, aio_context_t *context) { return syscall(SYS_io_setup, events, context); }
static int destroy(aio_context_t context) { return syscall(SYS_io_destroy, context); }
static long submit(aio_context_t context, long count, struct iocb **requests)
{
    return syscall(SYS_io_submit, context, count, requests);
}
static long get(aio_context_t context, long least, long most, struct io_event *events, struct timespec *limit)
{
    return syscall(SYS_io_getevents, context, least, most, events, limit);
}
static int cancel(aio_context_t context, struct iocb *request, struct io_event *event)
{
    return syscall(SYS_io_cancel, context, request, event);
}

static aio_context_t context;
static struct iocb request;
static struct iocb *requests[] = {&request};

/* A request of its own, and what becomes of it. */
static void one(const char *what, int kind, int fd, void *buf, size_t count, long long offset)
{
    struct io_event event = {0};
    struct timespec now = {0, 0};
    memset(&request, 0, sizeof request);
    request.aio_data = 77;
    request.aio_lio_opcode = kind;
    request.aio_fildes = fd;
    request.aio_buf = (uintptr_t)buf;
    request.aio_nbytes = count;
    request.aio_offset = offset;
    errno = 0;
    long taken = submit(context, 1, requests);
    printf("%s: %ld %s", what, taken, taken < 0 ? strerrorname_np(errno) : "");
    if (taken == 1 && get(context, 1, 1, &event, NULL) == 1)
        printf("; data %llu, request %d, %lld %lld", event.data, event.obj == (uintptr_t)&request, event.res, event.res2);
    printf("; then %ld\n", get(context, 0, 1, &event, &now));
}

static void contexts(void)
{
    aio_context_t other = 0;
    SAY(setup(0, &other));
    SAY(setup(1, NULL));
    SAY(setup(0x10000000, &other));
    other = 1;
    SAY(setup(1, &other));
    other = 0;
    SAY(setup(10, &other));
    printf("number: %d\n", other != 0);
    struct io_event event;
    struct timespec now = {0, 0};
    SAY(get(other, 0, 0, &event, &now));
    SAY(get(other, 1, 1, &event, &now));
    SAY(get(other, 2, 1, &event, &now));
    SAY(get(other, -1, 1, &event, &now));
    SAY(get(other, 1, -1, &event, &now));
    SAY(get(other, 1, 1, &event, (void *)1));
    SAY(submit(other, 0, NULL));
    SAY(submit(other, -1, requests));
    SAY(submit(other, 1, NULL));
    struct iocb *nowhere[] = {NULL};
    SAY(submit(other, 1, nowhere));
    SAY(cancel(other, NULL, &event));
    SAY(cancel(other, &request, &event));
    /* A child has none of its parent's. */
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        SAY(get(other, 0, 0, &event, &now));
        SAY(destroy(other));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    SAY(destroy(other));
    SAY(destroy(other));
    SAY(get(other, 0, 0, &event, &now));
    SAY(destroy(0));
}

static void files(const char *directory)
{
    char path[4096], bytes[8192], more[16];
    snprintf(path, sizeof path, "%s/aio", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), reader = open(path, O_RDONLY), pipes[2];
    memset(bytes, 'a', sizeof bytes);
    one("write", IOCB_CMD_PWRITE, fd, bytes, sizeof bytes, 0);
    one("write behind", IOCB_CMD_PWRITE, fd, "0123456789", 10, 10000);
    one("read", IOCB_CMD_PREAD, fd, more, sizeof more, 10000);
    printf("  %.10s\n", more);
    one("at the end", IOCB_CMD_PREAD, fd, more, sizeof more, 20000);
    one("read nothing", IOCB_CMD_PREAD, fd, more, 0, 0);
    struct iovec parts[] = {{more, 2}, {more + 8, 3}};
    memset(more, '-', sizeof more);
    one("read in parts", IOCB_CMD_PREADV, fd, parts, 2, 10001);
    printf("  %.16s\n", more);
    one("write in parts", IOCB_CMD_PWRITEV, fd, parts, 2, 10);
    one("too many parts", IOCB_CMD_PREADV, fd, parts, 2000, 0);
    one("sync", IOCB_CMD_FSYNC, fd, NULL, 0, 0);
    one("sync data", IOCB_CMD_FDSYNC, fd, NULL, 0, 0);
    one("sync what", IOCB_CMD_FSYNC, fd, bytes, 0, 0);
    one("write to read", IOCB_CMD_PWRITE, reader, bytes, 1, 0);
    one("no descriptor", IOCB_CMD_PREAD, -1, bytes, 1, 0);
    one("no such kind", 99, fd, bytes, 1, 0);
    one("nowhere", IOCB_CMD_PREAD, fd, (void *)8, 10, 0);
    one("from nowhere", IOCB_CMD_PWRITE, fd, (void *)8, 10, 0);
    one("before the start", IOCB_CMD_PREAD, fd, bytes, 1, -5);
    one("too much", IOCB_CMD_PREAD, fd, bytes, (size_t)-1, 0);
    if (pipe2(pipes, O_NONBLOCK) < 0) exit(1);
    one("an empty pipe", IOCB_CMD_PREAD, pipes[0], bytes, 10, 0);
    one("a pipe", IOCB_CMD_PWRITE, pipes[1], "hello", 5, 0);
    one("its other end", IOCB_CMD_PREAD, pipes[0], bytes, 10, 0);
    one("the wrong end", IOCB_CMD_PREAD, pipes[1], bytes, 10, 0);
    /* Appended, whatever the offset. */
    memset(&request, 0, sizeof request);
    request.aio_lio_opcode = IOCB_CMD_PWRITE;
    request.aio_fildes = fd;
    request.aio_buf = (uintptr_t)"END";
    request.aio_nbytes = 3;
    request.aio_rw_flags = RWF_APPEND | RWF_DSYNC;
    SAY(submit(context, 1, requests));
    struct io_event event;
    SAY(get(context, 1, 1, &event, NULL));
    printf("  %lld; the file has %lld bytes\n", event.res, (long long)lseek(fd, 0, SEEK_END));
    request.aio_rw_flags = 1 << 20;
    SAY(submit(context, 1, requests));
    request.aio_rw_flags = 0;
    request.aio_reserved2 = 1;
    SAY(submit(context, 1, requests));
    unlink(path);
    close(fd), close(reader), close(pipes[0]), close(pipes[1]);
}

/* Several at once, with an error among them, and an eventfd that counts. */
static void several(const char *directory)
{
    enum { COUNT = 8 };
    struct iocb many[COUNT], *list[COUNT];
    struct io_event events[COUNT];
    char path[4096], bytes[COUNT];
    uint64_t counted = 0;
    snprintf(path, sizeof path, "%s/aio", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), counter = eventfd(0, EFD_NONBLOCK);
    memset(many, 0, sizeof many);
    for (int i = 0; i < COUNT; i++) {
        bytes[i] = (char)('A' + i);
        many[i].aio_data = i;
        many[i].aio_lio_opcode = IOCB_CMD_PWRITE;
        many[i].aio_fildes = fd;
        many[i].aio_buf = (uintptr_t)&bytes[i];
        many[i].aio_nbytes = 1;
        many[i].aio_offset = i;
        many[i].aio_flags = i % 2 ? IOCB_FLAG_RESFD : 0;
        many[i].aio_resfd = counter;
        list[i] = &many[i];
    }
    SAY(submit(context, COUNT, list));
    struct pollfd polled = {counter, POLLIN, 0};
    SAY(poll(&polled, 1, 0));
    SAY(read(counter, &counted, sizeof counted));
    printf("  counted %llu\n", (unsigned long long)counted);
    SAY(get(context, 3, 3, events, NULL));
    for (int i = 0; i < 3; i++) printf("  %llu: %lld\n", events[i].data, events[i].res);
    SAY(get(context, 1, COUNT, events, NULL));
    SAY(get(context, 1, COUNT, (void *)8, &(struct timespec){0, 1000}));
    many[4].aio_fildes = -1;
    SAY(submit(context, COUNT, list));
    SAY(get(context, 4, COUNT, (void *)8, NULL));
    SAY(get(context, 4, COUNT, events, NULL));
    many[0].aio_flags = IOCB_FLAG_RESFD;
    many[0].aio_resfd = fd;
    SAY(submit(context, 1, list));
    many[0].aio_resfd = 999;
    SAY(submit(context, 1, list));
    char read_back[COUNT + 1] = "";
    SAY(pread(fd, read_back, COUNT, 0));
    printf("  %s\n", read_back);
    /* More than there is room for are not taken. */
    many[0].aio_flags = 0;
    long taken = 0, now;
    while ((now = submit(context, 1, list)) == 1) taken++;
    printf("full: %d %s\n", taken > 60 && taken < 5000, strerrorname_np(errno));
    long fetched = 0;
    while ((now = get(context, 0, COUNT, events, NULL)) > 0) fetched += now;
    printf("all fetched: %d\n", fetched == taken);
    unlink(path);
    close(fd), close(counter);
}

static void on_signal(int number) { (void)number; }

static void *later(void *unused)
{
    (void)unused;
    usleep(100000);
    submit(context, 1, requests);
    return NULL;
}

static void waiting(const char *directory)
{
    struct io_event events[2];
    struct timespec before, after, limit = {0, 50000000};
    clock_gettime(CLOCK_MONOTONIC, &before);
    SAY(get(context, 1, 1, events, &limit));
    clock_gettime(CLOCK_MONOTONIC, &after);
    double waited = (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9;
    printf("waited: %d\n", waited > 0.049 && waited < 5);
    char path[4096];
    snprintf(path, sizeof path, "%s/aio", directory);
    memset(&request, 0, sizeof request);
    request.aio_lio_opcode = IOCB_CMD_PWRITE;
    request.aio_fildes = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    request.aio_buf = (uintptr_t)path;
    request.aio_nbytes = 5;
    pthread_t thread;
    pthread_create(&thread, NULL, later, NULL);
    SAY(get(context, 1, 1, events, NULL));
    printf("  %lld\n", events[0].res);
    pthread_join(thread, NULL);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct timespec long_limit = {20, 0};
    ualarm(50000, 0);
    SAY(get(context, 1, 1, events, &long_limit));
    /* With a mask that keeps the signal away, and one that lets it in. */
    sigset_t blocked, none;
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGALRM);
    struct { const sigset_t *mask; size_t size; } with = {&blocked, 8};
    ualarm(20000, 0);
    SAY(syscall(SYS_io_pgetevents, context, 1L, 1L, events, &(struct timespec){0, 100000000}, &with));
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    with.mask = &none;
    ualarm(20000, 0);
    SAY(syscall(SYS_io_pgetevents, context, 1L, 1L, events, &long_limit, &with));
    with.size = 4;
    SAY(syscall(SYS_io_pgetevents, context, 1L, 1L, events, &long_limit, &with));
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    close((int)request.aio_fildes);
    unlink(path);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3) return 2;
    contexts();
    SAY(setup(32, &context));
    for (int i = 1; i < 3; i++) {
        printf("== directory %d\n", i);
        files(argv[i]);
        several(argv[i]);
    }
    waiting(argv[1]);
    SAY(destroy(context));
    return 0;
}
