//! Linux From Scratch, as far as there is time for it in every run of the tests: its plan is tried elsewhere (`build.rs`); here the
//! first step of its cross toolchain is built for real, from the pinned archive.

use umlfs_tests::{run, umlfs};

/// In the user's own cache: minutes at first, nothing to do from then on.
#[test]
fn the_first_step_of_the_cross_toolchain() {
    run(umlfs().args(["build", "--profile", "lfs", "--until", "binutils/pass1"])).expect_success();
    let files = run(umlfs().args(["pkg", "files", "--profile", "lfs", "binutils/pass1"])).expect_success().stdout;
    for program in ["as", "ld", "readelf"] {
        let path = format!(" /tools/bin/x86_64-lfs-linux-gnu-{program}  (file");
        assert!(files.contains(&path), "{path} is not in:\n{files}");
    }
    run(umlfs().args(["pkg", "verify", "--profile", "lfs"])).expect_success();
}
