/* seccomp(2): what filters may be, what each action does, precedence, inheritance, threads, tracers, supervisors, strict mode. Prints
   what comes of it; no numbers of processes. Stands down (77) where the program is restricted already, or nobody may trace. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include "say.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define REG(name) offsetof(struct user, regs.name)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define GIVE(result) BPF_STMT(BPF_RET | BPF_K, result)
/* A call that nothing else here makes. */
#define CALL SYS_getpgid

static long seccomp(unsigned op, unsigned flags, const void *args) { return syscall(SYS_seccomp, op, flags, args); }

static long attach(unsigned flags, const struct sock_filter *code, int len) {
    struct sock_fprog program = {len, (struct sock_filter *)code};
    return seccomp(SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* A filter that gives a result for one call, and allows all others. */
static long on(int nr, unsigned result, unsigned flags) {
    struct sock_filter code[] = {
        LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), GIVE(result), GIVE(SECCOMP_RET_ALLOW),
    };
    return attach(flags, code, COUNT(code));
}

/* A call without the C library: what is in rax afterwards. */
extern char behind_call[];
__attribute__((noinline, noclone)) static long raw(long nr, long a, long b, long c) {
    long result;
    asm volatile(".globl behind_call\n syscall\n behind_call:"
                 : "=a"(result)
                 : "a"(nr), "D"(a), "S"(b), "d"(c)
                 : "rcx", "r11", "memory");
    return result;
}

static void no_new_privs(void) { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

static void tell(const char *what, int status) {
    if (WIFEXITED(status)) printf("%s: exited %d\n", what, WEXITSTATUS(status));
    else if (WIFSIGNALED(status)) printf("%s: killed by %d\n", what, WTERMSIG(status));
    else printf("%s: stopped by %#x\n", what, status >> 8);
}

static int await(const char *what, pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, __WALL) < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else tell(what, status);
    return status;
}

static pid_t start(void (*body)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        no_new_privs();
        body();
        fflush(stdout);
        _exit(0);
    }
    return pid;
}

static void in_child(const char *what, void (*body)(void)) { await(what, start(body)); }

/* The lines about seccomp of a process's status. */
static void show_status(pid_t pid) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "Seccomp", 7) == 0 || strncmp(line, "NoNewPrivs", 10) == 0) fputs(line, stdout);
    if (file) fclose(file);
}

/* Arguments. */

static void errors(void) {
    struct sock_filter allow[] = {GIVE(SECCOMP_RET_ALLOW)};
    struct sock_fprog good = {1, allow}, empty = {0, allow}, null = {1, NULL}, bad = {1, (void *)16}, more = {4097, allow};
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, NULL));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, (void *)16));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &empty));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &null));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &bad));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &more));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 1 << 6, &good));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER, &good));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &good));
    SAY(seccomp(SECCOMP_SET_MODE_STRICT, 1, NULL));
    SAY(seccomp(SECCOMP_SET_MODE_STRICT, 0, &good));
    SAY(seccomp(4, 0, NULL));
    SAY(seccomp(-1, 0, NULL));
    SAY(prctl(PR_SET_SECCOMP, 0, 0, 0, 0));
    SAY(prctl(PR_SET_SECCOMP, 3, 0, 0, 0));
    SAY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0, 0));
    unsigned actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
                          SECCOMP_RET_USER_NOTIF, SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW, 1, 0x10000, 0x7ffe0000};
    for (unsigned i = 0; i < COUNT(actions); i++) {
        printf("%#x: ", actions[i]);
        SAY(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &actions[i]));
    }
    SAY(seccomp(SECCOMP_GET_ACTION_AVAIL, 1, &actions[0]));
    SAY(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, NULL));
    struct seccomp_notif_sizes sizes = {0};
    SAY(seccomp(SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
    printf("%d %d %d\n", sizes.seccomp_notif, sizes.seccomp_notif_resp, sizes.seccomp_data);
    SAY(seccomp(SECCOMP_GET_NOTIF_SIZES, 0, NULL));
    SAY(seccomp(SECCOMP_GET_NOTIF_SIZES, 1, &sizes));
    SAY(prctl(PR_GET_SECCOMP));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &good));
    SAY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &good, 0, 0));
    SAY(prctl(PR_GET_SECCOMP));
    SAY(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL));
    SAY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
    show_status(getpid());
}

static void without_rights(void) {
    if (geteuid() == 0 && setresuid(1000, 1000, 1000) < 0) return;
    struct sock_filter allow[] = {GIVE(SECCOMP_RET_ALLOW)};
    struct sock_fprog good = {1, allow}, empty = {0, allow}, null = {1, NULL};
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, NULL));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &empty));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &null));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &good));
    SAY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SAY(seccomp(SECCOMP_SET_MODE_FILTER, 0, &good));
    SAY(prctl(PR_GET_SECCOMP));
}

