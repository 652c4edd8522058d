//! `/dev/null`, `/dev/zero` and `/dev/full` (`null(4)`, `full(4)`). Wherever one seeks in them, it is the beginning.

use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::vfs::{File, FileOps};
use core::any::Any;

/// Zeros stored at a time.
static ZEROS: [u8; 4096] = [0; 4096];

/// `/dev/null`: always at its end, takes everything.
pub(super) struct Null;

/// `/dev/zero`: gives zeros, takes everything. `mmap(2)` of it gives anonymous memory.
pub(super) struct Zero;

/// `/dev/full`: gives zeros, has no space.
pub(super) struct Full;

fn read_zeros(ctx: &Ctx, dst: &mut dyn IoDst) -> Result<usize> {
    let mut done = 0;
    while dst.remaining() > 0 {
        match dst.put(&ZEROS) {
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

impl FileOps for Null {
    fn read(&self, _ctx: &Ctx, _file: &File, _offset: u64, _dst: &mut dyn IoDst) -> Result<usize> {
        Ok(0)
    }

    fn write(&self, _ctx: &Ctx, _file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        // Not fetched: a bad pointer is no error here, as on Linux.
        Ok(src.remaining())
    }

    fn pollable(&self) -> bool {
        false
    }

    fn seekable(&self) -> bool {
        true
    }

    fn seek(&self, _ctx: &Ctx, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        Some(Ok(0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl FileOps for Zero {
    fn read(&self, ctx: &Ctx, _file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        read_zeros(ctx, dst)
    }

    fn write(&self, _ctx: &Ctx, _file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        Ok(src.remaining())
    }

    fn pollable(&self) -> bool {
        false
    }

    fn seekable(&self) -> bool {
        true
    }

    fn seek(&self, _ctx: &Ctx, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        Some(Ok(0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl FileOps for Full {
    fn read(&self, ctx: &Ctx, _file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        read_zeros(ctx, dst)
    }

    fn write(&self, _ctx: &Ctx, _file: &File, _offset: u64, _src: &mut dyn IoSrc) -> Result<usize> {
        Err(Errno::ENOSPC.into())
    }

    fn pollable(&self) -> bool {
        false
    }

    fn seekable(&self) -> bool {
        true
    }

    fn seek(&self, _ctx: &Ctx, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        Some(Ok(0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
