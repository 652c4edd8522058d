/* Mounting step by step, by descriptors. Where the kernel has namespaces, in some of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "say.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
/* CANNOT: the exit status where nothing can be compared. */
enum { CANNOT = 77, NOSYMFOLLOW = 0x200000, ATIME = 0x70, NOATIME = 0x10 };

static const char *directory;

static const char *in(const char *name) {
    static char buffers[4][4096];
    static int next;
    char *buffer = buffers[next++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s/%s", directory, name);
    return buffer;
}

static int fsopen_(const char *type, unsigned flags) { return syscall(SYS_fsopen, type, flags); }
static int fsconfig_(int fd, unsigned command, const char *key, const void *value, int aux) {
    return syscall(SYS_fsconfig, fd, command, key, value, aux);
}
static int fsmount_(int fd, unsigned flags, unsigned attributes) { return syscall(SYS_fsmount, fd, flags, attributes); }
static int fspick_(int dir, const char *path, unsigned flags) { return syscall(SYS_fspick, dir, path, flags); }
static int open_tree_(int dir, const char *path, unsigned flags) { return syscall(SYS_open_tree, dir, path, flags); }
static int move_mount_(int from, const char *path, int to, const char *target, unsigned flags) {
    return syscall(SYS_move_mount, from, path, to, target, flags);
}
static int setattr_(const char *path, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation, size_t size) {
    uint64_t attributes[5] = {set, clear, propagation};
    return syscall(SYS_mount_setattr, AT_FDCWD, path, flags, attributes, size);
}

static int write_to(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    int error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    return fd < 0 ? -1 : 0;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The mounts below the directory, without what numbers and sizes are in their lines. */
static void show(const char *what) {
    char *lines[64], *line = NULL;
    size_t count = 0, room = 0;
    FILE *info = fopen("/proc/self/mountinfo", "r");
    while (getline(&line, &room, info) > 0 && count < 64) {
        char path[4096], options[256], tags[256] = "", type[64], source[256], super[256];
        if (sscanf(line, "%*d %*d %*s %*s %4095s %255s", path, options) != 2) continue;
        size_t length = strlen(directory);
        if (strncmp(path, directory, length) || path[length] != '/') continue;
        char *dash = strstr(line, " - ");
        sscanf(dash, " - %63s %255s %255s", type, source, super);
        if (strstr(line, " shared:")) strcat(tags, " shared");
        if (strstr(line, " master:")) strcat(tags, " master");
        super[2] = 0;
        if (asprintf(&lines[count++], "%s %s%s %s %s %s", path + length, options, tags, type, source, super) < 0) abort();
    }
    fclose(info);
    qsort(lines, count, sizeof lines[0], by_text);
    printf("%s: %zu mounts\n", what, count);
    for (size_t i = 0; i < count; i++) printf("  %s\n", lines[i]);
}

static void write_map(const char *path, unsigned id) {
    char text[64];
    int fd = open(path, O_WRONLY);
    snprintf(text, sizeof text, "0 %u 1", id);
    if (fd >= 0 && write(fd, text, strlen(text)) < 0) perror(path);
    if (fd >= 0) close(fd);
}

static void be_alone(void) {
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) return;
    int fd = open("/proc/self/setgroups", O_WRONLY);
    if (fd >= 0 && write(fd, "deny", 4) != 4) perror("setgroups");
    if (fd >= 0) close(fd);
    write_map("/proc/self/uid_map", uid);
    write_map("/proc/self/gid_map", gid);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) perror("private");
}

