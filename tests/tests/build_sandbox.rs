//! `umlfs build --sandbox`: the same packages from namespaces and from machines of umlfs's own kernel, whose steps fail, stop and
//! are looked into like the others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use umlfs_tests::place::{NOBODY, Place, fails, lives, sha256, stderr, succeeds, wait_until};
use umlfs_tests::{judge, repository};

/// A system of bash and mkdir with the host's libraries: enough of one to work in.
const SHELL: &str = "    phases:
      install: |
        mkdir -p \"$DEST/bin\" \"$DEST/lib64\" \"$DEST/lib/x86_64-linux-gnu\" \"$DEST/etc\"
        cp -L /bin/bash /bin/mkdir /bin/ln /bin/chmod \"$DEST/bin\"
        cp -L /lib64/ld-linux-x86-64.so.2 \"$DEST/lib64\"
        for lib in libc.so.6 libtinfo.so.6 libselinux.so.1 libpcre2-8.so.0; do
            [ ! -e /lib/x86_64-linux-gnu/$lib ] || cp -L /lib/x86_64-linux-gnu/$lib \"$DEST/lib/x86_64-linux-gnu\"
        done
";

/// What a step sees, and the kinds of files that it can install.
const LOOKS: &str = "
        mkdir -p \"$DEST/usr/bin\"
        {
          echo \"$UID $HOSTNAME $PWD $(umask) $SOURCE_DATE_EPOCH\"
          echo \"$(<hello) $(<$INPUTS/input)\" $SOURCES/*
          echo /dev/* /sys/* /run/umlfs/phases/*
          for place in / /bin /etc /sources /inputs /proc /run /build /dest /tmp; do
            { : > $place/new; } 2>/dev/null && echo \"$place: writable\" || echo \"$place: not writable\"
          done
          [[ -c /dev/null && -k /tmp ]] && echo devices
        } > \"$DEST/usr/bin/seen\"
        chmod 4755 \"$DEST/usr/bin/seen\"
        ln \"$DEST/usr/bin/seen\" \"$DEST/usr/bin/again\"
        ln -s seen \"$DEST/usr/bin/link\"
";

/// A profile of `shell`, on the host's tools, and `a`, with nothing but that shell, which runs `phase`.
fn place(phase: &str) -> Place {
    let place = Place::new();
    place.recipe("shell", "", SHELL);
    let bases = "bases:\n  inside: {summary: s, root: packages, needs: [shell/final]}\n";
    place.write("configs/bases.yaml", bases);
    place.write("configs/files/input", "text");
    let source = place.source(None);
    place.write(
        "configs/recipes/a.yaml",
        &format!(
            "name: a\nversion: 1\nsummary: s\nlicense: MIT\n{source}stages:\n  final:\n    summary: s\n    base: inside\n    inputs: [files/input]\n    phases:\n      install: |{phase}"
        ),
    );
    place.profile(&["shell", "a"]);
    place
}

/// Whether a machine of that place runs.
fn machine_lives(place: &Place) -> bool {
    lives(&[place.path("cache").to_str().unwrap(), "root.img"])
}

/// The work directory of step `a`.
fn work(place: &Place) -> PathBuf {
    fs::read_dir(place.path("cache/umlfs/work")).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn both_make_the_same_packages_under_the_same_keys() {
    let place = place(LOOKS);
    let made = ["namespaces", "umkernel"].map(|kind| {
        let mut build = place.command(&["--sandbox", kind]);
        if kind == "umkernel" && nix::unistd::geteuid().is_root() {
            // An ordinary user's packages have set-id programs, too.
            chown(place.path("cache"), Some(NOBODY), Some(NOBODY)).unwrap();
            build.uid(NOBODY).gid(NOBODY);
        }
        let output = build.output().unwrap();
        succeeds(&output);
        let archives = ["shell/final", "a/final"].map(|step| place.archive(&output, step));
        let explained = place.build(&["--explain", "a/final"]);
        let text = String::from_utf8(explained.stdout).unwrap();
        assert!(text.contains(&format!("of processor time) in {kind}\n")), "{text}");
        let seen = judge("tar").arg("-xOf").arg(&archives[1]).arg("usr/bin/again").output().unwrap().stdout;
        let hashes = archives.each_ref().map(|archive| sha256(archive));
        // Paths have keys in them.
        let paths = archives.map(|archive| archive.strip_prefix(place.path("cache")).unwrap().to_owned());
        assert_eq!(fs::read_dir(place.path("cache/umlfs/work")).unwrap().count(), 0);
        fs::remove_dir_all(place.path("cache/umlfs")).unwrap();
        (paths, String::from_utf8(seen).unwrap(), hashes)
    });
    let seen = &made[0].1;
    for line in
        ["0 umlfs /build/a-1 0022 1741132800", "/: not writable", "/build: writable", "/tmp: writable", "devices"]
    {
        assert!(seen.lines().any(|l| l == line), "{line:?} is not in: {seen}");
    }
    assert_eq!(made[0], made[1]);
}

#[test]
fn a_failing_step_says_where_and_can_be_looked_into() {
    let place =
        place("\n        echo made > made\n        echo words\n        [ -e /nowhere ]\n        echo not reached\n");
    let recipe = fs::read_to_string(place.path("configs/recipes/a.yaml")).unwrap();
    let line = recipe.lines().position(|line| line.contains("/nowhere")).unwrap() + 1;
    let at = format!("configs/recipes/a.yaml:{line}");
    let failed = place.build(&["--sandbox", "umkernel"]);
    fails(
        &failed,
        1,
        &[
            "a/final: phase install failed: exit status 1",
            "command: [ -e /nowhere ]",
            &at,
            "| words",
            "--shell a/final",
        ],
    );
    assert!(!stderr(&failed).contains("not reached"));
    assert!(!machine_lives(&place));

    // Without being told, a shell goes to where the step failed.
    let mut shell = place
        .command(&["--shell", "a/final"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(b"echo \"$(<made) $HOSTNAME $DEST.\"\nexit 3\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "made umlfs .\n");
    assert!(stderr(&output).contains("as its last run left it"), "{}", stderr(&output));
}

/// Starts a build whose step never ends, and waits until it is at it.
fn endless(place: &Place) -> Child {
    let log = place.path("cache/umlfs/logs/a-final.log");
    // An earlier run's is not to be taken for this one's.
    let _ = fs::remove_file(&log);
    let child = place.command(&["--sandbox", "umkernel"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the step runs", || fs::read_to_string(&log).is_ok_and(|text| text.contains("at work\n")));
    child
}

#[test]
fn nothing_runs_on_after_an_interrupt_or_the_builder_s_death() {
    let place = place("\n        echo at work\n        (while :; do :; done) &\n        while :; do :; done\n");
    let mut child = endless(&place);
    assert!(machine_lives(&place));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!machine_lives(&place), "the builder waits for the machine's end");

    let mut child = endless(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the machine ends", || !machine_lives(&place));
    // What was left of it is no hindrance.
    assert!(work(&place).join("root.img").is_file());
    let recipe = fs::read_to_string(place.path("configs/recipes/a.yaml")).unwrap();
    place.write("configs/recipes/a.yaml", &recipe.replace("while :; do :; done", ":"));
    succeeds(&place.build(&["--sandbox", "umkernel"]));
    assert_eq!(fs::read_dir(place.path("cache/umlfs/work")).unwrap().count(), 0);
}

#[test]
fn where_namespaces_are_forbidden_umlfs_s_own_kernel_is_used() {
    let place = place(LOOKS);
    let deny = place.path("deny");
    let source = repository().join("tests/host/deny.c");
    let made = judge("gcc").args(["-O1", "-Wall", "-o"]).arg(&deny).arg(source).status().unwrap();
    assert!(made.success());
    let without = |args: &[&str]| {
        let build = place.command(args);
        let mut command = Command::new(&deny);
        command.arg("unshare").arg(build.get_program()).args(build.get_args()).stdin(Stdio::null());
        command.env("XDG_CACHE_HOME", place.path("cache")).output().unwrap()
    };
    fails(
        &without(&["--sandbox", "namespaces"]),
        1,
        &["cannot make the build sandbox: unshare", "Operation not permitted", "hint:"],
    );
    let built = without(&[]);
    succeeds(&built);
    let notes = stderr(&built).lines().filter(|line| line.contains("--sandbox umkernel")).count();
    assert_eq!(notes, 1, "{}", stderr(&built));
    assert!(stderr(&built).contains("unshare(user, mount, pid, net, ipc, uts): EPERM"), "{}", stderr(&built));
}