/* Programs. */

static void operations(void) {
    printf("operations:");
    for (int code = 0; code < 0x10000; code += code < 0x400 ? 1 : 0xff) {
        struct sock_filter program[] = {
            BPF_STMT(BPF_LD | BPF_IMM, SECCOMP_RET_ALLOW), BPF_STMT(BPF_LDX | BPF_IMM, 1),
            BPF_STMT(code, code == (BPF_RET | BPF_K) ? SECCOMP_RET_ALLOW : 0), GIVE(SECCOMP_RET_ALLOW),
        };
        if (attach(0, program, COUNT(program)) == 0) printf(" %x", code);
    }
    puts("");
}

#define TRY(...)                                                      \
    do {                                                              \
        struct sock_filter program[] = {__VA_ARGS__};                 \
        long result = attach(0, program, COUNT(program));             \
        printf("%s: %s\n", #__VA_ARGS__, result ? strerrorname_np(errno) : "taken"); \
    } while (0)

static void bounds(void) {
    const struct sock_filter allow = GIVE(SECCOMP_RET_ALLOW);
    const unsigned load = BPF_LD | BPF_W | BPF_ABS;
    TRY(BPF_STMT(load, 0), allow);
    TRY(BPF_STMT(load, 1), allow);
    TRY(BPF_STMT(load, 2), allow);
    TRY(BPF_STMT(load, 60), allow);
    TRY(BPF_STMT(load, 61), allow);
    TRY(BPF_STMT(load, 64), allow);
    TRY(BPF_STMT(load, 0xfffff000), allow);
    TRY(BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), allow);
    TRY(BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), allow);
    TRY(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), allow);
    TRY(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 1), allow);
    TRY(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 1), allow);
    TRY(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 31), allow);
    TRY(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), allow);
    TRY(BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 32), allow);
    TRY(BPF_STMT(BPF_ST, 15), allow);
    TRY(BPF_STMT(BPF_ST, 16), allow);
    TRY(BPF_STMT(BPF_STX, 16), allow);
    TRY(BPF_STMT(BPF_LD | BPF_MEM, 3), allow);
    TRY(BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LD | BPF_MEM, 3), allow);
    TRY(BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LDX | BPF_MEM, 4), allow);
    TRY(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LD | BPF_MEM, 3), allow);
    TRY(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 0), allow);
    TRY(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), allow);
    TRY(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0), allow);
    TRY(BPF_STMT(BPF_JMP | BPF_JA, 0), allow);
    TRY(BPF_STMT(BPF_JMP | BPF_JA, 1), allow);
    TRY(BPF_STMT(BPF_JMP | BPF_JA, 0xffffffff), allow);
    TRY(BPF_STMT(BPF_JMP | BPF_JA, 1), BPF_STMT(BPF_LD | BPF_MEM, 0), allow);
    TRY(BPF_STMT(BPF_LD | BPF_IMM, 0));
    TRY(allow, BPF_STMT(BPF_LD | BPF_IMM, 0));
    TRY(allow, BPF_STMT(BPF_RET | BPF_A, 0));
    TRY(BPF_STMT(BPF_RET | BPF_X, 0));
}

static void limits(void) {
    static struct sock_filter program[4096];
    for (int i = 0; i < 4095; i++) program[i] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, i);
    program[4095] = (struct sock_filter)GIVE(SECCOMP_RET_ALLOW);
    int count = 0;
    while (attach(0, program, 4096) == 0) count++;
    printf("%d of the longest: %s\n", count, strerrorname_np(errno));
    show_status(getpid());
}

/* What a program gives of two arguments and an operation, twelve bits of it. */
static int operation, shift;
static const unsigned numbers[][2] = {
    {0, 0},          {7, 3},          {3, 7},          {0xffffffff, 1},          {1, 0xffffffff}, {0x80000000, 2},
    {123456789, 31}, {123456789, 32}, {123456789, 33}, {0xdeadbeef, 0xcafebabe}, {5, 0},          {0x12345678, 0xff00ff},
};

static long attach_calculation(void) {
    struct sock_filter program[] = {
        LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALL, 0, 7), LOAD(args[1]), BPF_STMT(BPF_MISC | BPF_TAX, 0),
        LOAD(args[0]), BPF_STMT(operation, 0), BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, shift),
        BPF_JUMP(BPF_JMP | BPF_JA, 0, 0, 0), BPF_STMT(BPF_JMP | BPF_JA, 1), GIVE(SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfff), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    return attach(0, program, COUNT(program));
}

