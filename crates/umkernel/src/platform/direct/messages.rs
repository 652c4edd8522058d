//! What the machine asks its broker, and what it answers: plain bytes through a socket.
//!
//! The kernel and its guests share memory that a hostile guest can write, so nothing that runs the kernel's code may reach the
//! host's processes. What needs that, the *broker* does: a process that shares no memory with the machine, takes requests by value,
//! and touches children of the kernel process only.

/// Most bytes of memory in one message.
pub const CHUNK: usize = 4096;
/// Bytes of a request before its payload, and of an answer before its payload.
pub const HEAD: usize = 24;

/// What can be asked about a guest process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Send the kick to a thread.
    Kick,
    /// Read memory: the payload of the answer.
    Read,
    /// Write memory: the payload of the request.
    Write,
    /// How much memory processes have resident: their ids are the payload of the request, [`Resident`]s that of the answer.
    Resident,
    /// The text of `/proc/PID/smaps_rollup`: the payload of the answer.
    SmapsRollup,
    /// What of the mappings from an address on is in memory: as many [`Usage`](crate::platform::usage::Usage)s as fit into the
    /// payload of the answer.
    Usage,
}

const OPS: [Op; 6] = [Op::Kick, Op::Read, Op::Write, Op::Resident, Op::SmapsRollup, Op::Usage];

/// Pages that a process has resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// All.
    pub all: u32,
    /// Those that are shared with files.
    pub file: u32,
}

impl Resident {
    /// Bytes of one in a message.
    pub const SIZE: usize = 8;

    /// As bytes.
    pub fn encode(&self) -> [u8; Resident::SIZE] {
        (u64::from(self.all) | u64::from(self.file) << 32).to_le_bytes()
    }

    /// From bytes.
    pub fn decode(bytes: [u8; Resident::SIZE]) -> Resident {
        let word = u64::from_le_bytes(bytes);
        Resident { all: word as u32, file: (word >> 32) as u32 }
    }
}

/// Processes that one request can ask about.
pub const MOST: usize = CHUNK / Resident::SIZE;

/// A request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub op: Op,
    /// Host id of the process.
    pub pid: i32,
    /// Host id of the thread, for [`Op::Kick`].
    pub tid: i32,
    /// Address in the process's memory.
    pub addr: u64,
    /// Bytes to read.
    pub len: u32,
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = OPS.iter().position(|op| *op == self.op).unwrap_or(0) as u8;
        bytes[4..8].copy_from_slice(&self.pid.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.tid.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.addr.to_le_bytes());
        bytes
    }

    /// From bytes that anybody may have written.
    pub fn decode(bytes: &[u8]) -> Option<Request> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Request {
            op: *OPS.get(usize::from(*bytes.first()?))?,
            pid: word(4)? as i32,
            tid: word(8)? as i32,
            len: word(12)?,
            addr: u64::from(word(16)?) | u64::from(word(20)?) << 32,
        })
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_socket_and_rubbish_is_refused() {
        for op in OPS {
            let request = Request { op, pid: 7, tid: -1, addr: 0x7fff_1234_5678_9abc, len: 4096 };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        assert_eq!(Request::decode(&[0xff; HEAD]), None);
        assert_eq!(Request::decode(&[0; HEAD - 1]), None);
        let resident = Resident { all: u32::MAX, file: 7 };
        assert_eq!(Resident::decode(resident.encode()), resident);
    }
}
