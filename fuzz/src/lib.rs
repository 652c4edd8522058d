//! Everything that reads bytes from outside, fed with bytes that nobody vouches for. Nothing is expected of the results:
//! there must be no panic, no hang, and no memory beyond a bound.
//!
//! Each module feeds one reader: `feed` takes the bytes, `seeds` has some to begin with. `cargo test -p umlfs-fuzz` feeds
//! them, and what chance makes of them; cargo-fuzz does the same by what it finds the program to do with them:
//!
//! ```text
//! cargo run -p umlfs-fuzz --example seeds archive fuzz/corpus/archive
//! ASAN_OPTIONS=detect_leaks=0 cargo +nightly fuzz run --features libfuzzer archive -- -max_len=8192 -len_control=0
//! ```
//!
//! Two targets need the insides of what they feed: the kernel's `system_calls` is `umkernel::testing::chance`, `share_server` is
//! `umkernel::machine::shares::chance`.
#![allow(clippy::unwrap_used)]

pub mod archive;
pub mod disk_image;
pub mod elf;
pub mod ext4_image;
pub mod patch;
pub mod recipe;

/// Feeds one input.
pub type Feed = fn(&[u8]);
/// Makes inputs to begin with.
pub type Seeds = fn() -> Vec<Vec<u8>>;

/// All readers, by the names of their fuzz targets.
pub const TARGETS: [(&str, Feed, Seeds); 5] = [
    ("archive", archive::feed, archive::seeds),
    ("disk_image", disk_image::feed, disk_image::seeds),
    ("elf", elf::feed, elf::seeds),
    ("ext4_image", ext4_image::feed, ext4_image::seeds),
    ("recipe", recipe::feed, recipe::seeds),
];
