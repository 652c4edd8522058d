//! Signals: names, sets, actions, `siginfo`.

use super::{Kind, Printer, text};
use crate::signal::{AltStack, SIGINFO_SIZE, SigAction, SigDetail, SigInfo, SigSet, code, number};
use crate::syscall::names;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use linux_raw_sys::ptrace::AUDIT_ARCH_X86_64;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("sigaction_in", sigaction),
    Kind::exit("sigaction_out", sigaction),
    Kind::entry("sigmask_how", |p, v| {
        p.choice(v, &[(0, "SIG_BLOCK"), (1, "SIG_UNBLOCK"), (2, "SIG_SETMASK")], "SIG_???");
    }),
    Kind::entry("sigset_in", sigset),
    Kind::exit("sigset_out", sigset),
    Kind::entry("siginfo_in", siginfo),
    Kind::exit("siginfo_out", siginfo),
    Kind::exit("siginfo", siginfo),
    Kind::entry("stack_in", stack),
    Kind::exit("stack_out", stack),
    Kind::entry("sigreturn", |p, _| p.omitted = true),
    Kind::entry("signalfd_flags", |p, v| {
        p.flags(v, &[(0o2_000_000, "SFD_CLOEXEC"), (0o4000, "SFD_NONBLOCK")], "SFD_???");
    }),
];

/// `SIGINT`, `SIGRT_1`; a number that is no signal as it is.
pub(in crate::trace) fn signal_name(sig: u8) -> String {
    match number::name(sig) {
        Some(name) => name.to_string(),
        None if sig == number::SIGRTMIN => "SIGRTMIN".to_string(),
        None if sig > number::SIGRTMIN && sig <= number::SIGRTMAX => format!("SIGRT_{}", sig - number::SIGRTMIN),
        None => format!("{sig}"),
    }
}

/// A signal number argument.
pub(super) fn argument(value: u64) -> String {
    let sig = value as i32;
    u8::try_from(sig).map_or_else(|_| format!("{sig}"), signal_name)
}

/// `[INT TERM]`; a set of more than half of the signals as what is missing from it: `~[INT]`.
pub(super) fn set(set: SigSet) -> String {
    let negated = set.0.count_ones() >= 2 * u64::BITS / 3;
    let shown = if negated { !set } else { set };
    let names: Vec<String> = shown.iter().map(|sig| signal_name(sig).split_off(3)).collect();
    format!("{}[{}]", if negated { "~" } else { "" }, names.join(" "))
}

fn sigset(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, bits: u64| p.push(&set(SigSet(bits))));
}

const SA_FLAGS: &[(u64, &str)] = &[
    (0x0400_0000, "SA_RESTORER"),
    (0x0800_0000, "SA_ONSTACK"),
    (0x1000_0000, "SA_RESTART"),
    (0x4000_0000, "SA_NODEFER"),
    (0x8000_0000, "SA_RESETHAND"),
    (4, "SA_SIGINFO"),
    (1, "SA_NOCLDSTOP"),
    (2, "SA_NOCLDWAIT"),
];

fn sigaction(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, action: SigAction| {
        let handler = match action.handler {
            SigAction::DEFAULT => "SIG_DFL".into(),
            SigAction::IGNORE => "SIG_IGN".into(),
            address => text::hex(address),
        };
        let text = format!("{{sa_handler={handler}, sa_mask={}, sa_flags=", set(action.mask));
        p.push(&text);
        p.flags(action.flags, SA_FLAGS, "SA_???");
        if action.flags & 0x0400_0000 != 0 {
            let text = format!(", sa_restorer={}", text::hex(action.restorer));
            p.push(&text);
        }
        p.push("}");
    });
}

fn stack(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, stack: AltStack| {
        p.push("{ss_sp=");
        p.address(stack.base);
        p.push(", ss_flags=");
        p.flags(u64::from(stack.flags), &[(1, "SS_ONSTACK"), (2, "SS_DISABLE"), (1 << 31, "SS_AUTODISARM")], "SS_???");
        let text = format!(", ss_size={}}}", stack.size);
        p.push(&text);
    });
}

fn siginfo(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, raw: [u8; SIGINFO_SIZE]| {
        let signo = i32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]);
        match u8::try_from(signo) {
            Ok(0) => p.push("{}"),
            Ok(signo) => p.push(&braces(&decode_raw(signo, &raw))),
            Err(_) => p.push(&text::hex(addr)),
        }
    });
}

/// A `siginfo_t` in user memory, which may be the kernel's or a process's.
fn decode_raw(signo: u8, raw: &[u8; SIGINFO_SIZE]) -> SigInfo {
    let info = SigInfo::decode(signo, raw);
    let int = |at: usize| i32::from_ne_bytes(core::array::from_fn(|i| raw[at + i]));
    let long = |at: usize| u64::from_ne_bytes(core::array::from_fn(|i| raw[at + i]));
    let detail = match (signo, info.code) {
        (number::SIGCHLD, 1..=6) => {
            SigDetail::Child { pid: int(16), uid: int(20) as u32, status: int(24), utime: long(32), stime: long(40) }
        }
        (_, code::SI_KERNEL) => SigDetail::None,
        (_, 1..) if number::SYNCHRONOUS.contains(signo) => SigDetail::Fault { addr: long(16) },
        _ => return info,
    };
    SigInfo { detail, ..info }
}

