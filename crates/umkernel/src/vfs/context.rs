//! Contexts in which file systems are made and changed parameter by parameter (`fsopen(2)`, `fspick(2)`,
//! `fsconfig(2)`; Documentation/filesystems/mount_api.rst).

use super::{File, FileOps, FsType, Location, MountFlags, MountRequest, OpenFlags, SuperBlock, Vfs};
use crate::bail;
use crate::errno::{Errno, Error, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, PAGE_SIZE};
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// Messages kept until somebody reads them (`struct fc_log` of Linux has as many).
const MESSAGES: usize = 8;

/// How far a context is.
enum Phase {
    /// Takes parameters of a file system to be made.
    Parameters,
    /// The file system is there, and can be mounted.
    Made(Arc<SuperBlock>),
    /// Takes parameters of changes to one.
    Changes(Arc<SuperBlock>),
    /// Something went wrong; it is of no more use.
    Failed,
}

struct State {
    phase: Phase,
    source: Option<Vec<u8>>,
    read_only: Option<bool>,
    /// Options of the file system's own, separated by commas.
    options: String,
    messages: VecDeque<String>,
}

/// A context, as an open file.
pub struct MountContext {
    fs_type: FsType,
    state: Mutex<State>,
}

/// What a parameter sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// Something that is or is not (`FSCONFIG_SET_FLAG`).
    Flag(&'a str),
    /// A key and its value (`FSCONFIG_SET_STRING`).
    String(&'a str, &'a str),
}

impl MountContext {
    fn new(fs_type: FsType, phase: Phase) -> MountContext {
        let state = State { phase, source: None, read_only: None, options: String::new(), messages: VecDeque::new() };
        MountContext { fs_type, state: Mutex::new(state) }
    }

    fn into_file(self, ctx: &Ctx) -> Arc<File> {
        ctx.kernel.vfs.anon_file("anon_inode:[fscontext]", Box::new(self), OpenFlags::RDWR)
    }

    /// Whether all file systems have this parameter, a flag.
    pub fn is_common(key: &str) -> bool {
        matches!(key, "ro" | "rw" | "sync" | "async" | "dirsync" | "lazytime" | "nolazytime" | "mand" | "nomand")
    }

