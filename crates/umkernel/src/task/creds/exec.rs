//! What exec does to credentials (`execve(2)`, "Transformation of capabilities during execve()" of `capabilities(7)`).

use super::{Capabilities, Creds, securebits};
use crate::vfs::Attr;

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

/// The credentials of a program whose file has these attributes, and whether it must not trust its environment
/// (`AT_SECURE`). With `no_suid` the file's mount gives no privilege; with `no_new_privs` nothing does.
pub fn for_exec(old: &Creds, attr: &Attr, no_suid: bool, no_new_privs: bool) -> (Creds, bool) {
    let mut new = old.clone();
    if !no_suid && !no_new_privs {
        if attr.mode & SET_USER != 0 {
            new.euid = attr.uid;
        }
        if attr.mode & (SET_GROUP | GROUP_EXECUTE) == SET_GROUP | GROUP_EXECUTE {
            new.egid = attr.gid;
        }
    }
    new.permitted = Capabilities::empty();
    let mut effective = false;
    if old.securebits & securebits::NOROOT == 0 && (new.euid == 0 || new.uid == 0) {
        new.permitted = old.bounding | old.inheritable;
        effective = new.euid == 0;
    }
    let is_set_id = new.euid != old.uid || new.egid != old.gid;
    if no_new_privs && (is_set_id || !old.permitted.contains(new.permitted)) {
        new.euid = new.uid;
        new.egid = new.gid;
        new.permitted &= old.permitted;
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    if is_set_id {
        new.ambient = Capabilities::empty();
    }
    new.permitted |= new.ambient;
    new.effective = if effective { new.permitted } else { new.ambient };
    new.keep_caps = false;
    new.dumpable = new.euid == new.uid && new.egid == new.gid;
    let gained = effective || !new.ambient.contains(new.permitted);
    let secure = is_set_id || new.uid != 0 && gained;
    (new, secure)
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use crate::vfs::FileType;

    fn file(mode: u32, uid: u32, gid: u32) -> Attr {
        Attr::new(1, 1, FileType::Regular, mode, (uid, gid))
    }

    fn user() -> Creds {
        let ids = super::super::Ids { real: 1000, effective: 1000, saved: 1000, fs: 1000 };
        Creds::root().with_users(ids).with_groups(ids)
    }

    #[test]
    fn leaving_root_drops_capabilities() {
        assert!(user().permitted.is_empty() && user().effective.is_empty());
        let kept = Creds { keep_caps: true, ..Creds::root() };
        let ids = kept.users().set_res(1, 1, 1, true).unwrap();
        assert_eq!(kept.with_users(ids).permitted, Capabilities::ALL);
        assert!(kept.with_users(ids).effective.is_empty());
    }

    #[test]
    fn a_set_user_id_root_program_gets_everything_and_is_secure() {
        let (new, secure) = for_exec(&user(), &file(0o4755, 0, 0), false, false);
        assert_eq!((new.uid, new.euid, new.suid, new.fsuid), (1000, 0, 0, 0));
        assert_eq!(new.effective, Capabilities::ALL);
        assert!(secure && !new.dumpable);
    }

    #[test]
    fn no_new_privs_and_nosuid_mounts_give_nothing() {
        for (no_suid, no_new_privs) in [(false, true), (true, false)] {
            let (new, secure) = for_exec(&user(), &file(0o6755, 0, 0), no_suid, no_new_privs);
            assert_eq!((new.euid, new.egid), (1000, 1000));
            assert!(new.permitted.is_empty() && !secure);
        }
    }

    #[test]
    fn set_group_id_needs_group_execute() {
        assert_eq!(for_exec(&user(), &file(0o2745, 0, 5), false, false).0.egid, 1000);
        assert_eq!(for_exec(&user(), &file(0o2755, 0, 5), false, false).0.egid, 5);
    }

    #[test]
    fn roots_programs_keep_what_the_bounding_set_allows() {
        let bounded = Creds { bounding: Capabilities::CHOWN, ..Creds::root() };
        let (new, secure) = for_exec(&bounded, &file(0o755, 0, 0), false, false);
        assert_eq!((new.effective, secure), (Capabilities::CHOWN, false));
    }

    #[test]
    fn ids_follow_the_rules() {
        let ids = super::super::Ids { real: 1, effective: 2, saved: 3, fs: 2 };
        assert_eq!(ids.set(3, false).unwrap().effective, 3);
        assert!(ids.set(2, false).is_err());
        // setreuid swaps real and effective; the saved id follows the effective one.
        let swapped = ids.set_re(2, 1, false).unwrap();
        assert_eq!((swapped.real, swapped.effective, swapped.saved), (2, 1, 1));
        assert!(ids.set_re(3, u32::MAX, false).is_err());
        assert!(ids.set_res(4, u32::MAX, u32::MAX, false).is_err());
        assert_eq!(ids.set_fs(9, false), ids);
    }
}
