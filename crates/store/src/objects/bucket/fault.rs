//! What a bucket refuses or fails at, told so that whoever runs the server knows what to mend.

use std::error::Error as _;
use std::fmt;

use crate::error::StoreError;

/// What is wrong with a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BucketFault {
    /// The server's credentials are wrong, or may not do this.
    Denied,
    /// There is no such bucket.
    Missing,
    /// Nobody answers, or only that it does not work just now.
    Unreachable,
    /// Anything else.
    Failed,
}

/// A bucket that refused or failed at something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BucketTrouble {
    /// What is wrong.
    pub fault: BucketFault,
    /// What was tried: `write`, `list`, …
    pub doing: &'static str,
    /// The bucket's name.
    pub bucket: String,
    /// Where it is.
    pub endpoint: String,
    /// What was said.
    pub detail: String,
}

impl fmt::Display for BucketTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            doing,
            bucket,
            endpoint,
            detail,
            ..
        } = self;
        match self.fault {
            BucketFault::Denied => write!(
                f,
                "the object store at {endpoint} does not let this server {doing} in the bucket `{bucket}` ({detail}): look at the \
                 credentials that the server was started with (AWS_ACCESS_KEY_ID and the like), and at what they may do there"
            ),
            BucketFault::Missing => write!(
                f,
                "the object store at {endpoint} has no bucket `{bucket}` ({detail}): create it, or start the server with the name of one \
                 that is there"
            ),
            BucketFault::Unreachable => write!(
                f,
                "the object store at {endpoint} does not answer, so this server cannot {doing} in the bucket `{bucket}` ({detail}): try \
                 again"
            ),
            BucketFault::Failed => {
                write!(
                    f,
                    "the object store at {endpoint} failed to {doing} in the bucket `{bucket}`: {detail}"
                )
            }
        }
    }
}

/// Codes of S3 that are about who asks.
const ABOUT_CREDENTIALS: &[&str] = &[
    "AccessDenied",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NotSignedUp",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
];

/// The error and what is behind it, in one line.
fn text_of(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// What stands in an element of S3's answer.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

/// How many characters of an answer are passed on.
const DETAIL: usize = 300;

/// Says what is wrong, from what a client of S3 met.
pub(super) fn trouble(
    error: &object_store::Error,
    doing: &'static str,
    bucket: &str,
    endpoint: &str,
) -> StoreError {
    let text = text_of(error);
    let code = element(&text, "Code");
    let status = text
        .split_once("status code")
        .and_then(|(_, rest)| rest.trim_start_matches([':', ' ']).get(..3)?.parse::<u16>().ok());
    let no_credentials = text.contains("169.254.169.254") || text.contains("169.254.170.2");
    let untrusted = text
        .find("invalid peer certificate")
        .and_then(|at| text.get(at..));
    let fault = match (code, error) {
        (Some("NoSuchBucket"), _) => BucketFault::Missing,
        (Some(code), _) if ABOUT_CREDENTIALS.contains(&code) => BucketFault::Denied,
        (_, object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }) => {
            BucketFault::Denied
        }
        _ if no_credentials => BucketFault::Denied,
        _ if untrusted.is_some() => BucketFault::Failed,
        // Whoever writes or lists names nothing else that could be missing.
        (None, object_store::Error::NotFound { .. }) if doing != "read" => BucketFault::Missing,
        (_, object_store::Error::Generic { .. })
            if status.is_none_or(|status| status >= 500 || status == 429) =>
        {
            BucketFault::Unreachable
        }
        _ => BucketFault::Failed,
    };
    let detail = match (code, element(&text, "Message")) {
        (Some(code), Some(message)) if !message.is_empty() => format!("{code}: {message}"),
        (Some(code), _) => code.to_owned(),
        (None, _) if let Some(why) = untrusted => {
            format!("{why}: name the authority that signed it in AWS_CA_BUNDLE")
        }
        (None, _) if no_credentials => {
            "no credentials in the environment, in a profile or from the machine".to_owned()
        }
        (None, _) => text.chars().take(DETAIL).collect(),
    };
    StoreError::Bucket(Box::new(BucketTrouble {
        fault,
        doing,
        bucket: bucket.to_owned(),
        endpoint: endpoint.to_owned(),
        detail,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: &object_store::Error, doing: &'static str) -> BucketTrouble {
        match trouble(error, doing, "models", "http://127.0.0.1:9000") {
            StoreError::Bucket(trouble) => *trouble,
            other => panic!("{other}"),
        }
    }

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.into(),
        }
    }

    #[test]
    fn what_is_wrong_with_a_bucket_is_told_from_the_answer() {
        let denied = object_store::Error::PermissionDenied {
            path: "a".to_owned(),
            source: "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message>\
                     <StringToSign>secret words</StringToSign></Error>"
                .into(),
        };
        let trouble = told(&denied, "write");
        assert_eq!(trouble.fault, BucketFault::Denied);
        assert_eq!(trouble.detail, "SignatureDoesNotMatch: No.");
        let text = trouble.to_string();
        assert!(
            text.contains("`models`") && text.contains("http://127.0.0.1:9000"),
            "{text}"
        );

        let missing = object_store::Error::NotFound {
            path: "a".to_owned(),
            source: "status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>".into(),
        };
        assert_eq!(told(&missing, "read").fault, BucketFault::Missing);

        let table = [
            ("status code: 503 Service Unavailable: ", BucketFault::Unreachable),
            (
                "error sending request: connection refused",
                BucketFault::Unreachable,
            ),
            (
                "error sending request: invalid peer certificate: UnknownIssuer",
                BucketFault::Failed,
            ),
            (
                "status code: 400 Bad Request: <Code>ExpiredToken</Code>",
                BucketFault::Denied,
            ),
            (
                "status code: 400 Bad Request: <Code>EntityTooSmall</Code>",
                BucketFault::Failed,
            ),
            (
                "error sending request for http://169.254.169.254/latest",
                BucketFault::Denied,
            ),
        ];
        for (text, fault) in table {
            assert_eq!(told(&generic(text), "write").fault, fault, "{text}");
        }
    }
}
