//! Processes: clone flags, wait statuses, process control.

use super::{Kind, Printer, signal, text};
use alloc::format;
use alloc::string::String;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("clone_flags", |p, v| p.push(&clone_flags(v))),
    Kind::entry("clone_args", clone_args),
    Kind::exit("wait_status", wait_status),
    Kind::entry("wait_options", |p, v| p.flags(v & 0xffff_ffff, WAIT_OPTIONS, "W???")),
    Kind::entry("idtype", |p, v| {
        p.choice(v, &[(0, "P_ALL"), (1, "P_PID"), (2, "P_PGID"), (3, "P_PIDFD")], "P_???");
    }),
    Kind::entry("arch_prctl", |p, v| p.choice(v, ARCH_PRCTL, "ARCH_???")),
    Kind::entry("ptrace_request", |p, v| p.choice(v, PTRACE, "PTRACE_???")),
    Kind::entry("prctl", prctl),
    Kind::entry("seccomp_operation", |p, v| p.choice(v & 0xffff_ffff, SECCOMP, "SECCOMP_???")),
    Kind::entry("seccomp_flags", |p, v| p.flags(v & 0xffff_ffff, SECCOMP_FLAGS, "SECCOMP_FILTER_FLAG_???")),
    Kind::entry("priority_which", |p, v| {
        p.choice(v, &[(0, "PRIO_PROCESS"), (1, "PRIO_PGRP"), (2, "PRIO_USER")], "PRIO_???");
    }),
    Kind::entry("sched_policy", |p, v| p.choice(v & 0x3fff_ffff, POLICIES, "SCHED_???")),
    Kind::entry("sched_param_in", |p, v| p.structure(v, |p, n: i32| p.push(&format!("[{n}]")))),
    Kind::exit("sched_param_out", |p, v| p.structure(v, |p, n: i32| p.push(&format!("[{n}]")))),
    Kind::entry("cpu_set_in", |p, v| cpu_set(p, v, p.args[1])),
    Kind::exit("cpu_set_out", |p, v| match p.result {
        Some(Ok(len)) => cpu_set(p, v, *len as u64),
        _ => p.address(v),
    }),
    Kind::entry("pidfd_flags", |p, v| p.flags(v, &[(0o4000, "PIDFD_NONBLOCK")], "PIDFD_???")),
];

