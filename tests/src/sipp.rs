//! SIPp as a caller: digest calls from many accounts.

use crate::program::Program;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A run of SIPp.
pub struct Sipp {
    /// The server.
    pub server: SocketAddr,
    /// `u1` (UDP) or `t1` (one TCP connection).
    pub transport: &'static str,
    /// Calls in all.
    pub calls: u32,
    /// New calls a second.
    pub rate: u32,
    /// Calls at the same time at most.
    pub at_once: u32,
    /// How long each call lasts, in milliseconds; 0: the callee hangs up.
    pub hold_ms: u32,
    /// Username, password and number to dial, taken in turn.
    pub callers: Vec<(String, String, String)>,
    /// How long it waits for a message, in milliseconds.
    pub patience_ms: u32,
    /// Whether a call that is refused with 503 went as it should.
    pub may_be_refused: bool,
}

/// The file in which SIPp keeps every message, when asked to.
pub const MESSAGES: &str = "messages.log";

/// What SIPp says at the end.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that went as in the scenario.
    pub successful: u64,
    /// All others.
    pub failed: u64,
}

impl Sipp {
    /// As [`Sipp::run`], on a thread of its own: the server it calls runs in this process.
    ///
    /// # Panics
    /// When SIPp cannot be run.
    pub async fn run_beside(self, folder: &Path) -> Outcome {
        let scenario = self.scenario();
        self.act_beside(folder, scenario).await
    }

    /// As [`Sipp::run_beside`], as another caller: `scenario` as SIPp reads it.
    ///
    /// # Panics
    /// When SIPp cannot be run.
    pub async fn act_beside(self, folder: &Path, scenario: String) -> Outcome {
        let folder = folder.to_owned();
        #[expect(clippy::disallowed_methods, reason = "a child process is waited for; nothing of it is simulated")]
        let ran = tokio::task::spawn_blocking(move || self.act(&folder, &scenario)).await;
        ran.expect("SIPp was waited for").expect("SIPp ran")
    }

    /// Starts it as a carrier on this address, in `folder`. It goes on until it is dropped.
    ///
    /// # Panics
    /// When SIPp cannot be run.
    #[must_use]
    pub fn carrier(folder: &Path, scenario: &str, address: SocketAddr) -> Program {
        std::fs::write(folder.join("carrier.xml"), scenario).expect("its scenario is written");
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let mut command = Command::new("sipp");
        command.current_dir(folder).args(["-sf", "carrier.xml", "-i", &ip, "-p", &port, "-t", "u1", "-nostdin"]);
        command.args(["-trace_err", "-default_behaviors", "all,-abortunexp"]);
        Program::start(&mut command, folder, "carrier")
    }

    /// Runs it to its end in `folder`, which keeps its files and logs.
    ///
    /// # Errors
    /// SIPp cannot be started, or says nothing.
    pub fn run(&self, folder: &Path) -> std::io::Result<Outcome> {
        self.act(folder, &self.scenario())
    }

