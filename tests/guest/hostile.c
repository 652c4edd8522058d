// Guest programs that mean harm, or do what no compiler would make of a program. Each part runs in a process of its own and prints
// what became of it; `hostile all` runs those that must leave a machine whole on every platform, `hostile NAME` any one.
#define _GNU_SOURCE
#include <cpuid.h>
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

// Where the `direct` platform keeps what is its own: image, private words, kernel state, patches, trampolines.
static const uint64_t kernel_ranges[] = {0x600000000000, 0x600040000000, 0x600100000000, 0x600110000000,
                                         0x600200000000, 0x604000000000, 0x7e0000000000, 0x20000};
#define RANGES (sizeof kernel_ranges / sizeof *kernel_ranges)

#define say(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))

static volatile int signals, wrong;
static sigjmp_buf back;
static void count(int sig) { signals++; (void)sig; }
static void jump_back(int sig) { siglongjmp(back, sig); }

// Whether an access to an address faults.
static __attribute__((noinline)) int faults(int writing, uint64_t at) {
    int sig = sigsetjmp(back, 1);
    if (sig) return sig;
    signal(SIGSEGV, jump_back);
    signal(SIGBUS, jump_back);
    if (writing) *(volatile char *)at = 1; else (void)*(volatile char *)at;
    return 0;
}

