/* Core files: when there is one, what it is, and whether debuggers would find in it what they look for. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "say.h"

static char secret[] = "what the core file is to have";
static void *heap;

/* Ends a child by a signal, with a limit for its core file; prints how it ended. */
static pid_t crash(const char *what, int signo, rlim_t limit, void (*first)(void))
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit r = {limit, RLIM_INFINITY};
        setrlimit(RLIMIT_CORE, &r);
        if (first)
            first();
        raise(signo);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("%s: signal %d, core %d\n", what, WTERMSIG(status), !!WCOREDUMP(status));
    return child;
}

static void *whole(size_t *size)
{
    struct stat st;
    if (lstat("core", &st) < 0) {
        printf("no core file\n");
        return NULL;
    }
    printf("core: mode %o, links %d\n", st.st_mode, (int)st.st_nlink);
    *size = st.st_size;
    char *bytes = malloc(st.st_size);
    int fd = open("core", O_RDONLY);
    for (size_t done = 0; done < *size;) {
        ssize_t n = read(fd, bytes + done, *size - done);
        if (n <= 0)
            break;
        done += n;
    }
    close(fd);
    return bytes;
}

/* Looks an address up in the core file's memory. */
static char *at(char *core, size_t size, void *address)
{
    Elf64_Ehdr *header = (Elf64_Ehdr *)core;
    Elf64_Phdr *p = (Elf64_Phdr *)(core + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++) {
        unsigned long in = (unsigned long)address - p[i].p_vaddr;
        if (p[i].p_type == PT_LOAD && (unsigned long)address >= p[i].p_vaddr && in < p[i].p_filesz &&
            p[i].p_offset + in < size)
            return core + p[i].p_offset + in;
    }
    return NULL;
}

static void look(pid_t child, int signo)
{
    size_t size = 0;
    char *core = whole(&size);
    if (!core)
        return;
    Elf64_Ehdr *header = (Elf64_Ehdr *)core;
    printf("ELF %d, type %d, machine %d\n", !memcmp(core, ELFMAG, SELFMAG), header->e_type, header->e_machine);
    char *found = at(core, size, secret);
    printf("data: %s\n", found ? found : "none");
    found = at(core, size, heap);
    printf("heap: %s\n", found ? found : "none");
    Elf64_Phdr *p = (Elf64_Phdr *)(core + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++) {
        if (p[i].p_type != PT_NOTE)
            continue;
        for (size_t done = 0; done + sizeof(Elf64_Nhdr) <= p[i].p_filesz;) {
            Elf64_Nhdr *note = (Elf64_Nhdr *)(core + p[i].p_offset + done);
            char *name = (char *)(note + 1), *body = name + (note->n_namesz + 3 & ~3);
            done += body - (char *)note + (note->n_descsz + 3 & ~3);
            if (note->n_type == NT_PRSTATUS) {
                struct elf_prstatus *s = (void *)body;
                printf("status: %d bytes, signal %d, me %d, parent %d, stack %s\n", note->n_descsz, s->pr_cursig,
                       s->pr_pid == child, s->pr_ppid == getpid(), at(core, size, (void *)s->pr_reg[19]) ? "there" : "none");
            } else if (note->n_type == NT_PRPSINFO) {
                struct elf_prpsinfo *s = (void *)body;
                printf("process: %d bytes, %s, me %d\n", note->n_descsz, s->pr_fname, s->pr_pid == child);
            } else if (note->n_type == NT_SIGINFO) {
                printf("siginfo: %d bytes, signal %d\n", note->n_descsz, ((siginfo_t *)body)->si_signo);
            } else if (note->n_type == NT_FPREGSET) {
                printf("floating point: %d bytes\n", note->n_descsz);
            } else if (note->n_type == NT_AUXV || note->n_type == NT_FILE) {
                printf("note %x of %s\n", note->n_type, name);
            }
        }
    }
    free(core);
    (void)signo;
}

static void undumpable(void)
{
    prctl(PR_SET_DUMPABLE, 0);
}

static void elsewhere(void)
{
    chdir("/nonexistent");
    chdir("sub");
}

static void null_access(void)
{
    *(volatile int *)8 = 1;
}

int main(int argc, char **argv)
{
    char pattern[100] = "";
    int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY);
    read(fd, pattern, sizeof pattern - 1);
    close(fd);
    int with_pid = 0;
    fd = open("/proc/sys/kernel/core_uses_pid", O_RDONLY);
    read(fd, &with_pid, 1);
    close(fd);
    if (strcmp(pattern, "core\n") || with_pid != '0')
        return 77;
    umask(022);
    for (int i = 1; i < argc; i++) {
        printf("in directory %d\n", i);
        chdir(argv[i]);
        heap = strcpy(malloc(100), "in the heap as well");
        pid_t child = crash("no limit", SIGABRT, RLIM_INFINITY, NULL);
        look(child, SIGABRT);
        unlink("core");
        child = crash("a fault", SIGKILL, RLIM_INFINITY, null_access);
        look(child, SIGSEGV);
        /* It is written over. */
        crash("again", SIGQUIT, RLIM_INFINITY, NULL);
        unlink("core");
        crash("limit 0", SIGABRT, 0, NULL);
        SAY(access("core", F_OK));
        crash("no signal for it", SIGTERM, RLIM_INFINITY, NULL);
        SAY(access("core", F_OK));
        crash("not dumpable", SIGABRT, RLIM_INFINITY, undumpable);
        SAY(access("core", F_OK));
        struct stat st;
        crash("a small limit", SIGABRT, 16384, NULL);
        SAY(stat("core", &st));
        printf("not larger: %d\n", st.st_size <= 16384);
        unlink("core");
        mkdir("sub", 0755);
        crash("elsewhere", SIGABRT, RLIM_INFINITY, elsewhere);
        SAY(access("core", F_OK));
        SAY(access("sub/core", F_OK));
        unlink("sub/core");
        rmdir("sub");
        /* What is in its place. */
        close(open("victim", O_CREAT | O_RDWR, 0600));
        SAY(symlink("victim", "core"));
        crash("a link in its place", SIGABRT, RLIM_INFINITY, NULL);
        SAY(stat("victim", &st));
        printf("%ld bytes\n", (long)st.st_size);
        unlink("core");
        SAY(link("victim", "core"));
        crash("two names", SIGABRT, RLIM_INFINITY, NULL);
        unlink("core");
        SAY(chmod("victim", 0644));
        SAY(rename("victim", "core"));
        crash("readable by others", SIGABRT, RLIM_INFINITY, NULL);
        SAY(stat("core", &st));
        printf("written: %d\n", st.st_size > 4096);
        unlink("core");
        SAY(mkfifo("core", 0600));
        crash("a FIFO", SIGABRT, RLIM_INFINITY, NULL);
        unlink("core");
    }
    return 0;
}
