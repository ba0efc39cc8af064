//! URLs that allow one request to S3 without credentials, by AWS's Signature Version 4 in the query.
//!
//! `object_store` signs whole objects only; a part of an upload has two more arguments that have to be signed. The algorithm:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tidemill_core::clock::Timestamp;

/// Who signs, for which region, and when.
#[derive(Debug)]
pub(super) struct Signing<'a> {
    pub key_id: &'a str,
    pub secret: &'a str,
    pub token: Option<&'a str>,
    pub region: &'a str,
    pub at: Timestamp,
}

/// What may be done.
#[derive(Debug)]
pub(super) struct Permission<'a> {
    pub method: &'static str,
    /// Scheme and host, and what stands in front of the key: `https://host/bucket`.
    pub base: &'a str,
    pub key: &'a str,
    pub query: &'a [(&'a str, &'a str)],
    pub lasts_s: u64,
}

fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length is a key.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Vec::new();
    };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

impl Signing<'_> {
    /// The URL that allows it.
    pub fn url(&self, permission: &Permission<'_>) -> String {
        // `2013-05-24T00:00:00Z` as `20130524T000000Z`.
        let seconds = self.at.as_micros().div_euclid(1_000_000) * 1_000_000;
        let date: String = Timestamp::from_micros(seconds)
            .to_string()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let day = date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let lasts = permission.lasts_s.to_string();
        let credential = format!("{}/{scope}", self.key_id);
        let mut query: Vec<(&str, &str)> = permission.query.to_vec();
        query.extend([
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", credential.as_str()),
            ("X-Amz-Date", date.as_str()),
            ("X-Amz-Expires", lasts.as_str()),
            ("X-Amz-SignedHeaders", "host"),
        ]);
        if let Some(token) = self.token {
            query.push(("X-Amz-Security-Token", token));
        }
        let mut query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name, false), encoded(value, false)))
            .collect();
        query.sort();
        let query = query.join("&");
        let (scheme, rest) = permission
            .base
            .split_once("://")
            .unwrap_or(("https", permission.base));
        let (host, folder) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let path = format!(
            "{}/{}",
            folder.trim_end_matches('/'),
            encoded(permission.key, true)
        );
        let request = format!(
            "{}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD",
            permission.method
        );
        let digest = hex(&Sha256::digest(request.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}");
        let key = keyed(format!("AWS4{}", self.secret).as_bytes(), day);
        let key = keyed(&keyed(&keyed(&key, self.region), "s3"), "aws4_request");
        let signature = hex(&keyed(&key, &to_sign));
        format!("{scheme}://{host}{path}?{query}&X-Amz-Signature={signature}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in AWS's documentation of the algorithm.
    #[test]
    fn the_signature_is_aws_own_in_its_example() {
        let signing = Signing {
            key_id: "AKIAIOSFODNN7EXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            token: None,
            region: "us-east-1",
            at: "2013-05-24T00:00:00.25Z".parse().unwrap(),
        };
        let url = signing.url(&Permission {
            method: "GET",
            base: "https://examplebucket.s3.amazonaws.com",
            key: "test.txt",
            query: &[],
            lasts_s: 86_400,
        });
        assert_eq!(
            url,
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F\
             20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }
}
