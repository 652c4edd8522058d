//! The VFS from outside: path walks, permissions, names and pipes, through system calls where it matters.

use super::*;
use crate::Ctx;
use crate::errno::{Errno, Result};
use crate::mm::{KernelDst, KernelSrc};
use crate::task::{Capabilities, Creds, Task};
use crate::testing::{Machine, soon, tmpfs_machine};
use alloc::string::String;
use std::string::ToString;

fn error<T>(result: Result<T>) -> Option<Errno> {
    result.err().map(|e| e.errno)
}

fn create(ctx: &Ctx, path: &str, content: &[u8]) {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    let file = ctx.kernel.vfs.open(ctx, AT_FDCWD, path.as_bytes(), flags, 0o644).unwrap();
    assert_eq!(file.write(ctx, &mut KernelSrc::new(content)).unwrap(), content.len());
}

fn read(ctx: &Ctx, path: &str) -> Result<Vec<u8>> {
    let file = ctx.kernel.vfs.open(ctx, AT_FDCWD, path.as_bytes(), OpenFlags::empty(), 0)?;
    let mut buf = alloc::vec![0; 1 << 20];
    let n = file.read(ctx, &mut KernelDst::new(&mut buf))?;
    buf.truncate(n);
    Ok(buf)
}

fn mkdir(ctx: &Ctx, path: &str) -> Result<()> {
    ctx.kernel.vfs.mkdir(ctx, AT_FDCWD, path.as_bytes(), 0o755).map(drop)
}

fn symlink(ctx: &Ctx, target: &str, path: &str) {
    ctx.kernel.vfs.symlink(ctx, target.as_bytes(), AT_FDCWD, path.as_bytes()).unwrap();
}

fn stat(ctx: &Ctx, path: &str) -> Result<Attr> {
    ctx.kernel.vfs.resolve(ctx, AT_FDCWD, path.as_bytes(), WalkFlags::FOLLOW)?.dentry.inode.attr()
}

fn rename(ctx: &Ctx, old: &str, new: &str, flags: u32) -> Result<()> {
    ctx.kernel.vfs.rename(ctx, (AT_FDCWD, old.as_bytes()), (AT_FDCWD, new.as_bytes()), flags)
}

fn unlink(ctx: &Ctx, path: &str) -> Result<()> {
    ctx.kernel.vfs.unlink(ctx, AT_FDCWD, path.as_bytes())
}

fn rmdir(ctx: &Ctx, path: &str) -> Result<()> {
    ctx.kernel.vfs.rmdir(ctx, AT_FDCWD, path.as_bytes())
}

fn path_of(ctx: &Ctx, path: &str) -> String {
    let at = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, path.as_bytes(), WalkFlags::FOLLOW).unwrap();
    let root = ctx.fs().inner.lock().root.clone();
    String::from_utf8(at.display_path(&root)).unwrap()
}

fn list(ctx: &Ctx, path: &str) -> Vec<String> {
    let at = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, path.as_bytes(), WalkFlags::FOLLOW).unwrap();
    let mut names = Vec::new();
    at.dentry
        .inode
        .read_dir(ctx, 0, &mut |e| {
            names.push(String::from_utf8_lossy(e.name).to_string());
            true
        })
        .unwrap();
    names.sort();
    names
}

fn place(ctx: &Ctx, path: &str) -> Location {
    ctx.kernel.vfs.resolve(ctx, AT_FDCWD, path.as_bytes(), WalkFlags::FOLLOW).unwrap()
}

fn mountinfo(ctx: &Ctx) -> String {
    let root = ctx.fs().inner.lock().root.clone();
    String::from_utf8(ctx.kernel.vfs.mountinfo_text(&root)).unwrap()
}

fn become_user(task: &Arc<Task>, uid: u32, gid: u32) {
    let none = Capabilities::empty();
    let creds = Creds { uid, euid: uid, suid: uid, fsuid: uid, gid, egid: gid, sgid: gid, fsgid: gid, ..Creds::root() };
    task.creds.set(Arc::new(Creds { permitted: none, effective: none, ..creds }));
}

fn with_ctx(test: impl FnOnce(&Machine, &Ctx)) {
    let machine = tmpfs_machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    test(&machine, &ctx);
}

#[test]
fn walks_follow_dots_links_and_slashes() {
    with_ctx(|_, ctx| {
        mkdir(ctx, "/a").unwrap();
        mkdir(ctx, "/a/b/").unwrap();
        create(ctx, "/a/b/file", b"hello");
        symlink(ctx, "b/file", "/a/link");
        symlink(ctx, "/a/b", "/a/dir");
        symlink(ctx, "nowhere", "/a/dangling");
        for path in ["/a/b/file", "//a//b/./file", "/a/link", "/a/dir/file", "/a/dir/../b/file", "/../../a/b/file"] {
            assert_eq!(read(ctx, path).unwrap(), b"hello", "{path}");
        }
        assert_eq!(error(read(ctx, "/a/b/file/")), Some(Errno::ENOTDIR));
        assert_eq!(error(read(ctx, "/a/b/file/x")), Some(Errno::ENOTDIR));
        assert_eq!(error(read(ctx, "/a/link/")), Some(Errno::ENOTDIR));
        assert_eq!(error(read(ctx, "/a/dangling")), Some(Errno::ENOENT));
        assert_eq!(error(read(ctx, "")), Some(Errno::ENOENT));
        assert_eq!(error(read(ctx, &"x".repeat(256))), Some(Errno::ENAMETOOLONG));
        assert!(stat(ctx, "/a/dir/").is_ok());
        assert_eq!(path_of(ctx, "/a/dir/../b/file"), "/a/b/file");
    });
}

