//! `/dev/kmsg`: the kernel log as a stream of records (`Documentation/ABI/testing/dev-kmsg`).

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::log::Level;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable};
use crate::vfs::{File, FileOps, PollEvents, SEEK_DATA, SEEK_END, SEEK_SET};
use alloc::string::String;
use core::any::Any;
use core::fmt::Write;

/// The longest message that a program may write (`LOG_LINE_MAX`).
const LINE_MAX: usize = 1024 - 32;

/// An open log.
pub(super) struct Kmsg {
    /// Sequence number of the record to read next.
    next: Mutex<u64>,
}

impl Kmsg {
    /// Opens the log at its oldest record.
    pub(super) fn open(ctx: &Ctx) -> Kmsg {
        Kmsg { next: Mutex::new(Kmsg::oldest(ctx)) }
    }

    fn oldest(ctx: &Ctx) -> u64 {
        ctx.kernel.log.get(0).map_or(0, |message| message.sequence)
    }
}

/// The text of a record: unprintable characters and backslashes as `\xNN`.
fn escape(text: &str, into: &mut String) {
    for b in text.bytes() {
        if (0x20..0x7f).contains(&b) && b != b'\\' {
            into.push(char::from(b));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(into, "\\x{b:02x}");
        }
    }
}

impl FileOps for Kmsg {
    /// One record a read.
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let log = &ctx.kernel.log;
        let from = *self.next.lock();
        let message = match log.get(from) {
            Some(message) => message,
            None if file.nonblocking() => bail!(EAGAIN),
            None => ctx.wait_for(&log.arrival, || log.get(from))?,
        };
        if message.sequence > from {
            // What was to be read was overwritten; the reader learns that once.
            *self.next.lock() = message.sequence;
            bail!(EPIPE);
        }
        let mut record = String::new();
        // Writing to a string cannot fail.
        let _ = write!(record, "{},{},{},-;", message.level as u8, message.sequence, message.time / 1000);
        escape(&message.text, &mut record);
        record.push('\n');
        if record.len() > dst.remaining() {
            bail!(EINVAL, "the record does not fit");
        }
        *self.next.lock() = message.sequence + 1;
        dst.put(record.as_bytes())
    }

    /// A message, with its level before it as `<N>`.
    fn write(&self, ctx: &Ctx, _file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let len = src.remaining();
        if len > LINE_MAX {
            bail!(EINVAL, "the message is too long");
        }
        let mut line = alloc::vec![0; len];
        if len > 0 && src.take(&mut line)? < len {
            bail!(EFAULT);
        }
        let (level, text) = split_level(&line);
        let text = String::from_utf8_lossy(text);
        ctx.kernel.message(level, text.trim_end_matches('\n').into());
        Ok(len)
    }

    fn poll(&self, ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        let log = &ctx.kernel.log;
        if let Some(table) = table {
            table.register(&log.arrival);
        }
        let mut events = PollEvents::OUT | PollEvents::WRNORM;
        let from = *self.next.lock();
        if let Some(message) = log.get(from) {
            events |= PollEvents::IN | PollEvents::RDNORM;
            events.set(PollEvents::ERR | PollEvents::PRI, message.sequence > from);
        }
        events
    }

    /// To the oldest record (`SEEK_SET`), behind what was cleared (`SEEK_DATA`), or to what is yet to come (`SEEK_END`).
    fn seek(&self, ctx: &Ctx, offset: i64, whence: u32) -> Option<Result<u64>> {
        if offset != 0 {
            return Some(Err(Errno::ESPIPE.into()));
        }
        let log = &ctx.kernel.log;
        *self.next.lock() = match whence {
            SEEK_SET => Kmsg::oldest(ctx),
            SEEK_END => log.end(),
            SEEK_DATA => log.cleared().max(Kmsg::oldest(ctx)),
            _ => return Some(Err(Errno::EINVAL.into())),
        };
        Some(Ok(0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A leading `<N>`: the level is the lowest three bits, the rest the facility.
fn split_level(line: &[u8]) -> (Level, &[u8]) {
    const LEVELS: [Level; 8] = [
        Level::Emergency,
        Level::Alert,
        Level::Critical,
        Level::Error,
        Level::Warning,
        Level::Notice,
        Level::Info,
        Level::Debug,
    ];
    let parsed = line.strip_prefix(b"<").and_then(|rest| {
        let end = rest.iter().position(|&b| b == b'>')?;
        let number: u32 = core::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        Some((LEVELS[(number & 7) as usize], &rest[end + 1..]))
    });
    parsed.unwrap_or((Level::Warning, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::machine;

    #[test]
    fn levels_are_split_off() {
        assert_eq!(split_level(b"<3>bad"), (Level::Error, &b"bad"[..]));
        assert_eq!(split_level(b"<14>user info"), (Level::Info, &b"user info"[..]));
        assert_eq!(split_level(b"<x>plain"), (Level::Warning, &b"<x>plain"[..]));
    }

    #[test]
    fn a_reader_goes_to_the_ends_and_behind_what_was_cleared() {
        let machine = machine();
        let task = machine.task();
        let ctx = machine.ctx(&task);
        for text in ["one", "two", "three"] {
            ctx.kernel.message(Level::Info, text.into());
        }
        let (kmsg, log) = (Kmsg::open(&ctx), &ctx.kernel.log);
        let seek = |offset, whence| kmsg.seek(&ctx, offset, whence).unwrap().map_err(|error| error.errno);
        let next = || log.get(*kmsg.next.lock()).map(|message| message.text);
        assert_eq!((seek(0, 2), next()), (Ok(0), None));
        log.clear();
        ctx.kernel.message(Level::Info, "four".into());
        assert_eq!((seek(0, 3), next()), (Ok(0), Some("four".into())));
        assert_eq!((seek(0, 0), next()), (Ok(0), Some("one".into())));
        assert_eq!((seek(0, 1), seek(1, 0), next()), (Err(Errno::EINVAL), Err(Errno::ESPIPE), Some("one".into())));
    }

    #[test]
    fn text_is_escaped() {
        let mut out = String::new();
        escape("a\\b\tc\u{e9}", &mut out);
        assert_eq!(out, "a\\x5cb\\x09c\\xc3\\xa9");
    }
}
