/* POSIX message queues. As root, who changes settings and mounts file systems, but may not exceed limits. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "say.h"

#define NAME "/umlfs-queue"
#define OTHER "/umlfs-other"

/* Where the file system is mounted, and a path there. */
#define PLACE "queues"
#define IN(name) PLACE "/" name

static void pause_ms(int ms) {
    struct timespec some = {0, ms * 1000000L};
    nanosleep(&some, NULL);
}

/* A point in time so many milliseconds from now. */
static struct timespec after(int ms) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += ms * 1000000L;
    at.tv_sec += at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    return at;
}

/* Waits until a process sleeps in a system call. */
static void until_asleep(pid_t pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    for (int i = 0; i < 2000; i++) {
        FILE *stat = fopen(path, "r");
        char *state = stat && fgets(line, sizeof line, stat) ? strrchr(line, ')') : NULL;
        if (stat) fclose(stat);
        if (state && state[2] == 'S') break;
        pause_ms(2);
    }
    pause_ms(20);
}

/* Runs something in a child and gives its pid. */
#define CHILD(...)          \
    ({                      \
        pid_t child = fork(); \
        if (child == 0) {   \
            __VA_ARGS__;    \
            fflush(stdout); \
            _exit(0);       \
        }                   \
        child;              \
    })

static int ended(pid_t pid) {
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

static mqd_t make(const char *name, int flags, mode_t mode, long messages, long size) {
    struct mq_attr attr = {.mq_maxmsg = messages, .mq_msgsize = size};
    return mq_open(name, O_CREAT | flags, mode, &attr);
}

static int put(mqd_t q, const char *text, unsigned priority) { return mq_send(q, text, strlen(text), priority); }

static void take(mqd_t q) {
    char text[9000];
    unsigned priority = 99;
    ssize_t n = mq_receive(q, text, sizeof text, &priority);
    if (n < 0)
        printf("take: %s\n", strerrorname_np(errno));
    else
        printf("take: %zd bytes, priority %u: %.*s\n", n, priority, (int)n, text);
}

static void attributes(const char *what, mqd_t q) {
    struct mq_attr attr;
    memset(&attr, 0xff, sizeof attr);
    if (mq_getattr(q, &attr))
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: flags %lo, %ld of %ld messages of %ld bytes\n", what, attr.mq_flags, attr.mq_curmsgs, attr.mq_maxmsg,
               attr.mq_msgsize);
}

/* What reading a queue gives, without numbers of processes. */
static void shown(const char *what, int fd) {
    char text[100] = "";
    unsigned long size;
    int notify, signo, pid;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n < 0 || sscanf(text, "QSIZE:%lu NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &size, &notify, &signo, &pid) != 4)
        printf("%s: %zd bytes %s\n", what, n, text);
    else
        printf("%s: %zd bytes, size %lu notify %d signal %d for %s\n", what, n, size, notify, signo,
               pid == getpid() ? "me" : pid ? "another" : "nobody");
}

static short polled(mqd_t q) {
    struct pollfd one = {q, POLLIN | POLLOUT | POLLPRI | POLLRDNORM | POLLWRNORM, 0};
    return poll(&one, 1, 0) < 0 ? -1 : one.revents;
}

static int raw_open(const char *name, int flags, mode_t mode, const void *attr) {
    return syscall(SYS_mq_open, name, flags, mode, attr);
}

static void names(void) {
    static char name[300];
    name[0] = '/';
    SAY(mq_open("no-slash", O_RDONLY));
    SAY(mq_open("/", O_RDONLY));
    SAY(mq_open("/.", O_RDONLY));
    SAY(mq_open("/..", O_RDWR | O_CREAT, 0600, NULL));
    SAY(mq_open("/a/b", O_RDONLY));
    SAY(mq_open("//a", O_RDONLY));
    memset(name + 1, 'n', 255);
    SAY(mq_open(name, O_RDONLY));
    SAY(mq_close(mq_open(name, O_RDWR | O_CREAT, 0600, NULL)));
    SAY(mq_unlink(name));
    name[256] = 'n';
    SAY(mq_open(name, O_RDONLY));
    SAY(mq_unlink(name));
    SAY(mq_unlink("/"));
    SAY(mq_unlink("/a/b"));
    SAY(mq_unlink(NAME));
    SAY(mq_open(NAME, O_RDWR));
    SAY(mq_open(NAME, O_RDWR | O_EXCL));
    SAY(raw_open((void *)1, O_RDONLY, 0, NULL));
    SAY(raw_open("umlfs-queue", O_RDWR | O_CREAT, 0600, (void *)1));
    SAY(syscall(SYS_mq_unlink, (void *)1));
    mqd_t q = OPENED(mq_open(NAME, O_RDWR | O_CREAT | O_EXCL, 0666, NULL));
    SAY(mq_open(NAME, O_RDWR | O_CREAT | O_EXCL, 0666, NULL));
    SAY(mq_open(NAME, O_ACCMODE));
    SAY(mq_open(NAME, O_ACCMODE | O_CREAT, 0600, NULL));
    mqd_t again = OPENED(mq_open(NAME, O_WRONLY | O_CREAT | O_NONBLOCK, 0, (struct mq_attr *)NULL));
    SAY(fcntl(q, F_GETFD));
    SAY(fcntl(again, F_GETFD));
    printf("status flags %o %o\n", fcntl(q, F_GETFL), fcntl(again, F_GETFL));
    struct stat st;
    SAY(fstat(q, &st));
    printf("mode %o size %ld links %ld owner %d %d\n", st.st_mode, (long)st.st_size, (long)st.st_nlink, st.st_uid, st.st_gid);
    struct statfs fs;
    SAY(fstatfs(q, &fs));
    printf("type %lx block %ld name %ld\n", (long)fs.f_type, (long)fs.f_bsize, (long)fs.f_namelen);
    char link[100] = "", self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", q);
    SAY(readlink(self, link, sizeof link - 1));
    printf("%s\n", link);
    SAY(mq_unlink(NAME));
    memset(link, 0, sizeof link);
    readlink(self, link, sizeof link - 1);
    printf("%s\n", link);
    SAY(fstat(q, &st));
    printf("links %ld\n", (long)st.st_nlink);
    SAY(mq_unlink(NAME));
    /* Without a name it goes on; a new one is another. */
    SAY(put(again, "still there", 1));
    mqd_t new = OPENED(mq_open(NAME, O_RDWR | O_CREAT | O_NONBLOCK, 0600, NULL));
    take(new);
    take(q);
    SAY(mq_close(new));
    SAY(mq_unlink(NAME));
    SAY(mq_close(again));
    SAY(mq_close(q));
    SAY(mq_close(q));
    struct rlimit few, before;
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    few.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &few);
    SAY(mq_open(NAME, O_RDWR | O_CREAT, 0600, NULL));
    setrlimit(RLIMIT_NOFILE, &before);
    SAY(mq_unlink(NAME));
}