static void make(void) {
    char message[128];
    SAY(fsopen_("nonesuch", 0));
    SAY(fsopen_("tmpfs", 8));
    SAY(fsmount_(0, 0, 0));
    SAY(fsconfig_(-1, 6, NULL, NULL, 0));
    int fd = OPENED(fsopen_("tmpfs", 1));
    SAY(fsmount_(fd, 0, 0));
    SAY(fsconfig_(fd, 1, "size", "1m", 0));
    SAY(fsconfig_(fd, 1, "source", "here", 0));
    SAY(fsconfig_(fd, 1, "source", "there", 0));
    SAY(fsconfig_(fd, 0, "ro", "value", 0));
    SAY(fsconfig_(fd, 0, NULL, NULL, 0));
    SAY(fsconfig_(fd, 99, NULL, NULL, 0));
    SAY(fsconfig_(fd, 7, NULL, NULL, 0));
    SAY(fsconfig_(fd, 6, "key", NULL, 0));
    int n = read(fd, message, sizeof message - 1);
    SAY(n > 0);
    SAY(fsconfig_(fd, 6, NULL, NULL, 0));
    SAY(fsconfig_(fd, 6, NULL, NULL, 0));
    SAY(fsconfig_(fd, 0, "ro", NULL, 0));
    SAY(fsmount_(fd, 4, 0));
    SAY(fsmount_(fd, 0, 1 << 30));
    SAY(fsmount_(fd, 0, 0x30));
    int mounted = OPENED(fsmount_(fd, 1, 4 | 8));
    SAY(fsmount_(fd, 0, 0));
    show("apart");
    SAY(read(mounted, message, 1));
    close(openat(mounted, "f", O_CREAT | O_WRONLY, 0644));
    SAY(move_mount_(mounted, "", AT_FDCWD, in("m"), 0));
    SAY(move_mount_(mounted, "", AT_FDCWD, in("m"), 1 << 20));
    SAY(move_mount_(mounted, "", AT_FDCWD, in("file"), 4));
    SAY(move_mount_(mounted, "", AT_FDCWD, in("m"), 4));
    show("attached");
    close(mounted);
    close(fd);
    SAY(access(in("m/f"), F_OK));
    /* Made, and not mounted: nothing is left. */
    fd = OPENED(fsopen_("tmpfs", 0));
    SAY(fsconfig_(fd, 6, NULL, NULL, 0));
    close(fd);
}

static void change(void) {
    int fd = OPENED(fspick_(AT_FDCWD, in("m"), 0));
    SAY(fspick_(AT_FDCWD, in("m"), 64));
    SAY(fspick_(AT_FDCWD, in("n"), 0));
    SAY(fsconfig_(fd, 6, NULL, NULL, 0));
    SAY(fsconfig_(fd, 0, "ro", NULL, 0));
    SAY(fsconfig_(fd, 7, NULL, NULL, 0));
    SAY(write_to(in("m/f")));
    show("read-only");
    SAY(fsconfig_(fd, 0, "rw", NULL, 0));
    SAY(fsconfig_(fd, 7, NULL, NULL, 0));
    SAY(write_to(in("m/f")));
    close(fd);

    SAY(setattr_(in("m"), 0, 0, 0, 0, 32));
    SAY(setattr_(in("m"), 0, 1, 8, 0, 32));
    SAY(write_to(in("m/f")));
    show("attributes");
    SAY(setattr_(in("m"), 0, NOATIME, 0, 0, 32));
    SAY(setattr_(in("m"), 0, NOATIME, ATIME, 0, 32));
    SAY(setattr_(in("m"), 0, 0, NOATIME, 0, 32));
    SAY(setattr_(in("m"), 0, 1ull << 40, 0, 0, 32));
    SAY(setattr_(in("m"), 0, 1, 0, 0, 8));
    SAY(setattr_(in("m"), 0, 1, 0, 0, 8192));
    SAY(setattr_(in("m"), 0, 0, 0, 3, 32));
    SAY(setattr_(in("m"), 2, 1, 0, 0, 32));
    SAY(setattr_(in("n"), 0, 1, 0, 0, 32));
    SAY(setattr_(in("m"), 0, 0, 1, 0, 40));
    show("access times");
    int writer = open(in("m/f"), O_WRONLY);
    SAY(setattr_(in("m"), 0, 1, 0, 0, 32));
    close(writer);
    SAY(symlink("f", in("m/link")));
    SAY(setattr_(in("m"), 0, NOSYMFOLLOW, 0, 0, 32));
    SAY(open(in("m/link"), O_RDONLY));
    SAY(faccessat(AT_FDCWD, in("m/link"), F_OK, AT_SYMLINK_NOFOLLOW));
    show("no links");
    SAY(setattr_(in("m"), 0, 0, NOSYMFOLLOW, 0, 32));
    SAY(access(in("m/link"), F_OK));
}