#[test]
fn too_many_links_are_a_loop() {
    with_ctx(|_, ctx| {
        symlink(ctx, "/l", "/l");
        assert_eq!(error(stat(ctx, "/l")), Some(Errno::ELOOP));
        create(ctx, "/end", b"");
        symlink(ctx, "/end", "/l0");
        for i in 1..=40 {
            symlink(ctx, &alloc::format!("/l{}", i - 1), &alloc::format!("/l{i}"));
        }
        assert!(stat(ctx, "/l39").is_ok());
        assert_eq!(error(stat(ctx, "/l40")), Some(Errno::ELOOP));
    });
}

#[test]
fn open_flags_decide_about_the_last_component() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        let open = |path: &str, flags| vfs.open(ctx, AT_FDCWD, path.as_bytes(), flags, 0o666).map(drop);
        create(ctx, "/f", b"x");
        mkdir(ctx, "/d").unwrap();
        symlink(ctx, "new", "/to_new");
        symlink(ctx, "f", "/to_f");
        assert_eq!(error(open("/f", OpenFlags::CREAT | OpenFlags::EXCL)), Some(Errno::EEXIST));
        assert_eq!(error(open("/to_new", OpenFlags::CREAT | OpenFlags::EXCL)), Some(Errno::EEXIST));
        assert_eq!(error(open("/to_f", OpenFlags::NOFOLLOW)), Some(Errno::ELOOP));
        assert_eq!(error(open("/d", OpenFlags::WRONLY)), Some(Errno::EISDIR));
        assert_eq!(error(open("/d", OpenFlags::CREAT)), Some(Errno::EISDIR));
        assert_eq!(error(open("/", OpenFlags::CREAT)), Some(Errno::EISDIR));
        assert_eq!(error(open("/nd/", OpenFlags::CREAT)), Some(Errno::EISDIR));
        assert_eq!(error(open("/f", OpenFlags::DIRECTORY)), Some(Errno::ENOTDIR));
        assert!(open("/to_new", OpenFlags::CREAT | OpenFlags::RDWR).is_ok());
        assert_eq!(stat(ctx, "/new").unwrap().mode, 0o644);
        assert!(open("/f", OpenFlags::TRUNC | OpenFlags::WRONLY).is_ok());
        assert_eq!(stat(ctx, "/f").unwrap().size, 0);
        assert!(open("/to_f", OpenFlags::PATH | OpenFlags::NOFOLLOW).is_ok());
    });
}

#[test]
fn permissions_follow_ids_groups_and_capabilities() {
    with_ctx(|machine, root| {
        mkdir(root, "/shut").unwrap();
        create(root, "/shut/f", b"");
        create(root, "/mine", b"");
        let vfs = &root.kernel.vfs;
        let at = |path: &str| vfs.resolve(root, AT_FDCWD, path.as_bytes(), WalkFlags::FOLLOW).unwrap();
        vfs.chmod(root, &at("/shut"), 0o700).unwrap();
        vfs.chown(root, &at("/mine"), Some(1000), Some(100)).unwrap();
        vfs.chmod(root, &at("/mine"), 0o640).unwrap();
        let task = machine.task();
        let user = machine.ctx(&task);
        become_user(&task, 1000, 200);
        assert_eq!(error(stat(&user, "/shut/f")), Some(Errno::EACCES));
        assert_eq!(error(mkdir(&user, "/x")), Some(Errno::EACCES));
        let open = |flags| vfs.open(&user, AT_FDCWD, b"/mine", flags, 0).map(drop);
        assert!(open(OpenFlags::RDWR).is_ok());
        assert_eq!(error(vfs.chown(&user, &at("/mine"), Some(0), None)), Some(Errno::EPERM));
        assert_eq!(error(vfs.chown(&user, &at("/mine"), None, Some(7))), Some(Errno::EPERM));
        assert!(vfs.chown(&user, &at("/mine"), Some(1000), Some(200)).is_ok());
        become_user(&task, 1001, 200);
        assert!(open(OpenFlags::empty()).is_ok());
        assert_eq!(error(open(OpenFlags::WRONLY)), Some(Errno::EACCES));
        assert_eq!(error(vfs.chmod(&user, &at("/mine"), 0o777)), Some(Errno::EPERM));
        become_user(&task, 1001, 201);
        assert_eq!(error(open(OpenFlags::empty())), Some(Errno::EACCES));
    });
}

#[test]
fn sticky_directories_protect_names() {
    with_ctx(|machine, root| {
        let vfs = &root.kernel.vfs;
        mkdir(root, "/tmp").unwrap();
        let tmp = vfs.resolve(root, AT_FDCWD, b"/tmp", WalkFlags::FOLLOW).unwrap();
        vfs.chmod(root, &tmp, 0o1777).unwrap();
        let (a, b) = (machine.task(), machine.task());
        become_user(&a, 1000, 100);
        become_user(&b, 1001, 100);
        let (a, b) = (machine.ctx(&a), machine.ctx(&b));
        create(&a, "/tmp/of_a", b"");
        assert_eq!(error(unlink(&b, "/tmp/of_a")), Some(Errno::EPERM));
        assert_eq!(error(rename(&b, "/tmp/of_a", "/tmp/x", 0)), Some(Errno::EPERM));
        assert!(unlink(&a, "/tmp/of_a").is_ok());
    });
}

