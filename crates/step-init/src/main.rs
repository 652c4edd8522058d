//! The first program in a machine that builds a step: makes the file tree what it is in the builder's other sandbox, and runs the
//! phases.

mod mounts;

use nix::sys::prctl;
use step_init::{EXIT_NO_SANDBOX, IN_IMAGE, ORDERS, Orders, Report};

fn main() {
    let path = format!("{IN_IMAGE}/{ORDERS}");
    let orders = std::fs::read(&path)
        .map_err(|e| format!("reading {path}: {e}"))
        .and_then(|bytes| Orders::decode(&bytes).ok_or_else(|| format!("{path} holds no orders")));
    let interactive = orders.as_ref().is_ok_and(|orders| orders.interactive);
    let status = match orders.and_then(|orders| run(&orders)) {
        Ok(status) => status,
        Err(message) => {
            if interactive {
                eprintln!("cannot make the build sandbox: {message}");
            } else {
                Report::NoSandbox { message }.send();
            }
            EXIT_NO_SANDBOX
        }
    };
    std::process::exit(status);
}

fn run(orders: &Orders) -> Result<i32, String> {
    // What a phase leaves running becomes a child of this process, which ends it and waits for it.
    prctl::set_child_subreaper(true).map_err(|e| format!("prctl(PR_SET_CHILD_SUBREAPER): {e}"))?;
    mounts::enter(orders)?;
    step_init::settle(orders)?;
    step_init::run(orders, Report::send)
}
