use super::*;
use crate::errno::Errno;
use crate::fs::mqueue;
use crate::ipc::{IPC_CREAT, msg, sem};
use crate::task::{Capabilities, Creds, Task, pidfd};
use crate::testing::{Machine, tmpfs_machine};
use crate::vfs::{AT_FDCWD, File, Location, MountFlags, OpenFlags, PropagationType, WalkFlags};
use std::string::ToString;

const NEWNS: CloneFlags = CloneFlags::NEWNS;
const NEWUTS: CloneFlags = CloneFlags::NEWUTS;
const NEWIPC: CloneFlags = CloneFlags::NEWIPC;
/// `SEM_UNDO`.
const UNDO: i32 = 0x1000;

fn with_tasks(test: impl FnOnce(&Machine, &Ctx, &Ctx)) {
    let machine = tmpfs_machine();
    let (one, two) = (machine.task(), machine.task());
    test(&machine, &machine.ctx(&one), &machine.ctx(&two));
}

/// What the task has left is really gone.
fn call_is_over(task: &Task) {
    // SAFETY: no call of the test's task is under way.
    unsafe { task.drop_kept() };
}

fn error<T>(result: Result<T>) -> Option<Errno> {
    result.err().map(|e| e.errno)
}

fn open(ctx: &Ctx, namespace: Namespace) -> File {
    let place = location(ctx, namespace);
    let inode = place.dentry.inode.clone();
    File::new(place, inode, None, OpenFlags::empty())
}

fn place(ctx: &Ctx, path: &str) -> Result<Location> {
    ctx.kernel.vfs.resolve(ctx, AT_FDCWD, path.as_bytes(), WalkFlags::FOLLOW)
}

fn mkdir(ctx: &Ctx, path: &str) {
    ctx.kernel.vfs.mkdir(ctx, AT_FDCWD, path.as_bytes(), 0o755).unwrap();
}

fn mount(ctx: &Ctx, path: &str) {
    let at = place(ctx, path).unwrap();
    ctx.kernel.vfs.mount_new(ctx, &at, b"tmpfs", b"none", MountFlags::empty(), "").unwrap();
}

#[test]
fn names_are_a_namespace_s_own() {
    with_tasks(|_, one, two| {
        let shared = one.namespaces().get(Kind::Uts);
        assert_eq!(shared.number(), two.namespaces().get(Kind::Uts).number());
        assert_eq!(shared.text(), "uts:[4026531838]");
        unshare(one, NEWUTS).unwrap();
        assert_eq!(one.uts().lock().nodename, "test");
        one.uts().lock().nodename = "other".to_string();
        assert_eq!(two.uts().lock().nodename, "test");
        assert_ne!(one.namespaces().get(Kind::Uts).number(), shared.number());
        assert_eq!(one.namespaces().get(Kind::Mnt).number(), two.namespaces().get(Kind::Mnt).number());

        join(two, &open(two, one.namespaces().get(Kind::Uts)), CloneFlags::empty()).unwrap();
        assert_eq!(two.uts().lock().nodename, "other");
        assert_eq!(error(join(two, &open(two, shared.clone()), NEWIPC)), Some(Errno::EINVAL));
        join(two, &open(two, shared), NEWUTS).unwrap();
        assert_eq!(two.uts().lock().nodename, "test");
        // By process, which says which namespaces.
        let process = pidfd::create(two, one.task.process.clone(), OpenFlags::empty());
        assert_eq!(error(join(two, &process, CloneFlags::empty())), Some(Errno::EINVAL));
        join(two, &process, NEWUTS | NEWIPC).unwrap();
        assert_eq!(two.uts().lock().nodename, "other");
    });
}

#[test]
fn namespaces_are_an_administrator_s_and_not_without_end() {
    with_tasks(|machine, one, two| {
        let none = Capabilities::empty();
        two.task.creds.set(Arc::new(Creds { permitted: none, effective: none, ..Creds::root() }));
        assert_eq!(error(unshare(two, NEWUTS)), Some(Errno::EPERM));
        assert_eq!(error(unshare(two, CloneFlags::from_bits_retain(0x2000_0000))), Some(Errno::EPERM));
        assert_eq!(error(join(two, &open(two, one.namespaces().get(Kind::Uts)), NEWUTS)), Some(Errno::EPERM));
        assert_eq!(error(unshare(two, CloneFlags::NEWUSER)), Some(Errno::EINVAL));
        assert_eq!(error(unshare(one, CloneFlags::from_bits_retain(0x2000_0000))), Some(Errno::EINVAL));
        assert_eq!(error(unshare(one, CloneFlags::from_bits_retain(1))), Some(Errno::EINVAL));

        let most = machine.kernel.config.max_tasks / 2;
        (0..most).for_each(|_| unshare(one, NEWUTS).unwrap());
        assert_eq!(error(unshare(one, NEWUTS)), Some(Errno::ENOSPC));
        assert!(unshare(one, NEWIPC).is_ok());
        call_is_over(one.task);
        assert!(unshare(one, NEWUTS).is_ok());
    });
}

