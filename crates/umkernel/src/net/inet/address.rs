//! Internet addresses as programs pass them (`ip(7)`, `ipv6(7)`).

use crate::bail;
use crate::errno::Result;
use crate::net::interface::{Ip, mapped, unmapped};
use alloc::vec::Vec;
use linux_raw_sys::net::{AF_INET, AF_INET6};

/// The wildcard of IPv4, `0.0.0.0`.
pub(super) const ANY4: Ip = mapped([0; 4]);
/// The wildcard of IPv6, `::`.
pub(super) const ANY6: Ip = [0; 16];
/// Bytes of a `struct sockaddr_in` and of a `struct sockaddr_in6` (without its last word, as from before RFC 2553).
const LEN4: usize = 16;
const LEN6_MIN: usize = 24;

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addr {
    pub(crate) ip: Ip,
    pub(crate) port: u16,
}

/// Which family a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

impl Version {
    pub(super) fn domain(self) -> u32 {
        match self {
            Version::V4 => AF_INET,
            Version::V6 => AF_INET6,
        }
    }

    pub(super) fn any(self) -> Ip {
        match self {
            Version::V4 => ANY4,
            Version::V6 => ANY6,
        }
    }
}

/// The family of an address as it was passed.
pub(super) fn family(raw: &[u8]) -> Result<u32> {
    match raw.first_chunk::<2>() {
        Some(family) => Ok(u32::from(u16::from_le_bytes(*family))),
        None => bail!(EINVAL, "no address family"),
    }
}

pub(super) fn is_any(ip: &Ip) -> bool {
    *ip == ANY4 || *ip == ANY6
}

/// `224.0.0.0/4`, `ff00::/8`.
pub(super) fn is_multicast(ip: &Ip) -> bool {
    match unmapped(ip) {
        Some(ip) => ip[0] >> 4 == 0xe,
        None => ip[0] == 0xff,
    }
}

impl Addr {
    /// Decodes an address of a socket's own family; an IPv6 socket takes IPv4 addresses too where `both`.
    ///
    /// # Errors
    /// `EINVAL` for a wrong length, `EAFNOSUPPORT` for another family.
    pub(super) fn decode(version: Version, raw: &[u8], both: bool) -> Result<Addr> {
        let family = family(raw)?;
        let port = |raw: &[u8]| u16::from_be_bytes([raw[2], raw[3]]);
        match (version, family) {
            (Version::V4, AF_INET) | (Version::V6, AF_INET)
                if family == AF_INET && (version == Version::V4 || both) =>
            {
                if raw.len() < LEN4 {
                    bail!(EINVAL, "shorter than a struct sockaddr_in");
                }
                Ok(Addr { ip: mapped([raw[4], raw[5], raw[6], raw[7]]), port: port(raw) })
            }
            (Version::V6, AF_INET6) => {
                if raw.len() < LEN6_MIN {
                    bail!(EINVAL, "shorter than a struct sockaddr_in6");
                }
                Ok(Addr { ip: core::array::from_fn(|i| raw[8 + i]), port: port(raw) })
            }
            (Version::V4, _) if raw.len() < LEN4 => bail!(EINVAL, "shorter than a struct sockaddr_in"),
            (Version::V6, _) if raw.len() < LEN6_MIN => bail!(EINVAL, "shorter than a struct sockaddr_in6"),
            _ => bail!(EAFNOSUPPORT),
        }
    }

    /// Encodes the address for a socket of a family.
    pub(super) fn encode(&self, version: Version) -> Vec<u8> {
        let mut raw = (version.domain() as u16).to_le_bytes().to_vec();
        raw.extend_from_slice(&self.port.to_be_bytes());
        match version {
            Version::V4 => {
                raw.extend_from_slice(&self.ip[12..]);
                raw.resize(LEN4, 0);
            }
            Version::V6 => {
                raw.extend_from_slice(&[0; 4]);
                raw.extend_from_slice(&self.ip);
                raw.extend_from_slice(&[0; 4]);
            }
        }
        raw
    }
}

/// Whether packets to `to` reach a socket bound to `bound`.
pub(super) fn reaches(bound: &Ip, v6_only: bool, to: &Ip) -> bool {
    bound == to || *bound == ANY4 && unmapped(to).is_some() || *bound == ANY6 && !(v6_only && unmapped(to).is_some())
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::errno::Errno;

    #[test]
    fn addresses_round_trip_and_wrong_ones_are_refused() {
        let addr = Addr { ip: mapped([127, 0, 0, 1]), port: 80 };
        for version in [Version::V4, Version::V6] {
            assert_eq!(Addr::decode(version, &addr.encode(version), false), Ok(addr));
        }
        let errno = |version, raw: &[u8]| Addr::decode(version, raw, false).map_err(|e| e.errno).unwrap_err();
        assert_eq!(errno(Version::V4, b"\x02"), Errno::EINVAL);
        assert_eq!(errno(Version::V4, b"\x02\0\0\0"), Errno::EINVAL);
        assert_eq!(errno(Version::V4, &addr.encode(Version::V6)), Errno::EAFNOSUPPORT);
        assert_eq!(errno(Version::V6, &addr.encode(Version::V4)), Errno::EINVAL);
        assert!(Addr::decode(Version::V6, &addr.encode(Version::V4), true).is_ok());
    }

    #[test]
    fn wildcards_reach_their_families() {
        let four = mapped([127, 0, 0, 1]);
        assert!(reaches(&ANY4, false, &four) && reaches(&ANY6, false, &four) && !reaches(&ANY6, true, &four));
        assert!(!reaches(&ANY4, false, &ANY6) && reaches(&four, false, &four));
    }
}
