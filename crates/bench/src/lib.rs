//! `umlfs bench`: the same work natively, in a machine on each platform, and in a real User-Mode Linux, in one run, so that what the
//! host does meanwhile hits all alike. Ratios are what carries over from one host to another.
//!
//! - `guest/`: the program that does and times single operations; it is compiled on the spot and runs, unchanged, everywhere.
//! - [`measures`]: what is measured, and what it is to cost.
//! - [`system`]: where it runs.
//! - [`run()`]: rounds of it. Each round asks every system in turn, and a ratio is taken within a round.
//! - [`report`]: what came out, as a table and as JSON, and compared with an earlier run.

mod error;
pub mod measures;
mod place;
mod program;
pub mod report;
mod run;
mod stats;
pub mod system;

pub use error::{Error, Result};
pub use run::{Config, run};
