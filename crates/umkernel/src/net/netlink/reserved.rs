//! Messages that the kernel will send some day, and that must not be lost then: what `mq_notify(3)` promises a thread of the C
//! library's. Room for each is kept in the receiver's buffer from the start, which also bounds how many there can be
//! (`netlink_attachskb` of Linux).

use super::{Message, Netlink, State};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::net::{SocketFile, Ucred};
use crate::vfs::File;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

impl State {
    /// Keeps room for `len` bytes; `None` while there is none.
    fn keep_room(&mut self, len: usize) -> Option<()> {
        let fits = self.queued.saturating_add(len) <= self.options.receive_buffer;
        fits.then(|| self.queued += len)
    }
}

/// Room in a socket's buffer for one message of the kernel's; given back on drop.
pub(crate) struct Reserved {
    socket: Arc<Netlink>,
    len: usize,
}

impl Reserved {
    /// Keeps room for `len` bytes in the buffer of the socket that is open as `file`; waits for its reader to make some.
    ///
    /// # Errors
    /// `ENOTSOCK`; `EINVAL` for a socket of another family; `ERESTARTSYS`.
    pub(crate) fn new(ctx: &Ctx, file: &File, len: usize) -> Result<Reserved> {
        let Some(open) = file.ops_as::<SocketFile>() else { bail!(ENOTSOCK) };
        let any: Arc<dyn Any + Send + Sync> = open.socket().clone();
        let Ok(socket) = any.downcast::<Netlink>() else { bail!(EINVAL, "not a netlink socket") };
        ctx.wait_for(&socket.room, || socket.state.lock().keep_room(len))?;
        Ok(Reserved { socket, len })
    }

    /// Sends the message, which is as long as was said.
    pub(crate) fn send(mut self, data: Vec<u8>) {
        let message = Message { data, from: (0, 0), creds: Ucred::default() };
        self.socket.state.lock().queue.push_back(message);
        // The room is the message's from now on.
        self.len = 0;
        self.socket.readable.wake_all();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        let mut state = self.socket.state.lock();
        state.queued = state.queued.saturating_sub(self.len);
        drop(state);
        self.socket.room.wake_all();
    }
}
