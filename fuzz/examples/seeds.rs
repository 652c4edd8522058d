//! `seeds TARGET DIRECTORY`: writes a target's seeds to files, for cargo-fuzz to begin with.
#![allow(clippy::unwrap_used)]

use umlfs_fuzz::TARGETS;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(directory)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: seeds TARGET DIRECTORY");
        std::process::exit(2);
    };
    let names = TARGETS.map(|(name, ..)| name);
    let Some((_, _, seeds)) = TARGETS.into_iter().find(|(name, ..)| *name == target) else {
        eprintln!("no seeds for `{target}`, expected one of: {}", names.join(", "));
        std::process::exit(2);
    };
    std::fs::create_dir_all(&directory).unwrap();
    for (number, seed) in seeds().iter().enumerate() {
        std::fs::write(format!("{directory}/seed-{number}"), seed).unwrap();
    }
}
