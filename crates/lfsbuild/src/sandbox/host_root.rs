//! What a step that works with the host's programs sees of the host: `/usr`, and what is needed with it. Read-only, at the same paths.

/// Directories beside `/usr` that hold programs and libraries, or links into `/usr`.
pub(super) const TOP: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Directories that are empty there.
pub(super) const LOCAL: [&str; 2] = ["usr/local", "usr/src"];

/// Files of `/etc` that are not the host's: name and text.
pub(super) const ETC: [(&str, &str); 3] = [
    ("passwd", "root:x:0:0:root:/build:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("group", "root:x:0:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost\n"),
];

/// Files of the host's `/etc`.
pub(super) const ETC_FILES: [&str; 2] = ["ld.so.cache", "ld.so.conf"];

/// Directories of the host's `/etc`.
pub(super) const ETC_DIRECTORIES: [&str; 2] = ["alternatives", "ld.so.conf.d"];

/// Directories of the host as a whole, by their paths, which are the same in the room. What is a link on the host
/// ([`TOP`]) is one there.
pub(super) fn shared() -> Vec<String> {
    let is_directory = |path: &str| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let top = TOP.iter().map(|name| format!("/{name}"));
    let etc = ETC_DIRECTORIES.iter().map(|name| format!("/etc/{name}"));
    std::iter::once("/usr".to_owned()).chain(top).chain(etc).filter(|path| is_directory(path)).collect()
}
