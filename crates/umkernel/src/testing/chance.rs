//! System calls that bytes without a meaning stand for: what a fuzzer, or a loop over random bytes, does to the kernel.
//! Nothing is expected of the results; the kernel must not panic, hang, or reach memory that is not its guest's.

use super::{Machine, TestPlatform, addr, machine_with, tmpfs};
use crate::fs::tmpfs::TmpFs;
use crate::kernel::Ctx;
use crate::signal;
use crate::syscall::{Arg, Entry, entries};
use crate::task::{self, Task};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::*;

/// Words of the guest's memory.
const ARENA_WORDS: usize = 8192;
/// Calls of one run at most.
const CALLS: usize = 200;
/// Where the guest's memory has room for what calls store.
const ROOM: u64 = 4096;
/// Numbers that calls like: sizes of structures, of a page, of many.
const SIZES: [u64; 12] = [8, 16, 24, 32, 40, 56, 64, 88, 112, 128, 4096, 65536];
/// Calls that end the caller, or the machine.
const LEFT_OUT: [u32; 3] = [__NR_exit, __NR_exit_group, __NR_reboot];
/// Strings that the guest's memory begins with; the first is empty.
const STRINGS: &str = " . .. / a d d/a d/../a link d/b fifo proc /proc/self/fd/3 /proc/self/fd /proc/self/status \
    /proc/self/mem /proc/1/mounts /proc/sys/kernel/hostname dev /dev/null /dev/zero /dev/full \
    /dev/random /dev/ptmx /dev/tty /dev/kmsg dev/pts tmpfs devtmpfs devpts mqueue sysfs cgroup2 none size=1M \
    user.x security.y system.posix_acl_access #!d/a lo";

fn strings() -> impl Iterator<Item = &'static [u8]> {
    STRINGS.split(' ').map(str::as_bytes)
}

/// Makes the calls that `data` stands for.
///
/// # Panics
/// The kernel does, or its machine could not be made.
pub fn system_calls(data: &[u8]) {
    let mut arena = vec![0u64; ARENA_WORDS];
    let start = addr(&arena[..]);
    let strings = fill(&mut arena);
    let machine = machine_with(tmpfs(), TestPlatform { arena: Some(start..start + 8 * ARENA_WORDS as u64) });
    let init = machine.task();
    let task = machine.child(&init);
    let mut caller = Caller { ctx: machine.ctx(&task), bytes: Bytes(data), start, strings, last: 0 };
    caller.prepare();
    for _ in 0..CALLS {
        if caller.bytes.0.is_empty() {
            break;
        }
        caller.step(&mut arena);
    }
    end(&machine);
}