#[test]
fn mounts_are_copied_and_end_with_their_namespace() {
    with_tasks(|machine, one, two| {
        let vfs = &machine.kernel.vfs;
        ["/m", "/n"].iter().for_each(|path| mkdir(one, path));
        mount(one, "/n");
        mkdir(two, "/n/here");
        one.fs().inner.lock().cwd = place(one, "/n/here").unwrap();
        let before = vfs.file_systems().len();
        unshare(one, NEWNS).unwrap();
        // Its directories are on the copies, where what it mounts is mounted.
        assert!(one.fs().inner.lock().cwd.check_own(one).is_ok());
        assert_eq!(error(one.fs().inner.lock().cwd.check_own(two)), Some(Errno::EINVAL));
        let changes = |ctx: &Ctx| ctx.namespaces().mnt.changes().count();
        let counted = (changes(one), changes(two));
        mount(one, "/m");
        assert!(changes(one) > counted.0 && changes(two) == counted.1);
        mkdir(one, "/m/inner");
        vfs.umount(&place(one, "/n").unwrap(), crate::vfs::MNT_DETACH).unwrap();
        assert_eq!(error(place(two, "/m/inner")), Some(Errno::ENOENT));
        assert!(place(two, "/n/here").is_ok());
        let text = |ctx: &Ctx| {
            let root = ctx.fs().inner.lock().root.clone();
            std::string::String::from_utf8(vfs.mounts_text(&root)).unwrap()
        };
        assert!(text(one).contains(" /m ") && !text(one).contains(" /n "), "{}", text(one));
        assert!(!text(two).contains(" /m ") && text(two).contains(" /n "), "{}", text(two));
        assert_eq!(vfs.file_systems().len(), before + 1);

        join(one, &open(one, two.namespaces().get(Kind::Mnt)), NEWNS).unwrap();
        assert!(place(one, "/n/here").is_ok());
        call_is_over(one.task);
        assert_eq!(vfs.file_systems().len(), before);
    });
}

#[test]
fn mounts_propagate_between_namespaces() {
    with_tasks(|machine, one, two| {
        let vfs = &machine.kernel.vfs;
        ["/shared", "/slave"].iter().for_each(|path| {
            mkdir(one, path);
            mount(one, path);
            vfs.set_propagation(&place(one, path).unwrap(), PropagationType::Shared, false).unwrap();
            mkdir(one, &std::format!("{path}/sub"));
        });
        unshare(one, NEWNS).unwrap();
        vfs.set_propagation(&place(one, "/slave").unwrap(), PropagationType::Slave, false).unwrap();
        mount(one, "/shared/sub");
        mkdir(one, "/shared/sub/a");
        assert!(place(two, "/shared/sub/a").is_ok());
        vfs.umount(&place(two, "/shared/sub").unwrap(), 0).unwrap();
        assert_eq!(error(place(one, "/shared/sub/a")), Some(Errno::ENOENT));
        mount(two, "/slave/sub");
        mkdir(two, "/slave/sub/b");
        assert!(place(one, "/slave/sub/b").is_ok());
        vfs.umount(&place(two, "/slave/sub").unwrap(), 0).unwrap();
        mount(one, "/slave/sub");
        mkdir(one, "/slave/sub/c");
        assert_eq!(error(place(two, "/slave/sub/c")), Some(Errno::ENOENT));
    });
}

#[test]
fn no_mount_namespace_keeps_itself_alive() {
    with_tasks(|machine, one, two| {
        let vfs = &machine.kernel.vfs;
        vfs.open(one, AT_FDCWD, b"/file", OpenFlags::CREAT | OpenFlags::WRONLY, 0o644).unwrap();
        let bind = |ctx: &Ctx, namespace: Namespace| {
            let from = location(ctx, namespace);
            vfs.bind(&from, &place(ctx, "/file").unwrap(), false)
        };
        assert_eq!(error(bind(one, one.namespaces().get(Kind::Mnt))), Some(Errno::EINVAL));
        unshare(one, NEWNS).unwrap();
        assert_eq!(error(bind(one, two.namespaces().get(Kind::Mnt))), Some(Errno::EINVAL));
        let young = one.namespaces().get(Kind::Mnt);
        bind(two, young.clone()).unwrap();
        // What is mounted keeps its namespace, and a new one has no copy of it.
        unshare(two, NEWNS).unwrap();
        assert_eq!(number_of_mounts(&*place(two, "/file").unwrap().dentry.inode), None);
        bind(one, one.namespaces().get(Kind::Uts)).unwrap();
        unshare(one, NEWNS).unwrap();
        assert_eq!(place(one, "/file").unwrap().dentry.inode.attr().unwrap().ino, FIRST_UTS);
    });
}

