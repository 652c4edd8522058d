//! `umlfs image mkfs.ext4` and its kin: the options of `mke2fs(8)`, for scripts that have them already.

use std::path::PathBuf;

use imgtool::{Kind, Options, Size, Tuning, create, parse_size, parse_uuid};

use super::report;
use crate::CommandResult;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  umlfs image mkfs.ext4 -d rootdir -L root root.img 1G
  umlfs image mkfs.ext4 -b 4096 -I 256 -N 20000 -O ^64bit,metadata_csum_seed -m 1 root.img 512M
  umlfs image mkfs.ext2 -b 1024 boot.img 32768          32768 blocks

Options mean what they mean for mke2fs. The file is replaced when the new one is whole.";

/// Make an ext file system with mke2fs's options
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Type of file system: ext2, ext3 or ext4
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
    /// Block size in bytes [default: 1024 below 512 MiB, else 4096]
    #[arg(short = 'b', value_name = "BYTES")]
    block_size: Option<u32>,
    /// Bytes of space for which there is one inode
    #[arg(short = 'i', value_name = "BYTES")]
    bytes_per_inode: Option<u64>,
    /// Inode size in bytes
    #[arg(short = 'I', value_name = "BYTES")]
    inode_size: Option<u16>,
    /// Count of inodes
    #[arg(short = 'N', value_name = "COUNT")]
    inodes: Option<u32>,
    /// Volume label
    #[arg(short = 'L', value_name = "LABEL", default_value = "", hide_default_value = true)]
    label: String,
    /// UUID, or `random`, `time`, `clear`
    #[arg(short = 'U', value_name = "UUID")]
    uuid: Option<String>,
    /// Features to add, or with ^ in front to leave out; `none` leaves all out
    #[arg(short = 'O', value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,
    /// Extended options: root_owner[=UID:GID], hash_seed=UUID, stride=N, stripe_width=N, lazy_itable_init, discard...
    #[arg(short = 'E', value_name = "OPTION", value_delimiter = ',')]
    extended: Vec<String>,
    /// Per cent of the blocks that only root may fill
    #[arg(short = 'm', value_name = "PERCENT")]
    reserved: Option<String>,
    /// Journal: size=MEGABYTES
    #[arg(short = 'J', value_name = "OPTION", value_delimiter = ',')]
    journal: Vec<String>,
    /// Make a journal
    #[arg(short = 'j')]
    with_journal: bool,
    /// Blocks in a block group
    #[arg(short = 'g', value_name = "BLOCKS")]
    blocks_per_group: Option<u32>,
    /// Block groups in a flexible group
    #[arg(short = 'G', value_name = "GROUPS")]
    flex_groups: Option<u32>,
    /// Use: small, floppy, big, huge, news, largefile or largefile4
    #[arg(short = 'T', value_name = "USE")]
    usage: Option<String>,
    /// Fill it from this directory or tar archive
    #[arg(short = 'd', value_name = "DIR|TAR")]
    from: Option<PathBuf>,
    /// Directory where it was last mounted (accepted, not recorded)
    #[arg(short = 'M', value_name = "DIR", hide = true)]
    last_mounted: Option<String>,
    /// Creator's system (only linux)
    #[arg(short = 'o', value_name = "OS", hide = true)]
    creator: Option<String>,
    /// Time of the file system, in seconds since the epoch; newer times of files are set to it, and the UUID follows
    /// from the contents
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", hide_env_values = true)]
    source_date_epoch: Option<i64>,
    /// Replace whatever the file holds, as is done in any case
    #[arg(short = 'F', action = clap::ArgAction::Count)]
    force: u8,
    /// Say nothing when all went well
    #[arg(short = 'q')]
    quiet: bool,
    /// Say more
    #[arg(short = 'v', hide = true)]
    verbose: bool,
    /// The image
    #[arg(value_name = "FILE")]
    output: PathBuf,
    /// Its size: with a unit (K, M, G, T, or s for sectors), or in blocks with -b, or else in KiB [default: the file's]
    #[arg(value_name = "SIZE")]
    size: Option<String>,
}

/// What the extended options add up to.
fn extended(args: &Args, tuning: &mut Tuning) -> Result<(), CliError> {
    for option in args.extended.iter().filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').map_or((option.as_str(), None), |(key, value)| (key, Some(value)));
        let bad = || {
            CliError::usage(format_args!("-E {option}: the value makes no sense")).hint("see mke2fs(8) for its form")
        };
        let number = || value.and_then(|value| value.parse::<u32>().ok()).ok_or_else(bad);
        match key {
            // How it is written is decided here; the result is the same.
            "lazy_itable_init" | "lazy_journal_init" | "discard" | "nodiscard" | "assume_storage_prezeroed" => {}
            "root_owner" => {
                tuning.root_owner = Some(match value {
                    None => (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
                    Some(value) => value
                        .split_once(':')
                        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)))
                        .ok_or_else(bad)?,
                });
            }
            "hash_seed" => tuning.hash_seed = Some(value.and_then(parse_uuid).ok_or_else(bad)?),
            "stride" => tuning.stride = Some(u16::try_from(number()?).map_err(|_| bad())?),
            "stripe_width" | "stripe-width" => tuning.stripe_width = Some(number()?),
            _ => {
                return Err(CliError::usage(format_args!("-E {option} is not supported")).hint(
                    "root_owner, hash_seed, stride, stripe_width, lazy_itable_init, lazy_journal_init and discard are",
                ));
            }
        }
    }
    Ok(())
}

