//! `umlfs image rm|mkdir|mv|ln|chmod|chown|label`: changes of an image in place, through its journal.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use imgtool::{Disk, ModeChange, Target, Volume};

use super::{list, report, split, split_with_path};
use crate::CommandResult;
use crate::error::CliError;

/// An image and paths in it.
type Named = (Target, Vec<Vec<u8>>);

/// Images with the paths named in each, in order; an image named twice is opened once.
fn by_image(arguments: &[OsString]) -> Result<Vec<Named>, CliError> {
    let mut found: Vec<Named> = Vec::new();
    for argument in arguments {
        let (target, path) = split_with_path(argument)?;
        match found.iter_mut().find(|(known, _)| *known == target) {
            Some((_, paths)) => paths.push(path),
            None => found.push((target, vec![path])),
        }
    }
    Ok(found)
}

/// Opens each image, applies `change` to its paths, and closes it. What was done before an error stays done, and the
/// file system is left clean.
fn change(
    arguments: &[OsString],
    mut change: impl FnMut(&mut Volume<Disk>, &[u8]) -> Result<(), CliError>,
) -> CommandResult {
    for (target, paths) in by_image(arguments)? {
        let mut image = Volume::open_writable(target).map_err(report)?;
        let done = paths.iter().try_for_each(|path| change(&mut image, path));
        let closed = image.close().map_err(report);
        done.and(closed)?;
    }
    Ok(0)
}

/// Remove files of an image
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  umlfs image rm -r root.img:/var/cache/apt")]
pub(crate) struct Rm {
    /// Remove directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// A file that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// What to remove
    #[arg(value_name = "IMAGE:PATH", required = true)]
    files: Vec<OsString>,
}

impl Rm {
    pub(crate) fn run(&self) -> CommandResult {
        change(&self.files, |image, path| {
            if self.force && image.stat(path).is_err() {
                return Ok(());
            }
            image.remove(path, self.recursive).map_err(report)
        })
    }
}

/// Make directories in an image
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  umlfs image mkdir -p -m 700 root.img:/root/.ssh")]
pub(crate) struct Mkdir {
    /// Make the directories above, too; one that is there is no error
    #[arg(short, long)]
    parents: bool,
    /// Mode of the new directory, octal
    #[arg(short, long, default_value = "755", value_parser = octal)]
    mode: u16,
    /// What to make
    #[arg(value_name = "IMAGE:PATH", required = true)]
    directories: Vec<OsString>,
}

fn octal(text: &str) -> Result<u16, &'static str> {
    match ModeChange::parse(text) {
        Some(ModeChange::Absolute(mode)) => Ok(mode),
        _ => Err("expected an octal mode such as 755"),
    }
}

impl Mkdir {
    pub(crate) fn run(&self) -> CommandResult {
        change(&self.directories, |image, path| image.make_directory(path, self.mode, self.parents).map_err(report))
    }
}

/// Rename or move a file in an image
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  umlfs image mv root.img:/etc/fstab.new /etc/fstab")]
pub(crate) struct Mv {
    /// The file to move
    #[arg(value_name = "IMAGE:PATH")]
    from: OsString,
    /// Its new name in the same image, or the directory it goes into
    #[arg(value_name = "PATH")]
    to: OsString,
}

impl Mv {
    pub(crate) fn run(&self) -> CommandResult {
        let (target, from) = split_with_path(&self.from)?;
        let to = same_image(&target, &self.to)?;
        let mut image = Volume::open_writable(target).map_err(report)?;
        let done = image.rename(&from, &to).map_err(report);
        done.and(image.close().map_err(report))?;
        Ok(0)
    }
}

/// A second path: `/PATH`, or `IMAGE:/PATH` with the same image.
fn same_image(target: &Target, argument: &OsStr) -> Result<Vec<u8>, CliError> {
    match split(argument) {
        (other, Some(path)) if other == *target => Ok(path),
        (other, Some(_)) if other.path.is_file() => Err(CliError::usage(format_args!(
            "{other} is another image than {target}, expected a path in the same one"
        ))
        .hint("copy it out with `umlfs image cp`, and in again")),
        _ => Ok(argument.as_bytes().to_vec()),
    }
}

/// Make links in an image
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  umlfs image ln -s /usr/share/zoneinfo/UTC root.img:/etc/localtime")]
pub(crate) struct Ln {
    /// Make a symbolic link, which holds the target as it is
    #[arg(short, long)]
    symbolic: bool,
    /// Replace a file that has the name
    #[arg(short, long)]
    force: bool,
    /// What the link is to be: a path in the image
    target: OsString,
    /// The link, or the directory it goes into
    #[arg(value_name = "IMAGE:PATH")]
    link: OsString,
}

