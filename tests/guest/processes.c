/* Descriptors of processes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "say.h"

static int pidfd_open_(pid_t pid, unsigned flags) { return syscall(SYS_pidfd_open, pid, flags); }
static int send_(int fd, int sig, siginfo_t *info, unsigned flags) {
    return syscall(SYS_pidfd_send_signal, fd, sig, info, flags);
}
static int getfd_(int fd, int target, unsigned flags) { return syscall(SYS_pidfd_getfd, fd, target, flags); }
static int waitid_(int type, int id, siginfo_t *info, int options) {
    memset(info, 0, sizeof *info);
    return syscall(SYS_waitid, type, id, info, options, NULL);
}

static int ready(int fd, int timeout) {
    struct pollfd poller = {fd, POLLIN | POLLRDNORM, 0};
    int n = poll(&poller, 1, timeout);
    return n < 0 ? n : poller.revents;
}

/* The number that fdinfo tells of, if it is the one expected: 1. */
static int tells(int fd, int pid) {
    char path[64], line[128];
    int found = 0, told;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *info = fopen(path, "r");
    while (info && fgets(line, sizeof line, info))
        if (sscanf(line, "Pid: %d", &told) == 1) found = told == pid;
    if (info) fclose(info);
    return found;
}

static pid_t sleeper(void) {
    pid_t pid = fork();
    if (pid == 0) {
        for (;;) pause();
    }
    return pid;
}

static void open_and_wait(void) {
    siginfo_t info;
    SAY(pidfd_open_(0, 0));
    SAY(pidfd_open_(-1, 0));
    SAY(pidfd_open_(getpid(), 1 << 20));
    SAY(pidfd_open_(4000000, 0));
    pid_t pid = sleeper();
    int fd = OPENED(pidfd_open_(pid, 0));
    SAY(fcntl(fd, F_GETFD));
    SAY(tells(fd, pid));
    char byte;
    SAY(read(fd, &byte, 1));
    SAY(write(fd, &byte, 1));
    SAY(ready(fd, 0));
    SAY(send_(fd, 0, NULL, 0));
    SAY(send_(fd, 65, NULL, 0));
    SAY(send_(fd, 0, NULL, 1 << 20));
    SAY(send_(1, 0, NULL, 0));
    SAY(send_(-1, 0, NULL, 0));
    SAY(waitid_(P_PIDFD, fd, &info, WEXITED | WNOHANG));
    SAY(info.si_pid);
    int nonblocking = OPENED(pidfd_open_(pid, O_NONBLOCK));
    SAY(waitid_(P_PIDFD, nonblocking, &info, WEXITED));
    SAY(waitid_(P_PIDFD, nonblocking, &info, WEXITED | WNOHANG));
    SAY(waitid_(P_PIDFD, 1, &info, WEXITED));
    SAY(waitid_(P_PIDFD, -1, &info, WEXITED));
    SAY(send_(fd, SIGSTOP, NULL, 0));
    SAY(waitid_(P_PIDFD, fd, &info, WSTOPPED));
    SAY(info.si_status == SIGSTOP && info.si_pid == pid);
    SAY(send_(fd, SIGKILL, NULL, 0));
    SAY(ready(fd, 10000));
    SAY(send_(fd, 0, NULL, 0));
    SAY(waitid_(P_PIDFD, fd, &info, WEXITED | WNOWAIT));
    SAY(waitid_(P_PIDFD, fd, &info, WEXITED));
    SAY(info.si_code == CLD_KILLED && info.si_status == SIGKILL && info.si_pid == pid);
    SAY(waitid_(P_PIDFD, fd, &info, WEXITED));
    SAY(send_(fd, 0, NULL, 0));
    SAY(tells(fd, -1));
    SAY(ready(fd, 0) & POLLIN);
    SAY(getfd_(fd, 0, 0));
    close(fd);
    close(nonblocking);
}

static volatile sig_atomic_t got, value, sender;
static void handler(int sig, siginfo_t *info, void *context) {
    (void)context;
    got = sig;
    value = info->si_value.sival_int;
    sender = info->si_code;
}