fn code_name(signo: u8, value: i32) -> Option<&'static str> {
    Some(match (signo, value) {
        (_, code::SI_USER) => "SI_USER",
        (_, code::SI_KERNEL) => "SI_KERNEL",
        (_, code::SI_QUEUE) => "SI_QUEUE",
        (_, code::SI_TIMER) => "SI_TIMER",
        (_, code::SI_SIGIO) => "SI_SIGIO",
        (_, code::SI_TKILL) => "SI_TKILL",
        (_, code::SI_MESGQ) => "SI_MESGQ",
        (_, -4) => "SI_ASYNCIO",
        (number::SIGCHLD, 1) => "CLD_EXITED",
        (number::SIGCHLD, 2) => "CLD_KILLED",
        (number::SIGCHLD, 3) => "CLD_DUMPED",
        (number::SIGCHLD, 4) => "CLD_TRAPPED",
        (number::SIGCHLD, 5) => "CLD_STOPPED",
        (number::SIGCHLD, 6) => "CLD_CONTINUED",
        (number::SIGSEGV, 1) => "SEGV_MAPERR",
        (number::SIGSEGV, 2) => "SEGV_ACCERR",
        (number::SIGBUS, 1) => "BUS_ADRALN",
        (number::SIGBUS, 2) => "BUS_ADRERR",
        (number::SIGFPE, 1) => "FPE_INTDIV",
        (number::SIGFPE, 3) => "FPE_FLTDIV",
        (number::SIGILL, 2) => "ILL_ILLOPN",
        (number::SIGTRAP, 1) => "TRAP_BRKPT",
        (number::SIGTRAP, 2) => "TRAP_TRACE",
        (number::SIGSYS, code::SYS_SECCOMP) => "SYS_SECCOMP",
        _ => return None,
    })
}

fn braces(info: &SigInfo) -> String {
    let name = signal_name(info.signo);
    let code = code_name(info.signo, info.code).map_or_else(|| format!("{}", info.code), Into::into);
    let mut out = format!("{{si_signo={name}, si_code={code}");
    match info.detail {
        SigDetail::None => {}
        SigDetail::Sender { pid, uid, value } => {
            out += &format!(", si_pid={pid}, si_uid={uid}");
            if !matches!(info.code, code::SI_USER | code::SI_TKILL) && value != 0 {
                out += &format!(", si_int={}, si_ptr={}", value as i32, text::hex(value));
            }
        }
        SigDetail::Child { pid, uid, status, utime, stime } => {
            let status = match info.code {
                code::CLD_EXITED => format!("{status}"),
                _ => argument(status as u64),
            };
            let time = |ticks: u64| match ticks {
                0 => "0".into(),
                _ => format!("{ticks} /* {}.{:02} s */", ticks / 100, ticks % 100),
            };
            out += &format!(", si_pid={pid}, si_uid={uid}, si_status={status}");
            out += &format!(", si_utime={}, si_stime={}", time(utime), time(stime));
        }
        SigDetail::Fault { addr } => {
            let addr = if addr == 0 { "NULL".into() } else { text::hex(addr) };
            out += &format!(", si_addr={addr}");
        }
        SigDetail::Timer { id, overrun, value } => {
            out += &format!(", si_timerid={}, si_overrun={overrun}", text::hex(id as u32 as u64));
            if value != 0 {
                out += &format!(", si_int={}, si_ptr={}", value as i32, text::hex(value));
            }
        }
        SigDetail::Poll { band, fd } => out += &format!(", si_band={band}, si_fd={fd}"),
        SigDetail::Call { addr, nr, arch } => {
            let name = match arch {
                AUDIT_ARCH_X86_64 => "AUDIT_ARCH_X86_64".into(),
                _ => text::hex(arch.into()),
            };
            let call = names::name(nr as u64).map_or_else(|| format!("{nr}"), |name| format!("__NR_{name}"));
            out += &format!(", si_call_addr={}, si_syscall={call}, si_arch={name}", text::hex(addr));
        }
    }
    out + "}"
}

/// `SIGINT {si_signo=SIGINT, ...}`.
pub(in crate::trace) fn signal_line(info: &SigInfo) -> String {
    format!("{} {}", signal_name(info.signo), braces(info))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::number::*;

    #[test]
    fn sets_read_as_strace_prints_them() {
        assert_eq!(set(SigSet::EMPTY), "[]");
        assert_eq!(set(SigSet::of(&[SIGINT, 35])), "[INT RT_3]");
        assert_eq!(set(!SigSet::of(&[32, 33])), "~[RTMIN RT_1]");
        assert_eq!(set(!SigSet::of(&[SIGKILL, SIGALRM, SIGSTOP, 32, 33])), "~[KILL ALRM STOP RTMIN RT_1]");
    }

    #[test]
    fn signal_lines_read_as_strace_prints_them() {
        assert_eq!(
            signal_line(&SigInfo::user(SIGUSR1, code::SI_TKILL, 7, 0)),
            "SIGUSR1 {si_signo=SIGUSR1, si_code=SI_TKILL, si_pid=7, si_uid=0}"
        );
        assert_eq!(
            signal_line(&SigInfo::fault(SIGSEGV, 1, 16)),
            "SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x10}"
        );
        let detail = SigDetail::Child { pid: 5, uid: 0, status: 9, utime: 0, stime: 7 };
        assert_eq!(
            signal_line(&SigInfo { signo: SIGCHLD, code: code::CLD_KILLED, errno: 0, detail }),
            "SIGCHLD {si_signo=SIGCHLD, si_code=CLD_KILLED, si_pid=5, si_uid=0, si_status=SIGKILL, si_utime=0, \
             si_stime=7 /* 0.07 s */}"
        );
        assert_eq!(signal_line(&SigInfo::kernel(SIGINT)), "SIGINT {si_signo=SIGINT, si_code=SI_KERNEL}");
    }
}
