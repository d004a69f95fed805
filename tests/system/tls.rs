//! TLS as phones and browsers meet it: each version alone, and a certificate that is renewed while the server runs.

use ringfence::certificate::self_signed;
use ringfence::config::{SipTls, TlsFiles};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tests::server::TestServer;
use tokio::time::{Instant, sleep};

const OPTIONS: &str = "OPTIONS sip:localhost SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
                       From: <sip:a@localhost>;tag=1\r\nTo: <sip:localhost>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\
                       Content-Length: 0\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Certificate and key.
type Files = (PathBuf, PathBuf);

/// A server that reads one certificate for SIP and for HTTP.
async fn server(files: &Files) -> TestServer {
    let (cert, key) = files.clone();
    TestServer::start_with(|config| {
        config.http.tls = Some(TlsFiles { cert: cert.clone(), key: key.clone() });
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.sip.tls = Some(SipTls { listen, cert: Some(cert), key: Some(key) });
    })
    .await
}

/// Where TLS is spoken, what is asked there, and how the answer begins.
fn listeners(server: &TestServer) -> [(SocketAddr, &'static str, &'static str); 2] {
    let addresses = server.addresses();
    [(addresses.sip_tls.expect("a listener"), OPTIONS, "SIP/2.0 200"), (addresses.http, HEAD, "HTTP/1.1 ")]
}

fn made(folder: &TempDir, name: &str) -> Files {
    self_signed(&folder.path().join(name), "localhost").expect("a certificate")
}

fn read(cert: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(cert).expect("a certificate")
}

/// A client that knows these versions of TLS and trusts these certificates.
fn client(versions: &[&'static SupportedProtocolVersion], trusted: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).expect("a certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_protocol_versions(versions).expect("known");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A connection whose handshake is done.
struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    fn open(client: &Arc<ClientConfig>, to: SocketAddr) -> Self {
        let socket = TcpStream::connect(to).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = StreamOwned::new(ClientConnection::new(client.clone(), name).expect("usable"), socket);
        tls.conn.complete_io(&mut tls.sock).expect("a handshake");
        Self(tls)
    }

    fn shown(&self) -> &CertificateDer<'static> {
        self.0.conn.peer_certificates().and_then(<[_]>::first).expect("shown")
    }

    /// How the answer begins.
    fn ask(&mut self, request: &str) -> String {
        self.0.write_all(request.as_bytes()).expect("sent");
        let mut buffer = [0; 4_096];
        let length = self.0.read(&mut buffer).expect("an answer in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_tls_1_2_alone_and_one_of_1_3_alone_are_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = made(&folder, "first");
    let server = server(&files).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = client(&[version], &[read(&files.0)]);
        for (address, request, answer) in listeners(&server) {
            let mut connection = Connection::open(&client, address);
            assert_eq!(connection.0.conn.protocol_version(), Some(version.version));
            let said = connection.ask(request);
            assert!(said.starts_with(answer), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed_is_shown_without_a_restart_and_connections_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, renewed) = (made(&folder, "first"), made(&folder, "second"));
    let (first, second) = (read(&files.0), read(&renewed.0));
    let server = server(&files).await;
    let client = client(rustls::ALL_VERSIONS, &[first.clone(), second.clone()]);
    let mut before = listeners(&server).map(|(address, ..)| Connection::open(&client, address));
    assert!(before.iter().all(|connection| *connection.shown() == first));
    for (new, old) in [(&renewed.0, &files.0), (&renewed.1, &files.1)] {
        std::fs::rename(new, old).expect("replaced");
    }
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let mut renewed = 0;
        for (connection, (address, request, answer)) in before.iter_mut().zip(listeners(&server)) {
            let mut after = Connection::open(&client, address);
            renewed += usize::from(*after.shown() == second);
            // The one from before is asked all the while.
            for connection in [connection, &mut after] {
                let said = connection.ask(request);
                assert!(said.starts_with(answer), "{said}");
            }
        }
        if renewed == before.len() {
            return;
        }
        assert!(Instant::now() < deadline, "a certificate is still the old one");
        sleep(Duration::from_millis(500)).await;
    }
}