/* A setting's value, or what writing one gives. */
static void setting(const char *name, const char *value) {
    char path[100], text[32] = "";
    snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
    int fd = open(path, value ? O_WRONLY : O_RDONLY);
    ssize_t n = fd < 0 ? -1 : value ? write(fd, value, strlen(value)) : read(fd, text, sizeof text - 1);
    if (n < 0)
        printf("%s %s: %s\n", name, value ? value : "", strerrorname_np(errno));
    else
        printf("%s %s", name, value ? "is set\n" : text);
    if (fd >= 0) close(fd);
}

static void attributes_of_queues(void) {
    static const long wrong[][2] = {{0, 1}, {1, 0}, {-1, 10}, {10, -1}, {65537, 1}, {1, 16777217}, {1L << 40, 1L << 40}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        printf("%ld of %ld: %s\n", wrong[i][0], wrong[i][1],
               make(NAME, O_RDWR, 0600, wrong[i][0], wrong[i][1]) < 0 ? strerrorname_np(errno) : "made");
    SAY(mq_unlink(NAME));
    SAY(make(NAME, O_RDWR, 0600, 11, 1));
    SAY(make(NAME, O_RDWR, 0600, 1, 8193));
    setting("msg_max", "65536");
    mqd_t q = OPENED(make(NAME, O_RDWR, 0600, 100, 100));
    attributes("made", q);
    struct mq_attr attr = {.mq_flags = O_NONBLOCK, .mq_maxmsg = 7, .mq_msgsize = 7, .mq_curmsgs = 7}, old;
    /* What is said of a queue that exists is not looked at. */
    mqd_t same = OPENED(make(NAME, O_RDWR | O_NONBLOCK, 0600, -1, -1));
    attributes("the same", same);
    SAY(mq_setattr(q, &attr, &old));
    printf("before %lo, %ld of %ld of %ld\n", old.mq_flags, old.mq_curmsgs, old.mq_maxmsg, old.mq_msgsize);
    attributes("changed", q);
    printf("status flags %o\n", fcntl(q, F_GETFL));
    attr.mq_flags = 0;
    SAY(mq_setattr(q, &attr, NULL));
    SAY(fcntl(q, F_SETFL, O_NONBLOCK));
    attributes("by fcntl", q);
    attributes("the other's are its own", same);
    attr.mq_flags = O_NONBLOCK | O_APPEND;
    SAY(mq_setattr(q, &attr, NULL));
    attr.mq_flags = 1;
    SAY(mq_setattr(-1, &attr, NULL));
    SAY(syscall(SYS_mq_getsetattr, -1, NULL, NULL));
    SAY(syscall(SYS_mq_getsetattr, q, NULL, NULL));
    SAY(syscall(SYS_mq_getsetattr, q, (void *)1, NULL));
    SAY(syscall(SYS_mq_getsetattr, q, NULL, (void *)1));
    int p[2];
    pipe(p);
    attributes("a pipe", p[0]);
    SAY(mq_send(p[1], "x", 1, 0));
    char text[10];
    SAY(mq_receive(p[0], text, 10, NULL));
    close(p[0]);
    close(p[1]);
    int shared = dup(q);
    attributes("a copy", shared);
    mq_close(shared);
    mq_close(q);
    mq_close(same);
    SAY(mq_unlink(NAME));
    /* Messages cost, however short they are. */
    SAY(make(NAME, O_RDWR, 0600, 65536, 1));
    setting("msg_max", "10");
}

static void messages(void) {
    char text[64];
    unsigned priority;
    mqd_t q = make(NAME, O_RDWR | O_NONBLOCK, 0600, 4, 16);
    mqd_t in = mq_open(NAME, O_RDONLY | O_NONBLOCK), out = mq_open(NAME, O_WRONLY | O_NONBLOCK);
    printf("empty: %x\n", polled(q));
    take(q);
    SAY(put(q, "low", 1));
    printf("some: %x\n", polled(q));
    SAY(put(q, "high", 32767));
    SAY(put(q, "low too", 1));
    SAY(put(q, "", 0));
    printf("full: %x %x %x\n", polled(q), polled(in), polled(out));
    SAY(put(q, "no room", 5));
    attributes("full", q);
    shown("full", q);
    SAY(put(q, "priority", 32768));
    SAY(put(q, "seventeen letters", 0));
    SAY(mq_send(q, (void *)1, 5, 0));
    SAY(mq_receive(q, text, 15, NULL));
    SAY(mq_receive(q, text, 16, NULL));
    take(q);
    take(in);
    take(q);
    take(q);
    shown("empty again", q);
    SAY(put(in, "not for sending", 0));
    SAY(mq_receive(out, text, 16, NULL));
    SAY(mq_send(q, (void *)1, 5, 0));
    SAY(mq_send(q, (void *)1, 0, 0));
    take(q);
    SAY(put(q, "lost", 3));
    SAY(mq_receive(q, (void *)1, 16, NULL));
    take(q);
    SAY(put(q, "lost, too", 3));
    SAY(syscall(SYS_mq_timedreceive, q, text, 16, (void *)1, NULL));
    take(q);
    SAY(put(q, "with its priority", 3));
    put(q, "prio", 31);
    SAY(mq_receive(q, text, 16, &priority));
    printf("priority %u\n", priority);

    /* A descriptor like others. */
    SAY(write(q, "x", 1));
    SAY(read(out, text, 1));
    SAY(write(in, "x", 1));
    memset(text, 0, sizeof text);
    SAY(read(in, text, 10));
    printf("%s|\n", text);
    SAY(lseek(in, 0, SEEK_CUR));
    SAY(read(in, text, sizeof text));
    SAY(read(in, text, sizeof text));
    SAY(read(in, text, sizeof text));
    SAY(lseek(in, 0, SEEK_END));
    SAY(lseek(in, 6, SEEK_SET));
    memset(text, 0, sizeof text);
    SAY(read(in, text, 1));
    printf("%s|\n", text);
    SAY(fsync(q));
    SAY(ftruncate(q, 5));
    struct stat st;
    fstat(q, &st);
    printf("size %ld\n", (long)st.st_size);
    SAY((long)mmap(NULL, 4096, PROT_READ, MAP_SHARED, q, 0));
    SAY(flock(q, LOCK_EX | LOCK_NB));
    mq_close(in);
    mq_close(out);
    mq_close(q);
    mq_unlink(NAME);
}

static void deadlines(void) {
    char text[16];
    struct timespec past = {1, 0}, negative = {-1, 0}, wrong = {1, 1000000000}, soon;
    mqd_t q = make(NAME, O_RDWR, 0600, 1, 16);
    SAY(mq_timedreceive(q, text, 16, NULL, &past));
    SAY(mq_timedreceive(q, text, 16, NULL, &negative));
    SAY(mq_timedreceive(q, text, 16, NULL, &wrong));
    SAY(syscall(SYS_mq_timedreceive, q, text, 16, NULL, (void *)1));
    /* A wrong time is wrong even where there is nothing to wait for. */
    SAY(mq_timedsend(q, "x", 1, 0, &wrong));
    SAY(mq_timedsend(-1, "x", 1, 32768, &wrong));
    SAY(mq_timedsend(-1, "x", 1, 32768, &past));
    SAY(mq_timedsend(-1, "x", 1, 0, &past));
    SAY(mq_timedsend(q, "x", 1, 0, &past));
    SAY(mq_timedsend(q, "x", 1, 0, &past));
    SAY(mq_timedsend(q, "x", 1, 0, &wrong));
    struct timespec before, now;
    soon = after(50);
    clock_gettime(CLOCK_MONOTONIC, &before);
    SAY(mq_timedsend(q, "x", 1, 0, &soon));
    clock_gettime(CLOCK_MONOTONIC, &now);
    long ms = (now.tv_sec - before.tv_sec) * 1000 + (now.tv_nsec - before.tv_nsec) / 1000000;
    printf("waited: %d\n", ms >= 45 && ms < 5000);
    take(q);
    soon = after(50);
    SAY(mq_timedreceive(q, text, 16, NULL, &soon));
    attributes("nothing is left of it", q);
    mq_close(q);
    mq_unlink(NAME);
}

static void handler(int signo) { (void)signo; }

static void waiting(void) {
    mqd_t q = make(NAME, O_RDWR, 0600, 2, 16);
    pid_t first = CHILD(printf("first: "); take(q));
    until_asleep(first);
    pid_t second = CHILD(printf("second: "); take(q));
    until_asleep(second);
    /* Who has waited longest is served, and nothing comes into the queue. */
    put(q, "one", 1);
    SAY(ended(first));
    attributes("between", q);
    put(q, "two", 9);
    SAY(ended(second));
    attributes("after", q);

    SAY(put(q, "fills", 1));
    SAY(put(q, "it", 2));
    first = CHILD(_exit(put(q, "waited", 1) ? errno : 0));
    until_asleep(first);
    second = CHILD(_exit(put(q, "too", 7) ? errno : 0));
    until_asleep(second);
    take(q);
    SAY(ended(first));
    attributes("full still", q);
    take(q);
    SAY(ended(second));
    take(q);
    take(q);
    attributes("empty", q);

    /* Killed while they wait. */
    first = CHILD(take(q));
    until_asleep(first);
    kill(first, SIGKILL);
    SAY(ended(first));
    SAY(put(q, "for nobody yet", 0));
    take(q);
    /* One that does not wait any longer does not take what comes then. */
    first = CHILD(struct timespec soon = after(60); char text[16]; printf("late: "); SAY(mq_timedreceive(q, text, 16, NULL, &soon)));
    SAY(ended(first));
    SAY(put(q, "later", 0));
    take(q);

    /* Signals interrupt, unless the handler asks for a restart. */
    struct sigaction act = {.sa_handler = handler};
    sigaction(SIGALRM, &act, NULL);
    ualarm(30000, 0);
    take(q);
    put(q, "fills", 0);
    put(q, "it", 0);
    ualarm(30000, 0);
    SAY(put(q, "x", 0));
    take(q);
    take(q);
    act.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &act, NULL);
    ualarm(30000, 0);
    struct timespec soon = after(150);
    char text[16];
    SAY(mq_timedreceive(q, text, 16, NULL, &soon));
    ualarm(30000, 0);
    first = CHILD(pause_ms(150); put(q, "after the signal", 4));
    take(q);
    SAY(ended(first));

    /* Without a name, and with its descriptor in other hands. */
    mq_unlink(NAME);
    first = CHILD(take(q));
    until_asleep(first);
    put(q, "no name", 0);
    SAY(ended(first));
    mq_close(q);

    /* Many at once: all that is sent is received. */
    q = make(NAME, O_RDWR, 0600, 3, sizeof(int));
    pid_t receivers[3], senders[3];
    int results[2];
    pipe(results);
    for (int i = 0; i < 3; i++) {
        receivers[i] = CHILD(long sum = 0; int n = 0; for (;;) {
            if (mq_receive(q, (char *)&n, sizeof n, NULL) != sizeof n || n < 0) break;
            sum += n;
        } write(results[1], &sum, sizeof sum));
        senders[i] = CHILD(for (int n = 1; n <= 2000; n++) mq_send(q, (char *)&n, sizeof n, n % 5 + 1));
    }
    for (int i = 0; i < 3; i++) ended(senders[i]);
    int end = -1;
    for (int i = 0; i < 3; i++) mq_send(q, (char *)&end, sizeof end, 0);
    long all = 0, part;
    for (int i = 0; i < 3; i++) {
        ended(receivers[i]);
        read(results[0], &part, sizeof part);
        all += part;
    }
    printf("received %ld\n", all);
    attributes("all gone", q);
    mq_close(q);
    mq_unlink(NAME);
}

