//! What the kernel and its first program are told.

use std::path::Path;

use umkernel::machine::Run;
use umkernel::machine::launch::LaunchConfig;
use umkernel::machine::programs::{INITS, environment, places};
use uml_init::{INIT, Request};

use super::disk::device;
use super::{Options, word};

/// The kernel's command line, without its consoles: their descriptors are not known yet.
pub(crate) fn command_line(options: &Options<'_>, config: &LaunchConfig, place: &Path) -> Vec<String> {
    let machine = &config.machine;
    let mut words = vec![word("ubda", &place.join("ubda"))];
    words.extend(config.disks.iter().map(|disk| {
        let key = if disk.read_only { format!("{}r", device(disk)) } else { device(disk) };
        word(&key, &place.join(device(disk)))
    }));
    words.extend([
        "root=/dev/ubda".into(),
        "rootfstype=hostfs".into(),
        word("rootflags", &place.join("root")),
        // The first root; the image is mounted as the request says.
        "rw".into(),
        format!("init=/{INIT}"),
        format!("mem={}M", machine.memory >> 20),
        word("uml_dir", &place.join("run/")),
        "umid=m".into(),
    ]);
    if options.kernel.has("SMP") {
        words.push(format!("ncpus={}", machine.cpus));
    }
    if !machine.verbose {
        words.push("quiet".into());
    }
    if let Run::Command(_) = machine.run {
        // What a command prints is not to be mixed with the kernel's worries.
        words.push("loglevel=1".into());
    }
    words.extend(options.words.iter().filter(|word| is_for_the_kernel(word)).map(|word| quoted(word)));
    words
}

/// Whether a word of the user's is passed on; the others say what is said already.
fn is_for_the_kernel(word: &str) -> bool {
    let key = word.split_once('=').map_or(word, |(key, _)| key);
    let console = ["con", "ssl"]
        .iter()
        .any(|name| key.strip_prefix(name).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())));
    !console && !["ro", "rw", "root", "init", "mem", "quiet", "console", "umid"].contains(&key)
}

/// The kernel makes one line of its arguments, and takes it apart by spaces, except in quotes.
fn quoted(word: &str) -> String {
    match word.split_once('=') {
        Some((key, value)) if value.contains(' ') => format!("{key}=\"{value}\""),
        None if word.contains(' ') => format!("\"{word}\""),
        _ => word.to_string(),
    }
}

/// What the guest's first program is to do.
pub(crate) fn request(config: &LaunchConfig, terminal: [bool; 3]) -> Request {
    let shares = config.shares.iter().map(|share| uml_init::Share {
        host: share.host.clone().into(),
        guest: share.mount.guest.clone().into(),
        read_only: share.mount.read_only,
    });
    let (run, programs, args) = match &config.machine.run {
        Run::Init(None) => (uml_init::Run::Init, INITS.map(String::from).to_vec(), Vec::new()),
        Run::Init(Some(path)) => (uml_init::Run::Init, vec![path.clone()], Vec::new()),
        Run::Command(argv) => (uml_init::Run::Command, places(argv.first().map_or("", |name| name)), argv.clone()),
    };
    Request {
        partition: config.partition,
        read_only: config.root.read_only,
        shares: shares.collect(),
        run,
        programs: programs.into_iter().map(Into::into).collect(),
        args: args.into_iter().map(Into::into).collect(),
        env: environment(&config.machine).into_iter().map(|(name, value)| format!("{name}={value}").into()).collect(),
        terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uml::Kernel;
    use umkernel::fs::hostfs::ShareMount;
    use umkernel::machine::MachineConfig;
    use umkernel::machine::launch::{DiskConfig, PlatformChoice};
    use umkernel::machine::shares::ShareConfig;

    fn disk(index: u8, read_only: bool) -> DiskConfig {
        DiskConfig { index, image: "x.img".into(), overlays: None, read_only }
    }

    fn config(run: Run, verbose: bool) -> LaunchConfig {
        let env = vec![("A".to_string(), "1".to_string()), ("HOME".to_string(), "/home/x".to_string())];
        LaunchConfig {
            root: disk(0, true),
            partition: Some(2),
            disks: vec![disk(2, false), disk(3, true)],
            shares: Vec::new(),
            trace: None,
            stats: None,
            platform: PlatformChoice::Auto,
            kernel_image: &[],
            terminal: None,
            machine: MachineConfig { memory: 512 << 20, cpus: 3, command_line: String::new(), run, env, verbose },
        }
    }

    #[test]
    fn the_kernel_is_told_what_the_user_said_and_nothing_twice() {
        let words =
            ["ro", "init=/bin/sh", "con=null", "con1=pty", "ssl0=fd:3", "mem=1G", "x.debug", "T=a b", "consoleblank=0"];
        let words: Vec<String> = words.map(String::from).to_vec();
        let smp = Kernel::of_config("CONFIG_SMP=y\n");
        let options = Options { kernel: &smp, words };
        let line = command_line(&options, &config(Run::Command(vec!["ls".into()]), false), Path::new("/tmp/w"));
        let wanted = "ubda=/tmp/w/ubda ubdc=/tmp/w/ubdc ubddr=/tmp/w/ubdd root=/dev/ubda rootfstype=hostfs rootflags=/tmp/w/root rw init=/init mem=512M \
                      uml_dir=/tmp/w/run/ umid=m ncpus=3 quiet loglevel=1 x.debug T=\"a b\" consoleblank=0";
        assert_eq!(line.join(" "), wanted);
        let options = Options { kernel: &Kernel::of_config(""), words: Vec::new() };
        let line = command_line(&options, &config(Run::Init(None), true), Path::new("/tmp/w")).join(" ");
        assert!(line.ends_with(" umid=m"), "{line}");
    }

    #[test]
    fn the_guest_is_asked_for_the_same_as_our_own_kernel() {
        let mount = ShareMount { guest: "/g".into(), read_only: true };
        let shares = vec![ShareConfig { host: "/h".into(), mount }];
        let command = LaunchConfig { shares, ..config(Run::Command(vec!["ls".into(), "-l".into()]), false) };
        let command = request(&command, [true, false, false]);
        assert_eq!((command.run, command.read_only, command.shares.len()), (uml_init::Run::Command, true, 1));
        assert_eq!(command.partition, Some(2));
        assert_eq!(command.programs.last().unwrap(), "/bin/ls");
        assert_eq!(command.args, ["ls", "-l"]);
        assert_eq!(command.env[..2], ["A=1", "HOME=/home/x"]);
        assert!(command.env.iter().any(|variable| variable == "USER=root"));
        let init = request(&config(Run::Init(None), true), [false; 3]);
        assert_eq!((init.run, init.programs.len(), init.args.len()), (uml_init::Run::Init, 4, 0));
    }
}
