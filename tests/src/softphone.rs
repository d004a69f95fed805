//! Phones of other makers: baresip and linphone from Debian's packages, without a sound card.

use crate::port::{lasting_port, two_lasting_ports};
use crate::program::Program;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long anything expected of a phone may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where Debian puts baresip's modules.
const MODULES: &str = "/usr/lib/baresip/modules";

/// Whose phone it is and how it reaches the server.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// SIP username.
    pub username: &'a str,
    /// Its password.
    pub password: &'a str,
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// The server's listener of that transport.
    pub server: SocketAddr,
    /// The certificate that the server has to show over TLS.
    pub certificate: &'a Path,
}

/// baresip, told what to do over its control socket.
pub struct Baresip {
    program: Program,
    control: TcpStream,
    unread: Vec<u8>,
}

impl Baresip {
    /// Starts it with its files in `folder`; it registers at once.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(folder: &Path, line: Line<'_>) -> Self {
        let Line { username, password, transport, server, certificate } = line;
        let listen = format!("sip_listen 127.0.0.1:0\nsip_cafile {}\nsip_verify_server yes\n", certificate.display());
        let account = format!(
            "<sip:{username}@localhost;transport={transport}>;auth_pass={password};outbound=\"sip:{server};transport={transport}\";regint=600\n"
        );
        Self::launch(folder, &listen, &account).await
    }

    /// Starts it as the other end of a trunk over `tcp` or `tls`, with its files in `folder`: it answers calls to this number at once.
    /// Gives the address where it takes them.
    ///
    /// # Panics
    /// When it does not start, or the certificate or its key cannot be read.
    pub async fn answering(
        folder: &Path,
        number: &str,
        transport: &str,
        (certificate, key): (&Path, &Path),
    ) -> (Self, SocketAddr) {
        std::fs::create_dir_all(folder).expect("a folder");
        let both = [certificate, key].map(|file| std::fs::read_to_string(file).expect("a file of PEM")).concat();
        std::fs::write(folder.join("both.pem"), both).expect("written");
        // It takes TLS one port above the one that it is given.
        let port = two_lasting_ports();
        let address = SocketAddr::from(([127, 0, 0, 1], port + u16::from(transport == "tls")));
        let listen = format!("sip_listen 127.0.0.1:{port}\nsip_certificate {}\n", folder.join("both.pem").display());
        let account = format!("<sip:{number}@{address};transport={transport}>;regint=0;answermode=auto\n");
        (Self::launch(folder, &listen, &account).await, address)
    }

    async fn launch(folder: &Path, listen: &str, account: &str) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let control = lasting_port();
        // aubridge sends back what is heard, so that there is sound without a sound card.
        let config = format!(
            "poll_method epoll\n{listen}net_interface 127.0.0.1\n\
             call_max_calls 4\naudio_player aubridge,loop\naudio_source aubridge,loop\naudio_alert nil\n\
             module_path {MODULES}\nmodule g711.so\nmodule aubridge.so\nmodule_tmp uuid.so\nmodule_tmp account.so\n\
             module_app menu.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen 127.0.0.1:{control}\n"
        );
        for (name, text) in [("config", config.as_str()), ("accounts", account), ("contacts", "")] {
            std::fs::write(folder.join(name), text).expect("written");
        }
        let program = Program::start(Command::new("baresip").args(["-v", "-s", "-f"]).arg(folder), folder, "baresip");
        let deadline = Instant::now() + PATIENCE;
        let control = loop {
            match TcpStream::connect(("127.0.0.1", control)).await {
                Ok(control) => break control,
                Err(error) => assert!(Instant::now() < deadline, "{error}: {}", program.stdout()),
            }
            sleep(Duration::from_millis(50)).await;
        };
        Self { program, control, unread: Vec::new() }
    }

    /// Waits until it has registered.
    ///
    /// # Panics
    /// When it does not.
    pub async fn registered(&mut self) {
        self.shows("[1 binding]").await;
    }

    /// Waits until it has shown this.
    ///
    /// # Panics
    /// When it does not.
    pub async fn shows(&mut self, what: &str) {
        self.program.until(what, |said| said.contains(what)).await;
    }

    /// All that it has shown: the messages that passed, too.
    #[must_use]
    pub fn shown(&self) -> String {
        self.program.stdout()
    }

    /// Gives a command, as it is typed.
    ///
    /// # Panics
    /// When it has ended.
    pub async fn tell(&mut self, command: &str, params: &str) {
        let text = json!({"command": command, "params": params}).to_string();
        // A netstring: length, colon, text, comma.
        self.control.write_all(format!("{}:{text},", text.len()).as_bytes()).await.expect("baresip runs");
    }

    /// Waits for an event such as `CALL_ESTABLISHED`; its `param`.
    ///
    /// # Panics
    /// When it does not come, or the call ends before it.
    pub async fn event(&mut self, wanted: &str) -> String {
        let coming = async {
            loop {
                let message = self.message().await;
                let kind = message["type"].as_str().unwrap_or_default();
                if kind == wanted {
                    return message["param"].as_str().unwrap_or_default().to_owned();
                }
                assert!(kind != "CALL_CLOSED", "{message}: {}", self.program.stdout());
            }
        };
        let come = timeout(PATIENCE, coming).await;
        come.unwrap_or_else(|_| panic!("no {wanted}; it said:\n{}", self.program.stdout()))
    }

    async fn message(&mut self) -> Value {
        loop {
            if let Some(colon) = self.unread.iter().position(|b| *b == b':') {
                let length: usize =
                    std::str::from_utf8(&self.unread[..colon]).ok().and_then(|n| n.parse().ok()).expect("a length");
                if self.unread.len() > colon + 1 + length {
                    let rest = self.unread.split_off(colon + 2 + length);
                    let text = std::mem::replace(&mut self.unread, rest);
                    return serde_json::from_slice(&text[colon + 1..=colon + length]).expect("JSON");
                }
            }
            let read = self.control.read_buf(&mut self.unread).await.expect("baresip runs");
            assert!(read > 0, "baresip ended: {}", self.program.stdout());
        }
    }
}

