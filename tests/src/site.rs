//! The real server as a child process in a place of its own, between phones and a carrier that outlive it: it is ended and
//! started again on the same folder and ports.

use crate::api::Client;
use crate::carrier::TestCarrier;
use crate::phone::TestPhone;
use crate::place::Place;
use crate::port::lasting_port;
use crate::program::{Outcome, Program};
use crate::server::{CALLER_ID, RETAIL, WHOLESALE};
use crate::wire::{Side, Wire};
use ringfence::config::Config;
use schema::id::AccountKey;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use storage::Store;
use tokio::time::{Instant, sleep};

/// A server ends within this after it was asked to.
pub const END: Duration = Duration::from_secs(12);
/// The word of accounts whose money may end during a call.
pub const POOR: &str = "p";
/// All is settled within this.
const SETTLED: Duration = Duration::from_secs(90);
/// How long anything expected of a server may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder, ports, accounts, a carrier and a record of the wire.
pub struct Site {
    /// The folder.
    pub place: Place,
    /// Of phones and carrier.
    pub wire: Wire,
    /// Where the server takes SIP over UDP.
    pub sip: SocketAddr,
    /// Where it serves its metrics.
    pub metrics: SocketAddr,
    carrier: TestCarrier,
}

/// Accounts of a [`Site`]: usernames are the word with 0, 1 …, passwords `pw0`, `pw1` ….
#[derive(Debug, Clone, Copy)]
pub struct Accounts {
    /// The word before the number.
    pub word: &'static str,
    /// How many.
    pub count: u32,
    /// Decimal amount each has at first.
    pub credit: &'static str,
}

