//! Stacks that grow (`MAP_GROWSDOWN`): a fault below such a VMA makes it longer.

use super::space::MMAP_MIN;
use super::{AddressSpace, PAGE_SIZE, Prot, RLIMIT_AS, RLIMIT_STACK, Vma, VmaKind};
use crate::kernel::Ctx;

/// What stays free between a stack that grows and other mappings (`stack_guard_gap`), in bytes.
pub(super) const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

impl AddressSpace {
    /// Grows the stack above `addr` down to it. False if there is none, or it may not: the fault stays one.
    pub fn grow_down(&self, ctx: &Ctx, addr: u64) -> bool {
        let page = addr & !(PAGE_SIZE - 1);
        let mut inner = self.inner.lock();
        if page < MMAP_MIN || inner.vma_at(page).is_some() {
            return false;
        }
        let Some(stack) = inner.vmas.range(page..).next().map(|(_, vma)| vma).filter(|vma| vma.grows_down()) else {
            return false;
        };
        let below = inner.vmas.range(..page).next_back().map(|(_, vma)| vma);
        if below.is_some_and(|vma| {
            !vma.grows_down() && vma.prot.intersects(Prot::all()) && page - vma.end < STACK_GUARD_GAP
        }) {
            return false;
        }
        let limit = |which| ctx.task.process.limit(which);
        let more = stack.start - page;
        if stack.end - page > limit(RLIMIT_STACK) || inner.total().saturating_add(more) > limit(RLIMIT_AS) {
            return false;
        }
        let grown = Vma { start: page, end: stack.start, kind: VmaKind::Anonymous, ..stack.clone() };
        inner.map(ctx, grown).is_ok()
    }
}