static void calculate(void) {
    attach_calculation();
    for (unsigned i = 0; i < COUNT(numbers); i++) printf(" %lx", -raw(CALL, numbers[i][0], numbers[i][1], 0));
    puts("");
}

static void arithmetic(void) {
    static const int operations[] = {BPF_ADD, BPF_SUB, BPF_MUL, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH, BPF_XOR, BPF_NEG};
    for (unsigned i = 0; i < COUNT(operations); i++)
        for (shift = 0; shift < 32; shift += 12) {
            operation = BPF_ALU | operations[i] | (operations[i] == BPF_NEG ? 0 : BPF_X);
            printf("%#x >> %d:", operation, shift);
            in_child("calculated", calculate);
        }
}

/* Division, where a divisor of 0 ends the program with 0: that kills. */
static void divides(void) {
    operation = BPF_ALU | BPF_DIV | BPF_X;
    shift = 0;
    SAY(attach_calculation());
    for (unsigned i = 0; i < COUNT(numbers); i++)
        if (numbers[i][1]) printf(" %lx", -raw(CALL, numbers[i][0], numbers[i][1], 0));
    puts("");
    fflush(stdout);
    raw(CALL, 5, 0, 0);
}

/* Comparisons: 1 if one holds. */
static void compares(void) {
    struct sock_filter program[] = {
        LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALL, 1, 0), GIVE(SECCOMP_RET_ALLOW), LOAD(args[1]),
        BPF_STMT(BPF_MISC | BPF_TAX, 0), LOAD(args[0]), BPF_JUMP(operation, 0, 0, 1), GIVE(SECCOMP_RET_ERRNO | 1),
        GIVE(SECCOMP_RET_ERRNO | 2),
    };
    if (attach(0, program, COUNT(program)) < 0) return;
    for (unsigned i = 0; i < COUNT(numbers); i++) printf(" %ld", -raw(CALL, numbers[i][0], numbers[i][1], 0));
    puts("");
}

static void comparisons(void) {
    static const int operations[] = {BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET};
    for (unsigned i = 0; i < COUNT(operations); i++)
        for (int by_x = 0; by_x < 2; by_x++) {
            operation = BPF_JMP | operations[i] | (by_x ? BPF_X : BPF_K);
            printf("%#x:", operation);
            in_child("compared", compares);
        }
}

/* What a filter sees: the number, the architecture, the address, the arguments. */
static void sees(void) {
    uint64_t at = (uint64_t)behind_call;
    struct sock_filter program[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALL, 1, 0),
        GIVE(SECCOMP_RET_ALLOW),
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        GIVE(SECCOMP_RET_ERRNO | 1),
        LOAD(instruction_pointer),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, at, 1, 0),
        GIVE(SECCOMP_RET_ERRNO | 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, at >> 32, 1, 0),
        GIVE(SECCOMP_RET_ERRNO | 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2]) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x11223344, 1, 0),
        GIVE(SECCOMP_RET_ERRNO | 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    SAY(attach(0, program, COUNT(program)));
    for (int i = 0; i < 3; i++) printf("%ld\n", raw(CALL, 0, 0, 0x1122334455667788));
    printf("%ld\n", raw(CALL, 0, 0, 0));
    printf("elsewhere: %s\n", syscall(CALL, 0, 0, 0) < 0 ? strerrorname_np(errno) : "allowed");
}

/* Actions. */

static unsigned action;
static void acts(void) {
    on(CALL, action, 0);
    long result = raw(CALL, 0, 0, 0);
    printf("%#x gives %ld\n", action, result > 0 ? 1 : result);
}

static void actions(void) {
    static const unsigned all[] = {
        SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW | 5, SECCOMP_RET_LOG, SECCOMP_RET_TRACE | 3, SECCOMP_RET_USER_NOTIF,
        SECCOMP_RET_ERRNO, SECCOMP_RET_ERRNO | 1, SECCOMP_RET_ERRNO | 512, SECCOMP_RET_ERRNO | 4095,
        SECCOMP_RET_ERRNO | 4096, SECCOMP_RET_ERRNO | 0xffff, SECCOMP_RET_TRAP, SECCOMP_RET_KILL_THREAD,
        SECCOMP_RET_KILL_PROCESS, 0x10000, 0x7ffe0000, 0x7fff8000, 0x90000000,
    };
    for (unsigned i = 0; i < COUNT(all); i++) {
        action = all[i];
        in_child("it", acts);
    }
}

static void both_ways(unsigned a, unsigned b) {
    on(CALL, a, 0);
    on(CALL, b, 0);
    printf("%ld\n", raw(CALL, 0, 0, 0));
}

