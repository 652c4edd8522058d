//! What the kernel asks the share server, and what that answers: plain bytes through a socket, one message each.
//!
//! Both ends are the same program, but only the server may touch the host's files (`machine::shares`), so it takes nothing on trust:
//! requests may come from a guest that has overcome the kernel.

use crate::vfs::{SetAttr, StatFs, Timestamp};

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
    /// What a name stands for now: as [`Op::Lookup`], without a node.
    Named,
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
    /// Entries from `a` on, `b` bytes at most: records as of `getdents64(2)`.
    ReadDir,
    /// Reads `b` bytes at `a`: the payload of the answer.
    Read,
    /// Writes the payload at `a`, or at the end if `b` is 1. The value is the number of bytes, behind [`Stat`] comes the end's offset.
    Write,
    /// Changes attributes: the payload is by [`encode_change`].
    Change,
    /// `fallocate(2)`: mode in `other`, offset in `a`, length in `b`.
    Allocate,
    /// The next data (`b` is 0) or hole at or behind `a`: the value. No payload.
    Seek,
    /// `fsync(2)`, `fdatasync(2)` if `a` is 1. No payload.
    Sync,
    /// The payload of the answer is by [`encode_space`].
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

const OPS: [Op; 24] = [
    Op::Attr,
    Op::Lookup,
    Op::Named,
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
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

impl Stat {
    /// Bytes of one in a message.
    pub const SIZE: usize = 16 * 8;

    /// As words.
    pub fn encode(&self, message: &mut [u8]) {
        let time = |t: Timestamp| [t.sec as u64, t.nsec.into()];
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
        let time = |sec: u64, nsec: u64| Timestamp { sec: sec as i64, nsec: nsec as u32 };
        let (uid, gid) = (owners & 0xffff_ffff, owners >> 32);
        let (atime, mtime, ctime) = (time(a, an), time(m, mn), time(c, cn));
        Some(Stat { node, dev, ino, mode, nlink, uid, gid, size, blksize, blocks, atime, mtime, ctime })
    }
}

/// Bytes of a [`SetAttr`] in a message.
pub const CHANGE: usize = 9 * 8;

/// Attributes to change, as words; when they changed is the host's to say.
pub fn encode_change(change: &SetAttr, message: &mut [u8]) {
    let number = |n: Option<u32>| n.map(u64::from);
    let time = |t: Option<Timestamp>| [t.map(|t| t.sec as u64), t.map(|t| t.nsec.into())];
    let ([a, an], [m, mn]) = (time(change.atime), time(change.mtime));
    let all = [number(change.mode), number(change.uid), number(change.gid), change.size, a, an, m, mn];
    let set = all.iter().enumerate().map(|(i, value)| u64::from(value.is_some()) << i).sum();
    let [mode, uid, gid, size, a, an, m, mn] = all.map(|value| value.unwrap_or(0));
    put(message, &[set, mode, uid, gid, size, a, an, m, mn]);
}

/// Attributes to change, from a message.
pub fn decode_change(message: &[u8]) -> Option<SetAttr> {
    let [set, mode, uid, gid, size, a, an, m, mn] = take(message)?;
    let has = |i: u32| set >> i & 1 != 0;
    let number = |i, value: u64| has(i).then_some(value as u32);
    let time =
        |i, sec: u64, nsec: u64| (has(i) && has(i + 1)).then_some(Timestamp { sec: sec as i64, nsec: nsec as u32 });
    Some(SetAttr {
        mode: number(0, mode),
        uid: number(1, uid),
        gid: number(2, gid),
        size: has(3).then_some(size),
        atime: time(4, a, an),
        mtime: time(6, m, mn),
        ctime: None,
    })
}

/// Bytes of a [`StatFs`] in a message.
pub const SPACE: usize = 7 * 8;

/// How much room there is, as words; type, id and flags are the guest's own.
pub fn encode_space(space: &StatFs, message: &mut [u8]) {
    let StatFs { bsize, blocks, bfree, bavail, files, ffree, namelen, .. } = *space;
    put(message, &[bsize, blocks, bfree, bavail, files, ffree, namelen]);
}

/// How much room there is, from a message.
pub fn decode_space(message: &[u8]) -> Option<StatFs> {
    let [bsize, blocks, bfree, bavail, files, ffree, namelen] = take(message)?;
    Some(StatFs { bsize, blocks, bfree, bavail, files, ffree, namelen, ..StatFs::default() })
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

    fn time() -> impl Strategy<Value = Timestamp> {
        (any::<i64>(), 0..1_000_000_000u32).prop_map(|(sec, nsec)| Timestamp { sec, nsec })
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
            let _ = (Request::decode(&bytes), Stat::decode(&bytes), decode_change(&bytes), decode_space(&bytes), split(&bytes));
        }

        #[test]
        fn what_is_told_survives_the_socket(ids: [u32; 2], words: [u64; 8], times in [time(), time(), time()]) {
            let [node, dev, ino, mode, nlink, size, blksize, blocks] = words;
            let (uid, gid, [atime, mtime, ctime]) = (ids[0].into(), ids[1].into(), times);
            let stat = Stat { node, dev, ino, mode, nlink, uid, gid, size, blksize, blocks, atime, mtime, ctime };
            let mut message = [0xff; Stat::SIZE];
            stat.encode(&mut message);
            prop_assert_eq!(Stat::decode(&message), Some(stat));
            let change = SetAttr { uid: Some(ids[0]), size: Some(size), mtime: Some(mtime), ..SetAttr::default() };
            encode_change(&change, &mut message);
            prop_assert_eq!(decode_change(&message), Some(change));
        }
    }
}
