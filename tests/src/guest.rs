//! Small C programs (`guest/*.c`) that run natively and in machines.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{judge, repository, run, umlfs};

/// A program, and an image with it and nothing else.
pub struct GuestProgram {
    /// Where the host has it.
    pub program: PathBuf,
    /// The image, in which it is `/NAME`.
    pub image: PathBuf,
}

impl GuestProgram {
    /// Compiles `guest/NAME.c`, linked statically, and makes an image with it in `dir`.
    ///
    /// # Panics
    /// There is no C compiler, or no room.
    #[track_caller]
    pub fn new(name: &str, dir: &Path) -> GuestProgram {
        let root = dir.join("root");
        for made in ["root", "root/tmp", "root/dev", "root/proc", "root/sys"] {
            fs::create_dir(dir.join(made)).unwrap();
        }
        let (program, image) = (root.join(name), dir.join("t.img"));
        run(judge("gcc")
            .args(["-static", "-pthread", "-O1", "-Wall", "-Wno-unused-result", "-o"])
            .arg(&program)
            .arg(repository().join("tests/guest").join(name).with_extension("c")))
        .expect_success();
        run(umlfs().args(["image", "create", "--quiet", "--free", "16M", "--from"]).arg(&root).arg(&image))
            .expect_success();
        GuestProgram { program, image }
    }
}
