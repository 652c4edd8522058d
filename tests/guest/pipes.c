/* The room of a pipe, counted in slots of a page; atomic writes; packets. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "say.h"

static char buffer[1 << 20];

/* Fills the pipe with writes of a size; prints how many fitted. */
static void fill(int fd[2], int size)
{
    long writes = 0, bytes = 0, got;
    int waiting;
    while ((got = write(fd[1], buffer, size)) > 0) {
        writes++;
        bytes += got;
    }
    ioctl(fd[0], FIONREAD, &waiting);
    struct pollfd out = {.fd = fd[1], .events = POLLOUT};
    poll(&out, 1, 0);
    printf("writes of %d: %ld, bytes %ld, waiting %d, poll %d\n", size, writes, bytes, waiting, out.revents);
}

static void drain(int fd[2])
{
    while (read(fd[0], buffer, sizeof buffer) > 0)
        ;
}

int main(void)
{
    int fd[2];
    memset(buffer, 'b', sizeof buffer);
    pipe2(fd, O_NONBLOCK);
    SAY(fcntl(fd[0], F_GETPIPE_SZ));
    int sizes[] = {1, 100, 1000, 2048, 2049, 3000, 4095, 4096, 4097, 5000, 10000, 65535, 65536, 70000, 1 << 20};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill(fd, sizes[i]);
        drain(fd);
    }
    /* Odd parts go behind the last bytes if they fit there as a whole. */
    SAY(write(fd[1], buffer, 4000));
    SAY(write(fd[1], buffer, 97));
    SAY(write(fd[1], buffer, 96));
    SAY(write(fd[1], buffer, 4096 + 96));
    fill(fd, 4096);
    SAY(write(fd[1], buffer, 1));
    SAY(read(fd[0], buffer, 4000));
    SAY(write(fd[1], buffer, 4096));
    SAY(read(fd[0], buffer, 96));
    SAY(write(fd[1], buffer, 4096));
    SAY(read(fd[0], buffer, 4096));
    fill(fd, 4096);
    fill(fd, 1);
    SAY(read(fd[0], buffer, 1));
    fill(fd, 4096);
    fill(fd, 1);
    drain(fd);
    /* Sizes. */
    SAY(fcntl(fd[0], F_SETPIPE_SZ, 5000));
    fill(fd, 3000);
    SAY(fcntl(fd[0], F_SETPIPE_SZ, 1));
    SAY(read(fd[0], buffer, 3000));
    SAY(fcntl(fd[0], F_SETPIPE_SZ, 1));
    fill(fd, 4096);
    SAY(fcntl(fd[1], F_SETPIPE_SZ, 1 << 20));
    fill(fd, 4096);
    drain(fd);
    SAY(fcntl(fd[1], F_SETPIPE_SZ, 0x80000001));
    close(fd[0]);
    close(fd[1]);
    /* Packets. */
    SAY(pipe2(fd, O_NONBLOCK | O_DIRECT));
    SAY(write(fd[1], buffer, 10));
    SAY(write(fd[1], buffer, 20));
    SAY(write(fd[1], buffer, 5000));
    SAY(read(fd[0], buffer, 5));
    SAY(read(fd[0], buffer, 100));
    SAY(read(fd[0], buffer, 10000));
    SAY(read(fd[0], buffer, 10000));
    SAY(read(fd[0], buffer, 10000));
    fill(fd, 10);
    drain(fd);
    SAY(fcntl(fd[1], F_SETFL, O_NONBLOCK));
    SAY(write(fd[1], buffer, 10));
    SAY(write(fd[1], buffer, 20));
    SAY(read(fd[0], buffer, 100));
    close(fd[0]);
    close(fd[1]);
    /* Memory goes in as far as it fits, without a wait for the rest. */
    static char pages[1 << 18] __attribute__((aligned(4096)));
    struct iovec one = {pages, sizeof pages}, two[2] = {{pages, 4096}, {pages + 8192, 100}};
    pipe(fd);
    SAY(vmsplice(fd[1], &one, 1, 0));
    SAY(vmsplice(fd[1], &one, 1, SPLICE_F_NONBLOCK));
    SAY(read(fd[0], buffer, sizeof buffer));
    SAY(vmsplice(fd[1], two, 2, 0));
    SAY(read(fd[0], buffer, sizeof buffer));
    SAY(vmsplice(fd[1], two, 0, 0));
    SAY(vmsplice(0, &one, 1, 99));
    return 0;
}
