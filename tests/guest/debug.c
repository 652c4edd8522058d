/* ptrace(2), both sides of it: stops, registers, memory, events, who is told what. Prints what it sees; no numbers of processes.
   Stands down (77) where nobody may trace. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include "say.h"

#define REG(name) offsetof(struct user, regs.name)
/* Without the C library's wrapper, which hides what PEEK requests return. */
#define RAW(request, pid, addr, data) syscall(SYS_ptrace, (long)(request), (long)(pid), (long)(addr), (long)(data))

static long word_of(pid_t pid, long addr) {
    long word = 0;
    RAW(PTRACE_PEEKUSER, pid, addr, &word);
    return word;
}

static void tell(const char *what, int status) {
    if (WIFEXITED(status)) printf("%s: exited %d\n", what, WEXITSTATUS(status));
    else if (WIFSIGNALED(status)) printf("%s: killed by %d\n", what, WTERMSIG(status));
    else if (WIFCONTINUED(status)) printf("%s: continued\n", what);
    else printf("%s: stopped by %#x\n", what, status >> 8);
}

/* Waits for one child and tells how; 0 if there is none. */
static int await(const char *what, pid_t pid) {
    int status = 0;
    pid_t got = waitpid(pid, &status, __WALL);
    if (got < 0) {
        printf("%s: %s\n", what, strerrorname_np(errno));
        return 0;
    }
    tell(what, status);
    return status;
}

static pid_t start(void (*body)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        body();
        _exit(0);
    }
    return pid;
}

static void trace_me_and_stop(void) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
}

static void finish(pid_t pid) {
    kill(pid, SIGKILL);
    int status;
    while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) ptrace(PTRACE_CONT, pid, 0, 0);
}

/* The letter of a process's state, and whether it has a tracer. */
static void state(const char *what, pid_t pid) {
    char path[64], text[4096], *at;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    /* A process on its way to sleep has some time for it. */
    for (int tries = 0; tries < 100; tries++) {
        int file = open(path, O_RDONLY);
        ssize_t got = file < 0 ? 0 : read(file, text, sizeof text - 1);
        close(file);
        text[got < 0 ? 0 : got] = 0;
        at = strstr(text, "State:\t");
        if (!at || at[7] != 'R') break;
        usleep(10000);
    }
    char *tracer = strstr(text, "TracerPid:\t");
    printf("%s: %c, %s\n", what, at ? at[7] : '?', tracer && tracer[11] != '0' ? "traced" : "not traced");
}

static volatile long variable = 0x1122334455667788;

static void calls(void) {
    trace_me_and_stop();
    long a = syscall(SYS_getpid), b = syscall(SYS_getuid), c = syscall(SYS_getppid), d = syscall(SYS_close, -1);
    variable = a == 4711;
    _exit((a == 4711) + 2 * (b == 99) + 4 * (c == getpid()) + 8 * (d == -1 && errno == EBADF));
}

