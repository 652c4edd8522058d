//! A machine's disk: an image in the step's work directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::program::Program;
use crate::compose::compose;
use crate::error::{Error, Result};
use crate::recipe::Root;
use crate::sandbox::{Spec, host_root};
use crate::store::remove_tree;

/// Its size: more than any step needs. The file is as large as what was written to it.
const SIZE: &str = "32G";

/// Directories of the work directory that go onto it as they are.
const MOVED: [&str; 4] = ["build", "dest", "inputs", "tmp"];

/// Directories on which something is mounted, or that are filled later.
const EMPTY: [&str; 5] = ["dev", "proc", "run", "sources", "umlfs"];

/// The image of a step. It is there when it is whole.
pub(super) fn path(work: &Path) -> PathBuf {
    work.join("root.img")
}

/// A directory with the mode that it has in namespaces, whatever the user's umask.
pub(super) fn mkdir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .map_err(|e| Error::io("creating", path, e))
}

/// Makes the image of the work directory and the packages that the step needs. All of it is root's, as it is in namespaces.
pub(super) fn make(umlfs: &Program, spec: &Spec, archives: &[PathBuf]) -> Result<()> {
    let top = spec.work.join("image");
    mkdir(&top)?;
    for name in MOVED {
        let from = spec.work.join(name);
        std::fs::rename(&from, top.join(name)).map_err(|e| Error::io("moving", &from, e))?;
    }
    for name in EMPTY {
        mkdir(&top.join(name))?;
    }
    for (name, path) in &spec.sources {
        let there = top.join("sources").join(name);
        // Another file system, or another user's file.
        if std::fs::hard_link(path, &there).is_err() {
            std::fs::copy(path, &there).map_err(|e| Error::io("copying", path, e))?;
        }
    }
    let mut from: Vec<&Path> = Vec::new();
    match spec.root {
        Root::Packages => from.extend(archives.iter().map(PathBuf::as_path)),
        Root::Host => {
            let sysroot = top.join("sysroot");
            mkdir(&sysroot)?;
            compose(archives.iter().map(PathBuf::as_path), &sysroot)?;
            if sysroot.join("tools").is_dir() {
                mkdir(&top.join("tools"))?;
            }
            host_system(&top, &spec.commands)?;
        }
    }
    from.push(&top);
    let image = path(&spec.work);
    let mut command = umlfs.command(spec.builder);
    command.args(["image", "create", "--quiet", "--force", "--type", "ext4", "--size", SIZE, "--owner", "0:0"]);
    for input in from {
        command.arg("--from").arg(input);
    }
    command.arg(image);
    umlfs.run(command, "umlfs image create", &spec.work)?;
    remove_tree(&top)
}

/// Where the host's directories are to be seen, the links into them, and what is copied.
fn host_system(top: &Path, commands: &[(String, PathBuf)]) -> Result<()> {
    for directory in host_root::shared() {
        mkdir(&top.join(directory.trim_start_matches('/')))?;
    }
    let link = |target: &Path, at: &Path| symlink(target, at).map_err(|e| Error::io("linking", at, e));
    for name in host_root::TOP {
        if let Ok(target) = std::fs::read_link(Path::new("/").join(name)) {
            link(&target, &top.join(name))?;
        }
    }
    let etc = top.join("etc");
    mkdir(&etc)?;
    for (name, text) in host_root::ETC {
        std::fs::write(etc.join(name), text).map_err(|e| Error::io("writing", &etc.join(name), e))?;
    }
    for name in host_root::ETC_FILES {
        let host = Path::new("/etc").join(name);
        if host.is_file() {
            std::fs::copy(&host, etc.join(name)).map_err(|e| Error::io("copying", &host, e))?;
        }
    }
    let bin = top.join("host/bin");
    if !commands.is_empty() {
        mkdir(&top.join("host"))?;
        mkdir(&bin)?;
    }
    commands.iter().try_for_each(|(name, path)| link(path, &bin.join(name)))
}

/// Copies what is in a directory of the host into one of the image.
pub(super) fn put(umlfs: &Program, spec: &Spec, from: &Path, to: &str) -> Result<()> {
    let mut command = umlfs.command(spec.builder);
    command.args(["image", "cp", "-r", "--owner", "0:0"]).arg(from.join("."));
    command.arg(inside(spec, to));
    umlfs.run(command, "umlfs image cp", &spec.work).map(drop)
}

/// Copies a directory at the image's top into the work directory; the value is where it lies there.
pub(super) fn get(umlfs: &Program, spec: &Spec, name: &str) -> Result<PathBuf> {
    let to = spec.work.join(name);
    remove_tree(&to)?;
    let mut command = umlfs.command(spec.builder);
    command.args(["image", "cp", "-r"]).arg(inside(spec, &format!("/{name}"))).arg(&*spec.work);
    umlfs.run(command, "umlfs image cp", &spec.work)?;
    // The owner is not the image's root any more, so the copy is no set-id program; the package is to have it as one.
    for (bit, digits) in [(0o4000, "4000"), (0o2000, "2000")] {
        let mut command = umlfs.command(spec.builder);
        command.args(["image", "find", "--perm", digits]).arg(inside(spec, &format!("/{name}")));
        for found in umlfs.run(command, "umlfs image find", &spec.work)? {
            let copy = spec.work.join(OsStr::from_bytes(found.strip_prefix(b"/").unwrap_or(&found)));
            let mode = |path: &Path| std::fs::symlink_metadata(path).map(|m| m.permissions().mode());
            mode(&copy)
                .and_then(|mode| std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode | bit)))
                .map_err(|e| Error::io("changing the mode of", &copy, e))?;
        }
    }
    Ok(to)
}

/// `IMAGE:PATH`
fn inside(spec: &Spec, to: &str) -> OsString {
    let mut argument = path(&spec.work).into_os_string();
    argument.push(":");
    argument.push(to);
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_s_root_has_links_files_and_places_for_shares() {
        let dir = tempfile::tempdir().unwrap();
        let commands = [("cat".to_owned(), PathBuf::from("/usr/bin/cat"))];
        host_system(dir.path(), &commands).unwrap();
        assert!(dir.path().join("usr").is_dir());
        assert_eq!(std::fs::read_link(dir.path().join("host/bin/cat")).unwrap(), Path::new("/usr/bin/cat"));
        assert!(std::fs::read_to_string(dir.path().join("etc/passwd")).unwrap().starts_with("root:x:0:0:"));
        for name in host_root::TOP {
            let host = Path::new("/").join(name);
            assert_eq!(host.is_symlink(), dir.path().join(name).is_symlink(), "{name}");
            assert_eq!(std::fs::read_link(host).ok(), std::fs::read_link(dir.path().join(name)).ok(), "{name}");
        }
    }
}
