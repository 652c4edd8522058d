use super::*;
use crate::mm::KernelDst;
use crate::task::creds::Ids;
use crate::testing::{Machine, machine};
use crate::vfs::{Dentry, File, Location, OpenFlags};
use std::string::String;
use std::vec::Vec;

/// Walks to a name of a fresh instance.
fn find(ctx: &Ctx, path: &str) -> Result<InodeRef> {
    let mut at = new(ctx.kernel).root()?;
    for name in path.split('/') {
        at = at.lookup(ctx, name.as_bytes())?;
    }
    Ok(at)
}

fn open(ctx: &Ctx, path: &str) -> Result<File> {
    let inode = find(ctx, path)?;
    let ops = inode.clone().open(ctx, OpenFlags::RDWR)?;
    let root = ctx.fs().inner.lock().root.clone();
    let location = Location { mount: root.mount, dentry: Dentry::detached(inode.clone(), b"file") };
    Ok(File::new(location, inode, ops, OpenFlags::RDWR))
}

fn read(ctx: &Ctx, path: &str) -> Result<String> {
    let file = open(ctx, path)?;
    let mut text = Vec::new();
    loop {
        // Small pieces: a file must read the same however it is read.
        let mut piece = [0; 100];
        let n = file.read(ctx, &mut KernelDst::new(&mut piece))?;
        if n == 0 {
            return Ok(String::from_utf8(text).unwrap());
        }
        text.extend_from_slice(&piece[..n]);
    }
}

fn write(ctx: &Ctx, path: &str, text: &str) -> Result<usize> {
    open(ctx, path)?.write(ctx, &mut crate::mm::KernelSrc::new(text.as_bytes()))
}

fn names(ctx: &Ctx, path: &str) -> Vec<String> {
    let dir = if path.is_empty() { new(ctx.kernel).root().unwrap() } else { find(ctx, path).unwrap() };
    let mut names = Vec::new();
    let mut cookie = 0;
    // Two entries a call, as a small buffer would take them.
    loop {
        let mut taken = 0;
        dir.read_dir(ctx, cookie, &mut |entry| {
            if taken == 2 {
                return false;
            }
            names.push(String::from_utf8_lossy(entry.name).into_owned());
            cookie = entry.next;
            taken += 1;
            true
        })
        .unwrap();
        if taken == 0 {
            return names;
        }
    }
}

fn with_tasks(test: impl FnOnce(&Machine, &Ctx)) {
    let machine = machine();
    let task = machine.task();
    test(&machine, &machine.ctx(&task));
}

#[test]
fn every_listed_name_is_there_and_every_file_can_be_read() {
    fn walk(ctx: &Ctx, path: &str, depth: usize) {
        for name in names(ctx, path).iter().filter(|n| !n.starts_with('.')) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let inode = find(ctx, &path).unwrap();
            match inode.file_type() {
                FileType::Directory if depth < 5 => walk(ctx, &path, depth + 1),
                FileType::Regular if name != "mem" => drop(read(ctx, &path).unwrap_or_else(|e| panic!("{path}: {e}"))),
                _ => {}
            }
        }
    }
    with_tasks(|_, ctx| walk(ctx, "", 0));
}

#[test]
fn the_root_lists_fixed_names_and_processes() {
    with_tasks(|machine, ctx| {
        machine.task();
        let names = names(ctx, "");
        for name in [".", "..", "self", "meminfo", "1", "2"] {
            assert_eq!(names.iter().filter(|n| *n == name).count(), 1, "{name} in {names:?}");
        }
        assert!(find(ctx, "3").is_err() && find(ctx, "01").is_err() && find(ctx, "+1").is_err());
    });
}

#[test]
fn stat_has_linux_s_52_fields() {
    with_tasks(|_, ctx| {
        *ctx.task.comm.lock() = crate::task::Comm::new(b"a) b");
        let text = read(ctx, "1/stat").unwrap();
        // As procps parses it: the name ends at the last parenthesis.
        let (head, rest) = text.rsplit_once(") ").unwrap();
        assert_eq!(head, "1 (a) b");
        let fields: Vec<&str> = rest.trim_end().split(' ').collect();
        assert_eq!(fields.len(), 50);
        assert_eq!(fields[0], "R");
        assert!(fields[1..].iter().all(|f| f.parse::<i64>().is_ok() || f.parse::<u64>().is_ok()));
        // ppid, pgrp, session; nice and threads; the limit on resident memory.
        assert_eq!(fields[15..18], ["20", "0", "1"]);
    });
}

#[test]
fn status_is_made_of_names_tabs_and_values() {
    with_tasks(|_, ctx| {
        let text = read(ctx, "self/status");
        assert!(text.is_err(), "a link is not followed by a lookup");
        let text = read(ctx, "1/status").unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|l| l.split(':').next() == Some(name));
            line.unwrap_or_else(|| panic!("{name} in {text}")).split_once(":\t").unwrap().1
        };
        assert_eq!(value("Name"), "test");
        assert_eq!(value("Pid"), "1");
        assert_eq!(value("Uid"), "0\t0\t0\t0");
        assert_eq!(value("CapEff"), "000001ffffffffff");
        assert_eq!(value("Cpus_allowed_list"), "0");
        assert_eq!(value("VmRSS"), "       0 kB");
    });
}

