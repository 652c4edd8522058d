//! What recipes can say beyond one package by itself, and the ways to look at a build, with small recipes of the tests' own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use umlfs_tests::judge;
use umlfs_tests::place::{Place, fails, stderr, succeeds};

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `umlfs ARGS --profile p` in the place.
fn umlfs(place: &Place, args: &[&str]) -> Output {
    let mut command = Command::new(place.path("umlfs"));
    command.args(args).args(["--profile", "p", "--config-dir"]).arg(place.path("configs"));
    command.env("XDG_CACHE_HOME", place.path("cache")).current_dir(place.path("")).output().unwrap()
}

/// A phase that installs one small file.
fn writes(path: &str, text: &str) -> String {
    format!(
        "    phases:\n      install: |\n        mkdir -p \"$DEST/$(dirname {path})\"\n        echo {text} > \"$DEST{path}\"\n"
    )
}

/// Two recipes, `b` needs `a`.
fn two(place: &Place) {
    place.recipe("a", "", "    phases:\n      install: |\n        echo words of a\n        mkdir -p \"$DEST/a\"\n");
    place.recipe("b", "", "    needs: [a/final]\n    phases:\n      install: |\n        mkdir -p \"$DEST/b\"\n");
    place.profile(&["a", "b"]);
}

#[test]
fn a_stage_stands_on_its_base() {
    let place = Place::new();
    place.write(
        "configs/bases.yaml",
        "bases:\n  b:\n    summary: s\n    host: [base]\n    needs: [tool/old]\n    env: {WHO: base, WHAT: base}\n    finish: |\n      echo done > \"$DEST/finished\"\n",
    );
    place.write(
        "configs/recipes/tool.yaml",
        "name: tool\nversion: 1\nsummary: s\nlicense: MIT\nstages:\n  old:\n    summary: s\n    host: [base]\n    phases: {install: 'echo old > $DEST/tool'}\n  new:\n    summary: s\n    host: [base]\n    replaces: [tool/old]\n    phases: {install: 'echo new > $DEST/tool'}\n",
    );
    // Its sources are an archive in an archive, as Debian has some.
    let source = place.source(None);
    let inner = place.path("sources/inner.tar");
    fs::rename(place.path("sources/src-1.tar.gz"), &inner).unwrap();
    fs::create_dir(place.path("sources/outer")).unwrap();
    fs::rename(&inner, place.path("sources/outer/inner.tar")).unwrap();
    let outer = place.path("sources/src-1.tar.gz");
    let made = judge("tar").arg("-czf").arg(&outer).arg("-C").arg(place.path("sources")).arg("outer").status().unwrap();
    assert!(made.success());
    let pin = umlfs_tests::place::sha256(&outer);
    let old = source.split("sha256: ").nth(1).unwrap()[..64].to_owned();
    let source = source.replace(&old, &pin) + "    debian: {source: s, version: 1, file: f, inner: inner.tar}\n";
    place.recipe("other", &source, &writes("/other", "other"));
    place.write(
        "configs/recipes/a.yaml",
        "name: a\nversion: 1\nsummary: s\nlicense: MIT\nstages:\n  final:\n    summary: s\n    base: b\n    needs: [tool/new]\n    beside: [other]\n    directory: sub/dir\n    env: {WHO: stage}\n    phases:\n      build: |\n        echo \"$WHO $WHAT $(cat $SYSROOT/tool) $(cat ../../../other/hello) ${PWD}\" > \"$DEST/said\"\n",
    );
    place.profile(&["a"]);
    let output = place.build(&[]);
    succeeds(&output);
    // What is replaced is not even built.
    assert!(!stderr(&output).contains("tool/old"), "{}", stderr(&output));
    let archive = place.archive(&output, "a/final");
    let read = |name: &str| stdout(&judge("tar").arg("-xOf").arg(&archive).arg(name).output().unwrap());
    assert_eq!(read("said"), "stage base new hello /build/a-1/sub/dir\n");
    assert_eq!(read("finished"), "done\n");

    // What a base has counts: its change builds the stage again. A failure in its text is placed in its file.
    let bases = fs::read_to_string(place.path("configs/bases.yaml")).unwrap();
    place.write("configs/bases.yaml", &bases.replace("echo done", "ls /nowhere; echo done"));
    fails(&place.build(&[]), 1, &["a/final: phase finish failed", "configs/bases.yaml:8", "ls /nowhere"]);
    place.write("configs/bases.yaml", &bases.replace("[tool/old]", "[tool]"));
    fails(&place.build(&[]), 2, &["bases.yaml:5:13: found \"tool\", expected NAME/STAGE"]);
}

