//! Files of `/proc/PID` that show the process's memory: `cmdline`, `environ`, `auxv`, `mem`.

use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{AddressSpace, IoDst, IoSrc};
use crate::ptrace;
use crate::vfs::{Attr, File, FileOps, FileType, Inode, OpenFlags};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// More than a stack can hold of arguments and environment.
const MAX_STRINGS: u64 = 8 << 20;

/// Reads what can be read of `[start, end)`.
fn read_range(ctx: &Ctx, space: &AddressSpace, start: u64, end: u64) -> Vec<u8> {
    let len = end.saturating_sub(start).min(MAX_STRINGS);
    let mut bytes = alloc::vec![0; len as usize];
    let got = ctx.kernel.platform.read_memory(space, start, &mut bytes);
    bytes.truncate(got);
    bytes
}

/// The arguments. A program that has overwritten their last NUL has set a title, which may go on into the environment.
pub(super) fn cmdline(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let Some(space) = subject.memory() else { return Ok(Vec::new()) };
    let (args, env) = {
        let inner = space.inner.lock();
        (inner.args, inner.env)
    };
    let mut bytes = read_range(ctx, &space, args.0, args.1);
    if bytes.last().is_some_and(|&b| b != 0) {
        if env.0 == args.1 {
            bytes.extend(read_range(ctx, &space, env.0, env.1));
        }
        let end = bytes.iter().position(|&b| b == 0).map_or(bytes.len(), |nul| nul + 1);
        bytes.truncate(end);
    }
    Ok(bytes)
}

pub(super) fn environ(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    subject.check_access(ctx)?;
    let Some(space) = subject.memory() else { return Ok(Vec::new()) };
    let (start, end) = space.inner.lock().env;
    Ok(read_range(ctx, &space, start, end))
}

pub(super) fn auxv(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    subject.check_access(ctx)?;
    let Some(space) = subject.memory() else { return Ok(Vec::new()) };
    let mut pairs = space.inner.lock().auxv.clone();
    if pairs.last().is_some_and(|&(tag, _)| tag != 0) {
        pairs.push((0, 0));
    }
    Ok(pairs.iter().flat_map(|(tag, value)| [tag.to_ne_bytes(), value.to_ne_bytes()].concat()).collect())
}

/// `/proc/PID/mem`.
pub(super) struct MemoryFile {
    pub(super) attr: Attr,
    pub(super) subject: Subject,
}

impl Inode for MemoryFile {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn open(self: Arc<Self>, ctx: &Ctx, _flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        self.subject.check_access(ctx)?;
        let space = self.subject.living()?.mm()?;
        Ok(Some(Box::new(OpenMemory(space))))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Memory open for reading and writing; the file position is the address.
struct OpenMemory(Arc<AddressSpace>);

impl FileOps for OpenMemory {
    fn read(&self, ctx: &Ctx, _file: &File, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let mut chunk = [0u8; 4096];
        let mut done = 0;
        while dst.remaining() > 0 {
            let piece = &mut chunk[..dst.remaining().min(4096)];
            let got = ptrace::memory::read_any(ctx, &self.0, offset.wrapping_add(done as u64), piece);
            if got == 0 {
                break;
            }
            let put = dst.put(&piece[..got])?;
            done += put;
            if put < got || got < piece.len() {
                break;
            }
        }
        if done == 0 && dst.remaining() > 0 { Err(Errno::EIO.into()) } else { Ok(done) }
    }

    fn write(&self, ctx: &Ctx, _file: &File, offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let mut chunk = [0u8; 4096];
        let mut done = 0;
        while src.remaining() > 0 {
            let piece = chunk.len().min(src.remaining());
            let taken = src.take(&mut chunk[..piece])?;
            let at = offset.wrapping_add(done as u64);
            let put = ptrace::memory::write_any(ctx, &self.0, at, &chunk[..taken]);
            src.untake(taken - put);
            done += put;
            if put < taken || taken < piece {
                break;
            }
        }
        if done == 0 && src.remaining() > 0 { Err(Errno::EIO.into()) } else { Ok(done) }
    }

    fn seekable(&self) -> bool {
        true
    }

    fn pollable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
