//! Archives as plain files: a compressed or piped one is unpacked once into an unnamed file beside the output.
//!
//! The tree is read before the image is written, so contents must be reachable a second time. Decompressing twice
//! would cost far more than the page-cache copy.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// An uncompressed archive that can be read at any offset.
pub(crate) struct ArchiveFile {
    /// The path as the user named it.
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) len: u64,
}

/// How many bytes the signatures below need.
const SIGNATURE: usize = 6;

/// Opens the archive at `path` (`-` is standard input). `spool` is a directory for unnamed temporary files.
///
/// # Errors
/// It cannot be opened or read, or its compressed data is damaged or ends early.
pub(crate) fn open_archive(path: &Path, spool: &Path) -> Result<ArchiveFile, Error> {
    let failed = |action: &str, error: &io::Error| Error::io(action, path, error);
    let file = if path == Path::new("-") {
        let standard_input = io::stdin().as_fd().try_clone_to_owned().map_err(|error| failed("open", &error))?;
        File::from(standard_input)
    } else {
        File::open(path).map_err(|error| failed("open", &error))?
    };
    let metadata = file.metadata().map_err(|error| failed("stat", &error))?;
    let mut head = [0; SIGNATURE];
    let regular = metadata.is_file();
    // Standard input may stand in the middle of a file.
    let start = if regular { (&file).stream_position().map_err(|error| failed("seek in", &error))? } else { 0 };
    let mut have = 0;
    while let Some(rest) = head.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match (&file).read(rest) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", &error)),
        }
    }
    let head = head.get(..have).unwrap_or_default().to_vec();
    if have == 0 {
        return Err(Error::new(format_args!("{} is empty, expected a tar archive", path.display())));
    }
    let compressed = Compression::of(&head);
    if regular && compressed.is_none() && start == 0 {
        return Ok(ArchiveFile { path: path.to_owned(), file, len: metadata.len() });
    }
    let stream: Box<dyn Read> = if regular {
        (&file).seek(SeekFrom::Start(start)).map_err(|error| failed("seek in", &error))?;
        Box::new(file)
    } else {
        Box::new(io::Cursor::new(head).chain(file))
    };
    let stream = BufReader::with_capacity(256 * 1024, stream);
    let what = compressed.map_or("", Compression::name);
    let mut plain: Box<dyn Read> = match compressed {
        None => Box::new(stream),
        Some(Compression::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Some(Compression::Bzip2) => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        Some(Compression::Xz) => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stream)),
        Some(Compression::Zstd) => {
            Box::new(zstd::Decoder::with_buffer(stream).map_err(|error| failed("start to decompress", &error))?)
        }
    };
    let spool_file =
        tempfile::tempfile_in(spool).map_err(|error| Error::io("make a temporary file in", spool, &error))?;
    let len = copy_sparse(&mut *plain, &spool_file).map_err(|error| match error {
        Copy::Read(error) if compressed.is_some() => damaged(path, what, &error),
        Copy::Read(error) => failed("read", &error),
        Copy::Write(error) => Error::io("write a temporary file in", spool, &error),
    })?;
    Ok(ArchiveFile { path: path.to_owned(), file: spool_file, len })
}

fn damaged(path: &Path, what: &str, error: &io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io("read", path, error);
    }
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends before its compressed data does".to_owned(),
        _ => error.to_string(),
    };
    Error::new(format_args!("{}: the {what} data is damaged or truncated: {reason}", path.display()))
        .hint("fetch or make the archive again")
}

#[derive(Clone, Copy)]
enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    fn of(head: &[u8]) -> Option<Self> {
        [
            (&b"\x1f\x8b"[..], Self::Gzip),
            (b"BZh", Self::Bzip2),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
        ]
        .into_iter()
        .find(|(signature, _)| head.starts_with(signature))
        .map(|(_, found)| found)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// Copies to the end, leaving holes for zeros: a few compressed kilobytes can stand for gigabytes of them.
fn copy_sparse(from: &mut dyn Read, mut to: &File) -> Result<u64, Copy> {
    let mut buffer = vec![0; 256 * 1024];
    let mut len = 0u64;
    loop {
        let mut have = 0;
        while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match from.read(rest) {
                Ok(0) => break,
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Copy::Read(error)),
            }
        }
        let data = buffer.get(..have).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        if crate::device::is_zero(data) {
            to.seek(SeekFrom::Current(data.len() as i64)).map_err(Copy::Write)?;
        } else {
            to.write_all(data).map_err(Copy::Write)?;
        }
        len += data.len() as u64;
    }
    to.set_len(len).map_err(Copy::Write)?;
    Ok(len)
}

impl ArchiveFile {
    /// Fills `buffer` from `offset`; the caller stays within `len`.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
