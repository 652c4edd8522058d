//! Debian's source packages through the host's apt, in a state directory of our own.
//!
//! apt is used for what it knows best: the mirror and proxies that the host is configured with, and signed indices. Nothing below
//! `/etc/apt` or `/var` is written, no hook of the host's configuration is run, and any user may do it. See apt.conf(5), apt-get(8).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;
use crate::error::{Error, Result};
use crate::host::{find_command, install_command};
use crate::progress::{Event, Progress};
use crate::recipe::DebianSource;

/// The suite that the recipes' pins come from: a stable release, whose files stay where they are.
const SUITE: &str = "trixie";

/// Environment variable that names a Debian mirror, for hosts that are not Debian.
const MIRROR_VARIABLE: &str = "UMLFS_DEBIAN_MIRROR";

const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Debian releases by name, as they appear in a mirror's `dists`.
const RELEASES: [&str; 10] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable", "duke"];

/// apt with private state.
#[derive(Debug)]
pub(super) struct Apt {
    dir: PathBuf,
    configured: bool,
    updated: bool,
}

impl Apt {
    pub(super) fn new(dir: PathBuf) -> Self {
        Apt { dir, configured: false, updated: false }
    }

    /// Where one file of a source package is. The hash that the index gives is compared before anything is downloaded.
    pub(super) fn locate(&mut self, debian: &DebianSource, sha256: &str, progress: &dyn Progress) -> Result<String> {
        self.configure()?;
        if !self.updated && !self.has_lists() {
            self.update(progress)?;
        }
        let mut found = self.find(debian);
        if found.is_err() && !self.updated {
            self.update(progress)?;
            found = self.find(debian);
        }
        let Found { uri, index } = found?;
        if let Some((found, size)) = index
            && found != sha256
        {
            return Err(Error::HashMismatch { what: uri, expected: sha256.to_owned(), found, size });
        }
        Ok(uri)
    }

    /// The command that downloads what was located to `target`. It keeps nothing in the state directory: several may run.
    pub(super) fn download(&self, uri: &str, sha256: &str, target: &Path) -> Command {
        let mut command = self.command(Path::new("/usr/lib/apt/apt-helper"));
        command.arg("download-file").arg(uri).arg(target).arg(format!("SHA256:{sha256}"));
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf")).env("LC_ALL", "C").current_dir(&self.dir);
        command
    }

    fn has_lists(&self) -> bool {
        std::fs::read_dir(self.dir.join("lists"))
            .map(|entries| entries.flatten().any(|e| e.file_name().to_string_lossy().contains("_Sources")))
            .unwrap_or(false)
    }

    /// Writes the private configuration.
    fn configure(&mut self) -> Result<()> {
        if self.configured {
            return Ok(());
        }
        if find_command("apt-get").is_none() {
            return Err(other("this host has no apt-get"));
        }
        let keyring = KEYRINGS.into_iter().find(|k| Path::new(k).is_file()).ok_or_else(|| {
            other(&format!(
                "the host has no Debian archive keyring; {}",
                install_command(&["debian-archive-keyring".into()])
            ))
        })?;
        let mirror = match std::env::var(MIRROR_VARIABLE) {
            Ok(mirror) if !mirror.is_empty() => mirror,
            _ => host_mirror()?,
        };
        for sub in ["lists/partial", "cache/archives/partial", "empty", "state"] {
            let path = self.dir.join(sub);
            std::fs::create_dir_all(&path).map_err(|e| Error::io("creating", &path, e))?;
        }
        let write = |name: &str, text: &str| {
            let path = self.dir.join(name);
            std::fs::write(&path, text).map_err(|e| Error::io("writing", &path, e))
        };
        write("status", "")?;
        write("sources.list", &format!("deb-src [signed-by={keyring}] {mirror} {SUITE} main\n"))?;
        let dir = self.dir.display();
        let mut conf = format!(
            "Dir::State \"{dir}/state\";\nDir::State::lists \"{dir}/lists\";\nDir::State::status \"{dir}/status\";\n\
             Dir::Cache \"{dir}/cache\";\nDir::Etc::sourcelist \"{dir}/sources.list\";\nDir::Etc::sourceparts \"{dir}/empty\";\n\
             Dir::Etc::parts \"{dir}/empty\";\nDir::Etc::main \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"{dir}/empty\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"
        );
        for line in host_transport()? {
            let _ = writeln!(conf, "{line}");
        }
        write("apt.conf", &conf)?;
        self.configured = true;
        Ok(())
    }

    fn update(&mut self, progress: &dyn Progress) -> Result<()> {
        progress.event(Event::Note(&format!("reading Debian {SUITE}'s source index with apt")));
        let mut command = self.command(Path::new("apt-get"));
        command.arg("update").arg("-q").args(["-o", "APT::Update::Error-Mode=any"]);
        run(command, "apt-get update")?;
        self.updated = true;
        Ok(())
    }

