//! What each system call is for, in a sentence, with the names of its parameters: what the explaining trace tells.
//! From the manual pages' synopses and descriptions.

/// What a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// 0 for success.
    Success,
    /// A descriptor.
    Descriptor,
    /// A number of bytes.
    Bytes,
    /// A count of things.
    Count,
    /// A process or thread id; 0 in a new child.
    Id,
    /// An address.
    Address,
    /// A number whose meaning the summary tells.
    Value,
    /// The call does not come back.
    Nothing,
}

/// One call.
pub(super) struct Prototype {
    pub(super) name: &'static str,
    /// Names of the parameters, separated by spaces.
    pub(super) parameters: &'static str,
    pub(super) gives: Gives,
    /// A sentence without its subject: "reads bytes from ...".
    pub(super) summary: &'static str,
}

/// The prototype of a call.
pub(super) fn prototype(name: &str) -> Option<&'static Prototype> {
    PROTOTYPES.iter().find(|p| p.name == name)
}

const fn p(name: &'static str, parameters: &'static str, gives: Gives, summary: &'static str) -> Prototype {
    Prototype { name, parameters, gives, summary }
}

use Gives::{Address, Bytes, Count, Descriptor, Id, Nothing, Success, Value};

#[rustfmt::skip]
static PROTOTYPES: &[Prototype] = &[
    // Files and descriptors.
    p("read", "fd buf count", Bytes, "reads up to count bytes from an open file into buf"),
    p("write", "fd buf count", Bytes, "writes count bytes from buf to an open file"),
    p("pread64", "fd buf count offset", Bytes, "reads bytes at an offset, without moving the file position"),
    p("pwrite64", "fd buf count offset", Bytes, "writes bytes at an offset, without moving the file position"),
    p("readv", "fd iov iovcnt", Bytes, "reads into several buffers, one after the other"),
    p("writev", "fd iov iovcnt", Bytes, "writes from several buffers, one after the other"),
    p("preadv", "fd iov iovcnt offset", Bytes, "reads into several buffers at an offset"),
    p("pwritev", "fd iov iovcnt offset", Bytes, "writes from several buffers at an offset"),
    p("preadv2", "fd iov iovcnt offset offset_high flags", Bytes, "reads into several buffers at an offset, with flags"),
    p("pwritev2", "fd iov iovcnt offset offset_high flags", Bytes, "writes from several buffers at an offset, with flags"),
    p("open", "pathname flags mode", Descriptor, "opens a file and gives a new descriptor for it"),
    p("openat", "dirfd pathname flags mode", Descriptor, "opens a file, its path taken from a directory, and gives a new descriptor for it"),
    p("openat2", "dirfd pathname how size", Descriptor, "opens a file, with rules for how its path may be walked"),
    p("creat", "pathname mode", Descriptor, "creates or empties a file and opens it for writing"),
    p("close", "fd", Success, "gives up a descriptor"),
    p("close_range", "first last flags", Success, "gives up all descriptors of a range"),
    p("stat", "pathname statbuf", Success, "tells a file's type, permissions, owner, size and times"),
    p("fstat", "fd statbuf", Success, "tells an open file's type, permissions, owner, size and times"),
    p("lstat", "pathname statbuf", Success, "tells about a file, about a symbolic link itself if the path ends in one"),
    p("newfstatat", "dirfd pathname statbuf flags", Success, "tells a file's type, permissions, owner, size and times"),
    p("statx", "dirfd pathname flags mask statxbuf", Success, "tells the chosen properties of a file"),
    p("statfs", "path buf", Success, "tells the size and free space of the file system that a path is in"),
    p("fstatfs", "fd buf", Success, "tells the size and free space of the file system that an open file is in"),
    p("lseek", "fd offset whence", Value, "moves the file position and gives the new one"),
    p("access", "pathname mode", Success, "asks whether the process may read, write or execute a file"),
    p("faccessat", "dirfd pathname mode", Success, "asks whether the process may read, write or execute a file"),
    p("faccessat2", "dirfd pathname mode flags", Success, "asks whether the process may read, write or execute a file"),
    p("dup", "oldfd", Descriptor, "gives another descriptor for the same open file"),
    p("dup2", "oldfd newfd", Descriptor, "makes newfd another descriptor for the same open file"),
    p("dup3", "oldfd newfd flags", Descriptor, "makes newfd another descriptor for the same open file, with flags"),
    p("pipe", "pipefd", Success, "makes a pipe: what is written to the second descriptor can be read from the first"),
    p("pipe2", "pipefd flags", Success, "makes a pipe: what is written to the second descriptor can be read from the first"),
    p("fcntl", "fd cmd arg", Value, "asks or changes what belongs to a descriptor: flags, duplicates, locks"),
    p("flock", "fd operation", Success, "locks or unlocks a whole file against others who ask"),
    p("ioctl", "fd request argp", Value, "gives a device an order of its own kind, such as a terminal's settings or window size"),
    p("fsync", "fd", Success, "waits until a file's data and attributes are on the disk"),
    p("fdatasync", "fd", Success, "waits until a file's data is on the disk"),
    p("sync", "", Success, "writes all that is cached to the disks"),
    p("syncfs", "fd", Success, "writes all that is cached of one file system to its disk"),
    p("sync_file_range", "fd offset nbytes flags", Success, "writes a part of a file to the disk"),
    p("truncate", "path length", Success, "sets a file's size"),
    p("ftruncate", "fd length", Success, "sets an open file's size"),
    p("fallocate", "fd mode offset len", Success, "reserves disk space for a part of a file, or gives it back"),
    p("fadvise64", "fd offset len advice", Success, "tells the kernel how a file is going to be read"),
    p("readahead", "fd offset count", Success, "brings a part of a file into memory"),
    p("getdents64", "fd dirp count", Bytes, "reads the next entries of a directory"),
    p("getdents", "fd dirp count", Bytes, "reads the next entries of a directory"),
    p("getcwd", "buf size", Bytes, "tells the working directory's path"),
    p("chdir", "path", Success, "changes the working directory"),
    p("fchdir", "fd", Success, "makes an open directory the working directory"),
    p("chroot", "path", Success, "makes a directory the root of all paths of this process"),
    p("pivot_root", "new_root put_old", Success, "makes another mount the root, and puts the old root somewhere below"),
    p("mkdir", "pathname mode", Success, "makes a directory"),
    p("mkdirat", "dirfd pathname mode", Success, "makes a directory"),
    p("rmdir", "pathname", Success, "removes an empty directory"),
    p("rename", "oldpath newpath", Success, "gives a file another name or place"),
    p("renameat", "olddirfd oldpath newdirfd newpath", Success, "gives a file another name or place"),
    p("renameat2", "olddirfd oldpath newdirfd newpath flags", Success, "gives a file another name or place, or exchanges two"),
    p("link", "oldpath newpath", Success, "gives a file one more name"),
    p("linkat", "olddirfd oldpath newdirfd newpath flags", Success, "gives a file one more name"),
    p("unlink", "pathname", Success, "removes a name; the file goes with its last name and descriptor"),
    p("unlinkat", "dirfd pathname flags", Success, "removes a name; the file goes with its last name and descriptor"),
    p("symlink", "target linkpath", Success, "makes a symbolic link: a name that leads to another path"),
    p("symlinkat", "target newdirfd linkpath", Success, "makes a symbolic link: a name that leads to another path"),
    p("readlink", "pathname buf bufsiz", Bytes, "tells where a symbolic link leads"),
    p("readlinkat", "dirfd pathname buf bufsiz", Bytes, "tells where a symbolic link leads"),
    p("chmod", "pathname mode", Success, "changes a file's permission bits"),
    p("fchmod", "fd mode", Success, "changes an open file's permission bits"),
    p("fchmodat", "dirfd pathname mode", Success, "changes a file's permission bits"),
    p("fchmodat2", "dirfd pathname mode flags", Success, "changes a file's permission bits"),
    p("chown", "pathname owner group", Success, "changes a file's owner and group"),
    p("fchown", "fd owner group", Success, "changes an open file's owner and group"),
    p("lchown", "pathname owner group", Success, "changes the owner and group of a file or of a symbolic link itself"),
    p("fchownat", "dirfd pathname owner group flags", Success, "changes a file's owner and group"),
    p("umask", "mask", Value, "sets which permission bits new files do not get, and gives the old mask"),
    p("mknod", "pathname mode dev", Success, "makes a device node, a named pipe or a file"),
    p("mknodat", "dirfd pathname mode dev", Success, "makes a device node, a named pipe or a file"),
    p("utime", "filename times", Success, "sets a file's access and modification times"),
    p("utimes", "filename times", Success, "sets a file's access and modification times"),
    p("futimesat", "dirfd pathname times", Success, "sets a file's access and modification times"),
    p("utimensat", "dirfd pathname times flags", Success, "sets a file's access and modification times"),
    p("getxattr", "path name value size", Bytes, "reads an extended attribute of a file"),
    p("lgetxattr", "path name value size", Bytes, "reads an extended attribute of a file or of a link itself"),
    p("fgetxattr", "fd name value size", Bytes, "reads an extended attribute of an open file"),
    p("setxattr", "path name value size flags", Success, "sets an extended attribute of a file"),
    p("lsetxattr", "path name value size flags", Success, "sets an extended attribute of a file or of a link itself"),
    p("fsetxattr", "fd name value size flags", Success, "sets an extended attribute of an open file"),
    p("listxattr", "path list size", Bytes, "names the extended attributes of a file"),
    p("llistxattr", "path list size", Bytes, "names the extended attributes of a file or of a link itself"),
    p("flistxattr", "fd list size", Bytes, "names the extended attributes of an open file"),
    p("removexattr", "path name", Success, "removes an extended attribute of a file"),
    p("lremovexattr", "path name", Success, "removes an extended attribute of a file or of a link itself"),
    p("fremovexattr", "fd name", Success, "removes an extended attribute of an open file"),
    p("mount", "source target filesystemtype mountflags data", Success, "attaches a file system to the tree"),
    p("umount2", "target flags", Success, "detaches a file system from the tree"),
    p("sendfile", "out_fd in_fd offset count", Bytes, "copies bytes from one open file to another within the kernel"),
    p("copy_file_range", "fd_in off_in fd_out off_out len flags", Bytes, "copies a part of one file to another within the kernel"),
    p("splice", "fd_in off_in fd_out off_out len flags", Bytes, "moves bytes between a pipe and a file within the kernel"),
    p("tee", "fd_in fd_out len flags", Bytes, "copies bytes from one pipe to another without taking them"),
    p("vmsplice", "fd iov nr_segs flags", Bytes, "puts memory into a pipe"),
    p("memfd_create", "name flags", Descriptor, "makes a file that lives in memory and has no path"),
    // Waiting for descriptors.
    p("poll", "fds nfds timeout", Count, "waits until one of the descriptors is ready for what is asked of it"),
    p("ppoll", "fds nfds tmo_p sigmask sigsetsize", Count, "waits until a descriptor is ready, with other signals let through meanwhile"),
    p("select", "nfds readfds writefds exceptfds timeout", Count, "waits until a descriptor of the sets is ready"),
    p("pselect6", "nfds readfds writefds exceptfds timeout sigmask", Count, "waits until a descriptor of the sets is ready, with other signals let through meanwhile"),
    p("epoll_create", "size", Descriptor, "makes an epoll instance, which watches many descriptors"),
    p("epoll_create1", "flags", Descriptor, "makes an epoll instance, which watches many descriptors"),
    p("epoll_ctl", "epfd op fd event", Success, "adds, changes or removes a descriptor that an epoll instance watches"),
    p("epoll_wait", "epfd events maxevents timeout", Count, "waits until something happens to a watched descriptor"),
    p("epoll_pwait", "epfd events maxevents timeout sigmask sigsetsize", Count, "waits until something happens to a watched descriptor, with other signals let through meanwhile"),
    p("epoll_pwait2", "epfd events maxevents timeout sigmask sigsetsize", Count, "waits until something happens to a watched descriptor"),
    p("eventfd", "initval", Descriptor, "makes a counter that can be waited for like a file"),
    p("eventfd2", "initval flags", Descriptor, "makes a counter that can be waited for like a file"),
    p("signalfd", "fd mask sizemask", Descriptor, "makes a descriptor that signals are read from"),
    p("signalfd4", "fd mask sizemask flags", Descriptor, "makes a descriptor that signals are read from"),
    p("timerfd_create", "clockid flags", Descriptor, "makes a timer that can be waited for like a file"),
    p("timerfd_settime", "fd flags new_value old_value", Success, "starts or stops a timer descriptor"),
    p("timerfd_gettime", "fd curr_value", Success, "tells how long a timer descriptor has still to run"),
    p("inotify_init", "", Descriptor, "makes a descriptor that tells of changes to files"),
    p("inotify_init1", "flags", Descriptor, "makes a descriptor that tells of changes to files"),
    p("inotify_add_watch", "fd pathname mask", Value, "watches a file or directory for changes and gives the watch's number"),
    p("inotify_rm_watch", "fd wd", Success, "stops watching a file or directory"),
    // Memory.
    p("mmap", "addr length prot flags fd offset", Address, "maps a file or fresh memory into the address space and gives its address"),
    p("munmap", "addr length", Success, "removes a mapping from the address space"),
    p("mprotect", "addr len prot", Success, "changes whether memory may be read, written and executed"),
    p("mremap", "old_address old_size new_size flags new_address", Address, "grows, shrinks or moves a mapping"),
    p("brk", "addr", Address, "moves the end of the heap and gives where it is now"),
    p("madvise", "addr length advice", Success, "tells the kernel what memory is going to be used for"),
    p("msync", "addr length flags", Success, "writes changes of a mapped file to the file"),
    p("mincore", "addr length vec", Success, "tells which pages of a mapping are in memory"),
    p("mlock", "addr len", Success, "keeps memory from being paged out"),
    p("mlock2", "addr len flags", Success, "keeps memory from being paged out"),
    p("munlock", "addr len", Success, "lets memory be paged out again"),
    p("mlockall", "flags", Success, "keeps all of the process's memory from being paged out"),
    p("munlockall", "", Success, "lets all of the process's memory be paged out again"),
    p("membarrier", "cmd flags cpu_id", Value, "orders memory accesses of all threads"),
    // Processes.
    p("clone", "flags stack parent_tid child_tid tls", Id, "makes a new process or thread, which goes on from here as well"),
    p("clone3", "cl_args size", Id, "makes a new process or thread, which goes on from here as well"),
    p("fork", "", Id, "makes a new process, a copy of this one, which goes on from here as well"),
    p("vfork", "", Id, "makes a new process in the same memory; this one waits until it executes a program or ends"),
    p("execve", "pathname argv envp", Success, "replaces the program that runs in this process by another"),
    p("execveat", "dirfd pathname argv envp flags", Success, "replaces the program that runs in this process by another"),
    p("exit", "status", Nothing, "ends this thread"),
    p("exit_group", "status", Nothing, "ends this process with all its threads"),
    p("wait4", "pid wstatus options rusage", Id, "waits until a child ends or stops, and tells how"),
    p("waitid", "idtype id infop options rusage", Success, "waits until a child ends or stops, and tells how"),
    p("getpid", "", Id, "tells the process's id"),
    p("gettid", "", Id, "tells the thread's id"),
    p("getppid", "", Id, "tells the parent's process id"),
    p("getpgid", "pid", Id, "tells a process's group, which is what a terminal's signals go to"),
    p("getpgrp", "", Id, "tells the process's own group"),
    p("setpgid", "pid pgid", Success, "puts a process into a group: how a shell makes a job"),
    p("getsid", "pid", Id, "tells a process's session"),
    p("setsid", "", Id, "makes a new session, without a terminal, and this process its leader"),
    p("set_tid_address", "tidptr", Id, "says where the kernel is to store 0 when this thread ends, and gives its id"),
    p("arch_prctl", "code addr", Success, "sets what the fs or gs register points to: where a thread keeps its own variables"),
    p("prctl", "option arg2 arg3 arg4 arg5", Value, "asks or changes a property of the process or thread"),
    p("set_robust_list", "head len", Success, "says where the thread keeps its list of locks that must not be lost when it ends"),
    p("get_robust_list", "pid head_ptr len_ptr", Success, "tells where a thread keeps its list of locks"),
    p("rseq", "rseq rseq_len flags sig", Success, "registers memory that tells the thread which processor it runs on"),
    p("futex", "uaddr futex_op val timeout uaddr2 val3", Value, "sleeps until a word of memory changes, or wakes those that sleep: what locks are made of"),
    p("futex_waitv", "waiters nr_futexes flags timeout clockid", Value, "sleeps on several words of memory at once"),
    p("sched_yield", "", Success, "lets others run first"),
    p("sched_getaffinity", "pid cpusetsize mask", Bytes, "tells which processors a thread may run on"),
    p("sched_setaffinity", "pid cpusetsize mask", Success, "says which processors a thread may run on"),
    p("sched_getscheduler", "pid", Value, "tells a thread's scheduling policy"),
    p("sched_setscheduler", "pid policy param", Success, "sets a thread's scheduling policy"),
    p("sched_getparam", "pid param", Success, "tells a thread's scheduling priority"),
    p("sched_setparam", "pid param", Success, "sets a thread's scheduling priority"),
    p("sched_get_priority_max", "policy", Value, "tells the highest priority of a policy"),
    p("sched_get_priority_min", "policy", Value, "tells the lowest priority of a policy"),
    p("sched_rr_get_interval", "pid tp", Success, "tells the time slice of a round-robin thread"),
    p("getpriority", "which who", Value, "tells the nice value, as 20 minus it"),
    p("setpriority", "which who prio", Success, "sets the nice value"),
    p("unshare", "flags", Success, "stops sharing files, working directory or memory with other threads"),
    p("kcmp", "pid1 pid2 type idx1 idx2", Value, "asks whether two processes share something"),
    p("getcpu", "cpu node", Success, "tells the processor that the thread runs on"),
    p("pidfd_open", "pid flags", Descriptor, "gives a descriptor for a process"),
    p("pidfd_send_signal", "pidfd sig info flags", Success, "sends a signal to the process of a descriptor"),
    p("pidfd_getfd", "pidfd targetfd flags", Descriptor, "gives a descriptor for another process's open file"),
    // Signals.
    p("rt_sigaction", "signum act oldact sigsetsize", Success, "says what is to happen when a signal comes: a handler, the default, nothing"),
    p("rt_sigprocmask", "how set oldset sigsetsize", Success, "changes which signals are held back for now"),
    p("rt_sigpending", "set sigsetsize", Success, "tells which signals are held back and waiting"),
    p("rt_sigsuspend", "mask sigsetsize", Success, "waits for a signal, with another mask meanwhile"),
    p("rt_sigtimedwait", "set info timeout sigsetsize", Value, "waits for one of some signals and takes it, without a handler"),
    p("rt_sigqueueinfo", "pid sig info", Success, "sends a signal with a value to a process"),
    p("rt_tgsigqueueinfo", "tgid tid sig info", Success, "sends a signal with a value to a thread"),
    p("rt_sigreturn", "", Value, "goes back from a signal handler to what the signal interrupted"),
    p("kill", "pid sig", Success, "sends a signal to a process or a group of processes"),
    p("tkill", "tid sig", Success, "sends a signal to a thread"),
    p("tgkill", "tgid tid sig", Success, "sends a signal to a thread of a process"),
    p("sigaltstack", "ss old_ss", Success, "gives signal handlers a stack of their own"),
    p("pause", "", Success, "waits for a signal"),
    p("restart_syscall", "", Value, "goes on with a sleep that a signal interrupted; the kernel itself arranges this call"),
    // Time.
    p("time", "tloc", Value, "tells the seconds since 1970"),
    p("gettimeofday", "tv tz", Success, "tells the time of day"),
    p("settimeofday", "tv tz", Success, "sets the time of day"),
    p("clock_gettime", "clockid tp", Success, "tells a clock's time"),
    p("clock_settime", "clockid tp", Success, "sets a clock"),
    p("clock_getres", "clockid res", Success, "tells how finely a clock counts"),
    p("clock_adjtime", "clockid buf", Value, "adjusts a clock's rate"),
    p("adjtimex", "buf", Value, "adjusts the system clock's rate"),
    p("nanosleep", "req rem", Success, "sleeps for a time"),
    p("clock_nanosleep", "clockid flags request remain", Success, "sleeps for a time, or until a time, of a clock"),
    p("alarm", "seconds", Value, "has SIGALRM sent after some seconds, and gives what was left of the last alarm"),
    p("getitimer", "which curr_value", Success, "tells how long an interval timer has still to run"),
    p("setitimer", "which new_value old_value", Success, "starts or stops an interval timer, which sends signals"),
    p("timer_create", "clockid sevp timerid", Success, "makes a timer that sends signals"),
    p("timer_settime", "timerid flags new_value old_value", Success, "starts or stops a timer"),
    p("timer_gettime", "timerid curr_value", Success, "tells how long a timer has still to run"),
    p("timer_getoverrun", "timerid", Count, "tells how many expiries of a timer were missed"),
    p("timer_delete", "timerid", Success, "removes a timer"),
    p("times", "buf", Value, "tells the processor time used, and the clock ticks since boot"),
    // Users and permissions.
    p("getuid", "", Value, "tells the real user id"),
    p("geteuid", "", Value, "tells the effective user id, which permissions are judged by"),
    p("getgid", "", Value, "tells the real group id"),
    p("getegid", "", Value, "tells the effective group id, which permissions are judged by"),
    p("setuid", "uid", Success, "changes the user that the process acts as"),
    p("setgid", "gid", Success, "changes the group that the process acts as"),
    p("setreuid", "ruid euid", Success, "changes the real and the effective user id"),
    p("setregid", "rgid egid", Success, "changes the real and the effective group id"),
    p("getresuid", "ruid euid suid", Success, "tells the real, effective and saved user ids"),
    p("setresuid", "ruid euid suid", Success, "changes the real, effective and saved user ids"),
    p("getresgid", "rgid egid sgid", Success, "tells the real, effective and saved group ids"),
    p("setresgid", "rgid egid sgid", Success, "changes the real, effective and saved group ids"),
    p("setfsuid", "fsuid", Value, "changes the user id that file permissions are judged by, and gives the old one"),
    p("setfsgid", "fsgid", Value, "changes the group id that file permissions are judged by, and gives the old one"),
    p("getgroups", "size list", Count, "tells the further groups that the process is in"),
    p("setgroups", "size list", Success, "sets the further groups that the process is in"),
    p("capget", "hdrp datap", Success, "tells which single rights of the superuser a process has"),
    p("capset", "hdrp datap", Success, "sets which single rights of the superuser the process has"),
    // The system.
    p("uname", "buf", Success, "tells the system's name, version and machine"),
    p("sethostname", "name len", Success, "sets the host name"),
    p("setdomainname", "name len", Success, "sets the domain name"),
    p("sysinfo", "info", Success, "tells uptime, load and memory"),
    p("syslog", "type bufp len", Value, "reads or clears the kernel's messages"),
    p("getrandom", "buf buflen flags", Bytes, "fills memory with random bytes"),
    p("getrlimit", "resource rlim", Success, "tells how much of a resource the process may use"),
    p("setrlimit", "resource rlim", Success, "limits how much of a resource the process may use"),
    p("prlimit64", "pid resource new_limit old_limit", Success, "tells or sets how much of a resource a process may use"),
    p("getrusage", "who usage", Success, "tells what the process or its children have used"),
    p("reboot", "magic magic2 cmd arg", Success, "powers off or restarts the machine"),
    p("vhangup", "", Success, "hangs up the terminal"),
    p("acct", "filename", Success, "turns process accounting on or off"),
    p("personality", "persona", Value, "tells or sets which system's behaviour is imitated"),
    p("ioprio_get", "which who", Value, "tells the disk priority"),
    p("ioprio_set", "which who ioprio", Success, "sets the disk priority"),
    // Sockets and other ways between processes.
    p("socket", "domain type protocol", Descriptor, "makes a socket"),
    p("socketpair", "domain type protocol sv", Success, "makes two sockets that are connected to each other"),
    p("bind", "sockfd addr addrlen", Success, "gives a socket an address"),
    p("connect", "sockfd addr addrlen", Success, "connects a socket to an address"),
    p("listen", "sockfd backlog", Success, "has a socket wait for connections"),
    p("accept", "sockfd addr addrlen", Descriptor, "takes the next connection of a listening socket"),
    p("accept4", "sockfd addr addrlen flags", Descriptor, "takes the next connection of a listening socket"),
    p("sendto", "sockfd buf len flags dest_addr addrlen", Bytes, "sends bytes through a socket"),
    p("recvfrom", "sockfd buf len flags src_addr addrlen", Bytes, "receives bytes from a socket"),
    p("sendmsg", "sockfd msg flags", Bytes, "sends a message through a socket"),
    p("recvmsg", "sockfd msg flags", Bytes, "receives a message from a socket"),
    p("shutdown", "sockfd how", Success, "ends a connection in one or both directions"),
    p("getsockname", "sockfd addr addrlen", Success, "tells a socket's address"),
    p("getpeername", "sockfd addr addrlen", Success, "tells the address at a connection's other end"),
    p("setsockopt", "sockfd level optname optval optlen", Success, "sets an option of a socket"),
    p("getsockopt", "sockfd level optname optval optlen", Success, "tells an option of a socket"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::{entries, names};

    #[test]
    fn every_call_of_the_table_is_explained() {
        for entry in entries() {
            let found = prototype(entry.name);
            assert!(found.is_some(), "{} has no summary", entry.name);
            let parameters = found.map_or(0, |p| p.parameters.split_whitespace().count());
            assert!(parameters <= 6, "{}", entry.name);
        }
    }

    #[test]
    fn every_explanation_is_of_a_call() {
        for p in PROTOTYPES {
            assert!(names::number(p.name).is_some(), "{} is no system call", p.name);
        }
    }
}
