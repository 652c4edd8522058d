/* Threads that begin and end at the same time: the memory that they share stays within the kernel's reach. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *work(void *p)
{
    volatile double sum = 1.5;
    for (int i = 0; i < 50; i++)
        sum += i;
    *(int *)p = sum == 1226.5;
    return p;
}

int main(void)
{
    for (int round = 0; round < 20; round++) {
        int good = 0, failed = 0;
        for (int i = 0; i < 150; i++) {
            pthread_t threads[3];
            int results[3] = {0}, pipes[2];
            for (int k = 0; k < 3; k++)
                failed += pthread_create(&threads[k], 0, work, &results[k]) != 0;
            failed += pipe(pipes) != 0 || write(pipes[1], "x", 1) != 1;
            for (int k = 0; k < 3; k++) {
                failed += pthread_join(threads[k], 0) != 0;
                good += results[k];
            }
            close(pipes[0]);
            close(pipes[1]);
        }
        /* A child that borrows the memory for a while. */
        pid_t child = vfork();
        if (child == 0)
            _exit(round);
        int status = -1;
        waitpid(child, &status, 0);
        printf("round %d: %d good, %d failed, child %d\n", round, good, failed, WEXITSTATUS(status));
    }
    return 0;
}
