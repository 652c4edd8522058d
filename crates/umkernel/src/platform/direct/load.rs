//! The loader: maps the kernel image, the arena and the private area into the kernel process, and jumps. A part of the `umlfs`
//! program; from the jump on, nothing of that program runs in this process any more.

use super::broker;
use super::handover::{Handover, HostRange, MAX_RESERVED, RANGE_NAMES};
use super::layout::*;
use crate::errno::Errno;
use crate::host;
use nix::libc;
use std::arch::asm;
use std::format;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::string::String;
use std::vec::Vec;

/// Whether this host can run the `direct` platform.
///
/// # Errors
/// A sentence about what it lacks.
pub fn check_host() -> Result<(), String> {
    /// `HWCAP2_FSGSBASE` of `asm/hwcap2.h`: the host lets programs set their segment bases.
    const HWCAP2_FSGSBASE: u64 = 2;
    /// CPUID leaf 7, ECX: the host has switched protection keys on.
    const OSPKE: u32 = 1 << 4;
    if std::arch::x86_64::__cpuid_count(7, 0).ecx & OSPKE == 0 {
        return Err("the processor or the host's kernel has no memory protection keys (pku)".into());
    }
    // SAFETY: looks up the process's own vector.
    if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
        return Err("the host's kernel does not let programs set segment bases (fsgsbase)".into());
    }
    let key = allocate_key()?;
    // SAFETY: no memory is involved: nothing has the key.
    unsafe { libc::syscall(libc::SYS_pkey_free, key) };
    let trap: u32 = libc::SECCOMP_RET_TRAP;
    // SAFETY: asks whether an action is known; the word is ours.
    let known = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const trap) };
    if known != 0 {
        return Err(host_error("the host does not let programs filter their system calls: seccomp"));
    }
    let no_program: libc::c_long = 0;
    // SAFETY: without a program nothing happens; a host that allows filters says EFAULT.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, no_program) };
    match std::io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        e => Err(format!("the host does not let programs filter their system calls: seccomp: {e}")),
    }
}

