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

    /// Words of it, and of `struct user_regs_struct` (`sys/user.h`), which has the same order.
    pub const WORDS: usize = size_of::<TrapFrame>() / size_of::<u64>();

    /// As `struct user_regs_struct`.
    pub fn words(&self) -> [u64; TrapFrame::WORDS] {
        [
            self.r15,
            self.r14,
            self.r13,
            self.r12,
            self.rbp,
            self.rbx,
            self.r11,
            self.r10,
            self.r9,
            self.r8,
            self.rax,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.orig_rax,
            self.rip,
            self.cs,
            self.eflags,
            self.rsp,
            self.ss,
            self.fs_base,
            self.gs_base,
            self.ds,
            self.es,
            self.fs,
            self.gs,
        ]
    }

    /// From `struct user_regs_struct`.
    pub fn from_words(w: &[u64; TrapFrame::WORDS]) -> TrapFrame {
        TrapFrame {
            r15: w[0],
            r14: w[1],
            r13: w[2],
            r12: w[3],
            rbp: w[4],
            rbx: w[5],
            r11: w[6],
            r10: w[7],
            r9: w[8],
            r8: w[9],
            rax: w[10],
            rcx: w[11],
            rdx: w[12],
            rsi: w[13],
            rdi: w[14],
            orig_rax: w[15],
            rip: w[16],
            cs: w[17],
            eflags: w[18],
            rsp: w[19],
            ss: w[20],
            fs_base: w[21],
            gs_base: w[22],
            ds: w[23],
            es: w[24],
            fs: w[25],
            gs: w[26],
        }
    }

    /// The system call's arguments, in order.
    pub fn args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}