static void errno_twice(void) { both_ways(SECCOMP_RET_ERRNO | 1, SECCOMP_RET_ERRNO | 2); }
static void errno_and_allow(void) { both_ways(SECCOMP_RET_ERRNO | 1, SECCOMP_RET_ALLOW); }
static void trace_and_errno(void) { both_ways(SECCOMP_RET_TRACE, SECCOMP_RET_ERRNO | 3); }
static void errno_and_trace(void) { both_ways(SECCOMP_RET_ERRNO | 3, SECCOMP_RET_TRACE); }
static void trap_and_errno(void) { both_ways(SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO | 3); }
static void log_and_notify(void) { both_ways(SECCOMP_RET_LOG, SECCOMP_RET_USER_NOTIF); }

static siginfo_t told;
static long told_registers[6];
static void handler(int sig, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)sig;
    told = *info;
    long seen[] = {registers[REG_RAX], registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], registers[REG_RIP],
                   registers[REG_RCX]};
    memcpy(told_registers, seen, sizeof seen);
    registers[REG_RAX] = 77;
}

static void catch_it(int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigaction(SIGSYS, &action, NULL);
}

static void traps(void) {
    catch_it(0);
    on(CALL, SECCOMP_RET_TRAP | 0xabcd, 0);
    for (int i = 0; i < 4; i++) {
        memset(&told, 0, sizeof told);
        long result = raw(CALL, 11, 22, 33);
        printf("result %ld, signal %d, code %d, errno %#x, syscall %d, arch %x, address %d\n", result, told.si_signo,
               told.si_code, told.si_errno, told.si_syscall == CALL, told.si_arch, told.si_call_addr == behind_call);
        printf("rax %d, arguments %ld %ld %ld, rip %d, rcx %d\n", told_registers[0] == CALL, told_registers[1],
               told_registers[2], told_registers[3], told_registers[4] == (long)behind_call,
               told_registers[5] == (long)behind_call);
    }
    printf("by the library: %ld\n", syscall(CALL, 0));
}

static void trap_blocked(void) {
    catch_it(0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    sigprocmask(SIG_BLOCK, &set, NULL);
    on(CALL, SECCOMP_RET_TRAP, 0);
    raw(CALL, 0, 0, 0);
}

static void trap_ignored(void) {
    signal(SIGSYS, SIG_IGN);
    on(CALL, SECCOMP_RET_TRAP, 0);
    raw(CALL, 0, 0, 0);
}

static void kill_caught(void) {
    catch_it(0);
    on(CALL, SECCOMP_RET_KILL_PROCESS, 0);
    raw(CALL, 0, 0, 0);
}

/* Threads. */

static void *makes_call(void *unused) {
    (void)unused;
    return (void *)raw(CALL, 0, 0, 0);
}

static void kill_a_thread(void) {
    pthread_t id;
    on(CALL, SECCOMP_RET_KILL_THREAD, 0);
    pthread_create(&id, NULL, makes_call, NULL);
    pthread_join(id, NULL);
    puts("joined");
    fflush(stdout);
    raw(CALL, 0, 0, 0);
}

static void kill_all_threads(void) {
    pthread_t id;
    on(CALL, SECCOMP_RET_KILL_PROCESS, 0);
    pthread_create(&id, NULL, makes_call, NULL);
    for (;;) pause();
}

static int go[2], back[2];
static void hand(int pipe[2]) { write(pipe[1], "", 1); }
static void take(int pipe[2]) {
    char byte;
    while (read(pipe[0], &byte, 1) < 0 && errno == EINTR) {}
}

/* The first thread is gone when the other one ends. */
static void *ends_last(void *unused) {
    (void)unused;
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    for (int tries = 0; tries < 500; tries++) {
        int file = open(path, O_RDONLY);
        ssize_t got = file < 0 ? 0 : read(file, text, sizeof text - 1);
        close(file);
        text[got < 0 ? 0 : got] = 0;
        char *end = strrchr(text, ')');
        if (got <= 0 || (end && end[2] == 'Z')) break;
        usleep(2000);
    }
    syscall(SYS_exit, 3);
    return NULL;
}

static void kill_first_thread(void) {
    pthread_t id;
    on(CALL, SECCOMP_RET_KILL_THREAD, 0);
    pthread_create(&id, NULL, ends_last, NULL);
    raw(CALL, 0, 0, 0);
}

static pid_t thread_id;
static long own_filter, seen_call, seen_privs;
static void *waits(void *unused) {
    (void)unused;
    thread_id = gettid();
    if (own_filter) on(SYS_getsid, SECCOMP_RET_ERRNO | 9, 0);
    hand(back);
    take(go);
    seen_call = raw(CALL, 0, 0, 0);
    seen_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    return NULL;
}

static void synchronize(void) {
    for (own_filter = 0; own_filter < 2; own_filter++) {
        pthread_t id;
        pipe(go);
        pipe(back);
        pthread_create(&id, NULL, waits, NULL);
        take(back);
        long result = on(CALL, SECCOMP_RET_ERRNO | (5 + own_filter), SECCOMP_FILTER_FLAG_TSYNC);
        printf("the thread's number %d, else %ld\n", result == thread_id, result == thread_id ? 0 : result);
        SAY(on(CALL, SECCOMP_RET_ERRNO | 7, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH));
        hand(go);
        pthread_join(id, NULL);
        long mine = raw(CALL, 0, 0, 0);
        printf("the thread's call %ld, its privileges %ld; the first one's %ld\n", seen_call, seen_privs, mine);
    }
    show_status(getpid());
    on(CALL, SECCOMP_RET_ERRNO | 8, 0);
    printf("a thread that ended is not in the way: ");
    SAY(on(SYS_getsid, SECCOMP_RET_ERRNO | 9, SECCOMP_FILTER_FLAG_TSYNC));
}

static void inherits(void) {
    pthread_t id;
    pipe(go);
    pipe(back);
    on(CALL, SECCOMP_RET_ERRNO | 5, 0);
    own_filter = 0;
    pthread_create(&id, NULL, waits, NULL);
    take(back);
    on(CALL, SECCOMP_RET_ERRNO | 6, 0);
    hand(go);
    pthread_join(id, NULL);
    printf("thread %ld, first thread %ld\n", seen_call, raw(CALL, 0, 0, 0));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        printf("child %ld\n", raw(CALL, 0, 0, 0));
        on(CALL, SECCOMP_RET_ERRNO | 7, 0);
        printf("child %ld\n", raw(CALL, 0, 0, 0));
        show_status(getpid());
        fflush(stdout);
        execl("/proc/self/exe", "seccomp", "executed", NULL);
        _exit(1);
    }
    await("child", pid);
    printf("parent %ld\n", raw(CALL, 0, 0, 0));
}

