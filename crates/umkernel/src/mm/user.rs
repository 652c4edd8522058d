//! Access to user memory: fault-safe and length-checked. A bad pointer gives `EFAULT`, never a crash.

use super::AddressSpace;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::Platform;
use alloc::vec::Vec;
use core::mem::{MaybeUninit, size_of};
use core::ops::Deref;

/// A type without padding rules or invalid values, which may be copied from and to user memory byte by byte.
///
/// # Safety
/// Every bit pattern is a valid value, and the type holds no padding that could leak kernel memory.
pub unsafe trait Pod: Copy {}

macro_rules! pod {
    ($($t:ty),*) => { $(
        // SAFETY: plain integers.
        unsafe impl Pod for $t {}
    )* };
}
pod!(u8, i8, u16, i16, u32, i32, u64, i64, usize, isize, crate::host::TimeSpec);
// SAFETY: an array of such values has no padding of its own.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// The bytes of a value.
pub fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: T is Pod: all its bytes are initialised.
    unsafe { core::slice::from_raw_parts((value as *const T).cast(), size_of::<T>()) }
}

impl Ctx<'_> {
    /// Fills `buf` from user memory. `EFAULT` if any of it cannot be read.
    pub fn read_user(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let space = self.mm()?;
        if self.kernel.platform.read_memory(space, addr, buf) == buf.len() {
            return Ok(());
        }
        space.reach_grown(self, addr, buf.len());
        if self.kernel.platform.read_memory(space, addr, buf) == buf.len() {
            return Ok(());
        }
        Err(Errno::EFAULT.into())
    }

    /// Copies `buf` to user memory. `EFAULT` if any of it cannot be written.
    pub fn write_user(&self, addr: u64, buf: &[u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let space = self.mm()?;
        if self.kernel.platform.write_memory(space, addr, buf) == buf.len() {
            return Ok(());
        }
        space.reach_grown(self, addr, buf.len());
        if self.kernel.platform.write_memory(space, addr, buf) == buf.len() {
            return Ok(());
        }
        Err(Errno::EFAULT.into())
    }

    /// Reads a value from user memory.
    pub fn read_val<T: Pod>(&self, addr: u64) -> Result<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the bytes are zeroed, so initialised; the slice covers exactly the value.
        let bytes = unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
        self.read_user(addr, bytes)?;
        // SAFETY: T is Pod: any bytes are a valid value.
        Ok(unsafe { value.assume_init() })
    }

    /// Writes a value to user memory.
    pub fn write_val<T: Pod>(&self, addr: u64, value: &T) -> Result<()> {
        self.write_user(addr, bytes_of(value))
    }

    /// Reads `count` values from user memory.
    pub fn read_vec<T: Pod>(&self, addr: u64, count: usize) -> Result<Vec<T>> {
        let mut values = Vec::with_capacity(count.min(1024));
        for i in 0..count {
            let at = addr.checked_add((i * size_of::<T>()) as u64).ok_or(Errno::EFAULT)?;
            values.push(self.read_val(at)?);
        }
        Ok(values)
    }

    /// Reads a NUL-terminated string of at most `max` bytes without its NUL. `EFAULT` for a bad pointer; `ENAMETOOLONG`
    /// when there is no NUL within `max + 1` bytes.
    pub fn read_cstr(&self, addr: u64, max: usize) -> Result<Vec<u8>> {
        const STEP: u64 = 256;
        let space = self.mm()?;
        let mut string = Vec::new();
        let mut at = addr;
        let mut chunk = [0u8; STEP as usize];
        loop {
            // Not beyond an aligned step: the string may end right before an unmapped page.
            let want = (STEP - at % STEP) as usize;
            let mut got = self.kernel.platform.read_memory(space, at, &mut chunk[..want]);
            if got == 0 {
                space.reach_grown(self, at, want);
                got = self.kernel.platform.read_memory(space, at, &mut chunk[..want]);
            }
            if let Some(end) = chunk[..got].iter().position(|&b| b == 0) {
                string.extend_from_slice(&chunk[..end]);
                return if string.len() > max { Err(Errno::ENAMETOOLONG.into()) } else { Ok(string) };
            }
            string.extend_from_slice(&chunk[..got]);
            if string.len() > max {
                return Err(Errno::ENAMETOOLONG.into());
            }
            if got < want {
                return Err(Errno::EFAULT.into());
            }
            at += want as u64;
        }
    }

    /// Reads a path argument (`PATH_MAX` is 4096 with its NUL).
    pub fn read_path(&self, addr: u64) -> Result<Vec<u8>> {
        self.read_cstr(addr, 4095)
    }
}