#[test]
fn removing_names_says_what_linux_says() {
    with_ctx(|_, ctx| {
        mkdir(ctx, "/d").unwrap();
        mkdir(ctx, "/d/e").unwrap();
        create(ctx, "/f", b"");
        assert_eq!(error(mkdir(ctx, "/d")), Some(Errno::EEXIST));
        assert_eq!(error(mkdir(ctx, "/f")), Some(Errno::EEXIST));
        assert_eq!(error(mkdir(ctx, "/")), Some(Errno::EEXIST));
        assert_eq!(error(rmdir(ctx, "/d")), Some(Errno::ENOTEMPTY));
        assert_eq!(error(rmdir(ctx, "/f")), Some(Errno::ENOTDIR));
        assert_eq!(error(rmdir(ctx, "/d/.")), Some(Errno::EINVAL));
        assert_eq!(error(rmdir(ctx, "/d/e/..")), Some(Errno::ENOTEMPTY));
        assert_eq!(error(rmdir(ctx, "/")), Some(Errno::EBUSY));
        assert_eq!(error(unlink(ctx, "/d")), Some(Errno::EISDIR));
        assert_eq!(error(unlink(ctx, "/f/")), Some(Errno::ENOTDIR));
        assert_eq!(error(unlink(ctx, "/none")), Some(Errno::ENOENT));
        assert_eq!(stat(ctx, "/d").unwrap().nlink, 3);
        rmdir(ctx, "/d/e/").unwrap();
        assert_eq!(stat(ctx, "/d").unwrap().nlink, 2);
        rmdir(ctx, "/d").unwrap();
        assert_eq!(error(stat(ctx, "/d")), Some(Errno::ENOENT));
        unlink(ctx, "/f").unwrap();
        assert_eq!(list(ctx, "/"), [".", ".."]);
    });
}

#[test]
fn an_open_file_outlives_its_name() {
    with_ctx(|_, ctx| {
        create(ctx, "/f", b"still here");
        let file = ctx.kernel.vfs.open(ctx, AT_FDCWD, b"/f", OpenFlags::empty(), 0).unwrap();
        unlink(ctx, "/f").unwrap();
        let mut buf = [0; 16];
        assert_eq!(file.read(ctx, &mut KernelDst::new(&mut buf)).unwrap(), 10);
        assert_eq!(file.inode.attr().unwrap().nlink, 0);
        let root = ctx.fs().inner.lock().root.clone();
        assert_eq!(file.location.display_path(&root), b"/f (deleted)");
    });
}

#[test]
fn renames_replace_exchange_and_refuse() {
    with_ctx(|_, ctx| {
        for dir in ["/a", "/a/sub", "/b", "/full", "/full/x"] {
            mkdir(ctx, dir).unwrap();
        }
        create(ctx, "/f", b"f");
        create(ctx, "/g", b"g");
        assert_eq!(error(rename(ctx, "/a", "/a/sub/a", 0)), Some(Errno::EINVAL));
        assert_eq!(error(rename(ctx, "/a/sub", "/a", 0)), Some(Errno::ENOTEMPTY));
        assert_eq!(error(rename(ctx, "/a", "/full", 0)), Some(Errno::ENOTEMPTY));
        assert_eq!(error(rename(ctx, "/a", "/f", 0)), Some(Errno::ENOTDIR));
        assert_eq!(error(rename(ctx, "/f", "/a", 0)), Some(Errno::EISDIR));
        assert_eq!(error(rename(ctx, "/f", "/n/", 0)), Some(Errno::ENOTDIR));
        assert_eq!(error(rename(ctx, "/none", "/n", 0)), Some(Errno::ENOENT));
        assert_eq!(error(rename(ctx, "/f", "/g", RENAME_NOREPLACE)), Some(Errno::EEXIST));
        assert_eq!(error(rename(ctx, "/f", "/n", RENAME_EXCHANGE)), Some(Errno::ENOENT));
        assert_eq!(error(rename(ctx, "/a/.", "/n", 0)), Some(Errno::EBUSY));
        rename(ctx, "/f", "/g", RENAME_EXCHANGE).unwrap();
        assert_eq!((read(ctx, "/f").unwrap(), read(ctx, "/g").unwrap()), (b"g".to_vec(), b"f".to_vec()));
        rename(ctx, "/f", "/g", 0).unwrap();
        assert_eq!(read(ctx, "/g").unwrap(), b"g");
        assert_eq!(error(stat(ctx, "/f")), Some(Errno::ENOENT));
        // A directory replaces an empty one, and knows its new parent.
        rename(ctx, "/a/sub", "/b", 0).unwrap();
        assert_eq!((stat(ctx, "/a").unwrap().nlink, stat(ctx, "/").unwrap().nlink), (2, 5));
        rename(ctx, "/b", "/a/moved", 0).unwrap();
        assert_eq!(path_of(ctx, "/a/moved/.."), "/a");
        assert_eq!(list(ctx, "/a"), [".", "..", "moved"]);
        // Two names of one file: nothing happens, and both stay.
        let g = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, b"/g", WalkFlags::FOLLOW).unwrap();
        ctx.kernel.vfs.link(ctx, &g, AT_FDCWD, b"/h").unwrap();
        rename(ctx, "/g", "/h", 0).unwrap();
        assert_eq!(stat(ctx, "/g").unwrap().nlink, 2);
    });
}

