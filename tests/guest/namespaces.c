/* Namespaces: of names, of mounts, of System V objects. All in some of the program's own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "say.h"

/* CANNOT: the exit status where nothing can be compared. */
enum { CANNOT = 77, NSFS = 0x6e736673 };
enum { GET_PARENT = 0xb702, GET_TYPE = 0xb703, GET_OWNER = 0xb704, NO_SUCH = 0xb7f0 };

static const char *const kinds[] = {"ipc", "mnt", "uts"};
static const int flags[] = {CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWUTS};
static const char *directory;

static const char *in(const char *name) {
    static char buffers[4][4096];
    static int next;
    char *buffer = buffers[next++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s/%s", directory, name);
    return buffer;
}

static int pidfd_open_(pid_t pid) { return syscall(SYS_pidfd_open, pid, 0); }
static int make_file(const char *path) { return close(open(path, O_CREAT | O_WRONLY, 0644)); }
static int there(const char *path) { return access(path, F_OK) == 0; }

/* A fork with flags: a child without a stack of its own goes on with a copy of this one. */
static pid_t clone_(unsigned long how) {
    fflush(stdout);
    return syscall(SYS_clone, how | SIGCHLD, NULL, NULL, NULL, NULL);
}

static void end(void) {
    fflush(stdout);
    _exit(0);
}

/* Runs something in a child and waits for it. */
static void in_child(void (*run)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        run();
        end();
    }
    waitpid(pid, NULL, 0);
}

/* A child that takes turns with its parent. */
static pid_t other;
static int to_parent[2], to_child[2];

static void start(void (*run)(void)) {
    fflush(stdout);
    pipe(to_parent);
    pipe(to_child);
    other = fork();
    if (!other) {
        char byte;
        read(to_child[0], &byte, 1);
        run();
        fflush(stdout);
        write(to_parent[1], "", 1);
        read(to_child[0], &byte, 1);
        _exit(0);
    }
}

/* Lets the other one go on, until it has its turn again. */
static void turn(void) {
    char byte;
    fflush(stdout);
    write(other ? to_child[1] : to_parent[1], "", 1);
    read(other ? to_parent[0] : to_child[0], &byte, 1);
}

static void finish(void) {
    write(to_child[1], "", 1);
    waitpid(other, NULL, 0);
    for (int i = 0; i < 2; i++) close(to_parent[i]), close(to_child[i]);
}

static const char *link_of(const char *who, const char *kind) {
    static char buffers[4][64];
    static int next;
    char *buffer = buffers[next++ % 4];
    snprintf(buffer, sizeof buffers[0], "/proc/%s/ns/%s", who, kind);
    return buffer;
}

static const char *number(pid_t pid) {
    static char buffer[16];
    snprintf(buffer, sizeof buffer, "%d", pid);
    return buffer;
}

static ino_t inode(const char *path) {
    struct stat st = {0};
    return stat(path, &st) ? 0 : st.st_ino;
}

static int namespace(const char *kind) { return open(link_of("self", kind), O_RDONLY | O_CLOEXEC); }

/* Which namespaces this task shares with another one. */
static void compare(const char *what, const char *who) {
    printf("%s:", what);
    for (int i = 0; i < 3; i++) {
        ino_t mine = inode(link_of("self", kinds[i])), theirs = inode(link_of(who, kinds[i]));
        printf(" %s %s", kinds[i], mine && mine == theirs ? "same" : "different");
    }
    printf("\n");
}

static void names(const char *what) {
    struct utsname uts;
    char proc[80] = "";
    uname(&uts);
    int fd = open("/proc/sys/kernel/hostname", O_RDONLY);
    int n = read(fd, proc, sizeof proc - 1);
    close(fd);
    proc[n > 0 ? n - 1 : 0] = 0;
    printf("%s: %s, %s, %s\n", what, uts.nodename, uts.domainname, proc);
}