static void readiness(void) {
    mqd_t q = make(NAME, O_RDWR | O_NONBLOCK, 0600, 1, 16);
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
    SAY(epoll_ctl(set, EPOLL_CTL_ADD, q, &event));
    SAY(epoll_wait(set, &event, 1, 0));
    printf("events %x\n", event.events);
    SAY(epoll_wait(set, &event, 1, 0));
    pid_t child = CHILD(pause_ms(40); put(q, "come", 0));
    SAY(epoll_wait(set, &event, 1, 5000));
    printf("events %x\n", event.events);
    SAY(ended(child));
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(q, &in);
    FD_SET(q, &out);
    struct timeval none = {0, 0};
    SAY(select(q + 1, &in, &out, NULL, &none));
    printf("in %d out %d\n", FD_ISSET(q, &in) != 0, FD_ISSET(q, &out) != 0);
    child = CHILD(char text[16]; pause_ms(40); mq_receive(q, text, 16, NULL));
    struct pollfd one = {q, POLLOUT, 0};
    SAY(poll(&one, 1, 5000));
    printf("events %x\n", one.revents);
    SAY(ended(child));
    close(set);
    mq_close(q);
    mq_unlink(NAME);
}

static sigset_t notices;

/* The signal that waits, if any. */
static void told(const char *what, pid_t by) {
    siginfo_t info;
    struct timespec soon = {0, 100000000};
    memset(&info, 0, sizeof info);
    int signo = sigtimedwait(&notices, &info, &soon);
    if (signo < 0)
        printf("%s: nothing\n", what);
    else
        printf("%s: signal %d code %d value %d by %s user %d\n", what, signo, info.si_code, info.si_value.sival_int,
               info.si_pid == by ? "the sender" : "another", info.si_uid);
}

