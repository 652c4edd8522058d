//! What is told of the phases while they run.

use std::io::Write;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A phase starts.
    Phase(
        /// Its name.
        String,
    ),
    /// A phase failed; no other one is run.
    Failed {
        /// Its name.
        phase: String,
        /// `exit status 2` or `killed by signal 9`.
        status: String,
        /// Line of the failing command in the phase's text, from 1, when the shell could tell.
        line: Option<u64>,
        /// The failing command.
        command: Option<String>,
    },
    /// The place for the phases could not be made.
    NoSandbox {
        /// The call that failed, and its errno.
        message: String,
    },
}

impl Report {
    /// As a line, with its end.
    pub fn encode(&self) -> String {
        let line = |fields: &[&str]| {
            let fields: Vec<_> = fields.iter().map(|field| escape(field)).collect();
            fields.join("\t") + "\n"
        };
        match self {
            Report::Phase(name) => line(&["phase", name]),
            Report::Failed { phase, status, line: at, command } => {
                let at = at.map(|line| line.to_string()).unwrap_or_default();
                line(&["failed", phase, status, &at, command.as_deref().unwrap_or_default()])
            }
            Report::NoSandbox { message } => line(&["no sandbox", message]),
        }
    }

    /// The report that a line stands for, without its end; none if it is none.
    pub fn decode(line: &[u8]) -> Option<Report> {
        let fields: Vec<_> = std::str::from_utf8(line).ok()?.split('\t').map(unescape).collect();
        match fields.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["phase", name] => Some(Report::Phase(name.to_owned())),
            ["failed", phase, status, line, command] => Some(Report::Failed {
                phase: phase.to_owned(),
                status: status.to_owned(),
                line: line.parse().ok(),
                command: (!command.is_empty()).then(|| command.to_owned()),
            }),
            ["no sandbox", message] => Some(Report::NoSandbox { message: message.to_owned() }),
            _ => None,
        }
    }

    /// Writes it to standard output. When the builder is gone this process is about to be killed, so a failed write says nothing new.
    pub fn send(&self) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(self.encode().as_bytes()).and_then(|()| out.flush());
    }
}

fn escape(field: &str) -> String {
    field.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t")
}

fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field.chars();
    while let Some(c) = rest.next() {
        text.extend(match c {
            '\\' => match rest.next() {
                Some('n') => Some('\n'),
                Some('t') => Some('\t'),
                other => other,
            },
            c => Some(c),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_as_it_was() {
        let failed = |line, command: Option<&str>| Report::Failed {
            phase: "build".into(),
            status: "exit status 2".into(),
            line,
            command: command.map(str::to_owned),
        };
        for report in [
            Report::Phase("install".into()),
            failed(Some(3), Some("printf 'a\\n\t%s' \"$x\" |\n  cat")),
            failed(None, None),
            Report::NoSandbox { message: "tmpfs on /dev: EPERM".into() },
        ] {
            let line = report.encode();
            assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
            assert_eq!(Report::decode(line.trim_end_matches('\n').as_bytes()), Some(report));
        }
        for line in [b"".as_slice(), b"phase", b"phase\ta\tb", b"other\tx", b"phase\t\xff"] {
            assert_eq!(Report::decode(line), None, "{line:?}");
        }
    }
}
