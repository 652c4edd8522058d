//! Random system calls made twice: natively on a host directory, and in a kernel on tmpfs or on a directory that the host shares.
//! Both must give the same numbers and leave the same files.

use crate::Ctx;
use crate::fs::hostfs::HostFs;
use crate::testing::{Machine, Random, machine_on, tmpfs_machine};
use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use linux_raw_sys::general as sys;
use std::path::Path;
use std::string::ToString;

impl Random {
    fn path(&mut self) -> String {
        let mut path = String::from(self.pick(&["", "", "", "", "", "/", "/top/"]));
        for depth in 0..1 + self.below(3) {
            if depth > 0 {
                path.push_str(self.pick(&["/", "/", "/", "//", "/./"]));
            }
            path.push_str(self.pick(&["a", "b", "c", "d", "a", "b", ".", ".."]));
        }
        path.push_str(self.pick(&["", "", "", "", "", "/", "/."]));
        path
    }
}

/// Who makes the calls.
enum Side<'a> {
    Native,
    Guest(&'a Ctx<'a>),
}

impl Side<'_> {
    /// The result as a guest sees it: a value, or a negative error number.
    fn call(&self, nr: u32, args: &[u64]) -> i64 {
        match self {
            Side::Native => {
                let mut all = [0; 6];
                all[..args.len()].copy_from_slice(args);
                let [a, b, c, d, e, f] = all;
                // SAFETY: the arguments are those that the test made for this call; buffers outlive it.
                let result = unsafe { nix::libc::syscall(i64::from(nr), a, b, c, d, e, f) };
                if result < 0 { -i64::from(nix::errno::Errno::last_raw()) } else { result }
            }
            Side::Guest(ctx) => match ctx.call(nr, args) {
                Ok(value) => value as i64,
                Err(e) => -i64::from(e.errno.0),
            },
        }
    }
}

const O_CREAT: u64 = 0o100;
const O_EXCL: u64 = 0o200;
const O_TRUNC: u64 = 0o1000;
const O_APPEND: u64 = 0o2000;
const O_NONBLOCK: u64 = 0o4000;
const O_DIRECTORY: u64 = 0o200_000;
const O_NOFOLLOW: u64 = 0o400_000;
const O_PATH: u64 = 0o10_000_000;

/// One call on names, and what it may be judged by besides its result.
#[derive(Debug, Clone)]
enum Op {
    Open(String, u64),
    Call(u32, Vec<Arg>),
    Stat(String, u64),
    ReadLink(String),
    List(String),
}

#[derive(Debug, Clone)]
enum Arg {
    Dir,
    Path(String),
    Value(u64),
}

fn random_op(r: &mut Random) -> Op {
    let value = Arg::Value;
    let path = |r: &mut Random| Arg::Path(r.path());
    match r.below(16) {
        0..=2 => {
            let mut flags = O_NONBLOCK | r.pick(&[0, 1, 2]);
            for flag in [O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW, O_PATH] {
                if r.below(4) == 0 {
                    flags |= flag;
                }
            }
            // These two together, and O_EXCL alone, mean different things on different Linux versions.
            if flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
                flags &= !O_DIRECTORY;
            }
            if flags & O_CREAT == 0 {
                flags &= !O_EXCL;
            }
            Op::Open(r.path(), flags)
        }
        3 | 4 => Op::Call(sys::__NR_mkdirat, alloc::vec![Arg::Dir, path(r), value(r.pick(&[0o755, 0o700, 0o2775]))]),
        5 => Op::Call(sys::__NR_unlinkat, alloc::vec![Arg::Dir, path(r), value(0)]),
        6 => Op::Call(sys::__NR_unlinkat, alloc::vec![Arg::Dir, path(r), value(0x200)]),
        7 | 8 => {
            let flags = r.pick(&[0, 0, 0, 1, 2, 3]);
            Op::Call(sys::__NR_renameat2, alloc::vec![Arg::Dir, path(r), Arg::Dir, path(r), value(flags)])
        }
        9 => {
            let flags = r.pick(&[0, 0x400, 0x100]);
            Op::Call(sys::__NR_linkat, alloc::vec![Arg::Dir, path(r), Arg::Dir, path(r), value(flags)])
        }
        10 => Op::Call(sys::__NR_symlinkat, alloc::vec![path(r), Arg::Dir, path(r)]),
        11 => {
            let mode = r.pick(&[0o010_644, 0o100_600, 0o644, 0o040_755, 0o120_777, 0o140_600]);
            Op::Call(sys::__NR_mknodat, alloc::vec![Arg::Dir, path(r), value(mode), value(0)])
        }
        12 => match r.below(3) {
            0 => Op::Call(sys::__NR_fchmodat, alloc::vec![Arg::Dir, path(r), value(r.pick(&[0o600, 0o4755, 0o1755]))]),
            1 => {
                let args = alloc::vec![Arg::Dir, path(r), value(r.pick(&[0, 7])), value(5), value(r.pick(&[0, 0x100]))];
                Op::Call(sys::__NR_fchownat, args)
            }
            _ => Op::Call(sys::__NR_faccessat, alloc::vec![Arg::Dir, path(r), value(r.pick(&[0, 1, 2, 4, 8]))]),
        },
        13 => Op::ReadLink(r.path()),
        14 => Op::List(r.path()),
        _ => Op::Stat(r.path(), r.pick(&[0, 0x100, 0x800, 0x200])),
    }
}

