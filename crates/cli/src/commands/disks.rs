//! The disks of a machine as its user names them: `IMAGE` or `DISK:PARTITION`, `root=/dev/ubda2`, `--disk FILE`, `ubdb=FILE`.

use std::path::{Path, PathBuf};

use imgtool::{Target as Disk, cow};
use umkernel::block::MAX_DISKS;
use umkernel::machine::launch::{DiskConfig, OverlayConfig};

use crate::error::CliError;

/// What `root=` names: the root disk, or a partition of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Root(pub(super) Option<u32>);

impl Root {
    pub(super) fn parse(value: &str) -> Option<Root> {
        if ["/dev/ubda", "/dev/ubd0", "98:0"].contains(&value) {
            return Some(Root(None));
        }
        // parse() takes a sign, a device's name has none.
        let number =
            value.strip_prefix("/dev/ubda").filter(|rest| rest.starts_with(|c: char| ('1'..='9').contains(&c)))?;
        number.parse().ok().map(|number| Root(Some(number)))
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("/dev/ubda")?;
        self.0.map_or(Ok(()), |number| write!(f, "{number}"))
    }
}

/// A further disk, as it is named.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    /// Its number, if that is said: 1 is `/dev/ubdb`.
    pub(super) index: Option<u8>,
    /// The file.
    pub(super) path: PathBuf,
    /// The guest may not write to it.
    pub(super) read_only: bool,
}

/// Reads the value of `--disk`: `FILE[:ro]`.
pub(super) fn parse_disk(text: &str) -> Result<Named, String> {
    let whole = Path::new(text).exists();
    let (path, read_only) = match text.strip_suffix(":ro") {
        Some(rest) if !whole => (rest, true),
        _ => (text, false),
    };
    if path.is_empty() {
        Err("expected FILE or FILE:ro".into())
    } else {
        Ok(Named { index: None, path: path.into(), read_only })
    }
}

/// The number of the disk that a kernel argument's key names, and whether it is for reading: `ubdb`, `ubd1`, `ubdbr`
/// (`Documentation/virt/uml` of Linux).
pub(super) fn number(key: &str) -> Option<(u8, bool)> {
    let rest = key.strip_prefix("ubd")?;
    let (name, read_only) = match rest.strip_suffix('r') {
        Some(name) => (name, true),
        None => (rest, false),
    };
    let index = match name.as_bytes() {
        [letter @ b'a'..=b'z'] => letter - b'a',
        [digit @ b'0'..=b'9'] => digit - b'0',
        _ => return None,
    };
    (usize::from(index) < MAX_DISKS).then_some((index, read_only))
}

/// The disks beside the root disk. Those without a number get the first ones that are free.
///
/// # Errors
/// One cannot be had: there are too many, or a number is given or a file is named twice.
pub(super) fn further<'a>(named: impl Iterator<Item = &'a Named>, root: &Path) -> Result<Vec<DiskConfig>, CliError> {
    let named: Vec<&Named> = named.collect();
    let mut files = vec![root.canonicalize().unwrap_or_else(|_| root.to_owned())];
    let mut disks: Vec<DiskConfig> = Vec::new();
    for one in named.iter().filter(|one| one.index.is_some()).chain(named.iter().filter(|one| one.index.is_none())) {
        let shown = one.path.display();
        let taken = |index: &u8| disks.iter().any(|disk| disk.index == *index);
        let free = || (1..MAX_DISKS as u8).find(|index| !taken(index));
        let index = one.index.or_else(free).ok_or_else(|| {
            CliError::usage(format_args!("{shown} is one disk too many: a machine has {MAX_DISKS}"))
                .hint("leave one out")
        })?;
        if taken(&index) {
            let letter = char::from(b'a' + index);
            return Err(
                CliError::usage(format_args!("ubd{letter} is given twice")).hint("each disk has a letter of its own")
            );
        }
        // Says what a thing is that is no file at all.
        imgtool::identify(&one.path).map_err(super::image::report)?;
        let file = one.path.canonicalize().unwrap_or_else(|_| one.path.clone());
        if files.contains(&file) {
            return Err(CliError::usage(format_args!("{shown} is named twice")).hint("each disk has a file of its own"));
        }
        files.push(file);
        disks.push(config(index, layers(&one.path, None).map_err(super::image::report)?, one.read_only));
    }
    Ok(disks)
}