const CLONE: &[(u64, &str)] = &[
    (0x100, "CLONE_VM"),
    (0x200, "CLONE_FS"),
    (0x400, "CLONE_FILES"),
    (0x800, "CLONE_SIGHAND"),
    (0x1000, "CLONE_PIDFD"),
    (0x2000, "CLONE_PTRACE"),
    (0x4000, "CLONE_VFORK"),
    (0x8000, "CLONE_PARENT"),
    (0x10000, "CLONE_THREAD"),
    (0x20000, "CLONE_NEWNS"),
    (0x40000, "CLONE_SYSVSEM"),
    (0x80000, "CLONE_SETTLS"),
    (0x10_0000, "CLONE_PARENT_SETTID"),
    (0x20_0000, "CLONE_CHILD_CLEARTID"),
    (0x80_0000, "CLONE_UNTRACED"),
    (0x100_0000, "CLONE_CHILD_SETTID"),
    (0x200_0000, "CLONE_NEWCGROUP"),
    (0x400_0000, "CLONE_NEWUTS"),
    (0x800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
    (0x8000_0000, "CLONE_IO"),
    (0x1_0000_0000, "CLONE_CLEAR_SIGHAND"),
    (0x2_0000_0000, "CLONE_INTO_CGROUP"),
];
const SETTLS: u64 = 0x80000;
const PARENT_SETTID: u64 = 0x10_0000;
const CHILD_TID: u64 = 0x20_0000 | 0x100_0000;

/// The flags and, in their lowest byte, the signal to the parent.
fn clone_flags(value: u64) -> String {
    let (flags, sig) = (value & !0xff, value & 0xff);
    match (flags, sig) {
        (0, 0) => "0".into(),
        (0, _) => signal::argument(sig),
        (_, 0) => super::flags::show(flags, CLONE, "CLONE_???"),
        _ => format!("{}|{}", super::flags::show(flags, CLONE, "CLONE_???"), signal::argument(sig)),
    }
}

/// Calls whose text is not a list of their arguments in order; true if it was one of them.
pub(super) fn custom_entry(p: &mut Printer) -> bool {
    if p.is("clone") {
        let [flags, stack, ..] = p.args;
        let stack = if stack == 0 { "NULL".into() } else { text::hex(stack) };
        let text = format!("child_stack={stack}, flags={}", clone_flags(flags));
        p.push(&text);
        return true;
    }
    if p.is("rt_sigreturn") {
        // Its only argument is the frame on the stack, which the interrupted context's mask is of interest in.
        const MASK: u64 = 304;
        let frame = p.stack.wrapping_sub(8);
        let mask = p.read(frame.wrapping_add(MASK)).unwrap_or(0);
        let text = format!("{{mask={}}}", signal::set(crate::signal::SigSet(mask)));
        p.push(&text);
        return true;
    }
    false
}

/// What [`custom_entry`] left for after the call.
pub(super) fn custom_exit(p: &mut Printer) {
    if !p.is("clone") {
        return;
    }
    let [flags, _, parent_tid, child_tid, tls, _] = p.args;
    if flags & PARENT_SETTID != 0 {
        let tid: Option<i32> = if p.failed() { None } else { p.read(parent_tid) };
        let text = tid.map_or_else(|| text::hex(parent_tid), |tid| format!("[{tid}]"));
        p.push(&format!(", parent_tid={text}"));
    }
    if flags & SETTLS != 0 {
        p.push(&format!(", tls={}", text::hex(tls)));
    }
    if flags & CHILD_TID != 0 {
        p.push(&format!(", child_tidptr={}", text::hex(child_tid)));
    }
}

/// `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
fn clone_args(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, w: [u64; 8]| {
        let mut text = format!("{{flags={}", if w[0] == 0 { "0".into() } else { clone_flags(w[0]) });
        if w[0] & CHILD_TID != 0 {
            text += &format!(", child_tid={}", text::hex(w[2]));
        }
        if w[0] & PARENT_SETTID != 0 {
            text += &format!(", parent_tid={}", text::hex(w[3]));
        }
        let stack = if w[5] == 0 { "NULL".into() } else { text::hex(w[5]) };
        text += &format!(", exit_signal={}, stack={stack}, stack_size={}", signal::argument(w[4]), text::hex(w[6]));
        if w[0] & SETTLS != 0 {
            text += &format!(", tls={}", text::hex(w[7]));
        }
        p.push(&(text + "}"));
    });
}

const WAIT_OPTIONS: &[(u64, &str)] = &[
    (1, "WNOHANG"),
    (2, "WSTOPPED"),
    (4, "WEXITED"),
    (8, "WCONTINUED"),
    (0x100_0000, "WNOWAIT"),
    (0x8000_0000, "__WCLONE"),
    (0x4000_0000, "__WALL"),
    (0x2000_0000, "__WNOTHREAD"),
];

fn wait_status(p: &mut Printer, addr: u64) {
    // Without a child to tell of, nothing was stored.
    if matches!(p.result, Some(Ok(0))) {
        return p.address(addr);
    }
    p.structure(addr, |p, status: u32| p.push(&format!("[{{{}}}{}]", status_text(status), event_text(status))));
}

fn status_text(status: u32) -> String {
    let sig = |n: u32| signal::argument(u64::from(n));
    match (status & 0x7f, status >> 8 & 0xff) {
        (0, code) => format!("WIFEXITED(s) && WEXITSTATUS(s) == {code}"),
        (0x7f, 0xff) if status == 0xffff => "WIFCONTINUED(s)".into(),
        (0x7f, stop) => {
            let call = if stop & 0x80 != 0 { " | 0x80" } else { "" };
            format!("WIFSTOPPED(s) && WSTOPSIG(s) == {}{call}", sig(stop & 0x7f))
        }
        (signo, _) => {
            let core = if status & 0x80 != 0 { " && WCOREDUMP(s)" } else { "" };
            format!("WIFSIGNALED(s) && WTERMSIG(s) == {}{core}", sig(signo))
        }
    }
}