/// Makes a call and gives everything that both sides must agree about.
fn perform(side: &Side<'_>, dir: u64, op: &Op) -> String {
    let c = |s: &String| CString::new(s.as_str()).unwrap();
    match op {
        Op::Open(path, flags) => {
            let path = c(path);
            let fd = side.call(sys::__NR_openat, &[dir, path.as_ptr() as u64, *flags, 0o664]);
            if fd < 0 {
                return fd.to_string();
            }
            let data = b"some data";
            let written = side.call(sys::__NR_write, &[fd as u64, data.as_ptr() as u64, data.len() as u64]);
            let mut buf = [0u8; 32];
            let read = side.call(sys::__NR_read, &[fd as u64, buf.as_mut_ptr() as u64, 4]);
            let at = side.call(sys::__NR_lseek, &[fd as u64, 0, 1]);
            let status = side.call(sys::__NR_fcntl, &[fd as u64, 3, 0]);
            let closed = side.call(sys::__NR_close, &[fd as u64]);
            std::format!("open {written} {read} {at} {status:o} {closed}")
        }
        Op::Call(nr, args) => {
            let paths: Vec<CString> =
                args.iter().filter_map(|a| if let Arg::Path(p) = a { Some(c(p)) } else { None }).collect();
            let mut next = paths.iter();
            let args: Vec<u64> = args
                .iter()
                .map(|a| match a {
                    Arg::Dir => dir,
                    Arg::Value(v) => *v,
                    Arg::Path(_) => next.next().unwrap().as_ptr() as u64,
                })
                .collect();
            side.call(*nr, &args).to_string()
        }
        Op::Stat(path, flags) => {
            let path = c(path);
            let mut raw = [0u64; 18];
            let result = side.call(sys::__NR_newfstatat, &[dir, path.as_ptr() as u64, raw.as_mut_ptr() as u64, *flags]);
            let mode = raw[3] & 0xffff_ffff;
            let directory = mode >> 12 == 4;
            // How large a directory is, is its file system's own affair.
            let size = if directory { 0 } else { raw[6] };
            std::format!("{result} {mode:o} {} {size} {} {}", raw[2], raw[3] >> 32, raw[4] & 0xffff_ffff)
        }
        Op::ReadLink(path) => {
            let path = c(path);
            let mut buf = [0u8; 64];
            let n = side.call(sys::__NR_readlinkat, &[dir, path.as_ptr() as u64, buf.as_mut_ptr() as u64, 64]);
            std::format!("{n} {}", String::from_utf8_lossy(&buf[..n.max(0) as usize]))
        }
        Op::List(path) => {
            let path = c(path);
            let fd = side.call(sys::__NR_openat, &[dir, path.as_ptr() as u64, O_NONBLOCK, 0]);
            if fd < 0 {
                return fd.to_string();
            }
            let mut buf = [0u8; 4096];
            let n = side.call(sys::__NR_getdents64, &[fd as u64, buf.as_mut_ptr() as u64, 4096]);
            side.call(sys::__NR_close, &[fd as u64]);
            let mut names = Vec::new();
            let mut at = 0;
            while (at as i64) < n {
                let len = usize::from(u16::from_ne_bytes([buf[at + 16], buf[at + 17]]));
                let name: Vec<u8> = buf[at + 19..at + len].iter().copied().take_while(|&b| b != 0).collect();
                names.push(std::format!("{}:{}", String::from_utf8_lossy(&name), buf[at + 18]));
                at += len;
            }
            names.sort();
            std::format!("{} {names:?}", n.signum())
        }
    }
}

