//! Options of `umlfs boot` for a real User-Mode Linux as the kernel.

use std::path::PathBuf;

use crate::error::CliError;
use crate::uml::{Kernel, Share, parse_share};

/// Which kernel, and what only it has.
#[derive(clap::Args)]
#[command(next_help_heading = "A real User-Mode Linux")]
pub(crate) struct UmlArgs {
    /// Boot the image with this `linux` (built with ARCH=um, or Debian's linux.uml) instead of umlfs's own kernel
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,

    /// With --kernel: show the guest a directory of this host at a place of its own (hostfs), with the rights that you have
    #[arg(long, value_name = "HOST:GUEST[:ro]", value_parser = parse_share)]
    share: Vec<Share>,
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
    /// The directories to share.
    pub(crate) fn shares(&self) -> &[Share] {
        &self.share
    }

    /// The kernel that was named, if one was; `cpus` is what was asked for.
    ///
    /// # Errors
    /// The program is no such kernel, or an option does not go with it, or needs it.
    pub(crate) fn kernel(&self, own: &[OwnOption], cpus: Option<u32>) -> Result<Option<Kernel>, CliError> {
        let Some(path) = &self.kernel else {
            return match self.share.is_empty() {
                true => Ok(None),
                false => Err(CliError::usage("--share needs --kernel: umlfs's own kernel has no hostfs yet")
                    .hint("`umlfs image cp` copies files into an image and out of it")),
            };
        };
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
        let args = UmlArgs { kernel: Some("/nonexistent/linux".into()), share: Vec::new() };
        let own = |given| [OwnOption { name: "--trace", given, why: "it sees no calls" }];
        let error = args.kernel(&own(true), None).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string()),
            (2, "--trace does not go with --kernel: it sees no calls".into())
        );
        assert_eq!(args.kernel(&own(false), None).unwrap_err().exit_code(), 1);
        let share = Share { host: "/".into(), guest: "/mnt".into(), read_only: true };
        let args = UmlArgs { kernel: None, share: vec![share] };
        assert_eq!(args.kernel(&own(true), None).unwrap_err().exit_code(), 2);
        assert!(UmlArgs { kernel: None, share: Vec::new() }.kernel(&own(true), Some(4)).unwrap().is_none());
    }
}