#[test]
fn mounts_cover_and_uncover() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        let at = |path: &str| place(ctx, path);
        mkdir(ctx, "/m").unwrap();
        mkdir(ctx, "/bound").unwrap();
        create(ctx, "/m/below", b"");
        vfs.mount_new(ctx, &at("/m"), b"tmpfs", b"none", MountFlags::NOSUID, "size=1m,mode=700").unwrap();
        assert_eq!(error(stat(ctx, "/m/below")), Some(Errno::ENOENT));
        assert_eq!(stat(ctx, "/m").unwrap().mode, 0o700);
        create(ctx, "/m/f", b"in");
        assert_eq!(path_of(ctx, "/m/f"), "/m/f");
        assert_eq!(path_of(ctx, "/m/.."), "/");
        assert_eq!(error(rename(ctx, "/m/f", "/f", 0)), Some(Errno::EXDEV));
        assert_eq!(error(rmdir(ctx, "/m")), Some(Errno::EBUSY));
        vfs.bind(&at("/m"), &at("/bound"), false).unwrap();
        assert_eq!(read(ctx, "/bound/f").unwrap(), b"in");
        let root = ctx.fs().inner.lock().root.clone();
        let text = String::from_utf8(vfs.mounts_text(&root)).unwrap();
        assert!(text.contains("none /m tmpfs rw,nosuid,relatime,size=1024k,nr_inodes="), "{text}");
        {
            let _open = vfs.open(ctx, AT_FDCWD, b"/m/f", OpenFlags::empty(), 0).unwrap();
            assert_eq!(error(vfs.umount(&at("/m"), 0)), Some(Errno::EBUSY));
        }
        vfs.remount(&at("/m"), MountFlags::RDONLY, true, "").unwrap();
        let write = OpenFlags::WRONLY;
        assert_eq!(error(vfs.open(ctx, AT_FDCWD, b"/m/f", write, 0)), Some(Errno::EROFS));
        assert!(vfs.open(ctx, AT_FDCWD, b"/bound/f", write, 0).is_ok());
        vfs.umount(&at("/m"), 0).unwrap();
        assert!(stat(ctx, "/m/below").is_ok());
        vfs.umount(&at("/bound"), 0).unwrap();
        assert_eq!(error(vfs.umount(&at("/bound"), 0)), Some(Errno::EINVAL));
    });
}

#[test]
fn mounts_propagate_to_peers_and_slaves() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        let at = |path: &str| place(ctx, path);
        for dir in ["/dir", "/one", "/two", "/slave", "/other"] {
            mkdir(ctx, dir).unwrap();
        }
        create(ctx, "/dir/a", b"");
        assert_eq!(error(vfs.set_propagation(&at("/one"), PropagationType::Shared, false)), Some(Errno::EINVAL));
        vfs.bind(&at("/one"), &at("/one"), false).unwrap();
        vfs.set_propagation(&at("/one"), PropagationType::Shared, false).unwrap();
        // Copies of a shared mount are its peers, until they are told otherwise.
        vfs.bind(&at("/one"), &at("/two"), false).unwrap();
        vfs.bind(&at("/one"), &at("/slave"), false).unwrap();
        vfs.set_propagation(&at("/slave"), PropagationType::Slave, false).unwrap();
        vfs.bind(&at("/one"), &at("/other"), false).unwrap();
        vfs.set_propagation(&at("/other"), PropagationType::Private, false).unwrap();
        mkdir(ctx, "/one/sub").unwrap();

        vfs.bind(&at("/dir"), &at("/two/sub"), false).unwrap();
        assert!(stat(ctx, "/one/sub/a").is_ok());
        assert!(stat(ctx, "/slave/sub/a").is_ok());
        assert_eq!(error(stat(ctx, "/other/sub/a")), Some(Errno::ENOENT));
        let text = mountinfo(ctx);
        let fields = |path: &str| {
            let line = text.lines().find(|l| l.split(' ').nth(4) == Some(path)).unwrap();
            line.split(' ').skip(6).take_while(|f| *f != "-").map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(fields("/one"), ["shared:1"]);
        assert_eq!(fields("/two"), ["shared:1"]);
        assert_eq!(fields("/slave"), ["master:1"]);
        assert_eq!(fields("/one/sub"), ["shared:2"]);
        assert_eq!(fields("/two/sub"), ["shared:2"]);
        assert_eq!(fields("/slave/sub"), ["master:2"]);
        assert!(fields("/other").is_empty());
        assert_eq!(error(vfs.move_mount(&at("/two/sub"), &at("/dir"))), Some(Errno::EINVAL));

        // A slave's own mounts stay its own, and are not in the way of what its master does.
        vfs.umount(&at("/one/sub"), 0).unwrap();
        for path in ["/one/sub/a", "/two/sub/a", "/slave/sub/a"] {
            assert_eq!(error(stat(ctx, path)), Some(Errno::ENOENT), "{path}");
        }
        vfs.bind(&at("/dir"), &at("/slave/sub"), false).unwrap();
        assert_eq!(error(stat(ctx, "/one/sub/a")), Some(Errno::ENOENT));

        vfs.set_propagation(&at("/two"), PropagationType::Unbindable, false).unwrap();
        assert_eq!(error(vfs.bind(&at("/two"), &at("/dir"), false)), Some(Errno::EINVAL));
    });
}

