//! `create OUT SIZE FROM`: what `umlfs image create` does, alone, for measurements: it builds in a fraction of the time.
#![allow(clippy::unwrap_used)]

use imgtool::{Options, Size, create, parse_size};

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next().expect("create OUT SIZE FROM");
    let (out, size, from) = (next(), next(), next());
    let size = Size::Bytes(parse_size(size.to_str().unwrap()).unwrap());
    let options = Options { overwrite: true, size, from: vec![from.into()], ..Options::new(out) };
    let created = create(&options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    println!("{} files, {} bytes in {:?}", created.files, created.bytes, created.elapsed);
}