/// The event of a tracee's stop in a status, if there is one.
fn event_text(status: u32) -> String {
    let event = match status >> 16 {
        0 => return String::new(),
        1 => "PTRACE_EVENT_FORK",
        2 => "PTRACE_EVENT_VFORK",
        3 => "PTRACE_EVENT_CLONE",
        4 => "PTRACE_EVENT_EXEC",
        5 => "PTRACE_EVENT_VFORK_DONE",
        6 => "PTRACE_EVENT_EXIT",
        7 => "PTRACE_EVENT_SECCOMP",
        128 => "PTRACE_EVENT_STOP",
        other => return format!(" | {other:#x} /* PTRACE_EVENT_??? */ << 16"),
    };
    format!(" | {event} << 16")
}

/// Requests of `ptrace(2)`, as strace names them.
const PTRACE: &[(u64, &str)] = &[
    (0, "PTRACE_TRACEME"),
    (1, "PTRACE_PEEKTEXT"),
    (2, "PTRACE_PEEKDATA"),
    (3, "PTRACE_PEEKUSER"),
    (4, "PTRACE_POKETEXT"),
    (5, "PTRACE_POKEDATA"),
    (6, "PTRACE_POKEUSER"),
    (7, "PTRACE_CONT"),
    (8, "PTRACE_KILL"),
    (9, "PTRACE_SINGLESTEP"),
    (12, "PTRACE_GETREGS"),
    (13, "PTRACE_SETREGS"),
    (14, "PTRACE_GETFPREGS"),
    (15, "PTRACE_SETFPREGS"),
    (16, "PTRACE_ATTACH"),
    (17, "PTRACE_DETACH"),
    (21, "PTRACE_OLDSETOPTIONS"),
    (24, "PTRACE_SYSCALL"),
    (30, "PTRACE_ARCH_PRCTL"),
    (31, "PTRACE_SYSEMU"),
    (32, "PTRACE_SYSEMU_SINGLESTEP"),
    (0x4200, "PTRACE_SETOPTIONS"),
    (0x4201, "PTRACE_GETEVENTMSG"),
    (0x4202, "PTRACE_GETSIGINFO"),
    (0x4203, "PTRACE_SETSIGINFO"),
    (0x4204, "PTRACE_GETREGSET"),
    (0x4205, "PTRACE_SETREGSET"),
    (0x4206, "PTRACE_SEIZE"),
    (0x4207, "PTRACE_INTERRUPT"),
    (0x4208, "PTRACE_LISTEN"),
    (0x4209, "PTRACE_PEEKSIGINFO"),
    (0x420a, "PTRACE_GETSIGMASK"),
    (0x420b, "PTRACE_SETSIGMASK"),
    (0x420c, "PTRACE_SECCOMP_GET_FILTER"),
    (0x420d, "PTRACE_SECCOMP_GET_METADATA"),
    (0x420e, "PTRACE_GET_SYSCALL_INFO"),
];

const SECCOMP: &[(u64, &str)] = &[
    (0, "SECCOMP_SET_MODE_STRICT"),
    (1, "SECCOMP_SET_MODE_FILTER"),
    (2, "SECCOMP_GET_ACTION_AVAIL"),
    (3, "SECCOMP_GET_NOTIF_SIZES"),
];

