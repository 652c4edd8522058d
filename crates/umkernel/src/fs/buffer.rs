//! Buffers for file data on its way between a host file and guest memory.

use crate::sync::Mutex;
use alloc::vec::Vec;

/// Bytes in a buffer.
pub const SIZE: usize = 128 * 1024;
/// Buffers kept for later.
const KEPT: usize = 8;

/// Buffers that wait to be used again.
#[derive(Default)]
pub struct BufferPool {
    spare: Mutex<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// Runs `work` with a buffer of [`SIZE`] bytes, whatever is in it.
    pub fn with<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let spare = self.spare.lock().pop();
        let mut buffer = spare.unwrap_or_else(|| alloc::vec![0; SIZE]);
        let result = work(&mut buffer);
        let mut spare = self.spare.lock();
        if spare.len() < KEPT {
            spare.push(buffer);
        }
        result
    }
}
