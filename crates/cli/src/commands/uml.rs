//! Options of `umlfs boot` for a real User-Mode Linux as the kernel.

use std::path::PathBuf;

use crate::error::CliError;
use crate::uml::Kernel;

/// Which kernel, and what only it has.
#[derive(clap::Args)]
#[command(next_help_heading = "A real User-Mode Linux")]
pub(crate) struct UmlArgs {
    /// Boot the image with this `linux` (built with ARCH=um, or Debian's linux.uml) instead of umlfs's own kernel
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
}

/// An option that only our own kernel serves, and whether it was given.
pub(crate) struct OwnOption {
    /// The option.
    pub(crate) name: &'static str,
    /// It was given.
    pub(crate) given: bool,
    /// Why a User-Mode Linux cannot serve it.
    pub(crate) why: &'static str,
}

impl UmlArgs {
    /// The kernel that was named, if one was; `cpus` is what was asked for.
    ///
    /// # Errors
    /// The program is no such kernel, or an option does not go with it.
    pub(crate) fn kernel(&self, own: &[OwnOption], cpus: Option<u32>) -> Result<Option<Kernel>, CliError> {
        let Some(path) = &self.kernel else { return Ok(None) };
        if let Some(OwnOption { name, why, .. }) = own.iter().find(|option| option.given) {
            return Err(CliError::usage(format_args!("{name} does not go with --kernel: {why}"))
                .hint("leave one of the two out"));
        }
        let kernel = Kernel::look(path)?;
        if cpus.is_some_and(|cpus| cpus > 1) && !kernel.has("SMP") {
            let name = kernel.path().display();
            return Err(CliError::usage(format_args!(
                "--cpus: {name} has one processor: it was built without CONFIG_SMP=y"
            ))
            .hint("leave --cpus out"));
        }
        Ok(Some(kernel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_our_own_kernel_are_refused_with_a_reason() {
        let args = UmlArgs { kernel: Some("/nonexistent/linux".into()) };
        let own = |given| [OwnOption { name: "--trace", given, why: "it sees no calls" }];
        let error = args.kernel(&own(true), None).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string()),
            (2, "--trace does not go with --kernel: it sees no calls".into())
        );
        assert_eq!(args.kernel(&own(false), None).unwrap_err().exit_code(), 1);
        assert!(UmlArgs { kernel: None }.kernel(&own(true), Some(4)).unwrap().is_none());
    }
}