static void copy(void) {
    SAY(mkdir(in("m/below"), 0755));
    SAY(mount("deep", in("m/below"), "tmpfs", MS_NOSUID, NULL));
    SAY(write_to(in("m/below/g")));
    SAY(open_tree_(AT_FDCWD, in("m"), AT_RECURSIVE));
    SAY(open_tree_(AT_FDCWD, in("m"), 2));
    int path = OPENED(open_tree_(AT_FDCWD, in("m"), O_CLOEXEC));
    SAY(fcntl(path, F_GETFL) & O_PATH ? 1 : 0);
    SAY(move_mount_(path, "", AT_FDCWD, in("n"), 4));
    show("moved");
    SAY(move_mount_(AT_FDCWD, in("n"), AT_FDCWD, in("m"), 0));
    show("and back");
    close(path);
    int tree = OPENED(open_tree_(AT_FDCWD, in("m"), 1 | O_CLOEXEC | AT_RECURSIVE));
    SAY(faccessat(tree, "below/g", F_OK, 0));
    close(tree);
    tree = OPENED(open_tree_(AT_FDCWD, in("m"), 1 | AT_RECURSIVE));
    SAY(move_mount_(tree, "", AT_FDCWD, in("n"), 4));
    close(tree);
    SAY(access(in("n/below/g"), F_OK));
    show("copied");
    tree = OPENED(open_tree_(AT_FDCWD, in("m"), 1));
    SAY(faccessat(tree, "below/g", F_OK, 0));
    close(tree);

    SAY(setattr_(in("n"), AT_RECURSIVE, 0, 0, MS_SHARED, 32));
    show("shared");
    tree = OPENED(open_tree_(AT_FDCWD, in("n"), 1 | AT_RECURSIVE));
    SAY(move_mount_(tree, "", AT_FDCWD, in("o"), 4));
    close(tree);
    SAY(mkdir(in("n/late"), 0755));
    SAY(mount("late", in("n/late"), "tmpfs", 0, NULL));
    show("propagated");
    SAY(mkdir(in("o/all"), 0755));
    tree = OPENED(open_tree_(AT_FDCWD, in("m"), 1 | AT_RECURSIVE));
    SAY(move_mount_(tree, "", AT_FDCWD, in("o/all"), 4));
    close(tree);
    show("a tree, propagated");
    SAY(access(in("n/all/below/g"), F_OK));
    SAY(umount2(in("o"), MNT_DETACH));
    show("one less");
    SAY(umount2(in("n"), MNT_DETACH));
    SAY(umount2(in("m"), 0));
    SAY(umount2(in("m/below"), 0));
    SAY(umount2(in("m"), 0));
    show("none");
}

// What polls the list of mounts hears of changes; what nobody uses expires.
static void watch(void) {
    struct statvfs fs;
    struct pollfd mounts = {open("/proc/self/mountinfo", O_RDONLY), POLLPRI, 0};
    SAY(poll(&mounts, 1, 0));
    SAY(mount("watched", in("m"), "tmpfs", MS_NOSUID | 256, NULL));
    SAY(poll(&mounts, 1, 0));
    printf("revents %x\n", mounts.revents);
    SAY(poll(&mounts, 1, 0));
    SAY(statvfs(in("m"), &fs));
    printf("flags %lx\n", fs.f_flag & ~(unsigned long)ST_RELATIME);
    SAY(umount2(in("m"), MNT_EXPIRE | MNT_DETACH));
    SAY(umount2(in("m"), MNT_EXPIRE));
    SAY(access(in("m/x"), F_OK));
    SAY(umount2(in("m"), MNT_EXPIRE));
    SAY(umount2(in("m"), MNT_EXPIRE));
    SAY(poll(&mounts, 1, 0));
    SAY(umount2(in("m"), MNT_EXPIRE));
    close(mounts.fd);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    directory = argv[1];
    for (const char **name = (const char *[]){"m", "n", "o", NULL}; *name; name++)
        if (mkdir(in(*name), 0755)) perror(*name);
    close(open(in("file"), O_CREAT | O_WRONLY, 0644));
    be_alone();
    int may = fsopen_("tmpfs", 1);
    if (may < 0 && (errno == EPERM || errno == ENOSYS)) return CANNOT;
    close(may);
    make();
    change();
    copy();
    watch();
    return 0;
}
