/* Processor time: what programs are told of it, and what goes by it. Times are compared with bounds, not printed. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A line, at once: children inherit no buffer. */
#define say(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))

static volatile sig_atomic_t signals;

static void count(int signo)
{
    (void)signo;
    signals++;
}

static double clock_now(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
    return t.tv_sec + t.tv_usec / 1e6;
}

/* Uses this much of the thread's processor, hardly calling the kernel. */
static void burn(double wanted)
{
    double end = clock_now(CLOCK_THREAD_CPUTIME_ID) + wanted;
    volatile unsigned long n = 0;
    do
        for (int i = 0; i < 3000000; i++)
            n += i;
    while (clock_now(CLOCK_THREAD_CPUTIME_ID) < end);
}

static void *burner(void *how_long)
{
    burn(*(double *)how_long);
    return NULL;
}

static const char *within(double value, double least, double most)
{
    return value >= least && value <= most ? "yes" : "no";
}

static double used(int who)
{
    struct rusage r;
    getrusage(who, &r);
    return seconds(r.ru_utime) + seconds(r.ru_stime);
}

int main(void)
{
    struct rusage r;
    struct tms t;
    burn(0.3);
    getrusage(RUSAGE_SELF, &r);
    say("getrusage: user time of 0.3 s %s", within(seconds(r.ru_utime), 0.2, 1.0));
    times(&t);
    say("times: user time of 0.3 s %s", within((double)t.tms_utime / sysconf(_SC_CLK_TCK), 0.2, 1.0));
    say("process clock %s", within(clock_now(CLOCK_PROCESS_CPUTIME_ID), 0.25, 1.0));

    /* Threads count for their process, also after their end. */
    double before = used(RUSAGE_SELF), part = 0.2;
    pthread_t thread;
    pthread_create(&thread, NULL, burner, &part);
    pthread_join(thread, NULL);
    say("a thread's time is its process's %s", within(used(RUSAGE_SELF) - before, 0.15, 1.0));

    /* Children count once they are waited for. */
    pid_t child = fork();
    if (child == 0) {
        burn(0.2);
        _exit(0);
    }
    say("not yet waited for: %s", within(used(RUSAGE_CHILDREN), 0, 0));
    struct rusage of_child;
    wait4(child, NULL, 0, &of_child);
    say("wait4's rusage %s", within(seconds(of_child.ru_utime) + seconds(of_child.ru_stime), 0.15, 1.0));
    say("children's time %s", within(used(RUSAGE_CHILDREN), 0.15, 1.0));

    /* Timers by processor time. */
    int which[] = {ITIMER_VIRTUAL, ITIMER_PROF};
    int signo[] = {SIGVTALRM, SIGPROF};
    for (int i = 0; i < 2; i++) {
        signal(signo[i], count);
        signals = 0;
        struct itimerval every = {{0, 50000}, {0, 50000}}, left;
        setitimer(which[i], &every, NULL);
        burn(0.4);
        getitimer(which[i], &left);
        struct itimerval off = {{0, 0}, {0, 0}};
        setitimer(which[i], &off, NULL);
        say("timer %d: signals %s, time left %s", i, within(signals, 1, 20), within(seconds(left.it_value), 0, 0.06));
    }

    /* A limit: a warning, then the end. */
    child = fork();
    if (child == 0) {
        struct rlimit limit = {1, 2};
        setrlimit(RLIMIT_CPU, &limit);
        signal(SIGXCPU, count);
        signals = 0;
        alarm(30);
        while (!signals)
            ;
        say("SIGXCPU after a second %s", within(clock_now(CLOCK_PROCESS_CPUTIME_ID), 0.5, 1.9));
        for (;;)
            ;
    }
    int status;
    wait4(child, &status, 0, &of_child);
    say("ended by signal %d", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    say("at the hard limit %s", within(seconds(of_child.ru_utime) + seconds(of_child.ru_stime), 1.3, 2.9));
    return 0;
}