/// linphone's console phone, told what to do as a person types.
pub struct Linphone(Program);

impl Linphone {
    /// Starts it over UDP with its files in `folder`; it registers at once.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path, line: Line<'_>) -> Self {
        let Line { username, password, transport, server, .. } = line;
        assert_eq!(transport, "udp", "the only transport this file configures");
        // It does not make the folder of its database itself.
        std::fs::create_dir_all(folder.join(".local/share/linphone")).expect("a folder");
        let (sip, rtp) = (lasting_port(), lasting_port());
        let config = format!(
            "[sip]\nsip_port={sip}\nsip_tcp_port=0\nsip_tls_port=0\ndefault_proxy=0\nguess_hostname=0\n\
             register_only_when_network_is_up=0\ncontact=<sip:{username}@127.0.0.1:{sip}>\n\
             [net]\ndns_srv_enabled=0\n[rtp]\naudio_rtp_port={rtp}\n\
             [proxy_0]\nreg_proxy=<sip:{server};transport=udp>\nreg_route=<sip:{server};transport=udp;lr>\n\
             reg_identity=sip:{username}@localhost\nreg_expires=600\nreg_sendregister=1\npublish=0\n\
             [auth_info_0]\nusername={username}\npasswd={password}\nrealm=localhost\ndomain=localhost\n"
        );
        let file = folder.join("linphonerc");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new("linphonec");
        command.arg("-c").arg(file).env("HOME", folder).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        let mut program = Program::start(&mut command, folder, "linphone");
        program.type_line("soundcard use files");
        Self(program)
    }

    /// Types a command.
    pub fn tell(&mut self, command: &str) {
        self.0.type_line(command);
    }

    /// Waits until it has said this.
    ///
    /// # Panics
    /// When it does not.
    pub async fn says(&mut self, what: &str) {
        self.0.until(what, |said| said.contains(what)).await;
    }
}
