//! A server of the tests' own: a temporary data folder, free ports, accounts as asked for.

use ringfence::config::{Config, SipTls};
use ringfence::provision::{Provisioned, Provisioning};
use ringfence::server::{Addresses, Server};
use ringfence::world::World;
use schema::entropy::Entropy;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tempfile::TempDir;

/// Rates of the test world: 0.60 a minute in steps of a second for numbers of fiction; a cent a minute is what it costs us.
pub const RETAIL: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
1555,Fiction US,0.60,0,0,1,0,,
447700900,Fiction UK,0.60,0,0,1,0,,
";
const WHOLESALE: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
1,US,0.01,0,0,1,0,,
44,UK,0.01,0,0,1,0,,
";

/// A running server and the folder it works in.
pub struct TestServer {
    /// The server.
    pub server: Server,
    /// Its configuration.
    pub config: Config,
    /// Goes when the test ends.
    pub folder: TempDir,
}

/// Development mode on free ports, in a new folder.
///
/// # Panics
/// When there is no room for a folder.
#[must_use]
pub fn config(folder: &TempDir) -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::for_development();
    config.data_dir = folder.path().join("data");
    config.http.listen = free;
    config.metrics.listen = free;
    config.sip.udp = Some(free);
    config.sip.tcp = Some(free);
    config.sip.tls = Some(SipTls { listen: free, cert: None, key: None });
    config.test_carrier = Some(free);
    config
}

impl TestServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = config(&folder);
        let server = Server::start(&config).await.expect("the server starts");
        Self { server, config, folder }
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.server.addresses
    }

    /// Adds `count` accounts `u0`, `u1` … with passwords `pw0`, `pw1` …, a verified caller ID and this credit each.
    ///
    /// # Panics
    /// When they cannot be made.
    pub async fn accounts(&self, count: u32, opening_credit: &str, limits: &str) -> Provisioned {
        let carrier = self.addresses().test_carrier.expect("development mode");
        let text = format!(
            r#"
            [[rate_deck]]
            name = "Retail test"
            file = "retail"
            currency = "EUR"
            [[rate_deck]]
            name = "Wholesale"
            file = "wholesale"
            currency = "EUR"
            [[carrier]]
            name = "Test carrier"
            gateway = "udp:{carrier}"
            currency = "EUR"
            deck = "Wholesale"
            max_channels = 20000
            max_cps = 10000
            [[accounts_bulk]]
            count = {count}
            first_sip_username = "u0"
            sip_password = "pw{{n}}"
            country = "US"
            currency = "EUR"
            opening_credit = "{opening_credit}"
            rate_deck = "Retail test"
            caller_ids = [{{ number = "+12025550123", evidence = "assigned" }}]
            limits = {{ rate_per_minute = "none", {limits} }}
            "#
        );
        let files = BTreeMap::from([("retail".to_owned(), RETAIL.to_owned()), ("wholesale".to_owned(), WHOLESALE.to_owned())]);
        let world = World::of_texts(&text, &files).expect("a valid world");
        let store = &self.server.store;
        let brand = store.brand().await.expect("readable").expect("made at the start");
        let clock = ringfence::clock::system();
        let entropy = Entropy::from_number(7);
        let mut provisioning = Provisioning { store, brand: &brand, clock: &clock, entropy };
        let done = provisioning.apply(&world, &mut |_, _| ()).await.expect("provisioned");
        self.server.actors.change_tariffs().await.expect("tariffs");
        done
    }

    /// Waits until `is_so`, for at most 60 s.
    ///
    /// # Panics
    /// When it does not come true.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut(&Server) -> bool) {
        for _ in 0..600 {
            if is_so(&self.server).await {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("it did not come true within 60 s: {what}");
    }
}
