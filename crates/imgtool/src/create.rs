//! `image create`: input to tree, tree to image.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ext4::{Fs, MountOptions, Timestamp, mkfs};

use crate::contents::Input;
use crate::create_fat::create_other;
use crate::derive::{Identifiers, identifiers};
use crate::disk::{Part, make_disk};
use crate::output::Output;
use crate::overlay::{Overlay, Zeros};
use crate::populate::{Need, Stop, populate};
use crate::source::{ImageSource, open_archive, read_directory, read_manifest, read_oci_layer, read_tar};
use crate::table::Table;
use crate::tree::{NodeId, Tree};
use crate::{Contents, Error, FileDevice, HumanSize, Image, Target};

/// Block size in bytes unless another is asked for: whole pages, so that a kernel can map file contents.
const BLOCK_SIZE: u32 = 4096;
/// Inode size in bytes unless another is asked for.
const INODE_SIZE: u16 = 256;
/// Sizes found by trial are multiples of this.
const SIZE_STEP: u64 = 1 << 20;
/// Space for which there is one inode unless more are needed, as mke2fs has it.
const BYTES_PER_INODE: u64 = 16 * 1024;
/// The smallest image tried.
const SMALLEST: u64 = 1 << 20;
/// Larger than any file system of 32-bit block numbers and 4 KiB blocks.
const LARGEST: u64 = 1 << 45;
/// How often a size that proves too small is raised, before that counts as an error.
const ATTEMPTS: u32 = 12;

/// The type of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// No journal, block maps.
    Ext2,
    /// A journal, block maps.
    Ext3,
    /// A journal, extents, checksums.
    #[default]
    Ext4,
    /// FAT12, FAT16 or FAT32, as the size demands.
    Fat,
    /// A swap area.
    Swap,
}

impl Kind {
    /// The name that mount(8) knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Fat => "fat",
            Self::Swap => "swap",
        }
    }
}

/// How large the image becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many bytes; a rest of less than a block stays unused.
    Bytes(u64),
    /// As small as the input fits, with so many bytes free for ordinary users.
    Auto {
        /// Bytes to stay free.
        free: u64,
    },
}

/// Who owns the files of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Owner {
    /// Whoever owns them in the input.
    #[default]
    Keep,
    /// The calling user's and group's files become root's.
    CallerIsRoot,
    /// This user and group own all.
    All {
        /// User number.
        uid: u32,
        /// Group number.
        gid: u32,
    },
}

impl Owner {
    /// The owner and group that a file of `uid` and `gid` gets, where the caller's own are `caller`.
    pub(crate) fn apply(self, uid: u32, gid: u32, caller: (u32, u32)) -> (u32, u32) {
        match self {
            Self::Keep => (uid, gid),
            Self::CallerIsRoot => (if uid == caller.0 { 0 } else { uid }, if gid == caller.1 { 0 } else { gid }),
            Self::All { uid, gid } => (uid, gid),
        }
    }
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the image goes.
    pub output: PathBuf,
    /// Replace a file that is there.
    pub overwrite: bool,
    /// The type of file system.
    pub kind: Kind,
    /// Directories, tar archives (plain, gzip, xz, zstd, bzip2; `-` is standard input), ext images, layers
    /// of OCI images (`oci:FILE`) and manifests (`manifest:FILE`), in the order they are laid over each other; with none the image is empty.
    pub from: Vec<PathBuf>,
    /// The image's size.
    pub size: Size,
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// UUID; `None` derives one from the input.
    pub uuid: Option<[u8; 16]>,
    /// Seconds since the epoch: times in the file system's own structures, and the newest time that any file keeps.
    /// `None` takes the newest time in the input.
    pub epoch: Option<i64>,
    /// Block size in bytes; `None` takes 4096.
    pub block_size: Option<u32>,
    /// Inode size in bytes; `None` takes 256.
    pub inode_size: Option<u16>,
    /// Count of inodes; `None` takes one for each 16 KiB, or more where the input needs them.
    pub inodes: Option<u32>,
    /// Bytes for which there is one inode, where no count is given; `None` takes 16,384.
    pub bytes_per_inode: Option<u64>,
    /// Share of the blocks that only root may fill, in hundredths of a per cent; `None` takes 500.
    pub reserved_hundredths: Option<u16>,
    /// Features to add, or with a `^` in front to leave out, as mke2fs's `-O`.
    pub features: Vec<String>,
    /// Who owns the files.
    pub owner: Owner,
    /// What is rarely chosen.
    pub tuning: Tuning,
}

