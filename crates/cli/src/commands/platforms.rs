//! What the host lets machines do: which platforms run here.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use lfsbuild::doctor::{Check, Severity};
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use umkernel::platform::direct::load::check_host;

/// One check for each platform. A host that can run one of them can boot.
pub(crate) fn checks() -> [Check; 2] {
    let (direct, ptrace) = (check_host(), can_trace());
    let lacking = if direct.is_ok() || ptrace.is_ok() { Severity::Limited } else { Severity::Missing };
    let check = |name: &str, can: Result<(), String>, good: &str, advice: &str| match can {
        Ok(()) => Check::new(name, Severity::Good, good),
        Err(what) => Check::new(name, lacking, what).advice(advice),
    };
    [
        check(
            "platform direct",
            direct,
            "machines run at about the host's own speed",
            "it needs a processor with protection keys (pku); in a container allow pkey_alloc and seccomp \
             (--security-opt seccomp=unconfined)",
        ),
        check(
            "platform ptrace",
            ptrace,
            "machines can run by ptrace",
            "in a container allow ptrace (--cap-add SYS_PTRACE or --security-opt seccomp=unconfined); as root: \
             sysctl -w kernel.yama.ptrace_scope=1",
        ),
    ]
}

/// Whether a program can be traced here: starts one, sees it stop, lets it end.
fn can_trace() -> Result<(), String> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the closure makes one system call and no allocation.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(Into::into));
    }
    let child = command.spawn().map_err(|e| format!("PTRACE_TRACEME: {e}"))?;
    let child = Pid::from_raw(child.id() as i32);
    let stopped = matches!(waitpid(child, None), Ok(WaitStatus::Stopped(..)));
    // It is stopped at its exec, or gone: killing and reaping it leaves nothing behind in either case.
    let _ = ptrace::kill(child);
    let _ = waitpid(child, None);
    if stopped { Ok(()) } else { Err("a traced program did not stop".into()) }
}
