//! TLS of the gateway's own.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A certificate and its key. Clones share it; a reload counts for connections that come after it.
#[derive(Clone)]
pub struct Tls {
    cert: Arc<str>,
    key: Arc<str>,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Tls {
    /// # Errors
    ///
    /// A sentence with the file and what it must be.
    pub fn open(cert: &str, key: &str) -> Result<Self, String> {
        let config = Arc::new(RwLock::new(read(cert, key)?));
        Ok(Self { cert: cert.into(), key: key.into(), config })
    }

    /// Reads both files, to be [put](Self::put) in force.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn again(&self) -> Result<Arc<ServerConfig>, String> {
        read(&self.cert, &self.key)
    }

    pub fn put(&self, config: Arc<ServerConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// # Errors
    ///
    /// When the client speaks no TLS, or none that we do.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn read(cert: &str, key: &str) -> Result<Arc<ServerConfig>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain = chain.map_err(|error| format!("--tls-cert {cert} must be certificates in PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("--tls-cert {cert} must hold a certificate in PEM"));
    }
    // The error says nothing of what the file holds.
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("--tls-key {key} must hold a private key in PEM: {error}"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let config = config.with_no_client_auth().with_single_cert(chain, private);
    let mut config =
        config.map_err(|error| format!("--tls-key {key} must be that of --tls-cert: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
