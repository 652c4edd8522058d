//! A `linux` program: whether it is a User-Mode Linux, and whether it has what a machine needs.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::CliError;

/// What every machine needs to be built in.
const NEEDED: [(&str, &str); 6] = [
    ("BLK_DEV_UBD", "the image is a disk of it"),
    ("EXT4_FS", "the image holds ext2, ext3 or ext4"),
    ("HOSTFS", "its first program lies on the host"),
    ("DEVTMPFS", "it finds its disk in /dev"),
    ("PROC_FS", "its first program looks there"),
    ("SIGNALFD", "its first program waits with it"),
];

/// A User-Mode Linux kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    path: PathBuf,
    config: HashMap<String, String>,
}

impl Kernel {
    /// Asks the program for its configuration (`--showconfig`).
    pub(crate) fn look(path: &Path) -> Result<Kernel, CliError> {
        /// More than any configuration has.
        const MOST: u64 = 4 << 20;
        let hint =
            "name the `linux` that `make ARCH=um` builds, or Debian's /usr/bin/linux.uml (package user-mode-linux)";
        let path = find(path);
        let name = path.display();
        let mut command = Command::new(&path);
        command.arg("--showconfig").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            command.spawn().map_err(|e| CliError::failed(format_args!("cannot run {name}: {e}")).hint(hint))?;
        let mut text = Vec::new();
        let read = child.stdout.take().map(|out| out.take(MOST).read_to_end(&mut text));
        // What goes on printing is none.
        let _ = child.kill();
        let _ = child.wait();
        let config = parse(&String::from_utf8_lossy(&text));
        if !matches!(read, Some(Ok(_))) || config.get("UML").is_none_or(|value| value != "y") {
            return Err(CliError::failed(format_args!("{name} is no User-Mode Linux kernel")).hint(hint));
        }
        let kernel = Kernel { path, config };
        let missing = NEEDED.iter().find(|(option, _)| !kernel.has(option));
        missing.map_or(Ok(()), |(option, why)| {
            Err(CliError::failed(format_args!("{} was built without CONFIG_{option}=y: {why}", kernel.path.display()))
                .hint("set it in the kernel's configuration and build it again"))
        })?;
        Ok(kernel)
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an option is built in.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.config.get(option).is_some_and(|value| value == "y")
    }

    #[cfg(test)]
    pub(super) fn of_config(text: &str) -> Kernel {
        Kernel { path: "/usr/bin/linux".into(), config: parse(text) }
    }
}

/// A name without a slash is looked for as a shell does. The kernel runs itself again when the guest restarts, from whatever
/// directory.
fn find(path: &Path) -> PathBuf {
    if path.components().count() == 1 && !path.is_file() {
        let directories = std::env::var_os("PATH").unwrap_or_default();
        let found =
            std::env::split_paths(&directories).map(|directory| directory.join(path)).find(|file| file.is_file());
        return found.unwrap_or_else(|| path.to_owned());
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn parse(text: &str) -> HashMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_string(), value.trim_matches('"').to_string()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read() {
        let kernel =
            Kernel::of_config("# comment\nCONFIG_UML=y\nCONFIG_EXT4_FS=m\n# CONFIG_SMP is not set\nCONFIG_X=\"a b\"\n");
        assert!(kernel.has("UML") && !kernel.has("EXT4_FS") && !kernel.has("SMP"));
        assert_eq!(kernel.config["X"], "a b");
    }

    #[test]
    fn other_programs_are_refused() {
        for path in ["/bin/cat", "/bin/true", "yes", "/nonexistent/linux", "/"] {
            let error = Kernel::look(Path::new(path)).unwrap_err();
            assert_eq!(error.exit_code(), 1);
            let text = error.to_string();
            assert!(text.contains("no User-Mode Linux") || text.contains("cannot run"), "{path}: {text}");
        }
    }
}
