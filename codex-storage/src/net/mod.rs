//! The way to servers: a blocking client of HTTP, and its TLS without C code.
//!
//! Only this module opens connections. It is not part of the API, except for [`Tls`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_graviola::default_provider;
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{
    Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem,
};
use ureq::typestate::AgentScope;

use crate::vfs::{Open, OsDir, Vfs};

pub use ureq;

/// The settings of encrypted connections: the authorities to trust, and the certificate of this
/// program.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    ca_file: Option<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Returns the settings which trust the authorities of the system, and show no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a file with the certificates of the authorities to trust, in PEM. Default: the file
    /// that `SSL_CERT_FILE` names, or that of the system.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Sets the files with the certificate that this program shows to the server, which may have
    /// further ones after it, and with its private key. Both are in PEM.
    #[must_use]
    pub fn client(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some((certificate.into(), key.into()));
        self
    }

    /// Returns the settings for the client, or the reason why there are none, with the next step.
    #[doc(hidden)]
    pub fn config(&self) -> Result<TlsConfig, String> {
        if !graviola::util::is_cpu_supported() {
            let why = "this processor lacks instructions that TLS needs here (x86-64: aes, \
                       pclmulqdq, bmi1, adx, avx2; aarch64: aes, pmull, sha2); use a newer one";
            return Err(why.to_owned());
        }
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            .root_certs(self.roots()?)
            .client_cert(self.certificate()?)
            .build())
    }

    /// Returns the certificates of the authorities.
    fn roots(&self) -> Result<RootCerts, String> {
        let from_env = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let own = self.ca_file.clone().or(from_env);
        let places = own.map_or_else(|| BUNDLES.map(PathBuf::from).to_vec(), |own| vec![own]);
        let pem = places.iter().find_map(|path| read_file(path).ok());
        let items = pem.iter().flat_map(|pem| parse_pem(pem));
        let roots: Vec<_> = items
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if roots.is_empty() {
            let places: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
            return Err(format!(
                "there are no certificates to trust in {}; name a file with them (`ca_file`)",
                places.join(", ")
            ));
        }
        Ok(RootCerts::from(roots))
    }

    /// Returns the certificate of this program and its key.
    fn certificate(&self) -> Result<Option<ClientCert>, String> {
        let Some((certificate, key_path)) = &self.client else { return Ok(None) };
        let read = |path: &Path| {
            read_file(path).map_err(|error| {
                let path = path.display();
                format!("{path} cannot be read: {error}; check its name and its permissions")
            })
        };
        let (mut chain, mut found) = (Vec::new(), None);
        for item in parse_pem(&read(certificate)?).flatten() {
            if let PemItem::Certificate(certificate) = item {
                chain.push(certificate);
            }
        }
        for item in parse_pem(&read(key_path)?).flatten() {
            if let PemItem::PrivateKey(key) = item {
                found = Some(key);
            }
        }
        let missing = |path: &Path, what: &str| {
            Err(format!("{} has no {what} in PEM; name the file that has it", path.display()))
        };
        match found {
            _ if chain.is_empty() => missing(certificate, "certificate"),
            None => missing(key_path, "private key that is not encrypted"),
            Some(key) => {
                belong_together(&chain, &key).map_err(|error| {
                    let (certificate, key) = (certificate.display(), key_path.display());
                    format!("{certificate} and {key} are not used: {error}; name a pair of files")
                })?;
                Ok(Some(ClientCert::new_with_certs(&chain, key)))
            }
        }
    }
}

/// Shows the names of the files.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ca_file, client } = self;
        f.debug_struct("Tls").field("ca_file", ca_file).field("client", client).finish()
    }
}

/// Fails as the client would, which panics.
fn belong_together(
    chain: &[Certificate<'static>],
    key: &PrivateKey<'static>,
) -> Result<(), rustls::Error> {
    let bad = |why: &str| rustls::Error::General(why.to_owned());
    let key = PrivateKeyDer::try_from(key.der()).map_err(bad)?.clone_key();
    let chain = chain.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty());
    config.with_client_auth_cert(chain, key).map(drop)
}

/// Returns the beginning of the settings of a client: an answer is never an error, and leads to no
/// other server. A client without TLS uses no proxy.
pub fn client(tls: Option<TlsConfig>) -> ConfigBuilder<AgentScope> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT));
    match tls {
        Some(tls) => config.tls_config(tls),
        // Without TLS only this machine, or an endpoint that was allowed by name.
        None => config.proxy(None),
    }
}

/// Returns whether an address of a server has this machine as its host.
pub fn is_this_machine(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Returns the reason for which a request has no answer. The text of some errors has the address,
/// which may have secrets, so only the kind is told of those.
pub fn no_answer(error: &ureq::Error) -> io::Error {
    let text = match error {
        ureq::Error::Io(source) => source.to_string(),
        ureq::Error::HostNotFound => "there is no server of this name".to_owned(),
        ureq::Error::Timeout(_) => "the server does not answer in time".to_owned(),
        ureq::Error::Tls(what) => (*what).to_owned(),
        ureq::Error::Rustls(source) => source.to_string(),
        _ => "the connection failed".to_owned(),
    };
    let kind = match error {
        ureq::Error::Io(source) => source.kind(),
        ureq::Error::Timeout(_) => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, text)
}

/// Returns the contents of a small file, such as one with keys or certificates.
///
/// # Errors
/// Those of the system; `FileTooLarge` from 16 MiB on.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let path = OsDir::resolve(path)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let vfs = Vfs::os(path.parent().unwrap_or(Path::new("/")))?;
    let file = vfs.dir.open(name, Open::Read)?;
    let len = usize::try_from(file.len()?).ok().filter(|len| *len <= FILE_LEN_MAX);
    let mut bytes = vec![0; len.ok_or(io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The files in which systems keep the certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The maximum time to find the server and to connect to it.
const CONNECT: Duration = Duration::from_secs(10);
/// The maximum length of a file with keys or certificates.
const FILE_LEN_MAX: usize = 16 << 20;
