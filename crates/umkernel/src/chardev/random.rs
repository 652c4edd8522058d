//! `/dev/random` and `/dev/urandom` (`random(4)`): the host's generator, which is always ready.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::task::Capabilities;
use crate::vfs::{File, FileOps};
use core::any::Any;

/// Requests of `random(4)`, `linux/random.h`.
mod request {
    pub(super) const RNDGETENTCNT: u32 = 0x8004_5200;
    pub(super) const RNDADDTOENTCNT: u32 = 0x4004_5201;
    pub(super) const RNDADDENTROPY: u32 = 0x4008_5203;
    pub(super) const RNDZAPENTCNT: u32 = 0x5204;
    pub(super) const RNDCLEARPOOL: u32 = 0x5206;
    pub(super) const RNDRESEEDCRNG: u32 = 0x5207;
}

/// What a full pool holds, in bits.
const POOL_BITS: u32 = 256;

/// An open generator.
pub(super) struct Random;

impl FileOps for Random {
    fn read(&self, ctx: &Ctx, _file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let mut chunk = [0; 1024];
        let mut done = 0;
        while dst.remaining() > 0 {
            let n = chunk.len().min(dst.remaining());
            host::getrandom(&mut chunk[..n]);
            match dst.put(&chunk[..n]) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
            if ctx.task.signal_pending() {
                break;
            }
        }
        Ok(done)
    }

    /// The host's pool is not the guest's to stir: the bytes are read, so that a bad pointer shows, and no more.
    fn write(&self, _ctx: &Ctx, _file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let mut chunk = [0; 1024];
        let mut done = 0;
        while src.remaining() > 0 {
            match src.take(&mut chunk) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        let admin = || {
            let capable = ctx.creds().capable(Capabilities::SYS_ADMIN);
            if capable { Ok(()) } else { Err(crate::Error::from(Errno::EPERM)) }
        };
        match cmd {
            request::RNDGETENTCNT => ctx.write_val(arg, &POOL_BITS).map(|()| 0),
            request::RNDADDTOENTCNT | request::RNDADDENTROPY => {
                admin()?;
                let bits: i32 = ctx.read_val(arg)?;
                if bits < 0 {
                    bail!(EINVAL);
                }
                Ok(0)
            }
            request::RNDZAPENTCNT | request::RNDCLEARPOOL | request::RNDRESEEDCRNG => admin().map(|()| 0),
            _ => bail!(EINVAL, "unknown request of random(4)"),
        }
    }

    fn seekable(&self) -> bool {
        true
    }

    /// It has no places, so that every one is the beginning.
    fn seek(&self, _ctx: &Ctx, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        Some(Ok(0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
