//! The files that a run needs: an image for each system, and their contents for the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use imgtool::{Image, Options, Owner, Size};
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::program;
use crate::system::{System, output_of};

/// The guest program in an image.
pub(crate) const BENCH: &str = "/bench";
/// The shell and its tools in an image for scripts.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// The directory that an image offers for work.
pub(crate) const WORK: &str = "/bench-work";
/// Files in the tree for scripts.
const TREE_FILES: &str = "5000";
/// Room in an image for what is written.
const FREE: u64 = 512 << 20;

/// One set of files, in a directory that goes with it.
pub(crate) struct Place {
    dir: TempDir,
    /// The guest program.
    pub(crate) program: PathBuf,
    /// Where the host works, on the same file system as the images.
    pub(crate) work: PathBuf,
    /// The source package in the work directories, if there is one.
    package: bool,
}

impl Place {
    /// For operations, scripts and boots: `image` holds a busybox.
    pub(crate) fn with_busybox(parent: &Path, image: &Path) -> Result<Place> {
        let place = Place::new(parent)?;
        place.fill(image, None)?;
        Ok(place)
    }

    /// For work in the system that `root` holds (a directory, an archive or an image), on a package's sources.
    pub(crate) fn with_root(parent: &Path, root: &Path, package: &Path) -> Result<Place> {
        let place = Place { package: true, ..Place::new(parent)? };
        place.fill(root, Some(package))?;
        Ok(place)
    }

    /// Makes the image, and an archive of its files for the host.
    fn fill(&self, root: &Path, package: Option<&Path>) -> Result<()> {
        let additions = self.additions(package)?;
        self.make_image(&[root.to_path_buf(), additions])?;
        Image::open(self.path("base.img").as_path())?.export_tar_to(b"/", &self.path("root.tar"), true)?;
        Ok(())
    }

    /// Unpacks a root directory for the host, in place of what an earlier round has left.
    fn unpack_root(&self) -> Result<()> {
        let tree = self.native_root();
        if tree.exists() {
            std::fs::remove_dir_all(&tree).map_err(Error::file(&tree))?;
        }
        std::fs::create_dir(&tree).map_err(Error::file(&tree))?;
        let mut command = Command::new("tar");
        command
            .args(["--extract", "--no-same-owner", "--exclude=./dev/*", "--file"])
            .arg(self.path("root.tar"))
            .arg("--directory")
            .arg(&tree);
        output_of("unpacking the root directory", "tar", &mut command).map(drop)
    }

    fn new(parent: &Path) -> Result<Place> {
        let dir = tempfile::Builder::new().prefix("umlfs-bench-").tempdir_in(parent).map_err(Error::file(parent))?;
        let program = program::compile(dir.path())?;
        let work = dir.path().join("work");
        std::fs::create_dir(&work).map_err(Error::file(&work))?;
        Ok(Place { dir, program, work, package: false })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A root directory for the host.
    pub(crate) fn native_root(&self) -> PathBuf {
        self.path("root")
    }

    /// The image of a system.
    pub(crate) fn image(&self, system: System) -> PathBuf {
        self.path(&format!("{}.img", system.name()))
    }

    /// An archive of what an image gets in addition: the guest program, a place to work, mount points, the devices that a kernel
    /// wants before anything is mounted, a package's sources.
    fn additions(&self, package: Option<&Path>) -> Result<PathBuf> {
        let path = self.path("additions.tar");
        let file = std::fs::File::create(&path).map_err(Error::file(&path))?;
        let mut archive = tar::Builder::new(file);
        let mut append = || -> std::io::Result<()> {
            for name in ["proc", "dev", "tmp", &WORK[1..]] {
                archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), name, std::io::empty())?;
            }
            for (name, minor) in [("dev/console", (5, 1)), ("dev/null", (1, 3)), ("dev/zero", (1, 5))] {
                let mut node = header(tar::EntryType::Char, 0o666, 0);
                node.set_device_major(minor.0)?;
                node.set_device_minor(minor.1)?;
                archive.append_data(&mut node, name, std::io::empty())?;
            }
            let program = std::fs::read(&self.program)?;
            let mut file = header(tar::EntryType::Regular, 0o755, program.len() as u64);
            archive.append_data(&mut file, &BENCH[1..], &program[..])?;
            if let Some(package) = package {
                self.unpack(package)?;
                archive.append_dir_all(&WORK[1..], self.path("package"))?;
            }
            archive.finish()
        };
        append().map_err(Error::file(&path))?;
        Ok(path)
    }

    /// Unpacks a source package, without the directory that it has around everything.
    fn unpack(&self, package: &Path) -> std::io::Result<()> {
        let to = self.path("package");
        std::fs::create_dir(&to)?;
        let mut command = Command::new("tar");
        command
            .args(["--extract", "--strip-components=1", "--no-same-owner", "--file"])
            .arg(package)
            .arg("--directory")
            .arg(&to);
        output_of("unpacking the source package", "tar", &mut command).map(drop).map_err(std::io::Error::other)
    }

    fn make_image(&self, from: &[PathBuf]) -> Result<()> {
        let options = Options {
            from: from.to_vec(),
            size: Size::Auto { free: FREE },
            owner: Owner::All { uid: 0, gid: 0 },
            ..Options::new(self.path("base.img"))
        };
        imgtool::create(&options, &mut |_| {})?;
        Ok(())
    }

    /// Gives each system its image, and the host its root directory, fresh.
    pub(crate) fn prepare(&self, systems: &[System]) -> Result<()> {
        let base = self.path("base.img");
        for system in systems {
            match system {
                System::Native => self.unpack_root()?,
                _ => copy_sparse(&base, &self.image(*system))?,
            }
        }
        Ok(())
    }

    /// Whether the work directories hold a source package.
    pub(crate) fn has_package(&self) -> bool {
        self.package
    }

    /// Arguments of the guest program that make the tree for scripts.
    pub(crate) fn tree_arguments(&self) -> [&'static str; 2] {
        ["tree", TREE_FILES]
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// Copies an image without its holes.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.arg("--sparse=always").arg(from).arg(to);
    output_of("copying the image", "cp", &mut command).map(drop)
}
