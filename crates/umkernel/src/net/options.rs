//! Socket options (`socket(7)`).

use super::socket::Link;
use super::{Socket, Ucred};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::mm::bytes_of;
use alloc::vec::Vec;
use linux_raw_sys::net::*;

/// `net.core.wmem_default` and `rmem_default`.
const DEFAULT_BUFFER: usize = 212_992;
/// `net.core.wmem_max` and `rmem_max`.
const MAX_BUFFER: usize = 212_992;
/// The smallest buffers (`SOCK_MIN_SNDBUF`, `SOCK_MIN_RCVBUF`).
const MIN_SEND_BUFFER: usize = 4608;
const MIN_RECEIVE_BUFFER: usize = 2304;

/// The options that a socket keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Flags without an effect here, one bit by option number.
    flags: u64,
    pub(super) pass_creds: bool,
    pub(super) send_buffer: usize,
    pub(super) receive_buffer: usize,
    /// `SO_SNDTIMEO`, nanoseconds.
    pub(super) send_timeout: Option<u64>,
    /// `SO_RCVTIMEO`, nanoseconds.
    pub(super) receive_timeout: Option<u64>,
    pub(super) linger: [i32; 2],
    /// `SO_SNDBUF` was set: the kernel does not size it any more (TCP).
    pub(super) fixed_send_buffer: bool,
    priority: i32,
    low_water: i32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            flags: 0,
            pass_creds: false,
            send_buffer: DEFAULT_BUFFER,
            receive_buffer: DEFAULT_BUFFER,
            send_timeout: None,
            receive_timeout: None,
            linger: [0, 0],
            fixed_send_buffer: false,
            priority: 0,
            low_water: 1,
        }
    }
}

/// An option's number at the level `SOL_SOCKET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockOpt(pub u32);

/// Options that are kept and shown and change nothing for `AF_UNIX`.
const INERT: [u32; 9] = [
    SO_DEBUG,
    SO_REUSEADDR,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_TIMESTAMP_OLD,
    SO_TIMESTAMPNS_OLD,
    SO_REUSEPORT,
];

fn timeval(ns: Option<u64>) -> Vec<u8> {
    let ns = ns.unwrap_or(0);
    bytes_of(&[(ns / 1_000_000_000) as i64, (ns % 1_000_000_000 / 1000) as i64]).to_vec()
}

/// A time limit: `None` for zero, which means none; a negative one has passed already.
fn parse_timeval(raw: &[u8]) -> Result<Option<u64>> {
    let Some(([sec, usec], _)) = raw.as_chunks::<8>().0.split_first_chunk::<2>() else {
        bail!(EINVAL, "not a struct timeval");
    };
    let (sec, usec) = (i64::from_le_bytes(*sec), i64::from_le_bytes(*usec));
    if !(0..1_000_000).contains(&usec) {
        bail!(EDOM);
    }
    if sec < 0 {
        return Ok(Some(0));
    }
    let ns = (sec as u64).saturating_mul(1_000_000_000).saturating_add(usec as u64 * 1000);
    Ok((ns > 0).then_some(ns))
}

impl Socket {
    /// `getsockopt(2)`: the option's value, to be cut to what the caller has room for.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for an option that there is not.
    pub fn option(&self, option: SockOpt) -> Result<Vec<u8>> {
        let mut state = self.state.lock();
        let number = match option.0 {
            SO_TYPE => self.kind as i32,
            SO_DOMAIN => AF_UNIX as i32,
            SO_PROTOCOL => 0,
            SO_ERROR => state.error.take().map_or(0, |e| i32::from(e.0)),
            SO_ACCEPTCONN => i32::from(matches!(state.link, Link::Listening { .. })),
            SO_PEERCRED => {
                let nobody = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
                return Ok(bytes_of(&state.peer_creds.unwrap_or(nobody)).to_vec());
            }
            _ => return state.options.get(option.0),
        };
        Ok(number.to_le_bytes().to_vec())
    }