/* Starts this program anew with a descriptor. */
static void execute(int fd) {
    char number[12];
    snprintf(number, sizeof number, "%d", fd);
    fcntl(fd, F_SETFD, 0);
    fflush(stdout);
    execl("/proc/self/exe", "mqueue", "--executed", number, NULL);
    perror("exec");
}

static int executed(int q) {
    shown("executed", q);
    put(q, "by the program", 0);
    told("executed", getpid());
    shown("executed", q);
    return 0;
}

static void by_signal(void) {
    mqd_t q = make(NAME, O_RDWR | O_NONBLOCK, 0600, 4, 16);
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 77};
    SAY(mq_notify(q, NULL));
    SAY(mq_notify(q, &how));
    shown("asked for", q);
    SAY(mq_notify(q, &how));
    pid_t child = CHILD(how.sigev_signo = SIGRTMIN + 1; SAY(mq_notify(q, &how)); SAY(mq_notify(q, NULL)); shown("a child's", q);
                        put(q, "first", 0));
    SAY(ended(child));
    told("a child's message", child);
    shown("told", q);
    SAY(put(q, "another", 0));
    told("once only", getpid());
    /* Only when it was empty. */
    SAY(mq_notify(q, &how));
    SAY(put(q, "third", 0));
    told("not empty", getpid());
    take(q);
    take(q);
    take(q);
    shown("waits still", q);
    how.sigev_signo = SIGRTMIN + 1;
    SAY(mq_notify(q, &how));
    SAY(mq_notify(q, NULL));
    shown("no more", q);
    SAY(mq_notify(q, &how));
    SAY(put(q, "mine", 0));
    told("a realtime signal", getpid());
    take(q);
    /* Who waits for a message gets it, and nobody is told. */
    SAY(mq_notify(q, &how));
    mqd_t patient = mq_open(NAME, O_RDONLY);
    child = CHILD(take(patient));
    until_asleep(child);
    put(q, "for who waits", 0);
    SAY(ended(child));
    told("somebody waited", getpid());
    shown("waits still", q);
    /* With any descriptor of it that is closed, however. */
    SAY(mq_close(patient));
    shown("closed", q);
    SAY(mq_notify(q, &how));
    int copy = dup(q);
    dup2(0, copy);
    shown("replaced", q);
    close(copy);
    /* A child's end, and a child that executes. */
    child = CHILD(SAY(mq_notify(q, &how)); shown("a child's", q));
    SAY(ended(child));
    shown("a child has ended", q);
    child = CHILD(mq_notify(q, &how); execute(dup(q)));
    SAY(ended(child));
    take(q);
    /* One that is kept over exec keeps the notice, but the new program gets no signal of it. */
    fcntl(q, F_SETFD, 0);
    child = CHILD(mq_notify(q, &how); execute(q));
    SAY(ended(child));
    fcntl(q, F_SETFD, FD_CLOEXEC);
    take(q);
    /* Without a signal, and in vain. */
    how.sigev_signo = 0;
    SAY(mq_notify(q, &how));
    SAY(put(q, "x", 0));
    told("signal 0", getpid());
    shown("gone all the same", q);
    take(q);
    how.sigev_notify = SIGEV_NONE;
    SAY(mq_notify(q, &how));
    shown("silent", q);
    SAY(mq_notify(q, &how));
    SAY(put(q, "x", 0));
    told("silent", getpid());
    shown("gone", q);
    take(q);
    how.sigev_notify = SIGEV_SIGNAL;
    how.sigev_signo = 65;
    SAY(mq_notify(q, &how));
    how.sigev_signo = -1;
    SAY(mq_notify(q, &how));
    how.sigev_signo = SIGUSR1;
    how.sigev_notify = 4;
    SAY(mq_notify(q, &how));
    how.sigev_notify = SIGEV_SIGNAL;
    SAY(mq_notify(-1, &how));
    SAY(mq_notify(0, &how));
    SAY(syscall(SYS_mq_notify, q, (void *)1));
    mq_close(q);
    mq_unlink(NAME);
}

