/* Shared and private mappings of a file that grows and shrinks under them: each line printed is the same on Linux. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf before;

static void fault(int signo)
{
    siglongjmp(before, signo);
}

static void read_byte(const char *what, volatile char *at)
{
    int signo = sigsetjmp(before, 1);
    if (signo == 0)
        printf("%s: %d\n", what, *at);
    else
        printf("%s: signal %d\n", what, signo);
    fflush(stdout);
}

static void write_byte(const char *what, volatile char *at, char value)
{
    int signo = sigsetjmp(before, 1);
    if (signo == 0) {
        *at = value;
        printf("%s: stored\n", what);
    } else {
        printf("%s: signal %d\n", what, signo);
    }
    fflush(stdout);
}

/* The kernel's own copies to and from a mapping that was made before its file grew. */
static void copies(int fd)
{
    int pipes[2];
    char buffer[4096] = "name";
    pipe(pipes);
    ftruncate(fd, 5000);
    char *private = mmap(0, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *shared = mmap(0, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    printf("before: %d", (int)write(pipes[1], private + 8192, 10));
    printf(" %d\n", (int)write(pipes[1], private + 4096, 8192));
    ftruncate(fd, 12000);
    printf("from: %d\n", (int)write(pipes[1], private + 8192, 10));
    printf("across: %d\n", (int)write(pipes[1], private + 4000, 5000));
    printf("to: %d\n", (int)read(pipes[0], private + 8000, 300));
    printf("to shared: %d\n", (int)read(pipes[0], shared + 8000, 300));
    printf("a path: %d\n", access(private + 8190, F_OK));
    printf("beyond: %d\n", (int)read(pipes[0], private + 12288, 1));
    close(pipes[0]);
    close(pipes[1]);
    munmap(private, 16384);
    munmap(shared, 16384);
}

static void on_file(const char *name)
{
    char buffer[8192], byte;
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    memset(buffer, 'a', sizeof buffer);
    write(fd, buffer, 5000);
    volatile char *shared = mmap(0, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    volatile char *private = mmap(0, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    read_byte("last byte", shared + 4999);
    read_byte("behind it on its page", shared + 5000);
    read_byte("next page", shared + 8192);

    shared[10] = 'S';
    pread(fd, &byte, 1, 10);
    printf("a store is read: %c\n", byte);
    pwrite(fd, "W", 1, 11);
    printf("a write is seen: %c %c\n", shared[11], private[11]);
    private[12] = 'P';
    printf("a private store is not: %c %c\n", shared[12], private[12]);

    ftruncate(fd, 12000);
    read_byte("after growing", shared + 8192);
    read_byte("after growing, private", private + 8192);
    write_byte("store after growing", shared + 8193, 'G');
    pread(fd, &byte, 1, 8193);
    printf("read back: %c\n", byte);
    copies(fd);
    read_byte("behind the new end", shared + 12288);

    private[4500] = 'P';
    ftruncate(fd, 100);
    read_byte("after shrinking", shared + 4096);
    read_byte("after shrinking, private", private + 4500);
    read_byte("what is left", shared + 99);
    read_byte("behind it", shared + 100);
    ftruncate(fd, 5000);
    read_byte("grown again", shared + 4500);
    read_byte("grown again, private", private + 4500);

    /* Another process has it mapped while it shrinks. */
    int go[2], done[2];
    pipe(go);
    pipe(done);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        read_byte("child before", shared + 4096);
        write(done[1], "x", 1);
        read(go[0], &byte, 1);
        read_byte("child after", shared + 4096);
        read_byte("child after, what is left", shared + 10);
        _exit(0);
    }
    read(done[0], &byte, 1);
    ftruncate(fd, 200);
    write(go[1], "x", 1);
    waitpid(child, 0, 0);

    /* A child that runs without ever entering the kernel. */
    ftruncate(fd, 8192);
    volatile int *counter = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    child = fork();
    if (child == 0) {
        if (sigsetjmp(before, 1) == 0)
            for (;;)
                counter[0] = 1 + shared[4096];
        _exit(33);
    }
    while (counter[0] == 0)
        usleep(1000);
    ftruncate(fd, 0);
    int status;
    waitpid(child, &status, 0);
    printf("busy child: %d\n", WEXITSTATUS(status));
    fflush(stdout);
    close(fd);
    unlink(name);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = fault};
    sigaction(SIGBUS, &action, 0);
    sigaction(SIGSEGV, &action, 0);
    alarm(20);
    for (int i = 1; i < argc; i++) {
        chdir(argv[i]);
        on_file("mapped");
    }
    return 0;
}
