//! The alternate signal stack (`sigaltstack(2)`).

use crate::bail;
use crate::errno::Result;
use crate::mm::Pod;

/// `ss_flags`: the thread runs on the stack.
pub const SS_ONSTACK: u32 = 1;
/// `ss_flags`: there is no such stack.
pub const SS_DISABLE: u32 = 2;
/// `ss_flags`: a handler that starts on the stack finds it disabled.
pub const SS_AUTODISARM: u32 = 1 << 31;
/// The least size (`MINSIGSTKSZ`).
const MIN_SIZE: u64 = 2048;

/// An alternate stack, laid out as `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// Lowest address.
    pub base: u64,
    /// `SS_*`.
    pub flags: u32,
    /// Padding of `stack_t`, always 0 here.
    pub padding: u32,
    /// Bytes; 0 for no stack.
    pub size: u64,
}

// SAFETY: integers with explicit padding.
unsafe impl Pod for AltStack {}

impl Default for AltStack {
    fn default() -> AltStack {
        AltStack { base: 0, flags: SS_DISABLE, padding: 0, size: 0 }
    }
}

impl AltStack {
    /// Whether a stack pointer lies in the stack, whose top belongs to it. With `SS_AUTODISARM` never: a handler that
    /// left the stack without returning must not be taken for one that is still on it.
    pub fn is_active(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.contains(sp)
    }

    /// Whether a stack pointer lies in the stack.
    pub fn contains(&self, sp: u64) -> bool {
        sp > self.base && sp - self.base <= self.size
    }

    /// `ss_flags` as `sigaltstack(2)` reports them for a thread with this stack pointer.
    pub fn status(&self, sp: u64) -> u32 {
        let state = if self.size == 0 {
            SS_DISABLE
        } else if self.is_active(sp) {
            SS_ONSTACK
        } else {
            0
        };
        state | self.flags & SS_AUTODISARM
    }

    /// The stack that takes this one's place when the thread asks for `new` with its stack pointer at `sp`.
    ///
    /// # Errors
    /// `EPERM` while the thread runs on the present stack, `EINVAL` for unknown flags, `ENOMEM` for a stack that is too small.
    pub fn replaced_by(&self, new: AltStack, sp: u64) -> Result<AltStack> {
        if self.is_active(sp) {
            bail!(EPERM, "the alternate stack is in use");
        }
        let mode = new.flags & !SS_AUTODISARM;
        if !matches!(mode, 0 | SS_ONSTACK | SS_DISABLE) {
            bail!(EINVAL, "ss_flags");
        }
        if *self == new {
            return Ok(new);
        }
        if mode == SS_DISABLE {
            return Ok(AltStack { base: 0, size: 0, ..new });
        }
        if new.size < MIN_SIZE {
            bail!(ENOMEM, "ss_size is less than MINSIGSTKSZ");
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;

    #[test]
    fn a_stack_in_use_cannot_be_changed() {
        let stack = AltStack { base: 0x1000, flags: 0, padding: 0, size: 0x2000 };
        assert_eq!(stack.status(0x2000), SS_ONSTACK);
        assert_eq!(stack.status(0x1000), 0, "the lowest address is not on the stack");
        assert_eq!(stack.status(0x3000), SS_ONSTACK, "the top is");
        assert_eq!(
            stack.replaced_by(AltStack::default(), 0x2000),
            Err(Errno::EPERM.into())
                .map_err(|e: crate::Error| { crate::Error::new(e.errno, "the alternate stack is in use") })
        );
        let auto = AltStack { flags: SS_AUTODISARM, ..stack };
        assert_eq!(auto.status(0x2000), SS_AUTODISARM);
        assert!(auto.replaced_by(stack, 0x2000).is_ok());
    }

    #[test]
    fn flags_and_size_are_checked() {
        let old = AltStack::default();
        let new = AltStack { base: 0x1000, flags: 0, padding: 0, size: 2047 };
        assert_eq!(old.replaced_by(new, 0).map_err(|e| e.errno), Err(Errno::ENOMEM));
        assert_eq!(old.replaced_by(AltStack { flags: 4, ..new }, 0).map_err(|e| e.errno), Err(Errno::EINVAL));
        let off = AltStack { flags: SS_DISABLE, ..new };
        assert_eq!(old.replaced_by(off, 0), Ok(AltStack::default()));
    }
}