static sem_t called;

static void in_thread(union sigval value) {
    printf("a thread is told: %d\n", value.sival_int);
    sem_post(&called);
}

static void cookie(int socket, const char *what) {
    char bytes[64];
    memset(bytes, 0, sizeof bytes);
    ssize_t n = recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %zd bytes %.31s %d\n", what, n, bytes, bytes[31]);
}

static void by_thread(void) {
    mqd_t q = make(NAME, O_RDWR | O_NONBLOCK, 0600, 4, 16);
    struct sigevent how = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = in_thread, .sigev_value.sival_int = 5};
    sem_init(&called, 0, 0);
    SAY(mq_notify(q, &how));
    SAY(mq_notify(q, &how));
    shown("asked for", q);
    put(q, "x", 0);
    SAY(sem_wait(&called));
    shown("told", q);
    take(q);
    how.sigev_value.sival_int = 6;
    SAY(mq_notify(q, &how));
    SAY(mq_notify(q, NULL));
    SAY(mq_notify(q, &how));
    pid_t child = CHILD(put(q, "y", 0));
    SAY(sem_wait(&called));
    SAY(ended(child));
    take(q);

    /* What is below: a socket, and 32 bytes. */
    static char bytes[32] = "what the C library has to say";
    struct sigevent raw = {.sigev_notify = SIGEV_THREAD, .sigev_value.sival_ptr = bytes};
    int socket_ = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), pair[2];
    raw.sigev_signo = socket_;
    SAY(syscall(SYS_mq_notify, q, &raw));
    SAY(syscall(SYS_mq_notify, q, &raw));
    shown("asked for", q);
    cookie(socket_, "not yet");
    SAY(put(q, "z", 0));
    cookie(socket_, "told");
    cookie(socket_, "once");
    take(q);
    SAY(syscall(SYS_mq_notify, q, &raw));
    SAY(syscall(SYS_mq_notify, q, NULL));
    cookie(socket_, "removed");
    mqd_t other = mq_open(NAME, O_RDONLY);
    SAY(syscall(SYS_mq_notify, other, &raw));
    SAY(mq_close(other));
    cookie(socket_, "closed");
    child = CHILD(syscall(SYS_mq_notify, q, &raw));
    SAY(ended(child));
    cookie(socket_, "a child has ended");
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    raw.sigev_signo = pair[0];
    SAY(syscall(SYS_mq_notify, q, &raw));
    raw.sigev_signo = q;
    SAY(syscall(SYS_mq_notify, q, &raw));
    raw.sigev_signo = -1;
    SAY(syscall(SYS_mq_notify, q, &raw));
    raw.sigev_value.sival_ptr = (void *)1;
    SAY(syscall(SYS_mq_notify, q, &raw));
    raw.sigev_value.sival_ptr = bytes;
    raw.sigev_signo = socket_;
    SAY(syscall(SYS_mq_notify, -1, &raw));
    cookie(socket_, "nothing");
    /* The socket may be gone by then. */
    SAY(syscall(SYS_mq_notify, q, &raw));
    close(socket_);
    SAY(put(q, "x", 0));
    close(pair[0]);
    close(pair[1]);
    mq_close(q);
    mq_unlink(NAME);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void listed(void) {
    DIR *dir = opendir(PLACE);
    char *names[64];
    int count = 0;
    for (struct dirent *entry; dir && count < 64 && (entry = readdir(dir));)
        if (entry->d_type == DT_REG || entry->d_type == DT_DIR) names[count++] = strdup(entry->d_name);
    qsort(names, count, sizeof names[0], by_name);
    printf("listed:");
    for (int i = 0; i < count; i++) printf(" %s", names[i]);
    printf("\n");
    if (dir) closedir(dir);
}

