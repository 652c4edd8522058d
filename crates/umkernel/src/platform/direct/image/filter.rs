//! The seccomp filters of guest processes and of the kernel process.
//!
//! System calls from anywhere but the kernel's few call instructions trap (`SIGSYS`): that is how guest code's calls come in.
//! Those instructions lie in memory that guest code can jump to, with arguments of its own. So what they may ask for is limited to
//! what the kernel needs: memory of the process itself, files that the machine has open, new guest processes, waiting. No call here
//! names a file, a process or a socket of the host.
//!
//! The kernel process runs the same code on the same memory, which a hostile guest can write, so it is behind a filter as well.

use super::arena::arena;
use super::entry::at;
use super::vdso::{self, CLOCKS};
use crate::errno::Result;
use crate::host;
use alloc::vec::Vec;
use core::ops::Range;
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::{TCGETS, TCSETS, TIOCGWINSZ};
use linux_raw_sys::ptrace::AUDIT_ARCH_X86_64;

const LD_W_ABS: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

const TRAP: u32 = 0x0003_0000;
const ALLOW: u32 = 0x7fff_0000;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP: u32 = 8;
const ARGS: u32 = 16;

/// Calls that are harmless whatever their arguments are.
const ALLOWED: &[u32] = &[
    __NR_futex,
    __NR_pread64,
    __NR_pwrite64,
    __NR_write,
    __NR_poll,
    __NR_mmap,
    __NR_munmap,
    __NR_mprotect,
    __NR_pkey_mprotect,
    __NR_mremap,
    __NR_madvise,
    __NR_clock_gettime,
    __NR_exit,
    __NR_exit_group,
    __NR_rt_sigreturn,
    __NR_rt_sigprocmask,
    __NR_sigaltstack,
    __NR_fdatasync,
    __NR_ftruncate,
    __NR_fallocate,
    __NR_memfd_create,
    __NR_close,
    __NR_getrandom,
    __NR_sched_yield,
    __NR_getcpu,
    __NR_getpid,
    __NR_gettid,
    __NR_getppid,
    __NR_membarrier,
    __NR_set_robust_list,
    // What the host makes of a call with a time limit that a stop interrupted, when the process goes on.
    __NR_restart_syscall,
];

/// Bits of `clone`'s flags that the kernel uses. Namespaces are not among them.
const CLONE_ALLOWED: u32 = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_PARENT
    | CLONE_PARENT_SETTID
    | SIGCHLD;

#[repr(C)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

fn op(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// What an argument's lower half must be.
enum Test {
    Is(u32),
    /// No other bits than these.
    Within(u32),
    /// At least one of these bits.
    Has(u32),
}

/// Allows a call with these arguments. A mismatch goes on behind.
fn allow(program: &mut Vec<Instruction>, nr: u32, tests: &[(u32, Test)]) {
    let behind = |left: usize| (2 * left + 1) as u8;
    program.push(op(LD_W_ABS, NR, 0, 0));
    program.push(op(JEQ, nr, 0, behind(tests.len())));
    for (i, (argument, test)) in tests.iter().enumerate() {
        let fail = behind(tests.len() - 1 - i);
        program.push(op(LD_W_ABS, ARGS + 8 * argument, 0, 0));
        program.push(match test {
            Test::Is(value) => op(JEQ, *value, 0, fail),
            Test::Within(mask) => op(JSET, !mask, fail, 0),
            Test::Has(mask) => op(JSET, *mask, 0, fail),
        });
    }
    program.push(op(RET, ALLOW, 0, 0));
}

/// Whose filter it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    GuestProcess,
    /// The process that runs the machine's services: the console's input, the host's signals, reaping.
    KernelProcess,
}

/// Allows the host's vdso, where it cannot read the clock itself, to ask the host for the time. Guests see the host's time anyway.
fn allow_clock(program: &mut Vec<Instruction>, vdso: &Range<u64>) {
    let (high, start, end) = ((vdso.start >> 32) as u32, vdso.start as u32, vdso.end as u32);
    let clocks = CLOCKS.len() as u8;
    // From each jump to behind the last instruction.
    program.extend([
        op(LD_W_ABS, NR, 0, 0),
        op(JEQ, __NR_clock_gettime, 0, clocks + 8),
        op(LD_W_ABS, IP + 4, 0, 0),
        op(JEQ, high, 0, clocks + 6),
        op(LD_W_ABS, IP, 0, 0),
        op(JGE, start, 0, clocks + 4),
        op(JGE, end, clocks + 3, 0),
        op(LD_W_ABS, ARGS, 0, 0),
    ]);
    program.extend((1..=clocks).rev().zip(CLOCKS).map(|(left, clock)| op(JEQ, clock as u32, left, 0)));
    program.extend([op(JA, 1, 0, 0), op(RET, ALLOW, 0, 0)]);
}

