//! Sockets.

use super::file_io::{check_range, read_iovec};
use super::open::install;
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::event::deadline_after;
use crate::host;
use crate::kernel::Ctx;
use crate::mm::{UserDst, UserSrc};
use crate::net::address::{AF_UNIX, SOCKADDR_MAX};
use crate::net::{self, Ancillary, Endpoint, Kind, Outgoing, Received, RecvFlags, SocketFile};
use crate::platform::TrapFrame;
use crate::task::Capabilities;
use crate::vfs::{FileRef, OpenFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::net::*;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(41, "socket", Family::Network, SOCKET, FAMILIES, sys_socket),
    Entry::new(42, "connect", Family::Network, ADDRESS_IN, FAMILIES, sys_connect),
    Entry::new(43, "accept", Family::Network, ADDRESS_OUT, FAMILIES, sys_accept),
    Entry::new(44, "sendto", Family::Network, SENDTO, NO_SIGURG, sys_sendto),
    Entry::new(45, "recvfrom", Family::Network, RECVFROM, NO_SIGURG, sys_recvfrom),
    Entry::new(46, "sendmsg", Family::Network, MSG, NO_SIGURG, sys_sendmsg),
    Entry::new(47, "recvmsg", Family::Network, MSG, NO_SIGURG, sys_recvmsg),
    Entry::new(48, "shutdown", Family::Network, &[Arg::Fd, Arg::Kind("shutdown_how")], Support::Full, sys_shutdown),
    Entry::new(49, "bind", Family::Network, ADDRESS_IN, FAMILIES, sys_bind),
    Entry::new(50, "listen", Family::Network, &[Arg::Fd, Arg::Int], FAMILIES, sys_listen),
    Entry::new(51, "getsockname", Family::Network, ADDRESS_OUT, FAMILIES, sys_getsockname),
    Entry::new(52, "getpeername", Family::Network, ADDRESS_OUT, FAMILIES, sys_getpeername),
    Entry::new(53, "socketpair", Family::Network, SOCKETPAIR, FAMILIES, sys_socketpair),
    Entry::new(54, "setsockopt", Family::Network, SOCKOPT, FAMILIES, sys_setsockopt),
    Entry::new(55, "getsockopt", Family::Network, SOCKOPT, FAMILIES, sys_getsockopt),
    Entry::new(288, "accept4", Family::Network, ACCEPT4, FAMILIES, sys_accept4),
    Entry::new(299, "recvmmsg", Family::Network, MMSG, NO_SIGURG, sys_recvmmsg),
    Entry::new(307, "sendmmsg", Family::Network, MMSG, NO_SIGURG, sys_sendmmsg),
];

const FAMILIES: Support = Support::Partial("AF_UNIX, AF_INET and AF_INET6 within the machine, NETLINK_ROUTE");
const NO_SIGURG: Support = Support::Partial("no SIGURG");

const SOCKET: &[Arg] = &[Arg::Kind("socket_domain"), Arg::Kind("socket_type"), Arg::Kind("socket_protocol")];
const SOCKETPAIR: &[Arg] =
    &[Arg::Kind("socket_domain"), Arg::Kind("socket_type"), Arg::Kind("socket_protocol"), Arg::Kind("fd_pair")];
const ADDRESS_IN: &[Arg] = &[Arg::Fd, Arg::Kind("sockaddr_in"), Arg::Int];
const ADDRESS_OUT: &[Arg] = &[Arg::Fd, Arg::Ptr, Arg::Ptr];
const ACCEPT4: &[Arg] = &[Arg::Fd, Arg::Ptr, Arg::Ptr, Arg::Kind("socket_flags")];
const SENDTO: &[Arg] = &[Arg::Fd, Arg::BufIn(2), Arg::Uint, Arg::Kind("msg_flags"), Arg::Kind("sockaddr_in"), Arg::Int];
const RECVFROM: &[Arg] = &[Arg::Fd, Arg::BufOut, Arg::Uint, Arg::Kind("msg_flags"), Arg::Ptr, Arg::Ptr];
const MSG: &[Arg] = &[Arg::Fd, Arg::Ptr, Arg::Kind("msg_flags")];
const MMSG: &[Arg] = &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Kind("msg_flags"), Arg::Ptr];
const SOCKOPT: &[Arg] = &[Arg::Fd, Arg::Int, Arg::Int, Arg::Ptr, Arg::Int];