#[test]
fn nobody_walks_out_of_a_chroot() {
    with_ctx(|_, ctx| {
        mkdir(ctx, "/jail").unwrap();
        create(ctx, "/outside", b"");
        symlink(ctx, "/outside", "/jail/link");
        let vfs = &ctx.kernel.vfs;
        let jail = vfs.resolve(ctx, AT_FDCWD, b"/jail", WalkFlags::FOLLOW).unwrap();
        {
            let fs = ctx.fs();
            let mut inner = fs.inner.lock();
            inner.root = jail.clone();
            inner.cwd = jail;
        }
        assert_eq!(error(stat(ctx, "../outside")), Some(Errno::ENOENT));
        assert_eq!(error(stat(ctx, "/link")), Some(Errno::ENOENT));
        assert_eq!(path_of(ctx, ".."), "/");
    });
}

#[test]
fn restricted_walks_stay_inside() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        mkdir(ctx, "/in").unwrap();
        create(ctx, "/in/f", b"");
        create(ctx, "/out", b"");
        symlink(ctx, "/f", "/in/abs");
        symlink(ctx, "../out", "/in/up");
        let dir = vfs.open(ctx, AT_FDCWD, b"/in", OpenFlags::DIRECTORY, 0).unwrap();
        let fd = ctx.files().insert(dir, false, 0, 1024).unwrap();
        let look = |path: &str, flags| vfs.resolve(ctx, fd, path.as_bytes(), flags | WalkFlags::FOLLOW).map(drop);
        assert!(look("f", WalkFlags::BENEATH).is_ok());
        assert_eq!(error(look("abs", WalkFlags::BENEATH)), Some(Errno::EXDEV));
        assert_eq!(error(look("../out", WalkFlags::BENEATH)), Some(Errno::EXDEV));
        assert_eq!(error(look("up", WalkFlags::BENEATH)), Some(Errno::EXDEV));
        assert!(look("abs", WalkFlags::IN_ROOT).is_ok());
        assert!(look("/f", WalkFlags::IN_ROOT).is_ok());
        assert_eq!(error(look("up", WalkFlags::IN_ROOT)), Some(Errno::ENOENT));
        assert_eq!(error(look("abs", WalkFlags::NO_SYMLINKS)), Some(Errno::ELOOP));
    });
}

#[test]
fn new_names_in_set_gid_directories_inherit_the_group() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        mkdir(ctx, "/d").unwrap();
        let d = vfs.resolve(ctx, AT_FDCWD, b"/d", WalkFlags::FOLLOW).unwrap();
        vfs.chown(ctx, &d, None, Some(55)).unwrap();
        vfs.chmod(ctx, &d, 0o2775).unwrap();
        create(ctx, "/d/f", b"");
        mkdir(ctx, "/d/e").unwrap();
        assert_eq!(stat(ctx, "/d/f").unwrap().gid, 55);
        let e = stat(ctx, "/d/e").unwrap();
        assert_eq!((e.gid, e.mode), (55, 0o2755));
    });
}

#[test]
fn a_running_program_cannot_be_written() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        create(ctx, "/prog", b"#!");
        assert_eq!(error(vfs.open_exec(ctx, b"/prog")), Some(Errno::EACCES));
        let at = vfs.resolve(ctx, AT_FDCWD, b"/prog", WalkFlags::FOLLOW).unwrap();
        vfs.chmod(ctx, &at, 0o755).unwrap();
        let program = vfs.open_exec(ctx, b"/prog").unwrap();
        assert_eq!(error(vfs.open(ctx, AT_FDCWD, b"/prog", OpenFlags::WRONLY, 0)), Some(Errno::ETXTBSY));
        assert_eq!(error(vfs.truncate(ctx, &at, 0, false)), Some(Errno::ETXTBSY));
        let mut buf = [0; 8];
        assert_eq!(program.read_kernel(0, &mut buf).unwrap(), 2);
        drop(program);
        let writer = vfs.open(ctx, AT_FDCWD, b"/prog", OpenFlags::WRONLY, 0).unwrap();
        assert_eq!(error(vfs.open_exec(ctx, b"/prog")), Some(Errno::ETXTBSY));
        drop(writer);
        assert!(vfs.open_exec(ctx, b"/prog").is_ok());
    });
}

