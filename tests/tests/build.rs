//! `umlfs build` with small recipes of the tests' own: what it makes, what it reuses, what it refuses, what it survives.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use umlfs_tests::place::{NOBODY, Place, fails, lives, sha256, stderr, succeeds, wait_until};
use umlfs_tests::{judge, umlfs};

fn root() -> bool {
    let output = judge("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

const INSTALLS: &str = "    phases:
      build: |
        cat hello > made
        id -u >> made
      install: |
        mkdir -p \"$DEST/usr/bin\"
        cp made \"$DEST/usr/bin/made\"
        chmod 755 \"$DEST/usr/bin/made\"
        ln \"$DEST/usr/bin/made\" \"$DEST/usr/bin/again\"
        ln -s made \"$DEST/usr/bin/link\"
    files:
      /usr/bin/made: {mode: \"4755\", uid: 0, gid: 5}
      /dev/null: {type: char, device: [1, 3], mode: \"0666\"}
";

fn builds(place: &Place) {
    place.recipe("a", &place.source(None), INSTALLS);
    place.profile(&["a"]);
    let first = place.build(&[]);
    succeeds(&first);
    let archive = place.archive(&first, "a/final");
    let list = judge("tar").arg("--numeric-owner").arg("-tvf").arg(&archive).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let words: Vec<Vec<&str>> = list.lines().map(|l| l.split_ascii_whitespace().collect()).collect();
    let find =
        |name: &str| words.iter().find(|w| w.contains(&name)).unwrap_or_else(|| panic!("{name}: {list}")).clone();
    assert_eq!(find("dev/null")[..3], ["crw-rw-rw-", "0/0", "1,3"]);
    assert_eq!(find("usr/bin/again")[..2], ["-rwxr-xr-x", "0/0"]);
    assert_eq!(find("usr/bin/made")[..2], ["hrwsr-xr-x", "0/5"]);
    assert_eq!(find("usr/bin/link")[..2], ["lrwxrwxrwx", "0/0"]);
    assert_eq!(words[0][5], "dev/", "sorted: {list}");
    assert!(list.lines().all(|l| l.contains("2025-03-05")), "{list}");
    let text = judge("tar").arg("-xOf").arg(&archive).arg("usr/bin/again").output().unwrap();
    assert_eq!(text.stdout, b"hello\n0\n");

    // Nothing left to do, and nothing done.
    let made = fs::metadata(&archive).unwrap().modified().unwrap();
    let second = place.build(&[]);
    succeeds(&second);
    assert!(!stderr(&second).contains("start"), "{}", stderr(&second));
    assert_eq!(fs::metadata(&archive).unwrap().modified().unwrap(), made);
    assert_eq!(fs::read_dir(place.path("cache/umlfs/work")).unwrap().count(), 0);
}

#[test]
fn builds_and_reuses() {
    builds(&Place::new());
}

#[test]
fn builds_for_an_ordinary_user() {
    if root() {
        builds(&Place::owned_by(Some(NOBODY)));
    } else {
        // The other test is this one then.
        builds(&Place::new());
    }
}

/// Another directory, another umask, another time: the same bytes.
#[test]
fn two_builds_in_two_places_are_identical() {
    let hashes: Vec<String> = ["022", "077"]
        .iter()
        .map(|umask| {
            let place = Place::new();
            place.write("configs/files/input", "text");
            let stage = INSTALLS.replace(
                "    files:",
                "        cp $INPUTS/input $SOURCES/* \"$DEST\"\n    inputs: [files/input]\n    files:",
            );
            // Not an archive, whose bytes would tell when it was made.
            fs::write(place.path("sources/hello"), "hello").unwrap();
            let source = format!(
                "sources:\n  - file: hello\n    sha256: {}\n    urls: [file://{}]\n    unpack: false\n",
                sha256(&place.path("sources/hello")),
                place.path("sources/hello").display()
            );
            place.recipe("a", &source, &stage.replace("cat hello", "cat $SOURCES/hello"));
            place.profile(&["a"]);
            let mut shell = Command::new("sh");
            shell.args(["-c", "umask $1; shift; exec \"$@\"", "sh", umask]);
            let build = place.command(&[]);
            let output = shell
                .arg(build.get_program())
                .args(build.get_args())
                .env("XDG_CACHE_HOME", place.path("cache"))
                .output()
                .unwrap();
            succeeds(&output);
            sha256(&place.archive(&output, "a/final"))
        })
        .collect();
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn another_hash_is_refused_and_not_kept() {
    let place = Place::new();
    let pin = "0123456789abcdef".repeat(4);
    place.recipe("a", &place.source(Some(&pin)), INSTALLS);
    place.profile(&["a"]);
    let got = sha256(&place.path("sources/src-1.tar.gz"));
    fails(&place.build(&[]), 1, &["src-1.tar.gz", &pin, &got, "hint:"]);
    assert_eq!(fs::read_dir(place.path("cache/umlfs/sources")).unwrap().count(), 0);
}

#[test]
fn a_truncated_source_is_refused() {
    let place = Place::new();
    place.recipe("a", &place.source(None), INSTALLS);
    place.profile(&["a"]);
    let archive = place.path("sources/src-1.tar.gz");
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    fails(&place.build(&[]), 1, &["src-1.tar.gz", &format!("({} bytes)", whole.len() / 2)]);
    fs::write(&archive, &whole).unwrap();
    succeeds(&place.build(&[]));
}

#[test]
fn a_damaged_cache_entry_is_fetched_again() {
    let place = Place::new();
    place.recipe("a", &place.source(None), INSTALLS);
    place.profile(&["a"]);
    succeeds(&place.build(&[]));
    let cached = fs::read_dir(place.path("cache/umlfs/sources")).unwrap().flatten().next().unwrap().path();
    fs::write(&cached, "rubbish").unwrap();
    // The changed recipe needs the source again.
    place.recipe(
        "a",
        &place.source(Some(&cached.file_name().unwrap().to_string_lossy()[..64])),
        &INSTALLS.replace("hello", "./hello"),
    );
    let verify = |expected: i32| {
        let mut command = Command::new(place.path("umlfs"));
        command.args(["sources", "verify", "--profile", "p", "--config-dir"]).arg(place.path("configs"));
        let output = command.env("XDG_CACHE_HOME", place.path("cache")).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(verify(1).starts_with("damaged"));
}

#[test]
fn mistakes_in_recipes_are_named_with_their_place() {
    let place = Place::new();
    place.profile(&["a"]);
    fails(&place.build(&[]), 2, &["profiles/p.yaml:4:5: a/final: there is no recipe", "recipes/a.yaml"]);
    place.recipe("a", "", "    phases: {install: ls}\n    colour: red\n");
    fails(&place.build(&[]), 2, &["recipes/a.yaml:10:5: unknown field `colour`, expected one of summary"]);
    place.recipe("a", "", "    needs: [b/final]\n    phases: {install: ls}\n");
    fails(&place.build(&[]), 2, &["recipes/a.yaml:9:13: b/final: there is no recipe"]);
    place.recipe("b", "", "    needs: [c/final]\n    phases: {install: ls}\n");
    place.recipe("c", "", "    needs: [a/final]\n    phases: {install: ls}\n");
    fails(&place.build(&[]), 2, &["a/final -> b/final -> c/final -> a/final"]);
    place.recipe("a", "", "    inputs: [files/nothing]\n    phases: {install: ls}\n");
    fails(&place.build(&[]), 2, &["recipes/a.yaml:9:14: input ", "files/nothing does not exist"]);
    place.recipe("a", "", "    phases: {install: ls}\n");
    place.write(
        "configs/recipes/a.yaml",
        &fs::read_to_string(place.path("configs/recipes/a.yaml")).unwrap().replace("[base]", "[bse]"),
    );
    fails(&place.build(&[]), 2, &["recipes/a.yaml:8:12: found tool group \"bse\"", "base"]);
    fails(&place.build(&["--profile", "q"]), 2, &["\"q\"", "p"]);
}

#[test]
fn a_failing_phase_tells_where_and_lets_one_look() {
    let place = Place::new();
    place.recipe(
        "a",
        &place.source(None),
        "    phases:\n      build: |\n        touch before\n        echo words of the wise\n        ls /no/such/place\n        touch after\n",
    );
    place.profile(&["a"]);
    let output = place.build(&[]);
    fails(
        &output,
        1,
        &[
            "a/final: phase build failed: exit status 2",
            "command: ls /no/such/place",
            "recipes/a.yaml:17",
            "| words of the wise",
            "logs/a-final.log",
            "umlfs build --shell a/final",
        ],
    );
    let mut shell =
        place.command(&["--shell", "a/final"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"pwd; ls; cat /run/umlfs/phases/1-build; exit 7\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("/build/a-1\n") && text.contains("before\n") && !text.contains("after\n\n"), "{text}");
}

#[test]
fn with_keep_going_the_others_are_built() {
    let place = Place::new();
    let writes = |name: &str| format!("    phases:\n      install: |\n        mkdir -p \"$DEST/{name}\"\n");
    place.recipe("bad", "", "    phases: {install: \"false\"}\n");
    place.recipe("blocked", "", &format!("    needs: [bad/final]\n{}", writes("blocked")));
    place.recipe("good", "", &writes("good"));
    place.recipe("next", "", &format!("    needs: [good/final]\n{}", writes("next")));
    place.profile(&["bad", "blocked", "good", "next"]);
    let output = place.build(&["--keep-going"]);
    fails(&output, 1, &["bad/final: phase install failed", "done   good/final", "done   next/final"]);
    assert!(!stderr(&output).contains("start  blocked"), "{}", stderr(&output));
}

#[test]
fn only_what_changed_is_built_again() {
    let place = Place::new();
    let writes = |name: &str| format!("    phases:\n      install: |\n        mkdir -p \"$DEST/{name}\"\n");
    place.recipe("a", "", &writes("a"));
    place.recipe("b", "", &format!("    needs: [a/final]\n{}", writes("b")));
    place.recipe("c", "", &writes("c"));
    place.profile(&["a", "b", "c"]);
    fails(&place.build(&["--only", "b/final"]), 2, &["b/final needs a/final", "--until b/final"]);
    let until = place.build(&["--until", "b/final"]);
    succeeds(&until);
    assert!(!stderr(&until).contains("start  c/final"));
    succeeds(&place.build(&[]));
    let plan = |place: &Place| {
        let output = place.build(&["--dry-run"]);
        succeeds(&output);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|l| l.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(plan(&place), ["finished a/final", "finished b/final", "finished c/final"]);
    // A description is not what is built.
    let text = fs::read_to_string(place.path("configs/recipes/a.yaml")).unwrap();
    place.write("configs/recipes/a.yaml", &text.replace("summary: a test", "summary: another"));
    assert_eq!(plan(&place)[0], "finished a/final");
    place.write("configs/recipes/a.yaml", &text.replace("DEST/a", "DEST/aa"));
    assert_eq!(plan(&place), ["build a/final", "build b/final", "finished c/final"]);
}

#[test]
fn packages_may_not_bring_the_same_file() {
    let place = Place::new();
    let writes = |name: &str| {
        format!("    phases:\n      install: |\n        mkdir -p \"$DEST/etc\"\n        touch \"$DEST/etc/{name}\"\n")
    };
    place.recipe("a", "", &writes("same"));
    place.recipe("b", "", &writes("same"));
    place.recipe("c", "", &format!("    needs: [a/final, b/final]\n{}", writes("c")));
    place.profile(&["a", "b"]);
    fails(&place.build(&[]), 1, &["/etc/same is in two packages: a/final and b/final"]);
    place.profile(&["c"]);
    fails(&place.build(&[]), 1, &["/etc/same is in two packages: a/final and b/final"]);
}

#[test]
fn the_sandbox_holds() {
    let place = Place::new();
    let secret = place.path("secret");
    fs::write(&secret, "secret").unwrap();
    let stage = format!(
        "    phases:
      look: |
        exec 2>&1
        bad() {{ echo \"BAD: $1\"; exit 1; }}
        ! cat {secret} || bad 'sees host files'
        ! touch /usr/x || bad 'writes to /usr'
        ! touch /x || bad 'writes to the root'
        ! echo x > /proc/sys/kernel/hostname || bad 'writes to the host settings'
        ! command -v perl || bad 'sees undeclared tools'
        [ \"$(uname -n)\" = umlfs ] || bad 'sees the host name'
        [ \"$(id -u)\" = 0 ] || bad 'is not root inside'
        ! (exec 3<>/dev/tcp/127.0.0.1/9) || bad 'reaches the host'
        [ -z \"${{SECRET:-}}\" ] || bad 'sees the environment'
        mkdir -p \"$DEST/ok\"
",
        secret = secret.display()
    );
    place.recipe("a", "", &stage);
    place.profile(&["a"]);
    let output = place.command(&[]).env("SECRET", "1").output().unwrap();
    succeeds(&output);
    fails(
        &{
            place.recipe("a", "", "    phases:\n      install: |\n        touch /usr/lib/outside\n");
            place.build(&[])
        },
        1,
        &["Read-only file system", "command: touch /usr/lib/outside"],
    );
}

#[test]
fn a_root_of_packages_has_nothing_of_the_host() {
    let place = Place::new();
    place.recipe(
        "shell",
        "",
        "    phases:
      install: |
        mkdir -p \"$DEST/bin\" \"$DEST/lib64\" \"$DEST/lib/x86_64-linux-gnu\"
        cp -L /bin/dash \"$DEST/bin/sh\"
        cp -L /lib64/ld-linux-x86-64.so.2 \"$DEST/lib64\"
        cp -L /lib/x86_64-linux-gnu/libc.so.6 \"$DEST/lib/x86_64-linux-gnu\"
",
    );
    place.write(
        "configs/recipes/a.yaml",
        "name: a\nversion: 1\nsummary: s\nlicense: MIT\nstages:\n  final:\n    summary: s\n    root: packages\n    needs: [shell/final]\n    phases:\n      install: |\n        [ ! -e /usr ] && [ ! -e /etc ]\n        echo made > \"$DEST/made\"\n",
    );
    place.profile(&["a"]);
    let output = place.build(&[]);
    succeeds(&output);
    let text = judge("tar").arg("-xOf").arg(place.archive(&output, "a/final")).arg("made").output().unwrap();
    assert_eq!(text.stdout, b"made\n");
}

/// A server that gives each connection the same answer; the value is its address and how many it served.
fn server(answer: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            count.fetch_add(1, Ordering::SeqCst);
            // The client may leave first.
            let _ = stream.write_all(&answer);
        }
    });
    (address, served)
}

fn answer(announced: usize, body: &[u8]) -> Vec<u8> {
    let mut all = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n").into_bytes();
    all.extend_from_slice(body);
    all
}

/// The place's source, to be had from `address` only.
fn from_server(place: &Place, address: &str) -> String {
    let source = place.source(None);
    let file_url = source.split("urls: [").nth(1).unwrap().split(']').next().unwrap().to_owned();
    source.replace(&file_url, &format!("http://{address}/src-1.tar.gz"))
}

fn without_proxy(place: &Place, args: &[&str]) -> Output {
    place.command(args).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").output().unwrap()
}

#[test]
fn sources_come_over_http() {
    let place = Place::new();
    place.source(None);
    let bytes = fs::read(place.path("sources/src-1.tar.gz")).unwrap();
    let (address, served) = server(answer(bytes.len(), &bytes));
    // The archive is made anew by from_server, in the same second or not: the pin must be of what is served.
    let source = from_server(&place, &address);
    let pinned = sha256(&place.path("sources/src-1.tar.gz"));
    fs::write(place.path("served.tar.gz"), &bytes).unwrap();
    place.recipe("a", &source.replace(&pinned, &sha256(&place.path("served.tar.gz"))), INSTALLS);
    place.profile(&["a"]);
    fails(&place.build(&["--offline"]), 1, &["src-1.tar.gz", "--offline"]);
    assert_eq!(served.load(Ordering::SeqCst), 0);
    succeeds(&without_proxy(&place, &[]));
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[test]
fn a_transfer_that_breaks_off_is_refused() {
    let place = Place::new();
    let (address, _) = server(answer(100_000, &[7; 5_000]));
    place.recipe("a", &from_server(&place, &address), INSTALLS);
    place.profile(&["a"]);
    fails(&without_proxy(&place, &[]), 1, &["cannot get src-1.tar.gz", &address]);
    assert_eq!(fs::read_dir(place.path("cache/umlfs/sources")).unwrap().count(), 0);
}

#[test]
fn a_silent_server_does_not_hold_off_ctrl_c() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    place.recipe("a", &from_server(&place, &address), INSTALLS);
    place.profile(&["a"]);
    let mut command = place.command(&[]);
    let builder = command.env("NO_PROXY", "127.0.0.1").stderr(Stdio::piped()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&answer(1000, b"a few bytes")).unwrap();
    let started = Instant::now();
    assert!(judge("kill").args(["-INT", &builder.id().to_string()]).status().unwrap().success());
    let output = builder.wait_with_output().unwrap();
    fails(&output, 130, &["interrupted"]);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_host_that_fails_is_asked_once() {
    let place = Place::new();
    let (address, served) = server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec());
    let source = from_server(&place, &address);
    place.recipe("a", &source, INSTALLS);
    place.recipe("b", &source, INSTALLS);
    place.profile(&["a", "b"]);
    let output = without_proxy(&place, &["--keep-going", "--jobs", "1"]);
    fails(&output, 1, &["2 steps failed", "503", "skipped, its host failed before in this run"]);
    assert_eq!(stderr(&output).matches("not asked again in this run").count(), 1);
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

/// Recipes of which the first is quick and the second waits for a file on its way; a stage that never ends by itself.
fn slow_recipes(place: &Place, seconds: &str) {
    place.recipe("a", "", "    phases:\n      install: |\n        mkdir -p \"$DEST/a\"\n");
    place.recipe(
        "b",
        "",
        &format!(
            "    needs: [a/final]\n    phases:\n      build: |\n        sleep {seconds} & sleep {seconds}\n      install: |\n        mkdir -p \"$DEST/b\"\n"
        ),
    );
    place.profile(&["a", "b"]);
}

fn killed_and_resumed(place: &Place, seconds: &str, signal: &str) {
    slow_recipes(place, seconds);
    let mark = format!("sleep\0{seconds}");
    let mut builder = place.command(&[]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the slow step starts", || lives(&[&mark]));
    let killed = judge("kill").arg(signal).arg(builder.id().to_string()).status().unwrap();
    assert!(killed.success());
    let status = builder.wait().unwrap();
    if signal == "-INT" {
        assert_eq!(status.code(), Some(130));
    }
    wait_until("the step's processes are gone", || !lives(&[&mark]));
    // Shorter now: another key for the second step, and the first one is still there.
    slow_recipes(place, "0.01");
    let output = place.build(&[]);
    succeeds(&output);
    let text = stderr(&output);
    assert!(!text.contains("start  a/final") && text.contains("start  b/final"), "{text}");
    let left: Vec<_> = fs::read_dir(place.path("cache/umlfs/work")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn kill_9_leaves_no_process_and_a_state_to_resume_from() {
    killed_and_resumed(&Place::new(), "98761", "-KILL");
}

#[test]
fn ctrl_c_leaves_no_process_and_a_state_to_resume_from() {
    killed_and_resumed(&Place::new(), "98762", "-INT");
}

#[test]
fn ctrl_c_does_not_wait_for_an_archive_to_be_unpacked() {
    const SIZE: u64 = 4 << 30;
    let place = Place::new();
    let source = place.source(None);
    // 4 GiB of zeros in a few megabytes: the archive's first block, then the same compressed zeros again and again.
    let script = "cd \"$1\" && rm src-1.tar.gz && truncate -s 4G zeros && mkdir src-1/x && mv zeros src-1/x
        tar -cf - src-1/x/zeros | head -c 512 | gzip > src-1.tar.gz
        head -c 64M /dev/zero | gzip > more
        for i in $(seq 65); do cat more; done >> src-1.tar.gz
        rm -r src-1";
    let made = judge("sh").args(["-c", script, "sh"]).arg(place.path("sources")).status().unwrap();
    assert!(made.success());
    let pinned = source.split("sha256: ").nth(1).unwrap().lines().next().unwrap();
    let source = source.replace(pinned, &sha256(&place.path("sources/src-1.tar.gz")));
    place.recipe("a", &source, INSTALLS);
    place.profile(&["a"]);
    let builder = place.command(&[]).stderr(Stdio::piped()).spawn().unwrap();
    let unpacked = || {
        let work = fs::read_dir(place.path("cache/umlfs/work")).ok()?.flatten().next()?;
        Some(fs::metadata(work.path().join("build/a-1.unpack/src-1/x/zeros")).ok()?.len())
    };
    wait_until("unpacking starts", || unpacked().is_some());
    assert!(judge("kill").args(["-INT", &builder.id().to_string()]).status().unwrap().success());
    fails(&builder.wait_with_output().unwrap(), 130, &["interrupted"]);
    assert!(unpacked().unwrap() < SIZE);
}

#[test]
fn a_step_that_dies_by_itself_is_told_apart() {
    let place = Place::new();
    place.recipe("a", "", "    phases:\n      build: |\n        kill -9 $$\n");
    place.profile(&["a"]);
    fails(&place.build(&[]), 1, &["a/final: phase build failed: killed by signal 9"]);
}

#[test]
fn two_builders_do_not_meet() {
    let place = Place::new();
    place.recipe("a", "", "    phases:\n      install: |\n        sleep 0.5\n        mkdir -p \"$DEST/a\"\n");
    place.profile(&["a"]);
    let children: Vec<_> =
        (0..3).map(|_| place.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    let outputs: Vec<_> = children.into_iter().map(|c| c.wait_with_output().unwrap()).collect();
    outputs.iter().for_each(succeeds);
    let started = outputs.iter().filter(|o| stderr(o).contains("start  a/final")).count();
    assert_eq!(started, 1);
}

/// A cache on a file system of 3 MB, in a mount namespace of the test's own.
#[test]
fn a_full_disk_is_named_and_the_build_goes_on_later() {
    let place = Place::new();
    place.recipe("a", "", "    phases:\n      install: |\n        mkdir -p \"$DEST/a\"\n");
    place.recipe("b", "", "    needs: [a/final]\n    phases:\n      install: |\n        dd if=/dev/urandom of=\"$DEST/b\" bs=1024 count=8000\n");
    place.profile(&["a", "b"]);
    let cache = place.path("cache");
    let build = format!(
        "XDG_CACHE_HOME={} {} build --config-dir {} --profile p",
        cache.display(),
        place.path("umlfs").display(),
        place.path("configs").display()
    );
    let script = format!(
        "mount -t tmpfs -o size=3m tmpfs {cache} || exit 99\n{build}\nfirst=$?\nmount -o remount,size=64m {cache} || exit 98\n\
         echo SECOND >&2\n{build} || exit 97\nexit $first",
        cache = cache.display()
    );
    let output = judge("unshare").args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).output().unwrap();
    fails(&output, 1, &["no space left on the disk that holds", "XDG_CACHE_HOME"]);
    let text = stderr(&output);
    let second = text.split("SECOND").nth(1).unwrap();
    assert!(!second.contains("start  a/final") && second.contains("done   b/final"), "{text}");
}

#[test]
fn steps_run_side_by_side_under_one_jobserver() {
    let place = Place::new();
    for name in ["a", "b"] {
        place.recipe(
            name,
            "",
            &format!("    phases:\n      install: |\n        sleep 1.5\n        mkdir -p \"$DEST/{name}\"\n"),
        );
    }
    place.profile(&["a", "b"]);
    let order = |output: &Output| -> Vec<String> {
        succeeds(output);
        stderr(output)
            .lines()
            .filter(|l| l.starts_with("start") || l.starts_with("done"))
            .map(|l| l[..5].trim().to_owned())
            .collect()
    };
    assert_eq!(order(&place.build(&[])), ["start", "start", "done", "done"]);
    fs::remove_dir_all(place.path("cache/umlfs/packages")).unwrap();
    assert_eq!(order(&place.build(&["--jobs", "1"])), ["start", "done", "start", "done"]);
}

#[test]
fn the_merged_root_is_one_archive() {
    let place = Place::new();
    let writes = |name: &str| {
        format!(
            "    phases:\n      install: |\n        mkdir -p \"$DEST/etc\"\n        echo {name} > \"$DEST/etc/{name}\"\n"
        )
    };
    place.recipe("a", "", &writes("a"));
    place.recipe("b", "", &writes("b"));
    place.profile(&["a", "b"]);
    let out = place.path("root.tar");
    succeeds(&place.build(&["--out", out.to_str().unwrap()]));
    let list = judge("tar").arg("-tf").arg(&out).output().unwrap();
    assert_eq!(String::from_utf8(list.stdout).unwrap(), "etc/\netc/a\netc/b\n");
    fails(&place.build(&["--out", "/no/such/dir/root.tar"]), 1, &["/no/such/dir/root.tar"]);
}

#[test]
fn steps_are_explained() {
    let place = Place::new();
    place.recipe("a", &place.source(None), INSTALLS);
    place.profile(&["a"]);
    let output = place.build(&["--explain", "a/final"]);
    succeeds(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["a/final: a 1", "source:   src-1.tar.gz", "to be built", "phase install:", "cp made"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    fails(&place.build(&["--explain", "a/nothing"]), 2, &["a/nothing", "a/final"]);
}

#[test]
fn the_real_profiles_are_well_formed() {
    let cache = tempfile::tempdir().unwrap();
    for profile in ["tiny", "tiny-test", "lfs-temporary", "lfs-core", "lfs"] {
        let output = umlfs()
            .args(["build", "--dry-run", "--profile", profile])
            .env("XDG_CACHE_HOME", cache.path())
            .output()
            .unwrap();
        succeeds(&output);
        let output = umlfs()
            .args(["sources", "list", "--json", "--profile", profile])
            .env("XDG_CACHE_HOME", cache.path())
            .output()
            .unwrap();
        succeeds(&output);
        assert!(String::from_utf8(output.stdout).unwrap().contains("\"state\": \"missing\""));
    }
}
