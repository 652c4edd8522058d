//! File systems.

pub mod devpts;