#[test]
fn pipes_carry_bytes_and_tell_of_their_ends() {
    with_ctx(|machine, ctx| {
        let (reader, writer) = ctx.kernel.vfs.pipe(ctx, OpenFlags::NONBLOCK);
        let mut buf = [0; 100];
        assert_eq!(error(reader.read(ctx, &mut KernelDst::new(&mut buf))), Some(Errno::EAGAIN));
        assert_eq!(writer.write(ctx, &mut KernelSrc::new(b"abc")).unwrap(), 3);
        assert!(reader.poll(ctx, None).contains(PollEvents::IN));
        assert_eq!(reader.read(ctx, &mut KernelDst::new(&mut buf)).unwrap(), 3);
        // A full pipe: a small write is all or nothing, a large one writes what fits.
        let big = alloc::vec![7u8; 100_000];
        assert_eq!(writer.write(ctx, &mut KernelSrc::new(&big)).unwrap(), 65536);
        assert!(!writer.poll(ctx, None).contains(PollEvents::OUT));
        assert_eq!(reader.read(ctx, &mut KernelDst::new(&mut buf)).unwrap(), 100);
        assert_eq!(error(writer.write(ctx, &mut KernelSrc::new(&big[..200]))), Some(Errno::EAGAIN));
        assert_eq!(error(writer.write(ctx, &mut KernelSrc::new(&big[..5000]))), Some(Errno::EAGAIN));
        let mut page = [0; 4096];
        assert_eq!(reader.read(ctx, &mut KernelDst::new(&mut page)).unwrap(), 4096);
        assert_eq!(writer.write(ctx, &mut KernelSrc::new(&big[..5000])).unwrap(), 4096);
        drop(writer);
        let mut all = alloc::vec![0; 70_000];
        assert_eq!(reader.read(ctx, &mut KernelDst::new(&mut all)).unwrap(), 65436);
        assert_eq!(reader.read(ctx, &mut KernelDst::new(&mut all)).unwrap(), 0);
        assert!(reader.poll(ctx, None).contains(PollEvents::HUP));
        let (reader, writer) = ctx.kernel.vfs.pipe(ctx, OpenFlags::empty());
        drop(reader);
        assert_eq!(error(writer.write(ctx, &mut KernelSrc::new(b"x"))), Some(Errno::EPIPE));
        let _ = machine;
    });
}

#[test]
fn a_blocked_pipe_reader_is_woken_and_sees_every_byte() {
    let machine = tmpfs_machine();
    let (a, b) = (machine.task(), machine.task());
    let (reader, writer) = machine.kernel.vfs.pipe(&machine.ctx(&a), OpenFlags::empty());
    let kernel = machine.kernel.clone();
    let sum = std::thread::spawn(move || {
        let ctx = Ctx { kernel: &kernel, task: &b };
        let mut buf = alloc::vec![0; 10_000];
        let (mut total, mut sum) = (0usize, 0u64);
        loop {
            match reader.read(&ctx, &mut KernelDst::new(&mut buf)).unwrap() {
                0 => return (total, sum),
                n => {
                    total += n;
                    sum += buf[..n].iter().map(|&b| u64::from(b)).sum::<u64>();
                }
            }
        }
    });
    let ctx = machine.ctx(&a);
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut done = 0;
    while done < data.len() {
        done += writer.write(&ctx, &mut KernelSrc::new(&data[done..])).unwrap();
    }
    drop(writer);
    let expected = data.iter().map(|&b| u64::from(b)).sum::<u64>();
    assert_eq!(sum.join().unwrap(), (data.len(), expected));
}

#[test]
fn a_fifo_opens_when_both_ends_are_there() {
    let machine = tmpfs_machine();
    let (a, b) = (machine.task(), machine.task());
    let ctx = machine.ctx(&a);
    let vfs = &machine.kernel.vfs;
    vfs.mknod(&ctx, AT_FDCWD, b"/fifo", FileType::Fifo, 0o666, 0).unwrap();
    let nonblock = OpenFlags::NONBLOCK | OpenFlags::WRONLY;
    assert_eq!(error(vfs.open(&ctx, AT_FDCWD, b"/fifo", nonblock, 0)), Some(Errno::ENXIO));
    let kernel = machine.kernel.clone();
    let writer = std::thread::spawn(move || {
        let ctx = Ctx { kernel: &kernel, task: &b };
        let file = kernel.vfs.open(&ctx, AT_FDCWD, b"/fifo", OpenFlags::WRONLY, 0).unwrap();
        file.write(&ctx, &mut KernelSrc::new(b"through")).unwrap()
    });
    let reader = vfs.open(&ctx, AT_FDCWD, b"/fifo", OpenFlags::empty(), 0).unwrap();
    let mut buf = [0; 16];
    assert_eq!(reader.read(&ctx, &mut KernelDst::new(&mut buf)).unwrap(), 7);
    assert_eq!(writer.join().unwrap(), 7);
    assert_eq!(reader.read(&ctx, &mut KernelDst::new(&mut buf)).unwrap(), 0);
}

#[test]
fn a_record_lock_waits_for_its_holder() {
    let machine = tmpfs_machine();
    let (a, b) = (machine.task(), machine.task());
    let ctx = machine.ctx(&a);
    create(&ctx, "/f", b"0123456789");
    let file = machine.kernel.vfs.open(&ctx, AT_FDCWD, b"/f", OpenFlags::RDWR, 0).unwrap();
    let lock = |owner| RecordLock { owner: LockOwner::Process(owner), pid: 1, start: 0, end: 4, exclusive: true };
    let locks = &file.inode.common().unwrap().locks;
    locks.set_record(&ctx, lock(1), false).unwrap();
    assert_eq!(error(locks.set_record(&ctx, lock(2), false)), Some(Errno::EAGAIN));
    let (kernel, other) = (machine.kernel.clone(), file.clone());
    let waiter = std::thread::spawn(move || {
        let ctx = Ctx { kernel: &kernel, task: &b };
        other.inode.common().unwrap().locks.set_record(&ctx, lock(2), true)
    });
    soon(|| !machine.kernel.vfs.lock_waits.is_empty());
    locks.release_process(1);
    assert!(waiter.join().unwrap().is_ok());
    assert_eq!(locks.test(&lock(1)).map(|l| l.owner), Some(LockOwner::Process(2)));
}

