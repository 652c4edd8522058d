//! What to trace: which calls, which tasks.

use crate::syscall::{Family, entries, names};
use crate::task::{Pid, Task};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Above all call numbers.
const NUMBERS: u64 = 512;

/// A set of system calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFilter {
    /// A bit a number; calls beyond are shown with the rest.
    shown: [u64; NUMBERS.div_ceil(64) as usize],
}

impl Default for CallFilter {
    /// All calls.
    fn default() -> CallFilter {
        CallFilter { shown: [u64::MAX; _] }
    }
}

impl CallFilter {
    fn set(&mut self, nr: u64, show: bool) {
        if let Some(word) = self.shown.get_mut((nr / 64) as usize) {
            let bit = 1 << (nr % 64);
            *word = if show { *word | bit } else { *word & !bit };
        }
    }

    /// Reads a list such as `open,%file,!read`: names of calls and `%families`, each added, or with `!` taken away. A list that
    /// begins with `!` starts from all calls.
    ///
    /// # Errors
    /// A sentence about the first word that is neither, fit for the user.
    pub fn parse(list: &str) -> Result<CallFilter, String> {
        let mut words = list.split(',').map(str::trim).filter(|w| !w.is_empty()).peekable();
        let Some(first) = words.peek() else {
            return Err("the list of calls is empty: give names of calls or %families, such as open,%file,!read".into());
        };
        let mut filter = if first.starts_with('!') { CallFilter::default() } else { CallFilter { shown: [0; _] } };
        for word in words {
            let (word, show) = word.strip_prefix('!').map_or((word, true), |rest| (rest, false));
            let numbers: Vec<u64> = match word.strip_prefix('%') {
                Some("all") => (0..NUMBERS).collect(),
                Some(family) => {
                    let family = Family::by_name(family).ok_or_else(|| {
                        let known: Vec<String> = Family::ALL.iter().map(|f| format!("%{}", f.name())).collect();
                        format!("there is no family of calls {word}; the families are {}", known.join(" "))
                    })?;
                    entries().filter(|e| belongs(e, family)).map(|e| e.nr).collect()
                }
                None => {
                    let number = names::number(word).ok_or_else(|| {
                        format!("there is no system call named {word}; families of calls are written with %, as %file")
                    })?;
                    [number].to_vec()
                }
            };
            numbers.iter().for_each(|number| filter.set(*number, show));
        }
        Ok(filter)
    }

    /// Whether a call is to be shown.
    pub fn matches(&self, nr: u64) -> bool {
        let word = usize::try_from(nr / 64).ok().and_then(|at| self.shown.get(at));
        word.is_none_or(|word| word & (1 << (nr % 64)) != 0)
    }
}

/// As strace has it, `%file` is every call with a path and `%desc` every call with a descriptor, whatever family they are
/// of otherwise.
fn belongs(entry: &crate::syscall::Entry, family: Family) -> bool {
    use crate::syscall::Arg;
    entry.family == family
        || match family {
            Family::File => entry.args.contains(&Arg::Path),
            Family::Desc => entry.args.iter().any(|a| matches!(a, Arg::Fd | Arg::DirFd)),
            _ => false,
        }
}

/// A set of tasks: empty lists mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Process ids.
    pub pids: Vec<Pid>,
    /// Names, as `ps` shows them: cut to 15 bytes.
    pub comms: Vec<String>,
}

impl TaskFilter {
    /// Adds process ids, separated by commas.
    ///
    /// # Errors
    /// A sentence about the first word that is no process id.
    pub fn add_pids(&mut self, list: &str) -> Result<(), String> {
        for word in list.split(',').map(str::trim) {
            match word.parse() {
                Ok(pid) if pid > 0 => self.pids.push(pid),
                _ => return Err(format!("{word:?} is no process id of the guest: give numbers, such as 1,42")),
            }
        }
        Ok(())
    }

    /// Adds program names, separated by commas.
    pub fn add_comms(&mut self, list: &str) {
        let words = list.split(',').map(str::trim).filter(|w| !w.is_empty());
        self.comms.extend(words.map(|w| w.chars().take(15).collect::<String>()));
    }

    /// Whether a task is to be watched.
    pub fn matches(&self, task: &Task) -> bool {
        if self.pids.is_empty() && self.comms.is_empty() {
            return true;
        }
        let by_pid = self.pids.contains(&task.process.pid) || self.pids.contains(&task.tid());
        by_pid
            || !self.comms.is_empty() && {
                let comm = *task.comm.lock();
                self.comms.iter().any(|c| c.as_bytes() == comm.as_bytes())
            }
    }

    /// The filter in words, for a trace's first line.
    pub fn describe(&self) -> String {
        if self.pids.is_empty() && self.comms.is_empty() {
            return "all processes".to_string();
        }
        let pids = self.pids.iter().map(|p| format!("pid {p}"));
        let comms = self.comms.iter().map(|c| format!("programs named {c}"));
        pids.chain(comms).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux_raw_sys::general as raw;

    fn nr(number: u32) -> u64 {
        u64::from(number)
    }

    #[test]
    fn lists_add_and_take_away() -> Result<(), String> {
        let filter = CallFilter::parse("kill,%memory,!munmap")?;
        assert!(filter.matches(nr(raw::__NR_kill)) && filter.matches(nr(raw::__NR_mmap)));
        assert!(!filter.matches(nr(raw::__NR_munmap)) && !filter.matches(nr(raw::__NR_read)));
        let filter = CallFilter::parse("!kill")?;
        assert!(!filter.matches(nr(raw::__NR_kill)) && filter.matches(nr(raw::__NR_mmap)));
        assert!(CallFilter::parse("%file")?.matches(nr(raw::__NR_execve)), "a call of another family with a path");
        Ok(())
    }

    #[test]
    fn wrong_words_are_named() {
        assert!(CallFilter::parse("%files").is_err_and(|e| e.contains("%files") && e.contains("%file")));
        assert!(CallFilter::parse("opne").is_err_and(|e| e.contains("opne")));
        assert!(CallFilter::parse(" ,").is_err());
        assert!(TaskFilter::default().add_pids("1,x").is_err_and(|e| e.contains("\"x\"")));
    }
}