/// Writes the strings to the beginning; where each is, from there on.
fn fill(arena: &mut [u64]) -> Vec<u64> {
    let mut text = Vec::new();
    let mut places = Vec::new();
    for string in strings() {
        places.push(text.len() as u64);
        text.extend_from_slice(string);
        text.push(0);
    }
    text.resize(text.len().next_multiple_of(8), 0);
    for (word, bytes) in arena.iter_mut().zip(text.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    places
}

/// Ends whatever processes there are: files that stay open would be the host's before long.
fn end(machine: &Machine) {
    let mut tasks: Vec<Arc<Task>> =
        machine.kernel.tasks.processes().iter().flat_map(|process| process.inner.lock().threads.clone()).collect();
    // The first one takes in what the others leave behind.
    tasks.sort_by_key(|task| core::cmp::Reverse(task.tid()));
    for task in &tasks {
        task::finish(&machine.ctx(task));
    }
    for sb in machine.kernel.vfs.file_systems() {
        // Nothing uses them any more, whatever they say.
        let _ = sb.fs.unmount();
        // The devices' file system would stay for the next mount.
        if let Some(tmpfs) = sb.fs.as_any().downcast_ref::<TmpFs>() {
            tmpfs.let_go();
        }
    }
    if let Some(memory_files) = machine.kernel.vfs.shmem.lock().take() {
        memory_files.let_go();
    }
}

/// The rest of the input; without any, zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let len = N.min(self.0.len());
        let (now, rest) = self.0.split_at(len);
        taken[..len].copy_from_slice(now);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn short(&mut self) -> u64 {
        u64::from(u16::from_le_bytes(self.take()))
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

struct Caller<'a> {
    ctx: Ctx<'a>,
    bytes: Bytes<'a>,
    start: u64,
    strings: Vec<u64>,
    /// What the last call returned.
    last: u64,
}

impl Caller<'_> {
    /// Something to work on.
    fn prepare(&mut self) {
        let cwd = crate::vfs::AT_FDCWD as i64 as u64;
        let string = |wanted: &[u8]| {
            let place = strings().position(|string| string == wanted).map(|at| self.strings[at]);
            self.start + place.expect("one of the strings")
        };
        let calls: &[(u32, &[u64])] = &[
            (__NR_mkdirat, &[cwd, string(b"d"), 0o755]),
            (__NR_mkdirat, &[cwd, string(b"proc"), 0o755]),
            (__NR_mkdirat, &[cwd, string(b"dev"), 0o755]),
            (__NR_mount, &[string(b"none"), string(b"proc"), string(b"proc"), 0, 0]),
            (__NR_mount, &[string(b"none"), string(b"dev"), string(b"devtmpfs"), 0, 0]),
            (__NR_mkdirat, &[cwd, string(b"dev/pts"), 0o755]),
            (__NR_mount, &[string(b"none"), string(b"dev/pts"), string(b"devpts"), 0, 0]),
            (__NR_mknodat, &[cwd, string(b"fifo"), 0o10_644, 0]),
            (__NR_symlinkat, &[string(b"d/a"), cwd, string(b"link")]),
            (__NR_openat, &[cwd, string(b"a"), 0o102, 0o644]),
            (__NR_openat, &[cwd, string(b"d"), 0o200_000, 0]),
            (__NR_openat, &[cwd, string(b"/dev/ptmx"), 2, 0]),
            (__NR_openat, &[cwd, string(b"/proc/self/status"), 0, 0]),
            (__NR_pipe2, &[self.start + ROOM, 0]),
            (__NR_socketpair, &[1, 1, 0, self.start + ROOM]),
            (__NR_socket, &[2, 1, 0]),
            (__NR_epoll_create1, &[0]),
            (__NR_timerfd_create, &[1, 0]),
            (__NR_inotify_init1, &[0]),
            (__NR_signalfd4, &[u64::MAX, self.start + ROOM, 8, 0]),
        ];
        for (nr, args) in calls {
            self.ctx.call(*nr, args).expect("what the calls work on");
        }
    }

    /// One call, or bytes put into memory for the next ones.
    fn step(&mut self, arena: &mut [u64]) {
        // Whatever sleeps is to wake up at once.
        self.ctx.task.dying.store(true, Ordering::SeqCst);
        signal::recalculate_attention(self.ctx.task);
        let what = self.bytes.byte();
        if what < 64 {
            let at = self.bytes.short() as usize % ARENA_WORDS;
            for place in arena[at..].iter_mut().take(usize::from(what % 16) + 1) {
                *place = self.bytes.word();
            }
            return;
        }
        let calls: Vec<&Entry> = entries().filter(|entry| !LEFT_OUT.contains(&(entry.nr as u32))).collect();
        let call = calls[(self.bytes.short() as usize) % calls.len()];
        let args: Vec<u64> = call.args.iter().map(|arg| self.argument(*arg)).collect();
        let result = self.ctx.call(call.nr as u32, &args);
        if std::env::var_os("KERNEL_SHOW").is_some() {
            std::eprintln!("{}{args:x?} = {result:?}", call.name);
        }
        if let Ok(result) = result {
            self.last = result as u64;
        }
    }

    fn argument(&mut self, arg: Arg) -> u64 {
        let chosen = self.bytes.byte();
        if chosen < 8 {
            return self.number();
        }
        match arg {
            Arg::Fd | Arg::DirFd if chosen < 16 => self.last,
            Arg::DirFd if chosen < 80 => crate::vfs::AT_FDCWD as i64 as u64,
            Arg::Fd | Arg::DirFd => u64::from(chosen % 16),
            Arg::Path | Arg::Str if chosen < 240 => self.start + self.strings[usize::from(chosen) % self.strings.len()],
            Arg::Path | Arg::Str | Arg::BufIn(_) | Arg::BufOut | Arg::Ptr | Arg::StrList => match chosen {
                8..16 => 0,
                // Across the end.
                16..24 => self.start + 8 * ARENA_WORDS as u64 - u64::from(chosen),
                _ => self.start + self.bytes.short() % ARENA_WORDS as u64 * 8,
            },
            Arg::Signal => u64::from(chosen % 66),
            // Flags, or the address of a structure.
            Arg::Kind(_) if chosen < 128 => self.start + self.bytes.short() % ARENA_WORDS as u64 * 8,
            Arg::Int | Arg::Long | Arg::Uint | Arg::Hex | Arg::Mode | Arg::Kind(_) => match chosen {
                8..128 => u64::from(chosen - 8) % 40,
                128..192 => SIZES[usize::from(chosen) % SIZES.len()],
                _ => self.number(),
            },
        }
    }

    fn number(&mut self) -> u64 {
        let how = self.bytes.byte();
        match how % 8 {
            0 => u64::from(self.bytes.byte()),
            1 => self.bytes.short(),
            2 => self.bytes.word(),
            3 => u64::from(self.bytes.byte()).wrapping_neg(),
            4 => 1 << (self.bytes.byte() % 64),
            5 => (1u64 << (self.bytes.byte() % 64)).wrapping_sub(1),
            6 => self.start + self.bytes.short() % ARENA_WORDS as u64 * 8,
            _ => self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// `KERNEL_RUNS=N` sets how often, `KERNEL_SEED=N` where to start; `KERNEL_SHOW=1` tells the calls.
    #[test]
    fn calls_by_chance_leave_the_kernel_whole() {
        let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
        let first = number("KERNEL_SEED", 1);
        for seed in first..first + number("KERNEL_RUNS", 300) {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            let data: Vec<u8> = (0..200).flat_map(|_| random.next().to_le_bytes()).collect();
            system_calls(&data);
        }
    }
}
