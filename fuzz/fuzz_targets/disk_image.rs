#![no_main]
#![allow(missing_docs)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umlfs_fuzz::disk_image::feed(data));
