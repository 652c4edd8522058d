/* Interrupted and restarted calls, record locks, pipes and polls at their edges, positions without places, deep paths. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "say.h"

static volatile int got;

static void note(int signo)
{
    got++;
}

static void on(int signo, int flags)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = flags};
    sigaction(signo, &action, 0);
    got = 0;
}

/* A child that signals us after a while, then writes a byte. */
static pid_t later(int signo, int fd)
{
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        usleep(60000);
        kill(parent, signo);
        usleep(60000);
        if (fd >= 0)
            write(fd, "x", 1);
        _exit(3);
    }
    return pid;
}

static void restarts(int flags)
{
    int pipes[2], sockets[2], status;
    char byte;
    struct timespec tenth = {0, 200000000}, left = {0, 0};
    pipe(pipes);
    socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
    printf("# %s\n", flags ? "SA_RESTART" : "no SA_RESTART");
    on(SIGUSR1, flags);

    pid_t pid = later(SIGUSR1, pipes[1]);
    SAY(read(pipes[0], &byte, 1));
    waitpid(pid, 0, 0);
    pid = later(SIGUSR1, sockets[1]);
    SAY(recv(sockets[0], &byte, 1, 0));
    waitpid(pid, 0, 0);
    pid = later(SIGUSR1, -1);
    SAY(waitpid(pid, &status, 0) == pid ? 0 : -1);
    waitpid(pid, &status, 0);

    pid = later(SIGUSR1, -1);
    SAY(nanosleep(&tenth, &left));
    printf("some is left: %d\n", left.tv_nsec > 0 && left.tv_nsec < tenth.tv_nsec);
    waitpid(pid, 0, 0);
    pid = later(SIGUSR1, -1);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 1;
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0);
    printf("clock_nanosleep: %s\n", errno ? strerrorname_np(errno) : "0");
    waitpid(pid, 0, 0);
    pid = later(SIGUSR1, -1);
    struct pollfd poll_pipe = {.fd = pipes[0], .events = POLLIN};
    SAY(poll(&poll_pipe, 1, 1000));
    waitpid(pid, 0, 0);
    pid = later(SIGUSR1, -1);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipes[0], &set);
    SAY(select(pipes[0] + 1, &set, 0, 0, 0));
    waitpid(pid, 0, 0);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    pid = later(SIGUSR1, -1);
    SAY(epoll_wait(epoll, &event, 1, -1));
    waitpid(pid, 0, 0);
    pid = later(SIGUSR1, -1);
    SAY(pause());
    waitpid(pid, 0, 0);

    /* A pipe that is full: what was written counts. */
    fcntl(pipes[1], F_SETPIPE_SZ, 4096);
    char page[8192] = "";
    pid = later(SIGUSR1, -1);
    if (!flags)
        SAY(write(pipes[1], page, sizeof page));
    waitpid(pid, 0, 0);
    printf("signals: %d\n", got);
}

static void file_locks(void)
{
    printf("# locks\n");
    int fd = open("locked", O_RDWR | O_CREAT | O_TRUNC, 0644), other = open("locked", O_RDWR);
    int go[2];
    char byte;
    pipe(go);
    struct flock lock = {F_WRLCK, SEEK_SET, 10, 10, 0};
    SAY(fcntl(fd, F_SETLK, &lock));
    lock = (struct flock){F_UNLCK, SEEK_SET, 15, 2, 0};
    SAY(fcntl(fd, F_SETLK, &lock));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct flock test = {F_RDLCK, SEEK_SET, 0, 0, 0};
        SAY(fcntl(fd, F_GETLK, &test));
        printf("%d from %ld, %ld bytes, the parent's: %d\n", test.l_type, (long)test.l_start, (long)test.l_len,
               test.l_pid == getppid());
        test = (struct flock){F_WRLCK, SEEK_SET, 15, 2, 0};
        SAY(fcntl(fd, F_SETLK, &test));
        test.l_len = 3;
        SAY(fcntl(fd, F_SETLK, &test));
        fflush(stdout);
        write(go[1], "x", 1);
        test = (struct flock){F_WRLCK, SEEK_SET, 10, 1, 0};
        /* Waits until the parent closes a descriptor of the file, which drops all its locks. */
        SAY(fcntl(fd, F_SETLKW, &test));
        fflush(stdout);
        _exit(0);
    }
    read(go[0], &byte, 1);
    usleep(50000);
    lock = (struct flock){F_WRLCK, SEEK_SET, 15, 1, 0};
    SAY(fcntl(fd, F_SETLKW, &lock));
    fflush(stdout);
    close(open("locked", O_RDONLY));
    waitpid(pid, 0, 0);

    SAY(flock(fd, LOCK_EX));
    SAY(flock(other, LOCK_SH | LOCK_NB));
    SAY(flock(fd, LOCK_SH));
    SAY(flock(other, LOCK_SH | LOCK_NB));
    SAY(flock(fd, LOCK_EX | LOCK_NB));
    int copy = dup(fd);
    SAY(flock(copy, LOCK_UN));
    SAY(flock(other, LOCK_EX | LOCK_NB));
    struct flock whole = {F_WRLCK, SEEK_SET, 0, 0, 0};
    SAY(fcntl(fd, F_OFD_SETLK, &whole));
    SAY(fcntl(other, F_OFD_SETLK, &whole));
    SAY(fcntl(other, F_OFD_GETLK, &whole));
    printf("%d, pid %d\n", whole.l_type, whole.l_pid);
    whole = (struct flock){F_WRLCK, SEEK_SET, -1, 0, 0};
    SAY(fcntl(fd, F_SETLK, &whole));
    whole = (struct flock){F_WRLCK, SEEK_SET, 20, -30, 0};
    SAY(fcntl(fd, F_SETLK, &whole));
    whole.l_type = 9;
    SAY(fcntl(fd, F_SETLK, &whole));
    unlink("locked");
}