impl Site {
    /// Makes the folder and the accounts; no server runs yet. `more`: further configuration, top-level keys first.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn make(accounts: &[Accounts], more: &str) -> Self {
        Self::make_in(Place::default(), accounts, more).await
    }

    /// As [`Site::make`], in a folder that is there.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn make_in(place: Place, accounts: &[Accounts], more: &str) -> Self {
        let wire = Wire::default();
        let carrier = TestCarrier::recorded(&wire).await;
        let address = || SocketAddr::from(([127, 0, 0, 1], lasting_port()));
        let (sip, http, metrics) = (address(), address(), address());
        place.write(
            "config.toml",
            &format!(
                "{more}\n[http]\nallow_plain = true\nlisten = \"{http}\"\n[metrics]\nlisten = \"{metrics}\"\n\
                 [sip]\ndomain = \"localhost\"\nudp = \"{sip}\"\ntcp = \"{sip}\"\ndigest = [\"MD5\"]\nallow_plain_customers = true\n"
            ),
        );
        place.write("retail.csv", RETAIL);
        place.write("wholesale.csv", WHOLESALE);
        let site = Self { place, wire, sip, metrics, carrier };
        site.place.write("world.toml", &site.world(accounts));
        let made = site.run(&["provision", "world.toml"]).await;
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        site
    }

    fn world(&self, accounts: &[Accounts]) -> String {
        let gateway = self.carrier.address;
        let mut world = format!(
            "[[rate_deck]]\nname = \"Retail test\"\nfile = \"retail.csv\"\ncurrency = \"EUR\"\n\
             [[rate_deck]]\nname = \"Wholesale\"\nfile = \"wholesale.csv\"\ncurrency = \"EUR\"\n\
             [[carrier]]\nname = \"Test carrier\"\ngateway = \"udp:{gateway}\"\ncurrency = \"EUR\"\ndeck = \"Wholesale\"\n\
             max_channels = 20000\nmax_cps = 10000\n"
        );
        for Accounts { word, count, credit } in accounts {
            world += &format!(
                "[[accounts_bulk]]\ncount = {count}\nfirst_sip_username = \"{word}0\"\nsip_password = \"pw{{n}}\"\n\
                 country = \"US\"\ncurrency = \"EUR\"\nopening_credit = \"{credit}\"\nrate_deck = \"Retail test\"\n\
                 caller_ids = [{{ number = \"{CALLER_ID}\", evidence = \"assigned\" }}]\n\
                 limits = {{ rate_per_minute = \"none\", live_calls = 2000, calls_per_minute = 100000 }}\n"
            );
        }
        world
    }

    /// Runs a command with the server's configuration to its end.
    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        let command = self.place.configured(&[arguments, &["--config", "config.toml"]].concat());
        self.place.start(command).ended(PATIENCE).await
    }

    /// The server's folder for its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.place.folder.path().join("data")
    }

    /// Starts the server without waiting for it.
    #[must_use]
    pub fn launch(&self) -> Program {
        self.place.start(self.place.configured(&["serve", "--config", "config.toml"]))
    }

    /// As [`Site::launch`], under `strace` with these arguments.
    #[must_use]
    pub fn launch_traced(&self, strace: &[&str]) -> Program {
        self.place.start(self.place.traced(strace, &["serve", "--config", "config.toml"]))
    }

    /// A server that is ready.
    pub async fn serve(&self) -> Program {
        let mut server = self.launch();
        Self::ready(&mut server).await;
        server
    }

    /// Waits until a server is ready.
    pub async fn ready(server: &mut Program) {
        server.until("ready", |said| said.contains("ringfence serves")).await;
    }

    /// Ends a server as an operator does.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn stop(&self, server: Program) {
        server.terminate();
        let ended = server.ended(END).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        for said in [&ended.stdout, &ended.stderr] {
            let shown: Vec<_> = said.lines().filter(|line| shows_number(line)).collect();
            assert!(shown.is_empty(), "P3: a number that was dialled is shown: {shown:#?}");
        }
    }

    /// `ringfence audit` finds nothing.
    ///
    /// # Errors
    /// What it found.
    pub async fn audited(&self) -> Result<(), String> {
        let said = self.run(&["audit"]).await;
        let clean = said.code == Some(0) && said.stdout.ends_with("clean\n");
        if clean { Ok(()) } else { Err(format!("audit: {}{}", said.stdout, said.stderr)) }
    }

    /// A figure of a running server's metrics: the rest of the line that begins with `name`.
    ///
    /// # Panics
    /// When there is none, or it is no count.
    pub async fn metric(&self, name: &str) -> usize {
        let text = Client::app(self.metrics, [127, 0, 0, 1].into()).text("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        value.trim().parse().expect("a count")
    }

    /// Waits until the server has so many calls, those being set up among them.
    ///
    /// # Panics
    /// When it has not within 10 s.
    pub async fn has_live_calls(&self, calls: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.metric("ringfence_live_calls ").await != calls {
            assert!(Instant::now() < deadline, "{calls} calls");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the server is at a call that was dialled, whatever its database does.
    ///
    /// # Panics
    /// When it is not within 10 s.
    pub async fn is_tried(&self, number: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.wire.talks(Side::Caller).get(number).is_none_or(|talk| talk.tried.is_none()) {
            assert!(Instant::now() < deadline, "{number} is not tried");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A phone of an account whose messages are recorded.
    pub async fn phone(&self, word: &str, number: u32) -> TestPhone {
        TestPhone::recorded(&self.wire, self.sip, &format!("{word}{number}"), &format!("pw{number}")).await
    }

    /// The store, opened past the server, which should not run.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn store(&self) -> Store {
        let mut config = Config::load(Some(&self.place.folder.path().join("config.toml"))).expect("a configuration");
        config.data_dir = self.data_dir();
        ringfence::data::open(&config).await.expect("the store opens")
    }

    /// Whom a SIP username belongs to.
    ///
    /// # Panics
    /// When nobody.
    pub async fn account(store: &Store, username: &str) -> AccountKey {
        store.credential(username).await.expect("readable").expect("provisioned").account
    }

    /// Waits until no call is live and nothing is held.
    ///
    /// # Errors
    /// What is left after a minute and a half: a phone that went away is waited for.
    pub async fn settled(&self) -> Result<(), String> {
        let (store, deadline) = (self.store().await, Instant::now() + SETTLED);
        let result = loop {
            let live = store.live_calls(None, 1_000).await.expect("readable");
            let holds = store.open_holds().await.expect("readable");
            if live.is_empty() && holds == 0 {
                break Ok(());
            }
            if Instant::now() > deadline {
                break Err(format!("I5: {holds} holds are left of {live:?}"));
            }
            sleep(Duration::from_millis(100)).await;
        };
        store.close().await;
        result
    }
}

/// Whether a line shows a number as the tests dial them: 1555 and seven digits.
fn shows_number(line: &str) -> bool {
    let is_number =
        |word: &str| word.len() == 11 && word.starts_with("1555") && word.bytes().all(|b| b.is_ascii_digit());
    line.split(|c: char| !c.is_ascii_alphanumeric()).any(is_number)
}
