//! `umlfs image create`: an image from directories and archives.

use std::path::PathBuf;

use clap::ValueEnum;
use imgtool::{Created, HumanSize, Kind, Options, Owner, Size, Snapshot, create, create_disk, parse_size, parse_uuid};

use super::disk::TableArg;
use super::report;
use crate::CommandResult;
use crate::error::CliError;
use crate::ui::Bar;

const EXAMPLES: &str = "\
Examples:
  umlfs image create root.img --from rootdir                    smallest fit
  umlfs image create root.img --from rootdir --free 200M        and room to work in it
  umlfs image create root.img --from base.tar.zst --from etc/   a directory laid over an archive
  umlfs image create root.img --size 1G --from root.tar --owner root --label root
  umlfs image create root.img --from oci:layer1.tar.gz --from oci:layer2.tar.gz
  umlfs image create root.img --from rootdir --from manifest:devices.mtree
  docker export NAME | umlfs image create root.img --from -
  umlfs image create empty.img --size 64M --type ext2";

/// Make a disk image from directories and tar archives, without root
///
/// Owners, modes, times, hard links, symbolic links, device nodes, extended attributes and holes are kept. The same
/// input gives the same bytes.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The image to make
    #[arg(value_name = "IMAGE")]
    output: PathBuf,
    /// What goes in: a directory, a tar archive (plain, .gz, .xz, .zst, .bz2), another ext image, - for an archive on
    /// standard input, oci:TAR for a layer of an OCI image (its whiteouts remove files), manifest:FILE for a list of
    /// files as mtree(5) has it. May be given more than once: later ones lie over earlier ones
    #[arg(long, value_name = "DIR|TAR|IMAGE")]
    from: Vec<PathBuf>,
    /// The image's size, such as 512M or 1G, or `auto`: the smallest that fits
    #[arg(long, default_value = "auto", value_parser = size)]
    size: SizeArg,
    /// With --size auto: how much stays free for users
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    free: u64,
    /// The file system
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t)]
    kind: KindArg,
    /// Volume label, at most 16 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// UUID; without it, one is derived from the input
    #[arg(long, value_parser = uuid)]
    uuid: Option<[u8; 16]>,
    /// Who owns the files: `keep`, `root` (the calling user's files become root's) or UID:GID for all
    #[arg(long, default_value = "keep", value_parser = owner)]
    owner: Owner,
    /// Time of the file system, in seconds since the epoch; newer times of files are set to it
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", hide_env_values = true)]
    source_date_epoch: Option<i64>,
    /// Block size in bytes: 1024, 2048 or 4096 [default: 4096]
    #[arg(long, value_name = "BYTES")]
    block_size: Option<u32>,
    /// Inode size in bytes [default: 256]
    #[arg(long, value_name = "BYTES")]
    inode_size: Option<u16>,
    /// Count of inodes [default: one for each 16 KiB, or what the input needs]
    #[arg(long, value_name = "COUNT")]
    inodes: Option<u32>,
    /// Bytes for which there is one inode, where no count is given [default: 16384]
    #[arg(long, value_name = "BYTES", conflicts_with = "inodes", value_parser = clap::value_parser!(u64).range(1024..))]
    bytes_per_inode: Option<u64>,
    /// Per cent of the blocks that only root may fill [default: 5]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=50))]
    reserved: Option<u8>,
    /// Features to add, or with ^ in front to leave out, as mke2fs -O takes them
    #[arg(long = "feature", value_name = "NAME", value_delimiter = ',')]
    features: Vec<String>,
    /// Make a disk with this partition table and the file system as its one partition
    #[arg(long, value_name = "TABLE", value_enum)]
    partition: Option<TableArg>,
    /// Replace an image that is there
    #[arg(long)]
    force: bool,
    /// Say nothing when all went well
    #[arg(short, long)]
    quiet: bool,
}

/// `--size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SizeArg {
    Auto,
    Bytes(u64),
}

