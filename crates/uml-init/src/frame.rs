//! The command's standard streams as frames on one line: a letter, the length of what follows in four bytes, little-endian, and
//! as many bytes.

/// The most bytes of a stream in one frame.
pub const CHUNK: usize = 16 * 1024;
/// The most bytes of standard input in one frame. The guest's terminal holds 4096 unread bytes; shortly before, it tells its
/// driver to wait, and User-Mode Linux's never goes on from there (6.1). It gets the next frame only when it has read one.
pub const INPUT: usize = 2048;
/// Letter and length.
const HEADER: usize = 5;

/// What is said on the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Guest: the line is raw and listened to.
    Hello,
    /// Guest: the command wrote to standard output.
    Output(Vec<u8>),
    /// Guest: the command wrote to standard error.
    Error(Vec<u8>),
    /// Guest: there is room for one [`Frame::Input`].
    Want,
    /// Guest: nothing more will come from the command.
    Done,
    /// Host: standard input, at most [`INPUT`] bytes; none at its end.
    Input(Vec<u8>),
    /// Host: nobody reads this stream (1 or 2) any more.
    Closed(u8),
    /// Host: end everything; the outcome is this exit status.
    Stop(u8),
    /// Host: all is received.
    Received,
}

impl Frame {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Frame::Hello => (b'H', &[]),
            Frame::Output(bytes) => (b'O', bytes),
            Frame::Error(bytes) => (b'E', bytes),
            Frame::Want => (b'W', &[]),
            Frame::Done => (b'D', &[]),
            Frame::Input(bytes) => (b'I', bytes),
            Frame::Closed(stream) => (b'C', std::slice::from_ref(stream)),
            Frame::Stop(code) => (b'S', std::slice::from_ref(code)),
            Frame::Received => (b'R', &[]),
        }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (letter, bytes) = self.parts();
        let length = (bytes.len() as u32).to_le_bytes();
        [&[letter], &length[..], bytes].concat()
    }

    fn decode(letter: u8, bytes: Vec<u8>) -> Option<Frame> {
        let one = || <[u8; 1]>::try_from(&*bytes).ok().map(|[byte]| byte);
        Some(match letter {
            b'H' => Frame::Hello,
            b'W' => Frame::Want,
            b'D' => Frame::Done,
            b'R' => Frame::Received,
            b'C' => Frame::Closed(one()?),
            b'S' => Frame::Stop(one()?),
            b'O' => Frame::Output(bytes),
            b'E' => Frame::Error(bytes),
            b'I' => Frame::Input(bytes),
            _ => return None,
        })
    }
}

/// Makes frames of bytes as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes bytes from the line.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The bytes are no frames: something else writes to the line.
    pub fn frame(&mut self) -> Result<Option<Frame>, NoFrame> {
        let Some((letter, rest)) = self.bytes.split_first() else { return Ok(None) };
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > CHUNK {
            return Err(NoFrame);
        }
        let Some(body) = self.bytes.get(HEADER..HEADER + length) else { return Ok(None) };
        let frame = Frame::decode(*letter, body.to_vec()).ok_or(NoFrame)?;
        self.bytes.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

/// Bytes on the line that are no frame.
#[derive(Debug, PartialEq, Eq)]
pub struct NoFrame;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_however_they_are_cut() {
        let frames = [
            Frame::Hello,
            Frame::Want,
            Frame::Output(vec![0; CHUNK]),
            Frame::Error(b"\r\n\x04".to_vec()),
            Frame::Input(Vec::new()),
            Frame::Closed(2),
            Frame::Stop(143),
            Frame::Done,
            Frame::Received,
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for piece in [1, 3, 4096, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for part in bytes.chunks(piece) {
                decoder.push(part);
                while let Some(frame) = decoder.frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames);
        }
    }

    #[test]
    fn other_bytes_are_noticed() {
        for bytes in [&b"login: root\n"[..], b"O\xff\xff\xff\xff", b"Z\0\0\0\0", b"C\0\0\0\0"] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.frame(), Err(NoFrame), "{bytes:?}");
        }
    }
}
