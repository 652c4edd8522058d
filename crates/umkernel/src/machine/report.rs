//! What the kernel process tells the front process at its end, through a pipe.

use super::{BootError, Outcome};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// An outcome as bytes.
pub fn encode(outcome: &Result<Outcome, BootError>) -> Vec<u8> {
    match outcome {
        Ok(Outcome::Off(code)) => vec![b'O', *code],
        Ok(Outcome::Restart) => vec![b'R'],
        Ok(Outcome::Panic) => vec![b'P'],
        Err(e) => [b"E".as_slice(), e.what.as_bytes(), b"\0", e.hint.as_bytes()].concat(),
    }
}

/// The outcome that bytes stand for; `None` if they are none, from a process that was killed.
pub fn decode(bytes: &[u8]) -> Option<Result<Outcome, BootError>> {
    let (kind, rest) = bytes.split_first()?;
    match (kind, rest) {
        (b'O', [code]) => Some(Ok(Outcome::Off(*code))),
        (b'R', []) => Some(Ok(Outcome::Restart)),
        (b'P', []) => Some(Ok(Outcome::Panic)),
        (b'E', text) => {
            let text = String::from_utf8_lossy(text);
            let (what, hint) = text.split_once('\0')?;
            Some(Err(BootError::new(what.to_string(), hint.to_string())))
        }
        _ => None,
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_the_pipe() {
        for outcome in [Outcome::Off(7), Outcome::Restart, Outcome::Panic] {
            let Some(Ok(back)) = decode(&encode(&Ok(outcome))) else { panic!() };
            assert_eq!(back, outcome);
        }
        let Some(Err(back)) = decode(&encode(&Err(BootError::new("no image", "make one")))) else { panic!() };
        assert_eq!((back.what.as_str(), back.hint.as_str()), ("no image", "make one"));
        assert!(decode(b"").is_none());
        assert!(decode(b"O").is_none());
    }
}