/// A disk in these layers.
pub(super) fn config(index: u8, chain: cow::Chain, read_only: bool) -> DiskConfig {
    let cow::Chain { base: image, overlays: files, data_at, bitmap_at, .. } = chain;
    let overlays = (!files.is_empty()).then_some(OverlayConfig { files, data_at, bitmap_at });
    DiskConfig { index, image, overlays, read_only }
}

/// The disk with the root file system: `IMAGE` or `DISK:PARTITION`, and what `root=` says of it.
pub(super) fn root_disk(image: &Path, root: Option<Root>) -> Result<Disk, CliError> {
    let named = match image.exists() {
        true => Disk::from(image),
        false => super::image::disk_or_partition(image.as_os_str())?,
    };
    let partition = match (named.partition, root) {
        (Some(number), Some(Root(said))) if said.is_some_and(|said| said != number) => {
            let (said, number) = (Root(said), Root(Some(number)));
            return Err(CliError::usage(format_args!("root={said}: {named} is {number}")).hint("leave root= out"));
        }
        (Some(number), _) => Some(number),
        (None, root) => root.and_then(|Root(said)| said),
    };
    Ok(Disk { partition, ..named })
}

/// The image with the overlays that the machine is to have.
pub(super) fn layers(image: &Path, cow: Option<&Path>) -> Result<cow::Chain, imgtool::Error> {
    let Some(overlay) = cow else {
        return cow::chain(image);
    };
    if !overlay.exists() {
        cow::create(overlay, image, false)?;
    }
    let below = cow::info(overlay)?.below;
    let same = |a: &Path, b: &Path| a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if !same(&below, image) {
        let what = format!("{} is an overlay on {}, not on {}", overlay.display(), below.display(), image.display());
        return Err(imgtool::Error::new(what).hint("name that image, or another file for --cow"));
    }
    cow::chain(overlay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_may_be_a_partition() {
        let root = |value: &str| Root::parse(value);
        for whole in ["/dev/ubda", "/dev/ubd0", "98:0"] {
            assert_eq!(root(whole), Some(Root(None)));
        }
        assert_eq!(root("/dev/ubda12"), Some(Root(Some(12))));
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("a.img");
        std::fs::write(&image, b"").unwrap();
        let partition = |root| root_disk(&image, root).unwrap().partition;
        assert_eq!(partition(None), None);
        assert_eq!(partition(Some(Root(Some(3)))), Some(3));
    }

    #[test]
    fn keys_of_disks() {
        for (key, is) in [("ubda", (0, false)), ("ubdb", (1, false)), ("ubd7", (7, false)), ("ubdhr", (7, true))] {
            assert_eq!(number(key), Some(is), "{key}");
        }
        for key in ["ubd", "ubdi", "ubd8", "ubdab", "ubdrr", "ubdB", "sda", "ubd10"] {
            assert_eq!(number(key), None, "{key}");
        }
    }

    #[test]
    fn further_disks_have_letters_and_files_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["root", "a", "b", "c:ro"] {
            std::fs::write(path(name), name).unwrap();
        }
        let named = |index, name: &str| Named { index, path: path(name), read_only: false };
        let all = |named: &[Named]| {
            let disks = further(named.iter(), &path("root"));
            disks.map(|disks| disks.into_iter().map(|disk| (disk.index, disk.image)).collect::<Vec<_>>())
        };
        let got = all(&[named(None, "a"), named(Some(1), "b"), named(None, "c:ro")]).unwrap();
        assert_eq!(got, [(1, path("b")), (2, path("a")), (3, path("c:ro"))]);
        assert_eq!(all(&[named(Some(2), "a"), named(Some(2), "b")]).unwrap_err().exit_code(), 2);
        assert_eq!(all(&[named(None, "a"), named(None, "a")]).unwrap_err().exit_code(), 2);
        assert_eq!(all(&[named(None, "root")]).unwrap_err().exit_code(), 2);
        assert_eq!(all(&[named(None, "missing")]).unwrap_err().exit_code(), 1);
        let parsed = parse_disk(path("a:ro").to_str().unwrap()).unwrap();
        assert_eq!(parsed, Named { index: None, path: path("a"), read_only: true });
        assert!(!parse_disk(path("c:ro").to_str().unwrap()).unwrap().read_only);
        assert!(parse_disk("").is_err() && parse_disk(":ro").is_err());
    }
}
