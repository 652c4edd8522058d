//! Addresses of `AF_UNIX` (`unix(7)`) as `struct sockaddr_un`.

use crate::bail;
use crate::errno::Result;
use alloc::vec::Vec;

/// `AF_UNIX`.
pub const AF_UNIX: u16 = linux_raw_sys::net::AF_UNIX as u16;
/// Bytes of a `struct sockaddr_un`.
pub const SOCKADDR_MAX: usize = 2 + PATH_MAX;
/// Bytes of its path.
const PATH_MAX: usize = linux_raw_sys::net::UNIX_PATH_MAX as usize;

/// Where a socket is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// Nowhere.
    #[default]
    Unnamed,
    /// At a path.
    Path(Vec<u8>),
    /// At a name in no file system, without its leading NUL.
    Abstract(Vec<u8>),
}

impl Address {
    /// Decodes an address of `raw.len()` bytes.
    ///
    /// # Errors
    /// `EINVAL` for a wrong length or another family.
    pub fn decode(raw: &[u8]) -> Result<Address> {
        let Some((family, name)) = raw.split_first_chunk::<2>() else { bail!(EINVAL, "no address family") };
        if u16::from_le_bytes(*family) != AF_UNIX || name.len() > PATH_MAX {
            bail!(EINVAL, "not an AF_UNIX address");
        }
        Ok(match name {
            [] => Address::Unnamed,
            [0, rest @ ..] => Address::Abstract(rest.to_vec()),
            _ => Address::Path(name.iter().copied().take_while(|&b| b != 0).collect()),
        })
    }

    /// Encodes the address as `getsockname(2)` gives it.
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = AF_UNIX.to_le_bytes().to_vec();
        match self {
            Address::Unnamed => {}
            Address::Path(path) => {
                raw.extend_from_slice(path);
                raw.push(0);
            }
            Address::Abstract(name) => {
                raw.push(0);
                raw.extend_from_slice(name);
            }
        }
        raw
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::errno::Errno;

    #[test]
    fn addresses_round_trip() {
        for address in [Address::Unnamed, Address::Path(b"/dev/log".to_vec()), Address::Abstract(b"a\0b".to_vec())] {
            assert_eq!(Address::decode(&address.encode()), Ok(address));
        }
        assert_eq!(Address::decode(b"\x01\0/tmp/x"), Ok(Address::Path(b"/tmp/x".to_vec())));
    }

    #[test]
    fn wrong_addresses_are_refused() {
        for raw in [&b""[..], b"\x01", b"\x02\0/x", &[1; 111]] {
            assert_eq!(Address::decode(raw).map_err(|e| e.errno), Err(Errno::EINVAL));
        }
    }
}
