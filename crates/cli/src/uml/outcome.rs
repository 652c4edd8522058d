//! How a machine has ended: what its first program left, or what its messages tell.

use std::path::Path;
use std::process::ExitStatus;

use umkernel::machine::{BootError, Outcome};
use uml_init::OUTCOME;

use super::failed;

/// What is known when the kernel has ended.
pub(crate) struct End<'a> {
    /// The kernel program.
    pub(crate) kernel: &'a Path,
    /// The guest's first root.
    pub(crate) root: &'a Path,
    /// How the program ended.
    pub(crate) status: ExitStatus,
    /// The signal from the host that asked it to.
    pub(crate) stopped: Option<i32>,
    /// What the kernel has printed, its end.
    pub(crate) log: &'a str,
}

impl End<'_> {
    /// As for a machine of our own kernel.
    pub(crate) fn outcome(&self) -> Result<Outcome, BootError> {
        let left = std::fs::read_to_string(self.root.join(OUTCOME)).ok();
        match left.as_deref().and_then(uml_init::Outcome::decode) {
            Some(uml_init::Outcome::Exit(code)) => Ok(Outcome::Off(code)),
            Some(uml_init::Outcome::Failed { what, hint }) => Err(failed(what, hint)),
            None => match self.stopped {
                Some(signal) => Ok(Outcome::Off(128 + signal as u8)),
                None if self.status.success() => Ok(Outcome::Off(0)),
                None => Err(self.reason()),
            },
        }
    }

    fn reason(&self) -> BootError {
        /// Where the processor has more state than they know, kernels before 6.13 end every program, the first one too.
        const FIRST_ENDED: &str = "Attempted to kill init! exitcode=0x0000000b";
        const PANIC: &str = "Kernel panic - not syncing: ";
        let name = self.kernel.display();
        if self.log.contains(FIRST_ENDED) && has_amx() {
            return failed(
                format!("{name} cannot run programs here: it does not know all of this processor's registers (AMX)"),
                "take a kernel from 6.13 on",
            );
        }
        if let Some((_, rest)) = self.log.rsplit_once(PANIC) {
            let why = rest.lines().next().unwrap_or_default().trim();
            let hint = "the image's journal is replayed at the next boot: what was synced is there";
            return failed(format!("the guest's kernel panicked: {why}"), hint);
        }
        let last = self.log.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it has said nothing");
        failed(
            format!("{name} ended with {}: {last}", self.status),
            "boot without --kernel to see whether it is the image",
        )
    }
}

fn has_amx() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" amx_tile"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn end(root: &Path, status: i32, stopped: Option<i32>, log: &str) -> Result<Outcome, String> {
        let status = ExitStatus::from_raw(status);
        let end = End { kernel: Path::new("linux"), root, status, stopped, log };
        end.outcome().map_err(|e| e.what)
    }

    #[test]
    fn what_the_guest_left_counts_first() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(end(root, 0, None, ""), Ok(Outcome::Off(0)));
        assert_eq!(end(root, 9, Some(15), ""), Ok(Outcome::Off(143)));
        let panic = "a\nKernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\nCPU: 0\n";
        assert!(end(root, 6, None, panic).unwrap_err().ends_with("Attempted to kill init! exitcode=0x00000100"));
        let ended = end(root, 6, None, &panic.replace("00000100", "0000000b")).unwrap_err();
        assert_eq!(ended.contains("AMX"), has_amx(), "{ended}");
        assert!(end(root, 256, None, "no room\r\n\n").unwrap_err().ends_with("exit status: 1: no room"));
        std::fs::write(root.join(OUTCOME), uml_init::Outcome::Exit(7).encode()).unwrap();
        assert_eq!(end(root, 6, None, panic), Ok(Outcome::Off(7)));
    }
}
