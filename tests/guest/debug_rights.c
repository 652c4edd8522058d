/* Who may trace whom, and what a traced program does not get. argv[1]: a directory for a program. Stands down (77) where it is not
   run by root, or where set-user-id programs get nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/uio.h>
#include <unistd.h>
#include "say.h"

#define RAW(request, pid, addr, data) syscall(SYS_ptrace, (long)(request), (long)(pid), (long)(addr), (long)(data))

static int program;
static char *const arguments[] = {"debug_rights", "who", NULL};
static char *const wishes[] = {"debug_rights", "trace me", NULL};
static long variable = 5;

static void drop(uid_t uid) {
    setresgid(uid, uid, uid);
    setresuid(uid, uid, uid);
}

/* A process of a user's that sleeps; one that has changed its user is not dumpable. */
static pid_t sleeper(uid_t uid, int dumpable) {
    int ends[2];
    char byte;
    pipe(ends);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        drop(uid);
        if (dumpable) prctl(PR_SET_DUMPABLE, 1);
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
        write(ends[1], "", 1);
        for (;;) pause();
    }
    read(ends[0], &byte, 1);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

static void as_user(uid_t uid, void (*body)(pid_t), pid_t pid) {
    fflush(stdout);
    pid_t user = fork();
    if (user == 0) {
        if (uid) drop(uid);
        body(pid);
        fflush(stdout);
        _exit(0);
    }
    waitpid(user, NULL, 0);
}

static void tries(pid_t pid) {
    long word;
    struct iovec here = {&word, sizeof word}, there = {&variable, sizeof variable};
    SAY(process_vm_readv(pid, &here, 1, &there, 1, 0));
    SAY(RAW(PTRACE_ATTACH, pid, 0, 0));
    SAY(RAW(PTRACE_SEIZE, pid, 0, 0));
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    OPENED(open(path, O_RDWR));
}

/* Exits with its effective user, 10 for root. */
static void execute(int traced) {
    fflush(stdout);
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        drop(1000);
        if (!traced) {
            execveat(program, "", arguments, NULL, AT_EMPTY_PATH);
            _exit(1);
        }
        raise(SIGSTOP);
        execveat(program, "", arguments, NULL, AT_EMPTY_PATH);
        _exit(1);
    }
    if (!traced) {
        waitpid(pid, &status, 0);
        printf("not traced: %d\n", WEXITSTATUS(status));
        return;
    }
    waitpid(pid, &status, WUNTRACED);
    SAY(RAW(PTRACE_SEIZE, pid, 0, 0));
    kill(pid, SIGCONT);
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
        RAW(PTRACE_CONT, pid, 0, status >> 16 ? 0 : WSTOPSIG(status));
    printf("traced by root: %d\n", WEXITSTATUS(status));
}

static void execute_for_user(pid_t unused) {
    (void)unused;
    fflush(stdout);
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execveat(program, "", arguments, NULL, AT_EMPTY_PATH);
        _exit(1);
    }
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) RAW(PTRACE_CONT, pid, 0, 0);
    printf("traced by its user: %d\n", WEXITSTATUS(status));

    /* One that has more rights than its parent. */
    if (fork() == 0) {
        execveat(program, "", wishes, NULL, AT_EMPTY_PATH);
        _exit(1);
    }
    wait(&status);
    printf("asks its parent to trace it: %s\n", WIFEXITED(status) ? strerrorname_np(WEXITSTATUS(status)) : "traced");

    /* One that has something to hide: only its memory is closed to its tracer. */
    pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        prctl(PR_SET_DUMPABLE, 0);
        raise(SIGSTOP);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    long word;
    SAY(RAW(PTRACE_PEEKDATA, pid, &variable, &word));
    SAY(RAW(PTRACE_POKEDATA, pid, &variable, 1));
    SAY(RAW(PTRACE_PEEKUSER, pid, 8, &word));
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "who") == 0) return geteuid() == 0 ? 10 : 11;
    if (argc > 1 && strcmp(argv[1], "trace me") == 0) return ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 0 : errno;
    if (geteuid() != 0) return 77;
    char path[4096];
    snprintf(path, sizeof path, "%s/set-user-id", argv[1]);
    int from = open("/proc/self/exe", O_RDONLY), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    struct stat stat;
    fstat(from, &stat);
    for (off_t left = stat.st_size; left > 0;) {
        ssize_t sent = sendfile(to, from, NULL, left);
        if (sent <= 0) return 77;
        left -= sent;
    }
    fchmod(to, 04755);
    close(to);
    program = open(path, O_RDONLY);
    fflush(stdout);
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        drop(1000);
        execveat(program, "", arguments, NULL, AT_EMPTY_PATH);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    if (WEXITSTATUS(status) != 10) return 77;

    execute(0);
    execute(1);
    as_user(1000, execute_for_user, 0);
    unlink(path);

    puts("another user's process");
    pid = sleeper(1001, 1);
    as_user(1000, tries, pid);
    puts("one of the same user, not dumpable");
    pid_t second = sleeper(1000, 0);
    as_user(1000, tries, second);
    puts("dumpable");
    pid_t third = sleeper(1000, 1);
    as_user(1000, tries, third);
    puts("root's");
    as_user(1000, tries, getpid());
    puts("for root");
    as_user(0, tries, pid);
    for (pid_t all[] = {pid, second, third}, *one = all; one < all + 3; one++) {
        kill(*one, SIGKILL);
        waitpid(*one, &status, 0);
        printf("killed by %d\n", WTERMSIG(status));
    }
    return 0;
}
