//! ELF files (`elf(5)`): parsed from untrusted bytes.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::mm::{PAGE_SIZE, Prot, TASK_SIZE};
use alloc::vec::Vec;

/// Length of an ELF64 file header.
pub const HEADER_LEN: usize = 64;
/// Length of an ELF64 program header.
const PHDR_LEN: usize = 56;
/// Linux takes at most a page's worth of program headers from a file whose headers it can load at once.
const MAX_PHDRS: u16 = 512;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
pub(crate) const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
/// Notes, in core files.
pub(crate) const PT_NOTE: u32 = 4;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// What an ELF file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Linked for any address (`ET_DYN`).
    pub relocatable: bool,
    /// First instruction, before relocation.
    pub entry: u64,
    /// Where in the file the program headers lie.
    pub phoff: u64,
    /// How many there are.
    pub phnum: u16,
}

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it begins.
    pub offset: u64,
    /// Where in memory it begins, before relocation.
    pub vaddr: u64,
    /// Bytes from the file.
    pub filesz: u64,
    /// Bytes in memory.
    pub memsz: u64,
    /// Protection.
    pub prot: Prot,
    /// Alignment asked for.
    pub align: u64,
}

/// An ELF program as far as loading it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The header.
    pub header: Header,
    /// Segments in order of address.
    pub segments: Vec<Segment>,
    /// Where in the file the interpreter's path lies (offset, length with NUL).
    pub interp: Option<(u64, u64)>,
    /// The stack must be executable (`PT_GNU_STACK` says so).
    pub exec_stack: bool,
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

impl Header {
    /// Parses the first bytes of a file. `ENOEXEC` if they are not an ELF64 program for x86-64.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        let Some(b) = bytes.get(..HEADER_LEN) else { bail!(ENOEXEC, "shorter than an ELF header") };
        if b[..4] != *b"\x7fELF" {
            bail!(ENOEXEC, "no ELF magic");
        }
        // Class 64-bit, little-endian.
        if b[4] != 2 || b[5] != 1 || u16_at(b, 18) != EM_X86_64 {
            bail!(ENOEXEC, "not for x86-64");
        }
        let relocatable = match u16_at(b, 16) {
            ET_EXEC => false,
            ET_DYN => true,
            _ => bail!(ENOEXEC, "neither an executable nor a shared object"),
        };
        let phnum = u16_at(b, 56);
        if usize::from(u16_at(b, 54)) != PHDR_LEN || phnum == 0 || phnum > MAX_PHDRS {
            bail!(ENOEXEC, "program headers of an unknown kind or number");
        }
        Ok(Header { relocatable, entry: u64_at(b, 24), phoff: u64_at(b, 32), phnum })
    }

    /// Bytes that the program headers take.
    pub fn phdrs_len(&self) -> usize {
        usize::from(self.phnum) * PHDR_LEN
    }
}

impl Program {
    /// Parses the program headers. `ENOEXEC` or `EINVAL` if they make no sense.
    pub fn parse(header: Header, phdrs: &[u8]) -> Result<Program> {
        if phdrs.len() != header.phdrs_len() {
            bail!(ENOEXEC, "program headers are cut off");
        }
        let mut program = Program { header, segments: Vec::new(), interp: None, exec_stack: false };
        for ph in phdrs.chunks_exact(PHDR_LEN) {
            let flags = u32_at(ph, 4);
            let (offset, vaddr, filesz, memsz) = (u64_at(ph, 8), u64_at(ph, 16), u64_at(ph, 32), u64_at(ph, 40));
            match u32_at(ph, 0) {
                PT_LOAD => {
                    let fits = vaddr.checked_add(memsz).is_some_and(|end| end <= TASK_SIZE);
                    if !fits || filesz > memsz || offset.checked_add(filesz).is_none() {
                        bail!(EINVAL, "a segment does not fit in memory");
                    }
                    if offset % PAGE_SIZE != vaddr % PAGE_SIZE {
                        bail!(EINVAL, "a segment's offset and address do not agree");
                    }
                    if memsz == 0 {
                        continue;
                    }
                    // PF_X 1, PF_W 2, PF_R 4.
                    let mut prot = Prot::empty();
                    prot.set(Prot::EXEC, flags & 1 != 0);
                    prot.set(Prot::WRITE, flags & 2 != 0);
                    prot.set(Prot::READ, flags & 4 != 0);
                    program.segments.push(Segment { offset, vaddr, filesz, memsz, prot, align: u64_at(ph, 48) });
                }
                PT_INTERP if program.interp.is_none() => {
                    if !(2..=4096).contains(&filesz) {
                        bail!(ENOEXEC, "the interpreter's path is too long or empty");
                    }
                    program.interp = Some((offset, filesz));
                }
                PT_GNU_STACK => program.exec_stack = flags & 1 != 0,
                _ => {}
            }
        }
        if program.segments.is_empty() {
            bail!(ENOEXEC, "nothing to load");
        }
        if !program.segments.is_sorted_by_key(|s| s.vaddr) {
            bail!(EINVAL, "segments are out of order");
        }
        Ok(program)
    }

