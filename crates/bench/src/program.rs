//! The guest program: compiled on the spot, static, so that it runs in any root directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::system::output_of;

const SOURCES: [(&str, &str); 7] = [
    ("bench.h", include_str!("../guest/bench.h")),
    ("main.c", include_str!("../guest/main.c")),
    ("calls.c", include_str!("../guest/calls.c")),
    ("messages.c", include_str!("../guest/messages.c")),
    ("processes.c", include_str!("../guest/processes.c")),
    ("memory.c", include_str!("../guest/memory.c")),
    ("files.c", include_str!("../guest/files.c")),
];

/// Compiles it into `dir`.
pub(crate) fn compile(dir: &Path) -> Result<PathBuf> {
    let program = dir.join("bench");
    let mut command = Command::new("cc");
    command.args(["-O2", "-static", "-pthread", "-o"]).arg(&program);
    for (name, text) in SOURCES {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(Error::file(&path))?;
        if name.ends_with(".c") {
            command.arg(path);
        }
    }
    output_of("compiling the guest program", "cc", &mut command)?;
    Ok(program)
}