static int status_of(void (*body)(void)) {
    fflush(stdout);
    int pid = fork();
    if (pid == 0) { body(); fflush(stdout); _exit(0); }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

// Machine code at work: `mov nr, %eax; syscall; ret` and stranger forms, made at run time, changed and run again.
static void generated_code(void) {
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const unsigned char plain[] = {0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3};
    // push imm32; pop rax; syscall; ret
    static const unsigned char pushed[] = {0x68, 0, 0, 0, 0, 0x58, 0x0f, 0x05, 0xc3};
    // xor eax, eax; mov al, imm8; jmp +0; syscall; ret
    static const unsigned char jumped[] = {0x31, 0xc0, 0xb0, 0, 0xeb, 0, 0x0f, 0x05, 0xc3};
    struct { const unsigned char *code; size_t len, nr; } forms[] = {{plain, sizeof plain, 1}, {pushed, sizeof pushed, 1}, {jumped, sizeof jumped, 3}};
    int numbers[] = {SYS_getpid, SYS_getppid, SYS_gettid, SYS_getuid};
    long right[] = {getpid(), getppid(), gettid(), getuid()};
    int bad = 0;
    for (int round = 0; round < 3000; round++) {
        int f = round % 3, n = round / 3 % 4, at = round * 7 % 3000;
        memcpy(page + at, forms[f].code, forms[f].len);
        page[at + forms[f].nr] = numbers[n];
        bad += ((long (*)(void))(page + at))() != right[n];
    }
    // Write, or execute, but not both; many calls from one site; a number that changes under the site.
    memcpy(page, plain, sizeof plain);
    for (int n = 0; n < 4; n++) {
        mprotect(page, 4096, PROT_READ | PROT_WRITE);
        page[1] = numbers[n];
        mprotect(page, 4096, PROT_READ | PROT_EXEC);
        for (int i = 0; i < 2000; i++) bad += ((long (*)(void))page)() != right[n];
    }
    say("wrong results of generated code: %d", bad);
    // The same from a file's private mapping that is written to afterwards.
    int fd = open("/tmp/code", O_RDWR | O_CREAT | O_TRUNC, 0700);
    if (fd < 0) fd = memfd_create("code", 0);
    char zero[4096] = {0};
    memcpy(zero + 64, plain, sizeof plain);
    zero[65] = SYS_getpid;
    say("written: %d", (int)write(fd, zero, sizeof zero));
    unsigned char *text = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    bad = 0;
    for (int i = 0; i < 5000; i++) bad += ((long (*)(void))(text + 64))() != right[0];
    mprotect(text, 4096, PROT_READ | PROT_WRITE);
    text[65] = SYS_gettid;
    text[66] = 0;
    mprotect(text, 4096, PROT_READ | PROT_EXEC);
    for (int i = 0; i < 5000; i++) bad += ((long (*)(void))(text + 64))() != right[2];
    say("wrong results of a file's code: %d", bad);
    // x32 numbers, and numbers beyond the table.
    say("x32 number: %s", syscall(0x40000000 | SYS_getpid) == -1 && errno == ENOSYS ? "ENOSYS" : "done");
    say("number 5000: %s", syscall(5000) == -1 && errno == ENOSYS ? "ENOSYS" : "done");
    say("number -1: %s", syscall(-1) == -1 && errno == ENOSYS ? "ENOSYS" : "done");
}

static int gate_code, gate_offset;
static void *gate_ip;
static void gate(int sig, siginfo_t *info, void *context) {
    gate_code = info->si_code;
    gate_offset = (char *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] - (char *)gate_ip;
    siglongjmp(back, sig);
}
static void other_gates(void) {
    struct sigaction action = {.sa_sigaction = gate, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    int sig = sigsetjmp(back, 1);
    if (!sig) {
        asm volatile("lea 1f(%%rip), %%rcx\n mov %%rcx, %0\n mov $20, %%eax\n 1: int $0x80" : "=m"(gate_ip) :: "rax", "rcx", "memory"); 
        say("int 0x80 came back");
    }
    say("int 0x80: signal %d, code %#x, %d bytes on", sig, gate_code, gate_offset);
}

// Code in 32-bit mode, at an address that it can have.
static void narrow_code(void) {
    unsigned char *page = mmap((void *)0x10000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    page[0] = 0x0f; page[1] = 0x0b; // ud2
    struct { uint64_t ip; uint64_t cs; uint64_t flags; uint64_t sp; uint64_t ss; } frame = {(uint64_t)page, 0x23, 0x202, (uint64_t)page + 4096, 0x2b};
    asm volatile("mov %0, %%rsp\n iretq" :: "r"(&frame) : "memory");
}
static void narrow_call(void) {
    unsigned char *page = mmap((void *)0x10000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    static const unsigned char code[] = {0xb8, 1, 0, 0, 0, 0xbb, 9, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x0b};
    memcpy(page, code, sizeof code);
    struct { uint64_t ip; uint64_t cs; uint64_t flags; uint64_t sp; uint64_t ss; } frame = {(uint64_t)page, 0x23, 0x202, (uint64_t)page + 4096, 0x2b};
    asm volatile("mov %0, %%rsp\n iretq" :: "r"(&frame) : "memory");
}
static void narrow_loop(void) {
    unsigned char *page = mmap((void *)0x10000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    page[0] = 0xeb; page[1] = 0xfe; // jmp itself
    struct itimerval soon = {{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    struct { uint64_t ip; uint64_t cs; uint64_t flags; uint64_t sp; uint64_t ss; } frame = {(uint64_t)page, 0x23, 0x202, (uint64_t)page + 4096, 0x2b};
    asm volatile("mov %0, %%rsp\n iretq" :: "r"(&frame) : "memory");
}

// Everything that changes a mapping, on the kernel's ranges. Where a platform has nothing of its own there, they are memory like any.
static void kernel_memory(void) {
    int bad = 0;
    int pipes[2];
    say("pipe: %d", pipe(pipes));
    char *own = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < RANGES; i++) {
        uint64_t at = kernel_ranges[i];
        void *p = (void *)at;
        char *free = mmap(p, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (free == p) {
            *free = 1;
            bad += munmap(p, 4096) != 0 || faults(0, at) != SIGSEGV;
            continue;
        }
        // The private words' first part is the guest's scratch; nothing depends on it.
        if (at != 0x600040000000 && faults(1, at) != SIGSEGV) { bad++; printf("write to %#lx\n", at); }
        if (at < 0x7e0000000000 && at > 0x600100000000 && !faults(0, at)) { bad++; printf("read of %#lx\n", at); }
        if (munmap(p, 4096) == 0) { /* nothing is there for a guest: as if it had been unmapped before */ }
        if (mprotect(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) == 0) { bad++; printf("mprotect of %#lx\n", at); }
        void *got = mmap(p, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (got == p) { printf("a fixed map at %#lx\n", at); bad++; }
        got = mmap(p, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (got == p) { printf("a fixed map without replacement at %#lx\n", at); bad++; }
        got = mmap((void *)(at - 4096), 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (got != MAP_FAILED && at >= 0x600000000000) { printf("a fixed map across %#lx\n", at); bad++; }
        got = mmap(p, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (got == p) { printf("a hinted map at %#lx\n", at); bad++; }
        if (mremap(own, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, p) != MAP_FAILED) { printf("mremap to %#lx\n", at); bad++; }
        if (mremap(p, 4096, 8192, MREMAP_MAYMOVE) != MAP_FAILED) { printf("mremap of %#lx\n", at); bad++; }
        if (madvise(p, 4096, MADV_DONTNEED) == 0) { printf("madvise of %#lx\n", at); bad++; }
        if (madvise(p, 4096, MADV_WIPEONFORK) == 0) { printf("madvise of %#lx\n", at); bad++; }
        if (at >= 0x600000000000 && at < 0x610000000000) {
            // Reading the platform's code, its first page, does no harm.
            if (i > 0 && write(pipes[1], p, 1) == 1) { printf("write from %#lx\n", at); bad++; }
            if (write(pipes[1], own, 1) != 1 || read(pipes[0], p, 1) == 1) { printf("read into %#lx\n", at); bad++; } else (void)!read(pipes[0], own, 1);
            struct iovec local = {own, 8}, remote = {p, 8};
            if (i > 0 && process_vm_readv(getpid(), &local, 1, &remote, 1, 0) > 0) { printf("process_vm_readv of %#lx\n", at); bad++; }
            if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) > 0) { printf("process_vm_writev of %#lx\n", at); bad++; }
            if (i > 0 && (syscall(SYS_futex, p, FUTEX_WAIT, 0, &(struct timespec){0, 1000}, 0, 0) != -1 || errno != EFAULT)) { printf("futex at %#lx: %d\n", at, errno); bad++; }
            if (syscall(SYS_set_tid_address, p) != gettid()) bad++;
            if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, p) == 0) { printf("clock_gettime into %#lx\n", at); bad++; }
            if (syscall(SYS_getcwd, p, 100) > 0) { printf("getcwd into %#lx\n", at); bad++; }
        }
    }
    if (munmap((void *)0x100000000, 0x7fffffffffff - 0x100000000) == 0) { printf("all unmapped\n"); }
    say("changes of the kernel's memory: %d", bad);
}

// Every byte of the kernel's first pages as a jump's target, with the arguments of calls that would reach the host.
static void (*target)(void);
static long call_number;
static long call_arguments[3];
static void stray(void) {
    register long r10 asm("r10") = 0600;
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 50000}}, NULL);
    asm volatile("mov %0, %%rax\n mov %1, %%rdi\n mov %2, %%rsi\n mov %3, %%rdx\n lea 1f(%%rip), %%rcx\n push %%rcx\n jmp *%4\n 1:"
                 :: "m"(call_number), "m"(call_arguments[0]), "m"(call_arguments[1]), "m"(call_arguments[2]), "b"(target), "r"(r10)
                 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r11", "memory");
    _exit(9);
}
static const char *host_file = "/nonexistent";
static long host_pid = 1;
static void jumps(void) {
    long calls[][4] = {
        {SYS_openat, AT_FDCWD, (long)host_file, O_RDWR | O_CREAT | O_TRUNC},
        {SYS_open, (long)host_file, O_RDWR | O_CREAT | O_TRUNC, 0666},
        {SYS_socket, AF_INET, SOCK_STREAM, 0},
        {SYS_kill, host_pid, SIGKILL, 0},
        {SYS_tgkill, host_pid, host_pid, SIGKILL},
        {SYS_ptrace, PTRACE_SEIZE, host_pid, 0},
        {SYS_process_vm_writev, host_pid, (long)&call_number, 1},
        {SYS_execve, (long)host_file, 0, 0},
        {SYS_unlink, (long)host_file, 0, 0},
        {SYS_prctl, 15, (long)host_file, 0},
        {SYS_dup2, 0, 5, 0},
        {SYS_ioctl, 0, 0x5412, (long)host_file},
        {SYS_fork, 0, 0, 0},
        // As a process ends in which the kernel panics.
        {SYS_exit_group, 101, 0, 0},
    };
    int ended[3] = {0}, tries = 0;
    for (unsigned c = 0; c < sizeof calls / sizeof *calls; c++) {
        memcpy(&call_number, calls[c], sizeof call_number);
        memcpy(call_arguments, calls[c] + 1, sizeof call_arguments);
        // The host calls are made from the image's first bytes; of what follows a sample does.
        for (int at = 0; at < 4096; at += at < 160 ? 1 : 61) {
            target = (void (*)(void))(0x600000000000 + at);
            int status = status_of(stray);
            ended[WIFEXITED(status) ? 1 : WIFSIGNALED(status) ? 0 : 2]++;
            tries++;
        }
    }
    say("strange ends of jumps into the kernel: %d of %d", ended[2], tries);
}

static void descriptors(void) {
    for (int fd = 3; fd < 1100; fd++) close(fd);
    syscall(SYS_close_range, 3, ~0u, 0);
    for (int fd = 3; fd < 64; fd++) dup2(1, fd);
    syscall(SYS_close_range, 3, ~0u, 0);
    int fd = open("/tmp/after", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char text[6] = "";
    say("a file after all descriptors were closed: %d", fd >= 0 && write(fd, "kept", 4) == 4 && fsync(fd) == 0 && pread(fd, text, 4, 0) == 4 && !strcmp(text, "kept"));
    say("sendfile of what is closed: %s", syscall(SYS_sendfile, 1, 40, 0, 10) == -1 && errno == EBADF ? "EBADF" : "done");
}

// Without protection keys there is no place for them in a frame, and naming one is an error in it.
static int has_keys(void) {
    unsigned a, b, c = 0, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & 1 << 4;
}

static void *forged_base;
static void forge(int sig, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    (void)info;
    unsigned char *state = (unsigned char *)u->uc_mcontext.fpregs;
    uint32_t size = *(uint32_t *)(state + 464 + 16);
    switch (sig - SIGRTMIN) {
    case 0: // All protection keys open, in every place that an image may have them.
        if (!has_keys()) break;
        *(uint64_t *)(state + 512) |= 1 << 9;
        if (size > 576) for (uint32_t at = 576; at + 8 <= size; at += 8) if (at >= 832) *(uint64_t *)(state + at) = 0;
        break;
    case 1: u->uc_mcontext.gregs[REG_RIP] = 0x800000000000; break;
    case 2: u->uc_mcontext.gregs[REG_RIP] = 0xffffffffff000000; break;
    case 3: u->uc_mcontext.gregs[REG_CSGSFS] = 0x10; break;
    case 4: u->uc_mcontext.gregs[REG_CSGSFS] = 0x23; break;
    case 5: u->uc_mcontext.gregs[REG_CSGSFS] &= 0xffffffffffff; break; // ss of 0
    case 6: u->uc_mcontext.gregs[REG_EFL] = ~0x4100ull & ~0x40000ull; break; // all flags but single step, nested task, alignment
    case 7: u->uc_mcontext.fpregs = (void *)0x600100000000; break;
    case 8: u->uc_mcontext.fpregs = (void *)0x10; break;
    case 9: *(uint32_t *)(state + 464 + 16) = 0xfffffff0; break;
    case 10: *(uint64_t *)(state + 520) = ~0ull; break; // compacted
    case 11: *(uint64_t *)(state + 512) |= 2; *(uint32_t *)(state + 24) = 0xffffffff; break; // mxcsr
    case 12: *(uint64_t *)(state + 512) = ~0ull; break;
    case 13: u->uc_mcontext.gregs[REG_RIP] = 0x600000000000; break;
    case 14: u->uc_stack.ss_sp = (void *)0x600100000000; u->uc_stack.ss_size = 65536; u->uc_stack.ss_flags = 0; break;
    case 15: u->uc_mcontext.gregs[REG_RSP] = 0x8000000000000000; break;
    }
    forged_base = u;
}
static int forgery;
static void forged_frame(void) {
    struct sigaction action = {.sa_sigaction = forge, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + forgery, &action, NULL);
    raise(SIGRTMIN + forgery);
    if (forgery == 0) _exit(faults(1, 0x600100000000) == SIGSEGV ? 0 : 1);
    if (forgery == 14) { action.sa_flags |= SA_ONSTACK; sigaction(SIGRTMIN + 1, &action, NULL); raise(SIGRTMIN + 6); }
    _exit(getpid() > 0 ? 0 : 2);
}
static void forged_frames(void) {
    for (forgery = 0; forgery < 16; forgery++) {
        // Natively ss of 0 and any rsp are restored as they stand.
        int status = status_of(forged_frame);
        if (forgery == 14 || forgery == 15) continue;
        // What lies there, if anything, is the platform's.
        if (forgery == 13) say("forged frame 13: %s", WIFSIGNALED(status) ? "killed" : "ran");
        else if (WIFSIGNALED(status)) say("forged frame %d: signal %d", forgery, WTERMSIG(status));
        else say("forged frame %d: exit %d", forgery, WEXITSTATUS(status));
    }
}

// A call between two looks at all registers and flags that a call keeps.
static int call_keeps_registers(void) {
    unsigned char ok;
    uint64_t x[2] = {0x1111222233334444, 0x5555666677778888}, y[2];
    register uint64_t r8 asm("r8") = 0xa8, r9 asm("r9") = 0xa9, r10 asm("r10") = 0xaa, r12 asm("r12") = 0xac, r13 asm("r13") = 0xad,
                      r14 asm("r14") = 0xae, r15 asm("r15") = 0xaf;
    uint64_t rdi = 0xd1, rsi = 0x51, rdx = 0xdd, rax = SYS_getppid;
    asm volatile("movups %[x], %%xmm7\n movups %[x], %%xmm15\n stc\n syscall\n setc %[ok]\n movups %%xmm7, %[y]\n pxor %%xmm7, %%xmm15\n"
                 : [ok] "=q"(ok), [y] "=m"(y), "+a"(rax), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15)
                 : [x] "m"(x) : "rcx", "r11", "xmm7", "xmm15", "memory", "cc");
    return ok == 1 && !memcmp(x, y, 16) && rdi == 0xd1 && rsi == 0x51 && rdx == 0xdd && r8 == 0xa8 && r9 == 0xa9 && r10 == 0xaa && r12 == 0xac && r13 == 0xad && r14 == 0xae && r15 == 0xaf && (long)rax == getppid();
}

static int calls = 20000;
static void *storm_thread(void *unused) {
    int bad = 0;
    for (int i = 0; i < calls; i++) bad += !call_keeps_registers();
    __atomic_add_fetch(&wrong, bad, __ATOMIC_SEQ_CST);
    return unused;
}
static void call_in_handler(int sig) { signals++; if (!call_keeps_registers() || sig != SIGALRM) wrong++; }
static void storm(void) {
    struct sigaction action = {.sa_handler = call_in_handler};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 97}, {0, 97}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    storm_thread(NULL);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(threads + i, NULL, storm_thread, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    // A fast kernel is through with all that before enough of them have come.
    for (time_t end = time(NULL) + 10; signals <= 20 && time(NULL) < end;) storm_thread(NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    say("signals came: %d, wrong results: %d", signals > 20, wrong);
}

static void segment_bases(void) {
    say("fs to the kernel half: %s", syscall(SYS_arch_prctl, ARCH_SET_FS, 0xffff800000000000) == -1 && errno == EPERM ? "EPERM" : "done");
    say("gs to the kernel half: %s", syscall(SYS_arch_prctl, ARCH_SET_GS, 0x7fffffffffffffff) == -1 && errno == EPERM ? "EPERM" : "done");
    say("fs read into the kernel: %s", syscall(SYS_arch_prctl, ARCH_GET_FS, 0x600100000000) == -1 && errno == EFAULT ? "EFAULT" : "done");
    uint64_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[1] = 42;
    say("gs set: %d", (int)syscall(SYS_arch_prctl, ARCH_SET_GS, page));
    uint64_t got, base = 0;
    asm volatile("mov %%gs:8, %0" : "=r"(got));
    syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
    say("gs points there: %d %d", (int)got, base == (uint64_t)page);
    signal(SIGALRM, count);
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    int bad = 0;
    for (int i = 0; i < 5000; i++) {
        bad += getppid() <= 0 || !call_keeps_registers();
        asm volatile("mov %%gs:8, %0" : "=r"(got));
        bad += got != 42;
    }
    // By its own instruction, as hosts allow it.
    for (int i = 0; i < 5000; i++) {
        asm volatile("wrgsbase %0" :: "r"(page + i % 64));
        page[i % 64 + 2] = i;
        bad += getppid() <= 0;
        asm volatile("mov %%gs:16, %0" : "=r"(got));
        bad += got != (uint64_t)i;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    int pid = fork();
    if (pid == 0) { asm volatile("rdgsbase %0" : "=r"(got)); _exit(got == (uint64_t)(page + 4999 % 64) ? 7 : 8); }
    int status;
    waitpid(pid, &status, 0);
    say("wrong with a gs base: %d, in a child: %d", bad, WEXITSTATUS(status));
    say("gs back: %d", (int)syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
    asm volatile("mov %0, %%gs" :: "r"(0x2b));
    say("after a selector was loaded: %d", getppid() > 0);
    say("clone with a thread area in the kernel half: %s", syscall(SYS_clone, CLONE_SETTLS | SIGCHLD, 0, 0, 0, 0xffff800000000000) == -1 && errno == EPERM ? "EPERM" : "done");
}

// Flags that the kernel must not inherit.
static void step(int sig) { signals++; (void)sig; }
static void jump_back_unchecked(int sig) {
    asm volatile("pushfq\n andq $~0x40000, (%%rsp)\n popfq" ::: "memory", "cc");
    jump_back(sig);
}
static void flags(void) {
    asm volatile("pushfq\n orq $0x40000, (%%rsp)\n popfq" ::: "memory", "cc");
    long id = syscall(SYS_getpid), parent = syscall(SYS_getppid);
    char name[100];
    long len = syscall(SYS_getcwd, name + 1, 90);
    asm volatile("pushfq\n andq $~0x40000, (%%rsp)\n popfq" ::: "memory", "cc");
    say("with alignment checks: %d", id == getpid() && parent == getppid() && len > 0);
    long r = SYS_getpid;
    asm volatile("std\n syscall\n pushfq\n popq %%rdx\n cld" : "+a"(r) :: "rcx", "r11", "rdx", "memory", "cc");
    say("with the direction flag: %d", r == getpid());
    r = SYS_getpid;
    asm volatile("pushfq\n orq $0x4000, (%%rsp)\n popfq\n syscall\n pushfq\n andq $~0x4000, (%%rsp)\n popfq" : "+a"(r) :: "rcx", "r11", "memory", "cc");
    say("with the nested task flag: %d", r == getpid());
    signal(SIGTRAP, step);
    signals = 0;
    r = SYS_getpid;
    asm volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n nop\n nop\n syscall\n nop\n nop\n pushfq\n andq $~0x100, (%%rsp)\n popfq" : "+a"(r) :: "rcx", "r11", "memory", "cc");
    say("single steps through a call: %d %d", r == getpid(), signals >= 6);
    int before = signals;
    id = getpid();
    say("and no more afterwards: %d", signals - before);
    char *unaligned = malloc(64);
    signal(SIGBUS, jump_back_unchecked);
    int sig = sigsetjmp(back, 1);
    if (!sig) asm volatile("pushfq\n orq $0x40000, (%%rsp)\n popfq\n movl $1, (%0)" :: "r"(unaligned + 1) : "memory", "cc");
    say("an unaligned store with alignment checks: signal %d", sig);
}

static struct { void *next; long offset; void *pending; } robust;
static void *robust_thread(void *unused) {
    syscall(SYS_set_robust_list, unused, sizeof robust);
    return NULL;
}
static void registrations(void) {
    void *lists[] = {(void *)8, (void *)0x600100000000, (void *)-4096l, &robust};
    robust.next = &robust.next; // a list that never ends
    void *second[3] = {NULL, NULL, NULL};
    second[0] = second;
    robust.next = second;
    robust.pending = (void *)0x600100000008;
    for (unsigned i = 0; i < 4; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, robust_thread, lists[i]);
        pthread_join(thread, NULL);
    }
    say("a short robust list: %s", syscall(SYS_set_robust_list, &robust, 8) == -1 && errno == EINVAL ? "EINVAL" : "done");
    say("rseq in the kernel: %d", (int)syscall(SYS_rseq, 0x600100000000, 32, 0, 0x53053053));
    struct sched_param param = {0};
    say("still there: %d", sched_setscheduler(0, SCHED_OTHER, &param));
    stack_t bad = {(void *)0x600100000000, 0, 65536};
    sigaltstack(&bad, NULL);
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    say("a handler on a stack in the kernel: %d", signals);
}

// Processes and files of the host, by the kernel's front door.
static void names(void) {
    say("kill: %s", kill(host_pid, SIGKILL) == -1 && (errno == ESRCH || errno == EPERM) ? "refused" : "done");
    struct iovec iov = {&call_number, 8};
    say("process_vm_writev: %s", process_vm_writev(host_pid, &iov, 1, &iov, 1, 0) == -1 ? "refused" : "done");
    say("ptrace: %s", ptrace(PTRACE_SEIZE, (pid_t)host_pid, 0, 0) == -1 ? "refused" : "done");
    say("pidfd_open: %s", syscall(SYS_pidfd_open, (pid_t)host_pid, 0) == -1 ? "refused" : "done");
    say("the host's file: %s", open(host_file, O_RDWR) == -1 ? "refused" : "done");
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/mem", host_pid);
    say("its memory: %s", open(path, O_RDWR) == -1 ? "refused" : "done");
    say("io ports: %s", syscall(SYS_iopl, 3) == -1 && syscall(SYS_ioperm, 0, 8, 1) == -1 ? "refused" : "done");
}

// Behind a protection key no longer: what holds then is the filter alone. A machine may break by it.
static void open_keys(void) { asm volatile("wrpkru" :: "a"(0), "c"(0), "d"(0)); }
static void smash(void) {
    open_keys();
    for (uint64_t at = 0x600100000000; at < 0x600100100000; at += 8) *(volatile uint64_t *)at = at * 0x9e3779b97f4a7c15;
    for (int i = 0; i < 100; i++) { getppid(); sched_yield(); }
    say("smashed");
}
static void smash_heap(void) {
    open_keys();
    for (uint64_t at = 0x600200000000; at < 0x600200400000; at += 64) *(volatile uint64_t *)at ^= at;
    for (int i = 0; i < 100; i++) { if (fork() == 0) _exit(0); }
    say("smashed");
}
static void open_jumps(void) { open_keys(); jumps(); }
static void unmap_kernel(void) {
    // Through the kernel's own call instruction.
    register long r10 asm("r10") = 0;
    asm volatile("mov $0x600000000000, %%rcx\n call *%%rcx" :: "a"(SYS_munmap), "D"(0x600100000000), "S"(0x1000000000), "d"(0), "r"(r10) : "rcx", "r11", "memory");
    getppid();
    say("unmapped");
}
static void close_host(void) {
    for (long fd = 0; fd < 64; fd++)
        asm volatile("mov $0x600000000000, %%rcx\n call *%%rcx" :: "a"(SYS_close), "D"(fd) : "rcx", "r11", "memory");
    say("closed");
}
static void leave_secretly(void) {
    asm volatile("mov $0x600000000000, %%rcx\n call *%%rcx" :: "a"(SYS_exit_group), "D"(0) : "rcx", "r11", "memory");
}

// Until nothing is left.
static void processes(void) {
    int n = 0, pid;
    setpgid(0, 0);
    while ((pid = fork()) > 0) n++;
    if (pid == 0) { pause(); _exit(0); }
    say("fork ends with: %s", errno == EAGAIN || errno == ENOMEM ? "EAGAIN" : strerror(errno));
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    int ended = 0;
    while (wait(NULL) > 0) ended++;
    say("all ended: %d", n == ended && n > 10);
}
static void *idle(void *unused) { pause(); return unused; }
static void thread_limit(void) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 65536);
    pthread_t thread;
    int n = 0, error;
    while ((error = pthread_create(&thread, &attr, idle, NULL)) == 0) n++;
    say("threads end with: %s", error == EAGAIN || error == ENOMEM ? "EAGAIN" : strerror(error));
}
static void eat(void) {
    for (;;) {
        char *p = mmap(NULL, 1 << 22, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) _exit(1);
        memset(p, 1, 1 << 22);
    }
}
static void eat_tmpfs(void) {
    int fd = open("/dev/shm/eaten", O_RDWR | O_CREAT, 0600);
    static char block[1 << 20];
    memset(block, 1, sizeof block);
    long n = 0;
    while (write(fd, block, sizeof block) > 0) n++;
    say("a tmpfs ends with: %s", errno == ENOSPC || errno == ENOMEM ? "ENOSPC" : strerror(errno));
    unlink("/dev/shm/eaten");
}

static struct { const char *name; void (*body)(void); int always; } parts[] = {
    {"generated_code", generated_code, 1}, {"other_gates", other_gates, 1}, {"narrow_code", narrow_code, 1},
    {"narrow_call", narrow_call, 1}, {"narrow_loop", narrow_loop, 1}, {"kernel_memory", kernel_memory, 1}, {"jumps", jumps, 1},
    {"descriptors", descriptors, 1}, {"forged_frames", forged_frames, 1}, {"storm", storm, 1}, {"segment_bases", segment_bases, 1},
    {"flags", flags, 1}, {"registrations", registrations, 1}, {"names", names, 1}, {"eat", eat, 1}, {"eat_tmpfs", eat_tmpfs, 1},
    {"thread_limit", thread_limit, 1}, {"processes", processes, 1},
    {"smash", smash, 0}, {"smash_heap", smash_heap, 0}, {"open_jumps", open_jumps, 0}, {"unmap_kernel", unmap_kernel, 0},
    {"close_host", close_host, 0}, {"leave_secretly", leave_secretly, 0},
};

// hostile NAME|all [HOST_FILE HOST_PID [CALLS]]
int main(int argc, char **argv) {
    if (argc > 3) { host_file = argv[2]; host_pid = atol(argv[3]); }
    if (argc > 4) calls = atoi(argv[4]);
    mkdir("/tmp", 0777);
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strcmp(argv[1], "all") ? strcmp(argv[1], parts[i].name) : !parts[i].always) continue;
        int status = status_of(parts[i].body);
        if (WIFSIGNALED(status)) say("%s: signal %d", parts[i].name, WTERMSIG(status));
        else say("%s: exit %d", parts[i].name, WEXITSTATUS(status));
    }
    return 0;
}
