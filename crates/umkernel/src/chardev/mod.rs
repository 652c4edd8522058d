//! Character devices without a terminal behind them, and how all of them get their numbers and nodes
//! (`Documentation/admin-guide/devices.txt`).

mod kmsg;
mod memory;
mod random;

use crate::errno::{Errno, Result};
use crate::fs::devpts;
use crate::kernel::{Ctx, Kernel};
use crate::tty::{TTY_MAJOR, TTYAUX_MAJOR, TtyFile};
use crate::vfs::{DeviceKind, FileOps, Location, OpenFlags};
use alloc::boxed::Box;
use alloc::sync::Arc;

/// Major number of `/dev/null` and its like.
const MEM_MAJOR: u32 = 1;

type Open = fn(&Ctx, &Location, u64, OpenFlags) -> Result<Box<dyn FileOps>>;

/// Registers all character devices, the consoles that exist among them.
pub fn register(kernel: &Kernel) {
    let devices: &[(u32, u32, &str, u32, Open)] = &[
        (MEM_MAJOR, 3, "null", 0o666, |_, _, _, _| Ok(Box::new(memory::Null))),
        (MEM_MAJOR, 5, "zero", 0o666, |_, _, _, _| Ok(Box::new(memory::Zero))),
        (MEM_MAJOR, 7, "full", 0o666, |_, _, _, _| Ok(Box::new(memory::Full))),
        (MEM_MAJOR, 8, "random", 0o666, |_, _, _, _| Ok(Box::new(random::Random))),
        (MEM_MAJOR, 9, "urandom", 0o666, |_, _, _, _| Ok(Box::new(random::Random))),
        (MEM_MAJOR, 11, "kmsg", 0o644, |ctx, _, _, _| Ok(Box::new(kmsg::Kmsg::open(ctx)))),
        (TTYAUX_MAJOR, 0, "tty", 0o666, |ctx, _, _, _| TtyFile::open_current(ctx)),
        (TTYAUX_MAJOR, 1, "console", 0o600, |ctx, _, _, _| TtyFile::open_console(ctx)),
        (TTYAUX_MAJOR, 2, "ptmx", 0o666, |ctx, location, _, _| devpts::open_ptmx(ctx, location)),
    ];
    for &(major, minor, name, mode, open) in devices {
        kernel.vfs.devices.register(DeviceKind::Char, (major, minor), name, mode, 0, Arc::new(open));
    }
    for index in kernel.ttys.console_indices() {
        let open: Open = |ctx, _, rdev, flags| {
            let tty = ctx.kernel.ttys.console(crate::vfs::minor(rdev)).ok_or(Errno::ENXIO)?;
            TtyFile::open(ctx, &tty, flags)
        };
        let name = alloc::format!("tty{index}");
        kernel.vfs.devices.register(DeviceKind::Char, (TTY_MAJOR, index), &name, 0o600, 0, Arc::new(open));
    }
}
