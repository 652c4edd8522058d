//! Classic BPF as seccomp filters speak it (`Documentation/networking/filter.rst`, seccomp(2)): checked once, run at each call.
//!
//! A program has an accumulator `A`, an index register `X` and sixteen words of memory. It jumps forwards only, so it ends by itself, after
//! as many steps as it has instructions at most; what it reads lies within [`Data`] and within its memory. [`Program::new`] sees to that.

use crate::bail;
use crate::errno::Result;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::ptrace::{AUDIT_ARCH_X86_64, SECCOMP_RET_KILL_PROCESS};

/// The most instructions of a program (`BPF_MAXINSNS` of `linux/bpf_common.h`).
pub const MAX_INSTRUCTIONS: usize = 4096;
/// Words of a program's memory (`BPF_MEMWORDS` of `linux/filter.h`).
const MEMORY_WORDS: usize = 16;
/// Words of [`Data`].
const DATA_WORDS: usize = 16;

/// Operation codes: the sums of class, size and mode, or of class, operation and operand, of `linux/bpf_common.h`.
mod op {
    pub(super) const LD_IMM: u16 = 0x00;
    pub(super) const LD_ABS: u16 = 0x20;
    pub(super) const LD_MEM: u16 = 0x60;
    pub(super) const LD_LEN: u16 = 0x80;
    pub(super) const LDX_IMM: u16 = 0x01;
    pub(super) const LDX_MEM: u16 = 0x61;
    pub(super) const LDX_LEN: u16 = 0x81;
    pub(super) const ST: u16 = 0x02;
    pub(super) const STX: u16 = 0x03;
    pub(super) const ADD: u16 = 0x04;
    pub(super) const SUB: u16 = 0x14;
    pub(super) const MUL: u16 = 0x24;
    pub(super) const DIV: u16 = 0x34;
    pub(super) const OR: u16 = 0x44;
    pub(super) const AND: u16 = 0x54;
    pub(super) const LSH: u16 = 0x64;
    pub(super) const RSH: u16 = 0x74;
    pub(super) const NEG: u16 = 0x84;
    pub(super) const XOR: u16 = 0xa4;
    pub(super) const JA: u16 = 0x05;
    pub(super) const JEQ: u16 = 0x15;
    pub(super) const JGT: u16 = 0x25;
    pub(super) const JGE: u16 = 0x35;
    pub(super) const JSET: u16 = 0x45;
    pub(super) const RET_K: u16 = 0x06;
    pub(super) const RET_A: u16 = 0x16;
    pub(super) const TAX: u16 = 0x07;
    pub(super) const TXA: u16 = 0x87;
    /// In arithmetic and conditional jumps: the operand is `X`, not `k`.
    pub(super) const X: u16 = 0x08;
}

/// One instruction: `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation code.
    pub code: u16,
    /// How many instructions a conditional jump passes over if its condition holds.
    pub jump_true: u8,
    /// And if not.
    pub jump_false: u8,
    /// The operand.
    pub k: u32,
}

impl Instruction {
    /// Bytes of one.
    pub const SIZE: usize = 8;

    /// From a `struct sock_filter`.
    pub fn decode(bytes: &[u8; Instruction::SIZE]) -> Instruction {
        let [low, high, jump_true, jump_false, k @ ..] = *bytes;
        Instruction { code: u16::from_ne_bytes([low, high]), jump_true, jump_false, k: u32::from_ne_bytes(k) }
    }

    /// As a `struct sock_filter`.
    pub fn encode(&self) -> [u8; Instruction::SIZE] {
        let ([low, high], k) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [low, high, self.jump_true, self.jump_false, k[0], k[1], k[2], k[3]]
    }

    fn is_conditional(&self) -> bool {
        matches!(self.code & !op::X, op::JEQ | op::JGT | op::JGE | op::JSET)
    }

    /// Whether it may be in a filter that has so many instructions behind it: `bpf_check_classic` and `seccomp_check_filter` of Linux.
    fn is_sound(&self, behind: usize) -> bool {
        match self.code {
            op::LD_ABS => self.k < Data::SIZE && self.k.is_multiple_of(4),
            op::LD_MEM | op::LDX_MEM | op::ST | op::STX => self.k < MEMORY_WORDS as u32,
            op::DIV => self.k != 0,
            op::LSH | op::RSH => self.k < u32::BITS,
            op::JA => (self.k as usize) < behind,
            op::LD_IMM | op::LD_LEN | op::LDX_IMM | op::LDX_LEN | op::NEG => true,
            op::RET_K | op::RET_A | op::TAX | op::TXA => true,
            _ if self.is_conditional() => usize::from(self.jump_true.max(self.jump_false)) < behind,
            code => matches!(
                code & !op::X,
                op::ADD | op::SUB | op::MUL | op::DIV | op::OR | op::AND | op::LSH | op::RSH | op::XOR
            ),
        }
    }
}

