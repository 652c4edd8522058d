//! Python packages by name and version, from the index that the host's pip is configured with.
//!
//! Only the index's page is read and one file downloaded: pip itself would run a package's code to learn its dependencies. The page
//! is HTML (PEP 503) or JSON (PEP 691), as the index likes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::http::{self, Request};
use super::run;
use crate::error::{Error, Result};
use crate::progress::{Progress, Quiet};
use crate::recipe::PypiSource;

/// What the index is asked for, the shorter to read first.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Largest page that is read, in bytes; the longest known are about a tenth of it.
const PAGE_MAX: u64 = 256 << 20;

/// The index, once it is known.
#[derive(Debug, Default)]
pub(super) struct Pypi {
    settings: Option<Settings>,
    /// Why the index could not be reached in this run; it is not asked again.
    unreachable: Option<String>,
}

/// What pip's configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    index: String,
    /// Certificates that the index's own is checked against, PEM.
    certificates: Option<PathBuf>,
}

impl Pypi {
    /// Downloads `file` of a package to `target`; the value says where it came from.
    ///
    /// # Errors
    /// The index cannot be reached, does not have the package or the file, or the download fails.
    pub(super) fn download(
        &mut self,
        package: &PypiSource,
        file: &str,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<String> {
        if let Some(reason) = &self.unreachable {
            return Err(other(format!("skipped, the index failed before in this run: {reason}")));
        }
        let settings = match &self.settings {
            Some(settings) => settings.clone(),
            None => self.settings.insert(Settings::of_host()?).clone(),
        };
        if settings.index.split('/').nth(2).is_some_and(|host| host.contains('@')) {
            return Err(other(
                "pip's index is one that asks for a name and password, which umlfs does not send".into(),
            ));
        }
        let page = format!("{}/{}/", settings.index.trim_end_matches('/'), normalized(&package.name));
        let request = |url| Request { url, accept: None, certificates: settings.certificates.as_deref() };
        let place = match http::get(&Request { accept: Some(ACCEPT), ..request(&page) }, target, file, &Quiet) {
            Ok(place) => place,
            Err(Error::Io { source, .. }) => {
                let reason = format!("{page}: {source}");
                // That it does not know one package says nothing about the others.
                if !source.to_string().starts_with("http status: 4") {
                    self.unreachable = Some(reason.clone());
                }
                return Err(other(reason));
            }
            Err(e) => return Err(e),
        };
        let text = read_page(target)?;
        let links = links(&text).map_err(|e| other(format!("{page}: {e}")))?;
        let Some(link) = links.iter().find(|link| link.file == file) else {
            return Err(other(format!("{page} has no {file}{}", of_version(&links, &package.version))));
        };
        let url = join(&place, &link.url).ok_or_else(|| other(format!("{page}: cannot follow {:?}", link.url)))?;
        match http::get(&request(&url), target, file, progress) {
            Ok(_) => Ok(url),
            Err(Error::Io { source, .. }) => Err(other(format!("{url}: {source}"))),
            Err(e) => Err(e),
        }
    }
}

impl Settings {
    /// From the environment, else as pip's own files say, else the index that pip itself knows of.
    fn of_host() -> Result<Settings> {
        let named = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        let mut settings = Settings {
            index: named("PIP_INDEX_URL").unwrap_or_default(),
            certificates: named("PIP_CERT").map(Into::into),
        };
        if settings.index.is_empty() || settings.certificates.is_none() {
            for program in ["pip3", "pip"] {
                match asked(program, &["config", "list"]) {
                    Ok(text) => {
                        settings.fill(&text);
                        if settings.index.is_empty() {
                            settings.index =
                                default_index(&asked(program, &["download", "--help"])?).unwrap_or_default();
                        }
                        break;
                    }
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    // A host without pip, or with one from before it had `config`.
                    Err(_) => {}
                }
            }
        }
        if settings.index.is_empty() {
            return Err(other("no pip on this host says where its index is: install pip, or set PIP_INDEX_URL".into()));
        }
        Ok(settings)
    }

    /// Takes what is not set yet from `pip config list`: lines of `SECTION.KEY='VALUE'`. A command's section goes before `global`.
    fn fill(&mut self, list: &str) {
        let value = |key: &str| {
            ["download", "install", "global"].iter().find_map(|section| {
                let value = list
                    .lines()
                    .find_map(|l| l.strip_prefix(section)?.strip_prefix('.')?.strip_prefix(key)?.strip_prefix('='))?;
                Some(value.trim().trim_matches(['\'', '"']).to_owned()).filter(|v| !v.is_empty())
            })
        };
        if self.index.is_empty() {
            self.index = value("index-url").unwrap_or_default();
        }
        if self.certificates.is_none() {
            self.certificates = value("cert").map(Into::into);
        }
    }
}

/// What pip says of itself.
fn asked(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    // It fills its help into lines of the terminal's width.
    command.arg("--disable-pip-version-check").args(args).env("LC_ALL", "C").env("COLUMNS", "1000");
    run(command, "reading pip's configuration")
}

/// The index that the help of `pip download` names as its own: `--index-url <url> ... (default URL)`.
fn default_index(help: &str) -> Option<String> {
    let line = help.lines().find(|line| line.contains("--index-url <url>"))?;
    let (url, _) = line.split_once("(default ")?.1.split_once(')')?;
    Some(url.to_owned()).filter(|url| url.contains("://"))
}

/// A file that an index offers.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    file: String,
    /// As it stands there: relative links are of the page.
    url: String,
}

