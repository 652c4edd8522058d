/* Inode flags (chattr): what immutable and append-only files refuse. Natively it takes root and a file system that has them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>
#include "say.h"

/* Those of the flags that this is about; the others, of how ext4 stores it, stay. */
#define ABOUT (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL)

static int set(const char *path, int flags)
{
    int fd = open(path, O_RDONLY), old = 0;
    ioctl(fd, FS_IOC_GETFLAGS, &old);
    flags |= old & ~ABOUT;
    int result = ioctl(fd, FS_IOC_SETFLAGS, &flags);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static int get(const char *path)
{
    int flags = 0, fd = open(path, O_RDONLY);
    int result = ioctl(fd, FS_IOC_GETFLAGS, &flags);
    int error = errno;
    close(fd);
    errno = error;
    return result < 0 ? result : flags & ABOUT;
}

static void told(const char *path)
{
    struct statx sx;
    statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &sx);
    printf("statx: %llx\n",
           (unsigned long long)sx.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP));
}

/* All that could change the file f of the directory, or what has to do with it. */
static void tries(void)
{
    struct timeval times[2] = {{1, 0}, {2, 0}};
    int fd;
    OPENED(open("f", O_RDONLY));
    OPENED(open("f", O_WRONLY));
    OPENED(open("f", O_RDWR | O_APPEND));
    OPENED(open("f", O_WRONLY | O_APPEND | O_TRUNC));
    SAY(truncate("f", 1));
    SAY(chmod("f", 0640));
    SAY(chown("f", 1, 1));
    SAY(utimes("f", times));
    SAY(utimes("f", NULL));
    SAY(link("f", "g"));
    SAY(rename("f", "g"));
    SAY(rename("other", "f"));
    SAY(unlink("f"));
    SAY(setxattr("f", "user.a", "b", 1, 0));
    SAY(access("f", W_OK));
    SAY(fd = open("f", O_WRONLY | O_APPEND) >= 0 ? 1 : -1);
    fd = open("f", O_RDWR | O_APPEND);
    if (fd >= 0) {
        SAY(write(fd, "more", 4));
        SAY(ftruncate(fd, 0));
        SAY(fallocate(fd, 0, 0, 100));
        SAY(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 10000));
        SAY(fcntl(fd, F_SETFL, 0));
        SAY(fcntl(fd, F_GETFL) & O_APPEND);
        void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        printf("shared mapping: %s\n", map == MAP_FAILED ? strerrorname_np(errno) : "there");
        SAY(fchmod(fd, 0600));
        close(fd);
    }
}

int main(int argc, char **argv)
{
    umask(022);
    for (int i = 1; i < argc; i++) {
        printf("in directory %d\n", i);
        chdir(argv[i]);
        close(open("f", O_CREAT | O_RDWR, 0644));
        close(open("other", O_CREAT | O_RDWR, 0644));
        if (set("f", FS_NODUMP_FL) < 0 || geteuid() != 0 || get("f") < 0)
            return 77;
        printf("flags %x\n", get("f"));
        told("f");
        SAY(set("f", FS_NODUMP_FL | FS_NOATIME_FL));
        printf("flags %x\n", get("f"));

        int writer = open("f", O_RDWR);
        write(writer, "text", 4);
        SAY(set("f", FS_IMMUTABLE_FL));
        told("f");
        tries();
        /* A file system that writes through descriptors from before: ext4 does not, tmpfs does. */
        if (i == 1)
            SAY(write(writer, "x", 1));
        SAY(set("f", FS_APPEND_FL));
        told("f");
        tries();
        close(writer);
        SAY(set("f", 0));

        /* Directories. */
        mkdir("d", 0755);
        close(open("d/x", O_CREAT | O_RDWR, 0644));
        SAY(set("d", FS_APPEND_FL));
        OPENED(open("d/y", O_CREAT | O_RDWR, 0644));
        SAY(unlink("d/x"));
        SAY(rename("d/x", "d/z"));
        SAY(rmdir("d"));
        SAY(set("d", FS_IMMUTABLE_FL));
        OPENED(open("d/z", O_CREAT | O_RDWR, 0644));
        SAY(unlink("d/x"));
        SAY(mkdir("d/e", 0755));
        OPENED(open("d/x", O_RDWR));
        SAY(set("d", 0));
        SAY(unlink("d/x"));
        SAY(unlink("d/y"));
        SAY(rmdir("d"));

        /* Who is not root may set the harmless ones, of what is his. */
        chown("f", 1000, 1000);
        seteuid(1000);
        SAY(set("f", FS_NODUMP_FL));
        SAY(set("f", FS_IMMUTABLE_FL));
        SAY(set("f", FS_APPEND_FL));
        SAY(set("other", FS_NODUMP_FL));
        seteuid(0);

        int pipes[2], flags = 0;
        pipe(pipes);
        SAY(ioctl(pipes[0], FS_IOC_GETFLAGS, &flags));
        unlink("f");
        unlink("g");
        unlink("other");
    }
    return 0;
}
