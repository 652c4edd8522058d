//! Programs, as `execve(2)` reads them.

use umkernel::loader::elf::{Header, Program};

/// The bytes are a program's.
pub fn feed(data: &[u8]) {
    let Ok(header) = Header::parse(data) else { return };
    let end = (header.phoff as usize).saturating_add(header.phdrs_len());
    let headers = data.get(header.phoff as usize..end).unwrap_or_default();
    let Ok(program) = Program::parse(header, headers) else { return };
    let _ = (program.extent(), program.alignment(), program.phdr_vaddr());
}

/// This program's own first bytes.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![std::fs::read("/proc/self/exe").unwrap()[..2048].to_vec()]
}