    fn act(&self, folder: &Path, scenario: &str) -> std::io::Result<Outcome> {
        let status = self
            .command(folder, scenario)?
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(folder.join("sipp.out"))?)
            .stderr(std::fs::File::create(folder.join("sipp.err"))?)
            .status()?;
        let _ = status;
        Self::outcome(&folder.join("stat.csv"))
    }

    /// Starts it in `folder`; every message goes to [`MESSAGES`] with its time. It ends after its calls, or begins no more
    /// of them after the signal `USR1`.
    ///
    /// # Panics
    /// When SIPp cannot be run.
    #[must_use]
    pub fn start(&self, folder: &Path) -> Program {
        let mut command = self.command(folder, &self.scenario()).expect("its files are written");
        command.args(["-trace_msg", "-message_file", MESSAGES]).env("TZ", "UTC");
        Program::start(&mut command, folder, "sipp")
    }

    fn command(&self, folder: &Path, scenario: &str) -> std::io::Result<Command> {
        std::fs::write(folder.join("caller.xml"), scenario)?;
        let users = folder.join("callers.csv");
        let mut csv = String::from("SEQUENTIAL\n");
        for (username, password, number) in &self.callers {
            let _ = writeln!(csv, "{username};[authentication username={username} password={password}];{number};");
        }
        std::fs::write(&users, csv)?;
        let seconds = self.calls / self.rate.max(1) + self.hold_ms / 1_000 + 90;
        let mut command = Command::new("sipp");
        command
            .current_dir(folder)
            .arg(self.server.to_string())
            .args(["-sf", "caller.xml", "-inf", "callers.csv", "-i", "127.0.0.1", "-t", self.transport])
            .args(["-m", &self.calls.to_string(), "-r", &self.rate.to_string(), "-l", &self.at_once.to_string()])
            .args(["-d", &self.hold_ms.to_string(), "-timeout", &format!("{seconds}s"), "-timeout_error"])
            .args(["-nostdin", "-trace_err", "-trace_stat", "-stf", "stat.csv", "-fd", "1"])
            .args(["-recv_timeout", &self.patience_ms.to_string(), "-default_behaviors", "all,-abortunexp"]);
        Ok(command)
    }

    /// The last line of SIPp's statistics.
    fn outcome(stat: &PathBuf) -> std::io::Result<Outcome> {
        let text = std::fs::read_to_string(stat)?;
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
        let last: Vec<&str> = lines.next_back().unwrap_or_default().split(';').collect();
        let value = |name: &str| {
            let at = header.iter().position(|column| *column == name);
            at.and_then(|at| last.get(at)).and_then(|v| v.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)
        };
        Ok(Outcome { successful: value("SuccessfulCall(C)")?, failed: value("FailedCall(C)")? })
    }

    fn scenario(&self) -> String {
        let request = |method: &str, uri: &str, cseq: u32, to: &str, more: &str, body: bool| {
            let sdp = "v=0\r\no=- 53655765 2353687637 IN IP4 [local_ip]\r\ns=-\r\nc=IN IP4 [media_ip]\r\nt=0 0\r\nm=audio [media_port] RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n";
            let (content, body) = if body { ("Content-Type: application/sdp\r\n", sdp) } else { ("", "") };
            format!(
                "<![CDATA[\r\n{method} {uri} SIP/2.0\r\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\r\n{more}From: <sip:[field0]@[remote_ip]>;tag=[pid]a[call_number]\r\nTo: <sip:[field2]@[remote_ip]>{to}\r\nCall-ID: [call_id]\r\nCSeq: {cseq} {method}\r\nContact: <sip:[field0]@[local_ip]:[local_port];transport=[transport]>\r\nMax-Forwards: 70\r\n{content}Content-Length: [len]\r\n\r\n{body}]]>"
            )
        };
        let to_server = "sip:[field2]@[remote_ip]:[remote_port]";
        let invite = request("INVITE", to_server, 1, "", "", true);
        // The ACK to a 407 belongs to the INVITE's transaction: the same branch.
        let ack_407 = request("ACK", to_server, 1, "[peer_tag_param]", "", false).replace("[branch]", "[branch-3]");
        let invite_2 = request("INVITE", to_server, 2, "", "[field1]\r\n", true);
        let ack =
            request("ACK", "[next_url]", 2, "[peer_tag_param]", "[routes]\r\n", false).replace("[routes]\r\n", "");
        let bye = request("BYE", "[next_url]", 3, "[peer_tag_param]", "", false);
        let end = if self.hold_ms == 0 {
            let ok = "<![CDATA[\r\nSIP/2.0 200 OK\r\n[last_Via:]\r\n[last_From:]\r\n[last_To:]\r\n[last_Call-ID:]\r\n[last_CSeq:]\r\nContent-Length: 0\r\n\r\n]]>";
            format!("<recv request=\"BYE\" timeout=\"120000\"/>\n<send>{ok}</send>\n")
        } else {
            // A repeated 200 to the INVITE is no answer to the BYE.
            let (send, recv) = ("start_txn=\"bye\"", "response_txn=\"bye\"");
            format!("<pause/>\n<send retrans=\"500\" {send}>{bye}</send>\n<recv response=\"200\" {recv}/>\n")
        };
        // Wherever a final answer to an INVITE may come.
        let (refused, over) = if self.may_be_refused {
            let ack = format!(
                "<![CDATA[\r\nACK {to_server} SIP/2.0\r\n[last_Via:]\r\n[last_From:]\r\n[last_To:]\r\n[last_Call-ID:]\r\nCSeq: [last_cseq_number] ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n]]>"
            );
            (
                "<recv response=\"503\" optional=\"true\" next=\"refused\"/>\n",
                format!("<nop next=\"over\"/>\n<label id=\"refused\"/>\n<send>{ack}</send>\n<label id=\"over\"/>\n"),
            )
        } else {
            ("", String::new())
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<scenario name=\"caller\">\n<send retrans=\"500\">{invite}</send>\n<recv response=\"100\" optional=\"true\"/>\n{refused}<recv response=\"407\" auth=\"true\"/>\n<send>{ack_407}</send>\n<send retrans=\"500\">{invite_2}</send>\n<recv response=\"100\" optional=\"true\"/>\n<recv response=\"180\" optional=\"true\"/>\n<recv response=\"183\" optional=\"true\"/>\n{refused}<recv response=\"200\" rrs=\"true\"/>\n<send>{ack}</send>\n{end}{over}</scenario>\n"
        )
    }
}
