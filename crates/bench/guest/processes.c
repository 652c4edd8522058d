/* Processes and threads that begin and end. */
#define _GNU_SOURCE
#include "bench.h"
#include <pthread.h>
#include <sys/wait.h>

static int wait_for(pid_t child) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child) return failure();
    return status ? ECHILD : 0;
}

static int fork_body(long n) {
    while (n--) {
        pid_t child = fork();
        if (!child) _exit(0);
        int error = wait_for(child);
        if (error) return error;
    }
    return 0;
}

static int fork_exec_body(long n) {
    while (n--) {
        pid_t child = fork();
        if (!child) {
            execl(self, self, "true", (char *)0);
            _exit(127);
        }
        int error = wait_for(child);
        if (error) return error;
    }
    return 0;
}

static int vfork_exec_body(long n) {
    while (n--) {
        pid_t child = vfork();
        if (!child) {
            execl(self, self, "true", (char *)0);
            _exit(127);
        }
        int error = wait_for(child);
        if (error) return error;
    }
    return 0;
}

static void *nothing(void *argument) { return argument; }

static int thread_body(long n) {
    while (n--) {
        pthread_t thread;
        int error = pthread_create(&thread, 0, nothing, 0);
        if (error) return error;
        pthread_join(thread, 0);
    }
    return 0;
}

const struct operation process_operations[] = {
    {"thread-create-join", 0, 0, thread_body, 1},
    {"fork-wait", 0, 0, fork_body, 1},
    {"fork-exec-wait", 0, 0, fork_exec_body, 1},
    {"vfork-exec-wait", 0, 0, vfork_exec_body, 1},
    {0},
};
