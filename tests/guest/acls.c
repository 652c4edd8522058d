/* Access control lists: what is taken, how mode and list follow each other, what new files get, who may do what.
   argv[1]: a directory on a disk, argv[2]: one in memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "say.h"

/* CANNOT: the exit status where nothing can be compared. */
enum { CANNOT = 77 };

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static char value[1024];

/* "u::7,u:9:6,g::4,m::7,o::0" as setxattr takes it; the length. */
static size_t acl(const char *text)
{
    uint32_t version = 2;
    memcpy(value, &version, 4);
    size_t len = 4;
    while (*text) {
        uint16_t tag = *text == 'm' ? 16 : *text == 'o' ? 32 : *text == 'u' ? 1 : 4;
        text += 2;
        uint32_t id = UINT32_MAX;
        if (*text != ':') {
            id = strtoul(text, (char **)&text, 10);
            tag *= 2;
        }
        uint16_t allowed = strtoul(text + 1, (char **)&text, 8);
        memcpy(value + len, &tag, 2);
        memcpy(value + len + 2, &allowed, 2);
        memcpy(value + len + 4, &id, 4);
        len += 8;
        text += *text == ',';
    }
    return len;
}

static void print_acl(const char *path, const char *name)
{
    unsigned char got[1024];
    ssize_t len = lgetxattr(path, name, got, sizeof got);
    if (len < 0) {
        printf(" %s", strerrorname_np(errno));
        return;
    }
    printf(" [");
    for (ssize_t at = 4; at < len; at += 8) {
        uint16_t tag = got[at] | got[at + 1] << 8;
        uint32_t id;
        memcpy(&id, got + at + 4, 4);
        printf("%d:%d:%d ", tag, (int)id, got[at + 2]);
    }
    printf("]");
}

static void show(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0) {
        printf("    %s: %s\n", path, strerrorname_np(errno));
        return;
    }
    printf("    %s: %o", path, st.st_mode);
    print_acl(path, ACCESS);
    print_acl(path, DEFAULT);
    char names[256];
    printf(" %zd\n", llistxattr(path, names, sizeof names));
}

#define SET(path, name, text) (printf("%s ", text), SAY(setxattr(path, name, value, acl(text), 0)), show(path))

/* What a user in a group, and in another, may do with a file. */
static void who(const char *path, uid_t uid, gid_t gid, gid_t other)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(1, &other) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
            _exit(CANNOT);
        printf("    %s for %d in %d and %d:", path, uid, gid, other);
        for (int want = 0; want < 8; want++)
            printf(" %d", access(path, want));
        int in = open(path, O_RDONLY), out = open(path, O_WRONLY);
        printf(" %s %s\n", in < 0 ? "no" : "reads", out < 0 ? "no" : "writes");
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) == CANNOT)
        exit(CANNOT);
}

static void everybody(const char *path)
{
    static const int people[][3] = {{0, 0, 0}, {1000, 1000, 1000}, {9, 9, 9}, {8, 8, 8}, {8, 1000, 8}, {8, 7, 8}, {8, 8, 7},
        {8, 6, 7}, {8, 7, 1000}, {9, 7, 1000}};
    for (size_t i = 0; i < sizeof people / sizeof *people; i++)
        who(path, people[i][0], people[i][1], people[i][2]);
}