/// A package's name as it stands in the index's addresses: lower case, runs of `-`, `_` and `.` one `-` (PEP 503).
pub(crate) fn normalized(name: &str) -> String {
    let words: Vec<_> = name.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    words.join("-").to_lowercase()
}

fn read_page(path: &Path) -> Result<String> {
    let size = path.metadata().map_err(|e| Error::io("reading", path, e))?.len();
    if size > PAGE_MAX {
        return Err(other(format!("the index's page has {size} bytes, expected at most {PAGE_MAX}")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io("reading", path, e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// For messages: the files of that version that are there.
fn of_version(links: &[Link], version: &str) -> String {
    let wanted = format!("-{version}");
    let these: Vec<_> = links.iter().map(|l| l.file.as_str()).filter(|f| f.contains(&wanted)).take(4).collect();
    match (these.is_empty(), links.len()) {
        (false, _) => format!("; of version {version} it has {}", these.join(", ")),
        (true, n) => format!(", nor any other of version {version} among its {n} files"),
    }
}

/// The files that a page lists.
fn links(page: &str) -> Result<Vec<Link>, String> {
    #[derive(serde::Deserialize)]
    struct Json {
        files: Vec<File>,
    }
    #[derive(serde::Deserialize)]
    struct File {
        filename: String,
        url: String,
    }
    if page.trim_start().starts_with('{') {
        let json: Json = serde_json::from_str(page).map_err(|e| format!("not an index's page: {e}"))?;
        return Ok(json.files.into_iter().map(|f| Link { file: f.filename, url: f.url }).collect());
    }
    let mut links = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if rest.starts_with("!--") {
            rest = rest.split_once("-->").map_or("", |(_, after)| after);
        } else if rest.starts_with(['a', 'A']) && rest.get(1..2).is_some_and(|c| c.trim().is_empty()) {
            let (href, after) = href(rest.get(1..).unwrap_or_default());
            rest = after;
            if let Some(url) = href {
                let path = url.split(['#', '?']).next().unwrap_or_default();
                links.push(Link { file: percent_decoded(path.rsplit('/').next().unwrap_or_default()), url });
            }
        }
    }
    Ok(links)
}

/// The `href` of a tag whose name was read, and what follows the tag.
fn href(mut rest: &str) -> (Option<String>, &str) {
    let mut found = None;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            return (found, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (found, after);
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=>".contains(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after.trim_start();
        let Some(after) = rest.strip_prefix('=') else {
            continue;
        };
        let after = after.trim_start();
        let value;
        (value, rest) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let inner = after.get(1..).unwrap_or_default();
                inner.split_once(quote).unwrap_or((inner, ""))
            }
            _ => after.split_at(after.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(after.len())),
        };
        if name.eq_ignore_ascii_case("href") && found.is_none() {
            found = Some(unescaped(value.trim()));
        }
    }
}

/// Text with the character references that appear in addresses resolved.
fn unescaped(text: &str) -> String {
    let pairs = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&#43;", "+"),
    ];
    let mut text = text.to_owned();
    for (from, to) in pairs.into_iter().chain([("&#38;", "&"), ("&amp;", "&")]) {
        text = text.replace(from, to);
    }
    text
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [a, b, ..]) => {
                let digit = |c: &u8| (*c as char).to_digit(16);
                digit(a).zip(digit(b)).map(|(a, b)| (a * 16 + b) as u8)
            }
            _ => None,
        };
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The address that a link on the page at `base` leads to, without its fragment; none when it is not of HTTP. See RFC 3986, 5.2.
fn join(base: &str, link: &str) -> Option<String> {
    let link = link.split('#').next()?;
    let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    if is_http(link) {
        return Some(link.to_owned());
    }
    let (scheme, rest) = base.split_once("://").filter(|_| is_http(base))?;
    if let Some(rest) = link.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if link.split(['/', '?']).next()?.contains(':') {
        return None;
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.split(['?', '#']).next()?;
    let (link, query) = link.split_once('?').map_or((link, None), |(l, q)| (l, Some(q)));
    let mut parts: Vec<&str> = Vec::new();
    if !link.starts_with('/') {
        parts.extend(path.rsplit_once('/').map_or("", |(directory, _)| directory).split('/').filter(|p| !p.is_empty()));
    }
    for part in link.strip_prefix('/').unwrap_or(link).split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    Some(format!("{scheme}://{host}/{}{query}", parts.join("/")))
}

fn other(message: String) -> Error {
    Error::Usage { message, hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(file: &str, url: &str) -> Link {
        Link { file: file.into(), url: url.into() }
    }

    #[test]
    fn html_pages() {
        let page = "<!DOCTYPE html><html><head><title>Links</title></head><body>\n\
            <!-- <a href=\"old-1.tar.gz\">old</a> --><abbr href=x>no link</abbr>\n\
            <a href=\"../../files/wheel-0.45.1.tar.gz#sha256=66\" data-requires-python=\"&gt;=3.8\">wheel-0.45.1.tar.gz</a><br/>\n\
            <A data-yanked\nHREF='/f/a%2Bb-1.zip?x=1&amp;y=2'>a+b</A><a name=top>top</a><a href=bare-2.tar.gz>";
        assert_eq!(
            links(page).unwrap(),
            [
                link("wheel-0.45.1.tar.gz", "../../files/wheel-0.45.1.tar.gz#sha256=66"),
                link("a+b-1.zip", "/f/a%2Bb-1.zip?x=1&y=2"),
                link("bare-2.tar.gz", "bare-2.tar.gz"),
            ]
        );
        assert_eq!(links("").unwrap(), []);
        assert_eq!(links("<a").unwrap(), []);
        assert_eq!(links("<a href=\"x").unwrap(), [link("x", "x")]);
    }

    #[test]
    fn json_pages() {
        let page = r#"{"meta": {"api-version": "1.1"}, "name": "wheel", "files": [
            {"filename": "wheel-0.45.1.tar.gz", "url": "files/w", "hashes": {"sha256": "66"}, "yanked": false}]}"#;
        assert_eq!(links(page).unwrap(), [link("wheel-0.45.1.tar.gz", "files/w")]);
        assert!(links("{\"message\": \"no\"}").unwrap_err().contains("missing field `files`"));
    }

    #[test]
    fn links_are_of_their_page() {
        let at = |url| join("https://h:1/simple/wheel/?x", url);
        let cases = [
            ("https://files/w.tar.gz#sha256=66", "https://files/w.tar.gz"),
            ("//files/w", "https://files/w"),
            ("/f/w?a/../b#c", "https://h:1/f/w?a/../b"),
            ("w.tar.gz", "https://h:1/simple/wheel/w.tar.gz"),
            ("../../f/./w", "https://h:1/f/w"),
            ("../../../../w", "https://h:1/w"),
        ];
        for (url, expected) in cases {
            assert_eq!(at(url).as_deref(), Some(expected), "{url}");
        }
        assert_eq!(join("http://h", "w").as_deref(), Some("http://h/w"));
        for no in ["ftp://h/w", "file:///etc/passwd", "javascript:x"] {
            assert_eq!(at(no), None, "{no}");
        }
    }

    #[test]
    fn names_and_versions() {
        assert_eq!(normalized("Flit__core"), "flit-core");
        assert_eq!(normalized("zope.interface"), "zope-interface");
        let links = [link("w-1.tar.gz", ""), link("w-1-py3-none-any.whl", ""), link("w-2.tar.gz", "")];
        assert_eq!(of_version(&links, "1"), "; of version 1 it has w-1.tar.gz, w-1-py3-none-any.whl");
        assert_eq!(of_version(&links, "3"), ", nor any other of version 3 among its 3 files");
    }

    #[test]
    fn pips_settings() {
        let mut settings = Settings::default();
        settings.fill(
            "global.index-url='https://a/simple/'\ninstall.index-url='https://b/simple'\nglobal.cert='/etc/ca.pem'\n",
        );
        assert_eq!(settings, Settings { index: "https://b/simple".into(), certificates: Some("/etc/ca.pem".into()) });
        let mut settings = Settings { index: "https://c".into(), certificates: None };
        settings.fill("global.index-url='https://a'\nglobal.certificates='x'\n:env:.cert='/y'\n");
        assert_eq!(settings, Settings { index: "https://c".into(), certificates: None });
    }

    #[test]
    fn pips_own_index() {
        let help = "Usage:\n  -i, --index-url <url>  Base URL (default https://index/simple). This should\n  --extra-index-url <url>  x\n";
        assert_eq!(default_index(help).as_deref(), Some("https://index/simple"));
        for no in ["", "--index-url <url> none", "--index-url <url> (default ", "--index-url <url> (default x)"] {
            assert_eq!(default_index(no), None, "{no}");
        }
    }

    proptest::proptest! {
        /// Whatever an index sends, reading it ends.
        #[test]
        fn any_page_is_read(page in "[<a>!\\- \"'=hrefHREF/&;#%0-9{}\n]{0,200}") {
            for link in links(&page).unwrap_or_default() {
                let _ = join("http://h/simple/p/", &link.url);
            }
        }
    }
}
