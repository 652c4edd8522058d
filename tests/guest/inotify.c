/* What inotify tells of: each thing that can happen to a file, a directory and a name, in the order in which it is told. argv[1]: a
   directory on a disk, argv[2]: one in memory. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "say.h"

static int fd;

/* Prints all events that wait. Cookies by their order. */
static void tell(const char *what)
{
    static const char *names[] = {"ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM",
        "MOVED_TO", "CREATE", "DELETE", "DELETE_SELF", "MOVE_SELF", "?", "UNMOUNT", "Q_OVERFLOW", "IGNORED"};
    char buffer[65536] __attribute__((aligned(8)));
    unsigned cookies[100], seen = 0;
    int waiting = -1;
    ioctl(fd, FIONREAD, &waiting);
    printf("%s: %d bytes\n", what, waiting);
    ssize_t len;
    while ((len = read(fd, buffer, sizeof buffer)) > 0) {
        for (char *at = buffer; at < buffer + len;) {
            struct inotify_event *event = (void *)at;
            printf("    %d", event->wd);
            for (int bit = 0; bit < 16; bit++)
                if (event->mask & 1u << bit)
                    printf(" %s", names[bit]);
            if (event->mask & IN_ISDIR)
                printf(" ISDIR");
            if (event->cookie) {
                unsigned which = 0;
                while (which < seen && cookies[which] != event->cookie)
                    which++;
                if (which == seen)
                    cookies[seen++] = event->cookie;
                printf(" cookie %u", which);
            }
            /* The names of files without one differ. */
            if (event->len)
                printf(" \"%s\" in %u", event->name[0] == '#' ? "#" : event->name, event->len);
            printf("\n");
            at += sizeof *event + event->len;
        }
    }
}

#define DO(action) (action, tell(#action))