static void give_up_capabilities(void) {
    uint32_t header[2] = {0x20080522, 0}, none[6] = {0};
    if (syscall(SYS_capset, header, none)) perror("capset");
}

static void write_map(const char *path, unsigned id) {
    char text[64];
    int fd = open(path, O_WRONLY);
    snprintf(text, sizeof text, "0 %u 1", id);
    if (fd >= 0 && write(fd, text, strlen(text)) < 0) perror(path);
    if (fd >= 0) close(fd);
}

static int be_alone(void) {
    int own = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC;
    if (unshare(own)) {
        unsigned uid = geteuid(), gid = getegid();
        if (unshare(CLONE_NEWUSER | own)) return -1;
        int fd = open("/proc/self/setgroups", O_WRONLY);
        if (fd >= 0 && write(fd, "deny", 4) != 4) perror("setgroups");
        if (fd >= 0) close(fd);
        write_map("/proc/self/uid_map", uid);
        write_map("/proc/self/gid_map", gid);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) return -1;
    return mount("tmpfs", directory, "tmpfs", 0, NULL);
}

/* The files. */

static void files(void) {
    for (int i = 0; i < 3; i++) {
        char text[64] = "", expected[64];
        struct stat st, link;
        struct statfs fs;
        const char *path = link_of("self", kinds[i]);
        SAY(readlink(path, text, sizeof text - 1) > 0);
        lstat(path, &link);
        printf("link %o\n", link.st_mode);
        int fd = OPENED(open(path, O_RDONLY));
        fstat(fd, &st);
        fstatfs(fd, &fs);
        snprintf(expected, sizeof expected, "%s:[%lu]", kinds[i], (unsigned long)st.st_ino);
        printf("%s %o %d %d\n", kinds[i], st.st_mode, !strcmp(text, expected), fs.f_type == NSFS);
        char of_fd[64] = "", shown[64];
        snprintf(shown, sizeof shown, "/proc/self/fd/%d", fd);
        readlink(shown, of_fd, sizeof of_fd - 1);
        printf("descriptor %d\n", !strcmp(of_fd, expected));
        printf("type %d\n", ioctl(fd, GET_TYPE) == flags[i]);
        uid_t owner;
        SAY(ioctl(fd, GET_PARENT));
        SAY(ioctl(fd, GET_OWNER, &owner));
        SAY(ioctl(fd, NO_SUCH));
        SAY(read(fd, text, 1));
        SAY(write(fd, text, 1));
        close(fd);
    }
    struct stat st;
    SAY(lstat("/proc/self/ns", &st));
    printf("directory %o\n", st.st_mode);
    SAY(open("/proc/self/ns/nonesuch", O_RDONLY));
    compare("self and thread-self", "thread-self");
}

static void ended(void) {
    pid_t pid = fork();
    if (!pid) _exit(0);
    siginfo_t info;
    waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    char text[64];
    SAY(readlink(link_of(number(pid), "uts"), text, sizeof text));
    int fd = pidfd_open_(pid);
    SAY(setns(fd, CLONE_NEWUTS));
    close(fd);
    waitpid(pid, NULL, 0);
}

/* What is refused. */