fn uuid(text: &str) -> Result<[u8; 16], CliError> {
    let random = || -> Result<[u8; 16], CliError> {
        let mut bytes = [0; 16];
        let read =
            std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
        read.map_err(|error| CliError::failed(format_args!("cannot read /dev/urandom: {error}")))?;
        // RFC 9562: version 4 (random), variant 10.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(bytes)
    };
    match text {
        "clear" | "null" => Ok([0; 16]),
        "random" | "time" => random(),
        _ => parse_uuid(text).ok_or_else(|| {
            CliError::usage(format_args!("-U {text} is no UUID"))
                .hint("expected 32 hexadecimal digits, `random` or `clear`")
        }),
    }
}

/// Hundredths of a per cent.
fn percent(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("00".chars()).take(2).collect();
    if !fraction.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let hundredths = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(digits.parse().ok()?)?;
    (hundredths <= 5000).then_some(hundredths)
}

fn size(args: &Args) -> Result<u64, CliError> {
    let Some(text) = &args.size else {
        let missing = || {
            CliError::usage(format_args!("{} does not exist, and no size is given", args.output.display()))
                .hint("name the size behind the file, such as 512M")
        };
        return std::fs::metadata(&args.output).map(|file| file.len()).ok().filter(|len| *len > 0).ok_or_else(missing);
    };
    match text.parse::<u64>() {
        Ok(number) => {
            let unit = u64::from(args.block_size.unwrap_or(1024));
            number.checked_mul(unit).ok_or_else(|| CliError::usage(format_args!("the size {text} is too large")))
        }
        Err(_) => parse_size(text).map_err(CliError::usage),
    }
}

/// `umlfs image mkfs.TYPE`.
pub(crate) fn run(args: &Args, default: Kind) -> CommandResult {
    let kind = match args.fs_type.as_deref() {
        None => default,
        Some("ext2") => Kind::Ext2,
        Some("ext3") => Kind::Ext3,
        Some("ext4") => Kind::Ext4,
        Some(other) => {
            return Err(CliError::usage(format_args!("-t {other} is no type that is made here"))
                .hint("expected ext2, ext3 or ext4; `umlfs image create --type` makes others"));
        }
    };
    if args.creator.as_deref().is_some_and(|os| !os.eq_ignore_ascii_case("linux")) {
        return Err(CliError::usage("-o: only linux is known"));
    }
    let size = size(args)?;
    let mut tuning = Tuning {
        journal_mib: None,
        flex_groups: args.flex_groups,
        blocks_per_group: args.blocks_per_group,
        ..Tuning::default()
    };
    extended(args, &mut tuning)?;
    for option in args.journal.iter().filter(|option| !option.is_empty()) {
        let value = option.strip_prefix("size=").and_then(|value| value.parse().ok());
        tuning.journal_mib = Some(value.ok_or_else(|| {
            CliError::usage(format_args!("-J {option} is not supported")).hint("expected size=MEGABYTES")
        })?);
    }
    // As mke2fs.conf has it.
    let (mut block_size, mut ratio) = match size >> 20 {
        0..3 => (1024, 8192),
        3..512 => (1024, 4096),
        512..0x40_0000 => (4096, 16384),
        0x40_0000..0x100_0000 => (4096, 32768),
        _ => (4096, 65536),
    };
    (block_size, ratio) = match args.usage.as_deref() {
        None | Some("default") => (block_size, ratio),
        Some("small") => (1024, 4096),
        Some("floppy") => (1024, 8192),
        Some("big") => (4096, 32768),
        Some("huge") => (4096, 65536),
        Some("news") => (4096, 4096),
        Some("largefile") => (4096, 1 << 20),
        Some("largefile4") => (4096, 4 << 20),
        Some(other) => return Err(CliError::usage(format_args!("-T {other} is not known"))),
    };
    let mut features = Vec::new();
    if args.with_journal {
        features.push("has_journal".to_owned());
    }
    features.extend(args.features.iter().filter(|feature| !feature.is_empty()).cloned());
    let reserved = args
        .reserved
        .as_deref()
        .map(|text| percent(text).ok_or_else(|| CliError::usage(format_args!("-m {text}: expected 0 to 50 per cent"))));
    let id = match &args.uuid {
        Some(text) => Some(uuid(text)?),
        // The same bytes for the same input, where that is asked for.
        None if args.source_date_epoch.is_some() => None,
        None => Some(uuid("random")?),
    };
    let options = Options {
        overwrite: true,
        kind,
        from: args.from.iter().cloned().collect(),
        size: Size::Bytes(size),
        label: args.label.clone(),
        uuid: id,
        epoch: args.source_date_epoch,
        block_size: Some(args.block_size.unwrap_or(block_size)),
        inode_size: args.inode_size,
        inodes: args.inodes,
        bytes_per_inode: Some(args.bytes_per_inode.unwrap_or(ratio)),
        reserved_hundredths: reserved.transpose()?,
        features,
        tuning,
        ..Options::new(&args.output)
    };
    let created = create(&options, &mut |_| {}).map_err(report)?;
    if !args.quiet {
        super::create::say(&options, &created);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_cent() {
        for (text, hundredths) in [("5", Some(500)), ("0", Some(0)), ("0.5", Some(50)), ("1.25", Some(125))] {
            assert_eq!(percent(text), hundredths, "{text}");
        }
        for bad in ["", "51", "-1", "1.x", "a"] {
            assert_eq!(percent(bad), None, "{bad}");
        }
    }
}