static void walk(const char *dir)
{
    printf("== %s\n", strrchr(dir, '/') ? "a directory" : dir);
    if (chdir(dir) != 0)
        perror(dir);
    mkdir("w", 0755);
    mkdir("other", 0755);
    close(open("w/old", O_CREAT | O_WRONLY, 0644));
    fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    struct pollfd poller = {fd, POLLIN | POLLOUT, 0};
    SAY(poll(&poller, 1, 0));
    SAY(inotify_add_watch(fd, "w", IN_ALL_EVENTS));
    SAY(inotify_add_watch(fd, "w/old", IN_ALL_EVENTS));
    SAY(inotify_add_watch(fd, "other", IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE));

    int file;
    DO(file = open("w/new", O_CREAT | O_RDWR, 0644));
    SAY(poll(&poller, 1, 0));
    DO(write(file, "hello", 5));
    DO(write(file, "", 0));
    DO(pread(file, (char[9]){0}, 9, 0));
    DO(pread(file, (char[9]){0}, 9, 100));
    DO((write(file, "a", 1), write(file, "b", 1), write(file, "c", 1)));
    DO(ftruncate(file, 3));
    DO(fallocate(file, 0, 0, 10000));
    DO(fchmod(file, 0600));
    DO(fchown(file, -1, -1));
    DO(futimens(file, 0));
    DO(futimens(file, (struct timespec[]){{1, 0}, {0, UTIME_OMIT}}));
    DO(futimens(file, (struct timespec[]){{0, UTIME_OMIT}, {1, 0}}));
    DO(fsetxattr(file, "user.a", "b", 1, 0));
    DO(fremovexattr(file, "user.a"));
    DO(fsync(file));
    int copy = open("other/copy", O_CREAT | O_RDWR, 0644);
    tell("create elsewhere");
    DO(sendfile(copy, file, (off_t[]){0}, 3));
    DO(copy_file_range(copy, (loff_t[]){0}, file, (loff_t[]){0}, 2, 0));
    close(copy);
    DO(close(dup(file)));
    DO(close(file));
    DO(close(open("w/old", O_RDONLY)));
    DO(close(open("w/old", O_PATH)));
    DO(close(open("w/old", O_WRONLY)));
    DO(truncate("w/old", 100));
    DO(access("w/old", R_OK));
    DO(chmod("w/old", 0640));
    DO(open("w/nothing", O_RDONLY));

    DIR *list;
    DO(list = opendir("w"));
    DO(readdir(list));
    DO(closedir(list));

    DO(mkdir("w/dir", 0755));
    DO(rmdir("w/dir"));
    DO(symlink("old", "w/link"));
    DO(readlink("w/link", (char[9]){0}, 9));
    DO(close(open("w/link", O_RDONLY)));
    DO(mknod("w/fifo", S_IFIFO | 0644, 0));
    DO(link("w/old", "w/second"));
    DO(link("w/old", "other/third"));
    struct sockaddr_un name = {AF_UNIX, "w/socket"};
    int bound = socket(AF_UNIX, SOCK_STREAM, 0);
    DO(bind(bound, (void *)&name, sizeof name));
    close(bound);
    int nameless = open("w", O_TMPFILE | O_RDWR, 0600);
    if (nameless >= 0) {
        tell("a file without a name");
        DO(write(nameless, "x", 1));
        DO(close(nameless));
    }

    DO(rename("w/new", "w/newer"));
    DO(rename("w/newer", "other/newest"));
    DO(rename("other/newest", "w/new"));
    DO(rename("w/second", "w/new"));
    DO(renameat2(AT_FDCWD, "w/link", AT_FDCWD, "w/new", RENAME_EXCHANGE));
    DO(rename("w/old", "w/older"));
    DO(rename("w/nothing", "w/something"));
    mkdir("w/from", 0755);
    mkdir("w/to", 0755);
    SAY(inotify_add_watch(fd, "w/from", IN_ALL_EVENTS));
    SAY(inotify_add_watch(fd, "w/to", IN_ALL_EVENTS));
    tell("two directories");
    DO(rename("w/from", "w/to"));
    DO(chmod("w/to", 0700));
    DO(rmdir("w/to"));

    DO(unlink("other/third"));
    DO(unlink("w/new"));
    DO(unlink("w/link"));
    file = open("w/older", O_RDWR);
    tell("open");
    DO(unlink("w/older"));
    DO(write(file, "x", 1));
    DO(close(file));

    close(open("w/alone", O_CREAT | O_WRONLY, 0644));
    tell("made");
    int alone = SAY(inotify_add_watch(fd, "w/alone", IN_OPEN | IN_ONESHOT));
    DO(close(open("w/alone", O_RDONLY)));
    SAY(inotify_rm_watch(fd, alone));
    alone = SAY(inotify_add_watch(fd, "w/alone", IN_OPEN));
    SAY(inotify_add_watch(fd, "w/alone", IN_MODIFY | IN_MASK_ADD) == alone);
    DO(truncate("w/alone", 0));
    SAY(inotify_add_watch(fd, "w/alone", IN_CLOSE_WRITE) == alone);
    SAY(inotify_add_watch(fd, "w/alone", IN_CLOSE_WRITE | IN_MASK_CREATE));
    DO(close(open("w/alone", O_WRONLY)));
    DO(inotify_rm_watch(fd, alone));
    SAY(inotify_rm_watch(fd, alone));
    SAY(inotify_add_watch(fd, "w/alone", 0));
    SAY(inotify_add_watch(fd, "w/alone", IN_OPEN | IN_ONLYDIR));
    SAY(inotify_add_watch(fd, "w/alone", IN_MASK_ADD | IN_MASK_CREATE | IN_OPEN));
    SAY(inotify_add_watch(fd, "w/nothing", IN_OPEN));
    SAY(inotify_add_watch(0, "w", IN_OPEN));
    SAY(inotify_add_watch(99, "w", IN_OPEN));
    SAY(inotify_init1(3));
    symlink("alone", "w/link");
    tell("a link");
    int link = SAY(inotify_add_watch(fd, "w/link", IN_ATTRIB | IN_DELETE_SELF | IN_DONT_FOLLOW));
    DO(unlink("w/link"));
    (void)link;

    int excluded = inotify_add_watch(fd, "w", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    (void)excluded;
    file = open("w/alone", O_RDWR);
    unlink("w/alone");
    tell("excluded");
    DO(write(file, "x", 1));
    DO(close(file));

    DO(close(open("w/a name that is longer than sixteen", O_CREAT | O_WRONLY, 0600)));
    SAY(read(fd, (char[16]){0}, 16));
    unlink("w/a name that is longer than sixteen");
    SAY(read(fd, (char[16]){0}, 16));
    SAY(read(fd, (char[64]){0}, 64));
    tell("the rest");

    pid_t child = fork();
    if (child == 0) {
        execl("w/program", "program", (char *)0);
        _exit(1);
    }
    waitpid(child, 0, 0);
    tell("nothing to execute");
    for (int i = 0; i < 9000; i++) {
        close(open("w/many", O_CREAT | O_WRONLY, 0600));
        unlink("w/many");
    }
    char last[65536];
    int lost = 0, events = 0;
    ssize_t len;
    while ((len = read(fd, last, sizeof last)) > 0)
        for (char *at = last; at < last + len; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
            events++;
            lost += ((struct inotify_event *)at)->mask == IN_Q_OVERFLOW;
        }
    printf("%d events, %d of what was lost\n", events, lost);
    unlink("w/fifo");
    unlink("w/socket");
    tell("unlinked");
    DO(rmdir("w"));
    close(fd);
    unlink("other/copy");
    rmdir("other");
}

/* Whoever hears that a file lost its name, and looks, finds what has it now. */
static void race(void)
{
    int stale = 0;
    for (int i = 0; i < 300; i++) {
        close(open("k", O_CREAT | O_WRONLY, 0600));
        struct stat before, after;
        stat("k", &before);
        int own = inotify_init();
        inotify_add_watch(own, "k", IN_ATTRIB);
        pid_t child = fork();
        if (child == 0) {
            close(open("x", O_CREAT | O_WRONLY, 0600));
            rename("x", "k");
            _exit(0);
        }
        char event[64];
        read(own, event, sizeof event);
        stat("k", &after);
        stale += before.st_ino == after.st_ino;
        waitpid(child, 0, 0);
        close(own);
    }
    unlink("k");
    printf("%d times the file that is gone\n", stale);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, 0, _IOLBF, 4096);
    for (int i = 1; i < argc; i++) {
        walk(argv[i]);
        race();
    }
    return 0;
}
