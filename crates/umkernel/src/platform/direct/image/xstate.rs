//! The processor's extended state of a guest thread. The kernel uses the xmm registers only, which the door saves; everything
//! else is still in the processor while the kernel runs for the thread.

use crate::bail;
use crate::errno::Result;
use alloc::vec::Vec;
use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _xgetbv};

/// Components that are the guest's: x87, SSE, AVX, AVX-512. Not the protection keys' register, which is the platform's; not
/// AMX tiles, which a program must ask for (`ARCH_REQ_XCOMP_PERM`) and is refused.
const COMPONENTS: u64 = 0b1110_0111;
/// Legacy area and header.
const LEAST: usize = 576;
/// Where the legacy area has the xmm registers.
const XMM: usize = 160;
/// Where it has MXCSR, and its mask.
const MXCSR: usize = 24;
const MXCSR_INITIAL: u32 = 0x1f80;
/// Bits of MXCSR that every processor with SSE2 has; setting others faults.
const MXCSR_BITS: u32 = 0xffff;
/// Where `PTRACE_GETREGSET` has the mask of the components, and so the callers expect it.
const FEATURES: usize = 464;
/// Where the header has the mask of the components that are not in their initial state.
const XSTATE_BV: usize = 512;

/// xmm0 to xmm15, as the door saved them.
type Xmm = [[u64; 2]; 16];

/// The component of the protection keys' register.
const PKRU: u32 = 9;

/// What the processor has.
#[derive(Clone, Copy, Debug)]
pub(super) struct XState {
    /// All components that the host has switched on.
    enabled: u64,
    /// Those that are the guest's.
    features: u64,
    size: usize,
    /// Where an image has the protection keys' register.
    keys: u32,
}

/// An image, aligned as the processor wants it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

fn bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: lines are bytes, and the slice covers them exactly.
    unsafe { core::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

/// Bytes of an image with AVX-512 and the protection keys' register, in whole lines.
const USUAL_SIZE: usize = 2752;

/// The state of a new program: no component is present, so the processor resets each; only MXCSR it takes from the image.
static INITIAL: [Line; LEAST / 64] = {
    let mut lines = [Line([0; 64]); LEAST / 64];
    let mxcsr = MXCSR_INITIAL.to_ne_bytes();
    (lines[0].0[MXCSR], lines[0].0[MXCSR + 1]) = (mxcsr[0], mxcsr[1]);
    lines
};

impl XState {
    /// Asks the processor.
    pub(super) fn detect() -> XState {
        // SAFETY: hosts without XSAVE have no protection keys either, and were refused.
        let enabled = unsafe { _xgetbv(0) };
        let features = enabled & COMPONENTS;
        let leaf = |component| __cpuid_count(0xd, component);
        let end = |component: u32| (leaf(component).eax + leaf(component).ebx) as usize;
        let size = (2..8).filter(|c| features >> c & 1 == 1).map(end).max().unwrap_or(0);
        XState { enabled, features, size: size.max(LEAST), keys: leaf(PKRU).ebx }
    }

    /// The protection keys' register in an image that the host has made.
    ///
    /// # Safety
    /// `image` is the address of one, readable.
    pub(super) unsafe fn keys(&self, image: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe {
            let present = *((image + XSTATE_BV as u64) as *const u64) >> PKRU & 1 == 1;
            if present { *((image + u64::from(self.keys)) as *const u32) } else { 0 }
        }
    }

    /// Calls `f` with zeroed memory for an image: the stack's, unless a processor has more than any known one.
    fn with_buffer<T>(&self, f: impl FnOnce(&mut [Line]) -> T) -> T {
        let mut lines = [Line([0; 64]); USUAL_SIZE / 64];
        match lines.get_mut(..self.size.div_ceil(64)) {
            Some(lines) => f(lines),
            None => f(&mut alloc::vec![Line([0; 64]); self.size.div_ceil(64)]),
        }
    }

    /// The guest's state while the running thread is in the kernel for it.
    pub(super) fn save(&self, xmms: &Xmm) -> Vec<u8> {
        let mut image = self.with_buffer(|lines| {
            // SAFETY: the area is zeroed, aligned and as large as the processor said for these components.
            unsafe {
                asm!("xsave [{}]", in(reg) lines.as_mut_ptr(), in("eax") self.features as u32, in("edx") 0, options(nostack));
            }
            bytes(lines)[..self.size].to_vec()
        });
        for (place, word) in image[XMM..XMM + 256].as_chunks_mut().0.iter_mut().zip(xmms.as_flattened()) {
            *place = word.to_ne_bytes();
        }
        image[XSTATE_BV] |= 2;
        image[FEATURES..FEATURES + 8].copy_from_slice(&self.features.to_ne_bytes());
        image
    }

    /// Sets the guest's state from an image that it supplies; an empty one is the initial state.
    ///
    /// # Errors
    /// `EINVAL` where the processor would refuse the image.
    pub(super) fn load(&self, state: &[u8], xmms: &mut Xmm) -> Result<()> {
        if state.is_empty() {
            *xmms = Xmm::default();
            // SAFETY: a sound image in which no component is present.
            unsafe { self.restore(&INITIAL) };
            return Ok(());
        }
        let word = |at: usize| state.get(at..at + 8).map_or(0, |b| u64::from_ne_bytes(core::array::from_fn(|i| b[i])));
        let present = if state.len() < LEAST { 3 } else { word(XSTATE_BV) & self.features };
        let compacted_or_reserved =
            state.get(XSTATE_BV + 8..LEAST).is_some_and(|rest| rest.iter().any(|&byte| byte != 0));
        if compacted_or_reserved || word(XSTATE_BV) & !self.enabled != 0 || word(MXCSR) as u32 & !MXCSR_BITS != 0 {
            bail!(EINVAL, "not an image of the processor's state");
        }
        for (i, xmm) in xmms.iter_mut().enumerate() {
            let at = XMM + 16 * i;
            *xmm = if present & 2 == 2 { [word(at), word(at + 8)] } else { [0; 2] };
        }
        self.with_buffer(|lines| {
            for (line, bytes) in lines.iter_mut().zip(state[..state.len().min(self.size)].chunks(64)) {
                line.0[..bytes.len()].copy_from_slice(bytes);
            }
            // The header: nothing but the mask of components, or the processor refuses.
            if let Some(header) = lines.get_mut(XSTATE_BV / 64) {
                header.0 = [0; 64];
                header.0[..8].copy_from_slice(&present.to_ne_bytes());
            }
            lines[0].0[MXCSR..MXCSR + 4].copy_from_slice(&(word(MXCSR) as u32).to_ne_bytes());
            // SAFETY: the header is sound and MXCSR has no reserved bit.
            unsafe { self.restore(lines) };
        });
        Ok(())
    }

    /// Has the processor take over an image.
    ///
    /// # Safety
    /// The image is sound, and as long as the components that it says are present.
    unsafe fn restore(&self, image: &[Line]) {
        // SAFETY: the caller's promise; the kernel's own xmm registers hold nothing across this.
        unsafe {
            asm!(
                "xrstor [{}]",
                in(reg) image.as_ptr(),
                in("eax") self.features as u32,
                in("edx") 0,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nostack),
            );
        }
    }
}
