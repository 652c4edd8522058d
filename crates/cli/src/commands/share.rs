//! `--share HOST:GUEST[:ro]`.

use std::path::Path;

use umkernel::fs::hostfs::ShareMount;
use umkernel::machine::shares::ShareConfig;

/// Reads the option's value; the host's directory must be there.
pub(crate) fn parse_share(text: &str) -> Result<ShareConfig, String> {
    let (rest, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    // The host's path may have colons.
    let Some((host, guest)) = rest.rsplit_once(':').filter(|(host, _)| !host.is_empty()) else {
        return Err("expected HOST:GUEST or HOST:GUEST:ro, two directories".into());
    };
    if !guest.starts_with('/') || Path::new(guest) == Path::new("/") {
        return Err(format!("the guest's directory `{guest}` must be an absolute path below /"));
    }
    let path = Path::new(host).canonicalize().map_err(|e| format!("{host}: {e}"))?;
    if !path.is_dir() {
        return Err(format!("{host} is no directory"));
    }
    Ok(ShareConfig { host: path, mount: ShareMount { guest: guest.into(), read_only } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_two_directories_and_a_mode() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path().canonicalize().unwrap().join("a:b");
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("file"), "").unwrap();
        let text = host.to_str().unwrap();
        let mount = |read_only| ShareMount { guest: "/mnt/x".into(), read_only };
        let share = |read_only| ShareConfig { host: host.clone(), mount: mount(read_only) };
        assert_eq!(parse_share(&format!("{text}:/mnt/x")), Ok(share(false)));
        assert_eq!(parse_share(&format!("{text}:/mnt/x:rw")), Ok(share(false)));
        assert_eq!(parse_share(&format!("{text}:/mnt/x:ro")), Ok(share(true)));
        for wrong in [
            "",
            "x",
            ":/mnt",
            &format!("{text}/file:/mnt"),
            &format!("{text}:mnt"),
            &format!("{text}:/"),
            "/nonexistent:/mnt",
        ] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
    }
}
