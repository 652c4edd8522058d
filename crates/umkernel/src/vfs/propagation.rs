//! Propagation between mounts: what is mounted or unmounted below one is below its peers and slaves too
//! (`mount_namespaces(7)`, Documentation/filesystems/sharedsubtree.rst).

use super::mount::MountTree;
use super::namespace::check_no_loop;
use super::{Location, Mount, MountChange, MountFlags, Vfs};
use crate::errno::Result;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How a mount takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// Peer group: what happens below one member happens below all (`shared:N` of `/proc/PID/mountinfo`).
    pub group: Option<u32>,
    /// Peer group that it follows without being followed (`master:N`).
    pub master: Option<u32>,
    /// Cannot be bound elsewhere.
    pub unbindable: bool,
}

/// What `mount(2)` makes of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationType {
    /// `MS_SHARED`.
    Shared,
    /// `MS_SLAVE`.
    Slave,
    /// `MS_PRIVATE`.
    Private,
    /// `MS_UNBINDABLE`.
    Unbindable,
}

impl MountTree {
    /// The lowest number that no peer group has.
    fn free_group(&self) -> u32 {
        let used: BTreeSet<u32> = self.all().iter().filter_map(|m| m.propagation().group).collect();
        (1..).find(|n| !used.contains(n)).unwrap_or(u32::MAX)
    }

    /// Makes a mount in the tree a member of a peer group, unless it is one.
    fn share(&self, mount: &Mount) {
        let mut propagation = mount.propagation();
        if propagation.group.is_none() {
            propagation.group = Some(self.free_group());
            mount.set_propagation(propagation);
        }
    }

    /// The mounts that follow `mount`, each with the index in the list of the one it is slave to (`None`: it is a peer of
    /// `mount`, or of the one before it in that group), in an order that has masters before slaves.
    fn followers(&self, mount: &Arc<Mount>) -> Vec<Follower> {
        let mut found: Vec<Follower> = Vec::new();
        let mut groups: Vec<(u32, Option<usize>)> = mount.propagation().group.map(|g| (g, None)).into_iter().collect();
        let mut next = 0;
        while let Some(&(group, leader)) = groups.get(next) {
            next += 1;
            for other in self.all() {
                if Arc::ptr_eq(other, mount) || found.iter().any(|f| Arc::ptr_eq(&f.mount, other)) {
                    continue;
                }
                let propagation = other.propagation();
                let slave = propagation.group != Some(group) && propagation.master == Some(group);
                if propagation.group != Some(group) && !slave {
                    continue;
                }
                found.push(Follower { mount: other.clone(), leader, slave });
                if let Some(own) = propagation.group.filter(|_| slave) {
                    groups.push((own, Some(found.len() - 1)));
                }
            }
        }
        found
    }

    /// Attaches a mount, with what is mounted below it, at a place, and copies of all wherever that place's mount
    /// propagates to.
    ///
    /// # Errors
    /// `ENOSPC` for more mounts than there may be; `EINVAL` for a mount namespace's file where it must not be.
    pub(super) fn attach_everywhere(
        &mut self,
        mount: &Arc<Mount>,
        at: &Location,
        copy: impl Fn(&Arc<Mount>) -> Arc<Mount>,
    ) -> Result<()> {
        let followers = self.followers(&at.mount);
        let tree = self.subtree(mount);
        self.check_room(tree.len().saturating_mul(followers.len() + 1))?;
        check_no_loop(&tree, &at.mount, !followers.is_empty())?;
        self.attach(mount.clone(), Some(at));
        if at.mount.propagation().group.is_none() {
            return Ok(());
        }
        tree.iter().for_each(|mount| self.share(mount));
        // The groups that the copies of each follower's peers are in, one for each mount of the tree.
        let mut groups: Vec<Vec<Option<u32>>> = Vec::with_capacity(followers.len());
        for follower in &followers {
            let led_by: Vec<Option<u32>> = match follower.leader {
                Some(leader) => groups[leader].clone(),
                None => tree.iter().map(|mount| mount.propagation().group).collect(),
            };
            if !at.dentry.is_within(&follower.mount.root) {
                // Nobody to be led by: what its peers get is private.
                groups.push(led_by.into_iter().map(|group| group.filter(|_| !follower.slave)).collect());
                continue;
            }
            let mut top = Location { mount: follower.mount.clone(), dentry: at.dentry.clone() };
            while let Some(on_top) = self.covering(&top) {
                top = on_top.root_location();
            }
            let mut copies: Vec<Arc<Mount>> = Vec::with_capacity(tree.len());
            for (original, &leader) in tree.iter().zip(&led_by) {
                let place = match original.mount_point().filter(|_| !copies.is_empty()) {
                    None => top.clone(),
                    Some(point) => {
                        let parent = tree.iter().position(|mount| Arc::ptr_eq(mount, &point.mount));
                        let mount = parent.and_then(|at| copies.get(at)).unwrap_or(&top.mount).clone();
                        Location { mount, dentry: point.dentry }
                    }
                };
                let made = copy(original);
                made.set_propagation(match follower.slave {
                    true => Propagation { group: None, master: leader, unbindable: false },
                    false => Propagation { group: leader, ..original.propagation() },
                });
                self.attach(made.clone(), Some(&place));
                if follower.slave && follower.mount.propagation().group.is_some() {
                    self.share(&made);
                }
                copies.push(made);
            }
            let own = copies.iter().zip(led_by).map(|(copy, leader)| copy.propagation().group.or(leader));
            groups.push(own.collect());
        }
        Ok(())
    }

    /// The copies of a mount that go with it: what is mounted at the same place of the mounts that follow its parent.
    pub(super) fn detached_with(&self, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let Some(point) = mount.mount_point() else {
            return Vec::new();
        };
        let places = self.followers(&point.mount).into_iter();
        let places = places.map(|f| Location { mount: f.mount, dentry: point.dentry.clone() });
        places.filter_map(|place| self.covering(&place)).filter(|m| !Arc::ptr_eq(m, mount)).collect()
    }

    pub(super) fn set_type(&self, mount: &Arc<Mount>, to: PropagationType) {
        let old = mount.propagation();
        let has_peers = || self.all().iter().any(|m| !Arc::ptr_eq(m, mount) && m.propagation().group == old.group);
        match to {
            PropagationType::Shared => {
                mount.set_propagation(Propagation { unbindable: false, ..old });
                self.share(mount);
            }
            PropagationType::Slave if old.group.is_some() => {
                // The last of its group follows whom the group followed.
                let master = if has_peers() { old.group } else { old.master };
                mount.set_propagation(Propagation { group: None, master, unbindable: false });
            }
            PropagationType::Slave => {}
            PropagationType::Private => mount.set_propagation(Propagation::default()),
            PropagationType::Unbindable => {
                mount.set_propagation(Propagation { unbindable: true, ..Propagation::default() });
            }
        }
    }
}

/// A mount that another's events reach.
struct Follower {
    mount: Arc<Mount>,
    /// Index of the follower through which they reach it.
    leader: Option<usize>,
    /// They do not go back.
    slave: bool,
}

impl Vfs {
    /// `mount(2)` with one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` and `MS_UNBINDABLE`; `recursive` with all below.
    ///
    /// # Errors
    /// `EINVAL` where nothing is mounted.
    pub fn set_propagation(&self, at: &Location, to: PropagationType, recursive: bool) -> Result<()> {
        let change = MountChange { set: MountFlags::empty(), clear: MountFlags::empty(), propagation: Some(to) };
        self.change_mounts(at, &change, recursive)
    }
}