static void signals(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    int fd = OPENED(pidfd_open_(getpid(), 0));
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
    info.si_value.sival_int = 42;
    SAY(send_(fd, SIGUSR1, &info, 0));
    printf("%d %d %d\n", got == SIGUSR1, value, sender == SI_QUEUE);
    SAY(send_(fd, SIGUSR2, &info, 0));
    SAY(send_(fd, SIGUSR1, NULL, 0));
    printf("%d\n", sender == SI_USER);
    pid_t pid = sleeper();
    int other = OPENED(pidfd_open_(pid, 0));
    info.si_code = SI_USER;
    SAY(send_(other, SIGUSR1, &info, 0));
    SAY(send_(fd, SIGUSR1, &info, 0));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fd);
    close(other);
}

static int clone_(uint64_t flags, int *pidfd) {
    struct clone_args arguments = {.flags = flags, .pidfd = (uintptr_t)pidfd, .exit_signal = SIGCHLD};
    return syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void clones(void) {
    int fd = -1, pipes[2];
    siginfo_t info;
    if (pipe(pipes)) perror("pipe");
    int number = dup2(pipes[0], 200);
    int pid = clone_(CLONE_PIDFD, &fd);
    if (pid == 0) {
        char byte;
        close(number);
        _exit(read(pipes[0], &byte, 1) == 1 ? byte : 99);
    }
    SAY(pid > 0 && fd >= 0);
    SAY(fcntl(fd, F_GETFD));
    SAY(tells(fd, pid));
    /* The child's end of the pipe, by the child's number. */
    int theirs = OPENED(getfd_(fd, pipes[1], 0));
    SAY(getfd_(fd, 300, 0));
    SAY(getfd_(fd, pipes[1], 1));
    SAY(getfd_(pipes[0], 0, 0));
    SAY(fcntl(theirs, F_GETFD));
    SAY(write(theirs, "\7", 1));
    SAY(waitid_(P_PIDFD, fd, &info, WEXITED));
    SAY(info.si_status);
    close(fd);
    SAY(clone_(CLONE_PIDFD, (int *)8));
    SAY(waitpid(-1, NULL, WNOHANG));
    SAY(syscall(SYS_clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, NULL, &fd, NULL, NULL));
    pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &fd, NULL, NULL);
    if (pid == 0) _exit(5);
    SAY(ready(fd, 10000));
    SAY(waitid_(P_PIDFD, fd, &info, WEXITED));
    SAY(info.si_status);
    close(fd);
}

/* Memory of another process. */
static void other_memory(void) {
    static char theirs[3 * 4096], ours[3 * 4096];
    char *edge = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(edge + 4096, 4096);
    strcpy(theirs, "before the fork");
    strcpy(edge + 4090, "edge");
    pid_t pid = sleeper();
    strcpy(theirs, "changed by the parent");
    struct iovec here[2] = {{ours, 6}, {ours + 100, 200}}, there[2] = {{theirs, 10}, {theirs + 10, 5}};
    SAY(process_vm_readv(pid, here, 2, there, 2, 0));
    printf("%.6s|%.9s\n", ours, ours + 100);
    strcpy(ours, "written");
    SAY(process_vm_writev(pid, here, 1, there, 1, 0));
    here[0].iov_len = 100;
    there[0].iov_len = 100;
    SAY(process_vm_readv(pid, here, 1, there, 1, 0));
    printf("%s %s\n", ours, theirs);
    there[0] = (struct iovec){edge + 4000, 200};
    here[0].iov_len = sizeof ours;
    SAY(process_vm_readv(pid, here, 1, there, 1, 0));
    there[0] = (struct iovec){edge + 4096, 10};
    SAY(process_vm_readv(pid, here, 1, there, 1, 0));
    SAY(process_vm_writev(pid, here, 1, there, 1, 0));
    there[0] = (struct iovec){(void *)other_memory, 10};
    SAY(process_vm_writev(pid, here, 1, there, 1, 0));
    SAY(process_vm_readv(pid, here, 1, there, 1, 1));
    SAY(process_vm_readv(pid, here, 0, there, 1, 0));
    SAY(process_vm_readv(pid, here, 1, there, 0, 0));
    SAY(process_vm_readv(pid, here, 1025, there, 1, 0));
    SAY(process_vm_readv(pid, NULL, 1, there, 1, 0));
    SAY(process_vm_readv(4000000, here, 1, there, 1, 0));
    SAY(process_vm_readv(4000000, here, 0, there, 1, 0));
    SAY(process_vm_readv(getpid(), here, 1, (struct iovec[]){{theirs, 7}}, 1, 0));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    open_and_wait();
    signals();
    clones();
    other_memory();
    return 0;
}
