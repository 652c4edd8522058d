/* Mappings that grow, stay, are sealed, or cannot be made writable. Natively it takes a kernel with mseal(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "say.h"

#define PAGE 4096L
#define MSEAL 462

static long mseal_(void *addr, size_t len, unsigned long flags)
{
    return syscall(MSEAL, addr, len, flags);
}

/* What a mapping call gives, without its address. */
static void *gives(const char *what, void *at)
{
    printf("%s: %s\n", what, at == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    return at;
}

/* Whether a child survives an access. */
static void touches(const char *what, volatile char *at)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        *at = 1;
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("%s: %s %d\n", what, WIFEXITED(status) ? "exit" : "signal", WIFEXITED(status) ? 0 : WTERMSIG(status));
}

static char *anonymous(long pages, int flags)
{
    return mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static void growing(void)
{
    /* Room for it, with nothing near. */
    char *room = mmap(NULL, 2000 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    munmap(room, 2000 * PAGE);
    char *stack = mmap(room + 1500 * PAGE, PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    gives("a stack that grows", stack);
    touches("just below", stack - 1);
    touches("a hundred pages below", stack - 100 * PAGE);
    stack[-5 * PAGE] = 'x';
    printf("what was there and what came: %d %d\n", stack[-5 * PAGE], stack[0]);
    touches("above it", stack + PAGE);
    /* With something below, a gap is kept. */
    char *below = mmap(stack - 600 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    touches("with a gap of 300 pages", below + 301 * PAGE);
    touches("with a gap of 100 pages", below + 101 * PAGE);
    struct rlimit old, small = {64 * PAGE, RLIM_INFINITY};
    getrlimit(RLIMIT_STACK, &old);
    small.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_STACK, &small);
    touches("within the limit", stack - 50 * PAGE);
    touches("beyond the limit", stack - 70 * PAGE);
    setrlimit(RLIMIT_STACK, &old);
    SAY(mprotect(stack, PAGE, PROT_READ | PROT_GROWSDOWN));
    touches("read-only from its start", stack - 5 * PAGE);
    char *plain = anonymous(2, 0);
    SAY(mprotect(plain + PAGE, PAGE, PROT_READ | PROT_GROWSDOWN));
    SAY(mprotect(plain, PAGE, PROT_READ | PROT_GROWSUP));
    munmap(below, PAGE);
    munmap(stack - 5 * PAGE, 6 * PAGE);
}

static void moving(void)
{
    char *a = anonymous(4, 0);
    memset(a, 'a', 4 * PAGE);
    char *b = gives("left behind", mremap(a, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    printf("moved: %d, left: %d %d\n", b[3 * PAGE], a[0], a[3 * PAGE]);
    a[0] = 1;
    printf("apart: %d %d\n", a[0], b[0]);
    gives("a wish that is no page", mremap(b, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 123));
    gives("another length", mremap(b, 4 * PAGE, 5 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    gives("without moving", mremap(b, 4 * PAGE, 4 * PAGE, MREMAP_DONTUNMAP, NULL));
    char *place = anonymous(4, 0);
    char *c = gives("to a place", mremap(b, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, place));
    printf("there: %d, content %d, left %d\n", c == place, c[PAGE], b[PAGE]);

    char *s = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s[PAGE] = 's';
    char *t = gives("a second mapping", mremap(s, 0, 2 * PAGE, MREMAP_MAYMOVE));
    t[0] = 't';
    printf("the same: %d %d\n", t[PAGE], s[0]);
    gives("of private pages", mremap(a, 0, PAGE, MREMAP_MAYMOVE));
    gives("without moving", mremap(s, 0, PAGE, 0));
}

static void sealing(void)
{
    char *m = anonymous(6, 0);
    memset(m, 'm', 6 * PAGE);
    SAY(mseal_(m + 1, PAGE, 0));
    SAY(mseal_(m, PAGE, 1));
    SAY(mseal_(m, 0, 0));
    SAY(mseal_(m + 2 * PAGE, 2 * PAGE, 0));
    SAY(mseal_(m + 2 * PAGE, 2 * PAGE, 0));
    SAY(mprotect(m + 2 * PAGE, PAGE, PROT_READ));
    SAY(mprotect(m, PAGE, PROT_READ));
    SAY(mprotect(m, PAGE, PROT_READ | PROT_WRITE));
    SAY(munmap(m + 3 * PAGE, PAGE));
    SAY(munmap(m + 4 * PAGE, PAGE));
    gives("over it", mmap(m + 2 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    gives("shrunk", mremap(m + 2 * PAGE, 2 * PAGE, PAGE, 0));
    gives("moved", mremap(m + 2 * PAGE, PAGE, 3 * PAGE, MREMAP_MAYMOVE));
    SAY(madvise(m + 2 * PAGE, PAGE, MADV_DONTNEED));
    printf("content: %d\n", m[2 * PAGE]);
    char *r = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SAY(mseal_(r, PAGE, 0));
    SAY(madvise(r, PAGE, MADV_DONTNEED));
    SAY(madvise(r, PAGE, MADV_WILLNEED));
    munmap(m, PAGE);
    SAY(mseal_(m, 2 * PAGE, 0));
}

static void rights(const char *dir)
{
    chdir(dir);
    int fd = open("f", O_CREAT | O_RDWR | O_TRUNC, 0644);
    ftruncate(fd, 2 * PAGE);
    close(fd);
    fd = open("f", O_RDONLY);
    void *m = gives("shared, read", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0));
    SAY(mprotect(m, PAGE, PROT_READ | PROT_WRITE));
    gives("shared, write", mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    gives("validated", mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE, fd, 0));
    gives("validated, unknown flags", mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 1 << 6 << 14, fd, 0));
    gives("validated, anonymous", mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0));
    close(fd);
    fd = open("/dev/zero", O_RDONLY);
    m = gives("zeros", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0));
    SAY(mprotect(m, PAGE, PROT_WRITE));
    close(fd);
    fd = open("f", O_PATH);
    gives("a path", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd);
    unlink("f");
}

/* A file loses pages to who may write to it, and to nobody else; mappings see it. */
static void holes(void)
{
    char pages[2 * PAGE];
    memset(pages, 'h', sizeof pages);
    int fd = open("holes", O_CREAT | O_RDWR | O_TRUNC, 0644), reader = open("holes", O_RDONLY);
    SAY(write(fd, pages, sizeof pages) == sizeof pages);
    char *read_only = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, reader, 0);
    SAY(madvise(read_only, PAGE, MADV_REMOVE));
    SAY(madvise(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0), PAGE, MADV_REMOVE));
    printf("content: %d %d\n", read_only[0], read_only[PAGE]);
    SAY(madvise(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0), PAGE, MADV_REMOVE));
    SAY(pread(fd, pages, 1, 0));
    printf("content: %d %d, file: %d\n", read_only[0], read_only[PAGE], pages[0]);
    close(fd), close(reader);
    unlink("holes");
}

static void locking(void)
{
    struct rlimit r = {1 << 20, 1 << 20};
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        SAY(setrlimit(RLIMIT_MEMLOCK, &r));
        SAY(seteuid(1000));
        SAY(mlockall(MCL_FUTURE));
        gives("within the limit", anonymous(16, 0));
        gives("beyond the limit", anonymous(1000, 0));
        SAY(munlockall());
        gives("unlocked", anonymous(1000, 0));
        gives("locked, beyond", anonymous(1000, MAP_LOCKED));
        SAY(mlockall(MCL_ONFAULT));
        SAY(mlockall(0));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (mseal_(NULL, 0, 1) < 0 && errno == ENOSYS)
        return 77;
    growing();
    moving();
    sealing();
    locking();
    for (int i = 1; i < argc; i++) {
        rights(argv[i]);
        holes();
    }
    return 0;
}
