//! Small C programs (`guest/*.c`), each linked statically and run twice, natively and in the guest: they must print the
//! same. The host's kernel is the judge.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;

use umlfs_tests::guest::GuestProgram;
use umlfs_tests::machine::platforms;
use umlfs_tests::{expect_clean_ext, judge, run, umlfs};

/// Exit status of a program that may not do natively what it is to compare.
const CANNOT: i32 = 77;

/// Runs `guest/NAME.c` here and there, on the platform that is the default here. See [`same_as_native_on`].
#[track_caller]
fn same_as_native(name: &str) {
    same_as_native_on(name, &[]);
}

/// Runs `guest/NAME.c` here and there, on each of these platforms, or the default one without any; with a directory on a disk and
/// one on a tmpfs as its arguments, and compares.
#[track_caller]
fn same_as_native_on(name: &str, platforms: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let GuestProgram { program, image } = GuestProgram::new(name, dir.path());
    for made in ["disk", "memory"] {
        fs::create_dir(dir.path().join(made)).unwrap();
    }

    // On the host any directory serves: file systems behave alike in what the programs look at.
    let mut native = judge("timeout");
    native.args(["-s", "KILL", "60"]).arg(program).arg(dir.path().join("disk")).arg(dir.path().join("memory"));
    let native = run(&mut native);
    if native.status.code() == Some(CANNOT) {
        eprintln!("this host does not let {name} do what it is to compare: not tried");
        return;
    }
    let native = native.expect_success();

    assert!(native.stdout.lines().count() > 10, "{native:?}");
    let chosen: Vec<Vec<&str>> = match platforms {
        [] => vec![Vec::new()],
        all => all.iter().map(|platform| vec!["--platform", platform]).collect(),
    };
    for platform in chosen {
        let mut guest = umlfs();
        guest.arg("boot").args(&platform).arg(&image).arg("--").arg(format!("/{name}")).args(["/tmp", "/dev/shm"]);
        let guest = run(&mut guest).expect_success();
        for (n, (native, guest)) in native.stdout.lines().zip(guest.stdout.lines()).enumerate() {
            assert_eq!(guest, native, "{name} {platform:?}, line {} of its output (right: native)", n + 1);
        }
        assert_eq!(guest.stdout, native.stdout, "{name} {platform:?}");
    }
    expect_clean_ext(&image);
}

#[test]
fn mappings_follow_a_file_that_grows_and_shrinks() {
    same_as_native("mappings");
}

#[test]
fn pipes_have_slots() {
    same_as_native("pipes");
}

#[test]
fn sockets_within_the_machine() {
    same_as_native("sockets");
}

#[test]
fn threads_come_and_go() {
    same_as_native("threads");
}

#[test]
fn calls_end_alike() {
    same_as_native("calls");
}

#[test]
fn job_control_on_a_pseudoterminal() {
    same_as_native("jobs");
}

#[test]
fn changes_to_files_are_told() {
    same_as_native("inotify");
}

#[test]
fn processes_have_descriptors() {
    same_as_native("processes");
}

#[test]
fn mounts_are_made_step_by_step() {
    same_as_native("mounts");
}

#[test]
fn namespaces_of_names_mounts_and_system_v_objects() {
    same_as_native("namespaces");
}

#[test]
fn access_control_lists() {
    same_as_native("acls");
}

#[test]
fn processor_time_is_told_and_gone_by() {
    same_as_native("cputime");
}

#[test]
fn signals_tell_of_files() {
    same_as_native("async");
}

#[test]
fn immutable_and_append_only_files() {
    same_as_native("flags");
}

#[test]
fn mappings_grow_move_and_stay() {
    same_as_native("memory");
}

#[test]
fn core_files() {
    same_as_native("cores");
}

#[test]
fn programs_are_killed_as_they_start() {
    same_as_native("killed");
}

#[test]
fn leases_are_given_back() {
    same_as_native("leases");
}

#[test]
fn requests_for_io() {
    same_as_native("aio");
}

#[test]
fn files_are_disks() {
    same_as_native("loops");
}

#[test]
fn system_v_objects() {
    same_as_native("ipc");
}

#[test]
fn posix_message_queues() {
    same_as_native("mqueue");
}

#[test]
fn processes_trace_each_other() {
    same_as_native_on("debug", platforms());
}

#[test]
fn system_calls_are_restricted() {
    same_as_native_on("seccomp", platforms());
}

#[test]
fn not_everybody_may_trace() {
    same_as_native_on("debug_rights", platforms());
}