/* Strict mode. */

static void strict_calls(void) {
    pipe(go);
    hand(go);
    SAY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
    fflush(stdout);
    char byte;
    if (read(go[0], &byte, 1) == 1) write(1, "reads and writes\n", 17);
    syscall(SYS_exit, 4);
}

static void strict_other_call(void) {
    seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL);
    syscall(SYS_getpid);
}

static void strict_exit_group(void) {
    seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL);
    syscall(SYS_exit_group, 4);
}

static volatile sig_atomic_t alarmed;
static void on_alarm(int sig) { alarmed = sig; }

static void strict_handler(void) {
    struct itimerval soon = {{0, 0}, {0, 20000}};
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &soon, NULL);
    seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL);
    while (!alarmed) {}
    write(1, "back from a handler\n", 20);
    syscall(SYS_exit, 5);
}

static void *strict_thread(void *unused) {
    (void)unused;
    seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL);
    syscall(SYS_getpid);
    return NULL;
}

static void strict_in_a_thread(void) {
    pthread_t id;
    pthread_create(&id, NULL, strict_thread, NULL);
    pthread_join(id, NULL);
    puts("only the thread is gone");
}

static void strict_waits(void) {
    seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL);
    hand(back);
    take(go);
    syscall(SYS_exit, 0);
}

static void strict(void) {
    in_child("read, write, exit", strict_calls);
    in_child("another call", strict_other_call);
    in_child("exit_group", strict_exit_group);
    in_child("a handler", strict_handler);
    in_child("a thread", strict_in_a_thread);
    pipe(go);
    pipe(back);
    pid_t pid = start(strict_waits);
    take(back);
    show_status(pid);
    hand(go);
    await("it", pid);
}

/* Tracers. */

#define RAW(request, pid, addr, data) syscall(SYS_ptrace, (long)(request), (long)(pid), (long)(addr), (long)(data))

static long word_of(pid_t pid, long addr) {
    long word = 0;
    RAW(PTRACE_PEEKUSER, pid, addr, &word);
    return word;
}

static void traced_calls(void) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    on(CALL, SECCOMP_RET_TRACE | 0x1234, 0);
    on(SYS_getsid, SECCOMP_RET_ERRNO | 9, 0);
    raise(SIGSTOP);
    long first = raw(CALL, 1, 2, 3), second = raw(CALL, 1, 2, 3), third = raw(CALL, 1, 2, 3), fourth = raw(CALL, 1, 2, 3);
    _exit((first == -ENOSYS) + 2 * (second == 4711) + 4 * (third == -9) + 8 * (fourth == getpid()));
}