/// What a filter knows of the machine.
#[derive(Clone, Copy)]
struct Known<'a> {
    /// Sockets that answers are read from: the broker's and the share server's.
    sockets: &'a [i32],
    /// The zygote's host id.
    zygote: u32,
    vdso: &'a Range<u64>,
}

fn program(role: Role, known: Known<'_>) -> Vec<Instruction> {
    let Known { sockets, zygote, vdso } = known;
    let range = at::hostcall();
    let (high, start, end) = ((range.start >> 32) as u32, range.start as u32, range.end as u32);
    let mut program = alloc::vec![op(LD_W_ABS, ARCH, 0, 0), op(JEQ, AUDIT_ARCH_X86_64, 1, 0), op(RET, TRAP, 0, 0),];
    allow_clock(&mut program, vdso);
    program.extend([
        op(LD_W_ABS, IP + 4, 0, 0),
        op(JEQ, high, 1, 0),
        op(RET, TRAP, 0, 0),
        op(LD_W_ABS, IP, 0, 0),
        op(JGE, start, 1, 0),
        op(RET, TRAP, 0, 0),
        op(JGT, end, 0, 1),
        op(RET, TRAP, 0, 0),
        op(LD_W_ABS, NR, 0, 0),
    ]);
    for nr in ALLOWED {
        program.push(op(JEQ, *nr, 0, 1));
        program.push(op(RET, ALLOW, 0, 0));
    }
    const RUSAGE_SELF: u32 = 0;
    const RUSAGE_THREAD: u32 = 1;
    // Processes are children of the kernel process, whoever makes them.
    let of_the_machine = Test::Has(CLONE_THREAD | CLONE_PARENT);
    allow(&mut program, __NR_clone, &[(0, Test::Within(CLONE_ALLOWED)), (0, of_the_machine)]);
    allow(&mut program, __NR_prctl, &[(0, Test::Is(PR_SET_PDEATHSIG)), (1, Test::Is(SIGKILL))]);
    allow(&mut program, __NR_getrusage, &[(0, Test::Within(RUSAGE_SELF | RUSAGE_THREAD))]);
    for socket in sockets.iter().filter(|socket| **socket >= 0) {
        allow(&mut program, __NR_read, &[(0, Test::Is(*socket as u32))]);
    }
    if role == Role::KernelProcess {
        allow(&mut program, __NR_read, &[(0, Test::Is(0))]);
        for request in [TCGETS, TCSETS, TIOCGWINSZ] {
            allow(&mut program, __NR_ioctl, &[(1, Test::Is(request))]);
        }
        for nr in [__NR_rt_sigtimedwait, __NR_clock_nanosleep, __NR_wait4, __NR_flock] {
            allow(&mut program, nr, &[]);
        }
        allow(&mut program, __NR_kill, &[(0, Test::Is(zygote)), (1, Test::Is(SIGKILL))]);
    }
    program.push(op(RET, TRAP, 0, 0));
    program
}

/// `PR_SET_PDEATHSIG` of `linux/prctl.h`.
const PR_SET_PDEATHSIG: u32 = 1;

