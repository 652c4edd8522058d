//! busybox's own test suite, run in the guest and natively by the same binary in the same root: every difference must
//! be listed with its reason in `expectations/busybox.txt`.
//!
//! Takes some minutes and root's rights (the native run is in a chroot), so it runs only with UMLFS_LONG_TESTS=1.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use umlfs_tests::{expect_clean_ext, judge, repository, run, umlfs};

/// What both runs do: the suite writes beside itself, so it runs in a copy.
const SUITE: &str = "\
mkdir /tmp/suite && cp -r /usr/share/busybox-testsuite/. /tmp/suite && cd /tmp/suite/testsuite || exit 99
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root SHELL=/bin/sh LC_ALL=C
sh ./runtest 2>&1
";

/// The native run's root becomes the machine's, in a mount and a process namespace of its own. Tests that look at
/// process 1 expect that it is called init.
const NATIVE: &str = "\
mount --make-rprivate /
mount -t proc proc \"$1/proc\" && mount --rbind /sys \"$1/sys\" && mount --rbind /dev \"$1/dev\" || exit 98
mount -t tmpfs tmpfs \"$1/run\" || exit 98
printf init > /proc/self/comm
chroot \"$1\" /bin/sh -c \"$2\"
";

/// A run that takes longer hangs. Two tests of bc make millions of small writes, which take long on a debug build.
const LIMIT: Duration = Duration::from_secs(3600);

/// Results by the tests' names. A name may come more than once: later ones get a number.
type Results = BTreeMap<String, String>;

#[test]
fn guest_and_native_runs_differ_only_as_listed() {
    if std::env::var_os("UMLFS_LONG_TESTS").is_none_or(|value| value != "1") {
        println!("SKIPPED: busybox's test suite takes minutes; set UMLFS_LONG_TESTS=1 to run it");
        eprintln!("SKIPPED: busybox's test suite takes minutes; set UMLFS_LONG_TESTS=1 to run it");
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "the native run needs root's rights (chroot, mount)");

    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    run(umlfs().args(["build", "--profile", "tiny-test", "--out"]).arg(path("root.tar"))).expect_success();
    run(umlfs()
        .args(["image", "create", "--quiet", "--free", "200M", "--from"])
        .arg(path("root.tar"))
        .arg(path("img")))
    .expect_success();
    fs::create_dir(path("root")).unwrap();
    run(judge("tar").args(["--numeric-owner", "-xpf"]).arg(path("root.tar")).arg("-C").arg(path("root")))
        .expect_success();

    let mut guest = umlfs();
    guest.arg("boot").arg(path("img")).args(["--exec", SUITE]);
    let guest = suite(guest, &path("guest.log"));
    expect_clean_ext(&path("img"));

    let mut native = judge("unshare");
    native.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", NATIVE, "native"]);
    native.arg(path("root")).arg(SUITE);
    let native = suite(native, &path("native.log"));

    let list = repository().join("tests/expectations/busybox.txt");
    let problems = judge_results(&native, &guest, &expectations(&fs::read_to_string(list).unwrap()));
    println!("native: {}; guest: {}", summary(&native), summary(&guest));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Runs the suite with its output in a file, and reads the results.
fn suite(mut command: Command, log: &Path) -> Results {
    let output = File::create(log).unwrap();
    // A process group of its own, so that all of it can be killed.
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > LIMIT {
            let group = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(100));
    };
    let text = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    // runtest fails with 1 when a test failed: which one is judged later.
    let ended = status.is_some_and(|status| matches!(status.code(), Some(0 | 1)));
    assert!(ended, "{command:?}: {status:?} after {:?}; last lines, last first: {last:#?}", start.elapsed());
    let results = results(&text);
    assert!(results.len() > 900, "only {} results; last lines, last first: {last:#?}", results.len());
    results
}

fn results(text: &str) -> Results {
    let mut results = Results::new();
    for line in text.lines() {
        let Some((result, name)) = line.split_once(": ") else { continue };
        if !matches!(result, "PASS" | "FAIL" | "SKIPPED" | "UNTESTED") {
            continue;
        }
        let mut key = name.trim_end().to_owned();
        let mut count = 1;
        while results.contains_key(&key) {
            count += 1;
            key = format!("{} #{count}", name.trim_end());
        }
        results.insert(key, result.to_owned());
    }
    results
}

fn summary(results: &Results) -> String {
    let count = |wanted: &str| results.values().filter(|result| *result == wanted).count();
    format!("{} PASS, {} FAIL, {} others", count("PASS"), count("FAIL"), results.len() - count("PASS") - count("FAIL"))
}

/// The differences listed: results (native, guest) by test.
///
/// # Panics
/// A line is not `TEST<tab>NATIVE<tab>GUEST<tab>REASON`.
fn expectations(text: &str) -> BTreeMap<String, (String, String)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [test, native, guest, reason] if !reason.is_empty() => {
                (test.to_owned(), (native.to_owned(), guest.to_owned()))
            }
            _ => panic!("expectations/busybox.txt: not TEST<tab>NATIVE<tab>GUEST<tab>REASON: {line}"),
        })
        .collect()
}

/// What is wrong, a line each. `-` stands for a test that was not run.
fn judge_results(native: &Results, guest: &Results, expected: &BTreeMap<String, (String, String)>) -> Vec<String> {
    let result = |results: &Results, name: &str| results.get(name).map_or("-", String::as_str).to_owned();
    let names: BTreeSet<&String> = native.keys().chain(guest.keys()).chain(expected.keys()).collect();
    let mut problems = Vec::new();
    for name in names {
        let (here, there) = (result(native, name), result(guest, name));
        match expected.get(name) {
            // The host may lack what the list says it has; the guest is always the same.
            Some((_, listed)) if *listed != there => {
                problems.push(format!("{name}: listed as {listed} in the guest, but it is {there}"));
            }
            Some(_) => {}
            None if here != there => {
                problems.push(format!("{name}: {here} natively, {there} in the guest, not listed"))
            }
            None => {}
        }
    }
    problems
}

#[test]
fn results_are_read_and_judged() {
    let native = results("PASS: a b\nFAIL: c\nnoise: x\nPASS: c\nSKIPPED: d\n");
    assert_eq!(native.len(), 4);
    assert_eq!(native["c #2"], "PASS");
    let guest = results("PASS: a b\nFAIL: c\nFAIL: c\nSKIPPED: d\n");
    let none = BTreeMap::new();
    assert_eq!(judge_results(&native, &native, &none), Vec::<String>::new());
    assert_eq!(judge_results(&native, &guest, &none).len(), 1);
    let listed = expectations("# comment\n\nc #2\tPASS\tFAIL\tno such device\n");
    assert_eq!(judge_results(&native, &guest, &listed), Vec::<String>::new());
    // A difference that is gone must leave the list.
    assert_eq!(judge_results(&native, &native, &listed).len(), 1);
}