/// The fields that the loader fills in itself are those of the host: ranges, hardware, arena.
pub fn enter(image: &[u8], mut handover: Handover, keep: &[BorrowedFd<'_>]) -> String {
    match prepare(image, &mut handover, keep) {
        // SAFETY: `prepare` has mapped all that the image needs; this process has one thread, which never returns.
        Ok(entry) => unsafe { jump(entry, &handover) },
        Err(what) => what,
    }
}

fn host_error(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}

fn prepare(image: &[u8], handover: &mut Handover, keep: &[BorrowedFd<'_>]) -> Result<u64, String> {
    check_host()?;
    // Before there is anything to share with it.
    let (broker, broker_pid) = broker::start()?;
    let arena = memory_file(c"umlfs-arena", ARENA_SIZE)?;
    let patches_file = memory_file(c"umlfs-patches", PATCHES_SIZE)?;
    close_others(keep, &[&arena, &patches_file, &broker])?;
    forget_registrations()?;
    reset_signals();
    take_key()?;
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    map(ARENA_BASE, ARENA_SIZE, read_write, libc::MAP_SHARED | libc::MAP_NORESERVE, arena.as_raw_fd(), 0)?;
    protect_with_key(ARENA_BASE, ARENA_SIZE, read_write)?;
    private_area()?;
    view(handover)?;
    patches(&patches_file)?;
    let entry = load_image(image)?;
    handover.host_ranges = host_ranges()?;
    // SAFETY: getauxval only looks up the process's own vector.
    let get = |key: u64| [key, unsafe { libc::getauxval(key) }];
    const AT_MINSIGSTKSZ: u64 = 51;
    handover.hardware = [get(libc::AT_HWCAP), get(libc::AT_HWCAP2), get(AT_MINSIGSTKSZ)];
    handover.arena_file = arena.into_raw_fd();
    handover.patches_file = patches_file.into_raw_fd();
    handover.broker_socket = broker.into_raw_fd();
    handover.broker_pid = broker_pid;
    Ok(entry)
}

fn memory_file(name: &std::ffi::CStr, size: u64) -> Result<OwnedFd, String> {
    let fd = host::memfd_create(name).map_err(|e| format!("cannot make a memory file: {e}"))?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    host::ftruncate(fd, size).map_err(|e| {
        let limit = if e == Errno::EFBIG { " (`ulimit -f` limits the size of files)" } else { "" };
        format!("cannot make a memory file of {} GiB{limit}: {e}", size >> 30)
    })?;
    Ok(file)
}

/// The root disk's image as the kernel sees it, to read from.
fn view(handover: &Handover) -> Result<(), String> {
    let root = &handover.disks[0];
    if root.size > VIEW_SIZE {
        return Ok(());
    }
    map(VIEW_BASE, root.size, libc::PROT_READ, libc::MAP_SHARED, root.image, 0)?;
    protect_with_key(VIEW_BASE, root.size, libc::PROT_READ)
}

/// The patched texts as the kernel sees them, and the trampolines as guest code does.
fn patches(file: &OwnedFd) -> Result<(), String> {
    let shared = libc::MAP_SHARED | libc::MAP_NORESERVE;
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    map(PATCHES_BASE, PATCHES_SIZE, read_write, shared, file.as_raw_fd(), 0)?;
    protect_with_key(PATCHES_BASE, PATCHES_SIZE, read_write)?;
    let code = libc::PROT_READ | libc::PROT_EXEC;
    map(WINDOW_TRAMPOLINES, TRAMPOLINES_SIZE, code, shared, file.as_raw_fd(), 0)?;
    map(LOW_TRAMPOLINES, TRAMPOLINES_SIZE, code, shared, file.as_raw_fd(), TRAMPOLINES_SIZE)
}

/// What a guest process could reach of the host's by way of its descriptors is closed: it shares this table.
fn close_others(keep: &[BorrowedFd<'_>], own: &[&OwnedFd]) -> Result<(), String> {
    let keep = keep.iter().map(AsRawFd::as_raw_fd).chain([0, 1, 2]).chain(own.iter().map(|fd| fd.as_raw_fd()));
    close_all_but(&keep.collect::<Vec<_>>())
}

/// Closes all descriptors of the process but these.
///
/// # Errors
/// The host does not tell which there are.
pub(crate) fn close_all_but(keep: &[i32]) -> Result<(), String> {
    let open = std::fs::read_dir("/proc/self/fd").map_err(|e| format!("cannot list open files: {e}"))?;
    let open: Vec<i32> = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| !keep.contains(fd)) {
        host::close(fd);
    }
    Ok(())
}

/// Takes back what the C library has registered with the host for this thread: addresses that guest processes do not have.
fn forget_registrations() -> Result<(), String> {
    const UNREGISTER: libc::c_long = 1;
    const SIGNATURE: libc::c_long = 0x5305_3053;
    const ROBUST_LIST_HEAD: libc::c_long = 24;
    let none: libc::c_long = 0;
    // SAFETY: an empty list.
    unsafe { libc::syscall(libc::SYS_set_robust_list, none, ROBUST_LIST_HEAD) };
    // SAFETY: looks a name up; C libraries that do not register have no such name.
    let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) }.cast::<isize>();
    if offset.is_null() {
        return Ok(());
    }
    let thread: u64;
    // SAFETY: reads the thread pointer, which the C library keeps there.
    unsafe { asm!("mov {}, fs:[0]", out(reg) thread, options(nostack, readonly, preserves_flags)) };
    // SAFETY: the C library's constant.
    let area = thread.wrapping_add_signed(unsafe { *offset } as i64) as libc::c_long;
    // The length must be that of the registration, which the C library keeps to itself.
    let lengths = [32, 40, 48, 56, 64, 96, 128, 256];
    // SAFETY: unregisters or fails.
    let gone = |len: libc::c_long| unsafe { libc::syscall(libc::SYS_rseq, area, len, UNREGISTER, SIGNATURE) } == 0;
    if lengths.into_iter().any(gone) || std::io::Error::last_os_error().raw_os_error() != Some(libc::EBUSY) {
        return Ok(());
    }
    Err("the C library keeps a registration with the host (rseq)".into())
}