static void tell_stop(pid_t pid) {
    struct { __u8 op, pad[3]; __u32 arch; __u64 ip, sp, nr, args[6]; __u32 word; } info;
    memset(&info, 0, sizeof info);
    long message = 0, size = RAW(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
    RAW(PTRACE_GETEVENTMSG, pid, 0, &message);
    printf("message %#lx, op %d, size %d\n", message, info.op, info.op == 3 ? size >= 84 : size > 0);
    if (info.op == 3)
        printf("nr %d, arguments %d, word %#x, address %d, rax %ld\n", info.nr == CALL,
               info.args[0] == 1 && info.args[1] == 2 && info.args[2] == 3, info.word, info.ip == (__u64)behind_call,
               word_of(pid, REG(rax)));
}

static void traced(void) {
    pid_t pid = start(traced_calls);
    await("first stop", pid);
    /* Nobody has asked for these stops. */
    RAW(PTRACE_CONT, pid, 0, 0);
    await("without the option", pid);

    pid = start(traced_calls);
    await("first stop", pid);
    SAY(RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP));
    /* Stops at calls come before the filter's, and behind it. */
    for (int i = 0; i < 6; i++) {
        RAW(PTRACE_SYSCALL, pid, 0, 0);
        int status = await("stop", pid);
        long nr = word_of(pid, REG(orig_rax));
        if (nr != CALL) continue;
        tell_stop(pid);
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
            /* No call. */
            RAW(PTRACE_POKEUSER, pid, REG(orig_rax), -1L);
            RAW(PTRACE_SYSCALL, pid, 0, 0);
            await("its end", pid);
            printf("rax %ld\n", word_of(pid, REG(rax)));
            break;
        }
    }
    RAW(PTRACE_CONT, pid, 0, 0);
    await("second call", pid);
    RAW(PTRACE_POKEUSER, pid, REG(orig_rax), -1L);
    RAW(PTRACE_POKEUSER, pid, REG(rax), 4711L);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("third call, to be another that the filter refuses", pid);
    RAW(PTRACE_POKEUSER, pid, REG(orig_rax), (long)SYS_getsid);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("fourth call, to be another", pid);
    RAW(PTRACE_POKEUSER, pid, REG(orig_rax), (long)SYS_getpid);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("all as the tracer wanted", pid);

    pid = start(traced_calls);
    await("first stop", pid);
    RAW(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD);
    /* What the tracer makes of a call before the filter sees it. */
    for (int i = 0; i < 20; i++) {
        RAW(PTRACE_SYSCALL, pid, 0, 0);
        int status;
        waitpid(pid, &status, 0);
        if (!WIFSTOPPED(status)) break;
        if (word_of(pid, REG(orig_rax)) != CALL) continue;
        RAW(PTRACE_POKEUSER, pid, REG(orig_rax), (long)SYS_getsid);
        RAW(PTRACE_SYSCALL, pid, 0, 0);
        waitpid(pid, &status, 0);
        printf("refused as the other: %ld\n", word_of(pid, REG(rax)));
        break;
    }
    kill(pid, SIGKILL);
    await("killed", pid);
}

static void trap_traced(void) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    catch_it(0);
    on(CALL, SECCOMP_RET_TRAP | 5, 0);
    on(SYS_getsid, SECCOMP_RET_KILL_PROCESS, 0);
    raise(SIGSTOP);
    raw(CALL, 0, 0, 0);
    raw(SYS_getsid, 0, 0, 0);
}

static void traced_signals(void) {
    pid_t pid = start(trap_traced);
    await("first stop", pid);
    RAW(PTRACE_CONT, pid, 0, 0);
    await("trap", pid);
    siginfo_t info;
    RAW(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("code %d, errno %d, syscall %d, address %d; rax %d\n", info.si_code, info.si_errno, info.si_syscall == CALL,
           info.si_call_addr == behind_call, word_of(pid, REG(rax)) == CALL);
    RAW(PTRACE_CONT, pid, 0, SIGSYS);
    await("killed without a stop", pid);
}

/* Supervisors. */

static int listener = -1;
static unsigned listener_flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
static long results[16];
static volatile sig_atomic_t interruptions;
static void interrupted(int sig) { interruptions += sig > 0; }

/* A process that there is not. */
enum { NOBODY = 5000000 };

static void *supervised(void *argument) {
    int calls = (int)(long)argument;
    listener = on(CALL, SECCOMP_RET_USER_NOTIF, listener_flags);
    thread_id = gettid();
    hand(back);
    for (int i = 0; i < calls; i++) results[i] = raw(CALL, NOBODY + i, 20, 30);
    return NULL;
}

static void poll_listener(void) {
    struct pollfd one = {listener, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM, 0};
    int ready = poll(&one, 1, 0);
    printf("poll %d, %#x\n", ready, one.revents);
}

static uint64_t receive(void) {
    struct seccomp_notif notif;
    memset(&notif, 0, sizeof notif);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notif) < 0) {
        printf("receive: %s\n", strerrorname_np(errno));
        return 0;
    }
    printf("from the thread %d, flags %u, nr %d, arch %x, address %d, arguments %llu %llu %llu\n",
           notif.pid == (unsigned)thread_id, notif.flags, notif.data.nr == CALL, notif.data.arch,
           notif.data.instruction_pointer == (__u64)behind_call, notif.data.args[0], notif.data.args[1], notif.data.args[2]);
    return notif.id;
}

