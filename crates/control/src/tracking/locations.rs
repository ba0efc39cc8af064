//! Where artifacts are: URIs that clients open by themselves, or hand to the proxy.

use super::artifacts::{Root, cut};
use super::validate::MAX_LOCATION;
use super::{Result, TrackingError};

/// Appends to the path of a URI, in front of its query and fragment.
pub(crate) fn append(uri: &str, path: &str) -> String {
    let (base, rest) = cut(uri);
    format!("{}/{path}{rest}", base.trim_end_matches('/'))
}

fn scheme(uri: &str) -> &str {
    match uri.split_once(':') {
        Some((scheme, _))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) =>
        {
            scheme
        }
        _ => "",
    }
}

/// Checks the location of an experiment's artifacts, and makes a relative path of this machine absolute.
pub(super) fn checked(location: &str) -> Result<String> {
    let (path, query) = location.split_once('?').unwrap_or((location, ""));
    let last = path.rsplit('/').next().unwrap_or(path);
    let has_params = matches!(scheme(location), "" | "http" | "https" | "ftp" | "sftp")
        && last.split_once(';').is_some_and(|(_, params)| !params.is_empty());
    // An empty fragment too: what is behind a `#` nobody reads.
    if location.contains('#') || has_params {
        return Err(TrackingError::invalid(
            "'artifact_location' URL can't include fragments or params.",
        ));
    }
    if decoded(query).contains("..") {
        return Err(TrackingError::invalid("Invalid query string"));
    }
    if location.starts_with("runs:") || matches!(Root::of(location), Ok(Root::Run(..))) {
        return Err(TrackingError::invalid(format!(
            "Artifact location cannot be a runs:/ URI. Given: '{location}'"
        )));
    }
    if matches!(Root::of(location), Ok(Root::Model(..))) {
        return Err(TrackingError::invalid(format!(
            "Artifact location cannot be a models:/ URI. Given: '{location}'"
        )));
    }
    if location.chars().count() > MAX_LOCATION {
        return Err(TrackingError::invalid(format!(
            "Invalid artifact path length. The length of the artifact path cannot be greater than {MAX_LOCATION} characters. To \
             configure this limit, please set the MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH environment variable."
        )));
    }
    Ok(absolute(location))
}

fn absolute(location: &str) -> String {
    let (prefix, path) = match scheme(location) {
        "" => ("", location),
        "file" => match location.split_at("file:".len()) {
            (_, path) if path.starts_with('/') => return location.to_owned(),
            (_, path) => ("file://", path),
        },
        _ => return location.to_owned(),
    };
    if path.starts_with('/') {
        return location.to_owned();
    }
    match std::env::current_dir() {
        Ok(folder) => format!("{prefix}{}", folder.join(path).display()),
        Err(_) => location.to_owned(),
    }
}

/// Percent signs undone until nothing changes, as an attacker may write them twice.
fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..10 {
        let once = decoded_once(&text);
        if once == text {
            break;
        }
        text = once;
    }
    text
}

fn decoded_once(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3);
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_whatever_the_scheme() {
        for (uri, joined) in [
            ("mlflow-artifacts:/", "mlflow-artifacts:/0"),
            ("s3://bucket", "s3://bucket/0"),
            ("s3://bucket/a/?x=y", "s3://bucket/a/0?x=y"),
            ("/srv/artifacts/", "/srv/artifacts/0"),
            ("file:///srv", "file:///srv/0"),
            // Never behind what readers cut off.
            ("s3://bucket/5/run/artifacts#", "s3://bucket/5/run/artifacts/0#"),
            ("s3://bucket/a#b?c", "s3://bucket/a/0#b?c"),
            ("mlflow-artifacts:/#", "mlflow-artifacts:/0#"),
            ("mlflow-artifacts:/a/?x#y", "mlflow-artifacts:/a/0?x#y"),
            // A folder may have any name.
            ("/srv/a#b?c", "/srv/a#b?c/0"),
        ] {
            assert_eq!(append(uri, "0"), joined);
        }
    }

    #[test]
    fn locations_that_hide_a_way_out_are_refused() {
        for bad in [
            "s3://b/a#f",
            "s3://b/root/5/run/artifacts#",
            "mlflow-artifacts:/5/run/artifacts#",
            "mlflow-artifacts:/#",
            "/srv/a#",
            "s3://b/a?#",
            "RUNS:/abc/x",
            "Runs://h/abc",
            "models:/m-1",
            "https://h/a;b=c",
            "s3://b/a?x=../..",
            "s3://b/a?x=%252e%252e",
            "runs:/abc/x",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        assert_eq!(checked("s3://b/a?x=y").unwrap(), "s3://b/a?x=y");
        assert_eq!(checked("/srv/a").unwrap(), "/srv/a");
        assert!(checked("a/b").unwrap().ends_with("/a/b"));
        assert!(checked("a/b").unwrap().starts_with('/'));
    }
}