/// What a filter looks at: `struct seccomp_data` of `linux/seccomp.h`, as words of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data([u32; DATA_WORDS]);

impl Data {
    /// Bytes of it.
    pub const SIZE: u32 = 4 * DATA_WORDS as u32;
    /// Where the number and the architecture are.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    /// Where the instruction pointer is, and where the arguments begin.
    const ADDRESS: u32 = 8;
    const ARGUMENTS: u32 = 16;

    /// Of a system call: its number, where it returns to, its arguments.
    pub fn new(nr: u32, address: u64, args: &[u64; 6]) -> Data {
        let mut words = [0; DATA_WORDS];
        words[0] = nr;
        words[1] = AUDIT_ARCH_X86_64;
        let longs = core::iter::once(address).chain(args.iter().copied());
        for (place, long) in words[2..].as_chunks_mut::<2>().0.iter_mut().zip(longs) {
            *place = [long as u32, (long >> 32) as u32];
        }
        Data(words)
    }

    /// The bytes of it.
    pub fn bytes(&self) -> [u8; Data::SIZE as usize] {
        let mut bytes = [0; Data::SIZE as usize];
        for (place, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *place = word.to_ne_bytes();
        }
        bytes
    }

    fn word(&self, offset: u32) -> Option<u32> {
        self.0.get(offset as usize / 4).copied()
    }
}

/// A filter's program, which has been checked.
#[derive(Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// `EINVAL` for one that may read what is not there, run on behind its end or use instructions that filters do not have.
    pub fn new(instructions: Vec<Instruction>) -> Result<Program> {
        let len = instructions.len();
        if len == 0 || len > MAX_INSTRUCTIONS {
            bail!(EINVAL, "no instructions, or too many");
        }
        if instructions.iter().enumerate().any(|(at, instruction)| !instruction.is_sound(len - at - 1)) {
            bail!(EINVAL, "an instruction that filters do not have, or that leads out of the program");
        }
        if !instructions.last().is_some_and(|last| matches!(last.code, op::RET_K | op::RET_A)) {
            bail!(EINVAL, "the last instruction does not return");
        }
        if reads_unset_memory(&instructions) {
            bail!(EINVAL, "memory is read that may not have been written");
        }
        Ok(Program(instructions))
    }

    /// Its instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// Whether it may look at where the call was made.
    pub fn reads_address(&self) -> bool {
        let reads = |i: &Instruction| i.code == op::LD_ABS && (Data::ADDRESS..Data::ARGUMENTS).contains(&i.k);
        self.0.iter().any(reads)
    }

    /// What it says of a call.
    pub fn run(&self, data: &Data) -> u32 {
        // A program that was checked neither reads beyond the data nor runs out.
        self.execute(|offset| data.word(offset)).unwrap_or(SECCOMP_RET_KILL_PROCESS)
    }

    /// What it says of all calls with a number, if that does not depend on anything else.
    pub fn run_for(&self, nr: u32) -> Option<u32> {
        self.execute(|offset| match offset {
            Data::NUMBER => Some(nr),
            Data::ARCHITECTURE => Some(AUDIT_ARCH_X86_64),
            _ => None,
        })
    }

    /// Runs it on what `load` gives; `None` if that gives nothing.
    fn execute(&self, load: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY_WORDS];
        let mut at = 0;
        loop {
            let instruction = self.0.get(at)?;
            at += 1;
            let k = instruction.k;
            match instruction.code {
                op::LD_ABS => a = load(k)?,
                op::LD_IMM => a = k,
                op::LD_MEM => a = *memory.get(k as usize)?,
                op::LD_LEN => a = Data::SIZE,
                op::LDX_IMM => x = k,
                op::LDX_MEM => x = *memory.get(k as usize)?,
                op::LDX_LEN => x = Data::SIZE,
                op::ST => *memory.get_mut(k as usize)? = a,
                op::STX => *memory.get_mut(k as usize)? = x,
                op::TAX => x = a,
                op::TXA => a = x,
                op::NEG => a = a.wrapping_neg(),
                op::JA => at += k as usize,
                op::RET_K => return Some(k),
                op::RET_A => return Some(a),
                code => {
                    let value = if code & op::X != 0 { x } else { k };
                    let jump = |condition: bool| {
                        usize::from(if condition { instruction.jump_true } else { instruction.jump_false })
                    };
                    match code & !op::X {
                        op::ADD => a = a.wrapping_add(value),
                        op::SUB => a = a.wrapping_sub(value),
                        op::MUL => a = a.wrapping_mul(value),
                        // By an `X` of 0: the program ends, and gives 0.
                        op::DIV if value == 0 => return Some(0),
                        op::DIV => a /= value,
                        op::OR => a |= value,
                        op::AND => a &= value,
                        op::XOR => a ^= value,
                        // Of the distance the processor takes the lowest five bits.
                        op::LSH => a = a.wrapping_shl(value),
                        op::RSH => a = a.wrapping_shr(value),
                        op::JEQ => at += jump(a == value),
                        op::JGT => at += jump(a > value),
                        op::JGE => at += jump(a >= value),
                        op::JSET => at += jump(a & value != 0),
                        _ => return None,
                    }
                }
            }
        }
    }
}

