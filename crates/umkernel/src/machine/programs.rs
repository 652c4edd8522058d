//! Which programs a machine starts first, and what they are told: the same with our own kernel and with another one.

use super::{MachineConfig, Run};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// Where Linux looks for init.
pub const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];
/// The search path of commands.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a command may lie: as named, or along the search path.
pub fn places(name: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_string()];
    }
    PATH.split(':').map(|dir| format!("{dir}/{name}")).collect()
}

/// The environment: what the user gave, and what every such program has, as far as he did not give it.
pub fn environment(config: &MachineConfig) -> Vec<(String, String)> {
    let own: &[(&str, &str)] = match config.run {
        Run::Init(_) => &[("HOME", "/")],
        Run::Command(_) => &[("PATH", PATH), ("HOME", "/root"), ("USER", "root"), ("SHELL", "/bin/sh")],
    };
    let mut env: Vec<(String, String)> = Vec::new();
    let given = config.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in given.chain(own.iter().copied()) {
        // Programs take the first.
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_string(), value.to_string()));
        }
    }
    env
}