/// `SOCK_CLOEXEC` and `SOCK_NONBLOCK` are the flags of `open(2)`.
const TYPE_MASK: u32 = 0xf;
/// `UIO_MAXIOV`, also the most messages that one call sends or receives.
const IOV_MAX: u64 = 1024;
/// The most control data of one message that is looked at (`net.core.optmem_max`).
const CONTROL_MAX: u64 = 128 * 1024;
/// Return from `recvmmsg(2)` once the first message is there (`linux/socket.h`).
const MSG_WAITFORONE: u32 = 0x10000;

/// The open file behind a descriptor, known to be a socket.
struct Open<'a> {
    file: FileRef<'a>,
    socket: Arc<dyn Endpoint>,
}

impl<'a> Open<'a> {
    fn get(ctx: &Ctx<'a>, fd: u64) -> Result<Open<'a>> {
        let file = ctx.file(fd as i32)?;
        let Some(open) = file.ops_as::<SocketFile>() else { bail!(ENOTSOCK) };
        let socket = open.socket().clone();
        Ok(Open { file, socket })
    }

    fn nonblocking(&self, flags: u32) -> bool {
        self.file.nonblocking() || flags & MSG_DONTWAIT != 0
    }
}

/// What `socket(2)` was asked for, its flags apart.
struct Wanted {
    domain: u32,
    kind: u32,
    protocol: u32,
    flags: OpenFlags,
}

/// Splits the arguments and checks what all families have in common.
fn parse_type(args: &[u64; 6]) -> Result<Wanted> {
    const SOCK_MAX: u32 = 11;
    const AF_MAX: u32 = 46;
    let raw = args[1] as u32;
    let flags = OpenFlags::from_bits_retain(raw & !TYPE_MASK);
    if !(flags - OpenFlags::CLOEXEC - OpenFlags::NONBLOCK).is_empty() {
        bail!(EINVAL, "unknown flag");
    }
    let domain = args[0] as u32;
    if domain >= AF_MAX {
        bail!(EAFNOSUPPORT);
    }
    let kind = raw & TYPE_MASK;
    if kind >= SOCK_MAX {
        bail!(EINVAL);
    }
    Ok(Wanted { domain, kind, protocol: args[2] as u32, flags })
}

/// The kind of an `AF_UNIX` socket.
fn unix_kind(wanted: &Wanted) -> Result<Kind> {
    if wanted.protocol != 0 && wanted.protocol != u32::from(AF_UNIX) {
        bail!(EPROTONOSUPPORT);
    }
    match wanted.kind {
        SOCK_STREAM => Ok(Kind::Stream),
        // As on Linux, where raw sockets of this family are datagram sockets.
        SOCK_DGRAM | SOCK_RAW => Ok(Kind::Datagram),
        SOCK_SEQPACKET => Ok(Kind::SeqPacket),
        _ => bail!(ESOCKTNOSUPPORT),
    }
}

fn open_socket(ctx: &Ctx, socket: Arc<dyn Endpoint>, flags: OpenFlags) -> Result<usize> {
    let file = SocketFile::open(ctx, socket, flags.contains(OpenFlags::NONBLOCK));
    install(ctx, file, flags.contains(OpenFlags::CLOEXEC))
}

fn sys_socket(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let wanted = parse_type(args)?;
    let socket = net::create(ctx, wanted.domain, wanted.kind, wanted.protocol, || unix_kind(&wanted))?;
    open_socket(ctx, socket, wanted.flags)
}

fn sys_socketpair(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let wanted = parse_type(args)?;
    if wanted.domain != u32::from(AF_UNIX) {
        // The family must exist and know the type before it is asked for pairs.
        net::create(ctx, wanted.domain, wanted.kind, wanted.protocol, || unix_kind(&wanted))?.close(None);
        bail!(EOPNOTSUPP, "pairs are of AF_UNIX");
    }
    let flags = wanted.flags;
    let (one, two) = net::pair(ctx, unix_kind(&wanted)?);
    let files = ctx.files();
    let first = open_socket(ctx, one, flags)?;
    let undo = |fd: usize| files.remove(ctx, fd as i32).map(drop);
    let second = match open_socket(ctx, two, flags) {
        Ok(second) => second,
        Err(e) => {
            undo(first)?;
            return Err(e);
        }
    };
    if let Err(e) = ctx.write_val(args[3], &[first as i32, second as i32]) {
        undo(first)?;
        undo(second)?;
        return Err(e);
    }
    Ok(0)
}

/// Reads an address argument.
fn read_address(ctx: &Ctx, addr: u64, len: u64) -> Result<Vec<u8>> {
    const STORAGE: i32 = 128;
    let len = len as i32;
    if !(0..=STORAGE).contains(&len) {
        bail!(EINVAL);
    }
    let mut raw = alloc::vec![0; len as usize];
    ctx.read_user(addr, &mut raw)?;
    if raw.len() > SOCKADDR_MAX {
        bail!(EINVAL, "longer than a struct sockaddr_un");
    }
    Ok(raw)
}

/// Stores an address as far as it fits, and its whole length.
fn write_address(ctx: &Ctx, raw: &[u8], addr: u64, len_at: u64) -> Result<()> {
    let room: i32 = ctx.read_val(len_at)?;
    let Ok(room) = usize::try_from(room) else { bail!(EINVAL) };
    ctx.write_user(addr, &raw[..room.min(raw.len())])?;
    ctx.write_val(len_at, &(raw.len() as u32))
}

fn sys_bind(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    let address = read_address(ctx, args[1], args[2])?;
    open.socket.bind(ctx, &address).map(|()| 0)
}

fn sys_connect(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    let address = read_address(ctx, args[1], args[2])?;
    open.socket.connect(ctx, &address, open.file.nonblocking()).map(|()| 0)
}

fn sys_listen(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    Open::get(ctx, args[0])?.socket.listen(ctx, args[1] as i32).map(|()| 0)
}

fn accept(ctx: &Ctx, args: &[u64; 6], flags: OpenFlags) -> Result<usize> {
    if !(flags - OpenFlags::CLOEXEC - OpenFlags::NONBLOCK).is_empty() {
        bail!(EINVAL, "unknown flag");
    }
    let open = Open::get(ctx, args[0])?;
    let limit = ctx.task.process.limit(linux_raw_sys::general::RLIMIT_NOFILE as usize);
    ctx.files().check_room(limit)?;
    let socket = open.socket.accept(ctx, open.file.nonblocking())?;
    if args[1] != 0 {
        // The other side may be gone again already; its family is known all the same.
        let nobody = || (socket.domain() as u16).to_le_bytes().to_vec();
        let address = socket.remote().unwrap_or_else(|_| nobody());
        write_address(ctx, &address, args[1], args[2])?;
    }
    open_socket(ctx, socket, flags)
}

fn sys_accept(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    accept(ctx, args, OpenFlags::empty())
}

fn sys_accept4(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    accept(ctx, args, OpenFlags::from_bits_retain(args[3] as u32))
}

fn sys_shutdown(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    let (receive, send) = match args[1] as i32 {
        0 => (true, false),
        1 => (false, true),
        2 => (true, true),
        _ => bail!(EINVAL),
    };
    open.socket.shutdown(receive, send).map(|()| 0)
}

fn sys_getsockname(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    write_address(ctx, &open.socket.local(), args[1], args[2]).map(|()| 0)
}

fn sys_getpeername(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    write_address(ctx, &open.socket.remote()?, args[1], args[2]).map(|()| 0)
}

fn sys_setsockopt(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const VALUE_MAX: usize = 64;
    let open = Open::get(ctx, args[0])?;
    let Ok(len) = usize::try_from(args[4] as i32) else { bail!(EINVAL) };
    let mut raw = alloc::vec![0; len.min(VALUE_MAX)];
    ctx.read_user(args[3], &mut raw)?;
    let forced = args[1] as u32 == SOL_SOCKET && [SO_SNDBUFFORCE, SO_RCVBUFFORCE].contains(&(args[2] as u32));
    if forced && !ctx.creds().capable(Capabilities::NET_ADMIN) {
        bail!(EPERM, "only an administrator sets buffers beyond their limit");
    }
    open.socket.set_option(ctx, args[1] as u32, args[2] as u32, &raw).map(|()| 0)
}

fn sys_getsockopt(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    let room: i32 = ctx.read_val(args[4])?;
    let Ok(room) = usize::try_from(room) else { bail!(EINVAL) };
    let value = open.socket.option(ctx, args[1] as u32, args[2] as u32)?;
    let len = room.min(value.len());
    ctx.write_user(args[3], &value[..len])?;
    ctx.write_val(args[4], &(len as u32)).map(|()| 0)
}

/// One buffer as a list of ranges.
fn one_range(addr: u64, len: u64) -> Result<Vec<(u64, usize)>> {
    check_range(addr, len)?;
    Ok(alloc::vec![(addr, (len as usize).min(0x7fff_f000))])
}

fn sys_sendto(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let ranges = one_range(args[1], args[2])?;
    let open = Open::get(ctx, args[0])?;
    let to = if args[4] == 0 { None } else { Some(read_address(ctx, args[4], args[5])?) };
    send(ctx, &open, ranges, args[3] as u32, to, Ancillary::default())
}

fn send(
    ctx: &Ctx,
    open: &Open,
    ranges: Vec<(u64, usize)>,
    flags: u32,
    to: Option<Vec<u8>>,
    ancillary: Ancillary,
) -> Result<usize> {
    let sending = Outgoing {
        nonblocking: open.nonblocking(flags),
        no_signal: flags & MSG_NOSIGNAL != 0,
        urgent: flags & MSG_OOB != 0,
        more: flags & MSG_MORE != 0,
        to: to.as_deref(),
        ancillary,
    };
    let space = ctx.mm()?;
    open.socket.clone().send(ctx, &mut UserSrc::new(ctx, space, ranges), sending)
}

fn receive(ctx: &Ctx, open: &Open, ranges: Vec<(u64, usize)>, flags: u32) -> Result<Received> {
    let how = RecvFlags {
        nonblocking: open.nonblocking(flags),
        peek: flags & MSG_PEEK != 0,
        wait_all: flags & MSG_WAITALL != 0,
        real_len: flags & MSG_TRUNC != 0,
        urgent: flags & MSG_OOB != 0,
        error_queue: flags & MSG_ERRQUEUE != 0,
    };
    let space = ctx.mm()?;
    open.socket.receive(ctx, &mut UserDst::new(ctx, space, ranges), how)
}

fn sys_recvfrom(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let ranges = one_range(args[1], args[2])?;
    let open = Open::get(ctx, args[0])?;
    let received = receive(ctx, &open, ranges, args[3] as u32)?;
    if args[4] != 0 {
        write_address(ctx, &received.from, args[4], args[5])?;
    }
    Ok(received.len)
}

/// A `struct msghdr` in user memory.
struct MsgHdr {
    addr: u64,
    name: u64,
    name_len: u32,
    ranges: Vec<(u64, usize)>,
    control: u64,
    control_len: u64,
}

impl MsgHdr {
    const NAME_LEN_AT: u64 = 8;
    const CONTROL_LEN_AT: u64 = 40;
    const FLAGS_AT: u64 = 48;

