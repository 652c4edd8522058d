/* Leases: who opens a file waits until who has one on it has given it back. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "say.h"

static volatile sig_atomic_t told, told_fd, told_code, told_band;

static void on_told(int number, siginfo_t *info, void *context)
{
    (void)context;
    told = number;
    told_fd = info->si_fd;
    told_code = info->si_code;
    told_band = (int)info->si_band;
}

/* Waits for the signal, which is blocked otherwise. */
static void wait_told(int fd)
{
    sigset_t none;
    sigemptyset(&none);
    while (!told) sigsuspend(&none);
    if (told == SIGIO)
        printf("told: SIGIO\n");
    else
        printf("told: %d, code %d, band %x, descriptor %d\n", told - SIGRTMIN, told_code, told_band, told_fd == fd);
    told = 0;
}

/* A child that opens the file and says what came of it and whether it took its time. */
static pid_t opener(const char *path, int flags)
{
    fflush(stdout);
    pid_t child = fork();
    if (child) return child;
    /* What it has of its parent's would keep the lease. */
    close_range(3, 100, 0);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    int fd = flags < 0 ? truncate(path, 3) : open(path, flags);
    int error = errno;
    clock_gettime(CLOCK_MONOTONIC, &after);
    long waited = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    /* After what its parent says of it. */
    usleep(30000);
    printf("child: %s, waited %d\n", fd < 0 ? strerrorname_np(error) : "done", waited >= 40);
    fflush(stdout);
    _exit(0);
}

static void pause_a_while(void) { usleep(60000); }

static void ended(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    if (status) printf("the child ended with %x\n", status);
}

static void leases(const char *directory)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/leased", directory);
    unlink(path);
    int writer = open(path, O_RDWR | O_CREAT, 0600), pipes[2], dir = open(directory, O_RDONLY);
    if (pipe(pipes) < 0 || write(writer, "contents", 8) != 8) exit(1);
    puts("-- what there can be none on");
    SAY(fcntl(dir, F_SETLEASE, F_RDLCK));
    SAY(fcntl(pipes[0], F_SETLEASE, F_RDLCK));
    SAY(fcntl(-1, F_SETLEASE, F_RDLCK));
    SAY(fcntl(writer, F_SETLEASE, 7));
    SAY(fcntl(writer, F_SETLEASE, F_RDLCK));
    SAY(fcntl(writer, F_SETLEASE, F_UNLCK));
    SAY(fcntl(writer, F_GETLEASE));
    puts("-- to write");
    SAY(fcntl(writer, F_SETLEASE, F_WRLCK));
    SAY(fcntl(writer, F_GETLEASE));
    SAY(fcntl(writer, F_GETOWN) == getpid());
    int again = dup(writer);
    SAY(fcntl(again, F_GETLEASE));
    SAY(fcntl(writer, F_SETLEASE, F_RDLCK));
    SAY(fcntl(again, F_SETLEASE, F_UNLCK));
    SAY(fcntl(writer, F_GETLEASE));
    close(again);
    int reader = open(path, O_RDONLY);
    SAY(fcntl(writer, F_SETLEASE, F_WRLCK));
    SAY(fcntl(reader, F_SETLEASE, F_RDLCK));
    close(writer);
    SAY(fcntl(reader, F_SETLEASE, F_RDLCK));
    SAY(fcntl(reader, F_SETLEASE, F_WRLCK));
    SAY(fcntl(reader, F_GETLEASE));
    puts("-- broken by a reader");
    ended(opener(path, O_RDONLY | O_NONBLOCK));
    wait_told(reader);
    SAY(fcntl(reader, F_GETLEASE));
    /* Who insists on it gets no more time. */
    SAY(fcntl(reader, F_SETLEASE, F_WRLCK));
    SAY(fcntl(reader, F_GETLEASE));
    pid_t child = opener(path, O_RDONLY);
    pause_a_while();
    SAY(fcntl(reader, F_SETLEASE, F_RDLCK));
    ended(child);
    SAY(fcntl(reader, F_GETLEASE));
    puts("-- read leases bear readers");
    ended(opener(path, O_RDONLY));
    int second = open(path, O_RDONLY);
    SAY(fcntl(second, F_SETLEASE, F_RDLCK));
    SAY(fcntl(second, F_SETLEASE, F_WRLCK));
    puts("-- broken by a writer, with a signal that says why");
    SAY(fcntl(reader, F_SETSIG, SIGRTMIN));
    close(second);
    child = opener(path, O_WRONLY);
    wait_told(reader);
    SAY(fcntl(reader, F_GETLEASE));
    second = open(path, O_RDONLY);
    SAY(fcntl(second, F_SETLEASE, F_RDLCK));
    pause_a_while();
    SAY(fcntl(reader, F_SETLEASE, F_UNLCK));
    ended(child);
    SAY(fcntl(reader, F_GETLEASE));
    close(second);
    puts("-- cut");
    SAY(fcntl(reader, F_SETLEASE, F_RDLCK));
    child = opener(path, -1);
    wait_told(reader);
    pause_a_while();
    SAY(fcntl(reader, F_SETLEASE, F_UNLCK));
    ended(child);
    struct stat st;
    stat(path, &st);
    printf("size %lld\n", (long long)st.st_size);
    puts("-- gone with the file");
    SAY(fcntl(reader, F_SETLEASE, F_WRLCK));
    child = opener(path, O_WRONLY | O_TRUNC);
    wait_told(reader);
    pause_a_while();
    close(reader);
    ended(child);
    puts("-- not by what is open already, or names");
    reader = open(path, O_RDONLY);
    SAY(fcntl(reader, F_SETLEASE, F_WRLCK));
    SAY(chmod(path, 0640));
    SAY(stat(path, &st));
    char other[4100];
    snprintf(other, sizeof other, "%s2", path);
    SAY(rename(path, other));
    SAY(unlink(other));
    printf("told: %d\n", told);
    close(reader);
    close(dir), close(pipes[0]), close(pipes[1]);
    signal(SIGIO, SIG_DFL);
}

/* Another user's file. */
static void foreign(const char *directory)
{
    if (getuid() != 0) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/leased", directory);
    int fd = open(path, O_RDONLY | O_CREAT, 0644);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        if (setresuid(1000, 1000, 1000)) _exit(1);
        SAY(fcntl(fd, F_SETLEASE, F_RDLCK));
        SAY(fcntl(fd, F_GETLEASE));
        fflush(stdout);
        _exit(0);
    }
    ended(child);
    close(fd);
    unlink(path);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sigaction action = {.sa_sigaction = on_told, .sa_flags = SA_SIGINFO};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGIO);
    sigaddset(&blocked, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    for (int i = 1; i < argc; i++) {
        printf("== directory %d\n", i);
        sigaction(SIGIO, &action, NULL);
        sigaction(SIGRTMIN, &action, NULL);
        leases(argv[i]);
        foreign(argv[i]);
    }
    return 0;
}