#[test]
fn settings_take_what_is_written_and_refuse_what_is_wrong() {
    with_tasks(|_, ctx| {
        write(ctx, "1/comm", "renamed\n").unwrap();
        assert_eq!(read(ctx, "1/comm").unwrap(), "renamed\n");
        write(ctx, "1/oom_score_adj", "-17\n").unwrap();
        assert_eq!(read(ctx, "1/oom_score_adj").unwrap(), "-17\n");
        assert_eq!(write(ctx, "1/oom_score_adj", "1001").unwrap_err(), Errno::EINVAL);
        assert_eq!(write(ctx, "1/oom_score_adj", "x").unwrap_err(), Errno::EINVAL);
        write(ctx, "sys/kernel/hostname", "other\n").unwrap();
        assert_eq!(ctx.uts().lock().nodename, "other");
        assert_eq!(write(ctx, "sys/kernel/osrelease", "9").unwrap_err(), Errno::EPERM);
        assert_eq!(write(ctx, "sys/kernel/pid_max", "9").unwrap_err(), Errno::EINVAL);
        write(ctx, "sys/kernel/pid_max", "400000\n").unwrap();
        assert_eq!(read(ctx, "sys/kernel/pid_max").unwrap(), "400000\n");
        assert_eq!(write(ctx, "sys/kernel/core_pattern", "|/bin/sh").unwrap_err(), Errno::EINVAL);
        let logged = "sys/kernel/seccomp/actions_logged";
        assert_eq!(write(ctx, logged, "allow").unwrap_err(), Errno::EINVAL);
        write(ctx, logged, "log kill_process\n").unwrap();
        assert_eq!(read(ctx, logged).unwrap(), "kill_process log\n");
        write(ctx, "sys/kernel/core_pattern", "core.%p\n").unwrap();
        assert_eq!(read(ctx, "sys/kernel/core_pattern").unwrap(), "core.%p\n");
    });
}

#[test]
fn another_user_s_secrets_are_not_shown() {
    with_tasks(|machine, ctx| {
        let other = machine.task();
        let ids = Ids { real: 1000, effective: 1000, saved: 1000, fs: 1000 };
        let user = crate::task::Creds::root().with_users(ids).with_groups(ids);
        other.creds.set(Arc::new(user));
        let other = machine.ctx(&other);
        assert!(read(&other, "1/status").is_ok());
        for secret in ["1/environ", "1/maps", "1/auxv"] {
            assert_eq!(read(&other, secret).unwrap_err(), Errno::EACCES, "{secret}");
        }
        assert!(find(&other, "1/cwd").unwrap().read_link(&other).is_err());
        assert_eq!(find(&other, "1/ns/uts").unwrap().read_link(&other).err(), Some(Errno::EACCES.into()));
        assert!(read(&other, "2/environ").is_ok());
        assert!(read(ctx, "2/environ").is_ok());
        assert_eq!(find(ctx, "2").unwrap().attr().unwrap().uid, 1000);
    });
}

#[test]
fn links_lead_to_namespaces() {
    with_tasks(|_, ctx| {
        let link = find(ctx, "1/ns/uts").unwrap();
        assert_eq!(link.read_link(ctx).unwrap(), b"uts:[4026531838]");
        let place = link.magic_link(ctx).unwrap().unwrap();
        let attr = place.dentry.inode.attr().unwrap();
        assert_eq!((attr.ino, attr.file_type, attr.mode), (0xefff_fffe, FileType::Regular, 0o444));
        assert_eq!(place.mount.sb.fs.statfs().unwrap().fs_type, 0x6e73_6673);
        assert!(find(ctx, "1/ns/nonesuch").is_err());
    });
}

#[test]
fn the_machine_s_files_have_the_numbers_that_tools_parse() {
    with_tasks(|_, ctx| {
        let meminfo = read(ctx, "meminfo").unwrap();
        assert!(meminfo.starts_with("MemTotal:        1048576 kB\n"), "{meminfo}");
        assert!(meminfo.lines().all(|l| l.len() == 27 && l.ends_with(" kB")), "{meminfo}");
        let stat = read(ctx, "stat").unwrap();
        let cpu: Vec<&str> = stat.lines().next().unwrap().split_ascii_whitespace().collect();
        assert_eq!((cpu[0], cpu.len()), ("cpu", 11));
        let uptime = read(ctx, "uptime").unwrap();
        assert_eq!(uptime.split_ascii_whitespace().filter_map(|n| n.parse::<f64>().ok()).count(), 2);
        let load = read(ctx, "loadavg").unwrap();
        assert_eq!(load.trim_end(), format!("0.00 0.00 0.00 1/1 {}", ctx.task.tid()));
        assert!(read(ctx, "cpuinfo").unwrap().contains("\nmodel name\t: "));
    });
}

#[test]
fn a_host_s_status_has_no_line_before_ours_that_we_lack_without_reason() {
    // Lines that say something about what this kernel does not have.
    const LACKING: &[&str] =
        &["Speculation_Store_Bypass", "SpeculationIndirectBranch", "x86_Thread_features", "x86_Thread_features_locked"];
    with_tasks(|_, ctx| {
        let host = std::fs::read_to_string("/proc/self/status").unwrap();
        let ours = read(ctx, "1/status").unwrap();
        let names = |text: &str| -> Vec<String> { text.lines().map(|l| l.split(':').next().unwrap().into()).collect() };
        let ours = names(&ours);
        let missing: Vec<String> =
            names(&host).into_iter().filter(|n| !ours.contains(n) && !LACKING.contains(&n.as_str())).collect();
        assert_eq!(missing, Vec::<String>::new());
    });
}

#[test]
fn sets_of_processors_are_printed_as_linux_does() {
    use super::status::{list_text, mask_text};
    assert_eq!(mask_text(&[0b11], 2), "3");
    assert_eq!(mask_text(&[0xff_ffff_ffff], 40), "ff,ffffffff");
    assert_eq!(list_text(&[0b1011], 4), "0-1,3");
    assert_eq!(list_text(&[u64::MAX, 1], 65), "0-64");
    assert_eq!(crate::task::all_cpus(65), [u64::MAX, 1]);
}
