//! How a bucket is reached: from the URL and the environment, under the names that AWS's and MLflow's tools know.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};

use super::upload::PART_TIME;
use super::{Bucket, Inner};
use crate::error::StoreError;

/// Names of the environment that mean to `object_store` what they mean to AWS's own tools.
const PASSED_ON: &[&str] = &[
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ENDPOINT_URL_STS",
    "AWS_REQUEST_PAYER",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SKIP_SIGNATURE",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// Those of them by which credentials come from elsewhere, or are not needed.
const ELSEWHERE: &[&str] = &[
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_SKIP_SIGNATURE",
];

/// How long a request that moves no files may take.
const QUICK: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// A request is tried again for so long: longer, and whoever waits for the answer gives up first.
const RETRY_FOR: Duration = Duration::from_secs(20);
const RETRIES: usize = 5;

/// A look into the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn refused(message: impl Into<String>) -> StoreError {
    StoreError::conflict("object store", message)
}

/// An S3 URI as bucket and prefix.
pub(super) fn parts_of(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("s3") && !scheme.eq_ignore_ascii_case("s3a") {
        return None;
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    (!bucket.is_empty()).then_some((bucket, prefix.trim_matches('/')))
}

/// What is set of one profile.
type Profile = BTreeMap<String, String>;

/// A profile in one of the files of AWS's tools; in `config` its section is called `profile NAME`.
fn profile(text: &str, name: &str) -> Profile {
    let mut found = Profile::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let section = section.trim();
            inside = section.strip_prefix("profile ").map_or(section, str::trim) == name;
        } else if let Some((key, value)) = line.split_once('=')
            && inside
            && !line.starts_with('#')
        {
            found.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    found
}

fn profile_of(env: Environment<'_>) -> Result<Profile, StoreError> {
    let home = env("HOME").map(PathBuf::from);
    let file = |variable: &str, name: &str| {
        env(variable)
            .map(PathBuf::from)
            .or_else(|| Some(home.as_ref()?.join(".aws").join(name)))
    };
    let named = env("AWS_PROFILE").or_else(|| env("AWS_DEFAULT_PROFILE"));
    let name = named.clone().unwrap_or_else(|| "default".to_owned());
    let mut found = Profile::new();
    for (variable, file_name) in [
        ("AWS_CONFIG_FILE", "config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    ] {
        let text = file(variable, file_name).and_then(|file| std::fs::read_to_string(file).ok());
        found.extend(profile(&text.unwrap_or_default(), &name));
    }
    match named {
        Some(named) if found.is_empty() => Err(refused(format!(
            "there is no AWS profile `{named}` (AWS_PROFILE) in ~/.aws/credentials or ~/.aws/config"
        ))),
        _ => Ok(found),
    }
}

/// Of MLflow's extra arguments of an upload, those that are about the bucket.
fn encryption(env: Environment<'_>) -> Result<Vec<(AmazonS3ConfigKey, String)>, StoreError> {
    let Some(text) = env("MLFLOW_S3_UPLOAD_EXTRA_ARGS") else {
        return Ok(Vec::new());
    };
    let extra: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| {
        refused(format!(
            "MLFLOW_S3_UPLOAD_EXTRA_ARGS is no JSON object of texts: {error}"
        ))
    })?;
    let mut settings = Vec::new();
    for (name, value) in extra {
        let key = match name.as_str() {
            "ServerSideEncryption" => "aws_server_side_encryption",
            "SSEKMSKeyId" => "aws_sse_kms_key_id",
            other => {
                return Err(refused(format!(
                    "`{other}` in MLFLOW_S3_UPLOAD_EXTRA_ARGS is not known here: `ServerSideEncryption` and `SSEKMSKeyId` are"
                )));
            }
        };
        settings.push((key_of(key)?, value));
    }
    Ok(settings)
}

fn key_of(name: &str) -> Result<AmazonS3ConfigKey, StoreError> {
    name.parse()
        .map_err(|error: object_store::Error| refused(error.to_string()))
}

fn client(env: Environment<'_>, http: bool) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_allow_http(http)
        .with_connect_timeout(CONNECT);
    if env("MLFLOW_S3_IGNORE_TLS").is_some_and(|value| value == "true" || value == "1") {
        options = options.with_allow_invalid_certificates(true);
    }
    if let Some(file) = env("AWS_CA_BUNDLE").or_else(|| env("REQUESTS_CA_BUNDLE")) {
        let pem = std::fs::read(&file).map_err(|e| StoreError::io("read", file.as_ref(), e))?;
        let bundle = Certificate::from_pem_bundle(&pem)
            .map_err(|error| refused(format!("`{file}` (AWS_CA_BUNDLE) holds no certificates: {error}")))?;
        for certificate in bundle {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn build(builder: AmazonS3Builder) -> Result<AmazonS3, StoreError> {
    builder.build().map_err(|error| refused(error.to_string()))
}

/// Everything that has to be known before the first request.
pub(super) fn bucket(uri: &str, env: Environment<'_>) -> Result<Bucket, StoreError> {
    let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    let env: Environment<'_> = &set;
    let Some((name, prefix)) = parts_of(uri) else {
        return Err(refused(format!(
            "`{uri}` is no URL of a bucket: write `s3://bucket/prefix`"
        )));
    };
    object_store::path::Path::parse(prefix).map_err(|error| {
        refused(format!(
            "`{uri}` has a prefix that no key can begin with: {error}"
        ))
    })?;
    let mut builder = AmazonS3Builder::new().with_bucket_name(name);
    for variable in PASSED_ON {
        if let Some(value) = env(variable) {
            builder = builder.with_config(key_of(&variable.to_ascii_lowercase())?, value);
        }
    }
    for (key, value) in encryption(env)? {
        builder = builder.with_config(key, value);
    }
    let mut region = env("AWS_DEFAULT_REGION").or_else(|| env("AWS_REGION"));
    if let (Some(id), Some(secret)) = (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = env("AWS_SESSION_TOKEN") {
            builder = builder.with_token(token);
        }
    } else if env("AWS_WEB_IDENTITY_TOKEN_FILE").is_none() {
        let profile = profile_of(env)?;
        let of = |name: &str| profile.get(name).cloned();
        if let (Some(id), Some(secret)) = (of("aws_access_key_id"), of("aws_secret_access_key")) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            if let Some(token) = of("aws_session_token") {
                builder = builder.with_token(token);
            }
        }
        region = region.or_else(|| of("region"));
        // Otherwise the machine is asked, such as an EC2 instance for its role.
        let disabled =
            env("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if of("aws_access_key_id").is_none() && disabled && ELSEWHERE.iter().all(|name| env(name).is_none()) {
            return Err(refused(format!(
                "there are no credentials for `{uri}`: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )));
        }
    }
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let endpoint = [
        "MLFLOW_S3_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
    ]
    .into_iter()
    .find_map(env);
    let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    // Names with dots do not fit the certificates of names below the endpoint's.
    let below = match env("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE").as_deref() {
        Some("path") => false,
        Some("virtual") => true,
        _ => endpoint.is_none() && !name.contains('.'),
    };
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let Some((scheme, host)) = endpoint.split_once("://") else {
        return Err(refused(format!(
            "the endpoint `{endpoint}` is no URL: write `https://host` or `http://host:port`"
        )));
    };
    let base = if below {
        format!("{scheme}://{name}.{host}")
    } else {
        format!("{endpoint}/{name}")
    };
    let options = client(env, scheme.eq_ignore_ascii_case("http"))?;
    builder = builder
        .with_region(&region)
        .with_endpoint(&base)
        // The base names the bucket already.
        .with_virtual_hosted_style_request(true)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
        });
    let quick = build(
        builder
            .clone()
            .with_client_options(options.clone().with_timeout(QUICK)),
    )?;
    // The time to try again in counts from when a part was begun, and a part may take long.
    let patient = build(
        builder
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: RETRIES,
                retry_timeout: PART_TIME,
            })
            .with_client_options(options.with_timeout_disabled()),
    )?;
    Ok(Bucket::new(Inner {
        quick,
        patient,
        uri: match prefix {
            "" => format!("s3://{name}"),
            prefix => format!("s3://{name}/{prefix}"),
        },
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        endpoint,
        base,
        region,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(uri: &str, pairs: &[(&str, &str)]) -> Result<Bucket, StoreError> {
        let env = |name: &str| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        bucket(uri, &env)
    }

    #[test]
    fn a_bucket_is_found_by_the_names_that_users_know() {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let own = opened("s3://models/team/a/", &keys).unwrap();
        assert_eq!(own.uri(), "s3://models/team/a");
        assert_eq!(own.inner.base, "https://models.s3.us-east-1.amazonaws.com");
        let dotted = opened(
            "s3://my.models",
            &[keys[0], keys[1], ("AWS_DEFAULT_REGION", "eu-west-1")],
        )
        .unwrap();
        assert_eq!(dotted.inner.base, "https://s3.eu-west-1.amazonaws.com/my.models");
        let minio = ("AWS_ENDPOINT_URL", "http://minio:9000/");
        let other = opened("s3://models", &[keys[0], keys[1], minio]).unwrap();
        assert_eq!(other.inner.base, "http://minio:9000/models");
        let first = ("MLFLOW_S3_ENDPOINT_URL", "http://first:1");
        let both = opened("s3://models", &[keys[0], keys[1], minio, first]).unwrap();
        assert_eq!(both.inner.endpoint, "http://first:1");
        let below = ("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "virtual");
        let below = opened("s3://models", &[keys[0], keys[1], minio, below]).unwrap();
        assert_eq!(below.inner.base, "http://models.minio:9000");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_at_the_start() {
        for uri in ["s3://", "s3:///a", "gs://bucket", "bucket", "s3://b/../c"] {
            assert!(opened(uri, &[]).is_err(), "{uri}");
        }
        for pair in [
            ("AWS_PROFILE", "nobody"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", "minio:9000"),
            ("MLFLOW_S3_UPLOAD_EXTRA_ARGS", "{\"ACL\": \"public-read\"}"),
            ("MLFLOW_S3_UPLOAD_EXTRA_ARGS", "x"),
            ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
        ] {
            assert!(opened("s3://b", &[pair]).is_err(), "{pair:?}");
        }
        let encrypted = (
            "MLFLOW_S3_UPLOAD_EXTRA_ARGS",
            "{\"ServerSideEncryption\": \"AES256\"}",
        );
        assert!(opened("s3://b", &[encrypted]).is_ok());
    }

    #[test]
    fn a_profile_is_read_from_the_files_of_awss_tools() {
        let text = "[default]\naws_access_key_id = a\n\n[profile team]\n# no\nregion=eu-west-1\naws_access_key_id=b\n[x]\nregion=y";
        assert_eq!(profile(text, "default").len(), 1);
        let team = profile(text, "team");
        assert_eq!(team["aws_access_key_id"], "b");
        assert_eq!(team["region"], "eu-west-1");
        assert_eq!(team.len(), 2);
    }

    #[test]
    fn only_what_lies_below_the_prefix_is_a_path_in_the_bucket() {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let below = opened("s3://models/team", &keys).unwrap();
        let whole = opened("s3://models", &keys).unwrap();
        let table = [
            ("s3://models/team/1/run", Some("1/run"), Some("team/1/run")),
            ("s3://models/team/", Some(""), Some("team")),
            ("s3a://models/team/1?x=y", Some("1"), Some("team/1")),
            ("s3://models/teamwork/1", None, Some("teamwork/1")),
            ("s3://models", None, Some("")),
            ("s3://other/team/1", None, None),
            ("gs://models/team/1", None, None),
        ];
        for (uri, in_below, in_whole) in table {
            assert_eq!(below.path_of(uri).as_deref(), in_below, "{uri}");
            assert_eq!(whole.path_of(uri).as_deref(), in_whole, "{uri}");
        }
        assert!(below.key("a/../b").is_err() && below.key("a//b").is_err());
        assert!(!format!("{below:?}").contains("secret"));
    }
}
