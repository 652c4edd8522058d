//! Where the work is done: on the host itself, in a machine of ours, or in a real User-Mode Linux.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measures::BootTo;
use crate::place::{BENCH, BUSYBOX, Place, WORK};

/// A kind of system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// The host itself.
    Native,
    /// Our kernel, in the guests' own processes.
    Direct,
    /// Our kernel, which traces its guests.
    Ptrace,
    /// The user-mode kernel of the Linux project.
    Uml,
}

impl System {
    /// Its column's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Direct => "direct",
            Self::Ptrace => "ptrace",
            Self::Uml => "uml",
        }
    }
}

/// What runs the systems: our own program, and a real User-Mode Linux.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `umlfs`.
    pub umlfs: PathBuf,
    /// `linux`, where there is one.
    pub uml: Option<PathBuf>,
}

impl Programs {
    /// The output of the guest program with `args`, on a system. Natively `place` holds it, elsewhere the image does.
    pub(crate) fn guest_program(&self, system: System, place: &Place, args: &[&str]) -> Result<String> {
        let (verb, rest) = args.split_first().map_or(("", args), |(verb, rest)| (*verb, rest));
        let output = match system {
            System::Native => {
                let program = &place.program;
                let mut command = Command::new(program);
                output_of("the guest program", "bench", command.arg(verb).arg(program).arg(&place.work).args(rest))?
            }
            _ => {
                let mut command = self.boot(system, &place.image(system), &[], &[&[verb, BENCH, WORK], rest].concat());
                output_of("the guest program", "umlfs", &mut command)?
            }
        };
        Ok(output)
    }

    /// The command that boots an image and runs the guest program with `args`.
    fn boot(&self, system: System, image: &Path, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.machine(system, image);
        match system {
            System::Uml => {
                // That kernel makes one line of its arguments, and takes it apart by spaces, except in quotes.
                let quoted =
                    args.iter().map(|arg| if arg.contains(' ') { format!("\"{arg}\"") } else { arg.to_string() });
                command.arg(format!("init={BENCH}")).arg(format!("B={BUSYBOX}")).arg("--").args(quoted);
            }
            _ => {
                command.args(options).args(["--append", &format!("B={BUSYBOX}"), "--", BENCH]).args(args);
            }
        }
        command
    }

    fn machine(&self, system: System, image: &Path) -> Command {
        match (system, &self.uml) {
            (System::Uml, Some(linux)) => {
                let mut command = Command::new(linux);
                command.arg(format!("ubda={}", image.display()));
                command.args(["root=/dev/ubda", "rw", "mem=512M", "con=null", "con0=null,fd:1", "quiet", "umid="]);
                command
            }
            _ => {
                let mut command = Command::new(&self.umlfs);
                command.arg("boot").arg(image).args(["--platform", system.name(), "--mem", "2G"]);
                command
            }
        }
    }

    /// Milliseconds from the start of the host's process until a machine is so far.
    pub(crate) fn boot_time(&self, system: System, image: &Path, to: BootTo) -> Result<f64> {
        let mut command = self.machine(system, image);
        let (init, sign) = match to {
            BootTo::Prompt => ("/bin/sh", "# "),
            BootTo::Init | BootTo::PowerOff => (BENCH, "first"),
        };
        if system == System::Uml {
            command.arg(format!("init={init}"));
        } else {
            command.args(["--append", "quiet", "--init", init]);
        }
        // One that has to be killed has processes of its own.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().map_err(|source| Error::Start { program: "a machine".into(), source })?;
        let mut seen = Vec::new();
        let sign_at = match &mut child.stdout {
            Some(stdout) => wait_for(stdout, sign.as_bytes(), &mut seen).then(|| start.elapsed()),
            None => None,
        };
        if to == BootTo::Prompt {
            // A shell at the end of its input would leave in its own time.
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        }
        let status = child.wait().map_err(|source| Error::Start { program: "a machine".into(), source })?;
        let taken = if to == BootTo::PowerOff && status.success() { Some(start.elapsed()) } else { sign_at };
        match taken {
            Some(taken) => Ok(taken.as_secs_f64() * 1e3),
            None => Err(failed("a boot", status, &seen)),
        }
    }
}

/// Reads until `sign` comes.
fn wait_for(from: &mut impl Read, sign: &[u8], seen: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    while !seen.windows(sign.len()).any(|window| window == sign) {
        match from.read(&mut buffer) {
            Ok(n @ 1..) => seen.extend_from_slice(&buffer[..n]),
            _ => return false,
        }
    }
    true
}

fn failed(what: &str, status: ExitStatus, output: &[u8]) -> Error {
    const END: usize = 300;
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    let from = (text.len().saturating_sub(END)..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    Error::Failed { what: what.into(), status: status.to_string(), output: text[from..].to_string() }
}

/// Runs a command and takes its standard output; whatever it says counts if it fails.
pub(crate) fn output_of(what: &str, program: &str, command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: program.to_string(), source })?;
    // User-Mode Linux ends with a status of its own; what counts is what its guest has said.
    if !output.status.success() && output.stdout.is_empty() {
        return Err(failed(what, output.status, &[output.stdout, output.stderr].concat()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