static void file_system(void) {
    struct stat st;
    struct statfs fs;
    char line[512];
    SAY(mount("none", PLACE, "mqueue", 0, "mode=0700"));
    SAY(mount("none", PLACE, "mqueue", 0, NULL));
    SAY(stat(PLACE, &st));
    printf("mode %o size %ld links %ld owner %d %d\n", st.st_mode, (long)st.st_size, (long)st.st_nlink, st.st_uid, st.st_gid);
    SAY(statfs(PLACE, &fs));
    printf("type %lx block %ld name %ld\n", (long)fs.f_type, (long)fs.f_bsize, (long)fs.f_namelen);
    FILE *mounts = fopen("/proc/self/mounts", "r");
    while (mounts && fgets(line, sizeof line, mounts))
        if (strstr(line, "/" PLACE " mqueue ")) printf("mounted:%s", strstr(line, " mqueue "));
    if (mounts) fclose(mounts);
    FILE *types = fopen("/proc/filesystems", "r");
    while (types && fgets(line, sizeof line, types))
        if (strstr(line, "\tmqueue\n")) printf("type: %s", line);
    if (types) fclose(types);
    listed();
    mqd_t q = make(NAME, O_RDWR | O_NONBLOCK, 0640, 4, 16);
    put(q, "twelve bytes", 0);
    listed();
    SAY(stat(IN("umlfs-queue"), &st));
    printf("mode %o size %ld links %ld blocks %ld of %ld\n", st.st_mode, (long)st.st_size, (long)st.st_nlink, (long)st.st_blocks,
           (long)st.st_blksize);
    SAY(stat(PLACE, &st));
    printf("size %ld\n", (long)st.st_size);
    int fd = OPENED(open(IN("umlfs-queue"), O_RDWR | O_NONBLOCK));
    shown("a file", fd);
    SAY(fcntl(fd, F_GETFD));
    /* What open(2) opens is a queue as well. */
    take(fd);
    take(fd);
    SAY(put(fd, "by a path", 3));
    take(q);
    close(fd);
    fd = OPENED(open(IN("umlfs-other"), O_RDWR | O_CREAT | O_EXCL, 0666));
    attributes("as nobody said", fd);
    close(fd);
    SAY(mknod(IN("made"), S_IFREG | 0600, 0));
    listed();
    SAY(mkdir(IN("dir"), 0700));
    SAY(mkfifo(IN("fifo"), 0600));
    SAY(symlink("umlfs-queue", IN("link")));
    SAY(link(IN("umlfs-queue"), IN("link")));
    SAY(rename(IN("umlfs-queue"), IN("moved")));
    SAY(rmdir(IN("umlfs-queue")));
    SAY(unlink(IN("none")));
    SAY(open(IN("none"), O_RDWR));
    SAY(truncate(IN("made"), 3));
    SAY(stat(IN("made"), &st));
    printf("size %ld\n", (long)st.st_size);
    SAY(chmod(IN("made"), 0604));
    SAY(chown(IN("made"), 12, 34));
    SAY(stat(IN("made"), &st));
    printf("mode %o owner %d %d\n", st.st_mode, st.st_uid, st.st_gid);
    SAY(unlink(IN("made")));
    SAY(mq_unlink("/made"));
    SAY(unlink(IN("umlfs-other")));
    listed();
    /* One file system, wherever it is seen, and when it is not. */
    mkdir("second", 0700);
    SAY(mount("none", "second", "mqueue", MS_RDONLY, NULL));
    SAY(stat("second/umlfs-queue", &st));
    SAY(unlink("second/umlfs-queue"));
    SAY(umount("second"));
    rmdir("second");
    SAY(umount(PLACE));
    SAY(stat(IN("umlfs-queue"), &st));
    SAY(put(q, "meanwhile", 0));
    SAY(mount("none", PLACE, "mqueue", 0, NULL));
    listed();
    mq_close(q);
    q = OPENED(mq_open(NAME, O_RDWR | O_NONBLOCK));
    take(q);
    SAY(mount(NULL, PLACE, NULL, MS_REMOUNT | MS_RDONLY, NULL));
    mq_close(q);
    SAY(mount(NULL, PLACE, NULL, MS_REMOUNT | MS_RDONLY, NULL));
    SAY(mq_open(OTHER, O_RDWR | O_CREAT, 0600, NULL));
    SAY(mq_open(NAME, O_RDWR));
    SAY(mq_close(mq_open(NAME, O_RDONLY)));
    SAY(mq_unlink(NAME));
    SAY(mount(NULL, PLACE, NULL, MS_REMOUNT, NULL));
    SAY(mq_unlink(NAME));
    listed();
}

