//! `/proc/PID/maps`.

use super::subject::Subject;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{MapFlags, Prot, Vma, VmaKind};
use crate::vfs::{Location, major, minor};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Column of the name.
const NAME_COLUMN: usize = 73;

pub(super) fn maps(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    subject.check_access(ctx)?;
    let Some(space) = subject.memory() else { return Ok(Vec::new()) };
    let vmas: Vec<Vma> = space.inner.lock().vmas.values().cloned().collect();
    let root = ctx.fs().inner.lock().root.clone();
    let mut text = Vec::new();
    for vma in vmas {
        line(&mut text, &vma, &root);
    }
    Ok(text)
}

pub(super) fn line(text: &mut Vec<u8>, vma: &Vma, root: &Location) {
    let flag = |set: bool, yes: char| if set { yes } else { '-' };
    let mut permissions = String::new();
    permissions.push(flag(vma.prot.contains(Prot::READ), 'r'));
    permissions.push(flag(vma.prot.contains(Prot::WRITE), 'w'));
    permissions.push(flag(vma.prot.contains(Prot::EXEC), 'x'));
    permissions.push(if vma.flags.contains(MapFlags::SHARED) { 's' } else { 'p' });
    let (offset, dev, ino, name) = match &vma.kind {
        VmaKind::File { file, offset } => {
            let (dev, ino) = file.inode.attr().map_or((0, 0), |a| (a.dev, a.ino));
            (*offset, dev, ino, file.location.display_path(root))
        }
        VmaKind::Shared { memory, offset } => {
            let name = memory.attachment.as_ref().map(|attachment| attachment.name().into_bytes());
            (*offset, 1, memory.id(), name.unwrap_or_else(|| b"/dev/zero (deleted)".to_vec()))
        }
        VmaKind::Heap => (0, 0, 0, b"[heap]".to_vec()),
        VmaKind::Stack => (0, 0, 0, b"[stack]".to_vec()),
        // The kernel's own ranges without a name are not the guest's business.
        VmaKind::Reserved("") => return,
        VmaKind::Reserved(name) => (0, 0, 0, name.as_bytes().to_vec()),
        _ => (0, 0, 0, Vec::new()),
    };
    let (start, end) = (vma.start, vma.end);
    let start_of_line =
        format!("{start:08x}-{end:08x} {permissions} {offset:08x} {:02x}:{:02x} {ino} ", major(dev), minor(dev));
    let at = text.len();
    text.extend_from_slice(start_of_line.as_bytes());
    if !name.is_empty() {
        text.resize(text.len().max(at + NAME_COLUMN), b' ');
        // A newline in a name would be taken for the end of the line.
        for byte in name {
            match byte {
                b'\n' => text.extend_from_slice(b"\\012"),
                byte => text.push(byte),
            }
        }
    }
    text.push(b'\n');
}