    /// `setsockopt(2)`.
    ///
    /// # Errors
    /// `EINVAL` for a value of a wrong size, `EDOM` for a wrong time, `ENOPROTOOPT` for an option that there is not or that
    /// cannot be set.
    pub fn set_option(&self, option: SockOpt, raw: &[u8]) -> Result<()> {
        self.state.lock().options.set(option.0, raw)
    }
}

/// What may be on its way from a TCP socket whose buffer the kernel sizes (`net.ipv4.tcp_wmem`).
const GROWN_SEND_BUFFER: usize = 1 << 20;

impl Options {
    /// What a TCP socket begins with (`net.ipv4.tcp_wmem`, `tcp_rmem`).
    pub(super) fn for_tcp() -> Options {
        Options { send_buffer: 16384, receive_buffer: 131_072, ..Options::default() }
    }

    /// What a TCP socket's own buffer takes.
    pub(super) fn tcp_send_room(&self) -> usize {
        if self.fixed_send_buffer { self.send_buffer } else { GROWN_SEND_BUFFER }
    }

    /// Whether a flag is set.
    pub(super) fn flag(&self, option: u32) -> bool {
        self.flags & 1 << option != 0
    }

    /// The value of an option that is the same for all families.
    pub(super) fn get(&self, option: u32) -> Result<Vec<u8>> {
        let number = match option {
            SO_SNDBUF => self.send_buffer as i32,
            SO_RCVBUF => self.receive_buffer as i32,
            SO_PASSCRED => i32::from(self.pass_creds),
            SO_PRIORITY => self.priority,
            SO_RCVLOWAT => self.low_water,
            SO_SNDLOWAT => 1,
            SO_LINGER => return Ok(bytes_of(&self.linger).to_vec()),
            SO_RCVTIMEO_OLD | SO_RCVTIMEO_NEW => return Ok(timeval(self.receive_timeout)),
            SO_SNDTIMEO_OLD | SO_SNDTIMEO_NEW => return Ok(timeval(self.send_timeout)),
            number if INERT.contains(&number) => i32::from(self.flag(number)),
            _ => bail!(ENOPROTOOPT),
        };
        Ok(number.to_le_bytes().to_vec())
    }

    /// Sets such an option.
    pub(super) fn set(&mut self, option: u32, raw: &[u8]) -> Result<()> {
        let Some(first) = raw.first_chunk::<4>() else { bail!(EINVAL, "an option's value has 4 bytes or more") };
        let value = i32::from_le_bytes(*first);
        let options = self;
        // The kernel keeps twice what is asked for, for its own bookkeeping.
        let buffer = |min: usize| (value.max(0) as usize).min(MAX_BUFFER).saturating_mul(2).max(min);
        // The caller has checked that whoever asks may.
        let forced = |min: usize| (value.clamp(0, i32::MAX / 2) as usize * 2).max(min);
        match option {
            SO_PASSCRED => options.pass_creds = value != 0,
            SO_SNDBUF => options.send_buffer = buffer(MIN_SEND_BUFFER),
            SO_RCVBUF => options.receive_buffer = buffer(MIN_RECEIVE_BUFFER),
            SO_SNDBUFFORCE => options.send_buffer = forced(MIN_SEND_BUFFER),
            SO_RCVBUFFORCE => options.receive_buffer = forced(MIN_RECEIVE_BUFFER),
            SO_PRIORITY => options.priority = value,
            SO_RCVLOWAT => options.low_water = value.max(1),
            SO_LINGER => {
                let Some(second) = raw.get(4..8).and_then(|r| r.first_chunk::<4>()) else {
                    bail!(EINVAL, "not a struct linger");
                };
                options.linger = [i32::from(value != 0), i32::from_le_bytes(*second)];
            }
            SO_RCVTIMEO_OLD | SO_RCVTIMEO_NEW => options.receive_timeout = parse_timeval(raw)?,
            SO_SNDTIMEO_OLD | SO_SNDTIMEO_NEW => options.send_timeout = parse_timeval(raw)?,
            number if INERT.contains(&number) => {
                let bit = 1 << number;
                options.flags = if value != 0 { options.flags | bit } else { options.flags & !bit };
            }
            _ => return Err(Errno::ENOPROTOOPT.into()),
        }
        Ok(())
    }
}
