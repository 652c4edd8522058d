//! A filter and those that were attached before it.

use super::bpf::{Data, Program};
use super::notify::Listener;
use alloc::sync::Arc;
use linux_raw_sys::ptrace::{SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW};

/// What a filter costs beside its instructions, of those that a task may have in all (seccomp(2)).
const PENALTY: usize = 4;
/// Calls that have a bit of their own in [`Filter::allowed`]: above all numbers.
const NUMBERS: u32 = 512;

/// A filter. Those that a task had before stay; children have their parent's, so all of a machine are a forest.
pub(super) struct Filter {
    program: Program,
    previous: Option<Arc<Filter>>,
    /// How many there are with this one.
    pub(super) depth: u32,
    /// Instructions of all, with what each costs besides.
    weight: usize,
    /// What it does is logged (`SECCOMP_FILTER_FLAG_LOG`).
    pub(super) logs: bool,
    /// Who is told of `SECCOMP_RET_USER_NOTIF` (`SECCOMP_FILTER_FLAG_NEW_LISTENER`).
    pub(super) listener: Option<Arc<Listener>>,
    /// One of them looks at where calls are made.
    pub(super) reads_address: bool,
    /// Calls, by number, that all of them allow whatever else is true of a call: for these none has to run.
    allowed: [u64; NUMBERS as usize / 64],
}

impl Filter {
    pub(super) fn new(
        program: Program,
        previous: Option<Arc<Filter>>,
        logs: bool,
        listener: Option<Arc<Listener>>,
    ) -> Filter {
        let mut allowed = [0; NUMBERS as usize / 64];
        let before = |nr: u32| previous.as_ref().is_none_or(|previous| previous.allows(nr));
        for nr in (0..NUMBERS).filter(|&nr| before(nr) && program.run_for(nr) == Some(SECCOMP_RET_ALLOW)) {
            allowed[nr as usize / 64] |= 1u64 << (nr % 64);
        }
        Filter {
            depth: previous.as_ref().map_or(0, |previous| previous.depth) + 1,
            weight: Filter::weight(&program, previous.as_deref()) + PENALTY,
            reads_address: program.reads_address() || previous.as_ref().is_some_and(|previous| previous.reads_address),
            program,
            previous,
            logs,
            listener,
            allowed,
        }
    }

    /// What counts against the limit of a task that attaches a program after others.
    pub(super) fn weight(program: &Program, previous: Option<&Filter>) -> usize {
        program.instructions().len() + previous.map_or(0, |previous| previous.weight)
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    /// This one, then those that were attached before it, the last first.
    pub(super) fn chain(&self) -> impl Iterator<Item = &Filter> {
        core::iter::successors(Some(self), |filter| filter.previous.as_deref())
    }

    /// Whether a call with this number is allowed in any case.
    pub(super) fn allows(&self, nr: u32) -> bool {
        self.allowed.get(nr as usize / 64).is_some_and(|bits| bits >> (nr % 64) & 1 != 0)
    }

    /// What the filters say of a call, the gravest of what each of them says; and which of them said it. Of equals, it is the
    /// one that was attached last.
    pub(super) fn judge(&self, data: &Data) -> (u32, &Filter) {
        let mut found = (SECCOMP_RET_ALLOW, self);
        for filter in self.chain() {
            let result = filter.program.run(data);
            if gravity(result) < gravity(found.0) {
                found = (result, filter);
            }
        }
        found
    }
}

/// Less is graver: actions are ordered as signed numbers.
fn gravity(result: u32) -> i32 {
    (result & SECCOMP_RET_ACTION_FULL) as i32
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abandoned();
        }
        // One by one: dropping a long chain from within would take a deep stack.
        let mut next = self.previous.take();
        while let Some(filter) = next {
            next = Arc::into_inner(filter).and_then(|mut filter| filter.previous.take());
        }
    }
}
