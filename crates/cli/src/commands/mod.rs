//! The subcommands: each file holds its arguments (`Args`) and `run`, and calls the library that does the work.

pub(crate) mod bench;
pub(crate) mod boot;
pub(crate) mod build;
pub(crate) mod completions;
mod disks;
pub(crate) mod doctor;
pub(crate) mod image;
pub(crate) mod man;
pub(crate) mod pkg;
mod platforms;
pub(crate) mod report;
mod share;
pub(crate) mod sources;
mod trace;
mod uml;
pub(crate) mod up;
