//! Sockets as open files.

use super::{Endpoint, Outgoing, RecvFlags, interface};
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::mm::{IoDst, IoSrc};
use crate::sync::PollTable;
use crate::vfs::{File, FileOps, FileType, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};

/// `SIOCATMARK` of `linux/sockios.h`.
const SIOCATMARK: u32 = 0x8905;

/// A socket as an open file.
pub struct SocketFile {
    socket: Arc<dyn Endpoint>,
    kernel: Weak<Kernel>,
    ino: u64,
}

impl SocketFile {
    /// An open file on a socket.
    pub fn open(ctx: &Ctx, socket: Arc<dyn Endpoint>, nonblocking: bool) -> Arc<File> {
        let creds = ctx.creds();
        let inode = ctx.kernel.vfs.anon_inode(FileType::Socket, 0o777, (creds.fsuid, creds.fsgid));
        let ino = inode.attr().map_or(0, |a| a.ino);
        socket.opened(ino);
        let ops = SocketFile { socket, kernel: Arc::downgrade(ctx.kernel), ino };
        let mut flags = OpenFlags::RDWR;
        flags.set(OpenFlags::NONBLOCK, nonblocking);
        let name = alloc::format!("socket:[{ino}]");
        ctx.kernel.vfs.anon_file_on(&name, inode, Some(Box::new(ops)), flags)
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<dyn Endpoint> {
        &self.socket
    }
}

impl FileOps for SocketFile {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let flags = RecvFlags { nonblocking: file.nonblocking(), ..Default::default() };
        self.socket.receive(ctx, dst, flags).map(|received| received.len)
    }

    fn write(&self, ctx: &Ctx, file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let how = Outgoing { nonblocking: file.nonblocking(), ..Outgoing::default() };
        self.socket.clone().send(ctx, src, how)
    }

    fn signals(&self) -> bool {
        true
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        self.socket.poll(table)
    }

    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        let number = match cmd {
            FIONREAD => self.socket.readable_bytes()? as u32,
            TIOCOUTQ => self.socket.unsent_bytes() as u32,
            SIOCATMARK => u32::from(self.socket.at_mark()?),
            _ => return interface::ioctl(ctx, cmd, arg),
        };
        ctx.write_val(arg, &number).map(|()| 0)
    }

    fn describe(&self) -> Option<String> {
        Some(alloc::format!("socket:[{}]", self.ino))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let kernel = self.kernel.upgrade();
        self.socket.clone().close(kernel.as_ref().map(|k| &k.net));
    }
}
