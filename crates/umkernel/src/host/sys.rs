//! The `syscall` instruction.

use crate::errno::Result;
use core::arch::asm;

/// Makes a host call and returns `rax`.
///
/// # Safety
/// The arguments must be valid for the call: the host reads and writes memory that they point to.
pub(super) unsafe fn syscall6(nr: usize, args: [usize; 6]) -> isize {
    let ret: isize;
    macro_rules! call {
        ($($how:tt)*) => {
            asm!(
                $($how)*,
                inlateout("rax") nr as isize => ret,
                in("rdi") args[0],
                in("rsi") args[1],
                in("rdx") args[2],
                in("r10") args[3],
                in("r8") args[4],
                in("r9") args[5],
                lateout("rcx") _,
                lateout("r11") _,
            )
        };
    }
    // SAFETY: the caller vouches for the arguments; rcx and r11 are clobbered by the instruction.
    #[cfg(not(feature = "direct"))]
    unsafe {
        call!("syscall");
    }
    // In one place, which the guests' filter knows.
    // SAFETY: as above; the callee uses the stack for its return address only.
    #[cfg(feature = "direct")]
    unsafe {
        call!("call {}", sym crate::platform::direct::image::hostcall);
    }
    ret
}

/// Turns `rax` into a result.
pub(super) fn check(ret: isize) -> Result<usize> {
    if (-4095..0).contains(&ret) { Err(super::host_error(-ret as i32)) } else { Ok(ret as usize) }
}