static void system_calls(void) {
    puts("system calls");
    pid_t pid = start(calls);
    await("first stop", pid);
    SAY(RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    for (int i = 0; i < 11; i++) {
        if (RAW(PTRACE_SYSCALL, pid, 0, 0) < 0) break;
        int status = await("call", pid);
        if (!WIFSTOPPED(status)) break;
        struct { __u8 op, pad[3]; __u32 arch; __u64 ip, sp, words[8]; } info;
        memset(&info, 0, sizeof info);
        long size = RAW(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
        long nr = word_of(pid, REG(orig_rax)), rax = word_of(pid, REG(rax)), message = -1;
        RAW(PTRACE_GETEVENTMSG, pid, 0, &message);
        int shown = nr != SYS_getpid && nr != SYS_getppid && nr != SYS_rt_sigprocmask;
        printf("  nr %ld, rax %ld, info %ld op %d arch %x, message %ld, rip %d rcx %d\n", nr,
               message == 1 || shown ? rax : 0, size, info.op, info.arch, message,
               info.ip == (unsigned long)word_of(pid, REG(rip)), word_of(pid, REG(rcx)) == word_of(pid, REG(rip)));
        siginfo_t about;
        SAY(RAW(PTRACE_GETSIGINFO, pid, 0, &about));
        printf("  signal %d, code %#x, from itself %d\n", about.si_signo, about.si_code, about.si_pid == pid);
        if (message == 1 && nr == SYS_getpid) {
            RAW(PTRACE_POKEUSER, pid, REG(orig_rax), -1L);
            RAW(PTRACE_POKEUSER, pid, REG(rax), 4711L);
        }
        if (message == 2 && nr == SYS_getuid) RAW(PTRACE_POKEUSER, pid, REG(rax), 99L);
        if (message == 1 && nr == SYS_getppid) RAW(PTRACE_POKEUSER, pid, REG(orig_rax), (long)SYS_getpid);
    }
    finish(pid);
}

static void results(void) {
    puts("results");
    pid_t pid = start(calls);
    await("first stop", pid);
    int status = 0;
    for (int i = 0; i < 40; i++) {
        RAW(PTRACE_SYSCALL, pid, 0, 0);
        waitpid(pid, &status, 0);
        if (!WIFSTOPPED(status)) break;
        long nr = word_of(pid, REG(orig_rax)), rax = word_of(pid, REG(rax));
        if (nr == SYS_getpid && rax == -ENOSYS) {
            RAW(PTRACE_POKEUSER, pid, REG(orig_rax), -1L);
            RAW(PTRACE_POKEUSER, pid, REG(rax), 4711L);
        }
        if (nr == SYS_getuid && rax != -ENOSYS) RAW(PTRACE_POKEUSER, pid, REG(rax), 99L);
        if (nr == SYS_getppid && rax == -ENOSYS) RAW(PTRACE_POKEUSER, pid, REG(orig_rax), (long)SYS_getpid);
    }
    tell("with changed calls", status);

    pid = start(calls);
    await("first stop", pid);
    SAY(RAW(31 /* PTRACE_SYSEMU */, pid, 0, 0));
    await("emulated", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    SAY(RAW(31, pid, 0, 0));
    await("emulated", pid);
    printf("nr %ld\n", word_of(pid, REG(orig_rax)));
    finish(pid);
}

static void memory_of(void) {
    puts("memory");
    pid_t pid = start(trace_me_and_stop);
    await("first stop", pid);
    long word = 0;
    SAY(RAW(PTRACE_PEEKDATA, pid, &variable, &word));
    printf("%lx\n", word);
    SAY(RAW(PTRACE_POKEDATA, pid, &variable, 0x99L));
    SAY(RAW(PTRACE_PEEKTEXT, pid, &variable, &word));
    printf("%lx, here %lx\n", word, variable);
    SAY(RAW(PTRACE_PEEKDATA, pid, (char *)&variable + 3, &word));
    SAY(RAW(PTRACE_PEEKDATA, pid, 0x10, &word));
    SAY(RAW(PTRACE_POKEDATA, pid, 0x10, 1));
    SAY(RAW(PTRACE_PEEKDATA, pid, -8L, &word));
    /* Nothing of the program's lies there, whatever else does. */
    SAY(RAW(PTRACE_PEEKDATA, pid, 0x600010000000, &word));
    SAY(RAW(PTRACE_POKEDATA, pid, 0x600010000000, 1));
    struct iovec into = {&word, 8}, from = {(void *)0x600010000000, 8};
    SAY(process_vm_readv(pid, &into, 1, &from, 1, 0));
    SAY(process_vm_writev(pid, &into, 1, &from, 1, 0));
    /* Text: not writable, but for a tracer, who gets a copy of its own. */
    long here = *(long *)&memory_of;
    SAY(RAW(PTRACE_PEEKTEXT, pid, &memory_of, &word));
    printf("same bytes: %d\n", word == here);
    SAY(RAW(PTRACE_POKETEXT, pid, &memory_of, ~here));
    SAY(RAW(PTRACE_PEEKTEXT, pid, &memory_of, &word));
    printf("changed there: %d, here: %d\n", word == ~here, *(long *)&memory_of != here);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int file = open(path, O_RDWR);
    SAY(pwrite(file, &here, sizeof here, (off_t)(unsigned long)&memory_of));
    SAY(pread(file, &word, sizeof word, (off_t)(unsigned long)&memory_of));
    printf("changed back: %d\n", word == here);
    SAY(pread(file, &word, sizeof word, 16));
    close(file);
    finish(pid);

    /* Pages that the tracee itself cannot touch, and shared ones that it may only read. */
    char *none = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(none, "hidden");
    strcpy(shared, "common");
    mprotect(none, 4096, PROT_NONE);
    pid = start(trace_me_and_stop);
    await("first stop", pid);
    SAY(RAW(PTRACE_PEEKDATA, pid, none, &word));
    printf("%.6s\n", (char *)&word);
    SAY(RAW(PTRACE_POKEDATA, pid, none, 0x41414141));
    SAY(RAW(PTRACE_PEEKDATA, pid, none, &word));
    printf("%.6s\n", (char *)&word);
    SAY(RAW(PTRACE_POKEDATA, pid, shared, 0x42424242));
    printf("%s\n", shared);
    finish(pid);
    mprotect(shared, 4096, PROT_READ);
    pid = start(trace_me_and_stop);
    await("first stop", pid);
    SAY(RAW(PTRACE_POKEDATA, pid, shared, 0x43434343));
    printf("%s\n", shared);
    finish(pid);
    munmap(none, 4096);
    munmap(shared, 4096);
}

static void user_area(void) {
    puts("struct user");
    pid_t pid = start(trace_me_and_stop);
    await("first stop", pid);
    for (long addr = 840; addr <= 936; addr += 8) {
        long word = 7;
        long result = RAW(PTRACE_PEEKUSER, pid, addr, &word);
        printf("%ld: %ld %s %lx\n", addr, result, result < 0 ? strerrorname_np(errno) : "", word);
    }
    long word;
    SAY(RAW(PTRACE_PEEKUSER, pid, 4, &word));
    SAY(RAW(PTRACE_PEEKUSER, pid, -8, &word));
    SAY(RAW(PTRACE_POKEUSER, pid, 400, 1));
    SAY(RAW(PTRACE_POKEUSER, pid, 912, 1));
    SAY(RAW(PTRACE_POKEUSER, pid, REG(cs), 0x10));
    SAY(RAW(PTRACE_POKEUSER, pid, REG(ss), 0));
    SAY(RAW(PTRACE_POKEUSER, pid, REG(fs_base), -1L));
    SAY(RAW(PTRACE_POKEUSER, pid, REG(rbx), 0x1234));
    long flags = word_of(pid, REG(eflags));
    SAY(RAW(PTRACE_POKEUSER, pid, REG(eflags), flags | 0x3000));
    printf("flags kept: %d, rbx %lx, cs %lx, ss %lx\n", word_of(pid, REG(eflags)) == flags, word_of(pid, REG(rbx)),
           word_of(pid, REG(cs)), word_of(pid, REG(ss)));
    struct user_regs_struct regs;
    struct iovec part = {&regs, 16}, odd = {&regs, 12}, all = {&regs, sizeof regs + 64};
    SAY(RAW(PTRACE_GETREGS, pid, 0, &regs));
    printf("rbx %llx, nr %lld\n", regs.rbx, regs.orig_rax);
    regs.r12 = 0x5678;
    SAY(RAW(PTRACE_SETREGS, pid, 0, &regs));
    SAY(RAW(PTRACE_GETREGSET, pid, NT_PRSTATUS, &all));
    printf("%zu bytes, r12 %llx\n", all.iov_len, regs.r12);
    SAY(RAW(PTRACE_GETREGSET, pid, NT_PRSTATUS, &part));
    SAY(RAW(PTRACE_GETREGSET, pid, NT_PRSTATUS, &odd));
    SAY(RAW(PTRACE_GETREGSET, pid, 0x7777, &all));
    regs.r15 = 15;
    regs.r14 = 14;
    part.iov_len = 8;
    SAY(RAW(PTRACE_SETREGSET, pid, NT_PRSTATUS, &part));
    printf("r15 %ld, r14 %d\n", word_of(pid, REG(r15)), word_of(pid, REG(r14)) == 14);
    SAY(RAW(PTRACE_GETREGS, pid, 0, 8));
    SAY(RAW(PTRACE_GETREGSET, pid, NT_PRSTATUS, 8));
    SAY(RAW(1234, pid, 0, 0));
    finish(pid);
}

static void floats(void) {
    double ten = 10, sum = 0;
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    asm volatile("movsd %2, %%xmm9\n syscall\n movsd %%xmm9, %0"
                 : "=m"(sum)
                 : "a"(SYS_kill), "m"(ten), "D"(getpid()), "S"(SIGSTOP)
                 : "rcx", "r11", "xmm9", "memory");
    _exit((int)sum);
}

static void float_registers(void) {
    puts("extended registers");
    pid_t pid = start(floats);
    await("first stop", pid);
    struct user_fpregs_struct fp;
    SAY(RAW(PTRACE_GETFPREGS, pid, 0, &fp));
    double value;
    memcpy(&value, &fp.xmm_space[9 * 4], 8);
    printf("xmm9 %g, mxcsr %x\n", value, fp.mxcsr);
    value = 33;
    memcpy(&fp.xmm_space[9 * 4], &value, 8);
    SAY(RAW(PTRACE_SETFPREGS, pid, 0, &fp));
    struct iovec set = {&fp, sizeof fp};
    SAY(RAW(PTRACE_GETREGSET, pid, NT_PRFPREG, &set));
    memcpy(&value, &fp.xmm_space[9 * 4], 8);
    printf("%zu bytes, xmm9 %g\n", set.iov_len, value);
    char area[16384];
    struct iovec state = {area, sizeof area};
    SAY(RAW(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &state));
    memcpy(&value, area + 160 + 9 * 16, 8);
    printf("long enough: %d, xmm9 %g\n", state.iov_len >= 576, value);
    value = 44;
    memcpy(area + 160 + 9 * 16, &value, 8);
    SAY(RAW(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &state));
    fp.mxcsr = 0xffffffff;
    SAY(RAW(PTRACE_SETFPREGS, pid, 0, &fp));
    RAW(PTRACE_CONT, pid, 0, 0);
    await("with another xmm9", pid);
}

static volatile sig_atomic_t handled;
static void handler(int sig) { handled = handled * 100 + sig; }

static void signalled(void) {
    signal(SIGUSR1, handler);
    signal(SIGUSR2, handler);
    signal(SIGTERM, SIG_IGN);
    trace_me_and_stop();
    raise(SIGUSR1);
    raise(SIGUSR1);
    raise(SIGUSR1);
    raise(SIGTERM);
    raise(SIGCHLD);
    _exit(handled % 251);
}

static void signals(void) {
    puts("signals");
    pid_t pid = start(signalled);
    await("first stop", pid);
    siginfo_t info;
    SAY(RAW(PTRACE_GETSIGINFO, pid, 0, &info));
    printf("signal %d, code %d\n", info.si_signo, info.si_code);
    SAY(RAW(PTRACE_CONT, pid, 0, 65));
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    await("USR1, to be dropped", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    await("USR1, to be USR2", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, SIGUSR2));
    await("USR1, to be itself", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, SIGUSR1));
    await("TERM, which is ignored", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, SIGTERM));
    await("CHLD", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, SIGCHLD));
    await("1210 % 251", pid);

    pid = start(signalled);
    await("first stop", pid);
    uint64_t mask = 0, own;
    SAY(RAW(PTRACE_GETSIGMASK, pid, 8, &mask));
    printf("mask %lx\n", mask);
    mask = 1 << (SIGUSR1 - 1);
    SAY(RAW(PTRACE_SETSIGMASK, pid, 8, &mask));
    SAY(RAW(PTRACE_GETSIGMASK, pid, 8, &own));
    SAY(RAW(PTRACE_GETSIGMASK, pid, 4, &own));
    printf("mask %lx\n", own);
    syscall(SYS_tgkill, pid, pid, SIGUSR1);
    kill(pid, SIGUSR1);
    siginfo_t queued[4];
    struct { __u64 off; __u32 flags; __s32 nr; } which = {0, 0, 4};
    SAY(RAW(PTRACE_PEEKSIGINFO, pid, &which, queued));
    printf("signal %d, code %d\n", queued[0].si_signo, queued[0].si_code);
    which.flags = 1;
    SAY(RAW(PTRACE_PEEKSIGINFO, pid, &which, queued));
    printf("signal %d, code %d\n", queued[0].si_signo, queued[0].si_code);
    which.flags = 2;
    SAY(RAW(PTRACE_PEEKSIGINFO, pid, &which, queued));
    RAW(PTRACE_CONT, pid, 0, SIGUSR2);
    await("TERM behind blocked ones", pid);
    info.si_signo = SIGUSR2;
    SAY(RAW(PTRACE_SETSIGINFO, pid, 0, &info));
    SAY(RAW(PTRACE_CONT, pid, 0, SIGKILL));
    await("given KILL", pid);
}

