//! Feeds each reader its seeds, and what chance makes of them. `FUZZ_RUNS=N` sets how often (default 300), `FUZZ_SEED=N`
//! where to start; `FUZZ_SHOW=1` tells what is fed, for the last one before a crash.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use umlfs_fuzz::TARGETS;
use umlfs_fuzz::ext4_image::exercise::next;

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(or)
}

/// Changes, repeats, cuts and adds bytes.
fn mutate(input: &mut Vec<u8>, x: &mut u64) {
    for _ in 0..1 + next(x) % 8 {
        let at = next(x) as usize % (input.len() + 1);
        match next(x) % 7 {
            0 => input[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
            1 => input[at..].iter_mut().take(1).for_each(|byte| *byte = at as u8),
            2 => input.extend_from_slice(&next(x).to_le_bytes()),
            3 => input.truncate(at.max(2)),
            4 => {
                let copy: Vec<u8> = input[at..].iter().copied().take(64).collect();
                input.splice(at..at, copy);
            }
            5 => input[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
            _ => {
                let patch = [next(x) as u8, next(x) as u8, (next(x) % 32) as u8, 3];
                input.extend_from_slice(&patch);
                input.extend_from_slice(&(next(x) as u32 % 5000).to_le_bytes());
            }
        }
    }
}

fn feed_all(name: &str) {
    let (_, feed, seeds) = TARGETS.into_iter().find(|(target, ..)| *target == name).unwrap();
    let seeds = seeds();
    for seed in &seeds {
        feed(seed);
    }
    let first = number("FUZZ_SEED", 1);
    for run in first..first + number("FUZZ_RUNS", 300) {
        let mut x = run.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut input = seeds[next(&mut x) as usize % seeds.len()].clone();
        mutate(&mut input, &mut x);
        if std::env::var_os("FUZZ_SHOW").is_some() {
            eprintln!("{name} {run}: {} bytes", input.len());
        }
        let began = Instant::now();
        feed(&input);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(60), "{name} run {run} took {took:?}");
    }
}

#[test]
fn archive() {
    feed_all("archive");
}

#[test]
fn disk_image() {
    feed_all("disk_image");
}

#[test]
fn elf() {
    feed_all("elf");
}

#[test]
fn ext4_image() {
    feed_all("ext4_image");
}

#[test]
fn recipe() {
    feed_all("recipe");
}