/// The types that can be made.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum KindArg {
    Ext2,
    Ext3,
    #[default]
    Ext4,
    /// FAT12, FAT16 or FAT32, as the size demands
    Fat,
    /// A swap area
    Swap,
}

fn size(text: &str) -> Result<SizeArg, imgtool::Error> {
    match text {
        "auto" => Ok(SizeArg::Auto),
        _ => parse_size(text).map(SizeArg::Bytes),
    }
}

fn uuid(text: &str) -> Result<[u8; 16], &'static str> {
    parse_uuid(text).ok_or("expected 32 hexadecimal digits, such as 12345678-9abc-4def-8123-456789abcdef")
}

pub(super) fn owner(text: &str) -> Result<Owner, &'static str> {
    let numbers = || {
        let (uid, gid) = text.split_once(':')?;
        Some(Owner::All { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    };
    match text {
        "keep" => Ok(Owner::Keep),
        "root" => Ok(Owner::CallerIsRoot),
        _ => numbers().ok_or("expected `keep`, `root` or UID:GID"),
    }
}

pub(crate) fn run(args: Args) -> CommandResult {
    let size = match args.size {
        SizeArg::Auto => Size::Auto { free: args.free },
        SizeArg::Bytes(_) if args.free > 0 => {
            return Err(CliError::usage("--free and a fixed --size contradict each other")
                .hint("say --size auto --free SIZE, or --size alone"));
        }
        SizeArg::Bytes(bytes) => Size::Bytes(bytes),
    };
    let options = Options {
        overwrite: args.force,
        kind: match args.kind {
            KindArg::Ext2 => Kind::Ext2,
            KindArg::Ext3 => Kind::Ext3,
            KindArg::Ext4 => Kind::Ext4,
            KindArg::Fat => Kind::Fat,
            KindArg::Swap => Kind::Swap,
        },
        from: args.from,
        size,
        label: args.label,
        uuid: args.uuid,
        epoch: args.source_date_epoch,
        block_size: args.block_size,
        inode_size: args.inode_size,
        inodes: args.inodes,
        bytes_per_inode: args.bytes_per_inode,
        reserved_hundredths: args.reserved.map(|percent| u16::from(percent) * 100),
        features: args.features,
        owner: args.owner,
        ..Options::new(args.output)
    };
    let mut bar = Bar::new("writing the image");
    let mut tell = |now: &Snapshot| {
        // Names weigh as much as a block: many empty files take time, too.
        let work = |bytes: u64, files: u64| bytes.saturating_add(files.saturating_mul(4096));
        bar.set(work(now.bytes, now.files), work(now.bytes_total, now.files_total));
    };
    let created = match args.partition {
        None => create(&options, &mut tell),
        Some(table) => {
            // FAT as the only partition is there to be booted from.
            let name = if options.kind == Kind::Fat { "esp" } else { options.kind.name() };
            create_disk(&options, table.into(), name, &mut tell)
        }
    }
    .map_err(report)?;
    bar.finish();
    if !args.quiet {
        say(&options, &created);
    }
    Ok(0)
}

/// One line on standard error, so that it is no part of a pipeline's data.
pub(super) fn say(options: &Options, created: &Created) {
    use std::io::Write as _;
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(
        anstream::stderr(),
        "{}: {}, {} ({} files, {} of contents) in {:.2} s",
        options.output.display(),
        options.kind.name(),
        HumanSize(created.size),
        created.files,
        HumanSize(created.bytes),
        created.elapsed.as_secs_f64()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read() {
        assert_eq!(owner("keep"), Ok(Owner::Keep));
        assert_eq!(owner("root"), Ok(Owner::CallerIsRoot));
        assert_eq!(owner("0:5"), Ok(Owner::All { uid: 0, gid: 5 }));
        for bad in ["", "0", "0:", ":0", "a:b", "-1:0", "4294967296:0", "1:2:3"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
    }
}
