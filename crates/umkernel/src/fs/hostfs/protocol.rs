//! What the kernel asks the share server, and what that answers: plain bytes through a socket, one message each.
//!
//! Both ends are the same program, but only the server may touch the host's files (`machine::shares`), so it takes nothing on trust:
//! requests may come from a guest that has overcome the kernel.

/// Most bytes of data in one message.
pub const CHUNK: usize = 64 * 1024;
/// Bytes of a request before its payload.
pub const REQUEST_HEAD: usize = 48;
/// Bytes of an answer before its payload.
pub const ANSWER_HEAD: usize = 16;

/// What can be asked. `node` is what the request is about, a directory for all that names are involved in; names and data are the
/// payload. Answers have [`Stat`] as their payload where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// What `stat(2)` tells.
    Attr,
    /// Finds a name. The answer's node is to be forgotten some day.
    Lookup,
    /// The payload is a list of nodes that nobody uses any more. There is no answer.
    Forget,
    /// Makes sure of reading (`a` & 1) and writing (`a` & 2).
    Open,
    /// Makes a file, directory, FIFO or socket: mode with its type in `a`. The answer's node is to be forgotten.
    Create,
    /// Makes a symbolic link: payload name, NUL, target. The answer's node is to be forgotten.
    Symlink,
    /// Makes another name for `other`.
    Link,
    /// Removes a name of a file.
    Unlink,
    /// Removes an empty directory.
    Rmdir,
    /// Moves to directory `other`: payload name, NUL, new name; `RENAME_*` in `a`.
    Rename,
    /// The payload of the answer is a symbolic link's target.
    ReadLink,
    /// Entries from `a` on: records as of `getdents64(2)`.
    ReadDir,
    /// Reads `b` bytes at `a`: the payload of the answer.
    Read,
    /// Writes the payload at `a`, or at the end if `b` is 1. The value is the number of bytes, behind [`Stat`] comes the end's offset.
    Write,
    /// Changes attributes: the payload is a [`Change`].
    Change,
    /// `fallocate(2)`: mode in `other`, offset in `a`, length in `b`.
    Allocate,
    /// The next data (`b` is 0) or hole at or behind `a`: the value. No payload.
    Seek,
    /// `fsync(2)`, `fdatasync(2)` if `a` is 1. No payload.
    Sync,
    /// The payload of the answer is a [`Space`].
    StatFs,
    /// The payload is an extended attribute's name, that of the answer its value.
    XattrGet,
    /// Payload name, NUL, value; flags in `a`.
    XattrSet,
    /// The payload of the answer is the names, each with a NUL behind it.
    XattrList,
    /// The payload is the name.
    XattrRemove,
}

const OPS: [Op; 23] = [
    Op::Attr,
    Op::Lookup,
    Op::Forget,
    Op::Open,
    Op::Create,
    Op::Symlink,
    Op::Link,
    Op::Unlink,
    Op::Rmdir,
    Op::Rename,
    Op::ReadLink,
    Op::ReadDir,
    Op::Read,
    Op::Write,
    Op::Change,
    Op::Allocate,
    Op::Seek,
    Op::Sync,
    Op::StatFs,
    Op::XattrGet,
    Op::XattrSet,
    Op::XattrList,
    Op::XattrRemove,
];

/// [`Op::Open`] for reading.
pub const OPEN_READ: u64 = 1;
/// [`Op::Open`] for writing.
pub const OPEN_WRITE: u64 = 2;

/// A request's head. The directories that are shared are the nodes from 0 on, in the order in which the user named them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub op: Op,
    /// Comes back with the answer.
    pub serial: u32,
    /// See [`Op`].
    pub node: u64,
    /// See [`Op`].
    pub other: u64,
    /// See [`Op`].
    pub a: u64,
    /// See [`Op`].
    pub b: u64,
}

impl Request {
    /// A request about a node, without arguments.
    pub fn new(op: Op, node: u64) -> Request {
        Request { op, serial: 0, node, other: 0, a: 0, b: 0 }
    }

