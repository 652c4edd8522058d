//! Changes of an image: names, modes, owners.

use ext4::{BlockDevice, FileType, Fs, Ino, NewInode, RenameFlags, SetAttr};

use crate::image::{Image, components, kind_name};
use crate::text::shown;
use crate::{Error, join};

/// How deep a tree may be: a damaged image could hold a directory that is its own parent.
pub(crate) const DEEPEST: usize = 2048;

/// A mode as chmod(1) takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// These twelve bits.
    Absolute(u16),
    /// Clauses such as `u+rwX,go-w`, applied in order.
    Symbolic(Vec<Clause>),
}

/// One clause of a symbolic mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Bits that the clause may touch: those of user, group and others, with set-id and sticky bits.
    who: u16,
    operator: Operator,
    /// Permissions for one class: `rwx` as 4, 2, 1.
    permissions: u16,
    /// `X`: execute for directories and what some class may execute.
    conditional_execute: bool,
    set_id: bool,
    sticky: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

impl ModeChange {
    /// Reads an octal number or symbolic clauses.
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Absolute);
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(Clause::parse).collect();
        Some(Self::Symbolic(clauses?.concat()))
    }

    /// The mode that `mode` becomes.
    pub fn apply(&self, mode: u16, directory: bool) -> u16 {
        match self {
            Self::Absolute(new) => *new,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Vec<Self>> {
        let start = text.find(['+', '-', '='])?;
        let (classes, mut rest) = text.split_at(start);
        let mut who = 0;
        for class in classes.chars() {
            who |= match class {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        if classes.is_empty() {
            who = 0o7777;
        }
        let mut clauses = Vec::new();
        while let Some(sign) = rest.chars().next() {
            let operator = match sign {
                '+' => Operator::Add,
                '-' => Operator::Remove,
                '=' => Operator::Set,
                _ => return None,
            };
            let tail = rest.get(1..)?;
            let (letters, next) = tail.split_at(tail.find(['+', '-', '=']).unwrap_or(tail.len()));
            let mut clause =
                Self { who, operator, permissions: 0, conditional_execute: false, set_id: false, sticky: false };
            for letter in letters.chars() {
                match letter {
                    'r' => clause.permissions |= 4,
                    'w' => clause.permissions |= 2,
                    'x' => clause.permissions |= 1,
                    'X' => clause.conditional_execute = true,
                    's' => clause.set_id = true,
                    't' => clause.sticky = true,
                    _ => return None,
                }
            }
            clauses.push(clause);
            rest = next;
        }
        Some(clauses)
    }

    fn apply(&self, mode: u16, directory: bool) -> u16 {
        let execute = u16::from(self.conditional_execute && (directory || mode & 0o111 != 0));
        let permissions = (self.permissions | execute) * 0o111;
        let special = if self.set_id { 0o6000 } else { 0 } | if self.sticky { 0o1000 } else { 0 };
        let bits = (permissions | special) & self.who;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            // chmod(1) leaves the set-id bits of a directory alone unless they are named.
            Operator::Set if directory => mode & !(self.who & !0o6000) | bits,
            Operator::Set => mode & !self.who | bits,
        }
    }
}

/// What [`Image::visit_all`] calls with each path and attributes.
pub type Visitor<'a> = dyn FnMut(&[u8], &ext4::Attr) -> Result<(), Error> + 'a;

/// Changes one inode.
type Setter<'a, D> = dyn FnMut(&mut Fs<D>, Ino, FileType) -> Result<(), ext4::Error> + 'a;

/// A file met on the way through a tree.
pub(crate) struct Visit {
    pub(crate) path: Vec<u8>,
    pub(crate) ino: Ino,
    pub(crate) kind: FileType,
}

impl<D: BlockDevice> Image<D> {
    /// The directory that holds the last component of `path`, and that component.
    pub(crate) fn parent(&mut self, path: &[u8]) -> Result<(Ino, Vec<u8>), Error> {
        let mut parts = components(path);
        if parts.is_empty() {
            return Err(self.failed(path, "this is the root directory, expected a name in it"));
        }
        let name = parts.remove(0);
        if name == b".." {
            return Err(self.failed(path, "the last component is `..`, expected a name"));
        }
        parts.reverse();
        let directory = self.resolve(&parts.join(&b'/'), true)?;
        Ok((directory, name))
    }

    /// The inode at `path` without following a last link, `None` if there is none in its directory.
    pub(crate) fn lookup(&mut self, directory: Ino, name: &[u8], path: &[u8]) -> Result<Option<Ino>, Error> {
        match self.fs.lookup(directory, name) {
            Ok(ino) => Ok(Some(ino)),
            Err(ext4::Error::NotFound) => Ok(None),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    /// The names in a directory but `.` and `..`, sorted.
    pub(crate) fn names(&mut self, directory: Ino, path: &[u8]) -> Result<Vec<(Vec<u8>, Ino)>, Error> {
        let mut found = Vec::new();
        let done = self.fs.read_dir(directory, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                found.push((entry.name.to_vec(), entry.ino));
            }
            true
        });
        done.map_err(|error| self.failed(path, error))?;
        if let Some((name, _)) = found.iter().find(|(name, _)| name.contains(&b'/')) {
            return Err(self.failed(path, format_args!("damaged: an entry is named `{}`", shown(name))));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Calls `visit` for the file at `path` and, if `recursive`, all below it: a directory before what is in it, or
    /// after if `depth_first`. Links are not followed.
    pub(crate) fn walk(
        &mut self,
        path: &[u8],
        recursive: bool,
        depth_first: bool,
        visit: &mut dyn FnMut(&mut Self, &Visit) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let ino = self.resolve(path, false)?;
        self.walk_from(path.to_vec(), ino, 0, recursive, depth_first, visit)
    }

    fn walk_from(
        &mut self,
        path: Vec<u8>,
        ino: Ino,
        depth: usize,
        recursive: bool,
        depth_first: bool,
        visit: &mut dyn FnMut(&mut Self, &Visit) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(self.failed(&path, "damaged: the directories are nested without an end"));
        }
        let kind = self.fs.attr(ino).map_err(|error| self.failed(&path, error))?.file_type;
        let here = Visit { path, ino, kind };
        if !depth_first {
            visit(self, &here)?;
        }
        if recursive && kind == FileType::Directory {
            for (name, child) in self.names(ino, &here.path)? {
                self.walk_from(join(&here.path, &name), child, depth + 1, recursive, depth_first, visit)?;
            }
        }
        if depth_first { visit(self, &here) } else { Ok(()) }
    }

    /// Calls `visit` with the path and attributes of the file at `path` and of everything below it, directories
    /// first, names in order.
    ///
    /// # Errors
    /// As [`Image::resolve`], or what `visit` returns.
    pub fn visit_all(&mut self, path: &[u8], visit: &mut Visitor<'_>) -> Result<(), Error> {
        self.walk(path, true, false, &mut |image, here| {
            let attr = image.fs.attr(here.ino).map_err(|error| image.failed(&here.path, error))?;
            visit(&here.path, &attr)
        })
    }

    /// Makes a directory owned by root; with `parents`, also those above it, and none if it is there already.
    ///
    /// # Errors
    /// It exists, or the directory above does not, or the image is full.
    pub fn make_directory(&mut self, path: &[u8], mode: u16, parents: bool) -> Result<(), Error> {
        let now = crate::time::now();
        let mut parts = components(path);
        let mut so_far = Vec::new();
        while let Some(name) = parts.pop() {
            so_far = join(&so_far, &name);
            let last = parts.is_empty();
            if !last && !parents {
                continue;
            }
            let (directory, name) = self.parent(&so_far)?;
            match self.lookup(directory, &name, &so_far)? {
                Some(_) if last && !parents => return Err(self.failed(&so_far, "it exists already")),
                Some(_) => {
                    let ino = self.resolve(&so_far, true)?;
                    let attr = self.fs.attr(ino).map_err(|error| self.failed(&so_far, error))?;
                    if attr.file_type != FileType::Directory {
                        let what = kind_name(attr.file_type);
                        return Err(self.failed(&so_far, format_args!("{what}, expected a directory")));
                    }
                }
                None => {
                    let mode = if last { mode } else { 0o755 };
                    let new = NewInode { file_type: FileType::Directory, mode, uid: 0, gid: 0, rdev: (0, 0), now };
                    self.fs.create(directory, &name, &new).map_err(|error| self.failed(&so_far, error))?;
                }
            }
        }
        if components(path).is_empty() && !parents {
            return Err(self.failed(path, "it exists already"));
        }
        Ok(())
    }

    /// Removes a file or empty directory; with `recursive`, a directory with all that is in it.
    ///
    /// # Errors
    /// It does not exist, or is a directory that is not empty.
    pub fn remove(&mut self, path: &[u8], recursive: bool) -> Result<(), Error> {
        let (directory, name) = self.parent(path)?;
        let Some(ino) = self.lookup(directory, &name, path)? else {
            return Err(self.failed(path, ext4::Error::NotFound));
        };
        let kind = self.fs.attr(ino).map_err(|error| self.failed(path, error))?.file_type;
        if kind != FileType::Directory {
            return self.remove_name(directory, &name, path);
        }
        if recursive {
            self.empty(ino, path, 0)?;
        }
        self.remove_empty(directory, &name, path)
    }

    fn empty(&mut self, directory: Ino, path: &[u8], depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(self.failed(path, "damaged: the directories are nested without an end"));
        }
        for (name, ino) in self.names(directory, path)? {
            let path = join(path, &name);
            let kind = self.fs.attr(ino).map_err(|error| self.failed(&path, error))?.file_type;
            if kind == FileType::Directory {
                self.empty(ino, &path, depth + 1)?;
                self.remove_empty(directory, &name, &path)?;
            } else {
                self.remove_name(directory, &name, &path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn remove_name(&mut self, directory: Ino, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let now = crate::time::now();
        let gone = self.fs.unlink(directory, name, now).map_err(|error| self.failed(path, error))?;
        self.fs.release(gone.ino).map_err(|error| self.failed(path, error))
    }

    fn remove_empty(&mut self, directory: Ino, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let now = crate::time::now();
        let gone = self.fs.rmdir(directory, name, now).map_err(|error| self.failed(path, error))?;
        self.fs.release(gone.ino).map_err(|error| self.failed(path, error))
    }

    /// Renames; into `to` if that is a directory, as mv(1) does.
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        let (old_directory, old_name) = self.parent(from)?;
        let to = self.inside(to, &old_name)?;
        let (new_directory, new_name) = self.parent(&to)?;
        let now = crate::time::now();
        let replaced = self
            .fs
            .rename(old_directory, &old_name, new_directory, &new_name, RenameFlags::empty(), now)
            .map_err(|error| self.failed(from, error))?;
        match replaced {
            Some(gone) => self.fs.release(gone.ino).map_err(|error| self.failed(&to, error)),
            None => Ok(()),
        }
    }

    /// `path`, or `path/name` if `path` is a directory.
    pub(crate) fn inside(&mut self, path: &[u8], name: &[u8]) -> Result<Vec<u8>, Error> {
        if components(path).is_empty() {
            return Ok(join(path, name));
        }
        let is_directory = self.is_directory(path);
        if !is_directory && path.ends_with(b"/") {
            return Err(self.failed(path, "no such directory"));
        }
        Ok(if is_directory { join(path, name) } else { path.to_vec() })
    }

    /// Gives the file at `target` another name, or, if `symbolic`, makes a link that holds `target` as it is.
    ///
    /// # Errors
    /// The new name exists (and `replace` is not set), or as link(2) and symlink(2).
    pub fn link(&mut self, target: &[u8], path: &[u8], symbolic: bool, replace: bool) -> Result<(), Error> {
        let base = components(target).into_iter().next().unwrap_or_default();
        let path = self.inside(path, &base)?;
        let (directory, name) = self.parent(&path)?;
        let now = crate::time::now();
        let ino = if symbolic { None } else { Some(self.resolve(target, false)?) };
        if replace
            && let Some(old) = self.lookup(directory, &name, &path)?
            && Some(old) != ino
        {
            self.remove_name(directory, &name, &path)?;
        } else if replace && ino.is_some() && self.lookup(directory, &name, &path)? == ino {
            return Ok(());
        }
        let done = match ino {
            Some(ino) => self.fs.link(directory, &name, ino, now),
            None => {
                let new = NewInode { file_type: FileType::Symlink, mode: 0o777, uid: 0, gid: 0, rdev: (0, 0), now };
                self.fs.symlink(directory, &name, target, &new).map(|_| ())
            }
        };
        done.map_err(|error| self.failed(&path, error))
    }

    /// Changes the mode of the file at `path` (a last link is followed), and with `recursive` of all below it but
    /// symbolic links.
    ///
    /// # Errors
    /// As [`Image::resolve`].
    pub fn change_mode(&mut self, path: &[u8], change: &ModeChange, recursive: bool) -> Result<(), Error> {
        let now = crate::time::now();
        self.change(path, recursive, &mut |fs, ino, kind| {
            if kind == FileType::Symlink {
                return Ok(());
            }
            let mode = change.apply(fs.attr(ino)?.mode, kind == FileType::Directory);
            fs.set_attr(ino, &SetAttr { mode: Some(mode), ctime: Some(now), ..SetAttr::default() })
        })
    }

    /// Changes owner and group of the file at `path`; `None` leaves one as it is. As chown(2), it takes set-id bits
    /// away from programs.
    ///
    /// # Errors
    /// As [`Image::resolve`].
    pub fn change_owner(
        &mut self,
        path: &[u8],
        uid: Option<u32>,
        gid: Option<u32>,
        recursive: bool,
    ) -> Result<(), Error> {
        let now = crate::time::now();
        self.change(path, recursive, &mut |fs, ino, kind| {
            let mode = fs.attr(ino)?.mode;
            let program = kind == FileType::Regular && mode & 0o111 != 0;
            let mode = program.then_some(mode & !0o6000);
            fs.set_attr(ino, &SetAttr { uid, gid, mode, ctime: Some(now), ..SetAttr::default() })
        })
    }

    fn change(&mut self, path: &[u8], recursive: bool, set: &mut Setter<'_, D>) -> Result<(), Error> {
        let mut apply = |image: &mut Self, here: &Visit| {
            set(&mut image.fs, here.ino, here.kind).map_err(|error| image.failed(&here.path, error))
        };
        if recursive {
            return self.walk(path, true, false, &mut apply);
        }
        let ino = self.resolve(path, true)?;
        let kind = self.fs.attr(ino).map_err(|error| self.failed(path, error))?.file_type;
        apply(self, &Visit { path: path.to_vec(), ino, kind })
    }

    /// Names the file system: at most 16 bytes.
    ///
    /// # Errors
    /// The label is longer.
    pub fn set_label(&mut self, label: &str) -> Result<(), Error> {
        self.fs.set_label(label).map_err(|error| self.failed(b"", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_does() {
        for (text, before, directory, after) in [
            ("644", 0o7777, false, 0o644),
            ("4755", 0, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("go-w", 0o666, false, 0o644),
            ("a=r", 0o777, false, 0o444),
            ("+x", 0o644, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,o+t", 0o755, true, 0o3755),
            ("u=rwx,g=rx,o=", 0o7000, true, 0o6750),
            ("u+r-w", 0o200, false, 0o400),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(before, directory), after, "{text} of {before:o}");
        }
        for bad in ["", "8", "77777", "u", "u+q", "z+r", "u+r,"] {
            assert_eq!(ModeChange::parse(bad), None, "{bad}");
        }
    }
}