static void walk(const char *directory)
{
    if (chdir(directory) < 0 || chmod(".", 0755) < 0) {
        perror(directory);
        exit(1);
    }
    umask(022);
    close(open("f", O_CREAT | O_WRONLY, 0644));
    if (setxattr("f", ACCESS, value, acl("u::6,u:9:4,g::4,m::4,o::4"), 0) < 0 && errno == EOPNOTSUPP)
        exit(CANNOT);
    if (chown("f", 1000, 1000) < 0)
        exit(CANNOT);
    show("f");
    SET("f", ACCESS, "u::7,g::5,o::1");
    SET("f", ACCESS, "u::6,u:9:7,u:10:0,g::0,g:7:6,m::7,o::4");
    everybody("f");
    SAY(chmod("f", 0640));
    show("f");
    everybody("f");
    SAY(chmod("f", 04707));
    show("f");
    everybody("f");
    SET("f", ACCESS, "u::6,u:9:7,g::6,g:7:2,g:6:4,m::6,o::7");
    everybody("f");
    SET("f", ACCESS, "u::0,g::6,m::4,o::7");
    everybody("f");

    const char *wrong[] = {"u::7,o::7", "u::7,g::7", "g::7,u::7,o::7", "u::7,u:9:7,g::7,o::7", "u::7,g::7,o::7,m::7",
        "u::7,u::7,g::7,o::7", "u::10,g::7,o::7", "u::7,u:9:7,u:9:6,g::7,m::7,o::7", "u::7,g:7:7,g::7,m::7,o::7", "m::7",
        "u::7,g::7,g:7:7,m::7,m::7,o::7"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        SET("f", ACCESS, wrong[i]);
    size_t len = acl("u::7,g::7,o::7");
    SAY(setxattr("f", ACCESS, value, len - 1, 0));
    SAY(setxattr("f", ACCESS, value, 4, 0));
    show("f");
    SAY(setxattr("f", ACCESS, value, 0, 0));
    value[0] = 1;
    SAY(setxattr("f", ACCESS, value, len, 0));
    SAY(setxattr("f", ACCESS, value, 3, 0));
    SET("f", DEFAULT, "u::7,g::7,o::7");
    SAY(setxattr("f", DEFAULT, value, 0, 0));
    SET("f", ACCESS, "u::6,u:9:7,g::6,m::6,o::7");
    SAY(setxattr("f", ACCESS, value, acl("u::6,u:9:1,g::6,m::6,o::7"), XATTR_CREATE));
    SAY(removexattr("f", ACCESS));
    show("f");
    SAY(removexattr("f", ACCESS));
    SAY(removexattr("f", DEFAULT));
    SAY(setxattr("f", ACCESS, value, acl("u::6,u:9:1,g::6,m::6,o::7"), XATTR_REPLACE));
    symlink("f", "link");
    SAY(lsetxattr("link", ACCESS, value, acl("u::6,g::6,o::7"), 0));
    SAY(lsetxattr("link", DEFAULT, value, acl("u::6,g::6,o::7"), 0));
    SAY(lremovexattr("link", ACCESS));
    SAY(lgetxattr("link", ACCESS, value, sizeof value));

    mkdir("d", 0750);
    SET("d", DEFAULT, "u::7,g::7,o::5");
    umask(077);
    mkdir("d/plain", 0777);
    show("d/plain");
    close(open("d/file", O_CREAT | O_WRONLY, 0666));
    show("d/file");
    SET("d", DEFAULT, "u::7,u:9:6,g::5,g:7:7,m::7,o::0");
    mkdir("d/inner", 0777);
    show("d/inner");
    mkdir("d/inner/most", 02711);
    show("d/inner/most");
    close(open("d/second", O_CREAT | O_WRONLY, 0666));
    show("d/second");
    close(open("d/third", O_CREAT | O_WRONLY, 0700));
    show("d/third");
    mknod("d/fifo", S_IFIFO | 0620, 0);
    show("d/fifo");
    symlink("x", "d/link");
    show("d/link");
    chmod("d", 02770);
    chown("d", 0, 7);
    show("d");
    mkdir("d/group", 0700);
    show("d/group");
    SET("d", ACCESS, "u::7,u:9:1,g::7,m::3,o::0");
    everybody("d");
    everybody("d/second");
    SAY(removexattr("d", DEFAULT));
    mkdir("d/last", 0777);
    show("d/last");
    show("d");

    fflush(stdout);
    chown("f", 1000, 7);
    chmod("f", 02770);
    pid_t child = fork();
    if (child == 0) {
        setgroups(0, 0);
        setresgid(1000, 1000, 1000);
        setresuid(1000, 1000, 1000);
        SET("f", ACCESS, "u::7,g::7,o::5");
        SET("d", ACCESS, "u::7,g::7,o::5");
        SET("f", ACCESS, "u::7,u:9:1,g::7,m::7,o::5");
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, 0, 0);
    SET("f", ACCESS, "u::7,g::7,o::5");
    unlink("f");
    unlink("link");
}

int main(int argc, char **argv)
{
    setvbuf(stdout, 0, _IOLBF, 4096);
    if (geteuid() != 0)
        return CANNOT;
    for (int i = 1; i < argc; i++)
        walk(argv[i]);
    return 0;
}
