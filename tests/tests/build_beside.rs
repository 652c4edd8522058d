//! What can be done beside a build that runs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use umlfs_tests::place::{Place, fails, stderr, succeeds};

/// Recipes of which the first is quick, and the second goes on when a file appears.
fn two(place: &Place) {
    place.recipe("a", &place.source(None), "    phases:\n      install: |\n        cp hello \"$DEST/hello\"\n");
    place.recipe(
        "b",
        "",
        "    needs: [a/final]\n    phases:\n      build: |\n        echo first words\n        while [ ! -e /tmp/go ]; do sleep 0.05; done\n        echo last words\n        [ ! -e /tmp/fail ]\n      install: |\n        echo b > \"$DEST/b\"\n",
    );
    place.profile(&["a", "b"]);
}

fn start(place: &Place, args: &[&str]) -> Child {
    place.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn umlfs(place: &Place, args: &[&str]) -> Output {
    let mut command = Command::new(place.path("umlfs"));
    command.args(args).args(["--profile", "p", "--config-dir"]).arg(place.path("configs"));
    command.env("XDG_CACHE_HOME", place.path("cache")).current_dir(place.path("")).output().unwrap()
}

/// The work directories, and what the running step reads as `/tmp/NAME` in the one where it does.
fn works(place: &Place) -> Vec<PathBuf> {
    fs::read_dir(place.path("cache/umlfs/work")).into_iter().flatten().map(|e| e.unwrap().path()).collect()
}

#[track_caller]
fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{what} took too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `b/final` runs; its work directory.
#[track_caller]
fn b_runs(place: &Place) -> PathBuf {
    let log = place.path("cache/umlfs/logs/b-final.log");
    wait_until("the start of b/final", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("first words").then(|| works(place).pop().unwrap())
    })
}

#[test]
fn a_running_build_is_in_nobodys_way() {
    let place = Place::new();
    two(&place);
    let mut build = start(&place, &[]);
    let work = b_runs(&place);

    // A source that was lost is fetched again beside it; an unfinished download of a living process stays.
    let sources = place.path("cache/umlfs/sources");
    let source = fs::read_dir(&sources).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&source).unwrap();
    succeeds(&umlfs(&place, &["sources", "fetch"]));
    assert!(source.exists());
    succeeds(&umlfs(&place, &["sources", "verify"]));
    succeeds(&umlfs(&place, &["pkg", "list"]));
    succeeds(&umlfs(&place, &["report", "--out", "report.html"]));
    for args in [&["--dry-run"][..], &["--explain", "b/final"], &["--until", "a/final"]] {
        let output = place.build(args);
        succeeds(&output);
        assert!(!stderr(&output).contains("waiting"), "{args:?}: {}", stderr(&output));
    }

    // A shell has a copy of its own, which goes with it.
    let mut shell = start(&place, &["--shell", "b/final"]);
    shell.stdin.take().unwrap().write_all(b"ls /tmp\necho shell > /tmp/go\nexit 3\n").unwrap();
    let shell = shell.wait_with_output().unwrap();
    assert_eq!(shell.status.code(), Some(3), "{}", stderr(&shell));
    assert!(stderr(&shell).contains("another umlfs is at work in its directory"), "{}", stderr(&shell));
    assert!(!work.join("tmp/go").exists());
    assert_eq!(works(&place), [work.as_path()]);
    assert!(build.try_wait().unwrap().is_none());

    // Who builds waits, and is told for whom.
    let second = start(&place, &[]);
    // Who follows sees the step that runs, to its end.
    let follow = start(&place, &["--follow", "b/final"]);
    std::thread::sleep(Duration::from_millis(500));
    fs::write(work.join("tmp/go"), "").unwrap();
    let follow = follow.wait_with_output().unwrap();
    succeeds(&follow);
    assert_eq!(String::from_utf8_lossy(&follow.stdout), "first words\nlast words\n");
    assert!(stderr(&follow).contains(&format!("(process {}, profile p)", build.id())), "{}", stderr(&follow));
    succeeds(&build.wait_with_output().unwrap());
    let second = second.wait_with_output().unwrap();
    succeeds(&second);
    assert!(stderr(&second).contains("waiting for it to end"), "{}", stderr(&second));
    assert!(!stderr(&second).contains("start  "), "{}", stderr(&second));
    assert_eq!(works(&place), [""; 0].map(PathBuf::from));
}

#[test]
fn who_follows_a_step_that_fails_is_told() {
    let place = Place::new();
    two(&place);
    let build = start(&place, &[]);
    let work = b_runs(&place);
    let follow = start(&place, &["--follow", "b/final"]);
    std::thread::sleep(Duration::from_millis(300));
    fs::write(work.join("tmp/fail"), "").unwrap();
    fs::write(work.join("tmp/go"), "").unwrap();
    fails(&follow.wait_with_output().unwrap(), 1, &["b/final failed in the build that was followed"]);
    fails(&build.wait_with_output().unwrap(), 1, &["phase build failed"]);
}

#[test]
fn an_open_shell_does_not_hold_off_a_build() {
    let place = Place::new();
    two(&place);
    let mut shell = start(&place, &["--shell", "a/final"]);
    let mut typed = shell.stdin.take().unwrap();
    typed.write_all(b"echo mine > note; touch /tmp/there\n").unwrap();
    let there = wait_until("the shell", || works(&place).pop().filter(|w| w.join("tmp/there").exists()));
    succeeds(&place.build(&["--until", "a/final"]));
    typed.write_all(b"cat note; exit\n").unwrap();
    drop(typed);
    let shell = shell.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shell.stdout), "mine\n", "{}", stderr(&shell));
    // As it was left, until the step is built again.
    assert_eq!(works(&place), [there]);
}