    /// First page and first page behind the whole program, before relocation.
    pub fn extent(&self) -> Result<(u64, u64)> {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else { bail!(ENOEXEC) };
        let end = crate::mm::page_up(last.vaddr + last.memsz).ok_or(Errno::EINVAL)?;
        Ok((first.vaddr & !(PAGE_SIZE - 1), end))
    }

    /// The alignment that all segments ask for, a power of two of at least a page.
    pub fn alignment(&self) -> u64 {
        let sane = |a: u64| a.is_power_of_two() && a <= 1 << 30;
        self.segments.iter().map(|s| s.align).filter(|&a| sane(a)).fold(PAGE_SIZE, u64::max)
    }

    /// Address of the program headers in memory, before relocation, if a segment holds them.
    pub fn phdr_vaddr(&self) -> Option<u64> {
        let at = self.header.phoff;
        self.segments.iter().find(|s| at >= s.offset && at < s.offset + s.filesz).map(|s| s.vaddr + (at - s.offset))
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    fn own_image() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn parses_this_very_program() {
        let bytes = own_image();
        let header = Header::parse(&bytes).unwrap();
        let at = header.phoff as usize;
        let program = Program::parse(header, &bytes[at..at + header.phdrs_len()]).unwrap();
        assert!(program.header.relocatable);
        assert!(program.interp.is_some());
        assert!(!program.exec_stack);
        let entry = program.header.entry;
        assert!(
            program
                .segments
                .iter()
                .any(|s| s.prot.contains(Prot::EXEC) && (s.vaddr..s.vaddr + s.memsz).contains(&entry))
        );
    }

    #[test]
    fn refuses_what_is_no_program() {
        assert_eq!(Header::parse(b"").unwrap_err(), Errno::ENOEXEC);
        assert_eq!(Header::parse(&[0; 64]).unwrap_err(), Errno::ENOEXEC);
        let mut other = own_image();
        other.truncate(64);
        other[18] = 40;
        assert_eq!(Header::parse(&other).unwrap_err(), Errno::ENOEXEC);
    }

    #[test]
    fn mutated_headers_never_panic() {
        let bytes = own_image();
        let header = Header::parse(&bytes).unwrap();
        let at = header.phoff as usize;
        let phdrs = bytes[at..at + header.phdrs_len()].to_vec();
        let mut generator = crate::testing::Random(0x2545_f491_4f6c_dd1d);
        let mut random = || generator.next();
        for _ in 0..50_000 {
            let mut bad = phdrs.clone();
            for _ in 0..random() % 8 + 1 {
                let i = random() as usize % bad.len();
                bad[i] = random() as u8;
            }
            if let Ok(program) = Program::parse(header, &bad) {
                let _ = (program.extent(), program.alignment(), program.phdr_vaddr());
            }
        }
        assert!(Program::parse(header, &[0; 3]).is_err());
    }
}
