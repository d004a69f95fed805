//! TLS certificates: read from files, or self-signed in development.

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use ring::digest::Digest;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use storage::create_file;
use zeroize::Zeroizing;

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
    let key_pem = Zeroizing::new(made.signing_key.serialize_pem());
    for (path, mode, pem) in [(&key, 0o400, key_pem.as_str()), (&cert, 0o644, made.cert.pem().as_str())] {
        // One of a pair that was not completed.
        let _ = fs::remove_file(path);
        create_file(path, mode, pem.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok((cert, key))
}

/// Most certificates of one file of authorities.
const AUTHORITIES_MAX: usize = 1_000;

/// The authorities under which certificates of carriers are accepted.
///
/// # Errors
/// Names the file that cannot be used.
pub fn authorities(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.take(AUTHORITIES_MAX).collect::<Result<Vec<_>, _>>();
    let found = read().with_context(|| format!("cannot read certificates {}", file.display()))?;
    if found.is_empty() {
        bail!("{} has no certificate", file.display());
    }
    Ok(found)
}

/// A server's certificate in files, read again when they change: connections made after that see the new one, those before
/// go on.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
    /// Of the files' bytes when they were read last.
    seen: Mutex<Digest>,
}

impl Certificate {
    /// Reads it.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn read(cert: &Path, key: &Path) -> anyhow::Result<Arc<Self>> {
        let (chain_pem, key_pem) = files(cert, key)?;
        let current = ArcSwap::new(certified(&chain_pem, &key_pem, cert, key)?);
        let seen = Mutex::new(digest_of(&chain_pem, &key_pem));
        Ok(Arc::new(Self { cert: cert.to_owned(), key: key.to_owned(), current, seen }))
    }

    /// TLS settings of a server with this certificate: TLS 1.2 and 1.3, AEAD suites of `ring` only.
    ///
    /// # Errors
    /// Never with this provider.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("no TLS version")?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        Ok(Arc::new(config))
    }

    /// Reads the files again; true when there is a new certificate. What cannot be used is told once, and the one before
    /// stays.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn refresh(&self) -> anyhow::Result<bool> {
        let (chain_pem, key_pem) = files(&self.cert, &self.key)?;
        let found = digest_of(&chain_pem, &key_pem);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.as_ref() == found.as_ref() {
            return Ok(false);
        }
        *seen = found;
        drop(seen);
        self.current.store(certified(&chain_pem, &key_pem, &self.cert, &self.key)?);
        Ok(true)
    }

    /// Where it is read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.cert
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

fn files(cert: &Path, key: &Path) -> anyhow::Result<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let chain_pem = fs::read(cert).with_context(|| format!("cannot read certificate {}", cert.display()))?;
    let key_pem = fs::read(key).with_context(|| format!("cannot read private key {}", key.display()))?;
    Ok((chain_pem, Zeroizing::new(key_pem)))
}

fn digest_of(chain_pem: &[u8], key_pem: &[u8]) -> Digest {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [chain_pem, key_pem] {
        hash.update(&part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finish()
}

fn certified(chain_pem: &[u8], key_pem: &[u8], cert: &Path, key: &Path) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot read certificate {}", cert.display()))?;
    if chain.is_empty() {
        bail!("{} has no certificate", cert.display());
    }
    let key_der =
        PrivateKeyDer::from_pem_slice(key_pem).with_context(|| format!("cannot read private key {}", key.display()))?;
    let made = CertifiedKey::from_der(chain, key_der, &rustls::crypto::ring::default_provider());
    let made = made.with_context(|| format!("{} and {} do not belong together", cert.display(), key.display()))?;
    Ok(Arc::new(made))
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
        assert!(Certificate::read(&cert, &key).is_ok_and(|found| found.server_config().is_ok()));
        assert!(Certificate::read(&key, &cert).is_err());
        assert_eq!(authorities(&cert).map(|found| found.len()).ok(), Some(1));
        assert!(authorities(&key).is_err() && authorities(folder.path()).is_err());
    }

    /// What a client that trusts nobody in particular is shown.
    fn shown(certificate: &Certificate) -> Vec<u8> {
        certificate.current.load().cert[0].to_vec()
    }

    #[test]
    fn a_new_certificate_is_taken_from_its_files_and_a_broken_one_is_not() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (cert, key) = self_signed(folder.path(), "localhost").expect("made");
        let (new_cert, new_key) = self_signed(other.path(), "localhost").expect("made");
        let served = Certificate::read(&cert, &key).expect("usable");
        let first = shown(&served);
        assert_eq!(served.refresh().ok(), Some(false));
        // The certificate is there, its key is not yet.
        fs::copy(&new_cert, &cert).expect("copied");
        let error = format!("{:#}", served.refresh().expect_err("they do not fit"));
        assert!(error.contains("do not belong together"), "{error}");
        assert_eq!(
            (served.refresh().ok(), shown(&served) == first),
            (Some(false), true),
            "told once, the old one stays"
        );
        fs::remove_file(&key).expect("removed");
        assert!(served.refresh().is_err());
        fs::copy(&new_key, &key).expect("copied");
        assert_eq!(served.refresh().ok(), Some(true));
        assert_ne!(shown(&served), first);
        fs::write(&cert, "no certificate").expect("written");
        assert!(served.refresh().is_err() && shown(&served) != first);
    }
}
