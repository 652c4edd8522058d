//! Why a signal was sent: `siginfo_t` and its encodings in user memory (`sigaction(2)`, `signalfd(2)`).

/// Bytes of a `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

/// Values of `si_code`.
pub mod code {
    /// Sent by `kill(2)`.
    pub const SI_USER: i32 = 0;
    /// Sent by the kernel.
    pub const SI_KERNEL: i32 = 0x80;
    /// Sent by `sigqueue(3)`.
    pub const SI_QUEUE: i32 = -1;
    /// A POSIX timer expired.
    pub const SI_TIMER: i32 = -2;
    /// A message came to a queue that was empty (`mq_notify(3)`).
    pub const SI_MESGQ: i32 = -3;
    /// Queued `SIGIO`.
    pub const SI_SIGIO: i32 = -5;
    /// Sent by `tkill(2)` or `tgkill(2)`.
    pub const SI_TKILL: i32 = -6;
    /// SIGCHLD: the child exited.
    pub const CLD_EXITED: i32 = 1;
    /// SIGCHLD: the child was killed.
    pub const CLD_KILLED: i32 = 2;
    /// SIGCHLD: the child was killed and dumped core.
    pub const CLD_DUMPED: i32 = 3;
    /// SIGCHLD: the tracee stopped for its tracer.
    pub const CLD_TRAPPED: i32 = 4;
    /// SIGCHLD: the child stopped.
    pub const CLD_STOPPED: i32 = 5;
    /// SIGCHLD: the child continued.
    pub const CLD_CONTINUED: i32 = 6;
    /// SIGIO or what stands in for it: input is there.
    pub const POLL_IN: i32 = 1;
    /// SIGIO: there is room for output.
    pub const POLL_OUT: i32 = 2;
    /// SIGIO: somebody wants a lease back.
    pub const POLL_MSG: i32 = 3;
    /// SIGSEGV: nothing is mapped there.
    pub const SEGV_MAPERR: i32 = 1;
    /// SIGSEGV: the mapping forbids the access.
    pub const SEGV_ACCERR: i32 = 2;
    /// SIGBUS: misaligned address.
    pub const BUS_ADRALN: i32 = 1;
    /// SIGBUS: nothing behind the mapping, as past a file's end.
    pub const BUS_ADRERR: i32 = 2;
    /// SIGILL: illegal instruction.
    pub const ILL_ILLOPN: i32 = 2;
    /// SIGFPE: integer division by zero.
    pub const FPE_INTDIV: i32 = 1;
    /// SIGTRAP: breakpoint.
    pub const TRAP_BRKPT: i32 = 1;
    /// SIGTRAP: single step.
    pub const TRAP_TRACE: i32 = 2;
    /// SIGSYS: a seccomp filter has refused a system call.
    pub const SYS_SECCOMP: i32 = 1;
}

/// Why a signal was sent: the parts of `siginfo_t` that Linux fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    /// Signal number, 1..=64.
    pub signo: u8,
    /// `si_code`.
    pub code: i32,
    /// `si_errno`.
    pub errno: i32,
    /// The rest, by kind.
    pub detail: SigDetail,
}

/// The union of `siginfo_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigDetail {
    /// Nothing more.
    None,
    /// Sent by a process (`kill`, `tgkill`, `sigqueue`), with the value of `sigqueue(3)`.
    Sender {
        /// Process id of the sender.
        pid: i32,
        /// Its real user id.
        uid: u32,
        /// `si_value`.
        value: u64,
    },
    /// A child's end, stop or continue.
    Child {
        /// The child.
        pid: i32,
        /// Its real user id.
        uid: u32,
        /// Exit code or signal.
        status: i32,
        /// Its CPU time in clock ticks (1/100 s) in user mode.
        utime: u64,
        /// Its CPU time in clock ticks in the kernel.
        stime: u64,
    },
    /// A fault at an address.
    Fault {
        /// `si_addr`.
        addr: u64,
    },
    /// A POSIX timer's expiry.
    Timer {
        /// Timer id.
        id: i32,
        /// `si_overrun`.
        overrun: i32,
        /// `si_value`.
        value: u64,
    },
    /// Input or output possible (`fcntl(F_SETSIG)`).
    Poll {
        /// `si_band`: events of `poll(2)`.
        band: i64,
        /// `si_fd`.
        fd: i32,
    },
    /// A system call that was refused (`SIGSYS`).
    Call {
        /// `si_call_addr`: where it returns to.
        addr: u64,
        /// `si_syscall`.
        nr: i32,
        /// `si_arch`.
        arch: u32,
    },
}