/// Signals go back to their defaults, but for the ignored `SIGPIPE`: this program's handlers are not there for the image.
fn reset_signals() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
        // SAFETY: the default action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn allocate_key() -> Result<libc::c_long, String> {
    let none: libc::c_long = 0;
    // SAFETY: no memory is involved.
    let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, none, none) };
    if key < 0 { Err(host_error("the host gives no memory protection key: pkey_alloc")) } else { Ok(key) }
}

fn take_key() -> Result<(), String> {
    let key = allocate_key()?;
    if key != libc::c_long::from(KEY) {
        return Err(format!("the host gave protection key {key} where {KEY} is expected"));
    }
    Ok(())
}

fn map(addr: u64, len: u64, prot: i32, flags: i32, fd: i32, offset: u64) -> Result<(), String> {
    // SAFETY: nothing that this program has is replaced.
    let got = unsafe {
        libc::mmap(addr as *mut libc::c_void, len as usize, prot, flags | libc::MAP_FIXED_NOREPLACE, fd, offset as i64)
    };
    if got as u64 == addr { Ok(()) } else { Err(host_error(&format!("cannot map memory at {addr:#x}"))) }
}

fn protect_with_key(addr: u64, len: u64, prot: i32) -> Result<(), String> {
    let args = (addr as libc::c_long, len as libc::c_long, libc::c_long::from(prot), libc::c_long::from(KEY as i32));
    // SAFETY: memory that `map` has just made.
    match unsafe { libc::syscall(libc::SYS_pkey_mprotect, args.0, args.1, args.2, args.3) } {
        0 => Ok(()),
        _ => Err(host_error("cannot put memory behind a protection key")),
    }
}

/// Scratch words, door words and signal stacks: private to each process, wiped in a forked one.
fn private_area() -> Result<(), String> {
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    map(PRIVATE_BASE, PRIVATE_SIZE, read_write, flags, -1, 0)?;
    // Before Linux 6.12, signals cannot be delivered to a stack behind a key.
    let end = if signals_reach_keyed_memory() { PRIVATE_BASE + PRIVATE_SIZE } else { SIGNAL_STACKS };
    protect_with_key(PRIVATE_BASE + DOOR_OFFSET, end - PRIVATE_BASE - DOOR_OFFSET, read_write)?;
    // SAFETY: memory of ours.
    match unsafe { libc::madvise(PRIVATE_BASE as *mut libc::c_void, PRIVATE_SIZE as usize, libc::MADV_WIPEONFORK) } {
        0 => Ok(()),
        _ => Err(host_error("cannot have memory wiped in forked processes")),
    }
}

fn signals_reach_keyed_memory() -> bool {
    let release = nix::sys::utsname::uname().ok();
    let release = release.and_then(|names| names.release().to_str().map(String::from)).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// A segment of the image, in the file and in memory.
struct Segment<'a> {
    addr: u64,
    bytes: &'a [u8],
    in_memory: u64,
    writable: bool,
}