/// Where a read puts its bytes: user memory or a kernel buffer.
pub trait IoDst {
    /// Bytes that still fit.
    fn remaining(&self) -> usize;

    /// Takes the bytes that fit, at most all, and returns how many. `EFAULT` when not even one could be stored.
    fn put(&mut self, data: &[u8]) -> Result<usize>;

    /// Takes up to `len` bytes straight from a host file and returns how many; `None`, with none taken, if that cannot be done.
    fn put_file(&mut self, _fd: i32, _offset: u64, _len: usize) -> Option<Result<usize>> {
        None
    }
}

/// Where a write takes its bytes from.
pub trait IoSrc {
    /// Bytes that are left.
    fn remaining(&self) -> usize;

    /// Fills as much of `buf` as is left and returns how much. `EFAULT` when not even one byte could be fetched.
    fn take(&mut self, buf: &mut [u8]) -> Result<usize>;

    /// Gives back the last `n` bytes taken: the file could not use them.
    fn untake(&mut self, n: usize);

    /// Moves up to `len` bytes straight to a host file and returns how many; `None`, with none moved, if that cannot be done.
    fn take_file(&mut self, _fd: i32, _offset: u64, _len: usize) -> Option<Result<usize>> {
        None
    }
}

/// Ranges of user memory: addresses and lengths. One is the common case, and asks for no memory.
pub enum Ranges {
    /// One range.
    One([(u64, usize); 1]),
    /// Any number, as of `readv(2)`.
    Many(Vec<(u64, usize)>),
}

impl Deref for Ranges {
    type Target = [(u64, usize)];

    fn deref(&self) -> &[(u64, usize)] {
        match self {
            Ranges::One(one) => one,
            Ranges::Many(many) => many,
        }
    }
}

impl From<(u64, usize)> for Ranges {
    fn from(range: (u64, usize)) -> Ranges {
        Ranges::One([range])
    }
}

impl From<Vec<(u64, usize)>> for Ranges {
    fn from(ranges: Vec<(u64, usize)>) -> Ranges {
        Ranges::Many(ranges)
    }
}

/// A list of user memory ranges and a position in it.
struct UserRanges<'a> {
    platform: &'a dyn Platform,
    space: &'a AddressSpace,
    ranges: Ranges,
    index: usize,
    within: usize,
    left: usize,
}

impl<'a> UserRanges<'a> {
    fn new(ctx: &Ctx<'a>, space: &'a AddressSpace, ranges: Ranges) -> UserRanges<'a> {
        ranges.iter().for_each(|&(addr, len)| space.reach_grown(ctx, addr, len));
        let platform = &*ctx.kernel.platform;
        let left = ranges.iter().map(|r| r.1).sum();
        UserRanges { platform, space, ranges, index: 0, within: 0, left }
    }

    /// Walks over up to `want` bytes, handing each contiguous piece to `copy`, which says how much it did.
    fn walk(
        &mut self,
        want: usize,
        mut copy: impl FnMut(&dyn Platform, &AddressSpace, u64, usize, usize) -> usize,
    ) -> Result<usize> {
        let want = want.min(self.left);
        let mut done = 0;
        while done < want {
            let (base, len) = self.ranges[self.index];
            if self.within == len {
                self.index += 1;
                self.within = 0;
                continue;
            }
            let piece = (len - self.within).min(want - done);
            let copied = copy(self.platform, self.space, base + self.within as u64, done, piece);
            self.within += copied;
            self.left -= copied;
            done += copied;
            if copied < piece {
                break;
            }
        }
        if done == 0 && want > 0 { Err(Errno::EFAULT.into()) } else { Ok(done) }
    }

    /// Has `transfer` move up to `want` bytes of the range that comes next.
    fn straight(
        &mut self,
        want: usize,
        transfer: impl FnOnce(&dyn Platform, &AddressSpace, u64, usize) -> Option<Result<usize>>,
    ) -> Option<Result<usize>> {
        while self.ranges.get(self.index)?.1 == self.within {
            self.index += 1;
            self.within = 0;
        }
        let (base, len) = self.ranges[self.index];
        let moved = transfer(self.platform, self.space, base + self.within as u64, want.min(len - self.within))?;
        if let Ok(moved) = moved {
            self.within += moved;
            self.left -= moved;
        }
        Some(moved)
    }

    fn back(&mut self, mut n: usize) {
        self.left += n;
        while n > 0 {
            if self.within == 0 {
                self.index -= 1;
                self.within = self.ranges[self.index].1;
            }
            let step = n.min(self.within);
            self.within -= step;
            n -= step;
        }
    }
}