impl SigInfo {
    /// Sent by the kernel for no one's sake: `SEND_SIG_PRIV`.
    pub const fn kernel(signo: u8) -> SigInfo {
        SigInfo { signo, code: code::SI_KERNEL, errno: 0, detail: SigDetail::None }
    }

    /// Sent by a process: `kill(2)`, or with another code `tgkill(2)`.
    pub const fn user(signo: u8, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo { signo, code, errno: 0, detail: SigDetail::Sender { pid, uid, value: 0 } }
    }

    /// A fault of the running instruction: SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP.
    pub const fn fault(signo: u8, code: i32, addr: u64) -> SigInfo {
        SigInfo { signo, code, errno: 0, detail: SigDetail::Fault { addr } }
    }

    /// What a signal looks like whose details could not be queued.
    pub(super) const fn lost(signo: u8) -> SigInfo {
        SigInfo::user(signo, code::SI_USER, 0, 0)
    }

    /// Whether a process sent it rather than the kernel.
    pub const fn from_user(&self) -> bool {
        self.code <= 0
    }

    /// The bytes of `siginfo_t`.
    pub fn encode(&self) -> [u8; SIGINFO_SIZE] {
        let mut bytes = Bytes([0; SIGINFO_SIZE]);
        bytes.put(0, &i32::from(self.signo).to_ne_bytes());
        bytes.put(4, &self.errno.to_ne_bytes());
        bytes.put(8, &self.code.to_ne_bytes());
        match self.detail {
            SigDetail::None => {}
            SigDetail::Sender { pid, uid, value } => {
                bytes.put(16, &pid.to_ne_bytes());
                bytes.put(20, &uid.to_ne_bytes());
                bytes.put(24, &value.to_ne_bytes());
            }
            SigDetail::Child { pid, uid, status, utime, stime } => {
                bytes.put(16, &pid.to_ne_bytes());
                bytes.put(20, &uid.to_ne_bytes());
                bytes.put(24, &status.to_ne_bytes());
                bytes.put(32, &utime.to_ne_bytes());
                bytes.put(40, &stime.to_ne_bytes());
            }
            SigDetail::Fault { addr } => bytes.put(16, &addr.to_ne_bytes()),
            SigDetail::Timer { id, overrun, value } => {
                bytes.put(16, &id.to_ne_bytes());
                bytes.put(20, &overrun.to_ne_bytes());
                bytes.put(24, &value.to_ne_bytes());
            }
            SigDetail::Poll { band, fd } => {
                bytes.put(16, &band.to_ne_bytes());
                bytes.put(24, &fd.to_ne_bytes());
            }
            SigDetail::Call { addr, nr, arch } => {
                bytes.put(16, &addr.to_ne_bytes());
                bytes.put(24, &nr.to_ne_bytes());
                bytes.put(28, &arch.to_ne_bytes());
            }
        }
        bytes.0
    }

    /// Reads what a process gave to `rt_sigqueueinfo(2)`; `signo` replaces the number in it.
    pub fn decode(signo: u8, raw: &[u8; SIGINFO_SIZE]) -> SigInfo {
        let int = |at: usize| i32::from_ne_bytes(core::array::from_fn(|i| raw[at + i]));
        let long = |at: usize| u64::from_ne_bytes(core::array::from_fn(|i| raw[at + i]));
        let code = int(8);
        let detail = match code {
            code::SI_TIMER => SigDetail::Timer { id: int(16), overrun: int(20), value: long(24) },
            code::SI_SIGIO => SigDetail::Poll { band: long(16) as i64, fd: int(24) },
            _ => SigDetail::Sender { pid: int(16), uid: int(20) as u32, value: long(24) },
        };
        SigInfo { signo, code, errno: int(4), detail }
    }