    /// A parameter, not looked at closely before the file system is made or changed.
    ///
    /// # Errors
    /// `EBUSY` when it is too late for parameters; `EINVAL` for a second source, or what cannot be an option.
    pub fn set(&self, parameter: Parameter<'_>) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Parameters | Phase::Changes(_)) {
            bail!(EBUSY);
        }
        match parameter {
            Parameter::String("ro", _) | Parameter::Flag("ro") => state.read_only = Some(true),
            Parameter::String("rw", _) | Parameter::Flag("rw") => state.read_only = Some(false),
            // As the flags of mount(2) that they stand for: known, and without effect.
            Parameter::String(key, _) | Parameter::Flag(key) if Self::is_common(key) => {}
            Parameter::String("source", source) => {
                if state.source.is_some() {
                    state.say(self.fs_type.name, "Multiple sources");
                    bail!(EINVAL);
                }
                state.source = Some(source.as_bytes().to_vec());
            }
            Parameter::Flag(key) => state.option(key)?,
            Parameter::String(key, value) => state.option(&alloc::format!("{key}={value}"))?,
        }
        Ok(())
    }

    /// `FSCONFIG_CMD_CREATE`: makes the file system, or takes the one that its device has mounted already; `exclusive`:
    /// not that one.
    ///
    /// # Errors
    /// `EBUSY` where there is nothing to be made, or something already; what the file system says.
    pub fn create(&self, ctx: &Ctx, exclusive: bool) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Parameters) {
            bail!(EBUSY);
        }
        let source = state.source.clone().unwrap_or_default();
        let read_only = state.read_only.unwrap_or(false);
        let request = MountRequest { source: &source, read_only, data: &state.options };
        let made = (self.fs_type.mount)(ctx, &request).and_then(|fs| {
            let vfs = &ctx.kernel.vfs;
            if exclusive && vfs.is_in_use(&fs) {
                bail!(EBUSY, "the file system is mounted already");
            }
            vfs.super_block(fs, read_only)
        });
        match made {
            Ok(sb) => {
                state.phase = Phase::Made(sb);
                Ok(())
            }
            Err(e) => Err(state.fail(self.fs_type.name, e)),
        }
    }

    /// `FSCONFIG_CMD_RECONFIGURE`.
    ///
    /// # Errors
    /// `EBUSY` where there is nothing to be changed, or files are open for writing; what the file system says.
    pub fn reconfigure(&self, ctx: &Ctx) -> Result<()> {
        let mut state = self.state.lock();
        let Phase::Changes(sb) = &state.phase else { bail!(EBUSY) };
        let sb = sb.clone();
        let read_only = state.read_only.unwrap_or(sb.read_only());
        let changed = ctx.kernel.vfs.reconfigure(&sb, read_only, &state.options);
        (state.read_only, state.options) = (None, String::new());
        changed.map_err(|e| state.fail(self.fs_type.name, e))
    }

    /// `fsmount(2)`: an open file on a mount of what was made, attached nowhere.
    ///
    /// # Errors
    /// `EINVAL` where nothing has been made, `EBUSY` where it has been mounted.
    pub fn mount(&self, ctx: &Ctx, flags: MountFlags) -> Result<Arc<File>> {
        let mut state = self.state.lock();
        let sb = match &state.phase {
            Phase::Made(sb) => sb.clone(),
            Phase::Changes(_) => bail!(EBUSY),
            Phase::Parameters | Phase::Failed => bail!(EINVAL, "no file system has been made"),
        };
        let source = state.source.take().unwrap_or_else(|| b"none".to_vec());
        (state.read_only, state.options) = (None, String::new());
        state.phase = Phase::Changes(sb.clone());
        drop(state);
        Ok(ctx.kernel.vfs.mount_detached(sb, &source, flags))
    }
}

impl State {
    /// Adds an option of the file system's own.
    fn option(&mut self, text: &str) -> Result<()> {
        if text.contains(',') {
            bail!(EINVAL, "a comma in an option");
        }
        if self.options.len() + text.len() + 2 > PAGE_SIZE as usize {
            bail!(EINVAL, "more options than mount(2) takes");
        }
        if !self.options.is_empty() {
            self.options.push(',');
        }
        self.options.push_str(text);
        Ok(())
    }

    fn say(&mut self, fs_type: &str, text: &str) {
        if self.messages.len() == MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(alloc::format!("e {fs_type}: {text}"));
    }

    fn fail(&mut self, fs_type: &str, error: Error) -> Error {
        self.phase = Phase::Failed;
        if !error.why.is_empty() {
            self.say(fs_type, error.why);
        }
        error
    }
}

impl FileOps for MountContext {
    /// A message, without a newline; `ENODATA` when there is none.
    fn read(&self, _ctx: &Ctx, _file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let Some(message) = self.state.lock().messages.pop_front() else { bail!(ENODATA) };
        if message.len() > dst.remaining() {
            bail!(EMSGSIZE);
        }
        dst.put(message.as_bytes())
    }

    fn pollable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Vfs {
    /// `fsopen(2)`.
    ///
    /// # Errors
    /// `ENODEV` for a type that is not known.
    pub fn open_context(&self, ctx: &Ctx, fs_type: &[u8]) -> Result<Arc<File>> {
        Ok(MountContext::new(self.fs_type(fs_type)?, Phase::Parameters).into_file(ctx))
    }

    /// `fspick(2)`.
    ///
    /// # Errors
    /// `EINVAL` where nothing is mounted.
    pub fn pick_context(&self, ctx: &Ctx, at: &Location) -> Result<Arc<File>> {
        if !at.is_mount_root() {
            bail!(EINVAL, "not a mount point");
        }
        let sb = at.mount.sb.clone();
        let fs_type = self.fs_type(sb.fs.name().as_bytes()).map_err(|_| Errno::EOPNOTSUPP)?;
        Ok(MountContext::new(fs_type, Phase::Changes(sb)).into_file(ctx))
    }
}
