//! Moving bytes between open files: `sendfile(2)`, `copy_file_range(2)`, `splice(2)`, `tee(2)`, `vmsplice(2)`.

use super::file_io::read_iovec;
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{KernelDst, KernelSrc, UserDst, UserSrc};
use crate::platform::TrapFrame;
use crate::vfs::{File, FileType, OpenFlags, Pipe, PipeEnd};
use alloc::sync::Arc;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(40, "sendfile", Family::Desc, SENDFILE, Support::Full, sys_sendfile),
    Entry::new(275, "splice", Family::Desc, SPLICE, Support::Full, sys_splice),
    Entry::new(276, "tee", Family::Desc, TEE, Support::Full, sys_tee),
    Entry::new(278, "vmsplice", Family::Desc, VMSPLICE, Support::Partial("pages are copied, not gifted"), sys_vmsplice),
    Entry::new(326, "copy_file_range", Family::Desc, SPLICE, Support::Full, sys_copy_file_range),
];

const SENDFILE: &[Arg] = &[Arg::Fd, Arg::Fd, Arg::Ptr, Arg::Uint];
const SPLICE: &[Arg] = &[Arg::Fd, Arg::Ptr, Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Kind("splice_flags")];
const TEE: &[Arg] = &[Arg::Fd, Arg::Fd, Arg::Uint, Arg::Kind("splice_flags")];
const VMSPLICE: &[Arg] = &[Arg::Fd, Arg::Kind("iovec"), Arg::Uint, Arg::Kind("splice_flags")];

/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;
/// The most that one call moves.
const COUNT_MAX: usize = 0x7fff_f000;
const SPLICE_F_NONBLOCK: u64 = 2;
const SPLICE_F_ALL: u64 = 15;

/// A file and the offset at which a copy works, which is the file's position or one in user memory.
struct End {
    file: Arc<File>,
    /// Address of the offset in user memory; 0 for the file's own position.
    addr: u64,
    offset: u64,
}

impl End {
    fn new(ctx: &Ctx, file: Arc<File>, addr: u64) -> Result<End> {
        let offset = if addr != 0 { ctx.read_val::<u64>(addr)? } else { file.position.turn(false).get() };
        if (offset as i64) < 0 {
            bail!(EINVAL);
        }
        Ok(End { file, addr, offset })
    }

    fn read(&mut self, ctx: &Ctx, buf: &mut [u8]) -> Result<usize> {
        let mut dst = KernelDst::new(buf);
        if self.file.seekable() { self.file.pread(ctx, self.offset, &mut dst) } else { self.file.read(ctx, &mut dst) }
    }

    fn write(&mut self, ctx: &Ctx, buf: &[u8]) -> Result<usize> {
        let mut src = KernelSrc::new(buf);
        if self.file.seekable() { self.file.pwrite(ctx, self.offset, &mut src) } else { self.file.write(ctx, &mut src) }
    }

    /// Stores how far the copy came.
    fn finish(&self, ctx: &Ctx) -> Result<()> {
        if self.addr != 0 {
            return ctx.write_val(self.addr, &self.offset);
        }
        if self.file.seekable() {
            self.file.position.turn(false).set(self.offset);
        }
        Ok(())
    }
}

/// Copies up to `count` bytes; what was copied counts more than an error behind it.
fn copy(ctx: &Ctx, from: &mut End, to: &mut End, count: usize) -> Result<usize> {
    let mut buf = alloc::vec![0; count.min(CHUNK)];
    let mut done = 0;
    let result = loop {
        let want = (count - done).min(CHUNK);
        if want == 0 {
            break Ok(());
        }
        let got = match from.read(ctx, &mut buf[..want]) {
            Ok(0) => break Ok(()),
            Ok(got) => got,
            Err(e) => break Err(e),
        };
        let put = match to.write(ctx, &buf[..got]) {
            Ok(put) => put,
            Err(e) => break Err(e),
        };
        done += put;
        from.offset += put as u64;
        to.offset += put as u64;
        if put < got {
            break Ok(());
        }
    };
    if done == 0 {
        result?;
    }
    from.finish(ctx)?;
    to.finish(ctx)?;
    Ok(done)
}

fn sys_sendfile(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let files = ctx.files();
    let input = files.get(args[1] as i32)?;
    if !input.flags().readable() {
        bail!(EBADF);
    }
    let output = files.get(args[0] as i32)?;
    if !output.flags().writable() {
        bail!(EBADF);
    }
    if !input.seekable() && args[2] != 0 {
        bail!(ESPIPE);
    }
    if !input.seekable() || input.inode.file_type() == FileType::Directory || output.flags().contains(OpenFlags::APPEND)
    {
        bail!(EINVAL);
    }
    let count = (args[3] as usize).min(COUNT_MAX);
    if args[3] > i64::MAX as u64 {
        bail!(EINVAL);
    }
    let mut from = End::new(ctx, input, args[2])?;
    let mut to = End::new(ctx, output, 0)?;
    copy(ctx, &mut from, &mut to, count)
}

fn sys_copy_file_range(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let files = ctx.files();
    let input = files.get(args[0] as i32)?;
    let output = files.get(args[2] as i32)?;
    let mut from = End::new(ctx, input, args[1])?;
    let mut to = End::new(ctx, output, args[3])?;
    if args[5] != 0 {
        bail!(EINVAL);
    }
    for file in [&from.file, &to.file] {
        match file.inode.file_type() {
            FileType::Regular => {}
            FileType::Directory => bail!(EISDIR),
            _ => bail!(EINVAL),
        }
    }
    if !from.file.flags().readable() || !to.file.flags().writable() || to.file.flags().contains(OpenFlags::APPEND) {
        bail!(EBADF);
    }
    let count = args[4].min(COUNT_MAX as u64);
    if from.offset.checked_add(args[4]).is_none() || to.offset.checked_add(args[4]).is_none() {
        bail!(EOVERFLOW);
    }
    if Arc::ptr_eq(&from.file.inode, &to.file.inode)
        && from.offset < to.offset + count
        && to.offset < from.offset + count
    {
        bail!(EINVAL, "the ranges overlap");
    }
    copy(ctx, &mut from, &mut to, count as usize)
}