    /// Where a file of a source package is: in the pinned version, else in the newest that has it, else where the pinned
    /// version's would lie beside them.
    fn find(&self, debian: &DebianSource) -> Result<Found> {
        let mut last = other("not found");
        let mut directory = None;
        for package in [format!("{}={}", debian.source, debian.version), debian.source.clone()] {
            let mut command = self.command(Path::new("apt-get"));
            command.args(["source", "--print-uris", "--download-only", "-qq", "--only-source"]).arg(&package);
            match run(command, "apt-get source") {
                Ok(text) => {
                    let mut lines = text.lines().filter_map(parse_uri_line).peekable();
                    if let Some((uri, name, ..)) = lines.peek() {
                        directory = uri.strip_suffix(&escaped(name)).map(str::to_owned);
                    }
                    match lines.find(|(_, name, ..)| *name == debian.file) {
                        Some((uri, _, size, sha256)) => {
                            return Ok(Found { uri: uri.to_owned(), index: Some((sha256.to_owned(), size)) });
                        }
                        None => {
                            last = other(&format!("source package {package} in {SUITE} has no file {}", debian.file));
                        }
                    }
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(e) => last = e,
            }
        }
        // The suite has moved on to another version; files of earlier releases stay in the pool for a while.
        match directory {
            Some(directory) => Ok(Found { uri: format!("{directory}{}", escaped(&debian.file)), index: None }),
            None => Err(last),
        }
    }
}

/// A file of a source package.
struct Found {
    uri: String,
    /// SHA-256 and size, where an index names it.
    index: Option<(String, u64)>,
}

/// A file's name as apt writes it in a URI.
fn escaped(name: &str) -> String {
    name.replace('+', "%2b").replace('~', "%7e")
}

/// `'URI' NAME SIZE SHA256:HASH`, as `--print-uris` writes it.
fn parse_uri_line(line: &str) -> Option<(&str, &str, u64, &str)> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split(' ');
    let (name, size, hash) = (words.next()?, words.next()?, words.next()?);
    Some((uri, name, size.parse().ok()?, hash.strip_prefix("SHA256:")?))
}

/// The Debian mirror that the host's own apt uses.
fn host_mirror() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["update", "--print-uris"]).env("LC_ALL", "C");
    let text = run(command, "asking apt for its mirror")?;
    text.lines().find_map(mirror_of_line).ok_or_else(|| {
        other(&format!(
            "apt on this host is not configured with a Debian mirror; name one in {MIRROR_VARIABLE} (http://HOST/debian)"
        ))
    })
}

fn mirror_of_line(line: &str) -> Option<String> {
    let (uri, _) = line.strip_prefix('\'')?.split_once('\'')?;
    let (base, rest) = uri.split_once("/dists/")?;
    let suite = rest.split('/').next()?;
    (RELEASES.contains(&suite) && !base.contains("security") && !base.starts_with("cdrom:")).then(|| base.to_owned())
}

/// The host's settings on how to reach mirrors (proxies, retries), as configuration lines.
fn host_transport() -> Result<Vec<String>> {
    let mut command = Command::new("apt-config");
    command.arg("dump").env("LC_ALL", "C");
    let wanted = ["Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::ForceIPv4", "Acquire::ForceIPv6"];
    Ok(run(command, "reading apt's configuration")?
        .lines()
        .filter(|line| wanted.iter().any(|w| line.starts_with(w)) && line.ends_with("\";") && !line.ends_with(" \"\";"))
        .map(str::to_owned)
        .collect())
}

fn other(message: &str) -> Error {
    Error::Usage { message: message.to_owned(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_lines() {
        assert_eq!(
            parse_uri_line(
                "'http://m/debian/pool/m/musl_1.2.5.orig.tar.gz' musl_1.2.5.orig.tar.gz 1080786 SHA256:a9a1"
            ),
            Some(("http://m/debian/pool/m/musl_1.2.5.orig.tar.gz", "musl_1.2.5.orig.tar.gz", 1_080_786, "a9a1"))
        );
        assert_eq!(parse_uri_line("Need to get 3747 kB of source archives."), None);
        assert_eq!(parse_uri_line("'http://m/x' x many SHA256:a9a1"), None);
    }

    #[test]
    fn the_mirror_is_the_main_archive() {
        assert_eq!(mirror_of_line("'http://m/debian/dists/bookworm/InRelease' m 0 "), Some("http://m/debian".into()));
        assert_eq!(mirror_of_line("'http://m/debian-security/dists/bookworm-security/InRelease' m 0 "), None);
        assert_eq!(mirror_of_line("'https://other/apt/dists/nodistro/InRelease' m 0 "), None);
    }
}
