/* Two processes or threads that talk: there and back, one byte; and as much as they can. */
#include "bench.h"
#include <arpa/inet.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { CHUNK = 65536 };

static int in = -1, out = -1;
static pid_t child;
static char buffer[CHUNK];

static void echo(int from, int to) {
    char c;
    while (read(from, &c, 1) == 1)
        if (write(to, &c, 1) != 1) break;
    _exit(0);
}

static void drain(int from) {
    while (read(from, buffer, sizeof buffer) > 0) {}
    _exit(0);
}

static int round_trips(long n) {
    char c = 'x';
    while (n--)
        if (write(out, &c, 1) != 1 || read(in, &c, 1) != 1) return failure();
    return 0;
}

static int chunks(long n) {
    while (n--)
        for (ssize_t done = 0; done < CHUNK;) {
            ssize_t wrote = write(out, buffer + done, CHUNK - done);
            if (wrote <= 0) return failure();
            done += wrote;
        }
    return 0;
}

static void stop(void) {
    if (in >= 0) close(in);
    if (out >= 0 && out != in) close(out);
    in = out = -1;
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
}

static int pipes(int sink) {
    int there[2], back[2];
    if (pipe(there) || pipe(back) || (child = fork()) < 0) return failure();
    if (!child) {
        close(there[1]);
        close(back[0]);
        if (sink) drain(there[0]);
        echo(there[0], back[1]);
    }
    close(there[0]);
    close(back[1]);
    out = there[1];
    in = back[0];
    return 0;
}
static int pipe_echo(void) { return pipes(0); }
static int pipe_sink(void) { return pipes(1); }

static int unix_echo(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || (child = fork()) < 0) return failure();
    if (!child) {
        close(pair[1]);
        echo(pair[0], pair[0]);
    }
    close(pair[0]);
    in = out = pair[1];
    return 0;
}

static int tcp(int sink) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (void *)&address, len) || listen(listener, 1) ||
        getsockname(listener, (void *)&address, &len) || (child = fork()) < 0)
        return failure();
    if (!child) {
        int peer = accept(listener, 0, 0);
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (sink) drain(peer);
        echo(peer, peer);
    }
    in = out = socket(AF_INET, SOCK_STREAM, 0);
    if (in < 0 || connect(in, (void *)&address, len)) return failure();
    setsockopt(in, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
    return 0;
}
static int tcp_echo(void) { return tcp(0); }
static int tcp_sink(void) { return tcp(1); }

/* Two words, each on a cache line of its own: one for each direction. */
static int words[64];
static volatile int over;
static pthread_t partner;

static void wait_word(int *word) {
    while (__atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST) == 0) syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
}
static void wake_word(int *word) {
    __atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}
static void *answer(void *unused) {
    (void)unused;
    for (;;) {
        wait_word(&words[0]);
        if (over) return 0;
        wake_word(&words[32]);
    }
}
static int start_partner(void) {
    words[0] = words[32] = 0;
    over = 0;
    return pthread_create(&partner, 0, answer, 0);
}
static void end_partner(void) {
    over = 1;
    wake_word(&words[0]);
    pthread_join(partner, 0);
}
static int futex_body(long n) {
    while (n--) {
        wake_word(&words[0]);
        wait_word(&words[32]);
    }
    return 0;
}

const struct operation message_operations[] = {
    {"pipe-pingpong", pipe_echo, stop, round_trips, 1},
    {"futex-pingpong", start_partner, end_partner, futex_body, 1},
    {"unix-pingpong", unix_echo, stop, round_trips, 1},
    {"tcp-pingpong", tcp_echo, stop, round_trips, 1},
    {"pipe-64k", pipe_sink, stop, chunks, 1},
    {"tcp-64k", tcp_sink, stop, chunks, 1},
    {0},
};
