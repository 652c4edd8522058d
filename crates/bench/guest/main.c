/* The guest program of `umlfs bench`.
 *
 *   bench micro SELF DIRECTORY MILLISECONDS [NAME...]   "NAME NANOSECONDS" for each operation, "NAME ! ERROR" if it failed
 *   bench tree SELF DIRECTORY COUNT                      makes DIRECTORY/tree of COUNT small files
 *   bench time SELF DIRECTORY COMMAND [ARGUMENT...]      "time NANOSECONDS" that a command takes in that directory
 *   bench                                                says that it runs
 *   bench true                                           ends at once
 *
 * As process 1 (under a kernel that starts nothing else) it powers off in the end. */
#include "bench.h"
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

const char *self;
const char *directory;

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

const char *below(const char *name) {
    static char paths[4][4096];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of several batches, each of about `target` nanoseconds. */
static int measure(const struct operation *op, double target, double *result) {
    enum { BATCHES = 5 };
    double times[BATCHES];
    long n = 1;
    for (;;) {
        double start = now();
        int error = op->body(n);
        if (error) return error;
        double took = now() - start;
        if (took >= target / 4) {
            n = n * (target / took) + 1;
            break;
        }
        n *= took < target / 100 ? 10 : 3;
    }
    for (int i = 0; i < BATCHES; i++) {
        double start = now();
        int error = op->body(n);
        if (error) return error;
        times[i] = (now() - start) / n / op->per;
    }
    qsort(times, BATCHES, sizeof times[0], compare);
    *result = times[BATCHES / 2];
    return 0;
}

static int is_wanted(const char *name, char **names, int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(name, names[i])) return 1;
    return count == 0;
}

static void run(const struct operation *op, double target) {
    double value = 0;
    int error = op->prepare ? op->prepare() : 0;
    if (!error) {
        error = measure(op, target, &value);
        if (op->finish) op->finish();
    }
    if (error) printf("%s ! %s\n", op->name, strerror(error));
    else printf("%s %.2f\n", op->name, value);
    fflush(stdout);
}

/* Some kernels leave the loopback interface down. */
static void loopback_up(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = {.ifr_name = "lo"};
    if (s >= 0 && !ioctl(s, SIOCGIFFLAGS, &request) && !(request.ifr_flags & IFF_UP)) {
        request.ifr_flags |= IFF_UP | IFF_RUNNING;
        ioctl(s, SIOCSIFFLAGS, &request);
    }
    if (s >= 0) close(s);
}

static int micro(int argc, char **argv) {
    const struct operation *groups[] = {call_operations, message_operations, process_operations, memory_operations,
                                        file_operations};
    double target = atof(argv[0]) * 1e6;
    signal(SIGPIPE, SIG_IGN);
    loopback_up();
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
        for (const struct operation *op = groups[g]; op->name; op++)
            if (is_wanted(op->name, argv + 1, argc - 1)) run(op, target);
    return 0;
}

/* Directories of ten directories of ten files, as deep as it takes. */
static int tree(long count) {
    char path[4096], text[200];
    memset(text, 'x', sizeof text);
    directory = below("tree");
    if (mkdir(directory, 0755) && errno != EEXIST) return 1;
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/d%ld", directory, i / 100);
        if (i % 100 == 0 && mkdir(path, 0755) && errno != EEXIST) return 1;
        snprintf(path, sizeof path, "%s/d%ld/s%ld", directory, i / 100, i / 10 % 10);
        if (i % 10 == 0 && mkdir(path, 0755) && errno != EEXIST) return 1;
        snprintf(path, sizeof path, "%s/d%ld/s%ld/file%ld", directory, i / 100, i / 10 % 10, i);
        int f = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
        if (f < 0 || write(f, text, sizeof text) != sizeof text || close(f)) return 1;
    }
    return 0;
}

static int time_command(char **argv) {
    int status;
    double start = now();
    pid_t child = fork();
    if (!child) {
        int null = open("/dev/null", O_WRONLY);
        if (null < 0 || dup2(null, 1) < 0 || chdir(directory)) _exit(126);
        execvp(argv[0], argv);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return 1;
    if (status) printf("time ! wait status %#x\n", status);
    else printf("time %.0f\n", now() - start);
    return fflush(stdout);
}

static int command(int argc, char **argv) {
    if (argc < 2) return puts("first") < 0 || fflush(stdout);
    if (!strcmp(argv[1], "true")) return 0;
    if (argc < 5) return 2;
    self = argv[2];
    directory = argv[3];
    if (!strcmp(argv[1], "micro")) return micro(argc - 4, argv + 4);
    if (!strcmp(argv[1], "time")) return time_command(argv + 4);
    if (!strcmp(argv[1], "tree")) return tree(atol(argv[4]));
    return 2;
}

int main(int argc, char **argv) {
    if (getpid() == 1) {
        mount("proc", "/proc", "proc", 0, 0);
        mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    }
    int status = command(argc, argv);
    if (getpid() == 1) {
        sync();
        reboot(RB_POWER_OFF);
    }
    return status;
}
