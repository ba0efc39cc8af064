//! What a client may call an artifact, and where that is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tidemill_store::objects::Bucket;

use super::super::{Result, TrackingError};

fn refused() -> TrackingError {
    TrackingError::invalid("Invalid path")
}

/// A path below an artifact root, decoded: names with `/` between them, none of which leads anywhere else. May be empty.
///
/// Clients encode paths once, twice or not at all, so it is decoded until nothing changes, as MLflow does, and judged after that.
pub fn safe_path(text: &str) -> Result<String> {
    let mut path = text.to_owned();
    for round in 0.. {
        let decoded = decoded(&path);
        if decoded == path {
            break;
        }
        if round == 10 {
            return Err(refused());
        }
        path = decoded;
    }
    let bytes = path.as_bytes();
    let scheme = path
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("file:"));
    let drive = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.get(1) == Some(&b':')
        && bytes.get(2).is_none_or(|next| *next == b'/');
    if path.contains(['#', '\\', '\0']) || path.starts_with('/') || scheme || drive {
        return Err(refused());
    }
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            ".." => return Err(refused()),
            "" | "." => {}
            name => names.push(without_control_characters(name)),
        }
    }
    Ok(names.join("/"))
}

/// [`safe_path`] that names something.
pub fn safe_name(text: &str) -> Result<String> {
    let path = safe_path(text)?;
    if path.is_empty() {
        return Err(refused());
    }
    Ok(path)
}

/// Percent-decoded once. What is no UTF-8 then becomes the replacement character; a `%` without two digits stays.
pub(crate) fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 3;
            }
            (other, _) => {
                plain.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Control characters stand in names as `%` and their number, as MLflow writes them.
fn without_control_characters(name: &str) -> String {
    if !name.contains(|c: char| c.is_ascii_control()) {
        return name.to_owned();
    }
    let mut plain = String::with_capacity(name.len() + 2);
    for character in name.chars() {
        if character.is_ascii_control() {
            let _ = write!(plain, "%{:02x}", character as u32);
        } else {
            plain.push(character);
        }
    }
    plain
}

/// An artifact root, by where its URI leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Root {
    /// A path in the server's own proxy.
    Proxy(String),
    /// A folder of this machine.
    Folder(PathBuf),
    /// What a run keeps, and a path in it.
    Run(String, String),
    /// What a logged model keeps, and a path in it.
    Model(String, String),
    /// Something in a bucket; the URI.
    Bucket(String),
    /// Somewhere that clients reach by themselves; the scheme.
    Elsewhere(String),
}