/// Rarely chosen properties of an ext file system, as mke2fs's `-E`, `-G`, `-g` and `-J` set them; `None` takes its
/// defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// The journal's size in MiB.
    pub journal_mib: Option<u32>,
    /// Block groups in a flexible group.
    pub flex_groups: Option<u32>,
    /// Blocks in a block group.
    pub blocks_per_group: Option<u32>,
    /// Owner and group of the root directory.
    pub root_owner: Option<(u32, u32)>,
    /// Seed of directory hashes.
    pub hash_seed: Option<[u8; 16]>,
    /// Blocks that a RAID writes to one disk before the next.
    pub stride: Option<u16>,
    /// Blocks that it writes to all disks.
    pub stripe_width: Option<u32>,
}

impl Options {
    /// An ext4 image at `output`, smallest fit, of nothing.
    pub fn new(output: impl Into<PathBuf>) -> Self {
        Self {
            output: output.into(),
            overwrite: false,
            kind: Kind::default(),
            from: Vec::new(),
            size: Size::Auto { free: 0 },
            label: String::new(),
            uuid: None,
            epoch: None,
            block_size: None,
            inode_size: None,
            inodes: None,
            bytes_per_inode: None,
            reserved_hundredths: None,
            tuning: Tuning::default(),
            features: Vec::new(),
            owner: Owner::default(),
        }
    }
}

/// How far the work is.
pub struct Progress<'a> {
    /// Names written so far.
    pub files: u64,
    /// Names in all.
    pub files_total: u64,
    /// Bytes of contents written so far.
    pub bytes: u64,
    /// Bytes of contents in all.
    pub bytes_total: u64,
    report: &'a mut dyn FnMut(&Snapshot),
}

/// A moment of the work, for a progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Names written so far.
    pub files: u64,
    /// Names in all.
    pub files_total: u64,
    /// Bytes of contents written so far.
    pub bytes: u64,
    /// Bytes of contents in all.
    pub bytes_total: u64,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(files_total: u64, bytes_total: u64, report: &'a mut dyn FnMut(&Snapshot)) -> Self {
        Self { files: 0, files_total, bytes: 0, bytes_total, report }
    }

    pub(crate) fn tell(&mut self) {
        (self.report)(&Snapshot {
            files: self.files,
            files_total: self.files_total,
            bytes: self.bytes,
            bytes_total: self.bytes_total,
        });
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Bytes of the image.
    pub size: u64,
    /// Names in it, hard links counted each.
    pub files: u64,
    /// Bytes of contents, holes not counted.
    pub bytes: u64,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// How long it took.
    pub elapsed: Duration,
}

/// Makes an image. It appears under its name when it is whole; on any error nothing is left behind.
///
/// # Errors
/// The options contradict each other, an input is damaged, or it does not fit.
pub fn create(options: &Options, report: &mut dyn FnMut(&Snapshot)) -> Result<Created, Error> {
    let started = Instant::now();
    check(options)?;
    let output = Output::create(&options.output, options.overwrite)?;
    let (inputs, mut tree) = read_inputs(options, output.directory())?;
    let time = settle(&mut tree, options);
    if matches!(options.kind, Kind::Fat | Kind::Swap) {
        return create_other(options, output, &tree, &inputs, time, report);
    }
    let block_size = u64::from(options.block_size.unwrap_or(BLOCK_SIZE));
    let inode_size = u64::from(options.inode_size.unwrap_or(INODE_SIZE));
    let extents = mkfs_options(options, time)?.features.incompat.contains(ext4::Incompat::EXTENTS);
    let parameters = format!("{:?} {:?} {:?}", options.kind, options.size, options.label);
    let count = || Need::of(&tree, block_size, inode_size, extents);
    // Nothing else can be done before both are known.
    let (need, identifiers) = thread::scope(|scope| {
        let helper = thread::Builder::new().name("count blocks".to_owned()).spawn_scoped(scope, count);
        let identifiers = identifiers(&tree, &parameters);
        // Without a helper it only takes longer.
        (helper.ok().and_then(|helper| helper.join().ok()).unwrap_or_else(count), identifiers)
    });
    tracing::debug!("the input has {need}, and takes {} blocks and {} inodes", need.blocks, need.inodes);

    let mut plan = Plan::new(options, identifiers, need, time).map_err(|error| error.at(options.output.display()))?;
    for _ in 0..ATTEMPTS {
        match write(&plan, &tree, &inputs, output.file(), report) {
            Ok(()) => {
                let created = Created {
                    size: plan.size,
                    files: need.names,
                    bytes: need.bytes,
                    uuid: plan.mkfs.uuid,
                    elapsed: started.elapsed(),
                };
                output.publish()?;
                return Ok(created);
            }
            Err(Stop::Failed(error)) => return Err(error.at(options.output.display())),
            Err(Stop::Full(path)) => match options.size {
                Size::Bytes(size) => return Err(too_small(options, &plan, &path, size)),
                Size::Auto { .. } => {
                    tracing::debug!("{} bytes are too few for {path}", plan.size);
                    plan.size = (plan.size + plan.size / 32).next_multiple_of(SIZE_STEP) + SIZE_STEP;
                }
            },
        }
    }
    Err(Error::new(format_args!("no size up to {} holds {need}: this is an error in umlfs", HumanSize(plan.size)))
        .hint("name a larger size with --size"))
}