    /// Writes the head to where a message begins.
    pub fn encode(&self, message: &mut [u8]) {
        let head = u64::from(self.op as u8) | u64::from(self.serial) << 32;
        put(message, &[head, self.node, self.other, self.a, self.b, 0]);
    }

    /// From a message that anybody may have written.
    pub fn decode(message: &[u8]) -> Option<Request> {
        let [head, node, other, a, b, _] = take(message)?;
        let op = *OPS.get(usize::from(head as u8))?;
        Some(Request { op, serial: (head >> 32) as u32, node, other, a, b })
    }
}

/// An answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's.
    pub serial: u32,
    /// An error's number, or 0.
    pub errno: u32,
    /// See [`Op`].
    pub value: u64,
}

impl Answer {
    /// Writes the head to where a message begins.
    pub fn encode(&self, message: &mut [u8]) {
        put(message, &[u64::from(self.serial) | u64::from(self.errno) << 32, self.value]);
    }

    /// From a message.
    pub fn decode(message: &[u8]) -> Option<Answer> {
        let [head, value] = take(message)?;
        Some(Answer { serial: head as u32, errno: (head >> 32) as u32, value })
    }
}

/// What the server tells of a file; numbers as in `stat(2)`, owners as the guest is to see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields' names are those of stat(2)")]
pub struct Stat {
    /// The node, where the answer says that it is new.
    pub node: u64,
    /// The host's device: with `ino`, what tells files apart.
    pub dev: u64,
    pub ino: u64,
    pub mode: u64,
    pub nlink: u64,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub blksize: u64,
    pub blocks: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
}

impl Stat {
    /// Bytes of one in a message.
    pub const SIZE: usize = 16 * 8;

    /// As words.
    pub fn encode(&self, message: &mut [u8]) {
        let time = |t: (i64, u32)| [t.0 as u64, t.1.into()];
        let ([a, an], [m, mn], [c, cn]) = (time(self.atime), time(self.mtime), time(self.ctime));
        let (nodes, owners) = ([self.node, self.dev, self.ino, self.mode, self.nlink], self.uid | self.gid << 32);
        let [node, dev, ino, mode, nlink] = nodes;
        put(
            message,
            &[node, dev, ino, mode, nlink, owners, self.size, self.blksize, self.blocks, a, an, m, mn, c, cn, 0],
        );
    }

    /// From a message.
    pub fn decode(message: &[u8]) -> Option<Stat> {
        let [node, dev, ino, mode, nlink, owners, size, blksize, blocks, a, an, m, mn, c, cn, _] = take(message)?;
        let time = |s: u64, ns: u64| (s as i64, ns as u32);
        let (uid, gid) = (owners & 0xffff_ffff, owners >> 32);
        let (atime, mtime, ctime) = (time(a, an), time(m, mn), time(c, cn));
        Some(Stat { node, dev, ino, mode, nlink, uid, gid, size, blksize, blocks, atime, mtime, ctime })
    }
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields' names are those of stat(2)")]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<(i64, u32)>,
    pub mtime: Option<(i64, u32)>,
}

impl Change {
    /// Bytes of one in a message.
    pub const SIZE: usize = 9 * 8;

    /// As words.
    pub fn encode(&self, message: &mut [u8]) {
        let number = |n: Option<u32>| n.map(u64::from);
        let time = |t: Option<(i64, u32)>| [t.map(|t| t.0 as u64), t.map(|t| t.1.into())];
        let ([a, an], [m, mn]) = (time(self.atime), time(self.mtime));
        let all = [number(self.mode), number(self.uid), number(self.gid), self.size, a, an, m, mn];
        let set = all.iter().enumerate().map(|(i, value)| u64::from(value.is_some()) << i).sum();
        let [mode, uid, gid, size, a, an, m, mn] = all.map(|value| value.unwrap_or(0));
        put(message, &[set, mode, uid, gid, size, a, an, m, mn]);
    }

