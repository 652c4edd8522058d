//! Trampolines: what is done in place of the instructions that a jump to one overwrites, and the jump to the door.
//!
//! A [`Lead`] is taken from before a system call, a [`Tail`] from behind it; see [`super::text`].

use alloc::vec::Vec;
use core::ops::Range;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl};

/// `jmp rel32`.
pub(super) const JMP: u8 = 0xe9;
/// Bytes of `jmp rel32`.
pub(super) const JMP_LEN: usize = 5;
/// `syscall`.
pub(super) const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// The instructions before a call that a trampoline takes over.
pub(super) struct Lead {
    /// Where they begin: with one that is at least as long as a jump.
    pub(super) start: usize,
    pieces: Vec<Piece>,
}

/// One instruction of a [`Lead`]; offsets are from the lead's start.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// It does the same wherever it lies.
    Plain { from: usize, to: usize },
    /// It has a distance from its end, in the four bytes at `field`.
    Relative { from: usize, to: usize, field: usize },
    /// It jumps to `target` on condition `condition` (the low half of its operation code).
    Branch { condition: u8, target: i64 },
}

impl Piece {
    /// Decodes one of `code`; `None` if it cannot be done elsewhere.
    fn next(decoder: &mut Decoder<'_>, code: &[u8]) -> Option<Piece> {
        let from = decoder.position();
        let instruction = decoder.decode();
        let to = decoder.position();
        match instruction.flow_control() {
            FlowControl::ConditionalBranch => {
                let condition = condition(&code[from..to])?;
                return Some(Piece::Branch { condition, target: instruction.near_branch_target() as i64 });
            }
            FlowControl::Next | FlowControl::Return if !instruction.is_invalid() => {}
            _ => return None,
        }
        if !instruction.is_ip_rel_memory_operand() {
            return Some(Piece::Plain { from, to });
        }
        let offsets = decoder.get_constant_offsets(&instruction);
        let field = from + offsets.displacement_offset();
        (offsets.displacement_size() == DISTANCE_LEN).then_some(Piece::Relative { from, to, field })
    }

    /// Whether it is a return: control does not go on behind it.
    fn ends(&self, code: &[u8]) -> bool {
        matches!(*self, Piece::Plain { from, .. } if matches!(code[from], 0xc3 | 0xc2))
    }

    /// Its bytes in a trampoline.
    fn len(&self) -> usize {
        match self {
            Piece::Plain { from, to } | Piece::Relative { from, to, .. } => to - from,
            Piece::Branch { .. } => NEAR_BRANCH_LEN,
        }
    }
}

/// `jcc rel32`.
const NEAR_BRANCH_LEN: usize = 6;
/// `lea rel32(%rip), %rcx`.
const LEA_RCX: [u8; 3] = [0x48, 0x8d, 0x0d];
/// `jmp *rel32(%rip)`.
const JMP_INDIRECT: [u8; 2] = [0xff, 0x25];
/// Bytes of a field with a distance.
const DISTANCE_LEN: usize = 4;
/// Bytes of a trampoline's call.
const CALL_LEN: usize = LEA_RCX.len() + JMP_INDIRECT.len() + 2 * DISTANCE_LEN;

impl Lead {
    /// Decodes the code before `site`. Code is read from the front, and where an instruction begins shows only by reading from
    /// far enough before, where wrong guesses have met the right sequence; so several guesses must agree.
    pub(super) fn before(text: &[u8], site: usize) -> Option<Lead> {
        const FARTHEST: usize = 160;
        const GUESSES: usize = 16;
        /// Guesses that must agree; those that end up beside the site were wrong.
        const ENOUGH: usize = 8;
        if text.get(site..site + 2)? != SYSCALL {
            return None;
        }
        let mut found: Option<(usize, usize)> = None;
        for guess in 0..GUESSES.min(site) {
            let begin = site.saturating_sub(FARTHEST) + guess;
            let Some(start) = long_instruction(&text[begin..site], begin) else { continue };
            match &mut found {
                None => found = Some((start, 1)),
                Some((same, times)) if *same == start => *times += 1,
                Some(_) => return None,
            }
        }
        let (start, _) = found.filter(|&(_, times)| times >= ENOUGH)?;
        Lead::at(&text[start..site], start)
    }

    /// See [`is_split`].
    #[cfg(test)]
    fn is_split(&self) -> bool {
        is_split(self.start)
    }

