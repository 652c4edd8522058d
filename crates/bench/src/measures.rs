//! What is measured. Every figure is a time, so less is better and ratios compare.

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The guest program's operation of that name.
    Operation,
    /// A shell script, run by the image's busybox.
    Script(&'static str),
    /// A shell script in the system of `--root`, run in a directory with the unpacked source package.
    Package(&'static str),
    /// From the start of the host's process to a machine's first sign of life.
    Boot(BootTo),
}

/// How far a machine is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootTo {
    /// The first instruction of its first program.
    Init,
    /// The prompt of a shell.
    Prompt,
    /// The end of the host's process.
    PowerOff,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// What it is called.
    pub name: &'static str,
    /// Where the figure comes from.
    pub kind: Kind,
    /// What the `direct` platform is to take at most, in times of the native figure; for a boot, in milliseconds.
    pub goal: Option<f64>,
    /// What it is, in words.
    pub about: &'static str,
}

const fn operation(name: &'static str, goal: f64, about: &'static str) -> Measure {
    Measure { name, kind: Kind::Operation, goal: Some(goal), about }
}

const fn extra(name: &'static str, about: &'static str) -> Measure {
    Measure { name, kind: Kind::Operation, goal: None, about }
}

const fn script(name: &'static str, script: &'static str, about: &'static str) -> Measure {
    Measure { name, kind: Kind::Script(script), goal: None, about }
}

const fn package(name: &'static str, script: &'static str, goal: f64, about: &'static str) -> Measure {
    Measure { name, kind: Kind::Package(script), goal: Some(goal), about }
}

const fn boot(name: &'static str, to: BootTo, goal: f64, about: &'static str) -> Measure {
    Measure { name, kind: Kind::Boot(to), goal: Some(goal), about }
}

/// All of them, in the order of the table. Scripts find busybox in `$B` and a tree of 5,000 files in `tree`.
pub const MEASURES: &[Measure] = &[
    operation("getppid", 0.45, "the least system call"),
    operation("read-zero", 0.7, "read 1 byte of /dev/zero"),
    operation("write-null", 0.7, "write 1 byte to /dev/null"),
    operation("pread-4k", 0.9, "read 4 KiB that are cached"),
    operation("open-close", 0.8, "open a file and close it"),
    operation("stat", 0.8, "stat a file"),
    operation("clock-libc", 1.05, "clock_gettime by the C library"),
    extra("clock-call", "clock_gettime as a system call"),
    extra("sched-yield", "sched_yield"),
    operation("signal-self", 1.3, "a signal to oneself, with a handler"),
    operation("eventfd-epoll", 1.0, "write an eventfd, wait by epoll, read it"),
    operation("pipe-pingpong", 1.3, "a byte through a pipe to another process, and one back"),
    operation("futex-pingpong", 1.2, "two threads that wake each other"),
    operation("unix-pingpong", 1.2, "a byte through a Unix socket to another process, and one back"),
    operation("tcp-pingpong", 1.2, "the same by TCP over the loopback interface"),
    extra("pipe-64k", "64 KiB through a pipe to another process"),
    extra("tcp-64k", "the same by TCP"),
    operation("thread-create-join", 1.2, "a thread that ends at once"),
    operation("fork-wait", 1.5, "a process that ends at once"),
    operation("fork-exec-wait", 1.25, "fork, exec of a static program, wait"),
    operation("vfork-exec-wait", 1.25, "vfork, exec of a static program, wait"),
    extra("mmap-munmap-4k", "map a page and unmap it"),
    operation("mmap-touch-1m", 1.1, "map 1 MiB, touch its pages, unmap it"),
    operation("page-fault", 1.1, "the first touch of a page"),
    extra("mprotect", "make a page read-only, then writable, and touch it"),
    operation("create-unlink", 1.0, "create a file of 100 bytes and remove it"),
    operation("readdir", 1.0, "an entry of a directory of 1,000"),
    operation("find-walk", 1.0, "lstat an entry of a tree of 1,220"),
    operation("write-1m", 1.25, "write 1 MiB of a new file of 32 MiB, without waiting for the disk"),
    operation("append-4k", 1.25, "write 4 KiB of a new file of 16 MiB, likewise"),
    extra("append-100", "write 100 bytes of a new file of 400 KiB, likewise"),
    operation("read-1m", 1.25, "read 1 MiB of a file of 32 MiB, cached"),
    operation("pread-random-4k", 1.0, "read 4 KiB of it somewhere, likewise"),
    boot("boot-init", BootTo::Init, 10.0, "to the first instruction of init"),
    boot("boot-prompt", BootTo::Prompt, 30.0, "to a shell prompt"),
    boot("boot-poweroff", BootTo::PowerOff, 60.0, "to the end of the host's process after power-off"),
    script(
        "shell-loop",
        "i=0; while [ $i -lt 300 ]; do (true); $B true; i=$((i+1)); done",
        "300 times a subshell and a program",
    ),
    script(
        "find",
        "i=0; while [ $i -lt 5 ]; do $B find tree || exit; i=$((i+1)); done",
        "find in 5,000 files, five times",
    ),
    script("tar", "$B tar cf - tree | $B wc -c", "tar of 5,000 files"),
    package("configure", "./configure --disable-nls", 1.08, "a configure script (with --root)"),
    package("compile", "make -j2", 1.03, "compiling what was configured (with --root)"),
    package(
        "git-status",
        "export HOME=$PWD; test -d .git || { git init -q . && git add -A; }; git status -s",
        1.1,
        "git status of the source tree (with --root)",
    ),
];

/// The measure of that name.
pub fn find(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}