/// Puts the running process, and all that come from it from now on, behind its filter.
///
/// # Errors
/// What the host says; a host without seccomp cannot run guests this way.
pub(super) fn install(role: Role) -> Result<()> {
    let arena = arena();
    let sockets: Vec<i32> = [arena.broker.socket()].into_iter().chain(arena.shares).collect();
    let known = Known { sockets: &sockets, zygote: arena.zygote.host_pid() as u32, vdso: &vdso::range() };
    let program = program(role, known);
    let filter = Program { len: program.len() as u16, filter: program.as_ptr() };
    host::set_seccomp_filter(&raw const filter as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VDSO: Range<u64> = 0x7fff_1234_5000..0x7fff_1234_7000;

    fn known(zygote: u32) -> Known<'static> {
        Known { sockets: &[7, 9, -1], zygote, vdso: &VDSO }
    }

    /// Runs a filter as the host would.
    fn decide(program: &[Instruction], data: &[u32; 16]) -> u32 {
        let (mut at, mut acc) = (0, 0);
        loop {
            let i = &program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LD_W_ABS => acc = data[i.k as usize / 4],
                JEQ => at += jump(acc == i.k),
                JGT => at += jump(acc > i.k),
                JGE => at += jump(acc >= i.k),
                JSET => at += jump(acc & i.k != 0),
                JA => at += i.k as usize,
                RET => return i.k,
                _ => panic!("unknown code"),
            }
        }
    }

    fn data(nr: u32, ip: u64, args: [u64; 6]) -> [u32; 16] {
        let mut data = [0; 16];
        (data[0], data[1], data[2], data[3]) = (nr, AUDIT_ARCH_X86_64, ip as u32, (ip >> 32) as u32);
        for (i, arg) in args.iter().enumerate() {
            (data[4 + 2 * i], data[5 + 2 * i]) = (*arg as u32, (*arg >> 32) as u32);
        }
        data
    }

    #[test]
    fn only_the_kernels_own_calls_pass() {
        let program = program(Role::GuestProcess, known(0));
        let inside = at::hostcall().start + 2;
        assert_eq!(decide(&program, &data(__NR_futex, inside, [0; 6])), ALLOW);
        assert_eq!(decide(&program, &data(__NR_futex, inside - 0x1000, [0; 6])), TRAP);
        assert_eq!(decide(&program, &data(__NR_futex, at::hostcall().end + 2, [0; 6])), TRAP);
        for nr in [
            __NR_open,
            __NR_openat,
            __NR_kill,
            __NR_tgkill,
            __NR_socket,
            __NR_ptrace,
            __NR_execve,
            __NR_process_vm_writev,
        ] {
            assert_eq!(decide(&program, &data(nr, inside, [0; 6])), TRAP, "{nr}");
        }
        let mut foreign = data(__NR_futex, inside, [0; 6]);
        foreign[1] = 0x4000_0003;
        assert_eq!(decide(&program, &foreign), TRAP);
    }

    /// On hosts whose clock is not the processor's, the vdso makes a call.
    #[test]
    fn the_vdso_asks_for_the_time_and_for_nothing_else() {
        let program = program(Role::GuestProcess, known(0));
        let clock =
            |ip: u64, clock: i32| decide(&program, &data(__NR_clock_gettime, ip, [clock as u64, 0, 0, 0, 0, 0]));
        for known in CLOCKS {
            assert_eq!(clock(VDSO.start, known), ALLOW, "{known}");
            assert_eq!(clock(VDSO.end - 1, known), ALLOW, "{known}");
            for outside in [VDSO.start - 1, VDSO.end, VDSO.start + (1 << 32)] {
                assert_eq!(clock(outside, known), TRAP, "{known}");
            }
        }
        // Those of a process, of a thread, and of devices.
        for other in [2, 3, 8, -2, -6] {
            assert_eq!(clock(VDSO.start, other), TRAP, "{other}");
        }
        for nr in [__NR_futex, __NR_clock_settime, __NR_write] {
            assert_eq!(decide(&program, &data(nr, VDSO.start, [0; 6])), TRAP, "{nr}");
        }
        assert_eq!(
            decide(
                &super::program(Role::GuestProcess, Known { vdso: &(0..0), ..known(0) }),
                &data(__NR_clock_gettime, 0, [0; 6])
            ),
            TRAP
        );
    }

    #[test]
    fn arguments_are_looked_at() {
        let program = program(Role::GuestProcess, known(0));
        let inside = at::hostcall().start + 2;
        let clone = |flags: u32| decide(&program, &data(__NR_clone, inside, [flags.into(), 0, 0, 0, 0, 0]));
        assert_eq!(clone(CLONE_FILES | CLONE_PARENT | SIGCHLD), ALLOW);
        assert_eq!(clone(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD), ALLOW);
        assert_eq!(clone(CLONE_FILES | SIGCHLD), TRAP);
        assert_eq!(clone(CLONE_NEWUSER | CLONE_PARENT | SIGCHLD), TRAP);
        assert_eq!(clone(CLONE_PTRACE | CLONE_PARENT), TRAP);
        let prctl = |a: u32, b: u32| decide(&program, &data(__NR_prctl, inside, [a.into(), b.into(), 0, 0, 0, 0]));
        assert_eq!(prctl(PR_SET_PDEATHSIG, SIGKILL), ALLOW);
        assert_eq!(prctl(PR_SET_PDEATHSIG, 0), TRAP);
        assert_eq!(prctl(15, SIGKILL), TRAP);
        let read = |program: &[Instruction], fd: u64| decide(program, &data(__NR_read, inside, [fd, 0, 0, 0, 0, 0]));
        assert_eq!([7, 9, 0, 3, u32::MAX.into()].map(|fd| read(&program, fd)), [ALLOW, ALLOW, TRAP, TRAP, TRAP]);
        let kernel = super::program(Role::KernelProcess, known(1234));
        assert_eq!((read(&kernel, 7), read(&kernel, 0), read(&kernel, 3)), (ALLOW, ALLOW, TRAP));
        let kill = |pid: u64, sig: u64| decide(&kernel, &data(__NR_kill, inside, [pid, sig, 0, 0, 0, 0]));
        assert_eq!((kill(1234, 9), kill(1, 9), kill(1234, 19)), (ALLOW, TRAP, TRAP));
    }
}
