//! Out of memory: guests live in the host's memory, which has more of it than `--mem` says. When the processes together
//! use more than the machine has, the largest is killed, as by Linux (`mm/oom_kill.c`; without swap, and with the
//! resident size alone as its badness).

use crate::host::process;
use crate::kernel::Kernel;
use crate::log::Level;
use crate::signal::number::SIGKILL;
use crate::stats;
use crate::task::{Process, WaitStatus, end_process};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

/// Bytes a second that guests can take at most, about: how soon free memory can be gone.
const FASTEST: u64 = 4 << 30;
/// Between two looks.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(500);
/// For a killed process to give back its memory.
const RESPITE: Duration = Duration::from_millis(200);

/// Watches for as long as the machine runs.
pub(super) fn watch(kernel: &Kernel) {
    loop {
        let now = stats::memory(kernel);
        let left = now.total.saturating_sub(now.anonymous + now.mapped);
        // Pages that processes share were counted for each of them; the exact figures cost more.
        if left == 0 && kill_largest(kernel) {
            process::sleep(RESPITE);
            continue;
        }
        let pause = Duration::from_micros(left.saturating_mul(1_000_000) / FASTEST);
        process::sleep(pause.clamp(SHORTEST, LONGEST));
    }
}

/// Kills the largest process if all together really use more than there is.
fn kill_largest(kernel: &Kernel) -> bool {
    let mut used = 0;
    let mut largest: Option<(u64, Arc<Process>)> = None;
    for process in kernel.tasks.processes() {
        let size = private_size(kernel, &process);
        used += size;
        if largest.as_ref().is_none_or(|(most, _)| size > *most) {
            largest = Some((size, process));
        }
    }
    let Some((size, process)) = largest.filter(|_| used > kernel.config.memory) else { return false };
    let name = process.inner.lock().threads.first().map(|task| *task.comm.lock());
    let name = name.map(|comm| String::from_utf8_lossy(comm.as_bytes()).into_owned()).unwrap_or_default();
    kernel.message(
        Level::Error,
        format!("Out of memory: Killed process {} ({name}) anon-rss:{}kB", process.pid, size >> 10),
    );
    end_process(kernel, &process, WaitStatus::Signaled(SIGKILL, false));
    true
}

/// Bytes that a process holds and that are no file's: its share of those it shares (`smaps_rollup` of proc(5)).
fn private_size(kernel: &Kernel, process: &Process) -> u64 {
    let Some(task) = process.inner.lock().threads.first().cloned() else { return 0 };
    let Ok(space) = task.mm() else { return 0 };
    held(&kernel.platform.memory_share(&space))
}

fn held(smaps_rollup: &str) -> u64 {
    let kilobytes = |line: &str| {
        let (key, value) = line.split_once(':')?;
        matches!(key, "Pss_Anon" | "Pss_Shmem").then_some(value)?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    smaps_rollup.lines().filter_map(kilobytes).map(|kb| kb << 10).sum()
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    #[test]
    fn anonymous_and_shared_memory_count() {
        let text = "00400000-7ffe0000 ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss: 500 kB\nPss_Anon:  300 kB\n\
                    Pss_File:          196 kB\nPss_Shmem:           4 kB\nShared_Clean: 1 kB\n";
        assert_eq!(held(text), 304 << 10);
        assert_eq!(held(""), 0);
        assert!(held(&std::fs::read_to_string("/proc/self/smaps_rollup").unwrap()) > 0);
    }
}