/// Everything below `path`: names, attributes, targets.
fn tree(side: &Side<'_>, dir: u64, path: &str, text: &mut String) {
    let listing = perform(side, dir, &Op::List(path.to_string()));
    let names = listing.split('"').skip(1).step_by(2).filter_map(|n| n.rsplit_once(':'));
    for (name, kind) in names.filter(|(name, _)| *name != "." && *name != "..") {
        let below = std::format!("{path}/{name}");
        let stat = perform(side, dir, &Op::Stat(below.clone(), 0x100));
        let target = perform(side, dir, &Op::ReadLink(below.clone()));
        text.push_str(&std::format!("{below} {stat} {target}\n"));
        if kind == "4" {
            tree(side, dir, &below, text);
        }
    }
}

/// Calls between looks at the whole tree.
const CHECK_TREE: usize = 20;

/// An operation that is nobody's on a share where the user is root: no guest makes set-id programs of the host's.
fn without_set_id(op: Op) -> Op {
    match op {
        Op::Call(nr, args) => Op::Call(
            nr,
            args.into_iter().map(|a| if matches!(a, Arg::Value(0o4755)) { Arg::Value(0o711) } else { a }).collect(),
        ),
        op => op,
    }
}

/// One sequence of calls. The thread's root directory is an empty one of its own, so that no walk leaves it.
fn names_behave_alike(seed: u64, machine: &Machine, set_id: bool) {
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let (native, guest) = (Side::Native, Side::Guest(&ctx));
    let at_cwd = crate::vfs::AT_FDCWD as i64 as u64;
    let [native_dir, guest_dir] = [&native, &guest].map(|side| {
        for made in [c"/top", c"/top/w"] {
            assert_eq!(side.call(sys::__NR_mkdirat, &[at_cwd, made.as_ptr() as u64, 0o755]), 0);
        }
        side.call(sys::__NR_openat, &[at_cwd, c"/top/w".as_ptr() as u64, O_DIRECTORY, 0]) as u64
    });
    let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut history = Vec::new();
    for step in 0..400 {
        let op = random_op(&mut r);
        let op = if set_id { op } else { without_set_id(op) };
        let expected = perform(&native, native_dir, &op);
        let got = perform(&guest, guest_dir, &op);
        history.push(std::format!("{op:?} -> {expected}"));
        let tail = &history[history.len().saturating_sub(40)..];
        assert_eq!(got, expected, "seed {seed}, after\n{}", tail.join("\n"));
        if step % CHECK_TREE == 0 {
            let (mut left, mut right) = (String::new(), String::new());
            tree(&guest, guest_dir, "/", &mut left);
            tree(&native, native_dir, "/", &mut right);
            assert!(left == right, "seed {seed}: {left}\nnot\n{right}\nafter\n{}", tail.join("\n"));
        }
    }
    native.call(sys::__NR_close, &[native_dir]);
}

