//! What is to be done.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What is to be done in a place that has been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The root directory is that of the step's packages, with nothing of the host: the shell is one of theirs.
    pub packages: bool,
    /// Directory in which the phases start.
    pub cwd: PathBuf,
    /// The whole environment of the phases; of two with one name, the later counts.
    pub env: Vec<(String, String)>,
    /// Names of the phases, in their order.
    pub phases: Vec<String>,
    /// Give the user a shell on the terminal in place of running the phases.
    pub interactive: bool,
}

impl Orders {
    /// As the bytes of a file: items that end with a zero byte each, a letter for what it is before its text.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |key: u8, text: &[u8]| {
            bytes.push(key);
            bytes.extend_from_slice(text);
            bytes.push(0);
        };
        put(b'r', if self.packages { b"packages" } else { b"host" });
        put(b'm', if self.interactive { b"shell" } else { b"phases" });
        put(b'd', self.cwd.as_os_str().as_bytes());
        for (name, value) in &self.env {
            put(b'e', format!("{name}={value}").as_bytes());
        }
        for phase in &self.phases {
            put(b'p', phase.as_bytes());
        }
        bytes
    }

    /// The orders that bytes stand for; none if they are none.
    pub fn decode(bytes: &[u8]) -> Option<Orders> {
        let mut orders =
            Orders { packages: false, cwd: "/".into(), env: Vec::new(), phases: Vec::new(), interactive: false };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        for item in bytes.strip_suffix(&[0])?.split(|byte| *byte == 0) {
            match item.split_first()? {
                (b'r', root) => orders.packages = root == b"packages",
                (b'm', mode) => orders.interactive = mode == b"shell",
                (b'd', path) => orders.cwd = OsStr::from_bytes(path).into(),
                (b'e', variable) => {
                    let (name, value) = text(variable)?.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))?;
                    orders.env.push((name, value));
                }
                (b'p', name) => orders.phases.push(text(name)?),
                _ => return None,
            }
        }
        Some(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_back_as_they_were() {
        let orders = Orders {
            packages: true,
            cwd: "/build/m4-1.4.19".into(),
            env: vec![("PATH".into(), "/bin".into()), ("CFLAGS".into(), "-O2 -DX=1\n".into())],
            phases: vec!["build".into(), "install".into()],
            interactive: false,
        };
        assert_eq!(Orders::decode(&orders.encode()), Some(orders.clone()));
        let shell = Orders { packages: false, interactive: true, phases: Vec::new(), env: Vec::new(), ..orders };
        assert_eq!(Orders::decode(&shell.encode()), Some(shell));
        for bytes in [b"".as_slice(), b"rhost", b"x\0", b"eNAME\0", b"p\xff\0", b"\0"] {
            assert_eq!(Orders::decode(bytes), None, "{bytes:?}");
        }
    }
}