    /// Whether control may come to the call without passing the lead: such calls trap. A jump leads to what is between, or the lead is
    /// padding, behind which a function begins or a jump's target lies.
    pub(super) fn is_passed_by(&self, text: &[u8], site: usize) -> bool {
        /// Jumps within a function.
        const NEAR: usize = 4096;
        is_padding(&text[self.start..site]) || is_jumped_to(text, self.start + 1..site + 1, NEAR)
    }

    fn at(code: &[u8], start: usize) -> Option<Lead> {
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let mut pieces = Vec::new();
        while decoder.can_decode() {
            pieces.push(Piece::next(&mut decoder, code)?);
        }
        Some(Lead { start, pieces })
    }

    pub(super) fn trampoline_size(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum::<usize>() + CALL_LEN
    }

    /// The trampoline's code at `start`, for a lead with this `code` at `from` and a site; the door's address is kept at `door`.
    pub(super) fn trampoline(&self, code: &[u8], from: u64, start: u64, site: u64, door: u64) -> Option<Vec<u8>> {
        let mut out = Assembler { start, bytes: Vec::with_capacity(self.trampoline_size()) };
        self.pieces.iter().try_for_each(|piece| out.piece(piece, code, from))?;
        out.call(site + SYSCALL.len() as u64, door)?;
        Some(out.bytes)
    }
}

/// The instructions behind a call that a trampoline takes over.
pub(super) struct Tail {
    /// Where they begin.
    pub(super) start: usize,
    /// Bytes of them.
    pub(super) len: usize,
    pieces: Vec<Piece>,
    /// Control goes on behind them.
    goes_on: bool,
}

/// `jmp rel8`, to the beginning of the trampoline: where a restarted call goes on.
const AGAIN_LEN: usize = 2;

impl Tail {
    /// Those behind `site`, if no jump leads into what a jump at the site overwrites.
    pub(super) fn behind(text: &[u8], site: usize) -> Option<Tail> {
        /// The longest instruction.
        const LONGEST: usize = 15;
        /// Functions with a call are not larger, nor their parts farther apart.
        const NEAR: usize = 256 * 1024;
        let overwritten = site + SYSCALL.len()..site + JMP_LEN;
        if text.get(site..site + SYSCALL.len())? != SYSCALL || is_jumped_to(text, overwritten, NEAR) {
            return None;
        }
        let start = site + SYSCALL.len();
        let code = text.get(start..text.len().min(start + JMP_LEN + LONGEST))?;
        if !looks_at_result(code) {
            return None;
        }
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let (mut pieces, mut goes_on) = (Vec::new(), true);
        while SYSCALL.len() + decoder.position() < JMP_LEN {
            let from = decoder.position();
            if goes_on {
                let piece = Piece::next(&mut decoder, code)?;
                goes_on = !piece.ends(code);
                pieces.push(piece);
            } else if !matches!(
                decoder.decode().code(),
                Code::Nopd | Code::Nopw | Code::Nopq | Code::Nop_rm16 | Code::Nop_rm32 | Code::Int3
            ) {
                // What follows the end belongs to something else, unless it is padding.
                return None;
            }
            if decoder.position() == from {
                return None;
            }
        }
        let len = decoder.position();
        Some(Tail { start, len, pieces, goes_on })
    }

    pub(super) fn trampoline_size(&self) -> usize {
        let pieces = self.pieces.iter().map(Piece::len).sum::<usize>();
        CALL_LEN + AGAIN_LEN + pieces + if self.goes_on { JMP_LEN } else { 0 }
    }

    /// The trampoline's code at `start`, for instructions with this `code` at `from`, and where calls return to in it.
    pub(super) fn trampoline(&self, code: &[u8], from: u64, start: u64, door: u64) -> Option<(Vec<u8>, usize)> {
        const JMP_SHORT: u8 = 0xeb;
        const BACK: usize = CALL_LEN + AGAIN_LEN;
        let mut out = Assembler { start, bytes: Vec::with_capacity(self.trampoline_size()) };
        out.call(start + BACK as u64, door)?;
        out.bytes.extend_from_slice(&[JMP_SHORT, (-(BACK as i8)) as u8]);
        self.pieces.iter().try_for_each(|piece| out.piece(piece, code, from))?;
        if self.goes_on {
            out.reaching(&[JMP], from + self.len as u64)?;
        }
        Some((out.bytes, BACK))
    }
}