/// Makes a disk with a partition table and one partition that holds what [`create`] makes of `options`.
///
/// # Errors
/// As [`create`] and [`make_disk`].
pub fn create_disk(
    options: &Options,
    table: Table,
    name: &str,
    report: &mut dyn FnMut(&Snapshot),
) -> Result<Created, Error> {
    // Says early what is in the way.
    let directory = Output::create(&options.output, options.overwrite)?.directory().to_owned();
    let part = tempfile::Builder::new()
        .prefix(".umlfs-part-")
        .tempfile_in(&directory)
        .map_err(|error| Error::io("make a temporary file in", &directory, &error))?;
    let inner = Options { output: part.path().to_owned(), overwrite: true, ..options.clone() };
    let created = create(&inner, report)?;
    let parts = [Part { name: name.to_owned(), image: part.path().to_owned() }];
    let size = make_disk(&options.output, options.overwrite, table, &parts)?;
    Ok(Created { size, ..created })
}

fn too_small(options: &Options, plan: &Plan, path: &str, size: u64) -> Error {
    let error = Error::new(format_args!(
        "{}: {} are too few: {path} does not fit ({} in all)",
        options.output.display(),
        HumanSize(size),
        plan.need
    ));
    match plan.smallest() {
        Ok(smallest) => error.hint(format_args!(
            "say --size {}M or more, or --size auto for the smallest fit",
            smallest.max(size + 1).div_ceil(1 << 20)
        )),
        Err(_) => error.hint("say --size auto for the smallest fit"),
    }
}

fn check(options: &Options) -> Result<(), Error> {
    if options.label.len() > 16 {
        return Err(Error::new(format_args!(
            "the label `{}` has {} bytes, expected at most 16",
            options.label,
            options.label.len()
        )));
    }
    Ok(())
}

fn read_inputs(options: &Options, spool: &Path) -> Result<(Vec<Input>, Tree), Error> {
    let mut inputs = Vec::new();
    let mut tree = Tree::new();
    for (number, path) in (0..).zip(&options.from) {
        let after = |prefix: &[u8]| {
            let rest = path.as_os_str().as_bytes().strip_prefix(prefix).filter(|_| !path.exists())?;
            Some(Path::new(OsStr::from_bytes(rest)))
        };
        if let Some(layer) = after(b"oci:") {
            let archive = open_archive(layer, spool)?;
            read_oci_layer(&archive, number, &mut tree)?;
            inputs.push(Input::Archive(archive));
        } else if let Some(manifest) = after(b"manifest:") {
            read_manifest(manifest, number, &mut tree)?;
            inputs.push(Input::Directory(manifest.parent().unwrap_or(Path::new("")).to_owned()));
        } else if path.is_dir() {
            read_directory(path, number, &mut tree)?;
            inputs.push(Input::Directory(path.clone()));
        } else if path != Path::new("-") && matches!(Target::from(path.as_path()).contents(), Ok(Contents::Ext { .. }))
        {
            let image = ImageSource::new(Image::open(path.as_path())?);
            image.read_tree(number, &mut tree)?;
            inputs.push(Input::Image(Box::new(image)));
        } else {
            let archive = open_archive(path, spool)?;
            read_tar(&archive, number, &mut tree)?;
            inputs.push(Input::Archive(archive));
        }
    }
    Ok((inputs, tree))
}