impl Ln {
    pub(crate) fn run(&self) -> CommandResult {
        let (image, path) = split_with_path(&self.link)?;
        let target = match self.symbolic {
            true => self.target.as_bytes().to_vec(),
            false => same_image(&image, &self.target)?,
        };
        let mut image = Volume::open_writable(image).map_err(report)?;
        let done =
            image.ext("links").and_then(|image| image.link(&target, &path, self.symbolic, self.force)).map_err(report);
        done.and(image.close().map_err(report))?;
        Ok(0)
    }
}

/// Change modes of files in an image
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  umlfs image chmod 4755 root.img:/bin/su\n  umlfs image chmod -R go-w root.img:/etc"
)]
pub(crate) struct Chmod {
    /// Also everything below directories; symbolic links are left alone
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Octal, or symbolic as chmod(1) takes it
    #[arg(value_parser = mode, allow_hyphen_values = true)]
    mode: ModeChange,
    /// Which files
    #[arg(value_name = "IMAGE:PATH", required = true)]
    files: Vec<OsString>,
}

fn mode(text: &str) -> Result<ModeChange, &'static str> {
    ModeChange::parse(text).ok_or("expected an octal mode such as 644, or clauses such as u+x,go-w")
}

impl Chmod {
    pub(crate) fn run(&self) -> CommandResult {
        change(&self.files, |image, path| {
            let done = image.ext("modes").and_then(|image| image.change_mode(path, &self.mode, self.recursive));
            done.map_err(report)
        })
    }
}

/// Change owners of files in an image
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  umlfs image chown 0:0 root.img:/etc/passwd\n  \
                        umlfs image chown -R www-data:www-data root.img:/srv/www")]
pub(crate) struct Chown {
    /// Also everything below directories; symbolic links themselves are changed
    #[arg(short = 'R', long)]
    recursive: bool,
    /// USER, USER:GROUP or :GROUP: numbers, or names from the image's own /etc/passwd and /etc/group
    owner: String,
    /// Which files
    #[arg(value_name = "IMAGE:PATH", required = true)]
    files: Vec<OsString>,
}

impl Chown {
    pub(crate) fn run(&self) -> CommandResult {
        let (user, group) = match self.owner.split_once(':') {
            Some((user, group)) => (user, group),
            None => (self.owner.as_str(), ""),
        };
        change(&self.files, |image, path| {
            let uid = number(image, user, b"/etc/passwd", "user")?;
            let gid = number(image, group, b"/etc/group", "group")?;
            if uid.is_none() && gid.is_none() {
                return Err(CliError::usage("the owner is empty, expected USER, USER:GROUP or :GROUP"));
            }
            let done = image.ext("owners").and_then(|image| image.change_owner(path, uid, gid, self.recursive));
            done.map_err(report)
        })
    }
}

fn number(image: &mut Volume<Disk>, name: &str, file: &[u8], what: &str) -> Result<Option<u32>, CliError> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let known = list::names(image, file);
    match known.iter().find(|(_, known)| *known == name) {
        Some((number, _)) => Ok(Some(*number)),
        None => {
            Err(CliError::failed(format_args!("the image has no {what} `{name}` in {}", String::from_utf8_lossy(file)))
                .hint(format_args!("name the {what} by number")))
        }
    }
}

/// Print or set an image's volume label
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  umlfs image label root.img\n  umlfs image label root.img LFS")]
pub(crate) struct Label {
    /// The image
    #[arg(value_name = "IMAGE[:PARTITION]")]
    image: OsString,
    /// The new label: at most 16 bytes, 11 for FAT
    label: Option<OsString>,
}

impl Label {
    pub(crate) fn run(&self) -> CommandResult {
        let (target, _) = split(&self.image);
        let Some(label) = &self.label else {
            let label = Volume::open(target).and_then(|mut volume| match &mut volume {
                Volume::Ext(image) => Ok(image.info().label),
                Volume::Fat(image) => image.info().map(|info| info.label),
            });
            let label = label.map_err(report)?.unwrap_or_default();
            crate::ui::with_stdout(|out| writeln!(out, "{label}").map_err(|error| CliError::output(&error)))?;
            return Ok(0);
        };
        let label =
            String::from_utf8(label.clone().into_vec()).map_err(|_| CliError::usage("the label is no UTF-8 text"))?;
        let mut image = Volume::open_writable(target).map_err(report)?;
        let done = image.set_label(&label).map_err(report);
        done.and(image.close().map_err(report))?;
        Ok(0)
    }
}
