//! Asynchronous I/O (`io_setup(2)`, `linux/aio_abi.h`).

use super::file_io::{
    RWF_APPEND, RWF_DSYNC, RWF_HIPRI, RWF_NOWAIT, RWF_SYNC, one_range, read_iovec, readable, writable,
};
use super::poll::read_mask;
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Error, Result};
use crate::event::aio::{AioContext, Event};
use crate::event::deadline_after;
use crate::event::eventfd::EventFd;
use crate::kernel::Ctx;
use crate::mm::{UserDst, UserSrc};
use crate::platform::TrapFrame;
use crate::signal::{self, SigSet};
use crate::vfs::File;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(206, "io_setup", Family::Desc, &[Arg::Uint, Arg::Ptr], Support::Full, sys_io_setup),
    Entry::new(207, "io_destroy", Family::Desc, &[Arg::Ptr], Support::Full, sys_io_destroy),
    Entry::new(208, "io_getevents", Family::Desc, GETEVENTS, Support::Full, sys_io_getevents),
    Entry::new(209, "io_submit", Family::Desc, &[Arg::Ptr, Arg::Long, Arg::Ptr], SUBMIT, sys_io_submit),
    Entry::new(210, "io_cancel", Family::Desc, &[Arg::Ptr, Arg::Ptr, Arg::Ptr], Support::Full, sys_io_cancel),
    Entry::new(333, "io_pgetevents", Family::Desc, PGETEVENTS, Support::Full, sys_io_pgetevents),
];

const SUBMIT: Support = Support::Partial("no IOCB_CMD_POLL; a request is over when the call returns");
const GETEVENTS: &[Arg] = &[Arg::Ptr, Arg::Long, Arg::Long, Arg::Ptr, Arg::Kind("timespec_in")];
const PGETEVENTS: &[Arg] =
    &[Arg::Ptr, Arg::Long, Arg::Long, Arg::Ptr, Arg::Kind("timespec_in"), Arg::Kind("pselect_mask")];

/// Kinds of requests (`IOCB_CMD_*`).
const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;
/// The event is told to an eventfd, too (`IOCB_FLAG_RESFD`).
const FLAG_RESFD: u32 = 1;

/// Where the kernel's mark lies in a request (`aio_key`).
const KEY_OFFSET: u64 = 8;

/// A request: `struct iocb`.
struct Request {
    data: u64,
    rw_flags: u64,
    kind: u16,
    fd: i32,
    buf: u64,
    count: u64,
    offset: u64,
    reserved: u64,
    flags: u32,
    eventfd: i32,
}

impl Request {
    fn read(ctx: &Ctx, addr: u64) -> Result<Request> {
        let words: [u64; 8] = ctx.read_val(addr)?;
        Ok(Request {
            data: words[0],
            rw_flags: words[1] >> 32,
            kind: words[2] as u16,
            fd: (words[2] >> 32) as i32,
            buf: words[3],
            count: words[4],
            offset: words[5],
            reserved: words[6],
            flags: words[7] as u32,
            eventfd: (words[7] >> 32) as i32,
        })
    }

    /// Does what is asked for: the outer error is one of the request itself, of which no event tells.
    fn run(&self, ctx: &Ctx, file: &File) -> Result<Result<usize>> {
        match self.kind {
            PREAD | PREADV => self.move_in(ctx, file),
            PWRITE | PWRITEV => self.move_out(ctx, file),
            FSYNC | FDSYNC => {
                if (self.buf | self.count | self.offset) != 0 || self.rw_flags != 0 {
                    bail!(EINVAL);
                }
                Ok(file.sync(self.kind == FDSYNC).map(|()| 0))
            }
            _ => bail!(EINVAL, "no such request"),
        }
    }

    fn check(&self, file: &File, known: u64) -> Result<()> {
        if self.rw_flags & !known != 0 {
            bail!(EOPNOTSUPP);
        }
        if file.seekable() && (self.offset as i64) < 0 {
            bail!(EINVAL);
        }
        Ok(())
    }

    fn ranges(&self, ctx: &Ctx) -> Result<alloc::vec::Vec<(u64, usize)>> {
        match self.kind {
            PREADV | PWRITEV => read_iovec(ctx, self.buf, usize::try_from(self.count).unwrap_or(usize::MAX)),
            _ => one_range(self.buf, self.count).map(|range| alloc::vec![range]),
        }
    }

    fn move_in(&self, ctx: &Ctx, file: &File) -> Result<Result<usize>> {
        readable(file)?;
        let ranges = self.ranges(ctx)?;
        self.check(file, RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND)?;
        // As preadv2(2): what could have to wait cannot promise not to.
        if self.rw_flags & RWF_NOWAIT != 0 && file.ops.is_some() {
            bail!(EOPNOTSUPP);
        }
        let mut dst = UserDst::new(ctx, ctx.mm()?, ranges);
        Ok(if file.seekable() { file.pread(ctx, self.offset, &mut dst) } else { file.read(ctx, &mut dst) })
    }

