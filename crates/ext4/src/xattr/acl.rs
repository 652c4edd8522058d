//! POSIX access control lists: the form ext4 stores (version 1: no id where none is needed) and the form that
//! `getxattr(2)` and `setxattr(2)` pass (version 2: every entry with an id; `acl(5)`, Linux `posix_acl_xattr.h`).

use crate::le::{u16_at, u32_at};
use alloc::vec::Vec;

const TAG_USER: u16 = 2;
const TAG_GROUP: u16 = 8;
/// `ACL_USER_OBJ`, `ACL_GROUP_OBJ`, `ACL_MASK`, `ACL_OTHER`.
const TAGS_WITHOUT_ID: [u16; 4] = [1, 4, 16, 32];

/// From the stored form; `None` if it is malformed.
pub(crate) fn to_user(stored: &[u8]) -> Option<Vec<u8>> {
    if stored.len() < 4 || u32_at(stored, 0) != 1 {
        return None;
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    let mut at = 4;
    while at < stored.len() {
        let tag = u16_at(stored, at);
        let with_id = tag == TAG_USER || tag == TAG_GROUP;
        if !with_id && !TAGS_WITHOUT_ID.contains(&tag) {
            return None;
        }
        let len = if with_id { 8 } else { 4 };
        out.extend_from_slice(stored.get(at..at + 4)?);
        let id = if with_id { u32::from_le_bytes(*stored.get(at + 4..)?.first_chunk()?) } else { u32::MAX };
        out.extend_from_slice(&id.to_le_bytes());
        at += len;
    }
    Some(out)
}

/// To the stored form; `None` if it is malformed.
pub(crate) fn to_disk(user: &[u8]) -> Option<Vec<u8>> {
    if user.len() < 4 || u32_at(user, 0) != 2 || !(user.len() - 4).is_multiple_of(8) {
        return None;
    }
    let mut out = 1u32.to_le_bytes().to_vec();
    for e in user.get(4..)?.chunks_exact(8) {
        let tag = u16_at(e, 0);
        if u16_at(e, 2) & !7 != 0 {
            return None;
        }
        if tag == TAG_USER || tag == TAG_GROUP {
            out.extend_from_slice(e);
        } else if TAGS_WITHOUT_ID.contains(&tag) {
            out.extend_from_slice(e.get(..4)?);
        } else {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_ways() {
        let user = [
            &2u32.to_le_bytes()[..],
            &[1, 0, 7, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 232, 3, 0, 0],
            &[4, 0, 5, 0, 255, 255, 255, 255],
            &[16, 0, 7, 0, 255, 255, 255, 255],
            &[32, 0, 4, 0, 255, 255, 255, 255],
        ]
        .concat();
        let disk = to_disk(&user).unwrap();
        assert_eq!(disk.len(), 4 + 4 * 4 + 8);
        assert_eq!(to_user(&disk).unwrap(), user);
        assert_eq!(to_disk(&[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(to_disk(&[1; 4]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = to_user(&data);
            let _ = to_disk(&data);
        }
    }
}
