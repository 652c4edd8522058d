//! What a process does about each signal (`sigaction(2)`).

use super::number::{self, DefaultAction};
use super::{SigSet, default_action};
use crate::mm::Pod;
use crate::sync::Mutex;

bitflags::bitflags! {
    /// Flags of `sigaction(2)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SaFlags: u64 {
        /// No `SIGCHLD` when children stop or continue.
        const NOCLDSTOP = 1;
        /// Children leave no zombies.
        const NOCLDWAIT = 2;
        /// The handler takes three arguments.
        const SIGINFO = 4;
        /// A guest may ask whether unknown bits are cleared.
        const UNSUPPORTED = 0x400;
        /// Tag bits of fault addresses are kept; there are none on x86-64, so Linux clears the bit there.
        const EXPOSE_TAGBITS = 0x800;
        /// A restorer is given.
        const RESTORER = 0x0400_0000;
        /// The handler runs on the alternate stack.
        const ONSTACK = 0x0800_0000;
        /// Interrupted calls are restarted.
        const RESTART = 0x1000_0000;
        /// The signal is not blocked in its handler.
        const NODEFER = 0x4000_0000;
        /// The action is reset to the default before the handler runs.
        const RESETHAND = 0x8000_0000;
    }
}

impl SaFlags {
    /// What `rt_sigaction(2)` keeps; it clears other bits without a word.
    pub const KNOWN: SaFlags = SaFlags::all().difference(SaFlags::UNSUPPORTED).difference(SaFlags::EXPOSE_TAGBITS);
}

/// One signal's action, laid out as the kernel's `struct sigaction` on x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAction {
    /// Address of the handler, or [`SigAction::DEFAULT`], or [`SigAction::IGNORE`].
    pub handler: u64,
    /// [`SaFlags`].
    pub flags: u64,
    /// Where a handler returns to.
    pub restorer: u64,
    /// Blocked in the handler.
    pub mask: SigSet,
}

// SAFETY: four 8-byte integers in a row.
unsafe impl Pod for SigAction {}

impl SigAction {
    /// `SIG_DFL`.
    pub const DEFAULT: u64 = 0;
    /// `SIG_IGN`.
    pub const IGNORE: u64 = 1;

    /// The known flags.
    pub fn flags(&self) -> SaFlags {
        SaFlags::from_bits_retain(self.flags)
    }

    /// Whether signal `sig`, not blocked, would have no effect.
    pub fn ignores(&self, sig: u8) -> bool {
        match self.handler {
            SigAction::IGNORE => true,
            SigAction::DEFAULT => {
                matches!(default_action(sig), DefaultAction::Ignore | DefaultAction::Continue)
            }
            _ => false,
        }
    }
}

/// The actions of a process; shared with `CLONE_SIGHAND`.
pub struct SigHandlers {
    actions: Mutex<[SigAction; 64]>,
}

impl Default for SigHandlers {
    fn default() -> SigHandlers {
        SigHandlers { actions: Mutex::new([SigAction::default(); 64]) }
    }
}

impl SigHandlers {
    /// A copy: fork without `CLONE_SIGHAND`.
    pub fn duplicate(&self) -> SigHandlers {
        SigHandlers { actions: Mutex::new(*self.actions.lock()) }
    }

    /// The actions after exec or `CLONE_CLEAR_SIGHAND`: handlers are gone, ignored signals stay ignored.
    pub fn for_exec(&self) -> SigHandlers {
        let mut actions = *self.actions.lock();
        for action in &mut actions {
            let ignored = action.handler == SigAction::IGNORE;
            *action = SigAction::default();
            if ignored {
                action.handler = SigAction::IGNORE;
            }
        }
        SigHandlers { actions: Mutex::new(actions) }
    }

    /// The action of a signal, 1..=64; the default action for other numbers.
    pub fn get(&self, sig: u8) -> SigAction {
        let at = usize::from(sig.wrapping_sub(1));
        self.actions.lock().get(at).copied().unwrap_or_default()
    }

    /// Changes a signal's action and returns what it was.
    pub fn update(&self, sig: u8, change: impl FnOnce(&mut SigAction)) -> SigAction {
        let at = usize::from(sig.wrapping_sub(1));
        match self.actions.lock().get_mut(at) {
            Some(action) => {
                let old = *action;
                change(action);
                old
            }
            None => SigAction::default(),
        }
    }

    /// Whether children end without a zombie: `SIGCHLD` is ignored explicitly or has `SA_NOCLDWAIT`.
    pub fn reaps_children(&self) -> bool {
        let action = self.get(number::SIGCHLD);
        action.handler == SigAction::IGNORE || action.flags().contains(SaFlags::NOCLDWAIT)
    }

    /// Signals explicitly ignored and signals caught: `SigIgn` and `SigCgt` of `/proc/PID/status`.
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let mut sets = (SigSet::EMPTY, SigSet::EMPTY);
        for (sig, action) in (1..).zip(self.actions.lock().iter()) {
            match action.handler {
                SigAction::DEFAULT => {}
                SigAction::IGNORE => sets.0 = sets.0.with(sig),
                _ => sets.1 = sets.1.with(sig),
            }
        }
        sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::number::*;

    #[test]
    fn exec_keeps_only_what_is_ignored() {
        let handlers = SigHandlers::default();
        handlers.update(SIGINT, |a| *a = SigAction { handler: 0x4000, flags: 4, restorer: 1, mask: SigSet::FULL });
        handlers.update(SIGHUP, |a| *a = SigAction { handler: SigAction::IGNORE, flags: 4, ..*a });
        assert_eq!(handlers.ignored_and_caught(), (SigSet::of(&[SIGHUP]), SigSet::of(&[SIGINT])));
        let after = handlers.for_exec();
        assert_eq!(after.get(SIGINT), SigAction::default());
        assert_eq!(after.get(SIGHUP), SigAction { handler: SigAction::IGNORE, ..SigAction::default() });
    }

    #[test]
    fn children_are_reaped_when_asked() {
        let handlers = SigHandlers::default();
        assert!(!handlers.reaps_children());
        handlers.update(SIGCHLD, |a| a.handler = SigAction::IGNORE);
        assert!(handlers.reaps_children());
        handlers.update(SIGCHLD, |a| *a = SigAction { handler: 0x1000, flags: 2, ..*a });
        assert!(handlers.reaps_children());
    }
}