/// Applies owners and the epoch to all nodes; returns the time of the file system itself.
fn settle(tree: &mut Tree, options: &Options) -> Timestamp {
    let caller = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    for node in tree.nodes_mut() {
        (node.meta.uid, node.meta.gid) = options.owner.apply(node.meta.uid, node.meta.gid, caller);
    }
    if let Some(owner) = options.tuning.root_owner {
        let root = &mut tree.node_mut(NodeId::ROOT).meta;
        (root.uid, root.gid) = owner;
    }
    let epoch = options.epoch.map(|sec| Timestamp { sec, nsec: 0 });
    if let Some(epoch) = epoch {
        for node in tree.nodes_mut() {
            node.meta.mtime = node.meta.mtime.min(epoch);
        }
    }
    let newest = tree.settle_times();
    epoch.unwrap_or(newest)
}

/// A size and all that mkfs is told.
struct Plan {
    need: Need,
    block_size: u64,
    /// Bytes to stay free.
    free: u64,
    size: u64,
    mkfs: mkfs::Options,
    given_inodes: bool,
    bytes_per_inode: u64,
}

impl Plan {
    fn new(options: &Options, (uuid, seed): Identifiers, need: Need, time: Timestamp) -> Result<Self, Error> {
        let mut mkfs = mkfs_options(options, time)?;
        mkfs.uuid = options.uuid.unwrap_or(uuid);
        mkfs.hash_seed = options.tuning.hash_seed.unwrap_or(seed);
        let free = match options.size {
            Size::Auto { free } => free,
            Size::Bytes(_) => 0,
        };
        let block_size = u64::from(options.block_size.unwrap_or(BLOCK_SIZE));
        let bytes_per_inode = options.bytes_per_inode.unwrap_or(BYTES_PER_INODE).max(1024);
        let mut plan =
            Self { need, block_size, free, size: 0, mkfs, given_inodes: options.inodes.is_some(), bytes_per_inode };
        plan.size = match options.size {
            Size::Bytes(size) => size,
            Size::Auto { .. } => plan.smallest()?,
        };
        Ok(plan)
    }

    /// The input's inodes, mkfs's own, and room for some more files.
    fn wanted_inodes(&self) -> u64 {
        self.need.inodes + self.need.inodes / 16 + 16
    }

    /// What mkfs is told for an image of `size` bytes: enough inodes in any case.
    fn mkfs_for(&self, size: u64) -> mkfs::Options {
        let mut mkfs = self.mkfs.clone();
        mkfs.size = size;
        if !self.given_inodes {
            mkfs.inodes = u32::try_from(self.wanted_inodes().max(size / self.bytes_per_inode)).ok();
        }
        mkfs
    }

    /// The smallest size at which the input fits and the wanted space stays free, found by formatting on trial: the
    /// file system's own share depends on the size in steps.
    fn smallest(&self) -> Result<u64, Error> {
        let block_size = self.block_size;
        let wanted = self.need.blocks + self.need.blocks / 256 + self.free.div_ceil(block_size) + 8;
        // There is at most one inode for 1 KiB.
        let for_inodes = self.wanted_inodes().saturating_mul(1280);
        let mut size = wanted.saturating_mul(block_size).max(for_inodes).max(SMALLEST);
        let enough = size.saturating_mul(2).max(64 << 20);
        for _ in 0..64 {
            size = size.checked_next_multiple_of(SIZE_STEP).filter(|size| *size < LARGEST).ok_or_else(|| {
                Error::new(format_args!("no image is large enough for {} and {} free", self.need, HumanSize(self.free)))
            })?;
            match self.blocks_free(size) {
                Ok((blocks, inodes)) if blocks >= wanted && u64::from(inodes) >= self.need.inodes => return Ok(size),
                Ok((blocks, _)) => size += wanted.saturating_sub(blocks).saturating_mul(block_size).max(1),
                // Perhaps too small for the file system's own structures; other reasons do not go away.
                Err(error) if error != ext4::Error::NoSpace && size >= enough => return Err(Error::new(error)),
                Err(_) => size *= 2,
            }
        }
        Err(Error::new(format_args!("no size was found that holds {}", self.need)).hint("name one with --size"))
    }

