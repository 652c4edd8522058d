//! The builder: recipes -> plan -> sandboxed steps -> cached packages -> root filesystem.
//!
//! [`Builder::open`] reads a profile and its recipes ([`recipe`], [`profile`]), plans the steps with their content keys
//! ([`plan`]), and [`Builder::build`] runs those that the [`store`] does not have yet, in parallel under one jobserver, each in a
//! [`sandbox`]. What a step installs becomes a deterministic tar archive with a manifest ([`package`]).

pub mod base;
pub mod builder;
pub mod cancel;
mod compose;
pub mod config;

pub mod doctor;
pub mod error;
pub mod follow;
pub mod graph;
mod hash;
pub mod host;
mod jobserver;
pub mod package;
mod parse;
pub mod pkg;
pub mod plan;
pub mod profile;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod sandbox;
mod schedule;
mod source;
pub mod sources;
mod step;
pub mod store;
pub mod suite;
mod unpack;
mod work;

pub use builder::{BuildOptions, BuildOutput, Builder, PackageArchive};
pub use error::{Error, Result};

/// Time stamp of every file that a step makes, and `SOURCE_DATE_EPOCH` of its environment: 5 March 2025, the day on which
/// Linux From Scratch 12.3 came out. Seconds since 1970.
pub const SOURCE_DATE_EPOCH: u64 = 1_741_132_800;

/// Part of every step's key: to be raised when archives or manifests are written differently.
pub const FORMAT_VERSION: u32 = 1;