#[test]
fn tmpfs_files_are_sparse_limited_and_appendable() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        mkdir(ctx, "/m").unwrap();
        let m = vfs.resolve(ctx, AT_FDCWD, b"/m", WalkFlags::FOLLOW).unwrap();
        vfs.mount_new(ctx, &m, b"tmpfs", b"none", MountFlags::empty(), "size=64k,nr_inodes=4").unwrap();
        drop(m);
        let flags = OpenFlags::CREAT | OpenFlags::RDWR;
        let file = vfs.open(ctx, AT_FDCWD, b"/m/f", flags, 0o600).unwrap();
        assert_eq!(file.pwrite(ctx, 1 << 30, &mut KernelSrc::new(b"far")).unwrap(), 3);
        let attr = file.inode.attr().unwrap();
        assert_eq!((attr.size, attr.blocks), ((1 << 30) + 3, 8));
        assert_eq!(file.seek(ctx, 0, 3).unwrap(), 1 << 30);
        assert_eq!(file.seek(ctx, 0, 4).unwrap(), 0);
        let big = alloc::vec![1u8; 100_000];
        assert_eq!(file.pwrite(ctx, 0, &mut KernelSrc::new(&big)).unwrap(), 15 * 4096);
        assert_eq!(error(file.pwrite(ctx, 1 << 20, &mut KernelSrc::new(b"x"))), Some(Errno::ENOSPC));
        file.inode.fallocate(3, 0, 4096).unwrap();
        assert_eq!(file.pwrite(ctx, 1 << 20, &mut KernelSrc::new(b"x")).unwrap(), 1);
        vfs.truncate(ctx, &file.location, 5000, true).unwrap();
        vfs.truncate(ctx, &file.location, 8192, true).unwrap();
        let mut buf = [9; 8192];
        assert_eq!(file.pread(ctx, 0, &mut KernelDst::new(&mut buf)).unwrap(), 8192);
        assert_eq!((buf[4095], buf[4096], buf[4999], buf[5000], buf[8191]), (0, 1, 1, 0, 0));
        let append = vfs.open(ctx, AT_FDCWD, b"/m/f", OpenFlags::WRONLY | OpenFlags::APPEND, 0).unwrap();
        append.write(ctx, &mut KernelSrc::new(b"end")).unwrap();
        assert_eq!(stat(ctx, "/m/f").unwrap().size, 8195);
        create(ctx, "/m/2", b"");
        create(ctx, "/m/3", b"");
        assert_eq!(error(mkdir(ctx, "/m/4")), Some(Errno::ENOSPC));
        unlink(ctx, "/m/2").unwrap();
        assert!(mkdir(ctx, "/m/4").is_ok());
    });
}

#[test]
fn a_listing_survives_removals() {
    with_ctx(|_, ctx| {
        for i in 0..100 {
            create(ctx, &alloc::format!("/f{i}"), b"");
        }
        let dir = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, b"/", WalkFlags::FOLLOW).unwrap().dentry.inode.clone();
        let (mut cookie, mut seen) = (0, 0);
        loop {
            let mut names: Vec<String> = Vec::new();
            dir.read_dir(ctx, cookie, &mut |e| {
                if names.len() == 7 {
                    return false;
                }
                names.push(String::from_utf8_lossy(e.name).to_string());
                cookie = e.next;
                true
            })
            .unwrap();
            if names.is_empty() {
                break;
            }
            for name in names.iter().filter(|n| n.starts_with('f')) {
                unlink(ctx, name).unwrap();
                seen += 1;
            }
        }
        assert_eq!(seen, 100);
        assert_eq!(list(ctx, "/"), [".", ".."]);
    });
}

#[test]
fn times_and_set_id_bits_follow_changes() {
    with_ctx(|machine, root| {
        let vfs = &root.kernel.vfs;
        create(root, "/f", b"x");
        let at = vfs.resolve(root, AT_FDCWD, b"/f", WalkFlags::FOLLOW).unwrap();
        vfs.chown(root, &at, Some(1000), None).unwrap();
        vfs.chmod(root, &at, 0o6755).unwrap();
        let task = machine.task();
        become_user(&task, 1000, 100);
        let user = machine.ctx(&task);
        let file = vfs.open(&user, AT_FDCWD, b"/f", OpenFlags::WRONLY, 0).unwrap();
        file.write(&user, &mut KernelSrc::new(b"y")).unwrap();
        assert_eq!(stat(root, "/f").unwrap().mode, 0o755);
        let time = NewTime::At(Timestamp { sec: 5, nsec: 6 });
        vfs.set_times(&user, &at, Some((time, NewTime::Omit))).unwrap();
        let attr = stat(root, "/f").unwrap();
        assert_eq!(attr.atime, Timestamp { sec: 5, nsec: 6 });
        assert!(attr.mtime.sec > 5);
        become_user(&task, 1001, 100);
        assert_eq!(error(vfs.set_times(&user, &at, Some((time, time)))), Some(Errno::EPERM));
        assert_eq!(error(vfs.set_times(&user, &at, None)), Some(Errno::EACCES));
    });
}

