//! Finding the program to run: `#!` lines lead from scripts to interpreters.

use super::{HEAD_LEN, Strings, read_file};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::vfs::File;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How many scripts may lead to one another.
const MAX_DEPTH: usize = 4;

/// The file to load.
pub struct Image {
    /// The program.
    pub file: Arc<File>,
    /// Its first bytes.
    pub head: Vec<u8>,
}

/// Follows `#!` lines from `file`, called as `path`, to a program, and puts what they say in front of the arguments.
pub fn find_program(ctx: &Ctx, file: Arc<File>, path: &[u8], strings: &mut Strings) -> Result<Image> {
    let mut file = file;
    let mut path = path.to_vec();
    for _ in 0..=MAX_DEPTH {
        let mut head = alloc::vec![0; HEAD_LEN];
        let got = read_file(&file, 0, &mut head)?;
        head.truncate(got);
        if !head.starts_with(b"#!") {
            return Ok(Image { file, head });
        }
        let (interpreter, argument) = parse_line(&head[2..], got == HEAD_LEN)?;
        let mut args = alloc::vec![interpreter.clone()];
        args.extend(argument);
        args.push(path);
        args.extend(strings.args.drain(..).skip(1));
        strings.args = args;
        file = ctx.kernel.vfs.open_exec(ctx, &interpreter)?;
        path = interpreter;
    }
    bail!(ELOOP, "scripts lead to scripts too many times")
}

/// Splits what follows `#!` into the interpreter and its one argument. `cut` says that the buffer ended before the file.
fn parse_line(line: &[u8], cut: bool) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let end = line.iter().position(|&b| b == b'\n' || b == 0);
    let whole = end.is_some() || !cut;
    let line = &line[..end.unwrap_or(line.len())];
    let from = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let line = &line[from..];
    let name_end = line.iter().position(blank);
    if line.is_empty() || (!whole && name_end.is_none()) {
        bail!(ENOEXEC, "no interpreter, or its path is cut off");
    }
    let (name, rest) = line.split_at(name_end.unwrap_or(line.len()));
    let from = rest.iter().position(|b| !blank(b)).unwrap_or(rest.len());
    let to = rest.iter().rposition(|b| !blank(b)).map_or(from, |i| i + 1);
    let argument = &rest[from..to];
    Ok((name.to_vec(), (!argument.is_empty()).then(|| argument.to_vec())))
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    fn split(line: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        parse_line(line, false).ok()
    }

    #[test]
    fn one_argument_at_most() {
        assert_eq!(split(b"/bin/sh\necho"), Some((b"/bin/sh".to_vec(), None)));
        assert_eq!(split(b" /bin/sh \t-e -u  \nx"), Some((b"/bin/sh".to_vec(), Some(b"-e -u".to_vec()))));
        assert_eq!(split(b"/bin/awk -f"), Some((b"/bin/awk".to_vec(), Some(b"-f".to_vec()))));
        assert_eq!(split(b"   \n"), None);
        assert_eq!(split(b""), None);
    }

    #[test]
    fn a_cut_path_is_refused() {
        assert!(parse_line(b"/very/long", true).is_err());
        assert!(parse_line(b"/very/long ", true).is_ok());
    }
}