extern char step_begin[], step_call[], step_end[];
static void stepped(void) {
    trace_me_and_stop();
    asm volatile(".globl step_begin, step_call, step_end\n"
                 "int3\n step_begin: nop\n xor %%eax, %%eax\n mov $39, %%eax\n step_call: syscall\n nop\n nop\n step_end: nop\n"
                 ::: "rax", "rcx", "r11", "memory");
    raise(SIGUSR1);
    _exit(5);
}

static void steps(void) {
    puts("single steps");
    signal(SIGUSR1, handler);
    pid_t pid = start(stepped);
    await("first stop", pid);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("int3", pid);
    siginfo_t info;
    RAW(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("code %#x, at %ld\n", info.si_code, word_of(pid, REG(rip)) - (long)step_begin);
    for (int i = 0; i < 7; i++) {
        SAY(RAW(PTRACE_SINGLESTEP, pid, 0, 0));
        await("step", pid);
        RAW(PTRACE_GETSIGINFO, pid, 0, &info);
        printf("  code %#x, address %d, at %ld, flags %lx, nr %ld\n", info.si_code,
               (long)info.si_addr == word_of(pid, REG(rip)), word_of(pid, REG(rip)) - (long)step_begin,
               word_of(pid, REG(eflags)) & 0x100, word_of(pid, REG(orig_rax)));
    }
    /* Into a handler: the step ends at its first instruction. */
    RAW(PTRACE_CONT, pid, 0, 0);
    await("USR1", pid);
    SAY(RAW(PTRACE_SINGLESTEP, pid, 0, SIGUSR1));
    await("into the handler", pid);
    printf("at %ld\n", word_of(pid, REG(rip)) - (long)handler);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("end", pid);

    /* From a system call's beginning by a step, and a breakpoint of the tracer's. */
    pid = start(stepped);
    await("first stop", pid);
    long word, back;
    RAW(PTRACE_PEEKTEXT, pid, step_end, &word);
    SAY(RAW(PTRACE_POKETEXT, pid, step_end, (word & ~0xffL) | 0xcc));
    RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("int3", pid);
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    await("call", pid);
    SAY(RAW(PTRACE_SINGLESTEP, pid, 0, 0));
    await("behind it", pid);
    printf("at %ld\n", word_of(pid, REG(rip)) - (long)step_begin);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("breakpoint", pid);
    RAW(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("code %#x, at %ld, result right %d\n", info.si_code, word_of(pid, REG(rip)) - (long)step_end,
           word_of(pid, REG(rax)) == pid);
    SAY(RAW(PTRACE_POKETEXT, pid, step_end, word));
    RAW(PTRACE_PEEKTEXT, pid, step_end, &back);
    printf("as it was %d\n", back == word);
    RAW(PTRACE_POKEUSER, pid, REG(rip), step_end);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("USR1", pid);
    SAY(RAW(PTRACE_DETACH, pid, 0, 0));
    await("after the detach", pid);
    signal(SIGUSR1, SIG_DFL);
}

static int in_child(void *argument) {
    (void)argument;
    syscall(SYS_exit, 3);
    return 0;
}

static char child_stack[65536] __attribute__((aligned(16)));

static void makes_children(void) {
    trace_me_and_stop();
    if (fork() == 0) _exit(1);
    if (vfork() == 0) _exit(2);
    clone(in_child, child_stack + sizeof child_stack, CLONE_VM, NULL);
    wait(NULL);
    wait(NULL);
    waitpid(-1, NULL, __WCLONE);
    _exit(4);
}

#define EVENTS                                                                                                \
    (PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | \
     PTRACE_O_TRACEVFORKDONE)

static void events(void) {
    puts("events");
    pid_t pid = start(makes_children), child = 0;
    await("first stop", pid);
    SAY(RAW(PTRACE_SETOPTIONS, pid, 0, 0x1000));
    SAY(RAW(PTRACE_SETOPTIONS, pid, 0, EVENTS));
    for (int i = 0; i < 8; i++) {
        long message;
        RAW(PTRACE_CONT, pid, 0, 0);
        int status = 0;
        while (status = 0, waitpid(pid, &status, __WALL) == pid && status >> 8 == SIGCHLD) RAW(PTRACE_CONT, pid, 0, 0);
        tell("parent", status);
        if (!WIFSTOPPED(status)) break;
        SAY(RAW(PTRACE_GETEVENTMSG, pid, 0, &message));
        int event = status >> 16;
        if (event == PTRACE_EVENT_EXIT) printf("message %lx\n", message);
        if (event == PTRACE_EVENT_VFORK_DONE) printf("same child %d\n", message == child);
        if (event < 1 || event > 3) continue;
        child = message;
        printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
        await("child", child);
        state("child", child);
        siginfo_t info = {0};
        SAY(RAW(PTRACE_GETSIGINFO, child, 0, &info));
        printf("signal %d, code %d, rax %ld\n", info.si_signo, info.si_code, word_of(child, REG(rax)));
        RAW(PTRACE_CONT, child, 0, 0);
        await("child's end is near", child);
        RAW(PTRACE_GETEVENTMSG, child, 0, &message);
        printf("message %lx\n", message);
        RAW(PTRACE_CONT, child, 0, 0);
        await("child", child);
    }
    fflush(stdout);
}

static char *const arguments[] = {"debug", "again", NULL};
static void executes(void) {
    trace_me_and_stop();
    execv("/proc/self/exe", arguments);
    _exit(9);
}

static void executed(void) {
    puts("exec");
    pid_t pid = start(executes);
    await("first stop", pid);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("without the option", pid);
    siginfo_t info;
    RAW(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("code %d, from itself %d, nr %ld, rax %ld\n", info.si_code, info.si_pid == pid, word_of(pid, REG(orig_rax)),
           word_of(pid, REG(rax)));
    RAW(PTRACE_CONT, pid, 0, 0);
    await("end", pid);

    pid = start(executes);
    await("first stop", pid);
    RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("with it", pid);
    long message;
    RAW(PTRACE_GETEVENTMSG, pid, 0, &message);
    printf("itself %d, nr %ld, rax %ld, rbx %lx\n", message == pid, word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)),
           word_of(pid, REG(rbx)));
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    await("the call is over", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    RAW(PTRACE_CONT, pid, 0, 0);
    await("end", pid);
}

static void sleeps(void) {
    /* Hosts that let only parents trace, let others by request. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    for (;;) pause();
}

static void seized(void) {
    puts("seize");
    pid_t pid = start(sleeps);
    state("sleeps", pid);
    SAY(RAW(PTRACE_SEIZE, pid, 8, 0));
    SAY(RAW(PTRACE_SEIZE, pid, 0, 0x1000));
    SAY(RAW(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    SAY(RAW(PTRACE_SEIZE, pid, 0, 0));
    state("seized", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    SAY(RAW(PTRACE_LISTEN, pid, 0, 0));
    SAY(RAW(PTRACE_INTERRUPT, pid, 0, 0));
    await("interrupted", pid);
    state("interrupted", pid);
    siginfo_t info;
    SAY(RAW(PTRACE_GETSIGINFO, pid, 0, &info));
    printf("signal %d, code %#x, rax %ld\n", info.si_signo, info.si_code, word_of(pid, REG(rax)));
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    kill(pid, SIGSTOP);
    await("STOP", pid);
    SAY(RAW(PTRACE_LISTEN, pid, 0, 0));
    SAY(RAW(PTRACE_CONT, pid, 0, SIGSTOP));
    await("group-stop", pid);
    SAY(RAW(PTRACE_LISTEN, pid, 0, 0));
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    SAY(waitpid(pid, NULL, WNOHANG | __WALL));
    state("listening", pid);
    kill(pid, SIGCONT);
    await("the stop ends", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    await("CONT", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, SIGCONT));
    SAY(RAW(PTRACE_INTERRUPT, pid, 0, 0));
    await("interrupted", pid);
    kill(pid, SIGCONT);
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    await("told of CONT", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    await("CONT itself", pid);
    SAY(RAW(PTRACE_DETACH, pid, 0, SIGTERM));
    await("TERM at the detach", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
}

static void attached(void) {
    puts("attach");
    long word;
    SAY(RAW(PTRACE_ATTACH, getpid(), 0, 0));
    SAY(RAW(PTRACE_ATTACH, -1, 0, 0));
    SAY(RAW(PTRACE_PEEKDATA, getppid(), &variable, &word));
    pid_t pid = start(sleeps);
    state("sleeps", pid);
    SAY(RAW(PTRACE_PEEKDATA, pid, &variable, &word));
    SAY(RAW(PTRACE_ATTACH, pid, 0, 0));
    SAY(RAW(PTRACE_ATTACH, pid, 0, 0));
    await("attached", pid);
    state("attached", pid);
    SAY(RAW(PTRACE_LISTEN, pid, 0, 0));
    SAY(RAW(PTRACE_INTERRUPT, pid, 0, 0));
    SAY(RAW(PTRACE_PEEKDATA, pid, &variable, &word));
    printf("rax %ld\n", word_of(pid, REG(rax)));
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    SAY(RAW(PTRACE_PEEKDATA, pid, &variable, &word));
    kill(pid, SIGSTOP);
    await("STOP", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, SIGSTOP));
    await("group-stop", pid);
    siginfo_t info;
    SAY(RAW(PTRACE_GETSIGINFO, pid, 0, &info));
    state("group-stop", pid);
    SAY(RAW(PTRACE_DETACH, pid, 0, 0));
    state("detached, still stopped", pid);
    SAY(waitpid(pid, NULL, WNOHANG));
    /* To a stopped process. */
    SAY(RAW(PTRACE_ATTACH, pid, 0, 0));
    await("attached to it", pid);
    state("attached to it", pid);
    SAY(RAW(PTRACE_CONT, pid, 0, 0));
    await("the attach's own STOP", pid);
    SAY(RAW(PTRACE_DETACH, pid, 0, 0));
    state("detached, stopped", pid);
    kill(pid, SIGCONT);
    int status;
    waitpid(pid, &status, WCONTINUED);
    tell("CONT", status);
    state("continued", pid);
    SAY(RAW(PTRACE_SEIZE, pid, 0, 0));
    SAY(RAW(PTRACE_KILL, pid, 0, 0));
    await("killed", pid);
    SAY(RAW(PTRACE_KILL, pid, 0, 0));

    pid = start(sleeps);
    RAW(PTRACE_ATTACH, pid, 0, 0);
    siginfo_t seen = {0};
    SAY(waitid(P_PID, pid, &seen, WEXITED | WNOWAIT));
    printf("code %d, status %d\n", seen.si_code, seen.si_status);
    SAY(waitid(P_PID, pid, &seen, WSTOPPED));
    printf("code %d, status %d\n", seen.si_code, seen.si_status);
    SAY(waitid(P_PID, pid, &seen, WSTOPPED | WNOHANG));
    kill(pid, SIGKILL);
    await("killed while stopped", pid);
}

/* A tracer that is no parent. Steps are handed back and forth through pipes. */
static int there[2], back[2];

static void hand(int *ends) { write(ends[1], "", 1); }
static void take(int *ends) {
    char byte;
    read(ends[0], &byte, 1);
}

static void foreign(int exits_first) {
    fflush(stdout);
    pipe(there);
    pipe(back);
    pid_t pid = start(sleeps), tracer = fork();
    int status;
    if (tracer == 0) {
        SAY(RAW(PTRACE_ATTACH, pid, 0, 0));
        await("tracer", pid);
        RAW(PTRACE_SETOPTIONS, pid, 0, exits_first == 2 ? PTRACE_O_EXITKILL : 0);
        fflush(stdout);
        hand(back);
        if (exits_first) {
            take(there);
            _exit(0);
        }
        await("tracer", pid);
        fflush(stdout);
        hand(back);
        take(there);
        _exit(0);
    }
    take(back);
    SAY(waitpid(pid, &status, WNOHANG | WUNTRACED));
    state("traced by another", pid);
    fflush(stdout);
    if (exits_first) {
        hand(there);
        waitpid(tracer, NULL, 0);
        if (exits_first == 1) {
            state("its tracer is gone", pid);
            kill(pid, SIGTERM);
        }
        await("parent", pid);
    } else {
        kill(pid, SIGKILL);
        take(back);
        fflush(stdout);
        await("parent, after the tracer", pid);
        hand(there);
        waitpid(tracer, NULL, 0);
    }
    for (int i = 0; i < 2; i++) close(there[i]), close(back[i]);
}

static void others(void) {
    puts("a tracer that is no parent");
    foreign(0);
    foreign(1);
    foreign(2);
}

static int go[2];
static void *thread(void *argument) {
    (void)argument;
    take(go);
    syscall(SYS_exit, 7);
    return NULL;
}

static void threaded(void) {
    pthread_t ids[2];
    for (int i = 0; i < 2; i++) pthread_create(&ids[i], NULL, thread, NULL);
    hand(back);
    sleeps();
}

static void threads(void) {
    puts("threads");
    pipe(go);
    pipe(back);
    pid_t pid = start(threaded), ids[3] = {pid};
    take(back);
    /* Their numbers follow the process's own. */
    char path[64];
    int found = 1;
    for (pid_t id = pid + 1; id < pid + 200 && found < 3; id++) {
        snprintf(path, sizeof path, "/proc/%d/task/%d", pid, id);
        if (access(path, F_OK) == 0) ids[found++] = id;
    }
    for (int i = 0; i < 3; i++) {
        SAY(RAW(PTRACE_SEIZE, ids[i], 0, PTRACE_O_TRACEEXIT));
        SAY(RAW(PTRACE_INTERRUPT, ids[i], 0, 0));
        await("thread", ids[i]);
    }
    for (int i = 0; i < 3; i++) RAW(PTRACE_CONT, ids[i], 0, 0);
    hand(go);
    int status;
    pid_t which = waitpid(-1, &status, __WALL);
    tell("the thread that got it", status);
    long message;
    RAW(PTRACE_GETEVENTMSG, which, 0, &message);
    printf("message %lx, first %d\n", message, which == pid);
    RAW(PTRACE_CONT, which, 0, 0);
    await("its end", which);
    await("once more", which);
    kill(pid, SIGSTOP);
    int stops[16] = {0}, count = 0;
    for (int i = 0; i < 3; i++) {
        which = waitpid(-1, &status, __WALL);
        stops[count++] = status;
        RAW(PTRACE_CONT, which, 0, status >> 16 == 0 ? WSTOPSIG(status) : 0);
    }
    int signals = 0, groups = 0;
    for (int i = 0; i < count; i++) stops[i] >> 16 == PTRACE_EVENT_STOP ? groups++ : signals++;
    printf("%d signal, %d group\n", signals, groups);
    kill(pid, SIGKILL);
    int ends = 0;
    while ((which = waitpid(-1, &status, __WALL)) > 0) {
        if (WIFSTOPPED(status)) RAW(PTRACE_CONT, which, 0, 0);
        else ends++;
    }
    printf("%d ends\n", ends);
    for (int i = 0; i < 2; i++) close(go[i]), close(back[i]);
}

static volatile int children_told;
static siginfo_t last_told;
static void told(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    last_told = *info;
    children_told++;
}

static void notices(void) {
    puts("SIGCHLD");
    struct sigaction action = {.sa_sigaction = told, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGCHLD, &action, NULL);
    pid_t pid = start(trace_me_and_stop);
    while (!children_told) usleep(1000);
    printf("code %d, status %d, %d\n", last_told.si_code, last_told.si_status, last_told.si_pid == pid);
    await("stop", pid);
    children_told = 0;
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    while (!children_told) usleep(1000);
    printf("code %d, status %d\n", last_told.si_code, last_told.si_status);
    children_told = 0;
    kill(pid, SIGKILL);
    while (!children_told) usleep(1000);
    printf("code %d, status %d\n", last_told.si_code, last_told.si_status);
    await("end", pid);
    signal(SIGCHLD, SIG_DFL);
}

static void interrupted_read(void) {
    puts("a call that is interrupted");
    pipe(go);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        _exit(read(go[0], &byte, 1) == 1 ? byte : 99);
    }
    RAW(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD);
    state("reads", pid);
    RAW(PTRACE_INTERRUPT, pid, 0, 0);
    await("interrupted", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    await("begins again", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    state("reads", pid);
    kill(pid, SIGWINCH);
    await("its end", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    RAW(PTRACE_CONT, pid, 0, 0);
    await("WINCH", pid);
    RAW(PTRACE_CONT, pid, 0, 0);
    write(go[1], "*", 1);
    await("end", pid);
    close(go[0]);
    close(go[1]);
}

/* The thread that calls execve becomes the process's first. */
static void *execs(void *argument) {
    (void)argument;
    take(go);
    execv("/proc/self/exe", arguments);
    return NULL;
}

static void threaded_exec(void) {
    pthread_t id;
    trace_me_and_stop();
    pthread_create(&id, NULL, execs, NULL);
    for (;;) pause();
}

static void exec_by_thread(int leader_too) {
    pipe(go);
    pid_t pid = start(threaded_exec), other = 0;
    await("first stop", pid);
    RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("clone", pid);
    long message = 0;
    RAW(PTRACE_GETEVENTMSG, pid, 0, &message);
    other = message;
    await("thread", other);
    if (!leader_too) RAW(PTRACE_DETACH, pid, 0, 0);
    else RAW(PTRACE_CONT, pid, 0, 0);
    RAW(PTRACE_CONT, other, 0, 0);
    hand(go);
    for (int status;;) {
        pid_t got = waitpid(-1, &status, __WALL);
        if (got < 0) break;
        printf("%s", got == pid ? "first" : got == other ? "other" : "?");
        tell("", status);
        if (!WIFSTOPPED(status)) continue;
        if (status >> 16 == PTRACE_EVENT_EXEC) {
            RAW(PTRACE_GETEVENTMSG, got, 0, &message);
            printf("was the other %d\n", message == other);
        }
        RAW(PTRACE_CONT, got, 0, 0);
    }
    SAY(RAW(PTRACE_CONT, other, 0, 0));
    close(go[0]);
    close(go[1]);
}

/* The first thread ends before the others. */
static void *lasts(void *argument) {
    (void)argument;
    take(go);
    _exit(8);
}

static void leader_ends(void) {
    pthread_t id;
    trace_me_and_stop();
    pthread_create(&id, NULL, lasts, NULL);
    syscall(SYS_exit, 2);
}

static void first_thread_ends(void) {
    pipe(go);
    pid_t pid = start(leader_ends);
    await("first stop", pid);
    RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("its end", pid);
    long message;
    RAW(PTRACE_GETEVENTMSG, pid, 0, &message);
    printf("message %lx\n", message);
    RAW(PTRACE_CONT, pid, 0, 0);
    usleep(50000);
    SAY(waitpid(pid, NULL, WNOHANG | __WALL));
    hand(go);
    await("all", pid);
    close(go[0]);
    close(go[1]);
}

static pid_t traced_by_first;
static void *another(void *argument) {
    (void)argument;
    long word;
    SAY(RAW(PTRACE_PEEKDATA, traced_by_first, &variable, &word));
    SAY(RAW(PTRACE_CONT, traced_by_first, 0, 0));
    SAY(waitpid(traced_by_first, NULL, __WALL | __WNOTHREAD | WNOHANG));
    await("waited for by another thread", traced_by_first);
    return NULL;
}

static void ends_soon(void *argument) { *(int *)argument = 1; }
static void *attaches(void *argument) {
    SAY(RAW(PTRACE_SEIZE, traced_by_first, 0, 0));
    ends_soon(argument);
    return NULL;
}

static void tracing_threads(void) {
    puts("threads that trace");
    pthread_t id;
    traced_by_first = start(trace_me_and_stop);
    siginfo_t info;
    waitid(P_PID, traced_by_first, &info, WSTOPPED | WNOWAIT);
    pthread_create(&id, NULL, another, NULL);
    pthread_join(id, NULL);
    finish(traced_by_first);
    traced_by_first = start(sleeps);
    int done = 0;
    state("sleeps", traced_by_first);
    pthread_create(&id, NULL, attaches, &done);
    pthread_join(id, NULL);
    usleep(20000);
    state("its tracing thread is gone", traced_by_first);
    finish(traced_by_first);
}

static void naps(void) {
    struct timespec time = {1, 0};
    _exit(nanosleep(&time, NULL) == 0 ? 3 : 4);
}

static void restarted_sleep(void) {
    pid_t pid = start(naps);
    state("naps", pid);
    RAW(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD);
    RAW(PTRACE_INTERRUPT, pid, 0, 0);
    await("a nap, interrupted", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    await("goes on", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    await("is over", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    RAW(PTRACE_CONT, pid, 0, 0);
    await("end", pid);
    /* As debuggers do that call functions: no restart. */
    pid = start(naps);
    state("naps", pid);
    RAW(PTRACE_SEIZE, pid, 0, 0);
    RAW(PTRACE_INTERRUPT, pid, 0, 0);
    await("a nap, interrupted", pid);
    RAW(PTRACE_POKEUSER, pid, REG(orig_rax), -1L);
    RAW(PTRACE_POKEUSER, pid, REG(rax), -EINTR);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("with a result of the tracer's", pid);
}

static void handles(void) {
    signal(SIGUSR1, handler);
    trace_me_and_stop();
    raise(SIGUSR1);
    _exit(0);
}

static void way_back(void) {
    pid_t pid = start(handles);
    await("first stop", pid);
    RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("USR1", pid);
    RAW(PTRACE_SYSCALL, pid, 0, SIGUSR1);
    await("sigreturn", pid);
    printf("nr %ld\n", word_of(pid, REG(orig_rax)));
    RAW(PTRACE_SYSCALL, pid, 0, 0);
    await("its end", pid);
    printf("nr %ld, rax %ld\n", word_of(pid, REG(orig_rax)), word_of(pid, REG(rax)));
    /* A SIGKILL comes to an end's stop, which another one does not end. */
    RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT);
    kill(pid, SIGKILL);
    await("killed", pid);
    long message;
    SAY(RAW(PTRACE_GETEVENTMSG, pid, 0, &message));
    printf("message %lx\n", message);
    kill(pid, SIGKILL);
    state("killed again", pid);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("end", pid);
}

static void untraced_child(void) {
    trace_me_and_stop();
    pid_t pid = syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(1);
    waitpid(pid, NULL, 0);
    pid = syscall(SYS_clone, CLONE_PTRACE | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(2);
    waitpid(pid, NULL, 0);
    _exit(0);
}

static void clone_flags(void) {
    pid_t pid = start(untraced_child);
    await("first stop", pid);
    RAW(PTRACE_CONT, pid, 0, 0);
    for (int i = 0, status; i < 12; i++) {
        pid_t got = waitpid(-1, &status, __WALL);
        if (got < 0) break;
        tell(got == pid ? "parent" : "child", status);
        if (WIFSTOPPED(status)) RAW(PTRACE_CONT, got, 0, status >> 8 == SIGSTOP ? 0 : status >> 8);
    }
}

/* The real parent of a tracee that another process stops and lets go on. */
static void stopped_elsewhere(void) {
    fflush(stdout);
    pipe(there);
    pipe(back);
    pid_t pid = start(sleeps), tracer = fork();
    if (tracer == 0) {
        RAW(PTRACE_SEIZE, pid, 0, 0);
        hand(back);
        await("tracer", pid);
        RAW(PTRACE_CONT, pid, 0, SIGSTOP);
        await("tracer", pid);
        fflush(stdout);
        RAW(PTRACE_LISTEN, pid, 0, 0);
        hand(back);
        await("tracer", pid);
        RAW(PTRACE_CONT, pid, 0, 0);
        await("tracer", pid);
        RAW(PTRACE_CONT, pid, 0, SIGCONT);
        fflush(stdout);
        hand(back);
        take(there);
        _exit(0);
    }
    int status;
    take(back);
    kill(pid, SIGSTOP);
    take(back);
    waitpid(pid, &status, WUNTRACED);
    tell("parent", status);
    state("stopped for both", pid);
    fflush(stdout);
    kill(pid, SIGCONT);
    take(back);
    waitpid(pid, &status, WCONTINUED);
    tell("parent", status);
    hand(there);
    waitpid(tracer, NULL, 0);
    finish(pid);
    for (int i = 0; i < 2; i++) close(there[i]), close(back[i]);
}

/* A call to which a jump leads, made twice; the second one sleeps. */
extern char twice[];
static void calls_twice(void) {
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    asm volatile(".globl twice\n mov $39, %%eax\n jmp 1f\n .balign 16\n 0: mov $34, %%eax\n 1: nop\n twice: syscall\n"
                 "nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n jmp 0b\n" ::: "rax", "rcx", "r11", "memory");
}

static void place_of_a_call(void) {
    puts("where a call is made");
    pid_t pid = start(calls_twice);
    state("sleeps", pid);
    RAW(PTRACE_SEIZE, pid, 0, 0);
    RAW(PTRACE_INTERRUPT, pid, 0, 0);
    await("interrupted", pid);
    long word = 0;
    RAW(PTRACE_PEEKTEXT, pid, twice, &word);
    printf("at %ld, code %lx, here %lx\n", word_of(pid, REG(rip)) - (long)twice, word, *(long *)twice);
    RAW(PTRACE_POKEUSER, pid, REG(orig_rax), -1L);
    RAW(PTRACE_POKEUSER, pid, REG(rax), 0L);
    RAW(PTRACE_POKETEXT, pid, twice + 4, 0xcc);
    for (int i = 0; i < 3; i++) {
        RAW(PTRACE_SINGLESTEP, pid, 0, 0);
        await("step", pid);
        printf("at %ld\n", word_of(pid, REG(rip)) - (long)twice);
    }
    RAW(PTRACE_POKETEXT, pid, twice + 4, *(long *)(twice + 4));
    RAW(PTRACE_CONT, pid, 0, 0);
    state("sleeps again", pid);
    RAW(PTRACE_INTERRUPT, pid, 0, 0);
    await("interrupted", pid);
    printf("at %ld\n", word_of(pid, REG(rip)) - (long)twice);
    finish(pid);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "again") == 0) return 6;
    pid_t first = start(trace_me_and_stop);
    int status;
    if (waitpid(first, &status, WUNTRACED) < 0 || RAW(PTRACE_SETOPTIONS, first, 0, 0) < 0) return 77;
    finish(first);
    system_calls();
    results();
    memory_of();
    user_area();
    float_registers();
    signals();
    steps();
    events();
    executed();
    seized();
    attached();
    others();
    threads();
    notices();
    interrupted_read();
    place_of_a_call();
    puts("execve by a thread");
    exec_by_thread(0);
    exec_by_thread(1);
    puts("a first thread that ends first");
    first_thread_ends();
    tracing_threads();
    puts("sleep");
    restarted_sleep();
    puts("signals and ends");
    way_back();
    puts("clone's flags");
    clone_flags();
    puts("stopped by another");
    stopped_elsewhere();
    return 0;
}
