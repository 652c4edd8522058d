//! Commands to a running kernel, through the socket of its management console (`arch/um/drivers/mconsole_kern.c`).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// The most that a command may have.
const MOST: usize = 511;

/// Sends a command, such as `cad` (Ctrl-Alt-Del) or `sysrq s`.
///
/// # Errors
/// The kernel has no such socket, or is not so far yet.
pub(crate) fn command(socket: &Path, text: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.send_to(&request(text), socket).map(drop)
}

/// Magic number, version, length, and the command in an array of fixed size, all in the machine's byte order.
fn request(text: &str) -> Vec<u8> {
    const MAGIC: u32 = 0xcafe_babe;
    const VERSION: u32 = 2;
    let text = text.as_bytes().get(..MOST.min(text.len())).unwrap_or_default();
    let mut bytes = [MAGIC, VERSION, text.len() as u32].map(u32::to_ne_bytes).concat();
    bytes.extend_from_slice(text);
    bytes.resize(3 * size_of::<u32>() + MOST + 1, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_layout() {
        let bytes = request("cad");
        assert_eq!(bytes.len(), 524);
        assert_eq!(bytes[..16], *b"\xbe\xba\xfe\xca\x02\0\0\0\x03\0\0\0cad\0");
        assert_eq!(request(&"x".repeat(1000)).len(), 524);
    }
}