/// Whether a program that is otherwise sound may read a word of its memory that it has not written (`check_load_and_stores` of Linux).
fn reads_unset_memory(program: &[Instruction]) -> bool {
    // For each instruction the words, one a bit, that are written wherever a jump comes from.
    let mut written_at = vec![u16::MAX; program.len()];
    let mut written = 0u16;
    for (at, instruction) in program.iter().enumerate() {
        written &= written_at[at];
        let next = at + 1;
        match instruction.code {
            op::ST | op::STX => written |= 1u16 << instruction.k,
            op::LD_MEM | op::LDX_MEM if written & 1u16 << instruction.k == 0 => return true,
            op::JA => {
                written_at[next + instruction.k as usize] &= written;
                // What follows is reached by jumps only.
                written = u16::MAX;
            }
            _ if instruction.is_conditional() => {
                written_at[next + usize::from(instruction.jump_true)] &= written;
                written_at[next + usize::from(instruction.jump_false)] &= written;
                written = u16::MAX;
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use crate::testing::Random;
    use linux_raw_sys::ptrace::SECCOMP_RET_ALLOW;

    fn i(code: u16, k: u32) -> Instruction {
        Instruction { code, jump_true: 0, jump_false: 0, k }
    }

    fn branch(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
        Instruction { code, jump_true, jump_false, k }
    }

    fn data() -> Data {
        Data::new(39, 0x1122_3344_5566_7788, &[1, 2, 3, 4, 5, 0x9988_7766_5544_3322])
    }

    /// What a program gives; `None` for one that is refused.
    fn run(program: &[Instruction]) -> Option<u32> {
        Program::new(program.to_vec()).ok().map(|program| program.run(&data()))
    }

    #[test]
    fn instructions_are_those_of_the_header() {
        let bytes = [0x15, 0, 7, 9, 0x3e, 0, 0, 0xc0];
        let instruction = Instruction::decode(&bytes);
        assert_eq!(instruction, branch(op::JEQ, AUDIT_ARCH_X86_64, 7, 9));
        assert_eq!(instruction.encode(), bytes);
    }

    #[test]
    fn data_is_that_of_the_header() {
        let bytes = data().bytes();
        assert_eq!(bytes[..8], [39, 0, 0, 0, 0x3e, 0, 0, 0xc0]);
        assert_eq!(bytes[8..16], 0x1122_3344_5566_7788_u64.to_ne_bytes());
        assert_eq!(bytes[16..24], 1u64.to_ne_bytes());
        assert_eq!(bytes[56..], 0x9988_7766_5544_3322_u64.to_ne_bytes());
        let ret = i(op::RET_A, 0);
        assert_eq!(run(&[i(op::LD_ABS, 0), ret]), Some(39));
        assert_eq!(run(&[i(op::LD_ABS, 8), ret]), Some(0x5566_7788));
        assert_eq!(run(&[i(op::LD_ABS, 60), ret]), Some(0x9988_7766));
        for offset in [1, 2, 3, 61, 62, 63, 64, 68, 0xffff_f000] {
            assert_eq!(run(&[i(op::LD_ABS, offset), ret]), None, "{offset}");
        }
    }

    /// Linux 6.18 takes these and no others, as the first of two instructions with operands of 0.
    #[test]
    fn operations_are_those_that_linux_takes() {
        let taken: Vec<u16> = (0..=u16::MAX).filter(|&code| run(&[i(code, 0), i(op::RET_K, 0)]).is_some()).collect();
        let expected = [
            0x00, 0x01, 0x02, 0x03, 0x04, 0x06, 0x07, 0x0c, 0x14, 0x16, 0x1c, 0x20, 0x24, 0x2c, 0x3c, 0x44, 0x4c, 0x54,
            0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x80, 0x81, 0x84, 0x87, 0xa4, 0xac,
        ];
        // Jumps by 0 to the last instruction are sound as well.
        let jumps = [0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d];
        let mut all: Vec<u16> = expected.into_iter().chain(jumps).collect();
        all.sort_unstable();
        assert_eq!(taken, all);
    }

    #[test]
    fn operands_have_bounds() {
        let with = |code, k| run(&[i(code, k), i(op::RET_K, 7)]);
        assert_eq!(with(op::DIV, 0), None);
        assert_eq!(with(op::DIV, 1), Some(7));
        assert_eq!((with(op::LSH, 31), with(op::LSH, 32), with(op::RSH, 32)), (Some(7), None, None));
        assert_eq!((with(op::ST, 15), with(op::ST, 16), with(op::STX, u32::MAX)), (Some(7), None, None));
        assert_eq!(with(op::DIV | op::X, 0), Some(0), "by an X of 0");
        assert_eq!((with(op::JA, 0), with(op::JA, 1), with(op::JA, u32::MAX)), (Some(7), None, None));
        assert_eq!(run(&[branch(op::JEQ, 0, 0, 1), i(op::RET_K, 0)]), None);
        assert_eq!(run(&[branch(op::JEQ, 0, 1, 0), i(op::RET_K, 0)]), None);
        assert_eq!(run(&[i(op::LD_IMM, 0)]), None, "runs out");
        assert_eq!(run(&[]), None);
        assert!(run(&vec![i(op::RET_K, 3); MAX_INSTRUCTIONS]) == Some(3));
        assert!(run(&vec![i(op::RET_K, 3); MAX_INSTRUCTIONS + 1]).is_none());
    }

    #[test]
    fn memory_is_read_where_it_was_written() {
        let (load, store, ret) = (i(op::LD_MEM, 3), i(op::ST, 3), i(op::RET_A, 0));
        assert_eq!(run(&[load, ret]), None);
        assert_eq!(run(&[i(op::LDX_MEM, 3), ret]), None);
        assert_eq!(run(&[i(op::LD_IMM, 5), store, i(op::LD_IMM, 6), load, ret]), Some(5));
        // One way leads around the store.
        assert_eq!(run(&[branch(op::JEQ, 0, 0, 1), store, load, ret]), None);
        assert_eq!(run(&[branch(op::JEQ, 0, 0, 2), store, i(op::JA, 1), store, load, ret]), Some(0));
        assert_eq!(run(&[i(op::JA, 1), store, load, ret]), None);
    }

    #[test]
    fn jumps_go_where_they_say() {
        let test = |code: u16, a: u32, k: u32| {
            let returns = [i(op::RET_K, 2), i(op::RET_K, 1)];
            let by_k = run(&[i(op::LD_IMM, a), branch(code, k, 1, 0), returns[0], returns[1]]);
            let by_x =
                run(&[i(op::LD_IMM, a), i(op::LDX_IMM, k), branch(code | op::X, 0, 1, 0), returns[0], returns[1]]);
            assert_eq!(by_k, by_x);
            by_k == Some(1)
        };
        // Numbers have no sign.
        assert!(test(op::JGT, 0x8000_0000, 1) && !test(op::JGT, 1, 0x8000_0000) && !test(op::JGT, 4, 4));
        assert!(test(op::JGE, 4, 4) && !test(op::JGE, 3, 4));
        assert!(test(op::JEQ, 0xffff_ffff, 0xffff_ffff) && !test(op::JEQ, 1, 2));
        assert!(test(op::JSET, 6, 2) && !test(op::JSET, 6, 9));
    }

    #[test]
    fn what_holds_for_all_calls_with_a_number_is_known() {
        let allow = i(op::RET_K, SECCOMP_RET_ALLOW);
        let program = Program::new(vec![
            i(op::LD_ABS, 4),
            branch(op::JEQ, AUDIT_ARCH_X86_64, 1, 0),
            i(op::RET_K, 0),
            i(op::LD_ABS, 0),
            branch(op::JEQ, 2, 0, 1),
            allow,
            branch(op::JGE, 100, 0, 1),
            i(op::RET_K, 5),
            i(op::LD_ABS, 16),
            branch(op::JEQ, 1, 0, 1),
            allow,
            allow,
        ])
        .unwrap();
        assert_eq!(program.run_for(2), Some(SECCOMP_RET_ALLOW));
        assert_eq!(program.run_for(100), Some(5));
        assert_eq!(program.run_for(3), None, "by its argument");
        assert!(!program.reads_address());
        assert!(Program::new(vec![i(op::LD_ABS, 12), allow]).unwrap().reads_address());
    }

    /// Arithmetic without jumps against the same done by hand.
    #[test]
    fn arithmetic_by_chance() {
        const OPERATIONS: [u16; 9] = [op::ADD, op::SUB, op::MUL, op::DIV, op::OR, op::AND, op::LSH, op::RSH, op::XOR];
        let mut random = Random(0x5ecc_0123_4567_89ab);
        for _ in 0..2000 {
            let mut program = Vec::new();
            let (mut a, mut x, mut ended) = (0u64, 0u64, false);
            for _ in 0..random.below(20) {
                let k = random.next() as u32 >> random.below(32);
                let by_x = random.below(2) == 1;
                let code = random.pick(&OPERATIONS);
                let k = match code {
                    op::LSH | op::RSH if !by_x => k % 32,
                    op::DIV if !by_x => k.max(1),
                    _ => k,
                };
                program.push(i(if by_x { code | op::X } else { code }, k));
                if random.below(4) == 0 {
                    program.push(i(op::LDX_IMM, k));
                }
                if random.below(8) == 0 {
                    program.push(i(op::NEG, 0));
                }
            }
            for step in &program {
                let value = if step.code & op::X != 0 { x } else { u64::from(step.k) };
                a = match step.code & !op::X {
                    op::ADD => a + value,
                    op::SUB => a + (1 << 32) - value,
                    op::MUL => a * value,
                    op::DIV if value == 0 => {
                        ended = true;
                        break;
                    }
                    op::DIV => a / value,
                    op::OR => a | value,
                    op::AND => a & value,
                    op::LSH => a << (value % 32),
                    op::RSH => a >> (value % 32),
                    op::XOR => a ^ value,
                    op::NEG => (1 << 32) - a,
                    _ => {
                        x = u64::from(step.k);
                        a
                    }
                } & 0xffff_ffff;
            }
            let expected = if ended { 0 } else { a as u32 };
            let shown = alloc::format!("{program:x?}");
            program.push(i(op::RET_A, 0));
            assert_eq!(run(&program), Some(expected), "{shown}");
        }
    }

    /// Whatever passes the check runs to a return, and gives the same each time.
    #[test]
    fn programs_by_chance_end() {
        const CODES: [u16; 16] = [
            op::LD_ABS,
            op::LD_IMM,
            op::LD_MEM,
            op::LDX_MEM,
            op::ST,
            op::STX,
            op::ADD,
            op::DIV,
            op::JA,
            op::JEQ,
            op::JGT,
            op::JSET,
            op::RET_K,
            op::RET_A,
            op::TAX,
            op::NEG,
        ];
        let mut random = Random(0x00ab_cdef_5ecc_0001);
        let mut accepted = 0;
        for _ in 0..40_000 {
            let len = 1 + random.below(12) as usize;
            let mut program: Vec<Instruction> = (0..len)
                .map(|_| {
                    let code = random.pick(&CODES) | if random.below(4) == 0 { op::X } else { 0 };
                    let k = if random.below(8) == 0 { random.next() as u32 } else { random.below(5) as u32 * 4 };
                    branch(code, k, random.below(5) as u8, random.below(5) as u8)
                })
                .collect();
            program.push(i(op::RET_A, 0));
            let Ok(program) = Program::new(program) else { continue };
            accepted += 1;
            let result = program.execute(|offset| data().word(offset));
            assert!(result.is_some(), "{program:?}");
            assert_eq!(result, Some(program.run(&data())));
            assert!(program.run_for(39).is_none_or(|always| Some(always) == result), "{program:?}");
        }
        assert!(accepted > 500, "{accepted}");
    }
}
