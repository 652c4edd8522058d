//! `image create --type fat` and `--type swap`.

use std::time::Instant;

use ext4::Timestamp;

use crate::contents::Input;
use crate::create::{Created, Kind, Options, Progress, Size, Snapshot};
use crate::derive::identifiers;
use crate::fat::{Window, fat_size, write_fat};
use crate::feed::with_feed;
use crate::output::Output;
use crate::populate::{Need, Stop};
use crate::tree::Tree;
use crate::{Error, HumanSize};

/// How often a size that proves too small is raised.
const ATTEMPTS: u32 = 12;

/// Writes a FAT file system or a swap area into `output`.
pub(crate) fn create_other(
    options: &Options,
    output: Output,
    tree: &Tree,
    inputs: &[Input],
    time: Timestamp,
    report: &mut dyn FnMut(&Snapshot),
) -> Result<Created, Error> {
    let started = Instant::now();
    let name = options.kind.name();
    for (given, option) in [
        (options.block_size.is_some(), "--block-size"),
        (options.inode_size.is_some(), "--inode-size"),
        (options.inodes.is_some(), "--inodes"),
        (options.reserved_hundredths.is_some(), "--reserved"),
        (!options.features.is_empty(), "--feature"),
    ] {
        if given {
            return Err(Error::new(format_args!("{option} has no meaning for {name}")).hint("leave it out"));
        }
    }
    let need = Need::of(tree, 4096, 256, true);
    let parameters = format!("{name} {:?} {:?}", options.size, options.label);
    let derived = identifiers(tree, &parameters).0;
    let uuid = options.uuid.unwrap_or(derived);
    let created = |size| Created { size, files: need.names, bytes: need.bytes, uuid, elapsed: started.elapsed() };
    let sized = |size: u64| {
        let file = output.file();
        // What an earlier attempt wrote must not be found again.
        let set = file.set_len(0).and_then(|()| file.set_len(size));
        set.map_err(|error| Error::resizing(size, &error))
    };
    if options.kind == Kind::Swap {
        let Size::Bytes(size) = options.size else {
            return Err(Error::new("a swap area needs a size").hint("name one with --size, such as --size 256M"));
        };
        if !options.from.is_empty() {
            return Err(Error::new("a swap area holds no files").hint("leave --from out"));
        }
        sized(size)?;
        crate::swap::write_swap(output.file(), 0, size, &options.label, &uuid)?;
        let done = created(size);
        output.publish()?;
        return Ok(done);
    }
    let mut size = match options.size {
        Size::Bytes(size) => size,
        Size::Auto { free } => fat_size(tree, free),
    };
    let volume_id = u32::from_be_bytes([uuid[0], uuid[1], uuid[2], uuid[3]]);
    for _ in 0..ATTEMPTS {
        sized(size)?;
        let mut progress = Progress::new(need.names, need.bytes, report);
        let window = Window { file: output.file(), start: 0, size, at: 0 };
        let written = with_feed(tree, inputs, |feed| {
            write_fat(window, tree, &options.label, volume_id, time, feed, &mut progress)
        });
        match (written, options.size) {
            (Ok(()), _) => {
                let done = created(size);
                output.publish()?;
                return Ok(done);
            }
            (Err(Stop::Failed(error)), _) => return Err(error.at(options.output.display())),
            (Err(Stop::Full(path)), Size::Bytes(_)) => {
                return Err(Error::new(format_args!(
                    "{}: {} are too few: {path} does not fit",
                    options.output.display(),
                    HumanSize(size)
                ))
                .hint("say --size auto for what fits"));
            }
            (Err(Stop::Full(_)), Size::Auto { .. }) => size = (size + size / 16).next_multiple_of(1 << 20) + (1 << 20),
        }
    }
    Err(Error::new(format_args!("no size up to {} holds {need}", HumanSize(size))).hint("name one with --size"))
}