static void pipes_and_polls(void)
{
    printf("# pipes\n");
    int ends[2];
    static char bytes[70000];
    pipe2(ends, O_NONBLOCK);
    struct pollfd both[2] = {{.fd = ends[0], .events = POLLIN | POLLOUT}, {.fd = ends[1], .events = POLLIN | POLLOUT}};
    SAY(fcntl(ends[1], F_GETPIPE_SZ));
    SAY(fcntl(ends[1], F_SETPIPE_SZ, 5000));
    SAY(fcntl(ends[1], F_SETPIPE_SZ, 65536));
    SAY(read(ends[0], bytes, 1));
    SAY(write(ends[1], bytes, sizeof bytes));
    SAY(write(ends[1], bytes, 1));
    for (int step = 0; step < 3; step++) {
        SAY(poll(both, 2, 0));
        printf("%x %x\n", both[0].revents, both[1].revents);
        SAY(read(ends[0], bytes, step == 0 ? 100 : step == 1 ? 3996 : 0));
    }
    SAY(write(ends[1], bytes, 4097));
    int pending = 0;
    SAY(ioctl(ends[0], FIONREAD, &pending));
    printf("%d\n", pending);
    close(ends[1]);
    SAY(poll(both, 1, 0));
    printf("%x\n", both[0].revents);
    while (read(ends[0], bytes, sizeof bytes) > 0)
        ;
    SAY(poll(both, 1, 0));
    printf("%x\n", both[0].revents);
    pipe(ends);
    close(ends[0]);
    both[0].fd = ends[1];
    SAY(poll(both, 1, 0));
    printf("%x\n", both[0].revents);
    on(SIGPIPE, 0);
    SAY(write(ends[1], bytes, 1));
    printf("SIGPIPE: %d\n", got);
    SAY(lseek(ends[1], 0, SEEK_CUR));
    SAY(pread(ends[1], bytes, 1, 0));
    SAY(read(ends[1], bytes, 1));
    both[0].fd = -1;
    both[1].fd = 999;
    SAY(poll(both, 2, 0));
    printf("%x %x\n", both[0].revents, both[1].revents);

    pipe(ends);
    int more[2];
    pipe(more);
    SAY(vmsplice(ends[1], &(struct iovec){bytes, 10}, 1, 0));
    SAY(tee(ends[0], more[1], 100, 0));
    SAY(splice(ends[0], 0, more[1], 0, 5, 0));
    SAY(ioctl(more[0], FIONREAD, &pending));
    printf("%d\n", pending);

    int epoll = epoll_create1(0), counter = eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event));
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event));
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll, &event));
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(eventfd_write(counter, 2));
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(epoll_wait(epoll, &event, 1, 0));
    eventfd_t value;
    SAY(eventfd_read(counter, &value));
    SAY(eventfd_read(counter, &value));
    SAY(eventfd_read(counter, &value));
    SAY(epoll_wait(epoll, &event, 0, 0));
    int file = open("plain", O_RDWR | O_CREAT, 0644);
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event));
    SAY(epoll_ctl(epoll, EPOLL_CTL_MOD, file, &event));
    SAY(epoll_ctl(epoll, EPOLL_CTL_DEL, 999, &event));
    unlink("plain");
}

/* The arithmetic flags, and direction, alignment check and id, survive a call in each combination. */
static void flags_over_calls(void)
{
    static const unsigned long bits[] = {0x1, 0x4, 0x10, 0x40, 0x80, 0x400, 0x800, 0x40000, 0x200000};
    int kept = 0;
    for (unsigned set = 0; set < 1u << 9; set++) {
        unsigned long before = 0x202, after;
        for (int i = 0; i < 9; i++)
            if (set >> i & 1)
                before |= bits[i];
        __asm__ volatile("pushq %1; popfq; movl $110, %%eax; syscall; pushfq; popq %0; pushq $0x202; popfq"
                         : "=r"(after) : "r"(before) : "rax", "rcx", "r11", "memory", "cc");
        kept += before == after;
    }
    printf("flags kept: %d\n", kept);
}