    fn move_out(&self, ctx: &Ctx, file: &File) -> Result<Result<usize>> {
        writable(file)?;
        let ranges = self.ranges(ctx)?;
        self.check(file, RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND)?;
        let mut src = UserSrc::new(ctx, ctx.mm()?, ranges);
        let written = if !file.seekable() {
            file.write(ctx, &mut src)
        } else if self.rw_flags & RWF_APPEND != 0 {
            file.pwrite_mode(ctx, self.offset, true, &mut src)
        } else {
            file.pwrite(ctx, self.offset, &mut src)
        };
        if self.rw_flags & (RWF_DSYNC | RWF_SYNC) == 0 {
            return Ok(written);
        }
        Ok(written.and_then(|n| file.sync(self.rw_flags & RWF_SYNC == 0).map(|()| n)))
    }
}

/// The result of a request as its event has it. What a signal interrupted is not done again.
fn told(result: Result<usize>) -> i64 {
    match result {
        Ok(n) => n as i64,
        Err(Error { errno, .. }) if errno.0 >= Errno::ERESTARTSYS.0 => -i64::from(Errno::EINTR.0),
        Err(Error { errno, .. }) => -i64::from(errno.0),
    }
}

fn sys_io_setup(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let old: u64 = ctx.read_val(args[1])?;
    if old != 0 {
        bail!(EINVAL);
    }
    let space = ctx.mm()?;
    let number = space.new_aio(ctx, u64::from(args[0] as u32))?;
    if let Err(e) = ctx.write_val(args[1], &number) {
        space.destroy_aio(ctx, number)?;
        return Err(e);
    }
    Ok(0)
}

fn sys_io_destroy(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    ctx.mm()?.destroy_aio(ctx, args[0]).map(|()| 0)
}

fn sys_io_submit(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let Ok(count) = usize::try_from(args[1] as i64) else { bail!(EINVAL) };
    let context = ctx.mm()?.aio(args[0])?;
    let mut done = 0;
    while done < count.min(context.capacity() + 1) {
        match submit(ctx, &context, args[2].wrapping_add(done as u64 * 8)) {
            Ok(()) => done += 1,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Takes the request whose address is at `at`.
fn submit(ctx: &Ctx, context: &AioContext, at: u64) -> Result<()> {
    let addr: u64 = ctx.read_val(at)?;
    let request = Request::read(ctx, addr)?;
    if request.reserved != 0 || (request.count as i64) < 0 {
        bail!(EINVAL);
    }
    let place = context.place()?;
    let files = ctx.files();
    let file = files.get(request.fd)?;
    let told_too = if request.flags & FLAG_RESFD != 0 { Some(files.get(request.eventfd)?) } else { None };
    let counter = told_too.as_ref().map(|file| file.ops_as::<EventFd>().ok_or(Errno::EINVAL)).transpose()?;
    ctx.write_val(addr.wrapping_add(KEY_OFFSET), &0u32)?;
    let result = told(request.run(ctx, &file)?);
    place.complete(Event { data: request.data, request: addr, result });
    if let Some(counter) = counter {
        counter.signal();
    }
    Ok(())
}

/// There is never a request to be cancelled; a pointer that is none is told first.
fn sys_io_cancel(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let _: u32 = ctx.read_val(args[1].wrapping_add(KEY_OFFSET))?;
    bail!(EINVAL, "the request is over, or was none")
}

fn fetch(ctx: &Ctx, args: &[u64; 6]) -> Result<usize> {
    let deadline = match args[4] {
        0 => None,
        addr => {
            let [sec, nsec]: [i64; 2] = ctx.read_val(addr)?;
            Some(deadline_after(sec, nsec)?)
        }
    };
    let context = ctx.mm()?.aio(args[0])?;
    let (Ok(least), Ok(most)) = (usize::try_from(args[1] as i64), usize::try_from(args[2] as i64)) else {
        bail!(EINVAL)
    };
    if least > most {
        bail!(EINVAL);
    }
    context.fetch(ctx, least, most, args[3], deadline)
}

fn sys_io_getevents(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    fetch(ctx, args)
}

fn sys_io_pgetevents(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [mask, size]: [u64; 2] = if args[5] == 0 { [0, SigSet::SIZE] } else { ctx.read_val(args[5])? };
    let mask = read_mask(ctx, mask, size)?;
    signal::with_mask(ctx, mask, || fetch(ctx, args))
}