/// The image's segments and its entry point.
fn segments(image: &[u8]) -> Option<(Vec<Segment<'_>>, u64)> {
    const PT_LOAD: u64 = 1;
    const PF_W: u64 = 2;
    let word = |at: usize| image.get(at..at + 8).map(|b| u64::from_le_bytes(core::array::from_fn(|i| b[i])));
    let half = |at: usize| image.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let (entry, headers, count) = (word(24)?, word(32)? as usize, half(56)? as usize);
    let mut segments = Vec::new();
    for header in (0..count).map(|i| headers + 56 * i) {
        let kind = word(header)?;
        let (offset, addr) = (word(header + 8)? as usize, word(header + 16)?);
        let (in_file, in_memory) = (word(header + 32)? as usize, word(header + 40)?);
        if kind & 0xffff_ffff != PT_LOAD || in_memory == 0 {
            continue;
        }
        let bytes = image.get(offset..offset.checked_add(in_file)?)?;
        let writable = (kind >> 32) & PF_W != 0;
        let room = if writable { ARENA_BASE..ROOT } else { KERNEL_BASE..PRIVATE_BASE };
        let end = addr.checked_add(in_memory)?;
        if !room.contains(&addr) || end > room.end || addr % 4096 != 0 || in_file as u64 > in_memory {
            return None;
        }
        segments.push(Segment { addr, bytes, in_memory, writable });
    }
    Some((segments, entry))
}

/// Maps the image's segments; its entry point.
///
/// All that is not written to is one mapping of huge pages, where the host has them: a fork copies one entry for each instead
/// of five hundred, which was a quarter of its time. What little lies beyond a whole one does not ask for another: the host may have to
/// make room for it first, which takes it milliseconds.
fn load_image(image: &[u8]) -> Result<u64, String> {
    const HUGE_PAGE: u64 = 2 << 20;
    let (segments, entry) = segments(image).ok_or("the kernel image in this program is damaged")?;
    let (data, code): (Vec<_>, Vec<_>) = segments.into_iter().partition(|segment| segment.writable);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let end = code.iter().map(|segment| segment.addr + segment.in_memory).max().unwrap_or(KERNEL_BASE);
    let len = (end - KERNEL_BASE).next_multiple_of(HUGE_PAGE);
    map(KERNEL_BASE, len, read_write, flags, -1, 0)?;
    let huge = (end - KERNEL_BASE + HUGE_PAGE / 2) / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: the memory was just mapped. A host without huge pages has small ones.
    unsafe { libc::madvise(KERNEL_BASE as *mut libc::c_void, huge as usize, libc::MADV_HUGEPAGE) };
    code.iter().for_each(put);
    // SAFETY: as above.
    if unsafe { libc::mprotect(KERNEL_BASE as *mut libc::c_void, len as usize, libc::PROT_READ | libc::PROT_EXEC) } != 0
    {
        return Err(host_error("cannot protect the kernel image"));
    }
    // In the arena, so that all processes have the same.
    data.iter().for_each(put);
    Ok(entry)
}

/// Copies a segment to its memory, which is mapped.
fn put(segment: &Segment<'_>) {
    // SAFETY: the caller has mapped the segment's memory, which is at least as long.
    unsafe { core::ptr::copy_nonoverlapping(segment.bytes.as_ptr(), segment.addr as *mut u8, segment.bytes.len()) };
}

/// vdso, vvar and what goes with them: they stay in every guest process.
fn host_ranges() -> Result<[HostRange; MAX_RESERVED], String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("cannot read /proc/self/maps: {e}"))?;
    let mut ranges = [HostRange::default(); MAX_RESERVED];
    let mut free = ranges.iter_mut();
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        let Some(name) = RANGE_NAMES.iter().position(|name| rest.ends_with(name)) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else { continue };
        let Some(place) = free.next() else { return Err("the host has too many mappings of its own".into()) };
        *place = HostRange { start, end, name: name as u64 };
    }
    Ok(ranges)
}

/// # Safety
/// The image is loaded, and nothing else runs in this process.
unsafe fn jump(entry: u64, handover: &Handover) -> ! {
    // SAFETY: the caller's promise; the key is opened first, the image expects an aligned stack below a return address.
    unsafe {
        asm!(
            "wrpkru",
            "mov rdi, r8",
            "and rsp, -16",
            "call r9",
            "ud2",
            in("eax") KEYS_OPEN,
            in("ecx") 0,
            in("edx") 0,
            in("r8") handover,
            in("r9") entry,
            options(noreturn),
        )
    }
}
