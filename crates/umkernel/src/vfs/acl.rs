//! Access control lists: permissions for further users and groups, and what new files in a directory begin with
//! (`acl(5)`). The rules are those of Linux `fs/posix_acl.c`; file systems keep lists as extended attributes.

use super::{Access, Attr, Inode};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::sync::Mutex;
use crate::task::Creds;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};

/// The version of the form that `setxattr(2)` takes (`POSIX_ACL_XATTR_VERSION`).
const VERSION: u32 = 2;
/// The id of an entry that has none.
const NO_ID: u32 = u32::MAX;

/// Which of a file's two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who may do what.
    Access,
    /// What new files in the directory get.
    Default,
}

impl Kind {
    /// The list that is behind the name of an attribute.
    pub(super) fn of_name(name: &[u8]) -> Option<Kind> {
        [Kind::Access, Kind::Default].into_iter().find(|kind| kind.name() == name)
    }

    fn name(self) -> &'static [u8] {
        match self {
            Kind::Access => b"system.posix_acl_access",
            Kind::Default => b"system.posix_acl_default",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What is known of an inode's lists.
#[derive(Default)]
pub(super) struct Known {
    /// The bits of those that it does not have: nearly all files have none, and each step of a path walk asks.
    absent: AtomicU8,
    /// Held while a list is read to find out, or changed.
    lock: Mutex<()>,
}

/// Whom an entry is about, in the order of a list (`ACL_USER_OBJ` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
enum Tag {
    Owner = 1,
    User = 2,
    OwningGroup = 4,
    Group = 8,
    Mask = 16,
    Other = 32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// Three bits, as in a mode.
    allowed: u32,
    /// A user's or group's.
    id: u32,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads a list; `None` for one without entries, which stands for no list at all.
    pub(super) fn parse(value: &[u8]) -> Result<Option<Acl>> {
        if value.is_empty() {
            return Ok(None);
        }
        let Some((version, entries)) = value.split_first_chunk() else { bail!(EINVAL) };
        if u32::from_le_bytes(*version) != VERSION {
            bail!(EOPNOTSUPP, "an access control list of another version");
        }
        let (entries, rest) = entries.as_chunks::<8>();
        if !rest.is_empty() {
            bail!(EINVAL, "the last entry is cut off");
        }
        let entry = |&[t0, t1, p0, p1, i0, i1, i2, i3]: &[u8; 8]| {
            let tag = match u16::from_le_bytes([t0, t1]) {
                1 => Tag::Owner,
                2 => Tag::User,
                4 => Tag::OwningGroup,
                8 => Tag::Group,
                16 => Tag::Mask,
                32 => Tag::Other,
                _ => bail!(EINVAL, "an entry of an unknown kind"),
            };
            let id = if matches!(tag, Tag::User | Tag::Group) { u32::from_le_bytes([i0, i1, i2, i3]) } else { NO_ID };
            Ok(Entry { tag, allowed: u32::from(u16::from_le_bytes([p0, p1])), id })
        };
        let entries: Vec<Entry> = entries.iter().map(entry).collect::<Result<_>>()?;
        Ok(if entries.is_empty() { None } else { Some(Acl(entries)) })
    }

    /// Whether the entries are those that a list must have, in order (`posix_acl_valid`): `EINVAL`.
    pub(super) fn check(&self) -> Result<()> {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let masked = count(Tag::User) + count(Tag::Group) > 0;
        let sound = self.0.is_sorted_by_key(|entry| entry.tag)
            && [Tag::Owner, Tag::OwningGroup, Tag::Other].into_iter().all(|tag| count(tag) == 1)
            && (usize::from(masked)..=1).contains(&count(Tag::Mask))
            && self.0.iter().all(|entry| entry.allowed <= 7)
            && self.0.iter().all(|entry| entry.id != NO_ID || !matches!(entry.tag, Tag::User | Tag::Group));
        if sound { Ok(()) } else { Err(Errno::EINVAL.into()) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&(entry.tag as u16).to_le_bytes());
            value.extend_from_slice(&(entry.allowed as u16).to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// Whether these credentials may access a file of these attributes so (`posix_acl_permission`).
    pub(super) fn allows(&self, creds: &Creds, attr: &Attr, want: Access) -> bool {
        let wanted = want.bits();
        let has = |allowed: u32| allowed & wanted == wanted;
        let mask = self.0.iter().find(|entry| entry.tag == Tag::Mask).map_or(7, |mask| mask.allowed);
        let mut in_a_group = false;
        for entry in &self.0 {
            match entry.tag {
                Tag::Owner if creds.fsuid == attr.uid => return has(entry.allowed),
                Tag::User if creds.fsuid == entry.id => return has(entry.allowed & mask),
                Tag::OwningGroup | Tag::Group => {
                    let gid = if entry.tag == Tag::Group { entry.id } else { attr.gid };
                    if creds.in_group(gid) {
                        in_a_group = true;
                        if has(entry.allowed) {
                            return has(entry.allowed & mask);
                        }
                    }
                }
                Tag::Other => return !in_a_group && has(entry.allowed),
                _ => {}
            }
        }
        false
    }

    /// The permission bits that the list stands for, and whether it says more than they do (`posix_acl_equiv_mode`).
    pub(super) fn mode(&self) -> (u32, bool) {
        let (mut bits, mut mask, mut more) = (0, None, false);
        for entry in &self.0 {
            match entry.tag {
                Tag::Owner => bits |= entry.allowed << 6,
                Tag::OwningGroup => bits |= entry.allowed << 3,
                Tag::Other => bits |= entry.allowed,
                Tag::Mask => mask = Some(entry.allowed),
                Tag::User | Tag::Group => more = true,
            }
        }
        // The mode's bits for the group are the mask's, where there is one.
        match mask {
            Some(mask) => (bits & !0o070 | mask << 3, true),
            None => (bits, more),
        }
    }

    /// The entries that the mode's three groups of bits are, with how far these are shifted.
    fn entries_of_mode(&mut self) -> impl Iterator<Item = (&mut Entry, u32)> {
        let masked = self.0.iter().any(|entry| entry.tag == Tag::Mask);
        self.0.iter_mut().filter_map(move |entry| match entry.tag {
            Tag::Owner => Some((entry, 6)),
            Tag::OwningGroup if !masked => Some((entry, 3)),
            Tag::Mask => Some((entry, 3)),
            Tag::Other => Some((entry, 0)),
            _ => None,
        })
    }

    /// Follows a `chmod(2)`.
    pub(super) fn set_mode(&mut self, mode: u32) {
        for (entry, shift) in self.entries_of_mode() {
            entry.allowed = mode >> shift & 7;
        }
    }

    /// Makes a directory's default list that of a new file, which is asked for with `mode`: neither allows what the other
    /// does not. The file's mode (`posix_acl_create_masq`).
    pub(super) fn of_new_file(&mut self, mode: u32) -> u32 {
        let mut bits = 0;
        for (entry, shift) in self.entries_of_mode() {
            entry.allowed &= mode >> shift & 7;
            bits |= entry.allowed << shift;
        }
        mode & !0o777 | bits
    }
}

/// A list of an inode's; `None` also where the file system keeps none.
pub(super) fn of(inode: &dyn Inode, kind: Kind) -> Result<Option<Acl>> {
    let Some(common) = inode.common().filter(|_| inode.keeps_acls()) else { return Ok(None) };
    let known = &common.acls;
    if known.absent.load(Ordering::Acquire) & kind.bit() != 0 {
        return Ok(None);
    }
    let _lock = known.lock.lock();
    let found = match inode.xattr_get(kind.name()) {
        Ok(value) => Acl::parse(&value)?,
        Err(error) if error.errno == Errno::ENODATA => None,
        Err(error) => return Err(error),
    };
    if found.is_none() {
        known.absent.fetch_or(kind.bit(), Ordering::Release);
    }
    Ok(found)
}

/// Gives an inode a list, or takes it away.
pub(super) fn set(inode: &dyn Inode, kind: Kind, acl: Option<&Acl>) -> Result<()> {
    let Some(common) = inode.common().filter(|_| inode.keeps_acls()) else { bail!(EOPNOTSUPP) };
    let known = &common.acls;
    let _lock = known.lock.lock();
    match acl {
        Some(acl) => {
            inode.xattr_set(kind.name(), &acl.encode(), 0)?;
            known.absent.fetch_and(!kind.bit(), Ordering::Release);
        }
        None => match inode.xattr_remove(kind.name()) {
            Err(error) if error.errno != Errno::ENODATA => return Err(error),
            _ => {
                known.absent.fetch_or(kind.bit(), Ordering::Release);
            }
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Result<Option<Acl>> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, allowed, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&allowed.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        Acl::parse(&value)
    }

    fn sound(entries: &[(u16, u16, u32)]) -> bool {
        acl(entries).unwrap().unwrap().check().is_ok()
    }

    const N: u32 = NO_ID;

    #[test]
    fn a_list_has_permission_bits() {
        let mode = |entries: &[(u16, u16, u32)]| acl(entries).unwrap().unwrap().mode();
        assert_eq!(mode(&[(1, 7, N), (4, 5, N), (32, 5, N)]), (0o755, false));
        assert_eq!(mode(&[(1, 6, N), (2, 7, 9), (4, 0, N), (16, 7, N), (32, 4, N)]), (0o674, true));
        assert_eq!(acl(&[]).unwrap(), None);
        assert!(
            Acl::parse(b"\x02").is_err()
                && Acl::parse(b"\x01\0\0\0").is_err()
                && Acl::parse(b"\x02\0\0\0\x01").is_err()
        );
    }

    #[test]
    fn lists_have_an_order_and_no_gaps() {
        assert!(sound(&[(1, 7, N), (4, 5, N), (32, 5, N)]));
        assert!(sound(&[(1, 7, N), (2, 5, 3), (2, 5, 2), (4, 5, N), (8, 5, 7), (16, 7, N), (32, 5, N)]));
        assert!(sound(&[(1, 7, N), (4, 5, N), (16, 7, N), (32, 5, N)]));
        for wrong in [
            &[(1, 7, N), (32, 5, N)][..],
            &[(4, 7, N), (1, 7, N), (32, 5, N)],
            &[(1, 7, N), (1, 7, N), (4, 7, N), (32, 5, N)],
            &[(1, 7, N), (2, 7, 1), (4, 7, N), (32, 5, N)],
            &[(1, 7, N), (2, 7, N), (4, 7, N), (16, 7, N), (32, 5, N)],
            &[(1, 8, N), (4, 7, N), (32, 5, N)],
        ] {
            assert!(!sound(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn new_files_get_no_more_than_both_allow() {
        let mut list = acl(&[(1, 7, N), (2, 7, 9), (4, 5, N), (16, 7, N), (32, 5, N)]).unwrap().unwrap();
        assert_eq!(list.of_new_file(0o2640), 0o2640);
        assert_eq!(list, acl(&[(1, 6, N), (2, 7, 9), (4, 5, N), (16, 4, N), (32, 0, N)]).unwrap().unwrap());
        list.set_mode(0o751);
        assert_eq!(list, acl(&[(1, 7, N), (2, 7, 9), (4, 5, N), (16, 5, N), (32, 1, N)]).unwrap().unwrap());
    }
}
