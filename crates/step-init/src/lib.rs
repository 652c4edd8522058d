//! Running a build step's phases in a place that has been made for them.
//!
//! Both sandboxes of the builder do it by this code: in namespaces its helper process calls the library; in a machine of umlfs's
//! own kernel the program `step-init` does, which is linked statically, since the step's packages may have no program but a shell.
//!
//! What is to be done comes as [`Orders`], the scripts lie in [`DIR`], what happens is told in [`Report`]s, one a line.

mod orders;
mod phases;
mod report;

pub use orders::Orders;
pub use phases::{run, settle, write_scripts};
pub use report::Report;

/// Where a step finds the scripts of its phases and what they share.
pub const DIR: &str = "/run/umlfs";

/// The directory of a machine's image that becomes [`DIR`].
pub const IN_IMAGE: &str = "/umlfs";
/// The program's name there.
pub const PROGRAM: &str = "init";
/// The orders' name there.
pub const ORDERS: &str = "orders";

/// Exit status when a phase failed; a [`Report::Failed`] tells more.
pub const EXIT_PHASE_FAILED: i32 = 101;
/// Exit status when the place could not be made; a [`Report::NoSandbox`] tells why.
pub const EXIT_NO_SANDBOX: i32 = 102;