/* Devices that have no places. */
static void positions(void)
{
    static const char *devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
    static const long offsets[] = {0, 10, -10, 1L << 40};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        int fd = open(devices[i], O_RDWR);
        char byte;
        printf("%s:", devices[i]);
        for (int whence = 0; whence <= 5; whence++)
            for (int at = 0; at < 4; at++)
                printf(" %ld", (long)lseek(fd, offsets[at], whence));
        printf(" %zd", read(fd, &byte, 1));
        printf(" %ld %zd\n", (long)lseek(fd, 0, SEEK_CUR), pread(fd, &byte, 1, 1000));
        close(fd);
    }
}

/* Deeper than any path is long. */
static void deep(void)
{
    char name[201] = "", path[8192];
    memset(name, 'd', 200);
    for (int depth = 1; depth <= 24; depth++) {
        if (mkdir(name, 0700) < 0 || chdir(name) < 0)
            printf("depth %d: %s\n", depth, strerrorname_np(errno));
        if (depth % 8 == 0)
            for (size_t room = 10; room <= sizeof path; room = room == 10 ? 4000 : room == 4000 ? 4096 : room * 2) {
                long got = syscall(SYS_getcwd, path, room);
                printf("depth %d, room %zu: %s\n", depth, room, got < 0 ? strerrorname_np(errno) : "found");
            }
    }
    for (int depth = 24; depth >= 1; depth--)
        if (chdir("..") < 0 || rmdir(name) < 0)
            printf("up to %d: %s\n", depth, strerrorname_np(errno));
}

/* A descriptor that is only a place: what takes it, and what does not. */
static void places(void)
{
    char buf[100];
    struct stat st;
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd watched;
    close(open("f", O_CREAT | O_RDWR, 0644));
    int fd = open("f", O_PATH), set = epoll_create1(0), dir = open(".", O_PATH);
    SAY(read(fd, buf, 1));
    SAY(write(fd, "x", 1));
    SAY(lseek(fd, 0, SEEK_SET));
    SAY(ftruncate(fd, 0));
    SAY(fchmod(fd, 0600));
    SAY(fsync(fd));
    SAY(flock(fd, LOCK_SH));
    SAY(ioctl(fd, FIONREAD, &st));
    SAY(accept(fd, 0, 0));
    SAY(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
    SAY(syscall(SYS_getdents64, dir, buf, sizeof buf));
    watched = (struct pollfd){fd, POLLIN, 0};
    SAY(poll(&watched, 1, 0));
    printf("revents %x\n", watched.revents);
    SAY(fstat(fd, &st));
    SAY(fchdir(dir));
    SAY(fchdir(fd));
    SAY(fcntl(fd, F_GETFD));
    SAY(fcntl(fd, F_SETOWN, getpid()));
    OPENED(dup(fd));
    OPENED(openat(dir, "f", O_RDONLY));
    close(fd);
    close(dir);
    close(set);
    unlink("f");
}

/* Reads and writes with flags of their own, and what cannot be spliced. */
static void flagged(void)
{
    char buf[16] = "";
    struct iovec one = {"0123456789", 10}, back = {buf, 4};
    int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0600), ends[2], dir = open(".", O_RDONLY);
    if (pipe(ends) < 0) exit(1);
    SAY(pwritev2(fd, &one, 1, 0, RWF_DSYNC));
    SAY(pwritev2(fd, &one, 1, 0, RWF_SYNC | RWF_APPEND));
    SAY(pwritev2(fd, &one, 1, 0, 1 << 20));
    int known[] = {0, RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_APPEND, 1 << 20};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        printf("%x: ", known[i]);
        SAY(preadv2(fd, &back, 1, 12, known[i]));
    }
    printf("%s\n", buf);
    SAY(splice(dir, NULL, ends[1], NULL, 1, 0));
    SAY(splice(fd, &(loff_t){0}, ends[1], NULL, 5, 0));
    SAY(splice(ends[0], NULL, dir, NULL, 1, 0));
    SAY(splice(fd, NULL, fd, NULL, 1, 0));
    int counter = eventfd(3, 0), watch = inotify_init();
    SAY(splice(counter, NULL, ends[1], NULL, 8, 0));
    SAY(splice(watch, NULL, ends[1], NULL, 100, 0));
    SAY(read(ends[0], buf, 5));
    SAY(splice(ends[0], NULL, counter, NULL, 8, 0));
    close(counter), close(watch);
    unlink("f");
    close(fd), close(dir), close(ends[0]), close(ends[1]);
}

int main(int argc, char **argv)
{
    alarm(50);
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    for (int i = 1; i < argc; i++) {
        chdir(argv[i]);
        file_locks();
        places();
        flagged();
        deep();
    }
    positions();
    flags_over_calls();
    restarts(0);
    restarts(SA_RESTART);
    pipes_and_polls();
    return 0;
}
