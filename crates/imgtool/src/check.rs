//! `umlfs image check` and `umlfs image fsck`: is an image's file system sound, and what can be put right.

use ext4::{BlockDevice, Finding, Fs, MountOptions, Report};
use serde::Serialize;

use crate::image::{Image, Target};
use crate::{Contents, Error};

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    /// One line for each finding, of 10,000 at most: where, what is wrong, what was expected.
    pub findings: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// How many of those listed [`fsck`] can put right.
    pub repairable: usize,
    /// The file system could not be mounted, so that there is one finding and nothing else was looked at.
    pub unusable: bool,
    /// The journal held changes that were not in place. A check looks at the state after them.
    pub replayed: bool,
    /// Inodes that the last user had not yet freed or truncated.
    pub orphans: u32,
    /// Inodes in use.
    pub files: u32,
    /// Directories among them.
    pub directories: u32,
    /// Bytes in use, the file system's own included.
    pub used: u64,
}

impl Checked {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }

    fn unusable(finding: String) -> Self {
        Self { findings: vec![finding], count: 1, unusable: true, ..Self::default() }
    }

    fn of(report: Report, block_size: u32, replayed: bool) -> Self {
        Self {
            repairable: report.findings.iter().filter(|finding| finding.repairable()).count(),
            findings: report.findings.iter().map(Finding::to_string).collect(),
            count: report.count,
            unusable: false,
            replayed,
            orphans: report.orphans,
            files: report.files,
            directories: report.directories,
            used: report.blocks.saturating_mul(u64::from(block_size)),
        }
    }
}

/// Checks a file system; the image is not changed. A journal is replayed in memory.
///
/// # Errors
/// The file holds no ext file system, or cannot be read, or has features that are not checked here. Damage is not an
/// error, but a finding.
pub fn check(target: impl Into<Target>) -> Result<Checked, Error> {
    let target = target.into();
    if let Contents::BrokenExt { fault, .. } = &target.contents()? {
        return Ok(Checked::unusable(format!("superblock: {fault}")));
    }
    let device = Image::device(&target)?;
    let options = MountOptions { read_only: true, for_check: true, ..MountOptions::default() };
    let failed = |error: ext4::Error| Error::new(error).at(&target);
    match mount(device, options) {
        Ok((mut fs, replayed)) => {
            let report = fs.check().map_err(failed)?;
            Ok(Checked::of(report, fs.superblock().block_size, replayed))
        }
        Err(ext4::Error::Corrupt { what, at }) => Ok(Checked::unusable(format!("{at}: {what}"))),
        Err(error) => Err(failed(error)),
    }
}

fn mount<D: BlockDevice>(device: D, options: MountOptions) -> Result<(Fs<D>, bool), ext4::Error> {
    let replayed = ext4::Superblock::read(&device)?.features.incompat.contains(ext4::Incompat::RECOVER);
    Ok((Fs::mount(device, options)?, replayed))
}

/// Replays the journal, frees what the last user left to be freed, and puts right what needs no guess
/// ([`ext4::Fs::repair`]). Returns what was found, and what is left of it.
///
/// # Errors
/// As [`check`]; the image is in use or cannot be written; or the file system is too damaged to be mounted.
pub fn fsck(target: impl Into<Target>) -> Result<(Checked, Checked), Error> {
    let target = target.into();
    let device = Image::lock(&target)?;
    let failed = |error: ext4::Error| Error::new(error).at(&target);
    let options = MountOptions { for_check: true, now: Some(crate::time::now()), ..MountOptions::default() };
    let (mut fs, replayed) = mount(device, options).map_err(|error| {
        let damaged = matches!(error, ext4::Error::Corrupt { .. });
        let error = failed(error);
        if damaged { error.hint("this damage needs e2fsck; work on a copy") } else { error }
    })?;
    let (first, left) = fs.repair().map_err(failed)?;
    let block_size = fs.superblock().block_size;
    fs.unmount().map_err(failed)?;
    Ok((Checked::of(first, block_size, replayed), Checked::of(left, block_size, false)))
}
