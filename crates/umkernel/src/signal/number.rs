//! Signal numbers, their names, and what they do by default (`signal(7)`, x86-64 numbers).

use super::SigSet;

macro_rules! signals {
    ($($name:ident = $nr:literal, $text:literal, $action:ident;)*) => {
        $(#[doc = $text] pub const $name: u8 = $nr;)*

        /// The symbolic name, `"SIGINT"` for 2; `None` for realtime signals and numbers that are none.
        pub fn name(sig: u8) -> Option<&'static str> {
            match sig {
                $($nr => Some(stringify!($name)),)*
                _ => None,
            }
        }

        /// What the shell prints for a process that the signal ended.
        pub fn text(sig: u8) -> &'static str {
            match sig {
                $($nr => $text,)*
                _ => "Real-time signal",
            }
        }

        /// What happens where the process has set no handler.
        pub fn default_action(sig: u8) -> DefaultAction {
            match sig {
                $($nr => DefaultAction::$action,)*
                _ => DefaultAction::Terminate,
            }
        }
    };
}

/// What a signal does where the process has set no handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process with a core dump.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Lets a stopped process go on; nothing for another.
    Continue,
}

signals! {
    SIGHUP = 1, "Hangup", Terminate;
    SIGINT = 2, "Interrupt", Terminate;
    SIGQUIT = 3, "Quit", Core;
    SIGILL = 4, "Illegal instruction", Core;
    SIGTRAP = 5, "Trace/breakpoint trap", Core;
    SIGABRT = 6, "Aborted", Core;
    SIGBUS = 7, "Bus error", Core;
    SIGFPE = 8, "Floating point exception", Core;
    SIGKILL = 9, "Killed", Terminate;
    SIGUSR1 = 10, "User defined signal 1", Terminate;
    SIGSEGV = 11, "Segmentation fault", Core;
    SIGUSR2 = 12, "User defined signal 2", Terminate;
    SIGPIPE = 13, "Broken pipe", Terminate;
    SIGALRM = 14, "Alarm clock", Terminate;
    SIGTERM = 15, "Terminated", Terminate;
    SIGSTKFLT = 16, "Stack fault", Terminate;
    SIGCHLD = 17, "Child exited", Ignore;
    SIGCONT = 18, "Continued", Continue;
    SIGSTOP = 19, "Stopped (signal)", Stop;
    SIGTSTP = 20, "Stopped", Stop;
    SIGTTIN = 21, "Stopped (tty input)", Stop;
    SIGTTOU = 22, "Stopped (tty output)", Stop;
    SIGURG = 23, "Urgent I/O condition", Ignore;
    SIGXCPU = 24, "CPU time limit exceeded", Core;
    SIGXFSZ = 25, "File size limit exceeded", Core;
    SIGVTALRM = 26, "Virtual timer expired", Terminate;
    SIGPROF = 27, "Profiling timer expired", Terminate;
    SIGWINCH = 28, "Window changed", Ignore;
    SIGIO = 29, "I/O possible", Terminate;
    SIGPWR = 30, "Power failure", Terminate;
    SIGSYS = 31, "Bad system call", Core;
}

/// First realtime signal, as the kernel counts them (libc keeps two for itself).
pub const SIGRTMIN: u8 = 32;
/// Highest signal number.
pub const SIGRTMAX: u8 = 64;

/// True for 1..=64.
pub fn is_valid(sig: u64) -> bool {
    (1..=u64::from(SIGRTMAX)).contains(&sig)
}

/// Can be neither blocked, caught nor ignored.
pub const UNBLOCKABLE: SigSet = SigSet::of(&[SIGKILL, SIGSTOP]);
/// Stop the process by default.
pub const STOPPING: SigSet = SigSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
/// Raised by the instruction that a thread executes; delivered before others.
pub const SYNCHRONOUS: SigSet = SigSet::of(&[SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS]);