    /// The bytes of `struct signalfd_siginfo`.
    pub fn encode_signalfd(&self) -> [u8; SIGINFO_SIZE] {
        let mut bytes = Bytes([0; SIGINFO_SIZE]);
        bytes.put(0, &u32::from(self.signo).to_ne_bytes());
        bytes.put(4, &self.errno.to_ne_bytes());
        bytes.put(8, &self.code.to_ne_bytes());
        match self.detail {
            SigDetail::None => {}
            SigDetail::Sender { pid, uid, value } => {
                bytes.put(12, &pid.to_ne_bytes());
                bytes.put(16, &uid.to_ne_bytes());
                bytes.put(44, &(value as u32).to_ne_bytes());
                bytes.put(48, &value.to_ne_bytes());
            }
            SigDetail::Child { pid, uid, status, utime, stime } => {
                bytes.put(12, &pid.to_ne_bytes());
                bytes.put(16, &uid.to_ne_bytes());
                bytes.put(40, &status.to_ne_bytes());
                bytes.put(56, &utime.to_ne_bytes());
                bytes.put(64, &stime.to_ne_bytes());
            }
            SigDetail::Fault { addr } => bytes.put(72, &addr.to_ne_bytes()),
            SigDetail::Timer { id, overrun, value } => {
                bytes.put(24, &id.to_ne_bytes());
                bytes.put(32, &overrun.to_ne_bytes());
                bytes.put(44, &(value as u32).to_ne_bytes());
                bytes.put(48, &value.to_ne_bytes());
            }
            SigDetail::Poll { band, fd } => {
                bytes.put(20, &fd.to_ne_bytes());
                bytes.put(28, &(band as u32).to_ne_bytes());
            }
            SigDetail::Call { addr, nr, arch } => {
                bytes.put(84, &nr.to_ne_bytes());
                bytes.put(88, &addr.to_ne_bytes());
                bytes.put(96, &arch.to_ne_bytes());
            }
        }
        bytes.0
    }
}

/// A structure in user memory under construction.
struct Bytes([u8; SIGINFO_SIZE]);

impl Bytes {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_value_survives_the_way_through_user_memory() {
        let detail = SigDetail::Sender { pid: 7, uid: 1000, value: 0x1122_3344_5566_7788 };
        let info = SigInfo { signo: 34, code: code::SI_QUEUE, errno: 3, detail };
        assert_eq!(SigInfo::decode(34, &info.encode()), info);
        let timer = SigInfo { code: code::SI_TIMER, detail: SigDetail::Timer { id: 1, overrun: 2, value: 3 }, ..info };
        assert_eq!(SigInfo::decode(34, &timer.encode()), timer);
    }

    #[test]
    fn offsets_are_those_of_the_headers() {
        let detail = SigDetail::Child { pid: 9, uid: 5, status: 3, utime: 11, stime: 12 };
        let raw = SigInfo { signo: 17, code: code::CLD_EXITED, errno: 0, detail }.encode();
        assert_eq!((raw[0], raw[8], raw[16], raw[20], raw[24], raw[32], raw[40]), (17, 1, 9, 5, 3, 11, 12));
        let raw = SigInfo { signo: 17, code: code::CLD_EXITED, errno: 0, detail }.encode_signalfd();
        assert_eq!((raw[0], raw[8], raw[12], raw[16], raw[40], raw[56], raw[64]), (17, 1, 9, 5, 3, 11, 12));
        let detail = SigDetail::Call { addr: 7, nr: 39, arch: 62 };
        let raw = SigInfo { signo: 31, code: code::SYS_SECCOMP, errno: 5, detail }.encode();
        assert_eq!((raw[0], raw[4], raw[8], raw[16], raw[24], raw[28]), (31, 5, 1, 7, 39, 62));
    }
}