    /// From a message.
    pub fn decode(message: &[u8]) -> Option<Change> {
        let [set, mode, uid, gid, size, a, an, m, mn] = take(message)?;
        let has = |i: u32| set >> i & 1 != 0;
        let number = |i, value: u64| has(i).then_some(value as u32);
        let time = |i, s: u64, ns: u64| (has(i) && has(i + 1)).then_some((s as i64, ns as u32));
        Some(Change {
            mode: number(0, mode),
            uid: number(1, uid),
            gid: number(2, gid),
            size: has(3).then_some(size),
            atime: time(4, a, an),
            mtime: time(6, m, mn),
        })
    }
}

/// How much room a file system has (`statfs(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields' names are those of statfs(2)")]
pub struct Space {
    pub bsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub namelen: u64,
}

impl Space {
    /// Bytes of one in a message.
    pub const SIZE: usize = 7 * 8;

    /// As words.
    pub fn encode(&self, message: &mut [u8]) {
        let Space { bsize, blocks, bfree, bavail, files, ffree, namelen } = *self;
        put(message, &[bsize, blocks, bfree, bavail, files, ffree, namelen]);
    }

    /// From a message.
    pub fn decode(message: &[u8]) -> Option<Space> {
        let [bsize, blocks, bfree, bavail, files, ffree, namelen] = take(message)?;
        Some(Space { bsize, blocks, bfree, bavail, files, ffree, namelen })
    }
}

/// A payload of two strings, the first of which has no NUL.
pub fn split(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = payload.iter().position(|&byte| byte == 0)?;
    Some((&payload[..end], &payload[end + 1..]))
}

fn put<const N: usize>(message: &mut [u8], words: &[u64; N]) {
    for (place, word) in message.as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
}

fn take<const N: usize>(message: &[u8]) -> Option<[u64; N]> {
    let (words, _) = message.as_chunks();
    let words: &[[u8; 8]; N] = words.get(..N)?.try_into().ok()?;
    Some(words.map(u64::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn operations_have_their_numbers() {
        assert!(OPS.iter().enumerate().all(|(number, op)| *op as usize == number));
    }

    fn time() -> impl Strategy<Value = (i64, u32)> {
        (any::<i64>(), 0..1_000_000_000u32)
    }

    proptest! {
        #[test]
        fn requests_survive_the_socket(op in 0..OPS.len(), serial: u32, node: u64, other: u64, a: u64, b: u64) {
            let request = Request { op: OPS[op], serial, node, other, a, b };
            let mut message = [0xff; REQUEST_HEAD + 3];
            request.encode(&mut message);
            prop_assert_eq!(Request::decode(&message), Some(request));
            prop_assert_eq!(Request::decode(&message[..REQUEST_HEAD - 1]), None);
            let answer = Answer { serial, errno: a as u32, value: b };
            answer.encode(&mut message);
            prop_assert_eq!(Answer::decode(&message), Some(answer));
        }

        #[test]
        fn rubbish_is_refused_or_read(bytes: Vec<u8>) {
            let _ = (Request::decode(&bytes), Stat::decode(&bytes), Change::decode(&bytes), split(&bytes));
        }

        #[test]
        fn what_is_told_survives_the_socket(ids: [u32; 2], words: [u64; 8], times in [time(), time(), time()]) {
            let [node, dev, ino, mode, nlink, size, blksize, blocks] = words;
            let (uid, gid, [atime, mtime, ctime]) = (ids[0].into(), ids[1].into(), times);
            let stat = Stat { node, dev, ino, mode, nlink, uid, gid, size, blksize, blocks, atime, mtime, ctime };
            let mut message = [0xff; Stat::SIZE];
            stat.encode(&mut message);
            prop_assert_eq!(Stat::decode(&message), Some(stat));
            let change = Change { uid: Some(ids[0]), size: Some(size), mtime: Some(mtime), ..Change::default() };
            change.encode(&mut message);
            prop_assert_eq!(Change::decode(&message), Some(change));
        }
    }
}
