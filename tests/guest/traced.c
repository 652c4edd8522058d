/* Calls of many kinds for a trace: what strace shows of them natively is right. argv[1]: a directory to work in. The part that is
   compared begins behind a write of "begin" to descriptor -1. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void handler(int sig) { (void)sig; }

static void files(void) {
    char text[100], buffer[64];
    struct stat stat;
    int file = openat(AT_FDCWD, "file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)("a\"\\\n\t\001\377z"[i % 8]);
    write(file, text, sizeof text);
    lseek(file, -4, SEEK_END);
    read(file, buffer, sizeof buffer);
    read(file, buffer, sizeof buffer);
    pread(file, buffer, 5, 2);
    struct iovec parts[] = {{"one", 3}, {"two", 3}};
    writev(file, parts, 2);
    ftruncate(file, 10);
    fchmod(file, 0600);
    fcntl(file, F_GETFL);
    fcntl(file, F_SETFL, O_APPEND);
    dup2(file, 9);
    close(9);
    close(9);
    close(file);
    mkdirat(AT_FDCWD, "dir", 0755);
    symlinkat("file", AT_FDCWD, "link");
    readlinkat(AT_FDCWD, "link", buffer, sizeof buffer);
    readlinkat(AT_FDCWD, "nothing", buffer, sizeof buffer);
    faccessat(AT_FDCWD, "file", R_OK | W_OK, 0);
    renameat(AT_FDCWD, "link", AT_FDCWD, "dir/link");
    unlinkat(AT_FDCWD, "dir", 0);
    unlinkat(AT_FDCWD, "dir/link", 0);
    unlinkat(AT_FDCWD, "dir", AT_REMOVEDIR);
    openat(AT_FDCWD, "file/below", O_RDONLY | O_DIRECTORY);
    unlinkat(AT_FDCWD, "file", 0);
    fstat(-1, &stat);
}

static void messages(void) {
    int ends[2], pair[2];
    char buffer[16];
    pipe2(ends, O_CLOEXEC | O_NONBLOCK);
    read(ends[0], buffer, sizeof buffer);
    write(ends[1], "through", 7);
    struct pollfd polled[] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT | POLLERR, 0}};
    poll(polled, 2, 1000);
    read(ends[0], buffer, sizeof buffer);
    close(ends[0]);
    write(ends[1], "lost", 4);
    close(ends[1]);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    sendto(pair[0], "sent", 4, MSG_NOSIGNAL, NULL, 0);
    recvfrom(pair[1], buffer, sizeof buffer, MSG_DONTWAIT, NULL, NULL);
    recvfrom(pair[1], buffer, sizeof buffer, MSG_DONTWAIT, NULL, NULL);
    shutdown(pair[0], SHUT_WR);
    close(pair[0]);
    close(pair[1]);
    int event = eventfd(3, EFD_NONBLOCK);
    close(event);
}

static void signals_and_memory(void) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGUSR1);
    sigprocmask(SIG_SETMASK, NULL, &set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    void *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page, 4096, PROT_READ);
    madvise(page, 4096, MADV_DONTNEED);
    munmap(page, 8192);
    mmap(NULL, 0, PROT_NONE, MAP_SHARED, -1, 0);
    struct timespec moment = {0, 1000000};
    syscall(SYS_nanosleep, &moment, NULL);
    syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &moment, NULL);
}

static void children(void) {
    int status;
    if (syscall(SYS_fork) == 0) {
        write(-1, "child", 5);
        syscall(SYS_exit_group, 3);
    }
    wait4(-1, &status, 0, NULL);
    if (syscall(SYS_fork) == 0) kill(getpid(), SIGKILL);
    wait4(-1, &status, 0, NULL);
    wait4(-1, &status, WNOHANG, NULL);
}

int main(int argc, char **argv) {
    (void)argc;
    chdir(argv[1]);
    umask(022);
    signal(SIGPIPE, handler);
    write(-1, "begin", 5);
    files();
    messages();
    signals_and_memory();
    children();
    setpriority(PRIO_PROCESS, 0, 1);
    uid_t real, effective, saved;
    getresuid(&real, &effective, &saved);
    syscall(SYS_exit_group, 7);
}
