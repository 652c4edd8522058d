//! Linux itself as the judge: a user-mode-linux kernel replays a journal that this crate left, works on the file
//! system and is killed; then this crate replays what Linux left.
#![allow(clippy::unwrap_used)]

mod common;
#[allow(unreachable_pub, reason = "public where it belongs")]
#[path = "../../../tests/src/uml.rs"]
mod uml;

use common::*;
use ext4::FileType;
use ext4::mkfs::{FsType, Options, format};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uml::linux_uml;

/// Boots Linux on the host's own root (read through hostfs) with `script` as init, until it prints `UML-DONE`, then
/// cuts its power.
fn boot(s: &Scratch, image: &Path, script: &str) -> String {
    let init = s.path("init");
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let log = s.path("log");
    let mut child = Command::new(linux_uml())
        .args(["mem=128M", "rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1", "ssl=null"])
        .arg(format!("init={}", init.display()))
        .arg(format!("ubd0={}", image.display()))
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let start = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        let over = child.try_wait().unwrap().is_some() || start.elapsed() > Duration::from_secs(240);
        if over || text.contains("UML-DONE") {
            let _ = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
            assert!(text.contains("UML-DONE"), "Linux did not get through:\n{text}");
            return text;
        }
    }
}

#[test]
fn linux_and_we_replay_each_others_journals() {
    let s = Scratch::new();
    let image = s.image();
    let o = Options { device_zeroed: true, ..options(FsType::Ext4) };
    format(&FileDisk::create(&image, 64 << 20), &o).unwrap();
    {
        let mut fs = mount(&image);
        let victim = fs.create(2, b"victim", &new(FileType::Directory)).unwrap();
        for i in 0..1000 {
            let f = fs.create(victim, format!("victim-{i}").as_bytes(), &new(FileType::Regular)).unwrap();
            fs.write(f, 0, &[7; 3000], NOW).unwrap();
        }
        let f = fs.create(2, b"ours", &new(FileType::Regular)).unwrap();
        fs.write(f, 0, &vec![b'A'; 3_000_000], NOW).unwrap();
        fs.sync().unwrap();
        // Dropped without unmounting: a crash.
    }
    let text = boot(
        &s,
        &image,
        "#!/bin/sh\n\
         mount -t proc proc /proc\n\
         [ -e /dev/ubda ] || mount -t devtmpfs dev /dev\n\
         mount -t tmpfs tmpfs /mnt\n\
         mkdir /mnt/m\n\
         mount -t ext4 /dev/ubda /mnt/m && cd /mnt/m && echo MOUNTED\n\
         ls victim | wc -l\n\
         [ $(tr -d A < ours | wc -c) = 0 ] && [ $(wc -c < ours) = 3000000 ] && echo OURS-IS-WHOLE\n\
         rm -r victim\n\
         mkdir -p theirs\n\
         cp -r /etc/default theirs/\n\
         cp /bin/ls theirs/ls\n\
         ln -s ls theirs/link\n\
         sync\n\
         echo more > theirs/more\n\
         echo UML-DONE\n\
         sleep 100\n",
    );
    for line in ["recovery complete", "MOUNTED", "1000", "OURS-IS-WHOLE"] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("EXT4-fs error") && !text.contains("EXT4-fs warning"), "{text}");
    let mut fs = mount(&image);
    let ls = resolve(&mut fs, "theirs/ls");
    assert!(read_all(&mut fs, ls) == fs::read("/bin/ls").unwrap());
    let link = resolve(&mut fs, "theirs/link");
    assert_eq!(fs.read_link(link).unwrap(), b"ls");
    assert!(fs.lookup(2, b"victim").is_err());
    fs.unmount().unwrap();
    fsck(&image);
}
