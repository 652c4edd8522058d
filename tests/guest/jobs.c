/* Job control on a pseudo-terminal: stops, continues, signals from keys, hang-up. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static volatile int got;

static void note(int signo)
{
    got = signo;
}

static void on(int signo, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigaction(signo, &action, 0);
}

static int ready[2], seen[2];
static int terminal;

/* Prints a result with the error's name. */
static long say(const char *what, long result)
{
    printf("%s: %ld %s\n", what, result, result < 0 ? strerrorname_np(errno) : "");
    fflush(stdout);
    return result;
}

static void status_of(const char *what, pid_t pid)
{
    int status = 0;
    pid_t found = waitpid(pid, &status, WUNTRACED | WCONTINUED);
    if (found != pid)
        printf("%s: no child\n", what);
    else if (WIFSTOPPED(status))
        printf("%s: stopped by %d\n", what, WSTOPSIG(status));
    else if (WIFCONTINUED(status))
        printf("%s: continued\n", what);
    else if (WIFSIGNALED(status))
        printf("%s: killed by %d\n", what, WTERMSIG(status));
    else
        printf("%s: ended with %d\n", what, WEXITSTATUS(status));
    fflush(stdout);
}

static pid_t job(void (*body)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        body();
        _exit(0);
    }
    setpgid(pid, pid);
    return pid;
}

static void reads(void)
{
    char byte;
    on(SIGTTIN, SIG_DFL);
    _exit(read(terminal, &byte, 1) == 1 ? byte : 99);
}

static void reads_ignoring(void)
{
    char byte;
    on(SIGTTIN, SIG_IGN);
    say("background read, SIGTTIN ignored", read(terminal, &byte, 1));
}

static void writes_stopped(void)
{
    char byte;
    on(SIGTTOU, SIG_DFL);
    long written = write(terminal, "w", 1);
    /* Not before the leader has seen that it was continued. */
    read(seen[0], &byte, 1);
    _exit(written == 1 ? 7 : 98);
}

static void waits(void)
{
    on(SIGTSTP, SIG_DFL);
    on(SIGINT, SIG_DFL);
    write(ready[1], "x", 1);
    for (;;)
        pause();
}

/* The session: its leader plays the shell. */
static void shell(int keys)
{
    char byte;
    struct termios termios;
    setsid();
    say("TIOCSCTTY", ioctl(terminal, TIOCSCTTY, 0));
    say("the leader's group is in front", tcgetpgrp(terminal) == getpid());
    on(SIGTTOU, SIG_IGN);

    pid_t pid = job(reads);
    status_of("background read", pid);
    tcsetpgrp(terminal, pid);
    kill(-pid, SIGCONT);
    status_of("background read", pid);
    write(keys, "k\n", 2);
    status_of("now in front", pid);
    tcsetpgrp(terminal, getpid());
    tcflush(terminal, TCIFLUSH);

    waitpid(job(reads_ignoring), 0, 0);

    tcgetattr(terminal, &termios);
    termios.c_lflag |= TOSTOP;
    tcsetattr(terminal, TCSANOW, &termios);
    pid = job(writes_stopped);
    status_of("background write, TOSTOP", pid);
    tcsetpgrp(terminal, pid);
    kill(-pid, SIGCONT);
    status_of("background write, TOSTOP", pid);
    write(seen[1], "x", 1);
    status_of("now in front", pid);

    pid = job(waits);
    tcsetpgrp(terminal, pid);
    read(ready[0], &byte, 1);
    write(keys, "\032", 1);
    status_of("Ctrl-Z", pid);
    kill(-pid, SIGCONT);
    status_of("SIGCONT", pid);
    write(keys, "\003", 1);
    status_of("Ctrl-C", pid);
    pid = job(waits);
    tcsetpgrp(terminal, pid);
    read(ready[0], &byte, 1);
    write(keys, "\034", 1);
    status_of("Ctrl-\\", pid);

    tcsetpgrp(terminal, getpid());
    on(SIGINT, note);
    on(SIGWINCH, note);
    struct winsize size = {33, 44, 0, 0};
    say("TIOCSWINSZ", ioctl(keys, TIOCSWINSZ, &size));
    printf("size changed: signal %d\n", got);

    /* A line, an erased character, end of file. */
    char line[32];
    write(keys, "ab\177c\n\004", 6);
    long length = say("line", read(terminal, line, sizeof line));
    printf("%.*s", (int)(length > 0 ? length : 0), line);
    say("end of file", read(terminal, line, sizeof line));

    on(SIGHUP, note);
    got = 0;
    close(keys);
    say("read after hang-up", read(terminal, &byte, 1));
    say("write after hang-up", write(terminal, &byte, 1));
    say("TCGETS after hang-up", ioctl(terminal, TCGETS, &termios));
    printf("hang-up: signal %d\n", got);
    fflush(stdout);
    _exit(0);
}

int main(void)
{
    alarm(20);
    int keys = posix_openpt(O_RDWR | O_NOCTTY);
    grantpt(keys);
    unlockpt(keys);
    terminal = open(ptsname(keys), O_RDWR | O_NOCTTY);
    pipe(ready);
    pipe(seen);
    struct termios termios;
    tcgetattr(terminal, &termios);
    printf("%x %x %x %x\n", termios.c_iflag, termios.c_oflag, termios.c_cflag, termios.c_lflag);
    say("TIOCGPGRP without a session", tcgetpgrp(terminal));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        shell(keys);
    close(keys);
    status_of("session", pid);
    return 0;
}