static void answer(uint64_t id, int64_t val, int error, unsigned flags) {
    struct seccomp_notif_resp response = {id, val, error, flags};
    printf("val %ld, error %d, flags %x: ", (long)val, error, flags);
    SAY(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response));
}

static void give(uint64_t id, unsigned flags, int source, int place, unsigned place_flags) {
    struct seccomp_notif_addfd gift = {id, flags, source, place, place_flags};
    printf("flags %x, place %d, %x: ", flags, place, place_flags);
    OPENED(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &gift));
}

static void supervise(void) {
    pthread_t id;
    pipe(back);
    pthread_create(&id, NULL, supervised, (void *)5);
    take(back);
    printf("listener %d, closed by exec %d\n", listener >= 0, fcntl(listener, F_GETFD));
    struct pollfd one = {listener, POLLIN, 0};
    poll(&one, 1, 10000);
    poll_listener();
    struct seccomp_notif full;
    memset(&full, 1, sizeof full);
    SAY(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &full));
    SAY(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, 16));
    uint64_t call = receive(), none = call + 100;
    poll_listener();
    SAY(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call));
    SAY(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &none));
    SAY(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, 16));
    SAY(ioctl(listener, 0x2109, 0));
    SAY(read(listener, &full, sizeof full));
    SAY(write(listener, &full, sizeof full));
    answer(none, 1, 0, 0);
    answer(call, 1, 0, 2);
    answer(call, 1, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
    answer(call, 0, -5, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
    answer(call, 4711, 0, 0);
    call = receive();
    answer(call, 1, -EXDEV, 0);
    call = receive();
    answer(call, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
    call = receive();
    give(none, 0, back[0], 0, 0);
    give(call, 4, back[0], 0, 0);
    give(call, 0, back[0], 0, 1);
    give(call, 0, back[0], 40, 0);
    give(call, 0, 999, 0, 0);
    give(call, 0, back[0], 0, O_CLOEXEC);
    give(call, SECCOMP_ADDFD_FLAG_SETFD, back[0], 41, 0);
    give(call, SECCOMP_ADDFD_FLAG_SETFD, back[0], 1 << 30, 0);
    printf("installed %d, closed by exec %d\n", fcntl(41, F_GETFD) >= 0, fcntl(41, F_GETFD));
    give(call, SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND, back[0], 42, O_CLOEXEC);
    answer(call, 1, 0, 0);
    call = receive();
    answer(call, 0, 0, 0);
    pthread_join(id, NULL);
    printf("%ld %ld %ld %ld %ld\n", results[0], results[1], results[2] < 0 ? results[2] : 0, results[3], results[4]);
    /* A thread that was waited for may be on its way out still. */
    struct pollfd ended = {listener, 0, 0};
    poll(&ended, 1, 10000);
    poll_listener();
    close(listener);

    /* Who interrupts a call takes it away. */
    struct sigaction once = {.sa_handler = interrupted}, again = {.sa_handler = interrupted, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &once, NULL);
    sigaction(SIGUSR2, &again, NULL);
    pthread_create(&id, NULL, supervised, (void *)3);
    take(back);
    call = receive();
    syscall(SYS_tgkill, getpid(), thread_id, SIGUSR1);
    uint64_t second = receive();
    printf("another %d\n", call != second);
    answer(call, 1, 0, 0);
    syscall(SYS_tgkill, getpid(), thread_id, SIGUSR2);
    uint64_t third = receive();
    printf("another %d\n", second != third);
    answer(third, 8, 0, 0);
    receive();
    /* And nobody is there any more. */
    close(listener);
    pthread_join(id, NULL);
    printf("%ld %ld %ld, interrupted %d times\n", results[0], results[1], results[2], interruptions);

    /* Unless the filter says that a call that was taken is not to be interrupted. */
    listener_flags |= SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    pthread_create(&id, NULL, supervised, (void *)1);
    take(back);
    call = receive();
    syscall(SYS_tgkill, getpid(), thread_id, SIGUSR1);
    usleep(20000);
    SAY(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call));
    answer(call, 9, 0, 0);
    pthread_join(id, NULL);
    close(listener);
    printf("%ld, interrupted %d times\n", results[0], interruptions);
    on(CALL, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    SAY(on(CALL, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER));
}

/* A sandbox as programs have them: few calls, checked arguments, an error for all else. */
#define ALLOW_CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), GIVE(SECCOMP_RET_ALLOW)
static void sandbox(void) {
    struct sock_filter code[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        GIVE(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        /* Calls of the x32 ABI. */
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
        GIVE(SECCOMP_RET_ERRNO | ENOSYS),
        ALLOW_CALL(read),
        ALLOW_CALL(brk),
        ALLOW_CALL(munmap),
        ALLOW_CALL(fstat),
        ALLOW_CALL(newfstatat),
        ALLOW_CALL(exit_group),
        ALLOW_CALL(rt_sigreturn),
        ALLOW_CALL(close),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 4),
        LOAD(args[0]),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 2, 0, 1),
        GIVE(SECCOMP_RET_ERRNO | EBADF),
        GIVE(SECCOMP_RET_ALLOW),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4),
        LOAD(args[2]),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        GIVE(SECCOMP_RET_ERRNO | EACCES),
        GIVE(SECCOMP_RET_ALLOW),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
        GIVE(SECCOMP_RET_KILL_PROCESS),
        GIVE(SECCOMP_RET_ERRNO | EPERM),
    };
    int file = open("/dev/null", O_RDWR);
    SAY(attach(0, code, COUNT(code)));
    OPENED(open("/dev/null", O_RDONLY));
    SAY(write(file, "x", 1));
    SAY(read(file, &file, 0));
    SAY(close(file));
    SAY(getppid());
    SAY(kill(getpid(), SIGKILL));
    SAY(fork());
    SAY(syscall(SYS_socket, 2, 1, 0));
    SAY(syscall(0x40000000 | SYS_getpid));
    char *memory = malloc(1 << 20);
    memset(memory, 7, 1 << 20);
    printf("memory: %d\n", memory[12345]);
    free(memory);
    void *code_page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("code: %s\n", code_page == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    SAY(munmap(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096));
    fflush(stdout);
    RAW(PTRACE_TRACEME, 0, 0, 0);
}

static void trace_me(void) {
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0) _exit(77);
}