#[test]
fn a_step_and_all_that_need_it_are_built_again() {
    let place = Place::new();
    two(&place);
    succeeds(&place.build(&[]));
    let again = place.build(&["--from", "a/final"]);
    succeeds(&again);
    assert!(
        stderr(&again).contains("done   a/final") && stderr(&again).contains("done   b/final"),
        "{}",
        stderr(&again)
    );
    let again = place.build(&["--from", "b/final"]);
    succeeds(&again);
    assert!(!stderr(&again).contains("a/final") && stderr(&again).contains("done   b/final"), "{}", stderr(&again));
}

#[test]
fn the_output_of_a_step_can_be_followed() {
    let place = Place::new();
    two(&place);
    let live = place.build(&["--follow", "a/final"]);
    succeeds(&live);
    assert!(stdout(&live).contains("words of a\n"), "{}", stdout(&live));
    // Afterwards, what was kept of it.
    let kept = place.build(&["--follow", "a/final", "--until", "a/final"]);
    succeeds(&kept);
    assert_eq!(stdout(&kept), "words of a\n");
    fails(&place.build(&["--follow", "c/final"]), 2, &["c/final", "a/final"]);
}

#[test]
fn a_step_that_builds_differently_is_found() {
    let place = Place::new();
    place.recipe("same", "", &writes("/same", "text"));
    place.recipe(
        "chance",
        "",
        "    phases:\n      install: |\n        cat /proc/sys/kernel/random/uuid > \"$DEST/chance\"\n",
    );
    place.profile(&["same", "chance"]);
    fails(&place.build(&["--check", "same/final"]), 2, &["same/final is not built yet"]);
    succeeds(&place.build(&[]));
    let same = place.build(&["--check", "same/final"]);
    succeeds(&same);
    assert_eq!(stdout(&same), "same    same/final\n");
    let all = place.build(&["--check"]);
    fails(&all, 1, &["1 steps do not give the same package twice"]);
    assert_eq!(stdout(&all), "same    same/final\nDIFFERS chance/final\n    ! /chance: contents\n");
    // Nothing of it stays, and the packages are those of the first build.
    assert_eq!(fs::read_dir(place.path("cache/umlfs/packages")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(place.path("cache/umlfs/work")).unwrap().count(), 0);
}

#[test]
fn the_plan_is_drawn() {
    let place = Place::new();
    two(&place);
    let dot = place.build(&["--graph"]);
    succeeds(&dot);
    assert!(stdout(&dot).contains("\"a/final\" -> \"b/final\";"), "{}", stdout(&dot));
    let svg = place.build(&["--graph", "svg"]);
    succeeds(&svg);
    assert!(stdout(&svg).starts_with("<svg ") && stdout(&svg).ends_with("</svg>\n"), "{}", stdout(&svg));
}

#[test]
fn packages_can_be_looked_into() {
    let place = Place::new();
    place.recipe("a", "", &writes("/etc/a", "text"));
    place.recipe("b", "", &writes("/etc/b", "text"));
    place.profile(&["a", "b"]);
    fails(&umlfs(&place, &["pkg", "owner", "/etc/a"]), 1, &["no package of p brings /etc/a", "2 of its packages"]);
    let output = place.build(&[]);
    succeeds(&output);

    let list = stdout(&umlfs(&place, &["pkg", "list"]));
    assert!(list.starts_with("a/final ") && list.contains("2 paths") && list.contains("MIT"), "{list}");
    let files = stdout(&umlfs(&place, &["pkg", "files", "a/final"]));
    assert_eq!(files, "d0755 0:0      /etc  (directory)\n-0644 0:0      /etc/a  (file of 5 bytes)\n");
    let owner = umlfs(&place, &["pkg", "owner", "/etc/b"]);
    succeeds(&owner);
    assert_eq!(stdout(&owner), "b/final: /etc/b (file of 5 bytes)\n");
    let diff = umlfs(&place, &["pkg", "diff", "a/final", "b/final"]);
    assert_eq!((diff.status.code(), stdout(&diff).as_str()), (Some(1), "- /etc/a\n+ /etc/b\n"));
    succeeds(&umlfs(&place, &["pkg", "diff", "a/final", "a/final"]));

    succeeds(&umlfs(&place, &["pkg", "verify"]));
    let archive = place.archive(&output, "a/final");
    let mut bytes = fs::read(&archive).unwrap();
    bytes[600] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let damaged = umlfs(&place, &["pkg", "verify"]);
    fails(&damaged, 1, &["1 archives are damaged", "--from"]);
    assert!(stdout(&damaged).contains("a/final: ") && stdout(&damaged).contains("1 packages are whole"));
}

#[test]
fn the_report_is_one_file() {
    let place = Place::new();
    two(&place);
    succeeds(&place.build(&[]));
    succeeds(&umlfs(&place, &["report", "--out", "report.html"]));
    let text = fs::read_to_string(place.path("report.html")).unwrap();
    for part in ["<h2>Timeline</h2>", "Critical path", "Slowest phases", "a/final", "2 of 2", "2 + 0", "</html>"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    // Nothing is fetched from elsewhere: no address but the SVG name space.
    assert_eq!(text.matches("http").count(), text.matches("http://www.w3.org/2000/svg").count());
    assert!(!text.contains("<script") && !text.contains("src="), "{text}");
    fails(&umlfs(&place, &["report", "--out", "/no/such/dir/r.html"]), 1, &["/no/such/dir/r.html"]);
}

/// As the book tells: in the new system nobody has a name until /etc/passwd is there.
#[test]
fn a_shell_in_the_new_root_has_no_name_before_passwd() {
    let place = Place::new();
    place.recipe(
        "shell",
        "",
        "    phases:
      install: |
        mkdir -p \"$DEST/bin\" \"$DEST/lib64\" \"$DEST/lib/x86_64-linux-gnu\" \"$DEST/etc\"
        cp -L /bin/bash /bin/mkdir \"$DEST/bin\"
        cp -L /lib64/ld-linux-x86-64.so.2 \"$DEST/lib64\"
        for lib in libc.so.6 libtinfo.so.6 libselinux.so.1 libpcre2-8.so.0; do
            [ ! -e /lib/x86_64-linux-gnu/$lib ] || cp -L /lib/x86_64-linux-gnu/$lib \"$DEST/lib/x86_64-linux-gnu\"
        done
",
    );
    place.write(
        "configs/bases.yaml",
        "bases:\n  inside: {summary: s, root: packages, needs: [shell/final]}\nplaces:\n  chroot: {profile: p, step: a/final}\n",
    );
    place.write(
        "configs/recipes/a.yaml",
        "name: a\nversion: 1\nsummary: s\nlicense: MIT\nstages:\n  final:\n    summary: s\n    base: inside\n    phases:\n      install: |\n        mkdir -p \"$DEST/etc\"\n        echo root:x:0:0::/:/bin/bash > \"$DEST/etc/passwd\"\n",
    );
    place.profile(&["a"]);
    let mut shell = place
        .command(&["--shell", "chroot"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let typed =
        b"echo before\nbash -eu /run/umlfs/phases/1-install\nexec bash --noprofile --norc -i\necho after\nexit 3\n";
    shell.stdin.take().unwrap().write_all(typed).unwrap();
    let output = shell.wait_with_output().unwrap();
    let prompts = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{prompts}");
    let (before, after) = prompts.split_once("(lfs chroot) root:").unwrap_or_else(|| panic!("{prompts}"));
    assert!(before.contains("(lfs chroot) I have no name!:") && !after.contains("I have no name!"), "{prompts}");
    assert_eq!(stdout(&output), "before\nafter\n");
    fails(&place.build(&["--shell", "attic"]), 2, &["there is no step or place \"attic\"", "chroot"]);
    // The copy was changed, the package is not there, and a build makes it as ever.
    succeeds(&place.build(&[]));
}
