//! `NETLINK_KOBJECT_UEVENT`: what becomes of devices, for udevd to hear (`lib/kobject_uevent.c` of Linux).
//!
//! Partitions come and go as programs change their table. All other devices are there before the first program runs: their events
//! are those that programs ask for by writing to a device's `uevent` file in `/sys`, as `udevadm trigger` does
//! (`Documentation/ABI/testing/sysfs-uevent`).

use super::{Message, NETLINK_KOBJECT_UEVENT};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Kernel;
use crate::net::Ucred;
use crate::vfs::{major, minor};
use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

/// The group of those that listen to the kernel. udev sends what it made of an event to another.
const GROUP_KERNEL: u32 = 1;
/// What an event can be (`kobject_actions`).
const ACTIONS: [&str; 8] = ["add", "remove", "change", "move", "online", "offline", "bind", "unbind"];
/// Characters of a UUID.
const UUID_LEN: usize = 36;

/// Where all devices lie below `/sys`, in a directory for each class.
pub(crate) const VIRTUAL: &str = "/devices/virtual";

/// A device as events name it.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Path below `/sys`, with a slash before it.
    pub(crate) path: String,
    /// Its class.
    pub(crate) subsystem: &'static str,
    /// What its `uevent` file shows: lines `KEY=VALUE`.
    pub(crate) properties: String,
}

/// A device number as properties.
pub(crate) fn numbers(rdev: u64) -> String {
    format!("MAJOR={}\nMINOR={}\n", major(rdev), minor(rdev))
}

/// Makes the event that `request` asks for, `ACTION [UUID [KEY=VALUE ...]]`, and sends it.
///
/// # Errors
/// `EINVAL` when it asks for something else.
pub(crate) fn synthesize(kernel: &Kernel, device: &Device, request: &[u8]) -> Result<()> {
    let Some((action, extra)) = parse(request) else { bail!(EINVAL, "not ACTION [UUID [KEY=VALUE ...]]") };
    send(kernel, device, action, &extra);
    Ok(())
}

/// Tells what has become of a device: one of [`ACTIONS`].
pub(crate) fn announce(kernel: &Kernel, device: &Device, action: &str) {
    send(kernel, device, action, "");
}

fn send(kernel: &Kernel, device: &Device, action: &str, extra: &str) {
    let number = kernel.net.netlink.sequence.fetch_add(1, Ordering::Relaxed) + 1;
    let data = encode(device, action, extra, number).into_bytes();
    let message = Message { data, from: (0, GROUP_KERNEL), creds: Ucred::default() };
    kernel.net.netlink.broadcast(NETLINK_KOBJECT_UEVENT, GROUP_KERNEL, &message);
}

/// The number of the last event (`/sys/kernel/uevent_seqnum`).
pub(crate) fn sequence(kernel: &Kernel) -> u64 {
    kernel.net.netlink.sequence.load(Ordering::Relaxed)
}

/// The action, and the variables that mark the event as asked for by a program, each ended by a zero byte.
fn parse(request: &[u8]) -> Option<(&'static str, String)> {
    let text = core::str::from_utf8(request).ok()?;
    let mut words = text.strip_suffix('\n').unwrap_or(text).split(' ');
    let wanted = words.next()?;
    let action = ACTIONS.into_iter().find(|known| *known == wanted)?;
    let Some(uuid) = words.next() else { return Some((action, "SYNTH_UUID=0\0".into())) };
    let dashed = |(at, c): (usize, char)| if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() };
    if uuid.len() != UUID_LEN || !uuid.chars().enumerate().all(dashed) {
        return None;
    }
    let mut extra = format!("SYNTH_UUID={uuid}\0");
    for word in words {
        let (key, value) = word.split_once('=')?;
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
        if !plain(key) || !plain(value) {
            return None;
        }
        extra.push_str(&format!("SYNTH_ARG_{key}={value}\0"));
    }
    Some((action, extra))
}

/// The event as it is sent: `ACTION@PATH` and variables, each ended by a zero byte.
fn encode(device: &Device, action: &str, extra: &str, number: u64) -> String {
    let Device { path, subsystem, properties } = device;
    let properties = properties.replace('\n', "\0");
    format!(
        "{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM={subsystem}\0{extra}{properties}SEQNUM={number}\0"
    )
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn requests_are_those_of_sysfs_uevent() {
        assert_eq!(parse(b"add"), Some(("add", "SYNTH_UUID=0\0".into())));
        assert_eq!(parse(b"change\n"), Some(("change", "SYNTH_UUID=0\0".into())));
        let uuid = "fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed";
        let (action, extra) = parse(format!("remove {uuid} A=1 B=abc\n").as_bytes()).unwrap();
        assert_eq!((action, extra), ("remove", format!("SYNTH_UUID={uuid}\0SYNTH_ARG_A=1\0SYNTH_ARG_B=abc\0")));
        for bad in
            ["", "addx", "explode", "add 0", "add  ", &format!("add {uuid} A"), &format!("add {uuid} A=/"), "\u{e9}"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"\xff"), None);
    }

    #[test]
    fn events_look_like_the_kernels() {
        let device = Device {
            path: "/devices/virtual/mem/null".into(),
            subsystem: "mem",
            properties: "MAJOR=1\nMINOR=3\n".into(),
        };
        assert_eq!(
            encode(&device, "add", "SYNTH_UUID=0\0", 7),
            "add@/devices/virtual/mem/null\0ACTION=add\0DEVPATH=/devices/virtual/mem/null\0SUBSYSTEM=mem\0SYNTH_UUID=0\0MAJOR=1\0MINOR=3\0SEQNUM=7\0"
        );
    }
}