int main(int argc, char **argv) {
    /* The group of the first process of a machine may be 0, and then so is what the call here gives. */
    setpgid(0, 0);
    if (argc > 1 && strcmp(argv[1], "executed") == 0) {
        printf("executed: %ld\n", raw(CALL, 0, 0, 0));
        show_status(getpid());
        return 0;
    }
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    int status;
    waitpid(start(trace_me), &status, 0);
    if (prctl(PR_GET_SECCOMP) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0 || status != 0) return 77;

    puts("arguments");
    in_child("done", errors);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        without_rights();
        fflush(stdout);
        _exit(0);
    }
    await("done", pid);
    puts("programs");
    in_child("done", operations);
    in_child("done", bounds);
    in_child("done", limits);
    arithmetic();
    in_child("divided by 0", divides);
    comparisons();
    in_child("done", sees);
    puts("actions");
    actions();
    puts("precedence");
    in_child("errors", errno_twice);
    in_child("error, allow", errno_and_allow);
    in_child("trace, error", trace_and_errno);
    in_child("error, trace", errno_and_trace);
    in_child("trap, error", trap_and_errno);
    in_child("log, notification", log_and_notify);
    puts("SIGSYS");
    in_child("handled", traps);
    in_child("blocked", trap_blocked);
    in_child("ignored", trap_ignored);
    in_child("killed", kill_caught);
    puts("threads");
    in_child("one is killed, then the last", kill_a_thread);
    in_child("all are killed", kill_all_threads);
    in_child("the first is killed", kill_first_thread);
    in_child("synchronized", synchronize);
    in_child("inherited", inherits);
    puts("strict mode");
    strict();
    puts("tracers");
    traced();
    traced_signals();
    puts("supervisors");
    in_child("done", supervise);
    puts("a sandbox");
    in_child("done", sandbox);
    puts("settings");
    char text[256] = "";
    int file = open("/proc/sys/kernel/seccomp/actions_avail", O_RDONLY);
    read(file, text, sizeof text - 1);
    printf("%s", text);
    return 0;
}
