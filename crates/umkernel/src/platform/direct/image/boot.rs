//! Where the kernel image begins, and where it ends.

use super::arena::{self, Facts, Files, arena};
use super::handover::{self, Handover, RANGE_NAMES, READ_ONLY, RUN_ANY_INIT, RUN_INIT, Text};
use super::layout::{KEYS_OPEN, VIEW_SIZE};
use super::platform::Direct;
use super::slot::{HostMemory, Own};
use super::vdso::{Clock, VDSO};
use super::zygote;

use super::xstate::XState;
use crate::fs::hostfs::{Channel, ShareMount};
use crate::host::{self, process};
use crate::machine::{self, Disks, MachineConfig, Run, Shares, Watchers, report};
use crate::platform::Reserved;
use crate::trace::Tracer;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt::Write;

/// Exit status of a host process in which the kernel panicked.
pub const PANIC_STATUS: u8 = 101;

/// Boots the machine, and ends the kernel process when it has stopped.
pub fn main(handover: &Handover) -> ! {
    let reserved = handover.host_ranges.map(|range| Reserved {
        start: range.start,
        end: range.end,
        name: RANGE_NAMES.get(range.name as usize).copied().unwrap_or("[vvar]"),
    });
    let vdso = reserved.iter().find(|range| range.name == VDSO);
    let root = &handover.disks[0];
    let facts = Facts {
        // SAFETY: the host has mapped it there, in every process, and nothing unmaps it.
        clock: vdso.map_or_else(Clock::default, |range| unsafe { Clock::find(range.start, range.end) }),
        kernel_pid: host::getpid(),
        broker_pid: handover.broker_pid,
        image_file: if root.size <= VIEW_SIZE { root.image } else { -1 },
        xstate: XState::detect(),
        hardware: handover.hardware.map(|[key, value]| (key, value)),
        reserved,
    };
    let files = Files {
        arena: handover.arena_file,
        patches: handover.patches_file,
        broker: handover.broker_socket,
        shares: handover.share_sockets,
    };
    let parent = host::getppid();
    // SAFETY: nothing else runs yet.
    unsafe { arena::initialise(files, facts) };
    let own = Own { memory: Some(HostMemory::new(0)), ..Own::default() };
    match arena().slots.take(own, 0) {
        Ok(slot) => {
            slot.become_current();
            arena().heap.keep_in_slots();
        }
        Err(e) => panic!("no slot for the first thread: {e}"),
    }
    let mut files = handover.disks.iter().filter_map(handover::Disk::files);
    let Some(root) = files.next() else { panic!("no root disk is handed over") };
    let partition = (handover.root_partition != 0).then_some(handover.root_partition);
    let disks = Disks { root, partition, others: files.collect() };
    let trace = handover.trace.stream.open();
    let watchers = Watchers {
        trace: trace.map(|stream| Tracer::new(handover.trace.options(), Box::new(stream))),
        stats: handover.stats.open(),
    };
    let outcome = machine::run(&config(handover), Box::new(Direct), disks, shares(handover), watchers);
    zygote::stop();
    // A process that would not end has the image open longer than this one.
    handover.disks.iter().flat_map(handover::Disk::descriptors).for_each(process::unlock);
    // If nobody listens any more, nobody minds.
    let _ = host::write(handover.report_file, &report::encode(&outcome));
    if handover.has_terminal != 0 && host::getppid() != parent {
        process::set_terminal(0, &handover.termios);
    }
    host::exit_process(1)
}

fn shares(handover: &Handover) -> Option<Shares> {
    let shares = handover.shares.strings();
    let mounts =
        shares.chunks_exact(2).map(|pair| ShareMount { guest: pair[0].clone(), read_only: pair[1] == READ_ONLY });
    let mounts: Vec<_> = mounts.collect();
    (!mounts.is_empty()).then(|| Shares { channel: Channel::new(handover.share_sockets), mounts })
}

fn text(text: Text) -> String {
    String::from_utf8_lossy(text.bytes()).into_owned()
}

fn config(handover: &Handover) -> MachineConfig {
    let run = handover.run.strings();
    MachineConfig {
        memory: handover.memory,
        cpus: handover.cpus,
        command_line: text(handover.command_line),
        run: match handover.run_kind {
            RUN_ANY_INIT => Run::Init(None),
            RUN_INIT => Run::Init(run.into_iter().next()),
            _ => Run::Command(run),
        },
        env: handover.env.strings().chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
        verbose: handover.verbose != 0,
    }
}

fn keys() -> u32 {
    let keys;
    // SAFETY: reads a register.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") keys, out("edx") _, options(nomem, nostack, preserves_flags)) };
    keys
}

/// The kernel panicked: says why, and ends the process. The kernel process ends the machine when a guest process ends so.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    if keys() != KEYS_OPEN {
        // Guest code has jumped into the kernel's: its own affair.
        // SAFETY: the fault ends what the guest has begun.
        unsafe { asm!("ud2", options(noreturn)) }
    }
    struct Stderr;
    impl Write for Stderr {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            // There is nobody to tell that nobody can be told.
            let _ = host::write(2, text.as_bytes());
            Ok(())
        }
    }
    // The terminal may be raw: lines end with both.
    let _ = write!(Stderr, "\r\numlfs kernel panic: {info}\r\n");
    host::exit_process(PANIC_STATUS)
}
