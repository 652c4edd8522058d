//! The guest's registers at a trap.

/// General registers of a task in user mode, laid out as `struct user_regs_struct` of `sys/user.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The system call's number, or -1 when the trap was none (or must not be restarted).
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

impl TrapFrame {
    /// `orig_rax` of a trap that is no system call.
    pub const NO_SYSCALL: u64 = u64::MAX;

    /// `cs` of 64-bit code in user mode.
    pub const USER_CS: u64 = 0x33;
    /// `ss` in user mode.
    pub const USER_SS: u64 = 0x2b;

    /// Registers of a program that starts: as Linux leaves them after `execve(2)`.
    pub fn start(entry: u64, stack: u64) -> TrapFrame {
        const INTERRUPTS_ON: u64 = 0x200;
        TrapFrame {
            rip: entry,
            rsp: stack,
            cs: TrapFrame::USER_CS,
            ss: TrapFrame::USER_SS,
            eflags: INTERRUPTS_ON,
            orig_rax: TrapFrame::NO_SYSCALL,
            ..TrapFrame::default()
        }
    }

    /// The system call's arguments, in order.
    pub fn args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}