/// Runs sequences of calls on names, each in a directory of its own and in a new machine.
fn compare_names(name: &str, seeds: u64, set_id: bool, machine: fn(&Path) -> Machine) {
    if !nix::unistd::geteuid().is_root() {
        // The guest's task is root, and another root directory takes root: there is nothing to compare with.
        return;
    }
    for seed in 1..=seeds {
        let root = std::env::temp_dir().join(std::format!("umkernel-{name}-{}-{seed}", std::process::id()));
        let (inside, guests) = (root.join("native"), root.join("guest"));
        for directory in [&inside, &guests] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let machine = machine(&guests);
        let thread = std::thread::spawn(move || {
            // Root and working directory of this thread alone change.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            nix::unistd::chroot(&inside).unwrap();
            nix::unistd::chdir("/").unwrap();
            names_behave_alike(seed, &machine, set_id);
        });
        let result = thread.join();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// A machine whose root directory is one of the host's.
fn shared_machine(directory: &Path) -> Machine {
    let channel = crate::machine::shares::in_threads(directory, false);
    machine_on(HostFs::new(&channel, 0, 0x100).unwrap())
}

#[test]
fn names_behave_as_on_the_host() {
    compare_names("vfs", 40, true, |_| tmpfs_machine());
}

#[test]
fn names_on_a_share_behave_as_on_the_host() {
    compare_names("shared", 20, false, shared_machine);
}

#[test]
fn file_data_behaves_as_on_the_host() {
    let memory_file = |side: &Side<'_>| side.call(sys::__NR_memfd_create, &[c"f".as_ptr() as u64, 2]) as u64;
    compare_data(20, |_| tmpfs_machine(), &memory_file);
}

#[test]
fn file_data_on_a_share_behaves_as_on_the_host() {
    let directory = std::env::temp_dir().join(std::format!("umkernel-data-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let at_cwd = crate::vfs::AT_FDCWD as i64 as u64;
    let native = CString::new(directory.join("native").to_str().unwrap()).unwrap();
    let file = |side: &Side<'_>| {
        let path = if matches!(side, Side::Native) { &*native } else { c"/guest" };
        side.call(sys::__NR_openat, &[at_cwd, path.as_ptr() as u64, O_CREAT | O_TRUNC | 2, 0o600]) as u64
    };
    compare_data(10, |_| shared_machine(&directory), &file);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Runs sequences of calls on an open file's data, each in a new machine.
fn compare_data(seeds: u64, machine: impl Fn(u64) -> Machine, open: &dyn Fn(&Side<'_>) -> u64) {
    for seed in 1..=seeds {
        let machine = machine(seed);
        let task = machine.task();
        let ctx = machine.ctx(&task);
        let (native, guest) = (Side::Native, Side::Guest(&ctx));
        let fds = [&native, &guest].map(open);
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut data = alloc::vec![0u8; 200_000];
        data.iter_mut().for_each(|b| *b = r.next() as u8);
        for step in 0..200 {
            let (offset, len) = (r.below(300_000), r.below(20_000));
            // Pages that fallocate(2) reserved are data or hole as a file system likes: seeds try one or the other.
            let reserves = seed % 2 == 0;
            let whence = r.below(if reserves { 3 } else { 6 });
            let mode = if reserves { r.pick(&[0, 1, 3, 2]) } else { r.pick(&[3, 2]) };
            let from = r.below(data.len() as u64 - len);
            let buf = data[from as usize..].as_ptr() as u64;
            let (nr, args): (u32, Vec<u64>) = match r.below(9) {
                0 | 1 => (sys::__NR_write, alloc::vec![buf, len]),
                2 | 3 => (sys::__NR_pwrite64, alloc::vec![buf, len, offset]),
                4 => (sys::__NR_ftruncate, alloc::vec![offset]),
                5 | 6 => (sys::__NR_lseek, alloc::vec![offset.wrapping_sub(r.pick(&[0, 150_000])), whence]),
                7 => (sys::__NR_fallocate, alloc::vec![mode, offset, len]),
                _ => (sys::__NR_fcntl, alloc::vec![4, r.pick(&[0, O_APPEND])]),
            };
            let [a, b] = [(&native, fds[0]), (&guest, fds[1])].map(|(side, fd)| {
                let mut all = alloc::vec![fd];
                all.extend_from_slice(&args);
                let result = side.call(nr, &all);
                let mut raw = [0u64; 18];
                side.call(sys::__NR_fstat, &[fd, raw.as_mut_ptr() as u64]);
                let mut content = alloc::vec![0u8; 400_000];
                let n = side.call(sys::__NR_pread64, &[fd, content.as_mut_ptr() as u64, 400_000, 0]);
                content.truncate(n as usize);
                let at = side.call(sys::__NR_lseek, &[fd, 0, 1]);
                (result, raw[6], at, content)
            });
            assert_eq!((a.0, a.1, a.2), (b.0, b.1, b.2), "seed {seed} step {step}: call {nr} {args:?}");
            assert!(a.3 == b.3, "seed {seed} step {step}: contents differ after call {nr} {args:?}");
        }
        native.call(sys::__NR_close, &[fds[0]]);
    }
}