static void become(int user) {
    if (setgid(user) || setuid(user)) perror("another user");
}

static void by_others(void) {
    mqd_t q = make(NAME, O_RDWR, 0640, 4, 16);
    mq_close(make(OTHER, O_RDWR, 0622, 4, 16));
    struct stat st;
    SAY(stat(IN("umlfs-other"), &st));
    printf("mode %o\n", st.st_mode);
    SAY(chmod(IN("umlfs-other"), 0622));
    SAY(chown(IN("umlfs-queue"), 0, 1235));
    pid_t child = CHILD(
        become(1234);
        SAY(mq_open(NAME, O_RDONLY));
        SAY(mq_open(NAME, O_RDWR));
        SAY(mq_open(NAME, O_RDWR | O_CREAT, 0600, NULL));
        SAY(mq_open(OTHER, O_RDONLY));
        mqd_t own = OPENED(mq_open(OTHER, O_WRONLY));
        SAY(put(own, "may write", 0));
        mq_close(own);
        SAY(mq_unlink(NAME));
        SAY(syscall(SYS_mq_unlink, NAME + 1));
        SAY(unlink(IN("umlfs-other")));
        SAY(chmod(IN("umlfs-other"), 0666));
        SAY(open(IN("umlfs-other"), O_RDONLY));
        own = OPENED(mq_open("/umlfs-own", O_RDWR | O_CREAT, 0600, NULL));
        SAY(stat(IN("umlfs-own"), &st));
        printf("mode %o owner %d %d\n", st.st_mode, st.st_uid, st.st_gid);
        SAY(mq_unlink("/umlfs-own"));
        mq_close(own);
        /* A queue's notice by a sender who could send no signal. */
        struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        SAY(mq_notify(q, &how)));
    SAY(ended(child));
    child = CHILD(become(1235); SAY(mq_close(mq_open(NAME, O_RDONLY))); SAY(mq_open(NAME, O_WRONLY)));
    SAY(ended(child));
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 3};
    SAY(mq_notify(q, &how));
    child = CHILD(become(1234); put(q, "by another user", 0));
    SAY(ended(child));
    told("by another user", child);
    mq_close(q);
    mq_unlink(NAME);
    mq_unlink(OTHER);
}

