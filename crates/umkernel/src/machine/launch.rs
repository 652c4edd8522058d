//! What comes before a machine runs: opens and locks what the user named, saying what is wrong with it, and starts the
//! platform.

use super::{BootError, MachineConfig, Outcome, RootDisk, WATCHED_SIGNALS};
use crate::host::{HostFd, process};
use crate::platform::ptrace::Ptrace;
use crate::trace::{HostStream, Options, Tracer};
use std::boxed::Box;
use std::format;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::string::{String, ToString};

/// A machine as a user asks for it.
#[derive(Clone, Debug)]
pub struct LaunchConfig {
    /// The root disk's image: `/dev/ubda`.
    pub image: PathBuf,
    /// The root file system is mounted read-only.
    pub read_only: bool,
    /// Who watches the guests' system calls.
    pub trace: Option<TraceConfig>,
    /// What the machine is like and what it runs.
    pub machine: MachineConfig,
}

/// A way to run a machine in the calling process, which is a kernel process and ends afterwards: one for each platform.
pub type Launcher = fn(&LaunchConfig) -> Result<Outcome, BootError>;

/// Runs a machine on the `ptrace` platform.
///
/// # Errors
/// Before any guest code ran: the image, the trace's file, the host's rights, or a program that cannot be started.
pub fn ptrace(config: &LaunchConfig) -> Result<Outcome, BootError> {
    // The platform's threads inherit the mask.
    process::block_signals(WATCHED_SIGNALS.0).map_err(|e| BootError::new(format!("cannot block signals: {e}"), ""))?;
    let platform =
        Ptrace::start().map_err(|what| BootError::new(what, "run `umlfs doctor` to see what the host allows"))?;
    let disk = config.open_disk()?;
    let trace = config.trace.as_ref().map(TraceConfig::open).transpose();
    let trace = trace.map_err(|what| BootError::new(what, ""))?;
    let tracer = trace.map(|(options, stream)| Tracer::new(options, Box::new(stream)));
    super::run(&config.machine, Box::new(platform), disk, tracer)
}

impl LaunchConfig {
    /// Opens and locks the image.
    ///
    /// # Errors
    /// An image that cannot be opened, is none, or belongs to another machine that runs.
    pub fn open_disk(&self) -> Result<RootDisk, BootError> {
        let path = self.image.display();
        let open = |write| File::options().read(true).write(write).open(&self.image);
        let file = open(!self.read_only).map_err(|e| {
            BootError::new(format!("cannot open {path}: {e}"), "the root disk's image is the first argument")
        })?;
        let meta = file.metadata().map_err(|e| BootError::new(format!("{path}: {e}"), ""))?;
        if meta.is_dir() {
            return Err(BootError::new(format!("{path} is a directory"), "`umlfs image create` makes an image of it"));
        }
        self.lock(&file)?;
        let size = meta.len();
        let mut probe = [0; 1];
        if size == 0 || file.read_at(&mut probe, 0).map_err(|e| BootError::new(format!("{path}: {e}"), ""))? == 0 {
            return Err(BootError::new(format!("{path} is empty"), "`umlfs image create` makes an image"));
        }
        let image = HostFd::new(file.into_raw_fd());
        Ok(RootDisk { image, size, read_only: self.read_only, name: path.to_string() })
    }

    /// Two machines that write to one image would destroy it.
    fn lock(&self, file: &File) -> Result<(), BootError> {
        let result = if self.read_only { file.try_lock_shared() } else { file.try_lock() };
        match result {
            Ok(()) => Ok(()),
            Err(std::fs::TryLockError::WouldBlock) => Err(BootError::new(
                format!("{} is in use by another machine", self.image.display()),
                "power it off first, or boot with `ro` so that both only read",
            )),
            // A file system without locks: nothing to be done.
            Err(std::fs::TryLockError::Error(_)) => Ok(()),
        }
    }
}

/// A trace that a user asks for.
#[derive(Clone, Debug, Default)]
pub struct TraceConfig {
    /// What it shows.
    pub options: Options,
    /// The file that it goes to; standard error without one.
    pub file: Option<PathBuf>,
}

impl TraceConfig {
    /// Makes the file, empty.
    ///
    /// # Errors
    /// A sentence about a file that cannot be written.
    pub fn create_file(&self) -> Result<(), String> {
        self.file.as_ref().map_or(Ok(()), |path| {
            File::create(path).map(drop).map_err(|e| format!("cannot write the trace to {}: {e}", path.display()))
        })
    }

    /// Opens what the trace goes to; a file goes on where it was, as a machine that restarts needs it.
    ///
    /// # Errors
    /// A sentence about a file that cannot be written.
    pub fn open(&self) -> Result<(Options, HostStream), String> {
        let (stream, raw): (OwnedFd, bool) = match &self.file {
            Some(path) => {
                let file = File::options().append(true).create(true).open(path);
                (file.map_err(|e| format!("cannot write the trace to {}: {e}", path.display()))?.into(), false)
            }
            None => {
                let stderr = io::stderr();
                let stream = stderr.as_fd().try_clone_to_owned();
                // The terminal is raw while a machine has it.
                let raw = stderr.is_terminal();
                (stream.map_err(|e| format!("cannot write the trace to standard error: {e}"))?, raw)
            }
        };
        Ok((self.options.clone(), HostStream::new(HostFd::new(stream.into_raw_fd()), raw)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Run;

    fn config(image: PathBuf) -> LaunchConfig {
        let machine = MachineConfig {
            memory: 64 << 20,
            cpus: 1,
            command_line: String::new(),
            run: Run::Init(None),
            env: std::vec::Vec::new(),
            verbose: false,
        };
        LaunchConfig { image, read_only: false, trace: None, machine }
    }

    #[test]
    fn an_image_belongs_to_one_machine_that_writes() {
        let path = std::env::temp_dir().join(format!("umkernel-launch-{}", std::process::id()));
        std::fs::write(&path, [0; 512]).unwrap();
        let writing = config(path.clone());
        let reading = LaunchConfig { read_only: true, ..writing.clone() };
        let disk = writing.open_disk().unwrap();
        assert_eq!((disk.size, disk.read_only), (512, false));
        assert!(writing.open_disk().unwrap_err().what.contains("in use"));
        assert!(reading.open_disk().unwrap_err().what.contains("in use"));
        drop(disk);
        // Children that other tests start just now may hold the descriptor, and so the lock, until they run their programs.
        crate::testing::soon(|| reading.open_disk().is_ok());
        let disks = [reading.open_disk().unwrap(), reading.open_disk().unwrap()];
        assert!(disks.iter().all(|disk| disk.read_only));
        drop(disks);
        std::fs::write(&path, []).unwrap();
        assert!(writing.open_disk().unwrap_err().what.contains("is empty"));
        std::fs::remove_file(&path).unwrap();
        assert!(writing.open_disk().unwrap_err().what.contains("cannot open"));
        assert!(config(std::env::temp_dir()).open_disk().is_err());
    }
}