/// User memory as the destination of a read.
pub struct UserDst<'a>(UserRanges<'a>);

impl<'a> UserDst<'a> {
    /// Destination of `read(2)` or `readv(2)`: ranges of `space`, whose total length the caller has bounded.
    pub fn new(ctx: &Ctx<'a>, space: &'a AddressSpace, ranges: impl Into<Ranges>) -> UserDst<'a> {
        UserDst(UserRanges::new(ctx, space, ranges.into()))
    }
}

impl IoDst for UserDst<'_> {
    fn remaining(&self) -> usize {
        self.0.left
    }

    fn put(&mut self, data: &[u8]) -> Result<usize> {
        self.0
            .walk(data.len(), |platform, space, addr, at, len| platform.write_memory(space, addr, &data[at..at + len]))
    }

    fn put_file(&mut self, fd: i32, offset: u64, len: usize) -> Option<Result<usize>> {
        self.0.straight(len, |platform, space, addr, len| platform.read_file(space, addr, len, fd, offset))
    }
}

/// User memory as the source of a write.
pub struct UserSrc<'a>(UserRanges<'a>);

impl<'a> UserSrc<'a> {
    /// Source of `write(2)` or `writev(2)`: ranges of `space`, whose total length the caller has bounded.
    pub fn new(ctx: &Ctx<'a>, space: &'a AddressSpace, ranges: impl Into<Ranges>) -> UserSrc<'a> {
        UserSrc(UserRanges::new(ctx, space, ranges.into()))
    }
}

impl IoSrc for UserSrc<'_> {
    fn remaining(&self) -> usize {
        self.0.left
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.0
            .walk(buf.len(), |platform, space, addr, at, len| platform.read_memory(space, addr, &mut buf[at..at + len]))
    }

    fn take_file(&mut self, fd: i32, offset: u64, len: usize) -> Option<Result<usize>> {
        self.0.straight(len, |platform, space, addr, len| platform.write_file(space, addr, len, fd, offset))
    }

    fn untake(&mut self, n: usize) {
        self.0.back(n);
    }
}

/// A kernel buffer as the destination of a read.
pub struct KernelDst<'a> {
    buf: &'a mut [u8],
    done: usize,
}

impl<'a> KernelDst<'a> {
    /// Fills `buf` from its start.
    pub fn new(buf: &'a mut [u8]) -> KernelDst<'a> {
        KernelDst { buf, done: 0 }
    }
}

impl IoDst for KernelDst<'_> {
    fn remaining(&self) -> usize {
        self.buf.len() - self.done
    }

    fn put(&mut self, data: &[u8]) -> Result<usize> {
        let n = data.len().min(self.remaining());
        self.buf[self.done..self.done + n].copy_from_slice(&data[..n]);
        self.done += n;
        Ok(n)
    }
}

/// A kernel buffer as the source of a write.
pub struct KernelSrc<'a> {
    buf: &'a [u8],
    done: usize,
}

impl<'a> KernelSrc<'a> {
    /// Gives `buf` from its start.
    pub fn new(buf: &'a [u8]) -> KernelSrc<'a> {
        KernelSrc { buf, done: 0 }
    }
}

impl IoSrc for KernelSrc<'_> {
    fn remaining(&self) -> usize {
        self.buf.len() - self.done
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = buf.len().min(self.remaining());
        buf[..n].copy_from_slice(&self.buf[self.done..self.done + n]);
        self.done += n;
        Ok(n)
    }

    fn untake(&mut self, n: usize) {
        self.done -= n;
    }
}