#[test]
fn mounts_are_made_apart_and_attached_whole() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        let at = |path: &str| place(ctx, path);
        let root = ctx.fs().inner.lock().root.clone();
        let mounts = || mountinfo(ctx).lines().count();
        ["/m", "/n", "/n/x"].iter().for_each(|path| mkdir(ctx, path).unwrap());
        let context = vfs.open_context(ctx, b"tmpfs").unwrap();
        let maker = context.ops_as::<MountContext>().unwrap();
        assert_eq!(error(maker.mount(ctx, MountFlags::empty())), Some(Errno::EINVAL));
        maker.set(Parameter::String("size", "1m")).unwrap();
        maker.set(Parameter::String("source", "here")).unwrap();
        assert_eq!(error(maker.set(Parameter::String("source", "there"))), Some(Errno::EINVAL));
        let mut message = [0; 64];
        let n = context.read(ctx, &mut KernelDst::new(&mut message)).unwrap();
        assert_eq!(&message[..n], b"e tmpfs: Multiple sources");
        assert_eq!(error(context.read(ctx, &mut KernelDst::new(&mut message))), Some(Errno::ENODATA));
        maker.create(ctx, false).unwrap();
        assert_eq!(error(maker.set(Parameter::Flag("ro"))), Some(Errno::EBUSY));
        let before = mounts();
        let apart = maker.mount(ctx, MountFlags::NODEV).unwrap();
        assert_eq!(mounts(), before, "nobody sees it yet");
        vfs.move_mount(&apart.location, &at("/m")).unwrap();
        drop(apart);
        create(ctx, "/m/f", b"in");
        let text = String::from_utf8(vfs.mounts_text(&root)).unwrap();
        assert!(text.contains("here /m tmpfs rw,nodev,relatime,size=1024k"), "{text}");

        // A copy with what is mounted below; closed, it leaves nothing behind.
        mkdir(ctx, "/m/below").unwrap();
        vfs.mount_new(ctx, &at("/m/below"), b"tmpfs", b"none", MountFlags::empty(), "").unwrap();
        create(ctx, "/m/below/g", b"deep");
        let copy = vfs.open_copy(&at("/m"), true).unwrap();
        vfs.move_mount(&copy.location, &at("/n/x")).unwrap();
        assert_eq!(read(ctx, "/n/x/below/g").unwrap(), b"deep");
        assert_eq!(error(vfs.move_mount(&at("/n"), &at("/m"))), Some(Errno::EINVAL));
        let dropped = vfs.open_copy(&at("/m"), true).unwrap();
        let before = mounts();
        drop(dropped);
        assert_eq!(mounts(), before);

        // All of a tree at once, or nothing.
        let read_only = MountChange { set: MountFlags::RDONLY, clear: MountFlags::empty(), propagation: None };
        {
            let _writer = vfs.open(ctx, AT_FDCWD, b"/n/x/below/g", OpenFlags::WRONLY, 0).unwrap();
            assert_eq!(error(vfs.change_mounts(&at("/n/x"), &read_only, true)), Some(Errno::EBUSY));
            assert!(vfs.open(ctx, AT_FDCWD, b"/n/x/f", OpenFlags::WRONLY, 0).is_ok());
        }
        vfs.change_mounts(&at("/n/x"), &read_only, true).unwrap();
        for path in [&b"/n/x/f"[..], b"/n/x/below/g"] {
            assert_eq!(error(vfs.open(ctx, AT_FDCWD, path, OpenFlags::WRONLY, 0)), Some(Errno::EROFS));
        }
        assert!(vfs.open(ctx, AT_FDCWD, b"/m/f", OpenFlags::WRONLY, 0).is_ok());
        let picked = vfs.pick_context(ctx, &at("/m")).unwrap();
        let changer = picked.ops_as::<MountContext>().unwrap();
        changer.set(Parameter::Flag("ro")).unwrap();
        changer.reconfigure(ctx).unwrap();
        assert_eq!(error(vfs.open(ctx, AT_FDCWD, b"/m/f", OpenFlags::WRONLY, 0)), Some(Errno::EROFS));
        changer.set(Parameter::Flag("rw")).unwrap();
        changer.reconfigure(ctx).unwrap();
        assert!(vfs.open(ctx, AT_FDCWD, b"/m/f", OpenFlags::WRONLY, 0).is_ok());
    });
}

/// What is copied with its mounts is mounted once, also where source and target are peers, and below every peer of the
/// target.
#[test]
fn trees_propagate_whole() {
    with_ctx(|_, ctx| {
        let vfs = &ctx.kernel.vfs;
        let at = |path: &str| place(ctx, path);
        let mounts = || mountinfo(ctx).lines().count();
        ["/one", "/two", "/one/a", "/one/b"].iter().for_each(|path| mkdir(ctx, path).unwrap());
        vfs.bind(&at("/one"), &at("/one"), false).unwrap();
        vfs.set_propagation(&at("/one"), PropagationType::Shared, false).unwrap();
        vfs.bind(&at("/one"), &at("/two"), false).unwrap();
        let before = mounts();
        vfs.mount_new(ctx, &at("/one/a"), b"tmpfs", b"none", MountFlags::empty(), "").unwrap();
        mkdir(ctx, "/one/a/c").unwrap();
        vfs.mount_new(ctx, &at("/one/a/c"), b"tmpfs", b"none", MountFlags::empty(), "").unwrap();
        create(ctx, "/one/a/c/f", b"deep");
        assert_eq!((mounts(), read(ctx, "/two/a/c/f").unwrap()), (before + 4, b"deep".to_vec()));
        vfs.bind(&at("/one/a"), &at("/one/b"), true).unwrap();
        assert_eq!(mounts(), before + 8);
        assert_eq!(read(ctx, "/two/b/c/f").unwrap(), b"deep");
    });
}