static void limits(void) {
    static const char *const all[] = {"msg_default", "msg_max", "msgsize_default", "msgsize_max", "queues_max"};
    for (int i = 0; i < 5; i++) setting(all[i], NULL);
    setting("msg_max", "0");
    setting("msg_max", "65537");
    setting("msgsize_max", "127");
    setting("msgsize_max", "16777217");
    setting("msg_max", "nothing");
    setting("msg_max", "20");
    setting("msgsize_max", "300");
    setting("msg_max", NULL);
    mqd_t q = make(NAME, O_RDWR, 0600, 1, 1);
    mq_close(q);
    mq_unlink(NAME);
    q = mq_open(NAME, O_RDWR | O_CREAT, 0600, NULL);
    attributes("cut by the maximum", q);
    mq_close(q);
    mq_unlink(NAME);
    setting("msg_default", "3");
    setting("msgsize_default", "200");
    q = mq_open(NAME, O_RDWR | O_CREAT, 0600, NULL);
    attributes("by default", q);
    mq_close(q);
    mq_unlink(NAME);
    pid_t child = CHILD(become(1234);
        mqd_t own = OPENED(make(NAME, O_RDWR, 0600, 20, 300));
        mq_close(own);
        mq_unlink(NAME);
        SAY(make(NAME, O_RDWR, 0600, 21, 300));
        SAY(make(NAME, O_RDWR, 0600, 20, 301));
        setting("msg_max", "30"));
    SAY(ended(child));

    /* Bytes of a user's queues: 4 messages of 100 bytes count for 784 here. */
    struct rlimit room = {784, 784};
    setting("queues_max", "2");
    child = CHILD(
        setrlimit(RLIMIT_MSGQUEUE, &room);
        become(1234);
        SAY(make(NAME, O_RDWR, 0600, 4, 101));
        mqd_t own = OPENED(make(NAME, O_RDWR, 0600, 4, 100));
        SAY(make(OTHER, O_RDWR, 0600, 1, 1));
        SAY(open(IN("umlfs-other"), O_RDWR | O_CREAT, 0600));
        SAY(mq_unlink(NAME));
        /* It counts while it is open. */
        SAY(make(OTHER, O_RDWR, 0600, 1, 1));
        SAY(mq_close(own));
        own = OPENED(make(OTHER, O_RDWR, 0600, 4, 100));
        mq_close(own);
        SAY(mq_unlink(OTHER)));
    SAY(ended(child));
    child = CHILD(
        become(1234);
        mqd_t one = OPENED(make("/umlfs-1", O_RDWR, 0600, 1, 1));
        mqd_t two = OPENED(make("/umlfs-2", O_RDWR, 0600, 1, 1));
        SAY(make("/umlfs-3", O_RDWR, 0600, 1, 1));
        SAY(make("/umlfs-3", O_RDWR, 0600, 0, 1));
        mq_unlink("/umlfs-1");
        SAY(make("/umlfs-3", O_RDWR, 0600, 1, 1));
        mq_close(one);
        one = OPENED(make("/umlfs-3", O_RDWR, 0600, 1, 1));
        mq_close(one);
        mq_close(two));
    SAY(ended(child));
    /* All users together. */
    SAY(make(NAME, O_RDWR, 0600, 1, 1));
    SAY(mq_unlink("/umlfs-2"));
    SAY(mq_unlink("/umlfs-3"));
    q = OPENED(make(NAME, O_RDWR, 0600, 1, 1));
    mq_close(q);
    SAY(mq_unlink(NAME));
    room.rlim_cur = 96;
    child = CHILD(setrlimit(RLIMIT_MSGQUEUE, &room); SAY(make(NAME, O_RDWR, 0600, 1, 1)));
    SAY(ended(child));
    setting("msg_default", "10");
    setting("msgsize_default", "8192");
    setting("msg_max", "10");
    setting("msgsize_max", "8192");
    setting("queues_max", "256");
}

/* Gives up CAP_SYS_RESOURCE, which not everybody has who is root. */
static int keep_to_limits(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, sets)) return -1;
    sets[0].effective &= ~(1u << CAP_SYS_RESOURCE);
    sets[0].permitted &= ~(1u << CAP_SYS_RESOURCE);
    return syscall(SYS_capset, &header, sets);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigemptyset(&notices);
    sigaddset(&notices, SIGUSR1);
    sigaddset(&notices, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &notices, NULL);
    if (argc == 3 && strcmp(argv[1], "--executed") == 0) return executed(atoi(argv[2]));
    if (geteuid() != 0 || keep_to_limits()) return 77;
    umask(022);
    /* Where there are others, out of their sight; a machine of its own needs no namespaces. */
    if (unshare(CLONE_NEWIPC | CLONE_NEWNS) == 0) mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    /* Others come there from here, whatever is above. */
    if (chdir(argc > 2 ? argv[2] : "/tmp")) return 77;
    mkdir(PLACE, 0755);
    if (mount("none", PLACE, "mqueue", 0, NULL) || umount(PLACE)) return 77;
    struct rlimit usual = {819200, 819200};
    setrlimit(RLIMIT_MSGQUEUE, &usual);
    names();
    attributes_of_queues();
    messages();
    deadlines();
    waiting();
    readiness();
    by_signal();
    by_thread();
    file_system();
    by_others();
    limits();
    SAY(umount(PLACE));
    rmdir(PLACE);
    return 0;
}
