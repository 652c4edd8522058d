//! POSIX message queues (`mq_overview(7)`).

use super::open::{RLIMIT_NOFILE, install};
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::fs::mqueue::{self, OpenQueue};
use crate::ipc::mqueue::{COOKIE_LEN, Cookie, How, PRIORITIES};
use crate::kernel::Ctx;
use crate::net::netlink::Reserved;
use crate::platform::TrapFrame;
use crate::signal::number::SIGRTMAX;
use crate::time::read_timespec;
use crate::vfs::OpenFlags;

const OPEN: &[Arg] = &[Arg::Path, Arg::Kind("open_flags"), Arg::Mode, Arg::Kind("mq_attr_made")];
const SEND: &[Arg] = &[Arg::Fd, Arg::BufIn(2), Arg::Uint, Arg::Uint, Arg::Kind("timespec_in")];
const RECEIVE: &[Arg] = &[Arg::Fd, Arg::BufOut, Arg::Uint, Arg::Kind("int_out"), Arg::Kind("timespec_in")];
const NOTIFY: &[Arg] = &[Arg::Fd, Arg::Kind("sigevent")];
const GETSETATTR: &[Arg] = &[Arg::Fd, Arg::Kind("mq_attr_in"), Arg::Kind("mq_attr_out")];

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(240, "mq_open", Family::Ipc, OPEN, Support::Full, sys_mq_open),
    Entry::new(241, "mq_unlink", Family::Ipc, &[Arg::Path], Support::Full, sys_mq_unlink),
    Entry::new(242, "mq_timedsend", Family::Ipc, SEND, Support::Full, sys_mq_timedsend),
    Entry::new(243, "mq_timedreceive", Family::Ipc, RECEIVE, Support::Full, sys_mq_timedreceive),
    Entry::new(244, "mq_notify", Family::Ipc, NOTIFY, Support::Full, sys_mq_notify),
    Entry::new(245, "mq_getsetattr", Family::Ipc, GETSETATTR, Support::Full, sys_mq_getsetattr),
];

/// A `struct mq_attr` as words: flags, messages at most, bytes of each at most, messages now; the rest is reserved.
type MqAttr = [i64; 8];

fn sys_mq_open(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let attr = if args[3] == 0 { None } else { Some(ctx.read_val::<MqAttr>(args[3])?) };
    let name = ctx.read_path(args[0])?;
    ctx.files().check_room(ctx.task.process.limit(RLIMIT_NOFILE))?;
    let flags = OpenFlags::from_bits_retain(args[1] as u32);
    let wish = attr.map(|[_, messages, bytes, ..]| [messages, bytes]);
    install(ctx, mqueue::open(ctx, &name, flags, args[2] as u32, wish)?, true)
}

fn sys_mq_unlink(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    mqueue::unlink(ctx, &ctx.read_path(args[0])?).map(|()| 0)
}

/// When to give up waiting, by `CLOCK_REALTIME`. As on Linux it must be a time even where there is nothing to wait for.
fn deadline(ctx: &Ctx, addr: u64) -> Result<Option<u64>> {
    if addr == 0 { Ok(None) } else { read_timespec(ctx, addr).map(Some) }
}

fn sys_mq_timedsend(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (addr, len, priority) = (args[1], args[2], args[3] as u32);
    let deadline = deadline(ctx, args[4])?;
    if priority >= PRIORITIES {
        bail!(EINVAL, "a priority that there is not");
    }
    let file = ctx.file(args[0] as i32)?;
    let open = OpenQueue::of(&file)?;
    if !file.flags().writable() {
        bail!(EBADF, "not open for sending");
    }
    if len > open.queue().capacity().bytes {
        bail!(EMSGSIZE);
    }
    let message = ctx.kernel.mqueues.load(ctx, addr, len as usize, priority)?;
    open.send(ctx, &file, message, deadline)?;
    Ok(0)
}

fn sys_mq_timedreceive(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (addr, room, priority) = (args[1], args[2], args[3]);
    let deadline = deadline(ctx, args[4])?;
    let file = ctx.file(args[0] as i32)?;
    let open = OpenQueue::of(&file)?;
    if !file.flags().readable() {
        bail!(EBADF, "not open for receiving");
    }
    if room < open.queue().capacity().bytes {
        bail!(EMSGSIZE);
    }
    // What cannot be stored is lost, as on Linux.
    let message = open.receive(ctx, &file, deadline)?;
    if priority != 0 {
        ctx.write_val(priority, &message.priority)?;
    }
    ctx.write_user(addr, &message.text)?;
    Ok(message.text.len())
}

/// What a `struct sigevent` asks for.
fn notification(ctx: &Ctx, addr: u64) -> Result<How> {
    const SIGNAL: i32 = 0;
    const NONE: i32 = 1;
    const THREAD: i32 = 2;
    // sigev_value, then sigev_signo and sigev_notify.
    let [value, kind, ..]: [u64; 8] = ctx.read_val(addr)?;
    let (signo, notify) = (kind as i32, (kind >> 32) as i32);
    match notify {
        NONE => Ok(How::Silent),
        SIGNAL => match u8::try_from(signo) {
            Ok(signo) if signo <= SIGRTMAX => Ok(How::Signal(signo, value)),
            _ => bail!(EINVAL, "no such signal"),
        },
        THREAD => {
            // The C library's: a cookie at the value, and a netlink socket for the signal.
            let bytes = ctx.read_val(value)?;
            let socket = ctx.file(signo)?;
            Ok(How::Thread(Cookie::new(Reserved::new(ctx, &socket, COOKIE_LEN)?, bytes)))
        }
        _ => bail!(EINVAL, "sigev_notify"),
    }
}

fn sys_mq_notify(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let how = if args[1] == 0 { None } else { Some(notification(ctx, args[1])?) };
    let file = ctx.file(args[0] as i32)?;
    OpenQueue::of(&file)?.notify(ctx, how)?;
    Ok(0)
}

fn sys_mq_getsetattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const NONBLOCK: i64 = OpenFlags::NONBLOCK.bits() as i64;
    let (fd, new, old) = (args[0] as i32, args[1], args[2]);
    let new = if new == 0 { None } else { Some(ctx.read_val::<MqAttr>(new)?[0]) };
    if new.is_some_and(|flags| flags & !NONBLOCK != 0) {
        bail!(EINVAL, "flags that a queue has not");
    }
    let file = ctx.file(fd)?;
    let open = OpenQueue::of(&file)?;
    let (queue, nonblocking) = (open.queue(), file.nonblocking());
    let was = [
        if nonblocking { NONBLOCK } else { 0 },
        queue.capacity().messages as i64,
        queue.capacity().bytes as i64,
        queue.count() as i64,
        0,
        0,
        0,
        0,
    ];
    if let Some(flags) = new {
        open.set_nonblocking(ctx, &file, fd, flags != 0);
    }
    if old != 0 {
        ctx.write_val(old, &was)?;
    }
    Ok(0)
}
