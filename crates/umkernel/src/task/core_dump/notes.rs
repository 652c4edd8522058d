//! The notes of a core file: registers, the process, why it ended, its auxiliary vector, and which files it had mapped
//! (`linux/elfcore.h`; the structures are those of x86-64).

use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{PAGE_SIZE, Vma, VmaKind};
use crate::platform::TrapFrame;
use crate::signal::SigInfo;
use alloc::vec::Vec;

/// The most characters of arguments that are told (`ELF_PRARGSZ`, with its end).
const ARGUMENTS_MAX: usize = 80;
/// Bytes of the state that `fxsave` stores, with which XSAVE's begins.
const FXSAVE_LEN: usize = 512;

// Types of notes (`linux/elf.h`).
const PRSTATUS: u32 = 1;
const FPREGSET: u32 = 2;
const PRPSINFO: u32 = 3;
const AUXV: u32 = 6;
const X86_XSTATE: u32 = 0x202;
const FILE: u32 = 0x4649_4c45;
const SIGINFO: u32 = 0x5349_4749;

/// All notes, in Linux's order.
pub(super) fn all(ctx: &Ctx, frame: &TrapFrame, info: &SigInfo, vmas: &[Vma]) -> Result<Vec<u8>> {
    let mut notes = Vec::new();
    push(&mut notes, b"CORE\0", PRSTATUS, &status(ctx, frame, info));
    push(&mut notes, b"CORE\0", PRPSINFO, &process(ctx)?);
    push(&mut notes, b"CORE\0", SIGINFO, &info.encode());
    push(&mut notes, b"CORE\0", AUXV, &auxiliary_vector(ctx)?);
    push(&mut notes, b"CORE\0", FILE, &files(ctx, vmas));
    let state = ctx.kernel.platform.extended_state(ctx.task)?;
    if let Some(legacy) = state.get(..FXSAVE_LEN) {
        push(&mut notes, b"CORE\0", FPREGSET, legacy);
        push(&mut notes, b"LINUX\0", X86_XSTATE, &state);
    }
    Ok(notes)
}

fn push(notes: &mut Vec<u8>, name: &[u8], kind: u32, contents: &[u8]) {
    for word in [name.len() as u32, contents.len() as u32, kind] {
        notes.extend_from_slice(&word.to_le_bytes());
    }
    for bytes in [name, contents] {
        notes.extend_from_slice(bytes);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
}

/// `struct elf_prstatus`.
fn status(ctx: &Ctx, frame: &TrapFrame, info: &SigInfo) -> Vec<u8> {
    let process = &ctx.task.process;
    let (group, session) = process.group_and_session();
    let signals = &ctx.task.signals;
    let mut s = Vec::new();
    for word in [i32::from(info.signo), info.code, info.errno] {
        s.extend_from_slice(&word.to_le_bytes());
    }
    // The signal again, in a half word, and its padding.
    s.extend_from_slice(&u32::from(info.signo).to_le_bytes());
    s.extend_from_slice(&signals.pending().0.to_le_bytes());
    s.extend_from_slice(&signals.blocked().0.to_le_bytes());
    for id in [ctx.task.tid(), process.ppid(), group, session] {
        s.extend_from_slice(&id.to_le_bytes());
    }
    let used = ctx.kernel.process_times(process);
    let children = process.inner.lock().dead_children;
    for ns in [used.utime, used.stime, children.utime, children.stime] {
        s.extend_from_slice(&(ns / 1_000_000_000).to_le_bytes());
        s.extend_from_slice(&(ns % 1_000_000_000 / 1000).to_le_bytes());
    }
    s.extend(frame.words().iter().flat_map(|word| word.to_le_bytes()));
    // There are floating point registers; padding.
    s.extend_from_slice(&1u64.to_le_bytes());
    s
}

/// `struct elf_prpsinfo`.
fn process(ctx: &Ctx) -> Result<Vec<u8>> {
    let process = &ctx.task.process;
    let (group, session) = process.group_and_session();
    let creds = ctx.creds();
    let nice = process.inner.lock().nice;
    let mut s = alloc::vec![0, b'R', 0, nice as u8, 0, 0, 0, 0];
    s.extend_from_slice(&0u64.to_le_bytes());
    for id in [creds.uid, creds.gid] {
        s.extend_from_slice(&id.to_le_bytes());
    }
    for id in [process.pid, process.ppid(), group, session] {
        s.extend_from_slice(&id.to_le_bytes());
    }
    let mut padded = |text: &[u8], len: usize| {
        let end = s.len() + len;
        s.extend_from_slice(&text[..text.len().min(len - 1)]);
        s.resize(end, 0);
    };
    padded(ctx.task.comm.lock().as_bytes(), 16);
    let (start, end) = ctx.mm()?.inner.lock().args;
    let mut arguments = [0; ARGUMENTS_MAX];
    let len = end.saturating_sub(start).min(ARGUMENTS_MAX as u64 - 1) as usize;
    let got = ctx.kernel.platform.read_memory(ctx.mm()?, start, &mut arguments[..len]);
    let arguments: Vec<u8> = arguments[..got].iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    padded(&arguments, ARGUMENTS_MAX);
    Ok(s)
}

fn auxiliary_vector(ctx: &Ctx) -> Result<Vec<u8>> {
    let pairs = ctx.mm()?.inner.lock().auxv.clone();
    let end = pairs.last().is_some_and(|pair| pair.0 != 0).then_some((0, 0));
    Ok(pairs.iter().chain(&end).flat_map(|(key, value)| [key.to_le_bytes(), value.to_le_bytes()].concat()).collect())
}

/// Which files are mapped where: `NT_FILE`.
fn files(ctx: &Ctx, vmas: &[Vma]) -> Vec<u8> {
    let root = ctx.fs().inner.lock().root.clone();
    let (mut places, mut names, mut count) = (Vec::new(), Vec::new(), 0u64);
    for vma in vmas {
        let VmaKind::File { file, offset } = &vma.kind else { continue };
        for word in [vma.start, vma.end, offset / PAGE_SIZE] {
            places.extend_from_slice(&word.to_le_bytes());
        }
        names.extend_from_slice(&file.location.display_path(&root));
        names.push(0);
        count += 1;
    }
    let mut note = [count.to_le_bytes(), PAGE_SIZE.to_le_bytes()].concat();
    note.append(&mut places);
    note.append(&mut names);
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_padded_to_words() {
        let mut notes = Vec::new();
        push(&mut notes, b"CORE\0", 7, b"abcde");
        assert_eq!(notes.len(), 12 + 8 + 8);
        assert_eq!(&notes[..12], [5, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(&notes[12..], *b"CORE\0\0\0\0abcde\0\0\0");
    }
}
