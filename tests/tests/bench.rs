//! `umlfs bench`, in small: that it measures, on every platform. What it measures is not for a test to judge.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use umlfs_tests::machine::{has_direct, platforms, tiny_image};
use umlfs_tests::uml::linux_uml;
use umlfs_tests::umlfs;

const SHORT: [&str; 4] = ["--rounds", "1", "--milliseconds", "1"];

fn bench(dir: &Path, args: &[&str]) -> (String, String, Option<i32>) {
    let output = umlfs()
        .arg("bench")
        .arg("--image")
        .arg(tiny_image())
        .arg("--directory")
        .arg(dir)
        .args(SHORT)
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn every_system_gives_every_figure_and_a_later_run_compares() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("run.json");
    let uml = ["--uml", linux_uml().to_str().unwrap()];
    let (text, errors, status) =
        bench(dir.path(), &[&uml[..], &["--json", "--save", saved.to_str().unwrap()]].concat());
    assert_eq!(status, Some(0), "{errors}");
    assert_eq!(std::fs::read_to_string(&saved).unwrap(), text);
    let run: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(run["problems"].as_array().unwrap().len(), 0, "{text}");
    for row in run["rows"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let systems: Vec<&String> = row["systems"].as_object().unwrap().keys().collect();
        let mut expected = [platforms(), &["uml"]].concat();
        if !name.starts_with("boot-") {
            expected.push("native");
        }
        expected.sort_unstable();
        assert_eq!(systems, expected, "{name}: {text}");
    }
    let (table, errors, status) =
        bench(dir.path(), &["getppid", "--on", &platforms().join(","), "--compare", saved.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{errors}");
    let row = table.lines().find(|line| line.starts_with("getppid")).unwrap();
    assert!(row.contains(" ns ") && (row.ends_with(" %)") || !has_direct()), "{table}");
    // Nothing is left behind but what was saved.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_measured_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_, errors, status) = bench(dir.path(), &["no-such-thing"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("no-such-thing") && errors.contains("--list"), "{errors}");
    let (_, errors, status) = bench(dir.path(), &["--on", "uml", "--uml", "/nonexistent/linux", "getppid"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("/nonexistent/linux"), "{errors}");
    let (_, errors, status) = bench(dir.path(), &["--compare", "/dev/null", "getppid"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("is no saved run"), "{errors}");
    let listed = Command::new(umlfs_tests::umlfs_path()).args(["bench", "--list"]).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().lines().count() > 30);
}
