//! `umlfs boot --trace`: what strace shows of a program natively is right, on every platform.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;

use umlfs_tests::guest::GuestProgram;
use umlfs_tests::machine::platforms;
use umlfs_tests::{judge, run, umlfs};

/// The lines of a trace (`strace -f`), each process's in its order, the processes in that of their first lines. From the line that
/// has `begin` on; without what differs between two runs, ids and addresses, and with calls in one piece.
fn calls(trace: &str) -> Vec<Vec<String>> {
    let from = trace.lines().position(|line| line.contains("\"begin\"")).unwrap();
    let mut processes: Vec<String> = Vec::new();
    let mut calls: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for line in trace.lines().skip(from) {
        let (pid, text) = line.split_once(' ').unwrap();
        let at = processes.iter().position(|known| known == pid).unwrap_or_else(|| {
            processes.push(pid.into());
            processes.len() - 1
        });
        let lines = calls.entry(at).or_default();
        let text = text.trim_start();
        if let Some((_, rest)) = text.strip_prefix("<... ").and_then(|text| text.split_once(" resumed>")) {
            let begun = lines.last_mut().unwrap();
            begun.truncate(begun.find(" <unfinished ...>").unwrap());
            begun.push_str(rest);
        } else if !text.starts_with("--- SIGCHLD") {
            // strace, as a debugger, sees signals also where they are ignored.
            lines.push(text.into());
        }
    }
    let plain = |lines: &Vec<String>| lines.iter().map(|line| without_ids(line, &processes)).collect();
    calls.values().map(plain).collect()
}

/// A line with process ids by their order, and without addresses.
fn without_ids(line: &str, processes: &[String]) -> String {
    let place = |id: &str| processes.iter().position(|known| known == id).map(|at| format!("PROCESS{at}"));
    let mut line = line.to_owned();
    for before in ["kill(", "si_pid="] {
        if let Some((head, tail)) = line.split_once(before)
            && let Some((id, tail)) = tail.split_once(',')
            && let Some(id) = place(id)
        {
            line = format!("{head}{before}{id},{tail}");
        }
    }
    if ["fork", "getpid", "wait4"].iter().any(|call| line.starts_with(call))
        && let Some((head, id)) = line.rsplit_once(' ')
        && let Some(id) = place(id)
    {
        line = format!("{head} {id}");
    }
    while let Some(at) = line.find("0x7") {
        let len = line[at + 2..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(line.len() - at - 2);
        line.replace_range(at..at + 2 + len, "ADDRESS");
    }
    // Where such a thing stands, or where a call was in pieces, the result's column is another.
    line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Calls by name in a trace, each counted once.
fn counts(trace: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in trace.lines().filter(|line| !line.contains(" resumed>")) {
        let name = line.split_whitespace().nth(1).and_then(|text| text.split_once('('));
        if let Some((name, _)) = name {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Boots a program with a trace of lines and with figures: each call is in both.
fn figures_count_what_the_trace_shows(name: &str, args: &[&str], code: i32) {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestProgram::new(name, dir.path());
    for platform in platforms() {
        let (trace, stats) = (dir.path().join("trace"), dir.path().join("stats"));
        let mut boot = umlfs();
        boot.args(["boot", "--platform", platform]).arg(format!("--trace={}", trace.display()));
        boot.arg(format!("--stats={}", stats.display())).arg(&guest.image);
        run(boot.arg("--").arg(format!("/{name}")).args(args)).expect_code(code);
        let stats = fs::read_to_string(&stats).unwrap();
        let mut rest = counts(&fs::read_to_string(&trace).unwrap());
        let rows: Vec<&str> = stats.lines().skip(1).take_while(|line| !line.contains(" calls in ")).collect();
        for row in &rows {
            let fields: Vec<&str> = row.split_whitespace().collect();
            let seen = rest.remove(fields[0]).map(|count| count.to_string());
            assert_eq!(seen.as_deref(), Some(fields[1]), "{row} on {platform}\n{stats}");
        }
        assert!(rest.is_empty(), "{rest:?} on {platform}\n{stats}");
        let total: u64 = rows.iter().map(|row| row.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum();
        assert!(stats.contains(&format!("\n{total} calls in ")), "on {platform}\n{stats}");
        assert_eq!(stats.contains(" came by a jump, "), *platform == "direct", "{stats}");
        assert!(stats.contains(" page faults, "), "{stats}");
    }
}

#[test]
fn figures_count_what_the_trace_shows_of_processes() {
    figures_count_what_the_trace_shows("traced", &["/tmp"], 7);
}

/// Lines of threads that run side by side interrupt each other at any place.
#[test]
fn figures_count_what_the_trace_shows_of_threads() {
    figures_count_what_the_trace_shows("threads", &[], 0);
}

#[test]
fn lines_are_those_of_strace() {
    let dir = tempfile::tempdir().unwrap();
    let guest = GuestProgram::new("traced", dir.path());
    let (work, right) = (dir.path().join("work"), dir.path().join("right"));
    fs::create_dir(&work).unwrap();
    let mut native = judge("strace");
    native.args(["-f", "-o"]).arg(&right).arg(&guest.program).arg(&work);
    run(&mut native).expect_code(7);
    let right = calls(&fs::read_to_string(&right).unwrap());
    assert_eq!(right.len(), 3, "{right:#?}");
    for platform in platforms() {
        let trace = dir.path().join(platform);
        let mut boot = umlfs();
        boot.args(["boot", "--platform", platform]).arg(format!("--trace={}", trace.display()));
        run(boot.arg(&guest.image).args(["--", "/traced", "/tmp"])).expect_code(7);
        let text = fs::read_to_string(&trace).unwrap();
        for (right, ours) in right.iter().zip(calls(&text)) {
            for (right, ours) in right.iter().zip(&ours) {
                assert_eq!(ours, right, "on {platform} (right: strace's)\n{text}");
            }
            assert_eq!(ours.len(), right.len(), "on {platform}\n{text}");
        }
    }
}