const PROXY_ROUTE: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// How long a URI's scheme is; `None` for a path of this machine.
fn scheme_of(uri: &str) -> Option<usize> {
    uri.find(':').filter(|end| {
        *end > 1
            && uri[..*end]
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// A URI up to where its path ends, and its query and fragment. A path of this machine has neither. Whoever reads a location and
/// whoever appends to one must cut it at the same place.
pub(crate) fn cut(uri: &str) -> (&str, &str) {
    let end = match scheme_of(uri) {
        Some(_) => uri.find(['?', '#']).unwrap_or(uri.len()),
        None => uri.len(),
    };
    uri.split_at(end)
}

/// Host and path of a URI behind its scheme, without query and fragment.
fn uri_path(rest: &str) -> (&str, &str) {
    match rest.strip_prefix("//") {
        Some(rest) => match rest.find('/') {
            Some(slash) => (&rest[..slash], &rest[slash..]),
            None => (rest, ""),
        },
        None => ("", rest),
    }
}

impl Root {
    /// Where a URI leads.
    pub(crate) fn of(uri: &str) -> Result<Self> {
        let Some(end) = scheme_of(uri) else {
            return folder(uri);
        };
        let scheme = uri[..end].to_ascii_lowercase();
        let (plain, _) = cut(uri);
        let (host, path) = uri_path(&plain[end + 1..]);
        let root = match scheme.as_str() {
            "mlflow-artifacts" => Ok(Self::Proxy(safe_path(path.trim_start_matches('/'))?)),
            "http" | "https" => match path.split_once(PROXY_ROUTE) {
                Some((_, inner)) => Ok(Self::Proxy(safe_path(inner.trim_start_matches('/'))?)),
                None => Ok(Self::Elsewhere(scheme)),
            },
            "file" if host.is_empty() || host == "localhost" => folder(&decoded(path)),
            "runs" | "models" => {
                let (first, inner) = path
                    .trim_start_matches('/')
                    .split_once('/')
                    .unwrap_or((path.trim_start_matches('/'), ""));
                let inner = safe_path(inner)?;
                if scheme == "runs" {
                    Ok(Self::Run(first.to_owned(), inner))
                } else if first.starts_with("m-") {
                    Ok(Self::Model(first.to_owned(), inner))
                } else {
                    Ok(Self::Elsewhere(scheme))
                }
            }
            _ if Bucket::is_uri(uri) => Ok(Self::Bucket(uri.to_owned())),
            _ => Ok(Self::Elsewhere(scheme)),
        }?;
        // Nothing here has a fragment. Locations of old that end in `#` had paths appended behind it, and lead to other people's files.
        if uri.contains('#') && !matches!(root, Self::Elsewhere(_)) {
            return Err(refused());
        }
        Ok(root)
    }
}

fn folder(path: &str) -> Result<Root> {
    if path.is_empty() || path.contains('\0') || path.split('/').any(|name| name == "..") {
        return Err(refused());
    }
    let absolute = std::path::absolute(Path::new(path)).map_err(|_| refused())?;
    Ok(Root::Folder(absolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_out_of_a_folder_is_refused() {
        let ways = [
            "..",
            "../x",
            "a/..",
            "a/../b",
            "%2e%2e",
            "%2E%2e/x",
            "a/%2e%2e/%2e%2e",
            "%252e%252e/x",
            "..%2fx",
            "..%252fx",
            "%25252e%25252e%25252fx",
            "/etc/passwd",
            "//etc/passwd",
            "%2fetc/passwd",
            "%252fetc",
            "\\etc",
            "..\\x",
            "a\\..\\b",
            "%5c..%5cx",
            "a%5cb",
            "file:///etc/passwd",
            "file:/etc/passwd",
            "FILE:x",
            "file%3a///etc",
            "a\0b",
            "a%00b",
            "%2500",
            "C:/x",
            "C:\\x",
            "c:",
            "C%3a/x",
            "a#b",
            "%23",
        ];
        for way in ways {
            assert_eq!(safe_path(way).unwrap_err().to_string(), "Invalid path", "{way}");
        }
    }

    #[test]
    fn ordinary_names_stay_and_odd_ones_are_written_as_mlflow_does() {
        let table = [
            ("a.txt", "a.txt"),
            ("a/b c.txt", "a/b c.txt"),
            ("a//./b/", "a/b"),
            ("", ""),
            ("a..b/...", "a..b/..."),
            ("a%20b", "a b"),
            ("grüße/日本", "grüße/日本"),
            ("50%", "50%"),
            ("dog%step%100%timestamp%100", "dog%step%100%timestamp%100"),
            ("images/dog%25step", "images/dog%step"),
            ("ab:c", "ab:c"),
        ];
        for (text, path) in table {
            assert_eq!(safe_path(text).unwrap(), path, "{text}");
        }
        assert!(safe_name("").is_err() && safe_name("./").is_err());
    }

    #[test]
    fn a_roots_uri_says_where_it_is() {
        let proxy = |path: &str| Root::Proxy(path.to_owned());
        let table = [
            ("mlflow-artifacts:/1/abc/artifacts", proxy("1/abc/artifacts")),
            ("mlflow-artifacts:", proxy("")),
            ("mlflow-artifacts://host:5000/1/abc", proxy("1/abc")),
            ("http://h:1/api/2.0/mlflow-artifacts/artifacts/1/a", proxy("1/a")),
            ("https://h/prefix/api/2.0/mlflow-artifacts/artifacts", proxy("")),
            ("https://h/x", Root::Elsewhere("https".to_owned())),
            ("s3://bucket/x", Root::Bucket("s3://bucket/x".to_owned())),
            ("gs://bucket/x", Root::Elsewhere("gs".to_owned())),
            ("file:///srv/a%20b", Root::Folder("/srv/a b".into())),
            ("file://host/srv", Root::Elsewhere("file".to_owned())),
            ("/srv/mlruns", Root::Folder("/srv/mlruns".into())),
            ("runs:/abc/model", Root::Run("abc".to_owned(), "model".to_owned())),
            ("models:/m-12", Root::Model("m-12".to_owned(), String::new())),
            ("models:/name/3", Root::Elsewhere("models".to_owned())),
        ];
        for (uri, root) in table {
            assert_eq!(Root::of(uri).unwrap(), root, "{uri}");
        }
        for uri in [
            "mlflow-artifacts:/../x",
            "file:///srv/../etc",
            "file:///srv/%2e%2e/etc",
            "/srv/../etc",
            "runs:/a/../b",
            "",
            "mlflow-artifacts:/5/run/artifacts#",
            "mlflow-artifacts:/#/run",
            "https://h/api/2.0/mlflow-artifacts/artifacts/5#x",
            "s3://bucket/5#/run",
            "s3a://bucket#",
            "file:///srv/a#",
            "runs:/abc#",
            "models:/m-12#x",
        ] {
            assert!(Root::of(uri).is_err(), "{uri}");
        }
    }
}