    /// Blocks that ordinary users can fill, and inodes, of an empty file system of `size` bytes.
    fn blocks_free(&self, size: u64) -> Result<(u64, u32), ext4::Error> {
        let disk = Overlay::new(Zeros(size));
        mkfs::format(&disk, &self.mkfs_for(size))?;
        let superblock = ext4::Superblock::read(&disk)?;
        let blocks = superblock.free_blocks.saturating_sub(superblock.reserved_blocks);
        Ok((blocks, superblock.free_inodes))
    }
}

/// The options that do not depend on input and size.
fn mkfs_options(options: &Options, time: Timestamp) -> Result<mkfs::Options, Error> {
    let mut mkfs = mkfs::Options::new(match options.kind {
        Kind::Ext2 => mkfs::FsType::Ext2,
        Kind::Ext3 => mkfs::FsType::Ext3,
        Kind::Ext4 => mkfs::FsType::Ext4,
        Kind::Fat | Kind::Swap => return Err(Error::new("this is no ext file system")),
    });
    for feature in &options.features {
        if feature == "none" {
            mkfs.features = ext4::Features::default();
            continue;
        }
        let (name, on) = match feature.strip_prefix('^') {
            Some(name) => (name, false),
            None => (feature.as_str(), true),
        };
        if !mkfs.features.set_by_name(name, on) {
            return Err(Error::new(format_args!("there is no feature `{name}`")).hint(
                "expected a name that `mke2fs -O` knows, such as 64bit, dir_index, metadata_csum or has_journal",
            ));
        }
    }
    mkfs.block_size = Some(options.block_size.unwrap_or(BLOCK_SIZE));
    mkfs.inode_size = options.inode_size.unwrap_or(INODE_SIZE);
    mkfs.inodes = options.inodes;
    mkfs.label.clone_from(&options.label);
    mkfs.reserved_hundredths = options.reserved_hundredths.unwrap_or(mkfs.reserved_hundredths);
    let tuning = &options.tuning;
    let block_size = options.block_size.unwrap_or(BLOCK_SIZE).max(1);
    let blocks = |mib: u32| u32::try_from((u64::from(mib) << 20) / u64::from(block_size)).unwrap_or(u32::MAX);
    mkfs.journal_blocks = tuning.journal_mib.map(blocks);
    mkfs.flex_groups = tuning.flex_groups.unwrap_or(mkfs.flex_groups);
    mkfs.blocks_per_group = tuning.blocks_per_group;
    mkfs.raid = (tuning.stride.unwrap_or(0), tuning.stripe_width.unwrap_or(0));
    mkfs.time = time;
    mkfs.device_zeroed = true;
    Ok(mkfs)
}

fn write(
    plan: &Plan,
    tree: &Tree,
    inputs: &[Input],
    file: &std::fs::File,
    report: &mut dyn FnMut(&Snapshot),
) -> Result<(), Stop> {
    let failed = |error: ext4::Error| match error {
        ext4::Error::NoSpace => Stop::Full("the file system itself".to_owned()),
        other => Stop::Failed(Error::new(other)),
    };
    let fresh = |error: &std::io::Error| Error::resizing(plan.size, error);
    // A second attempt must not find what the first one wrote. Only then: ext4 writes a file that was once cut to
    // nothing out to the disk when it is closed.
    if file.metadata().map_err(|error| fresh(&error))?.len() > 0 {
        file.set_len(0).map_err(|error| fresh(&error))?;
    }
    let file = file.try_clone().map_err(|error| fresh(&error))?;
    let device = FileDevice::fresh(file, plan.size).map_err(|error| fresh(&error))?;
    let mkfs = plan.mkfs_for(plan.size);
    mkfs::format(&device, &mkfs).map_err(failed)?;
    // What has been written is hardly looked at again.
    let options = MountOptions { journal: false, now: None, cache_blocks: 512, ..MountOptions::default() };
    let mut fs = Fs::mount(device, options).map_err(failed)?;
    let mut progress = Progress::new(plan.need.names, plan.need.bytes, report);
    populate(&mut fs, tree, inputs, &mut progress)?;
    fs.unmount().map_err(failed)
}
