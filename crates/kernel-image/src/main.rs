//! The freestanding kernel image of the `direct` platform. Everything is in `umkernel`; here is what a program without a
//! standard library must bring itself.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use umkernel::platform::direct::handover::Handover;
use umkernel::platform::direct::image::ArenaAllocator;
use umkernel::platform::direct::image::boot;

mod mem;

#[global_allocator]
static HEAP: ArenaAllocator = ArenaAllocator;

/// The loader jumps here, in the kernel process, with the image, the arena and the private area mapped.
///
/// # Safety
/// `info` is the loader's and outlives the machine.
#[unsafe(no_mangle)]
unsafe extern "C" fn kernel_main(info: *const Handover) -> ! {
    // SAFETY: the caller's promise.
    boot::main(unsafe { &*info })
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    boot::panicked(info)
}
