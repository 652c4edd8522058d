//! What core files are called (`kernel.core_pattern`, `core(5)`).

use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// The longest pattern, its end included (`CORENAME_MAX_SIZE`).
const LEN_MAX: usize = 128;

/// The pattern, and whether the process's id is added.
pub struct Pattern {
    text: Mutex<String>,
    /// `kernel.core_uses_pid`.
    pub with_pid: AtomicBool,
}

impl Default for Pattern {
    fn default() -> Pattern {
        Pattern { text: Mutex::new("core".to_string()), with_pid: AtomicBool::new(false) }
    }
}

impl Pattern {
    /// The pattern as it was set.
    pub fn text(&self) -> String {
        self.text.lock().clone()
    }

    /// Sets it.
    ///
    /// # Errors
    /// `EINVAL` for a program to be given core files to: there are none here.
    pub fn set(&self, text: &str) -> Result<()> {
        if text.starts_with('|') || text.starts_with('@') || text.len() >= LEN_MAX {
            bail!(EINVAL, "core files go to files");
        }
        *self.text.lock() = text.to_string();
        Ok(())
    }

    /// The name of the running task's core file, if signal `signo` ends its process.
    pub(super) fn name(&self, ctx: &Ctx, signo: u8) -> Vec<u8> {
        let process = &ctx.task.process;
        let pid = process.pid.to_string();
        let comm = *ctx.task.comm.lock();
        let creds = ctx.creds();
        let mut with_pid = false;
        let mut name = expand(&self.text.lock(), |letter| {
            Some(match letter {
                'p' | 'P' => {
                    with_pid = true;
                    pid.clone().into_bytes()
                }
                'i' | 'I' => ctx.task.tid().to_string().into_bytes(),
                'u' => creds.uid.to_string().into_bytes(),
                'g' => creds.gid.to_string().into_bytes(),
                'd' => u8::from(creds.dumpable).to_string().into_bytes(),
                's' => signo.to_string().into_bytes(),
                't' => crate::vfs::Timestamp::now().sec.to_string().into_bytes(),
                'h' => ctx.uts().lock().nodename.clone().into_bytes(),
                'e' | 'f' => comm.as_bytes().to_vec(),
                'c' => process.limit(linux_raw_sys::general::RLIMIT_CORE as usize).to_string().into_bytes(),
                _ => return None,
            })
        });
        if self.with_pid.load(Ordering::Relaxed) && !with_pid {
            name.push(b'.');
            name.extend_from_slice(pid.as_bytes());
        }
        name
    }
}

/// Replaces `%x` by what `value` says, whose slashes become exclamation marks; unknown letters are dropped.
fn expand(pattern: &str, mut value: impl FnMut(char) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut name = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            name.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match letters.next() {
            Some('%') => name.push(b'%'),
            Some(letter) => {
                let text = value(letter).unwrap_or_default();
                name.extend(text.into_iter().map(|byte| if byte == b'/' { b'!' } else { byte }));
            }
            None => {}
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_expanded() {
        let value = |letter| (letter == 'e').then(|| b"a/b".to_vec());
        assert_eq!(expand("/tmp/core.%e.%%%x%", value), b"/tmp/core.a!b.%");
        assert_eq!(expand("core", value), b"core");
    }

    #[test]
    fn programs_are_refused() {
        let pattern = Pattern::default();
        assert!(pattern.set("|/bin/catch %p").is_err() && pattern.text() == "core");
        assert!(pattern.set("/var/core.%p").is_ok() && pattern.text() == "/var/core.%p");
    }
}
