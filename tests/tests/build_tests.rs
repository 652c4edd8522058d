//! `umlfs build --test`: packages' own test suites, their results, and that they change nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use umlfs_tests::judge;
use umlfs_tests::place::{Place, fails, sha256, stderr, succeeds};

const PHASES: &str =
    "    phases:\n      build: |\n        echo made > made\n      install: |\n        cp made \"$DEST/made\"\n";

/// As automake's harness says it, with one test that fails; it harms all that it can reach.
const SUITE: &str = "    test: |
      echo 'PASS: a.sh'
      echo spoilt > made; echo spoilt > \"$DEST/made\"; echo more > \"$DEST/more\"
      printf '# TOTAL: 5\\n# PASS:  3\\n# SKIP:  1\\n# XFAIL: 0\\n# FAIL:  1\\n# XPASS: 0\\n# ERROR: 0\\n'
      (exit 2)
";

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The record of a step, by the archive that a build names.
fn record(archive: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(archive.with_file_name("record.json")).unwrap()).unwrap()
}

fn umlfs(place: &Place, args: &[&str]) -> Output {
    let mut command = Command::new(place.path("umlfs"));
    command.args(args).args(["--profile", "p", "--config-dir"]).arg(place.path("configs"));
    command.env("XDG_CACHE_HOME", place.path("cache")).current_dir(place.path("")).output().unwrap()
}

#[test]
fn results_are_recorded_and_the_package_is_the_same() {
    let place = Place::new();
    place.recipe("a", "", PHASES);
    place.profile(&["a"]);
    let before = place.build(&[]);
    succeeds(&before);
    let (key, hash) = (place.archive(&before, "a/final"), sha256(&place.archive(&before, "a/final")));

    // A test does not count: nothing is to be built.
    place.recipe("a", "", &format!("{PHASES}{SUITE}"));
    let nothing = place.build(&["--test"]);
    succeeds(&nothing);
    assert!(stdout(&nothing).contains("nothing was built, so nothing was tested"), "{}", stdout(&nothing));
    assert_eq!(place.archive(&nothing, "a/final"), key);
    assert!(stdout(&place.build(&["--explain", "a/final"])).contains("tests (--test):\n    echo 'PASS: a.sh'"));

    // Named alone, a finished step is tested; its package stays.
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let first = inode(&key);
    let again = place.build(&["--test", "--only", "a/final"]);
    succeeds(&again);
    assert!(
        stderr(&again).contains("tested a/final: 3 passed, 1 failed, 1 skipped (exit status 2)"),
        "{}",
        stderr(&again)
    );
    let row = stdout(&again).lines().find(|l| l.starts_with("  a/final")).unwrap().to_owned();
    assert_eq!(
        row.split_whitespace().take(8).collect::<Vec<_>>(),
        ["a/final", "3", "1", "1", "0", "exit", "status", "2,"]
    );
    assert_eq!((inode(&key), sha256(&key)), (first, hash.clone()));
    let log = fs::read_to_string(key.with_file_name("test.log")).unwrap();
    assert!(log.contains("PASS: a.sh\n") && log.contains("# FAIL:  1\n"), "{log}");
    assert!(!fs::read_to_string(key.with_file_name("build.log")).unwrap().contains("PASS"));

    // Built anew with its tests, it is the same to the byte.
    fs::remove_dir_all(place.path("cache/umlfs/packages")).unwrap();
    let anew = place.build(&["--test"]);
    succeeds(&anew);
    assert_eq!((place.archive(&anew, "a/final"), sha256(&key)), (key.clone(), hash));
    let tests = record(&key)["tests"].clone();
    let numbers = ["passed", "failed", "skipped", "xfailed"].map(|k| tests[k].as_u64().unwrap());
    assert_eq!(
        (numbers, tests["good"].as_bool(), tests["status"].as_str()),
        ([3, 1, 1, 0], Some(false), Some("exit status 2"))
    );
    assert!(!fs::read_to_string(key.with_file_name("build.log")).unwrap().contains("PASS"));
    assert_eq!(fs::read_dir(place.path("cache/umlfs/work")).unwrap().count(), 0);

    succeeds(&umlfs(&place, &["report", "--out", "report.html"]));
    let report = fs::read_to_string(place.path("report.html")).unwrap();
    assert!(report.contains("<h2>Test suites</h2>") && report.contains("exit status 2"), "{report}");
}

#[test]
fn strict_tests_fail_their_step() {
    let place = Place::new();
    place.recipe("a", "", &format!("{PHASES}{SUITE}"));
    place.recipe("b", "", &PHASES.replace("$DEST/made", "$DEST/b"));
    place.profile(&["b", "a"]);
    let strict = place.build(&["--test=strict", "--keep-going"]);
    fails(&strict, 1, &["a/final: phase test failed: exit status 2", "recipes/a.yaml:18", "( exit 2 )", "a-final.log"]);
    assert!(stdout(&strict).contains("its recipe has no `test`"), "{}", stdout(&strict));
    // It is not there, and can be looked into as it failed.
    assert!(stdout(&place.build(&["--dry-run"])).contains("build     a/final"));
    let mut shell = place.command(&["--shell", "a/final"]);
    let shell = shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let mut shell = shell.unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), b"cat made; ls /run/umlfs/phases\n").unwrap();
    assert_eq!(stdout(&shell.wait_with_output().unwrap()), "spoilt\n1-build\n2-install\n3-test\n");
    let recorded = place.build(&["--test"]);
    succeeds(&recorded);
    assert_eq!(record(&place.archive(&recorded, "a/final"))["tests"]["good"], false);
}

/// Perl's own harness, over scripts whose results are known.
#[test]
fn the_numbers_are_those_of_a_real_harness() {
    if !Path::new("/usr/bin/prove").exists() {
        eprintln!("skipped: this host has no prove");
        return;
    }
    let place = Place::new();
    let host = fs::read_to_string(place.path("configs/host.yaml")).unwrap().replace("mkdir,", "mkdir, perl, prove,");
    place.write("configs/host.yaml", &host);
    let test = "    test: |
      printf 'print \"1..3\\\\nok 1\\\\nok 2\\\\nnot ok 3\\\\n\"' > one.t
      printf 'print \"1..2\\\\nok 1\\\\nok 2 # SKIP no\\\\n\"' > two.t
      prove one.t two.t
";
    place.recipe("a", "", &format!("{PHASES}{test}"));
    place.profile(&["a"]);
    let output = place.build(&["--test", "--follow", "a/final"]);
    succeeds(&output);
    assert!(
        stderr(&output).contains("tested a/final: 4 passed, 1 failed, 0 skipped (exit status 1)"),
        "{}",
        stderr(&output)
    );
    // Who follows sees the suite, too.
    assert!(stdout(&output).contains("Files=2, Tests=5,"), "{}", stdout(&output));
    let log = place.archive(&output, "a/final").with_file_name("test.log");
    assert!(judge("grep").args(["-q", "Result: FAIL"]).arg(log).status().unwrap().success());
}
