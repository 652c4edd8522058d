/* Process groups that are killed in the middle of starting programs. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 40
#define GROUPS 50

/* Starts program after program, as a shell does, until it is killed. */
static void start_programs(void) {
    for (;;) {
        pid_t pid = vfork();
        if (pid == 0) {
            execl("/proc/self/exe", "nothing", (char *)NULL);
            _exit(1);
        }
        waitpid(pid, NULL, 0);
    }
}

/* Kills a group at some moment; the status of its first process. */
static int killed(unsigned *chance) {
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        start_programs();
    }
    setpgid(pid, pid);
    *chance = *chance * 1103515245 + 12345;
    struct timespec some = {0, 1000 * ((*chance >> 16) % 700)};
    nanosleep(&some, NULL);
    /* What is in the middle of becoming a program is interrupted first, and then ended. */
    kill(-pid, SIGCONT);
    kill(-pid, SIGKILL);
    waitpid(pid, &status, 0);
    /* What the group leaves behind is ours if this is process 1. */
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return status;
}

int main(int argc, char **argv) {
    (void)argc;
    if (!strcmp(argv[0], "nothing")) return 0;
    unsigned chance = 1;
    for (int round = 0; round < ROUNDS; round++) {
        int ended = 0;
        for (int group = 0; group < GROUPS; group++) ended += killed(&chance) == SIGKILL;
        printf("round %d: %d groups killed\n", round, ended);
        fflush(stdout);
    }
    return 0;
}
