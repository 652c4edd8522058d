//! How the guest's work ended.

/// What process 1 leaves behind when it has stopped the machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended: its exit status, or 128 plus the signal that killed it.
    Exit(u8),
    /// Nothing ran.
    Failed {
        /// Why, in one line.
        what: String,
        /// What to do about it; may be empty.
        hint: String,
    },
}

impl Outcome {
    /// As the text of a file.
    pub fn encode(&self) -> String {
        match self {
            Outcome::Exit(code) => format!("exit {code}\n"),
            Outcome::Failed { what, hint } => format!("failed {}\n{}\n", one_line(what), one_line(hint)),
        }
    }

    /// The outcome that a file's text stands for; `None` if it is incomplete.
    pub fn decode(text: &str) -> Option<Outcome> {
        let (first, rest) = text.split_once('\n')?;
        match first.split_once(' ')? {
            ("exit", code) => Some(Outcome::Exit(code.parse().ok()?)),
            ("failed", what) => Some(Outcome::Failed { what: what.into(), hint: rest.strip_suffix('\n')?.into() }),
            _ => None,
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_comes_back_as_it_was() {
        let failed = |hint: &str| Outcome::Failed { what: "no such file".into(), hint: hint.into() };
        for outcome in [Outcome::Exit(0), Outcome::Exit(143), failed(""), failed("look there")] {
            assert_eq!(Outcome::decode(&outcome.encode()), Some(outcome));
        }
        for text in ["", "exit 1", "exit 256\n", "failed x\n", "else 1\n"] {
            assert_eq!(Outcome::decode(text), None, "{text:?}");
        }
    }
}
