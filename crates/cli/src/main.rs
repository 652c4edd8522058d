//! The `umlfs` command: one file per subcommand under `commands/`, no logic of its own.
fn main() {}