/// What is mounted where nobody can unmount it would stay for ever.
#[test]
fn places_in_no_namespace_are_not_mounted_on() {
    with_tasks(|machine, one, _| {
        let vfs = &machine.kernel.vfs;
        ["/m", "/n"].iter().for_each(|path| mkdir(one, path));
        let make = |path: &[u8]| vfs.open(one, AT_FDCWD, path, OpenFlags::CREAT | OpenFlags::WRONLY, 0o644).map(drop);
        make(b"/file").unwrap();
        let uts = location(one, one.namespaces().get(Kind::Uts));
        assert_eq!((error(uts.check_own(one)), error(uts.check_source(one))), (Some(Errno::EINVAL), None));
        mount(one, "/m");
        make(b"/m/file").unwrap();
        let gone = place(one, "/m/file").unwrap();
        assert_eq!(error(gone.check_source(one)), None);
        let tree = vfs.open_copy(&place(one, "/m").unwrap(), false).unwrap();
        vfs.umount(&place(one, "/m").unwrap(), crate::vfs::MNT_DETACH).unwrap();
        assert_eq!(error(gone.check_source(one)), Some(Errno::EINVAL));
        assert_eq!(error(gone.check_mounted()), Some(Errno::ENOENT));
        assert_eq!(error(vfs.bind(&uts, &gone, false)), Some(Errno::ENOENT));
        // What is mounted in a tree that is attached nowhere yet goes where all of it does, and no part alone.
        assert_eq!(error(tree.location.check_own(one)), Some(Errno::EINVAL));
        assert_eq!(error(tree.location.check_own_or_apart(one)), None);
        one.fs().inner.lock().cwd = tree.location.clone();
        vfs.bind(&location(one, one.namespaces().get(Kind::Mnt)), &place(one, "file").unwrap(), false).unwrap();
        let part = place(one, "file").unwrap();
        assert_eq!(error(vfs.move_mount(&part, &place(one, "/file").unwrap())), Some(Errno::EINVAL));
        assert_eq!(error(vfs.move_mount(&tree.location, &place(one, "/n").unwrap())), Some(Errno::EINVAL));
    });
}

#[test]
fn shared_directories_stay() {
    with_tasks(|machine, one, _| {
        let thread = machine.thread(one.task);
        let namespace = open(one, one.namespaces().get(Kind::Mnt));
        assert_eq!(error(join(one, &namespace, NEWNS)), Some(Errno::EINVAL));
        assert_eq!(error(unshare(one, CloneFlags::VM)), Some(Errno::EINVAL));
        unshare(one, NEWNS).unwrap();
        assert!(!Arc::ptr_eq(&one.task.fs(), &thread.fs()));
        join(one, &namespace, NEWNS).unwrap();
    });
}

#[test]
fn system_v_objects_are_a_namespace_s_own() {
    with_tasks(|_, one, two| {
        let id = sem::get(one, 7, 1, IPC_CREAT | 0o600).unwrap();
        sem::set_value(one, id, 0, 3).unwrap();
        msg::get(one, 7, IPC_CREAT | 0o600).unwrap();
        let take = std::vec![sem::Operation { number: 0, change: -2, flags: UNDO }];
        sem::operate(one, id, take, None).unwrap();
        assert_eq!(sem::values(two, id).unwrap(), [1]);
        unshare(one, NEWIPC).unwrap();
        assert_eq!(sem::values(two, id).unwrap(), [3], "undone by leaving");
        assert_eq!(error(sem::get(one, 7, 1, 0)), Some(Errno::ENOENT));
        assert_eq!(error(msg::get(one, 7, 0)), Some(Errno::ENOENT));
        assert!(msg::get(two, 7, 0).is_ok());
        assert_eq!(msg::get(one, 7, IPC_CREAT | 0o600).unwrap(), 0);
        let mut count = 0;
        one.kernel.namespaces.for_each_ipc(|_| count += 1);
        assert_eq!(count, 2);
    });
}

#[test]
fn posix_queues_end_with_their_namespace() {
    with_tasks(|machine, one, two| {
        let count = || machine.kernel.vfs.file_systems().len();
        let queue =
            |ctx: &Ctx, flags: OpenFlags| error(mqueue::open(ctx, b"queue", OpenFlags::RDWR | flags, 0o600, None));
        assert_eq!(queue(two, OpenFlags::CREAT), None);
        unshare(one, NEWIPC).unwrap();
        let before = count();
        assert_eq!((queue(one, OpenFlags::CREAT), count()), (None, before + 1));
        unshare(one, NEWIPC).unwrap();
        call_is_over(one.task);
        assert_eq!(count(), before);
        assert_eq!((queue(one, OpenFlags::empty()), queue(two, OpenFlags::empty())), (Some(Errno::ENOENT), None));
    });
}
