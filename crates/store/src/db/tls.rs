//! Encrypted connections to PostgreSQL, by the words of its own tools: `sslmode` and `sslrootcert` in the URL.
//!
//! `disable` never encrypts. `prefer`, which is meant where nothing is said, encrypts if the server does, and `require` refuses to go
//! on without; neither looks who the server is. Where `sslrootcert` names a file, no mode is less than `verify-ca`, which takes a
//! certificate only of an authority in that file. `verify-full` takes one that has the host's name in it, too, of an authority in the
//! file, or of one that this machine trusts (`system`, or nothing). Anybody gets a certificate from those, for a name of his own: so
//! `system` goes with no weaker mode.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Whose certificates are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// Anybody's: nobody listens in, but whoever answers is believed.
    Any,
    /// Those of a known authority.
    OfAuthority,
    /// Those of a known authority that have the host's name in them.
    OfHost,
}

/// How to connect.
pub(super) struct Link {
    pub config: postgres::Config,
    pub tls: MakeRustlsConnect,
}

/// A URL, and what the driver does not understand in it.
fn split(url: &str) -> Result<(String, Taken, Option<String>), String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut root, mut rest) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => root = Some(decoded(value)),
            _ => rest.push(pair.to_owned()),
        }
    }
    let (known, taken) = match (mode, root.as_deref()) {
        (Some("disable"), _) => ("disable", Taken::Any),
        (Some("verify-full"), _) | (None, Some("system")) => ("require", Taken::OfHost),
        (Some(weaker @ ("prefer" | "allow" | "require" | "verify-ca")), Some("system")) => {
            return Err(format!(
                "`sslmode={weaker}` with `sslrootcert=system` would believe whoever has any public certificate: use \
                 `sslmode=verify-full`, or name the file of your authority"
            ));
        }
        (Some("verify-ca"), None) => {
            return Err(
                "`sslmode=verify-ca` needs the file of your authority, `sslrootcert=FILE`; for a public one use \
                 `sslmode=verify-full`"
                    .to_owned(),
            );
        }
        (Some("verify-ca" | "require") | None, Some(_)) => ("require", Taken::OfAuthority),
        (Some("prefer" | "allow"), Some(_)) => ("prefer", Taken::OfAuthority),
        (Some("require"), None) => ("require", Taken::Any),
        (Some("prefer" | "allow") | None, None) => ("prefer", Taken::Any),
        (Some(other), _) => {
            return Err(format!(
                "`sslmode={other}` is none of `disable`, `prefer`, `require`, `verify-ca` and `verify-full`"
            ));
        }
    };
    rest.push(format!("sslmode={known}"));
    Ok((format!("{base}?{}", rest.join("&")), taken, root))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) if *first == b'%' => {
                bytes.push(code);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The authorities that are believed.
fn authorities(root: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    if let Some(file) = root.filter(|root| *root != "system") {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let read = read.map_err(|error| format!("`sslrootcert={file}` cannot be read: {error}"))?;
        if read.is_empty() {
            return Err(format!("`sslrootcert={file}` holds no certificate"));
        }
        return Ok(read);
    }
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return Err("this machine trusts no authority: name one with `sslrootcert=FILE`".to_owned());
    }
    Ok(found)
}

/// Reads a URL.
pub(super) fn link(url: &str) -> Result<Link, String> {
    let (plain, taken, root) = split(url)?;
    let config = plain
        .parse::<postgres::Config>()
        .map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Trust::new(taken, root.as_deref(), &provider)?;
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    Ok(Link {
        config,
        tls: MakeRustlsConnect::new(tls),
    })
}

