//! What `ioctl(2)` of loop devices says and is told (`linux/loop.h`).

use crate::bail;
use crate::errno::Result;
use crate::mm::Pod;

/// Nothing can be written.
pub(super) const READ_ONLY: u32 = 1;
/// The file goes with the last use of the device.
pub(in crate::block) const AUTOCLEAR: u32 = 4;
/// The device has the partitions that a table in the file tells of.
pub(in crate::block) const PARTSCAN: u32 = 8;
/// The host's page cache is passed by: there is no way to.
pub(super) const DIRECT_IO: u32 = 16;

/// Bytes of a name.
pub(super) const NAME: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Info64 {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    pub(super) size_limit: u64,
    pub(super) number: u32,
    pub(super) encrypt_type: u32,
    pub(super) encrypt_key_size: u32,
    pub(super) flags: u32,
    pub(super) file_name: [u8; NAME],
    pub(super) crypt_name: [u8; NAME],
    pub(super) encrypt_key: [u8; 32],
    pub(super) init: [u64; 2],
}

// SAFETY: integers only, and 8-byte fields begin at multiples of 8: no padding.
unsafe impl Pod for Info64 {}
const _: () = assert!(size_of::<Info64>() == 232);

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Config {
    pub(super) fd: u32,
    pub(super) block_size: u32,
    pub(super) info: Info64,
    pub(super) reserved: [u64; 8],
}

// SAFETY: as above.
unsafe impl Pod for Config {}
const _: () = assert!(size_of::<Config>() == 304);

/// `struct loop_info`, of the time before large files.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Info {
    number: i32,
    padding: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: i32,
    encrypt_type: i32,
    encrypt_key_size: i32,
    flags: i32,
    name: [u8; NAME],
    encrypt_key: [u8; 32],
    init: [u64; 2],
    reserved: [u8; 8],
}

// SAFETY: as above; what the compiler would pad with is named.
unsafe impl Pod for Info {}
const _: () = assert!(size_of::<Info>() == 168);

impl Info64 {
    /// Of a device of which nothing was said yet.
    pub(super) const EMPTY: Info64 = Info64 {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; NAME],
        crypt_name: [0; NAME],
        encrypt_key: [0; 32],
        init: [0; 2],
    };

    /// Refuses what no loop device can be.
    ///
    /// # Errors
    /// `EINVAL` for ciphers, which Linux has no more either; `EOVERFLOW` for places that no file has.
    pub(super) fn check(&self) -> Result<()> {
        if self.encrypt_key_size as usize > self.encrypt_key.len() || self.encrypt_type != 0 {
            bail!(EINVAL, "ciphers are dm-crypt's business");
        }
        if self.offset > i64::MAX as u64 || self.size_limit > i64::MAX as u64 {
            bail!(EOVERFLOW);
        }
        Ok(())
    }

    /// The name that the user has for the file, with its last byte zero.
    pub(super) fn name(&self) -> [u8; NAME] {
        let mut name = self.file_name;
        name[NAME - 1] = 0;
        name
    }

    /// As the old structure has it.
    ///
    /// # Errors
    /// `EOVERFLOW` where the offset is too large for it.
    pub(super) fn to_old(self) -> Result<Info> {
        let Ok(offset) = i32::try_from(self.offset) else { bail!(EOVERFLOW) };
        Ok(Info {
            number: self.number as i32,
            padding: 0,
            device: self.device,
            inode: self.inode,
            rdevice: self.rdevice,
            offset,
            encrypt_type: self.encrypt_type as i32,
            encrypt_key_size: self.encrypt_key_size as i32,
            flags: self.flags as i32,
            name: self.file_name,
            encrypt_key: self.encrypt_key,
            init: self.init,
            reserved: [0; 8],
        })
    }
}

impl Info {
    /// As the new structure has it.
    pub(super) fn to_new(self) -> Info64 {
        Info64 {
            number: self.number as u32,
            device: self.device,
            inode: self.inode,
            rdevice: self.rdevice,
            offset: self.offset as i64 as u64,
            encrypt_type: self.encrypt_type as u32,
            encrypt_key_size: self.encrypt_key_size as u32,
            flags: self.flags as u32,
            file_name: self.name,
            encrypt_key: self.encrypt_key,
            init: self.init,
            ..Info64::EMPTY
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;

    #[test]
    fn the_old_structure_holds_what_fits() {
        let mut info = Info64 { offset: 512, flags: AUTOCLEAR, number: 3, ..Info64::EMPTY };
        info.file_name[..4].copy_from_slice(b"disk");
        let back = info.to_old().unwrap().to_new();
        assert_eq!((back.offset, back.flags, back.number, &back.file_name[..5]), (512, 4, 3, &b"disk\0"[..]));
        let error = Info64 { offset: 1 << 31, ..info }.to_old().err().map(|e| e.errno);
        assert_eq!(error, Some(Errno::EOVERFLOW));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |info: Info64| info.check().err().map(|e| e.errno);
        assert_eq!(error(Info64::EMPTY), None);
        assert_eq!(error(Info64 { encrypt_type: 1, ..Info64::EMPTY }), Some(Errno::EINVAL));
        assert_eq!(error(Info64 { encrypt_key_size: 33, ..Info64::EMPTY }), Some(Errno::EINVAL));
        assert_eq!(error(Info64 { offset: 1 << 63, ..Info64::EMPTY }), Some(Errno::EOVERFLOW));
        let name = Info64 { file_name: [b'x'; NAME], ..Info64::EMPTY }.name();
        assert_eq!((name[NAME - 2], name[NAME - 1]), (b'x', 0));
    }
}