fn pipe_of(file: &File) -> Option<Arc<Pipe>> {
    file.ops_as::<PipeEnd>().map(|end| end.pipe().clone())
}

fn sys_splice(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [in_fd, in_offset, out_fd, out_offset, len, flags] = *args;
    if flags & !SPLICE_F_ALL != 0 {
        bail!(EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let files = ctx.files();
    let (input, output) = (files.get(in_fd as i32)?, files.get(out_fd as i32)?);
    if !input.flags().readable() || !output.flags().writable() {
        bail!(EBADF);
    }
    // Before anybody waits for what could not be moved.
    let anonymous = |file: &File| file.location.dentry.name().starts_with(b"anon_inode:");
    if input.inode.file_type() == FileType::Directory || anonymous(&input) || anonymous(&output) {
        bail!(EINVAL, "there is no data to splice");
    }
    let (in_pipe, out_pipe) = (pipe_of(&input), pipe_of(&output));
    if in_pipe.is_some() && in_offset != 0 || out_pipe.is_some() && out_offset != 0 {
        bail!(ESPIPE);
    }
    for (file, offset) in [(&input, in_offset), (&output, out_offset)] {
        if offset != 0 && !file.seekable() {
            bail!(EINVAL);
        }
    }
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    let count = (len as usize).min(COUNT_MAX).min(CHUNK);
    match (in_pipe, out_pipe) {
        (Some(a), Some(b)) if Arc::ptr_eq(&a, &b) => bail!(EINVAL),
        (Some(from), to) => {
            if output.flags().contains(OpenFlags::APPEND) {
                bail!(EINVAL);
            }
            let mut room = count;
            if let Some(to) = &to {
                room = room.min(to.wait_writable(ctx, nonblocking || output.nonblocking())?);
            }
            if !from.wait_readable(ctx, nonblocking || input.nonblocking())? {
                return Ok(0);
            }
            let mut buf = alloc::vec![0; room];
            let got = input.read(ctx, &mut KernelDst::new(&mut buf))?;
            let mut end = End::new(ctx, output, out_offset)?;
            match end.write(ctx, &buf[..got]) {
                Ok(put) => {
                    if put < got {
                        from.unread(&buf[put..got]);
                    }
                    end.offset += put as u64;
                    end.finish(ctx)?;
                    Ok(put)
                }
                Err(e) => {
                    from.unread(&buf[..got]);
                    Err(e)
                }
            }
        }
        (None, Some(to)) => {
            let room = to.wait_writable(ctx, nonblocking || output.nonblocking())?;
            let mut buf = alloc::vec![0; count.min(room)];
            let mut end = End::new(ctx, input, in_offset)?;
            let got = end.read(ctx, &mut buf)?;
            let mut done = 0;
            while done < got {
                match output.write(ctx, &mut KernelSrc::new(&buf[done..got])) {
                    Ok(n) => done += n,
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => break,
                }
            }
            end.offset += done as u64;
            end.finish(ctx)?;
            Ok(done)
        }
        (None, None) => bail!(EINVAL),
    }
}

fn sys_tee(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [in_fd, out_fd, len, flags, ..] = *args;
    if flags & !SPLICE_F_ALL != 0 {
        bail!(EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let files = ctx.files();
    let (input, output) = (files.get(in_fd as i32)?, files.get(out_fd as i32)?);
    if !input.flags().readable() || !output.flags().writable() {
        bail!(EBADF);
    }
    let (Some(from), Some(to)) = (pipe_of(&input), pipe_of(&output)) else {
        bail!(EINVAL);
    };
    if Arc::ptr_eq(&from, &to) {
        bail!(EINVAL);
    }
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    if !from.wait_readable(ctx, nonblocking || input.nonblocking())? {
        return Ok(0);
    }
    let room = to.wait_writable(ctx, nonblocking || output.nonblocking())?;
    let mut buf = alloc::vec![0; (len as usize).min(CHUNK).min(room)];
    let got = from.peek(&mut buf);
    output.write(ctx, &mut KernelSrc::new(&buf[..got]))
}

fn sys_vmsplice(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if args[3] & !SPLICE_F_ALL != 0 {
        bail!(EINVAL);
    }
    let file = ctx.file(args[0] as i32)?;
    let Some(pipe) = pipe_of(&file) else { bail!(EBADF) };
    let space = ctx.mm()?;
    let mut ranges = read_iovec(ctx, args[1], args[2] as usize)?;
    if !file.flags().writable() {
        return file.read(ctx, &mut UserDst::new(ctx, space, ranges));
    }
    if ranges.iter().all(|r| r.1 == 0) {
        return Ok(0);
    }
    // It waits for some room only, and takes what fits there.
    let nonblocking = args[3] & SPLICE_F_NONBLOCK != 0 || file.nonblocking();
    let mut room = pipe.wait_writable(ctx, nonblocking)?;
    for (_, len) in &mut ranges {
        *len = (*len).min(room);
        room -= *len;
    }
    file.write(ctx, &mut UserSrc::new(ctx, space, ranges))
}