/// Judges a server's certificate.
#[derive(Debug)]
struct Trust {
    taken: Taken,
    authorities: Vec<CertificateDer<'static>>,
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn new(taken: Taken, root: Option<&str>, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let mut trust = Self {
            taken,
            authorities: Vec::new(),
            chains: None,
            provider: Arc::clone(provider),
        };
        if taken == Taken::Any {
            return Ok(trust);
        }
        trust.authorities = authorities(root)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trust.authorities.iter().cloned());
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        trust.chains = Some(chains.map_err(|error| error.to_string())?);
        Ok(trust)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chains) = &self.chains else {
            return Ok(ServerCertVerified::assertion());
        };
        // A server may sign for itself, and its own certificate be the authority.
        if self
            .authorities
            .iter()
            .any(|known| known.as_ref() == end_entity.as_ref())
        {
            if self.taken == Taken::OfHost {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.taken == Taken::OfAuthority => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_drivers_url_does_not_know_is_taken_out_of_it() {
        let (url, taken, root) =
            split("postgres://u@h/d?a=b&sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem").unwrap();
        assert_eq!(url, "postgres://u@h/d?a=b&sslmode=require");
        assert_eq!((taken, root.as_deref()), (Taken::OfHost, Some("/etc/ca.pem")));
        let (url, taken, _) = split("postgres://u@h/d").unwrap();
        assert_eq!(
            (url.as_str(), taken),
            ("postgres://u@h/d?sslmode=prefer", Taken::Any)
        );
        assert_eq!(
            split("postgres://h?sslmode=require&sslrootcert=a").unwrap().1,
            Taken::OfAuthority
        );
        for rooted in ["sslrootcert=a", "sslmode=prefer&sslrootcert=a"] {
            assert_eq!(
                split(&format!("postgres://h?{rooted}")).unwrap().1,
                Taken::OfAuthority
            );
        }
        assert_eq!(split("postgres://h?sslrootcert=system").unwrap().1, Taken::OfHost);
        for refused in [
            "maybe",
            "verify-ca",
            "verify-ca&sslrootcert=system",
            "require&sslrootcert=system",
        ] {
            assert!(
                split(&format!("postgres://h?sslmode={refused}")).is_err(),
                "{refused}"
            );
        }
        let refused = link("postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere.pem")
            .err()
            .unwrap();
        assert!(refused.contains("/nowhere.pem"), "{refused}");
    }

    /// scripts/with-postgres.sh names a server that encrypts, and its authority: `host:port ca.pem`.
    #[test]
    fn a_real_server_is_believed_only_as_far_as_the_url_says() {
        let Ok(named) = std::env::var("TIDEMILL_TEST_POSTGRES_TLS") else {
            return;
        };
        let (port, ca) = named.split_once(' ').unwrap();
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy(format!("{ca}.other"), other.path()).unwrap();
        let (other, scheme) = (other.path().display(), "postgres://postgres@");
        let connected = |host: &str, query: String| {
            let url = format!("{scheme}{host}:{port}/postgres?{query}");
            let Link { config, tls } = link(&url).unwrap();
            let told = std::thread::spawn(move || {
                let mut client = config.connect(tls).map_err(|error| format!("{error:?}"))?;
                let row = client
                    .query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[])
                    .unwrap();
                Ok::<bool, String>(row.get(0))
            });
            told.join().unwrap()
        };
        assert_eq!(connected("127.0.0.1", "sslmode=disable".to_owned()), Ok(false));
        for query in [
            String::new(),
            "sslmode=require".to_owned(),
            format!("sslmode=require&sslrootcert={ca}"),
            format!("sslmode=verify-ca&sslrootcert={ca}"),
            format!("sslmode=verify-full&sslrootcert={ca}"),
        ] {
            assert_eq!(connected("localhost", query.clone()), Ok(true), "{query}");
        }
        let url =
            format!("postgres://postgres@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={ca}");
        let database = crate::Database::parse(&url).unwrap();
        let dir = tempfile::tempdir().unwrap();
        drop(crate::Store::open_on(dir.path(), database).unwrap());
        // The certificate is for `localhost`.
        assert_eq!(
            connected("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}")),
            Ok(true)
        );
        for (host, query) in [
            ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}")),
            ("localhost", format!("sslmode=verify-full&sslrootcert={other}")),
            ("localhost", format!("sslmode=verify-ca&sslrootcert={other}")),
            ("localhost", format!("sslmode=require&sslrootcert={other}")),
        ] {
            let refused = connected(host, query.clone()).unwrap_err();
            assert!(refused.contains("ertificate"), "{query}: {refused}");
        }
    }
}