    fn read(ctx: &Ctx, addr: u64) -> Result<MsgHdr> {
        let [name, name_len, iov, iov_len, control, control_len]: [u64; 6] = ctx.read_val(addr)?;
        if iov_len > IOV_MAX {
            bail!(EMSGSIZE);
        }
        if (name_len as u32 as i32) < 0 {
            bail!(EINVAL);
        }
        let ranges = read_iovec(ctx, iov, iov_len as usize)?;
        Ok(MsgHdr { addr, name, name_len: name_len as u32, ranges, control, control_len })
    }
}

fn send_message(ctx: &Ctx, open: &Open, addr: u64, flags: u32) -> Result<usize> {
    let message = MsgHdr::read(ctx, addr)?;
    let to = if message.name == 0 || message.name_len == 0 {
        None
    } else {
        Some(read_address(ctx, message.name, u64::from(message.name_len))?)
    };
    let ancillary = if message.control == 0 || message.control_len == 0 {
        Ancillary::default()
    } else {
        if message.control_len > CONTROL_MAX {
            bail!(ENOBUFS);
        }
        let mut raw = alloc::vec![0; message.control_len as usize];
        ctx.read_user(message.control, &mut raw)?;
        Ancillary::decode(ctx, &raw)?
    };
    send(ctx, open, message.ranges, flags, to, ancillary)
}

fn receive_message(ctx: &Ctx, open: &Open, addr: u64, flags: u32) -> Result<usize> {
    let message = MsgHdr::read(ctx, addr)?;
    let received = receive(ctx, open, message.ranges, flags)?;
    if message.name != 0 {
        let from = &received.from;
        ctx.write_user(message.name, &from[..from.len().min(message.name_len as usize)])?;
        ctx.write_val(message.addr + MsgHdr::NAME_LEN_AT, &(from.len() as u32))?;
    }
    let room = if message.control == 0 { 0 } else { message.control_len.min(CONTROL_MAX) as usize };
    let close_on_exec = flags & MSG_CMSG_CLOEXEC != 0;
    let control = received.control(ctx, room, close_on_exec);
    ctx.write_user(message.control, &control.raw)?;
    let mut out = flags & MSG_CMSG_CLOEXEC;
    if received.truncated {
        out |= MSG_TRUNC;
    }
    if received.urgent {
        out |= MSG_OOB;
    }
    if control.truncated {
        out |= MSG_CTRUNC;
    }
    ctx.write_val(message.addr + MsgHdr::FLAGS_AT, &out)?;
    ctx.write_val(message.addr + MsgHdr::CONTROL_LEN_AT, &(control.raw.len() as u64))?;
    Ok(received.len)
}

fn sys_sendmsg(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    send_message(ctx, &open, args[1], args[2] as u32)
}

fn sys_recvmsg(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    receive_message(ctx, &open, args[1], args[2] as u32)
}

/// Bytes of a `struct mmsghdr`, and where in it the length of what was transferred is.
const MMSGHDR_SIZE: u64 = 64;
const MMSGHDR_LEN_AT: u64 = 56;

/// Transfers messages one by one until one fails; an error counts only if it is the first.
fn each_message(
    ctx: &Ctx,
    args: &[u64; 6],
    mut transfer: impl FnMut(&Open, u64, usize) -> Result<Option<usize>>,
) -> Result<usize> {
    let open = Open::get(ctx, args[0])?;
    let count = u64::from(args[2] as u32).min(IOV_MAX) as usize;
    for done in 0..count {
        let addr = args[1] + done as u64 * MMSGHDR_SIZE;
        let result = transfer(&open, addr, done)
            .and_then(|len| len.map(|len| ctx.write_val(addr + MMSGHDR_LEN_AT, &(len as u32))).transpose());
        match result {
            Ok(Some(())) => {}
            Ok(None) => return Ok(done),
            Err(_) if done > 0 => return Ok(done),
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

fn sys_sendmmsg(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    each_message(ctx, args, |open, addr, _| send_message(ctx, open, addr, args[3] as u32).map(Some))
}

fn sys_recvmmsg(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let flags = args[3] as u32;
    let deadline = if args[4] == 0 {
        None
    } else {
        let [sec, nsec]: [i64; 2] = ctx.read_val(args[4])?;
        Some(deadline_after(sec, nsec)?)
    };
    each_message(ctx, args, |open, addr, done| {
        // As on Linux, the time limit is looked at only after each message.
        if done > 0 && deadline.is_some_and(|d| host::monotonic_ns() >= d) {
            return Ok(None);
        }
        let at_once = if done > 0 && flags & MSG_WAITFORONE != 0 { MSG_DONTWAIT } else { 0 };
        receive_message(ctx, open, addr, flags & !MSG_WAITFORONE | at_once).map(Some)
    })
}