/// Whether code begins with a look at what a system call has returned: `cmp $-4096, %rax` or nearly, `test %rax, %rax`, `test %eax, %eax`, or
/// with a copy of it as an `int`, `mov %eax, %edx` and the like. What follows a call that does not return, such as a signal handler's last, may be
/// anything, even another function; none begins with a look at a register that it is not given.
fn looks_at_result(code: &[u8]) -> bool {
    matches!(code, [0x48, 0x3d, _, 0xf0, 0xff, 0xff, ..] | [0x48, 0x85, 0xc0, ..] | [0x85, 0xc0, ..])
        || matches!(code, [0x89, 0xc1..=0xc7, ..])
}

/// Whether code begins with a long instruction that does nothing: `nopw 0(%rax,%rax)` and the like, with any prefixes.
fn is_padding(code: &[u8]) -> bool {
    let behind = code.iter().position(|byte| !matches!(byte, 0x66 | 0x2e)).unwrap_or(code.len());
    code[behind..].starts_with(&[0x0f, 0x1f])
}

/// Whether a direct jump or call leads into a range of the text from at most `near` bytes away: looked for at every byte, so some
/// are none.
fn is_jumped_to(text: &[u8], range: Range<usize>, near: usize) -> bool {
    /// How far a jump with a distance of one byte leads, and a few bytes more.
    const SHORT: usize = 132;
    let around = |far: usize| range.start.saturating_sub(far)..text.len().min(range.end + far);
    let leads =
        |end: usize, distance: isize| end.checked_add_signed(distance).is_some_and(|target| range.contains(&target));
    let short = |at: usize| match text[at..] {
        [0x70..=0x7f | 0xeb | 0xe0..=0xe3, distance, ..] => leads(at + 2, (distance as i8).into()),
        _ => false,
    };
    let long = |field: usize| {
        let distance = text[field..].first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
        matches!(text[..field], [.., 0xe8 | 0xe9] | [.., 0x0f, 0x80..=0x8f])
            && leads(field + DISTANCE_LEN, distance as isize)
    };
    around(SHORT).any(short) || steps_that_lead_into(text, around(near), &range).any(|mut fields| fields.any(long))
}

/// Pieces of a part of the text where some of the four bytes that begin there are the distance of a jump to the range, if they are
/// one. Few are, so that is looked at first, for sixteen at once, without a branch.
fn steps_that_lead_into(text: &[u8], part: Range<usize>, range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    const STEP: usize = 16;
    // Modulo 2^32: some that are none do no harm.
    let (start, length) = (range.start as u32, range.len() as u32);
    part.clone().step_by(STEP).map(move |at| at..(at + STEP).min(part.end)).filter(move |fields| {
        let Some(bytes) = text[fields.start..].first_chunk::<{ STEP + DISTANCE_LEN - 1 }>() else { return true };
        let end = (fields.start as u32).wrapping_add(DISTANCE_LEN as u32).wrapping_sub(start);
        let mut any = false;
        for shift in 0..DISTANCE_LEN {
            let (distances, _) = bytes[shift..shift + STEP].as_chunks();
            for (lane, distance) in (0..).zip(distances) {
                let base = end.wrapping_add(shift as u32 + lane * DISTANCE_LEN as u32);
                any |= base.wrapping_add(u32::from_le_bytes(*distance)) < length;
            }
        }
        any
    })
}

/// A trampoline in the making.
struct Assembler {
    /// Where it lies in processes.
    start: u64,
    bytes: Vec<u8>,
}

impl Assembler {
    /// Has the distance at `field` of an instruction that ends at `end` lead to `target`.
    fn reach(&mut self, field: usize, end: usize, target: u64) -> Option<()> {
        let distance = i32::try_from(target.wrapping_sub(self.start + end as u64) as i64).ok()?;
        self.bytes[field..field + DISTANCE_LEN].copy_from_slice(&distance.to_le_bytes());
        Some(())
    }

    /// An instruction that ends with a distance.
    fn reaching(&mut self, operation: &[u8], target: u64) -> Option<()> {
        self.bytes.extend_from_slice(operation);
        let field = self.bytes.len();
        self.bytes.extend_from_slice(&[0; DISTANCE_LEN]);
        self.reach(field, field + DISTANCE_LEN, target)
    }

    /// An instruction of the code that lay at `from`. What it refers to stays where it is.
    fn piece(&mut self, piece: &Piece, code: &[u8], from: u64) -> Option<()> {
        match *piece {
            Piece::Plain { from, to } => self.bytes.extend_from_slice(&code[from..to]),
            Piece::Relative { from: first, to, field } => {
                let old = i32::from_le_bytes(core::array::from_fn(|i| code[field + i]));
                let target = (from + to as u64).wrapping_add_signed(old.into());
                let at = self.bytes.len() + (field - first);
                self.bytes.extend_from_slice(&code[first..to]);
                self.reach(at, self.bytes.len(), target)?;
            }
            Piece::Branch { condition, target } => {
                self.reaching(&[0x0f, 0x80 | condition], from.wrapping_add_signed(target))?;
            }
        }
        Some(())
    }

