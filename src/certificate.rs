//! TLS certificates: read from files, or self-signed in development.

use anyhow::{Context as _, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The certificate of development mode, made at the first start and kept in `data_dir/tls`.
///
/// # Errors
/// When the folder cannot be written.
pub fn self_signed(data_dir: &Path, domain: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let folder = data_dir.join("tls");
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let names = vec![domain.to_owned(), String::from("localhost"), String::from("127.0.0.1")];
    let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o400)
        .open(&key)
        .and_then(|mut file| file.write_all(made.signing_key.serialize_pem().as_bytes()))
        .with_context(|| format!("cannot write {}", key.display()))?;
    fs::write(&cert, made.cert.pem()).with_context(|| format!("cannot write {}", cert.display()))?;
    Ok((cert, key))
}

/// A server's TLS settings: TLS 1.2 and 1.3, AEAD suites of `ring` only.
///
/// # Errors
/// Names the file that cannot be used.
pub fn server_config(cert: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read certificate {}", cert.display()))?;
    if chain.is_empty() {
        bail!("{} has no certificate", cert.display());
    }
    let key_der =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read private key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no TLS version")?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .with_context(|| format!("{} and {} do not belong together", cert.display(), key.display()))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_is_made_once_and_serves() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cert, key) = self_signed(folder.path(), "localhost").expect("made");
        let first = fs::read(&cert).expect("a certificate");
        self_signed(folder.path(), "localhost").expect("kept");
        assert_eq!(fs::read(&cert).expect("a certificate"), first);
        assert!(server_config(&cert, &key).is_ok());
        assert!(server_config(&key, &cert).is_err());
    }
}
