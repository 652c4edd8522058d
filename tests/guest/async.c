/* Signals that tell of a file's readiness (O_ASYNC): who gets which, and what it says. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "say.h"

/* Takes what is pending, within a second. */
static void taken(const char *what)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 3);
    siginfo_t info;
    struct timespec limit = {1, 0}, none = {0, 0};
    memset(&info, 0, sizeof info);
    int signo = sigtimedwait(&set, &info, &limit);
    if (signo < 0)
        printf("%s: nothing\n", what);
    else if (info.si_code == SI_KERNEL)
        printf("%s: signal %d from the kernel\n", what, signo);
    else
        printf("%s: signal %d code %d band %lx fd %s\n", what, signo, info.si_code, (unsigned long)info.si_band,
               info.si_fd >= 0 ? "there" : "none");
    while (sigtimedwait(&set, &info, &none) > 0)
        ;
}

int main(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &set, NULL);

    int p[2];
    char buf[100];
    SAY(pipe(p));
    SAY(fcntl(p[0], F_GETOWN));
    SAY(fcntl(p[0], F_GETSIG));
    SAY(fcntl(p[0], F_SETFL, O_ASYNC));
    write(p[1], "a", 1);
    taken("no owner");
    SAY(fcntl(p[0], F_SETOWN, getpid()));
    printf("owner is me: %d\n", fcntl(p[0], F_GETOWN) == getpid());
    write(p[1], "b", 1);
    taken("an owner");
    SAY(fcntl(p[0], F_SETSIG, SIGUSR1));
    SAY(fcntl(p[0], F_GETSIG));
    write(p[1], "c", 1);
    taken("another signal");
    SAY(fcntl(p[0], F_SETSIG, SIGRTMIN + 3));
    write(p[1], "d", 1);
    taken("a realtime signal");
    SAY(fcntl(p[0], F_SETSIG, 65));
    SAY(fcntl(p[0], F_SETSIG, 0));
    read(p[0], buf, sizeof buf);
    taken("having read");
    SAY(fcntl(p[0], F_GETFL) & O_ASYNC);
    SAY(fcntl(p[0], F_SETFL, 0));
    write(p[1], "e", 1);
    taken("switched off");
    read(p[0], buf, sizeof buf);

    int on = 1;
    SAY(ioctl(p[0], FIOASYNC, &on));
    SAY(fcntl(p[0], F_GETFL) & O_ASYNC);
    write(p[1], "f", 1);
    taken("switched on by ioctl");

    /* The other end: room. */
    SAY(fcntl(p[1], F_SETOWN, getpid()));
    SAY(fcntl(p[1], F_SETSIG, SIGUSR1));
    SAY(fcntl(p[1], F_SETFL, O_ASYNC | O_NONBLOCK));
    memset(buf, 0, sizeof buf);
    while (write(p[1], buf, sizeof buf) > 0)
        ;
    taken("full");
    for (int i = 0; i < 200; i++)
        read(p[0], buf, sizeof buf);
    taken("room");
    SAY(close(p[1]));
    taken("the writer is gone");
    SAY(close(p[0]));

    /* Owners of all kinds. */
    SAY(pipe(p));
    struct f_owner_ex owner = {F_OWNER_TID, getpid()}, found = {0, 0};
    SAY(fcntl(p[0], F_SETOWN_EX, &owner));
    SAY(fcntl(p[0], F_GETOWN_EX, &found));
    printf("type %d, me: %d\n", found.type, found.pid == getpid());
    owner.type = F_OWNER_PGRP;
    owner.pid = getpgrp();
    SAY(fcntl(p[0], F_SETOWN_EX, &owner));
    SAY(fcntl(p[0], F_GETOWN_EX, &found));
    printf("type %d, my group: %d\n", found.type, found.pid == getpgrp());
    owner.type = 3;
    SAY(fcntl(p[0], F_SETOWN_EX, &owner));
    SAY(fcntl(p[0], F_SETOWN, 999999));
    SAY(fcntl(p[0], F_SETOWN, 0));
    SAY(fcntl(p[0], F_GETOWN));

    /* A child is told, by a group of its own. */
    int ready[2];
    SAY(pipe(ready));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        write(ready[1], "x", 1);
        taken("child");
        fflush(stdout);
        _exit(0);
    }
    read(ready[0], buf, 1);
    SAY(fcntl(p[0], F_SETOWN, -child));
    SAY(fcntl(p[0], F_SETFL, O_ASYNC));
    fflush(stdout);
    write(p[1], "g", 1);
    waitpid(child, NULL, 0);
    close(p[0]);
    close(p[1]);

    /* Sockets. */
    int s[2];
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    SAY(fcntl(s[0], F_SETOWN, getpid()));
    SAY(fcntl(s[0], F_SETSIG, SIGUSR1));
    SAY(fcntl(s[0], F_SETFL, O_ASYNC));
    write(s[1], "h", 1);
    taken("socket");
    read(s[0], buf, 1);
    SAY(fcntl(s[0], F_SETSIG, 0));
    close(s[1]);
    taken("its other end is gone");
    close(s[0]);

    /* Files that are always ready tell nothing. */
    int file = open("/dev/null", O_RDWR);
    SAY(fcntl(file, F_SETOWN, getpid()));
    SAY(fcntl(file, F_SETFL, O_ASYNC));
    write(file, "i", 1);
    taken("null");
    return 0;
}