static void refused(void) {
    SAY(unshare(1));
    SAY(unshare(CLONE_NEWNS | 0x1000));
    SAY(unshare(0));
    SAY(setns(-1, 0));
    SAY(setns(99, CLONE_NEWUTS));
    int null = open("/dev/null", O_RDONLY), uts = namespace("uts");
    SAY(setns(null, 0));
    SAY(setns(null, CLONE_NEWUTS));
    SAY(setns(uts, CLONE_NEWIPC));
    SAY(setns(uts, CLONE_NEWUTS | CLONE_NEWIPC));
    SAY(setns(uts, 0));
    SAY(setns(uts, CLONE_NEWUTS));
    int path = open(link_of("self", "uts"), O_PATH);
    SAY(setns(path, 0));
    int self = pidfd_open_(getpid());
    SAY(setns(self, 0));
    SAY(setns(self, 1));
    SAY(setns(self, CLONE_FS));
    SAY(setns(self, CLONE_NEWUTS | CLONE_NEWIPC));
    SAY(clone_(CLONE_NEWNS | CLONE_FS));
    SAY(clone_(CLONE_NEWIPC | CLONE_SYSVSEM));
    give_up_capabilities();
    SAY(unshare(CLONE_NEWUTS));
    SAY(unshare(CLONE_NEWNS));
    SAY(unshare(CLONE_NEWIPC | CLONE_FILES));
    SAY(unshare(CLONE_FILES | CLONE_FS));
    SAY(clone_(CLONE_NEWUTS));
    SAY(clone_(CLONE_NEWNS | CLONE_FS));
    SAY(setns(uts, 0));
    SAY(setns(self, CLONE_NEWUTS));
    SAY(sethostname("x", 1));
    char text[64];
    SAY(readlink(link_of("self", "uts"), text, sizeof text) > 0);
    SAY(readlink(link_of(number(getppid()), "uts"), text, sizeof text));
    SAY(open(link_of(number(getppid()), "uts"), O_RDONLY));
    struct stat st;
    SAY(lstat(link_of(number(getppid()), "uts"), &st));
}

/* Names. */

static void grandchild(void) {
    compare("grandchild and child", number(getppid()));
    names("grandchild");
}

static void names_of_child(void) {
    compare("child and parent", number(getppid()));
    SAY(unshare(CLONE_NEWUTS));
    compare("child and parent", number(getppid()));
    names("child begins with");
    SAY(sethostname("child", 5));
    SAY(setdomainname("below", 5));
    names("child");
    turn();
    names("child, still");
    /* Who is root in a user namespace only may not write it there. */
    int fd = open("/proc/sys/kernel/hostname", O_WRONLY);
    if (fd < 0 || write(fd, "written\n", 8) != 8) sethostname("written", 7);
    close(fd);
    in_child(grandchild);
}

static void *thread(void *unused) {
    pid_t tid = gettid();
    char who[64];
    SAY(unshare(CLONE_NEWUTS));
    SAY(sethostname("thread", 6));
    snprintf(who, sizeof who, "self/task/%d", tid);
    printf("thread: %d %d\n", inode(link_of("thread-self", "uts")) == inode(link_of(who, "uts")),
           inode(link_of("self", "uts")) == inode(link_of(who, "uts")));
    names("thread");
    SAY(unshare(CLONE_NEWNS));
    return unused;
}

static void threads(void) {
    pthread_t id;
    pthread_create(&id, NULL, thread, NULL);
    pthread_join(id, NULL);
    names("its process");
}

static void uts(void) {
    SAY(sethostname("parent", 6));
    SAY(setdomainname("above", 5));
    int own = namespace("uts");
    start(names_of_child);
    turn();
    names("parent");
    SAY(sethostname("changed", 7));
    compare("parent and child", number(other));
    turn();
    names("parent");
    /* Into the child's, and back. */
    int theirs = open(link_of(number(other), "uts"), O_RDONLY), process = pidfd_open_(other);
    SAY(setns(theirs, 0));
    names("there");
    compare("there", number(other));
    SAY(setns(own, CLONE_NEWUTS));
    names("back");
    SAY(setns(process, CLONE_NEWUTS | CLONE_NEWIPC));
    names("there again");
    finish();
    /* Kept by its file and by who is in it. */
    SAY(setns(own, 0));
    SAY(setns(theirs, 0));
    names("without any process of its own");
    SAY(setns(own, 0));
    SAY(setns(process, CLONE_NEWUTS));
    close(own), close(theirs), close(process);
    in_child(threads);
    pid_t pid = clone_(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS);
    if (!pid) {
        compare("cloned and parent", number(getppid()));
        names("cloned");
        end();
    }
    waitpid(pid, NULL, 0);
}