const SECCOMP_FLAGS: &[(u64, &str)] = &[
    (1, "SECCOMP_FILTER_FLAG_TSYNC"),
    (2, "SECCOMP_FILTER_FLAG_LOG"),
    (4, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
    (8, "SECCOMP_FILTER_FLAG_NEW_LISTENER"),
    (16, "SECCOMP_FILTER_FLAG_TSYNC_ESRCH"),
    (32, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
];

const ARCH_PRCTL: &[(u64, &str)] = &[
    (0x1001, "ARCH_SET_GS"),
    (0x1002, "ARCH_SET_FS"),
    (0x1003, "ARCH_GET_FS"),
    (0x1004, "ARCH_GET_GS"),
    (0x1011, "ARCH_GET_CPUID"),
    (0x1012, "ARCH_SET_CPUID"),
];

const PRCTL: &[(u64, &str)] = &[
    (1, "PR_SET_PDEATHSIG"),
    (2, "PR_GET_PDEATHSIG"),
    (3, "PR_GET_DUMPABLE"),
    (4, "PR_SET_DUMPABLE"),
    (7, "PR_GET_KEEPCAPS"),
    (8, "PR_SET_KEEPCAPS"),
    (15, "PR_SET_NAME"),
    (16, "PR_GET_NAME"),
    (21, "PR_GET_SECCOMP"),
    (22, "PR_SET_SECCOMP"),
    (23, "PR_CAPBSET_READ"),
    (24, "PR_CAPBSET_DROP"),
    (27, "PR_GET_SECUREBITS"),
    (28, "PR_SET_SECUREBITS"),
    (29, "PR_SET_TIMERSLACK"),
    (30, "PR_GET_TIMERSLACK"),
    (35, "PR_SET_MM"),
    (36, "PR_SET_CHILD_SUBREAPER"),
    (37, "PR_GET_CHILD_SUBREAPER"),
    (38, "PR_SET_NO_NEW_PRIVS"),
    (39, "PR_GET_NO_NEW_PRIVS"),
    (40, "PR_GET_TID_ADDRESS"),
    (41, "PR_SET_THP_DISABLE"),
    (42, "PR_GET_THP_DISABLE"),
    (47, "PR_CAP_AMBIENT"),
    (0x5356_4d41, "PR_SET_VMA"),
    (0x5961_6d61, "PR_SET_PTRACER"),
];

/// The operation and its arguments, which depend on it.
fn prctl(p: &mut Printer, value: u64) {
    p.choice(value & 0xffff_ffff, PRCTL, "PR_???");
    let argument = p.args[1];
    let text = match value & 0xffff_ffff {
        3 | 7 | 21 | 27 | 30 => String::new(),
        1 => format!(", {}", signal::argument(argument)),
        4 => {
            let modes = ["SUID_DUMP_DISABLE", "SUID_DUMP_USER", "SUID_DUMP_ROOT"];
            format!(", {}", modes.get(argument as usize).copied().unwrap_or("SUID_DUMP_???"))
        }
        15 => {
            p.push(", ");
            p.string(argument, 15);
            String::new()
        }
        8 | 28 | 29 | 36 => format!(", {argument}"),
        23 | 24 => format!(", {argument}"),
        2 | 16 | 37 | 40 => format!(", {}", text::hex(argument)),
        _ => p.args[1..5].iter().map(|a| format!(", {}", text::hex(*a))).collect(),
    };
    p.push(&text);
    p.ended = true;
}

const POLICIES: &[(u64, &str)] = &[
    (0, "SCHED_OTHER"),
    (1, "SCHED_FIFO"),
    (2, "SCHED_RR"),
    (3, "SCHED_BATCH"),
    (5, "SCHED_IDLE"),
    (6, "SCHED_DEADLINE"),
];

fn cpu_set(p: &mut Printer, addr: u64, len: u64) {
    let mut bytes = alloc::vec![0; len.min(128) as usize];
    if p.ctx.read_user(addr, &mut bytes).is_err() {
        return p.address(addr);
    }
    let cpus = (0..bytes.len() * 8).filter(|cpu| bytes[cpu / 8] >> (cpu % 8) & 1 != 0);
    let text = format!("[{}]", cpus.map(|c| format!("{c}")).collect::<alloc::vec::Vec<_>>().join(" "));
    p.push(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_statuses_read_as_strace_prints_them() {
        assert_eq!(clone_flags(0x120_0011), "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD");
        assert_eq!(clone_flags(17), "SIGCHLD");
        assert_eq!(status_text(0x0700), "WIFEXITED(s) && WEXITSTATUS(s) == 7");
        assert_eq!(status_text(9), "WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL");
        assert_eq!(status_text(0x8b), "WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV && WCOREDUMP(s)");
        assert_eq!(status_text(0x137f), "WIFSTOPPED(s) && WSTOPSIG(s) == SIGSTOP");
        assert_eq!(status_text(0xffff), "WIFCONTINUED(s)");
    }
}
