//! The help text of every command is kept as a file beside this test, so that a change to it is seen in review.
//! `UMLFS_BLESS=1 cargo test -p cli --test help` writes the files anew.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn umlfs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umlfs"));
    // clap wraps to the terminal's width and takes colours from the environment.
    command.stdin(Stdio::null()).env_clear();
    command
}

fn help(path: &[String]) -> String {
    let output = umlfs().args(path).arg("--help").output().unwrap();
    assert!(output.status.success(), "{path:?} --help: {output:?}");
    assert!(output.stderr.is_empty(), "{path:?} --help: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Names in the `Commands:` section.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn visit(path: &mut Vec<String>, found: &mut Vec<(PathBuf, String)>) {
    let text = help(path);
    let children = subcommands(&text);
    let name = std::iter::once("umlfs").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    found.push((Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help").join(name + ".txt"), text));
    for child in children {
        path.push(child);
        visit(path, found);
        path.pop();
    }
}

#[test]
fn help_texts_are_as_recorded() {
    let mut found = Vec::new();
    visit(&mut Vec::new(), &mut found);
    assert!(found.len() > 3, "{found:?}");
    let mut stale = Vec::new();
    for (path, text) in &found {
        if std::env::var_os("UMLFS_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        } else if std::fs::read_to_string(path).unwrap_or_default() != *text {
            stale.push(format!("{}:\n{text}", path.display()));
        }
    }
    assert!(
        stale.is_empty(),
        "help differs from the recorded text; if it should, run UMLFS_BLESS=1 cargo test -p cli --test help\n{}",
        stale.join("\n")
    );
    // A command that is gone must not leave its text behind.
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help")).unwrap() {
        let path = entry.unwrap().path();
        assert!(found.iter().any(|(known, _)| *known == path), "{} belongs to no command", path.display());
    }
}

#[test]
fn help_has_examples() {
    let mut found = Vec::new();
    visit(&mut Vec::new(), &mut found);
    for (path, text) in found {
        assert!(text.contains("Examples:") || text.contains("\nCommands:\n"), "{} shows no example", path.display());
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&["nonsense"][..], &["image"], &["image", "info"], &["completions", "tcl"], &[]] {
        let output = umlfs().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_failure_says_what_and_exits_with_1() {
    let output = umlfs().args(["image", "info", "/nonexistent/x.img"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "umlfs: error: cannot open /nonexistent/x.img: No such file or directory\n"
    );
}

#[test]
fn a_log_filter_that_does_not_parse_is_named() {
    let output = umlfs().env("UMLFS_LOG", "a=b=c").args(["completions", "bash"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("UMLFS_LOG") && text.contains("hint:"), "{text}");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let output = umlfs().args(["completions", "bash"]).output().unwrap();
    assert!(output.status.success());
    let script = String::from_utf8(output.stdout).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let output = umlfs().args(["man", "--out"]).arg(directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in subcommands(&help(&[])) {
        assert!(script.contains(&name), "{name} is not completed");
        let page = std::fs::read_to_string(directory.path().join(format!("umlfs-{name}.1"))).unwrap();
        assert!(page.contains(".SH DESCRIPTION"), "{name}");
    }
}

#[test]
fn a_reader_that_left_is_no_complaint() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = umlfs().args(["completions", "zsh"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(141));
}