/* Mounts. */

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The mounts below the directory that a process sees, without what numbers are in their lines. */
static void show(const char *what, const char *who) {
    char *lines[64], *line = NULL, file[64];
    size_t count = 0, room = 0, length = strlen(directory);
    snprintf(file, sizeof file, "/proc/%s/mountinfo", who);
    FILE *info = fopen(file, "r");
    while (getline(&line, &room, info) > 0 && count < 64) {
        char path[4096], options[256], type[64];
        if (sscanf(line, "%*d %*d %*s %*s %4095s %255s", path, options) != 2) continue;
        if (strncmp(path, directory, length) || path[length] != '/') continue;
        sscanf(strstr(line, " - "), " - %63s", type);
        const char *shared = strstr(line, " shared:") ? " shared" : "", *slave = strstr(line, " master:") ? " master" : "";
        if (asprintf(&lines[count++], "%s %s%s%s %s", path + length, options, shared, slave, type) < 0) abort();
    }
    fclose(info);
    qsort(lines, count, sizeof lines[0], by_text);
    printf("%s: %zu mounts\n", what, count);
    for (size_t i = 0; i < count; i++) printf("  %s\n", lines[i]);
}

static int foreign;

static void mounts_of_child(void) {
    char cwd[4096];
    SAY(chdir(in("place")));
    SAY(unshare(CLONE_NEWNS));
    compare("child and parent", number(getppid()));
    getcwd(cwd, sizeof cwd);
    printf("directory %s\n", cwd + strlen(directory));
    /* What is mounted by a relative path is mounted here, not there. */
    SAY(mkdir("relative", 0755));
    SAY(mount("t", "relative", "tmpfs", 0, NULL));
    SAY(make_file(in("place/relative/f")));
    SAY(mount("t", in("gone"), "tmpfs", 0, NULL));
    SAY(make_file(in("gone/f")));
    SAY(mount(in("gone/f"), in("gone too"), NULL, MS_BIND, NULL));
    SAY(rmdir(in("gone")));
    SAY(mount("t", in("private"), "tmpfs", MS_NOSUID, NULL));
    SAY(make_file(in("private/mine")));
    SAY(mount("t", in("shared/a"), "tmpfs", 0, NULL));
    SAY(make_file(in("shared/a/f")));
    SAY(mount(NULL, in("slave"), NULL, MS_SLAVE, NULL));
    SAY(mount("t", in("slave/a"), "tmpfs", 0, NULL));
    SAY(make_file(in("slave/a/f")));
    show("child", "self");
    turn();
    show("child", "self");
    SAY(there(in("gone")));
    SAY(there(in("gone too")));
    SAY(there(in("shared/b/f")));
    SAY(there(in("slave/b/f")));
    SAY(there(in("private/theirs")));
    SAY(umount(in("shared/b")));
    SAY(umount(in("slave/b")));
    /* Places of the other namespace, by descriptor: to look at only. */
    char place[64];
    snprintf(place, sizeof place, "/proc/self/fd/%d", foreign);
    SAY(faccessat(foreign, "theirs", F_OK, 0));
    SAY(mount("t", place, "tmpfs", 0, NULL));
    SAY(mount(place, in("slave"), NULL, MS_BIND, NULL));
    SAY(mount(NULL, place, NULL, MS_PRIVATE, NULL));
    SAY(mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    SAY(umount2(place, MNT_DETACH));
    SAY(syscall(SYS_open_tree, foreign, "", AT_EMPTY_PATH | 1));
    SAY(syscall(SYS_move_mount, foreign, "", AT_FDCWD, in("slave"), 4));
    SAY(mkdirat(foreign, "made", 0755));
    show("child", "self");
}

/* Descriptors of mount namespaces. */
static void enter(void) {
    char cwd[4096];
    int own = namespace("mnt"), theirs = open(link_of(number(other), "mnt"), O_RDONLY);
    /* Relative to the working directory, which is in the other namespace still. */
    SAY(chdir(in("place")));
    SAY(setns(theirs, CLONE_NEWNS));
    SAY(there(in("private/mine")));
    printf("directory %s\n", getcwd(cwd, sizeof cwd));
    compare("there", number(other));
    show("there", "self");
    SAY(setns(own, CLONE_NEWNS));
    SAY(there(in("private/mine")));
    show("back", "self");
    SAY(chroot(in("place")));
    SAY(there("/relative"));
    SAY(setns(theirs, 0));
    SAY(there(in("private/mine")));
    pid_t pid = clone_(CLONE_FS);
    if (!pid) {
        SAY(setns(own, CLONE_NEWNS));
        SAY(unshare(CLONE_NEWNS));
        SAY(setns(own, CLONE_NEWNS));
        end();
    }
    waitpid(pid, NULL, 0);
    SAY(there(in("private/mine")));
    give_up_capabilities();
    SAY(setns(own, 0));
}

static void mnt(void) {
    SAY(make_file(in("gone too")));
    for (const char **name = (const char *[]){"place", "private", "gone", "shared", "slave", NULL}; *name; name++) {
        SAY(mkdir(in(*name), 0755));
        if (**name != 's') continue;
        SAY(mount("t", in(*name), "tmpfs", 0, NULL));
        SAY(mount(NULL, in(*name), NULL, MS_SHARED, NULL));
    }
    for (const char **name = (const char *[]){"shared/a", "shared/b", "slave/a", "slave/b", NULL}; *name; name++)
        SAY(mkdir(in(*name), 0755));
    SAY(mount("t", in("private"), "tmpfs", 0, NULL));
    foreign = OPENED(open(in("private"), O_RDONLY | O_DIRECTORY));
    show("before", "self");
    start(mounts_of_child);
    turn();
    show("parent", "self");
    show("parent, of child", number(other));
    SAY(there(in("place/relative/f")));
    SAY(there(in("private/mine")));
    SAY(there(in("shared/a/f")));
    SAY(there(in("slave/a/f")));
    /* What is mounted elsewhere only is in nobody's way. */
    SAY(rmdir(in("shared")));
    SAY(unlink(in("gone too")));
    SAY(rename(in("place"), in("gone")));
    SAY(mkdir(in("place"), 0755));
    SAY(rmdir(in("gone/relative")));
    SAY(rmdir(in("gone")));
    SAY(rename(in("place"), in("renamed")));
    SAY(rename(in("renamed"), in("place")));
    SAY(mount("t", in("shared/b"), "tmpfs", 0, NULL));
    SAY(make_file(in("shared/b/f")));
    SAY(mount("t", in("slave/b"), "tmpfs", 0, NULL));
    SAY(make_file(in("slave/b/f")));
    SAY(make_file(in("private/theirs")));
    turn();
    show("parent", "self");
    SAY(there(in("private/made")));
    in_child(enter);
    /* Through the root of the other process. */
    char path[8192];
    snprintf(path, sizeof path, "/proc/%d/root%s", other, in("private/mine"));
    SAY(there(path));
    finish();
    show("after", "self");
    SAY(umount(in("shared/a")));
    close(foreign);
    SAY(umount(in("private")));
    SAY(umount(in("shared")));
    SAY(umount(in("slave")));
    SAY(umount(in("slave/b")));
    SAY(umount(in("slave")));
}

/* Another root, for this process alone. */
static void turned(void) {
    SAY(unshare(CLONE_NEWNS));
    SAY(mount("t", in("place"), "tmpfs", 0, NULL));
    SAY(chroot(in("place")));
    SAY(chdir("/"));
    SAY(mkdir("/new", 0755));
    SAY(mount("t", "/new", "tmpfs", 0, NULL));
    SAY(mkdir("/new/old", 0755));
    SAY(syscall(SYS_pivot_root, "/new", "/new/old"));
    SAY(there("/old/new"));
    SAY(there("/new"));
    SAY(umount2("/old", MNT_DETACH));
    SAY(rmdir("/old"));
}

/* Namespaces that are mounted. */

static void kept(void) {
    SAY(unshare(CLONE_NEWUTS));
    SAY(sethostname("kept", 4));
    SAY(mount(link_of("self", "uts"), in("file"), NULL, MS_BIND, NULL));
}

static void keep_mounts(void) {
    SAY(unshare(CLONE_NEWNS));
    SAY(mount("t", in("place"), "tmpfs", 0, NULL));
    SAY(make_file(in("place/kept")));
    turn();
    SAY(mount(link_of("self", "mnt"), in("file"), NULL, MS_BIND, NULL));
    SAY(mount(link_of(number(getppid()), "mnt"), in("file"), NULL, MS_BIND, NULL));
}

static void mounted(void) {
    SAY(make_file(in("file")));
    in_child(kept);
    show("kept", "self");
    int fd = OPENED(open(in("file"), O_RDONLY)), own = namespace("uts");
    printf("type %d\n", ioctl(fd, GET_TYPE) == CLONE_NEWUTS);
    SAY(setns(fd, CLONE_NEWUTS));
    names("there");
    SAY(setns(own, CLONE_NEWUTS));
    names("back");
    SAY(umount(in("file")));
    close(fd), close(own);
    SAY(umount(in("file")));
    SAY(umount(in("file")));

    SAY(mount(link_of("self", "mnt"), in("file"), NULL, MS_BIND, NULL));
    start(keep_mounts);
    turn();
    SAY(mount(link_of(number(other), "mnt"), in("file"), NULL, MS_BIND, NULL));
    turn();
    finish();
    show("kept", "self");
    fd = OPENED(open(in("file"), O_RDONLY)), own = namespace("mnt");
    SAY(there(in("place/kept")));
    SAY(setns(fd, 0));
    SAY(there(in("place/kept")));
    show("there", "self");
    SAY(setns(own, 0));
    close(fd), close(own);
    SAY(umount(in("file")));
}

/* Places that are in no namespace: nothing can be mounted there, nor they elsewhere. */
static void nowhere(void) {
    char place[64];
    int ends[2];
    pipe(ends);
    snprintf(place, sizeof place, "/proc/self/fd/%d", ends[0]);
    SAY(mount(place, in("file"), NULL, MS_BIND, NULL));
    /* By ENOENT since 6.15 or so, and by EINVAL before. */
    SAY(mount(in("file"), place, NULL, MS_BIND, NULL) < 0);
    SAY(mount("t", in("place"), "tmpfs", 0, NULL));
    int gone = OPENED(open(in("place"), O_RDONLY | O_DIRECTORY));
    SAY(umount2(in("place"), MNT_DETACH));
    snprintf(place, sizeof place, "/proc/self/fd/%d", gone);
    SAY(mount("t", place, "tmpfs", 0, NULL) < 0);
    SAY(mount(place, in("place"), NULL, MS_BIND, NULL));
    SAY(umount2(place, MNT_DETACH));
    SAY(syscall(SYS_open_tree, gone, "", AT_EMPTY_PATH | 1));
    SAY(mount(NULL, place, NULL, MS_SHARED, NULL));
    SAY(mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    close(gone);

    /* A tree that is attached nowhere yet: only all of it moves. */
    SAY(mount("t", in("place"), "tmpfs", 0, NULL));
    SAY(mkdir(in("place/below"), 0755));
    SAY(mkdir(in("place/beside"), 0755));
    SAY(mount("t", in("place/below"), "tmpfs", 0, NULL));
    int tree = OPENED(syscall(SYS_open_tree, AT_FDCWD, in("place"), 1 | AT_RECURSIVE));
    snprintf(place, sizeof place, "/proc/self/fd/%d/beside", tree);
    SAY(mount("t", place, "tmpfs", 0, NULL));
    SAY(mount(in("place"), place, NULL, MS_BIND, NULL));
    SAY(mount(in("place/below"), place, NULL, MS_MOVE, NULL));
    SAY(syscall(SYS_move_mount, tree, "below", AT_FDCWD, in("place/beside"), 0));
    snprintf(place, sizeof place, "/proc/self/fd/%d/below", tree);
    SAY(umount2(place, MNT_DETACH));
    SAY(mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    SAY(mount(NULL, place, NULL, MS_SHARED, NULL));
    close(tree);
    SAY(umount(in("place/below")));
    SAY(umount(in("place")));
    show("nowhere", "self");
    close(ends[0]), close(ends[1]);
}

/* System V objects. */

enum { KEY = 0x6e73 };

static int lines(const char *path) {
    int count = 0;
    FILE *file = fopen(path, "r");
    for (int c; (c = getc(file)) != EOF;) count += c == '\n';
    fclose(file);
    return count;
}

static void ipc_of_child(void) {
    struct sembuf take = {0, -2, SEM_UNDO};
    int sem = semget(KEY, 1, 0), shm = shmget(KEY, 4096, 0);
    char *memory = shmat(shm, NULL, 0);
    SAY(semop(sem, &take, 1));
    SAY(semctl(sem, 0, GETVAL));
    turn();
    SAY(unshare(CLONE_NEWIPC));
    compare("child and parent", number(getppid()));
    SAY(msgget(KEY, 0));
    SAY(semget(KEY, 1, 0));
    SAY(shmget(KEY, 4096, 0));
    SAY(semctl(sem, 0, GETVAL));
    printf("memory %s\n", memory);
    SAY(shmdt(memory));
    SAY(msgget(KEY, IPC_CREAT | IPC_EXCL | 0600));
    SAY(semget(KEY, 2, IPC_CREAT | IPC_EXCL | 0600));
    SAY(lines("/proc/sysvipc/msg"));
    SAY(lines("/proc/sysvipc/shm"));
}

static void ipc(void) {
    struct shmid_ds ds;
    int msg = SAY(msgget(KEY, IPC_CREAT | IPC_EXCL | 0600)), sem = SAY(semget(KEY, 1, IPC_CREAT | IPC_EXCL | 0600));
    int shm = SAY(shmget(KEY, 4096, IPC_CREAT | IPC_EXCL | 0600));
    char *memory = shmat(shm, NULL, 0);
    strcpy(memory, "of the parent");
    SAY(semctl(sem, 0, SETVAL, 3));
    start(ipc_of_child);
    turn();
    SAY(semctl(sem, 0, GETVAL));
    turn();
    SAY(semctl(sem, 0, GETVAL));
    SAY(lines("/proc/sysvipc/msg"));
    SAY(shmctl(shm, IPC_STAT, &ds));
    printf("attached %lu\n", (unsigned long)ds.shm_nattch);
    int own = namespace("ipc"), theirs = open(link_of(number(other), "ipc"), O_RDONLY);
    SAY(setns(theirs, 0));
    SAY(semget(KEY, 2, 0));
    SAY(shmget(KEY, 4096, 0));
    SAY(setns(own, 0));
    SAY(semget(KEY, 2, 0));
    SAY(shmget(KEY, 4096, 0));
    finish();
    SAY(msgctl(msg, IPC_RMID, NULL));
    SAY(semctl(sem, 0, IPC_RMID));
    SAY(shmctl(shm, IPC_RMID, NULL));
    close(own), close(theirs);
}

/* Which of two namespaces is the older one Linux tells by their numbers, and it gives those out for each processor apart. */
static void stay_on_one_processor(void) {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all)) return;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &one);
            break;
        }
    sched_setaffinity(0, sizeof one, &one);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    stay_on_one_processor();
    directory = argv[2];
    if (be_alone()) return CANNOT;
    files();
    ended();
    in_child(refused);
    uts();
    mnt();
    in_child(turned);
    show("parent", "self");
    mounted();
    nowhere();
    ipc();
    return 0;
}