    /// The call: `lea back(%rip), %rcx`, `jmp *door(%rip)`.
    fn call(&mut self, back: u64, door: u64) -> Option<()> {
        self.reaching(&LEA_RCX, back)?;
        self.reaching(&JMP_INDIRECT, door)
    }
}

/// The condition of a conditional jump, the low half of its operation code; `None` for `loop` and the like, which only come short.
fn condition(code: &[u8]) -> Option<u8> {
    match *code {
        [short @ 0x70..=0x7f, _] => Some(short & 15),
        [0x0f, near @ 0x80..=0x8f, _, _, _, _] => Some(near & 15),
        _ => None,
    }
}

/// Whether a jump at this offset of a text would lie in two words, which no one store writes.
pub(super) fn is_split(at: usize) -> bool {
    at % 8 + JMP_LEN > 8
}

/// Where the last instruction begins that is as long as a jump and from which control flows to the end of `code`, which begins
/// at `begin`, unless a conditional jump leads away; one that can be replaced by one store before any other. `None` if there is none,
/// or the code does not end with an instruction.
fn long_instruction(code: &[u8], begin: usize) -> Option<usize> {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let (mut whole, mut split) = (None, None);
    while decoder.can_decode() {
        let at = begin + decoder.position();
        let instruction = decoder.decode();
        // An instruction that is cut off by the end is invalid.
        let goes_on = match instruction.flow_control() {
            FlowControl::Next => instruction.code() != Code::Hlt,
            FlowControl::ConditionalBranch => condition(&code[at - begin..decoder.position()]).is_some(),
            _ => false,
        };
        if instruction.is_invalid() || !goes_on {
            (whole, split) = (None, None);
        } else if instruction.len() >= JMP_LEN {
            *(if is_split(at) { &mut split } else { &mut whole }) = Some(at);
        }
    }
    whole.or(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOV_EAX: [u8; 5] = [0xb8, 3, 0, 0, 0];
    const MOV_ESI: [u8; 5] = [0xbe, 1, 0, 0, 0];
    const LEA_RDI: [u8; 7] = [0x48, 0x8d, 0x3d, 0x10, 0, 0, 0];

    /// A long jump at each place to each place around a range, and bytes that are none.
    #[test]
    fn jumps_into_a_range_are_found_wherever_they_are() {
        const LEN: usize = 400;
        let range = 201..204;
        for opcode in [&[0xe8][..], &[0xe9], &[0x0f, 0x85], &[0x90]] {
            for at in 0..LEN - opcode.len() - DISTANCE_LEN + 1 {
                for target in 198..207_usize {
                    let mut text = [0xcc; LEN];
                    let field = at + opcode.len();
                    let distance = target as i32 - (field + DISTANCE_LEN) as i32;
                    text[at..field].copy_from_slice(opcode);
                    text[field..field + DISTANCE_LEN].copy_from_slice(&distance.to_le_bytes());
                    let near = |far: usize| (range.start - far..=range.end + far - DISTANCE_LEN).contains(&field);
                    let expected = opcode != [0x90] && range.contains(&target);
                    let found = |far: usize| is_jumped_to(&text, range.clone(), far);
                    assert_eq!(found(200), expected && near(200), "{opcode:x?} at {at} to {target}");
                    // Beyond what is asked for, either answer is right.
                    assert!(!found(64) || expected);
                    assert!(found(64) || !expected || !near(64));
                }
            }
        }
    }

    #[test]
    fn short_jumps_into_a_range_are_found() {
        for at in 0..300_usize {
            for distance in [-128_i8, -100, -3, 0, 5, 111] {
                let mut text = [0xcc; 300];
                let code = [0x75, distance as u8];
                let end = (at + 2).min(300);
                text[at..end].copy_from_slice(&code[..end - at]);
                let target = (at + 2).checked_add_signed(distance.into());
                let expected = end - at == 2 && target.is_some_and(|target| (150..155).contains(&target));
                assert_eq!(is_jumped_to(&text, 150..155, 200), expected, "{at} {distance}");
            }
        }
    }

    /// Where the lead of the call at the end of `code` begins, behind 64 bytes of no operation.
    fn lead(code: &[&[u8]]) -> Option<Lead> {
        let text = [&[0x90; 64][..], &code.concat(), &SYSCALL].concat();
        Lead::before(&text, text.len() - SYSCALL.len())
    }

    #[test]
    fn a_jump_replaces_one_instruction_that_leads_to_the_call() {
        assert_eq!(lead(&[&MOV_EAX]).map(|l| (l.start, l.is_split())), Some((64, false)));
        // The nearer one would take two stores.
        assert_eq!(lead(&[&MOV_ESI, &MOV_EAX]).map(|l| l.start), Some(64));
        assert_eq!(lead(&[&[0x90; 3], &MOV_EAX, &[0x90]]).map(|l| (l.start, l.is_split())), Some((67, false)));
        assert_eq!(lead(&[&[0x90; 5], &MOV_EAX]).map(|l| (l.start, l.is_split())), Some((69, true)));
        // mov %r8, %rax is too short, and what is before a jump does not lead here.
        assert!(lead(&[&[0x4c, 0x89, 0xc0]]).is_none());
        assert!(lead(&[&MOV_EAX, &[0xeb, 0]]).is_none());
        assert!(Lead::before(&[0x90; 128], 100).is_none(), "no call there");
    }

    #[test]
    fn what_refers_to_its_own_place_is_found() {
        let Some(lead) = lead(&[&LEA_RDI, &[0x90], &MOV_EAX]) else { panic!() };
        assert_eq!((lead.start, lead.pieces), (72, alloc::vec![Piece::Plain { from: 0, to: 5 }]));
        let Some(lead) = self::lead(&[&LEA_RDI, &[0x31, 0xc0]]) else { panic!() };
        let pieces = alloc::vec![Piece::Relative { from: 0, to: 7, field: 3 }, Piece::Plain { from: 7, to: 9 }];
        assert_eq!((lead.start, lead.pieces), (64, pieces));
    }

    /// glibc's `read`: `cmpb $0, single_threaded(%rip)`, `je`, `xor %eax, %eax`, `syscall`.
    #[test]
    fn a_conditional_jump_leads_where_it_did() {
        const CMPB: [u8; 7] = [0x80, 0x3d, 0x20, 0, 0, 0, 0];
        let code = [&CMPB[..], &[0x74, 0x17], &[0x31, 0xc0]].concat();
        let Some(lead) = lead(&[&code]) else { panic!() };
        assert_eq!((lead.start, &lead.pieces[1]), (64, &Piece::Branch { condition: 4, target: 0x20 }));
        let (from, start, door) = (0x1000_u64, 0x10_0000_u64, 0x20_0000_u64);
        let site = from + code.len() as u64;
        let Some(bytes) = lead.trampoline(&code, from, start, site, door) else { panic!() };
        assert_eq!(bytes.len(), lead.trampoline_size());
        let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
        let decoded: Vec<_> = (0..5).map(|_| decoder.decode()).collect();
        assert!(!decoder.can_decode());
        assert_eq!(decoded[0].ip_rel_memory_address(), from + 7 + 0x20);
        assert_eq!(decoded[1].near_branch_target(), from + 9 + 0x17);
        assert_eq!(decoded[3].ip_rel_memory_address(), site + 2);
        assert_eq!(decoded[4].ip_rel_memory_address(), door);
        assert!(lead.trampoline(&code, from, 1 << 40, site, door).is_none(), "out of reach");
    }

    /// `syscall` with what follows it, at the end of 64 bytes of no operation and before as many.
    fn tail(behind: &[u8]) -> Option<Tail> {
        let text = [&[0x90; 64][..], &SYSCALL, behind, &[0xcc; 64]].concat();
        Tail::behind(&text, 64)
    }

    /// glibc's `_exit`: `jmp 2f`, `1: cmp $-4096, %rax`, `ja`, `hlt`, `2: mov %esi, %eax`, `syscall`.
    #[test]
    fn a_lead_that_is_passed_by_is_known() {
        const CMP: [u8; 6] = [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff];
        let passed = |halt: u8| {
            let code = [&[0xeb, 9][..], &CMP, &[0x77, 0x1c, halt], &[0x89, 0xf0]].concat();
            let text = [&[0x90; 64][..], &code, &SYSCALL].concat();
            let site = text.len() - 2;
            Lead::before(&text, site).map(|lead| lead.is_passed_by(&text, site))
        };
        assert_eq!(passed(0xf4), None, "control does not go on behind hlt");
        assert_eq!(passed(0x90), Some(true));
    }

    /// `read` of glibc's dynamic linker: `cs nopw`, and the function begins: `xor %eax, %eax`, `syscall`.
    #[test]
    fn padding_is_passed_by() {
        const NOP: [u8; 10] = [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        let text = [&[0x90; 64][..], &[0xc3], &NOP, &[0x31, 0xc0], &SYSCALL].concat();
        let site = text.len() - 2;
        let Some(lead) = Lead::before(&text, site) else { panic!() };
        assert_eq!(lead.start, 65);
        assert!(lead.is_passed_by(&text, site));
    }

    /// `pthread_sigmask` of glibc: `syscall`, `mov %eax, %edx`, `neg %edx`, `cmp $0xfffff000, %eax`.
    #[test]
    fn a_copy_of_the_result_is_a_look_at_it() {
        let found = tail(&[0x89, 0xc2, 0xf7, 0xda, 0x3d, 0x00, 0xf0, 0xff, 0xff]);
        assert!(found.is_some_and(|tail| tail.len == 4 && tail.goes_on));
        assert!(tail(&[0x89, 0xf8, 0xf7, 0xda, 0x90]).is_none(), "mov %edi, %eax");
    }

    /// glibc's `_exit`: `syscall`, `cmp $-4096, %rax`, `ja`; and what may follow the end of a function.
    #[test]
    fn what_follows_a_call_is_done_in_the_trampoline() {
        const CMP: [u8; 6] = [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff];
        let Some(found) = tail(&[&CMP[..], &[0x76, 0x20]].concat()) else { panic!() };
        assert_eq!((found.start, found.len, found.goes_on), (66, 6, true));
        let (from, start, door) = (0x1002_u64, 0x10_0000_u64, 0x20_0000_u64);
        let Some((bytes, back)) = found.trampoline(&CMP, from, start, door) else { panic!() };
        assert_eq!(bytes.len(), found.trampoline_size());
        let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
        let decoded: Vec<_> = (0..5).map(|_| decoder.decode()).collect();
        assert!(!decoder.can_decode());
        assert_eq!(decoded[0].ip_rel_memory_address(), start + back as u64);
        assert_eq!(decoded[1].ip_rel_memory_address(), door);
        // A restarted call goes on two bytes before where it would have returned to.
        assert_eq!((decoded[2].ip(), decoded[2].near_branch_target()), (start + back as u64 - 2, start));
        assert_eq!(decoded[3].ip(), start + back as u64);
        assert_eq!(decoded[4].near_branch_target(), from + 6);
        const TEST: [u8; 2] = [0x85, 0xc0];
        // A return ends it; padding may be overwritten, another function's code may not.
        assert!(tail(&[&TEST[..], &[0xc3]].concat()).is_some_and(|tail| !tail.goes_on && tail.pieces.len() == 2));
        assert!(tail(&[&TEST[..], &[0xe8, 0, 0, 0, 0]].concat()).is_none(), "a call would return into the trampoline");
    }

    /// musl's `__restore_rt` ends with a call that does not return, and another function follows.
    #[test]
    fn a_call_whose_result_nobody_looks_at_may_not_return() {
        assert!(tail(&[0x55, 0x48, 0x89, 0xe5]).is_none());
        assert!(tail(&[0xc3, 0x90, 0x90]).is_none());
        assert!(tail(&[0x48, 0x89, 0xc3]).is_none());
    }

    #[test]
    fn nothing_is_overwritten_that_a_jump_leads_to() {
        const TEST: [u8; 3] = [0x48, 0x85, 0xc0];
        const MOV: [u8; 1] = [0x90];
        let text = |jump: &[u8]| [&[0x90; 64][..], &SYSCALL, &TEST, &MOV, &[0x90; 16], jump, &[0x90; 64]].concat();
        // From 86: back to 66, behind the call, and to 71, where nothing is overwritten.
        let found = |jump: &[u8]| Tail::behind(&text(jump), 64).is_some();
        assert!(!found(&[0x74, (66 - 88_i8) as u8]));
        assert!(!found(&[0xe9, (66 - 91_i8) as u8, 0xff, 0xff, 0xff]));
        assert!(!found(&[0x0f, 0x84, (68 - 92_i8) as u8, 0xff, 0xff, 0xff]));
        assert!(found(&[0x74, (71 - 88_i8) as u8]));
        assert!(found(&[0x74, (64 - 88_i8) as u8]));
    }
}
