//! A server of the tests' own: a temporary data folder, free ports, accounts as asked for.

use crate::port::{lasting_port, lasts};
use actors::AccountView;
use ringfence::config::{Config, SipTls};
use ringfence::provision::{Provisioned, Provisioning};
use ringfence::server::{Addresses, Server};
use ringfence::world::World;
use schema::call::Cdr;
use schema::entropy::Entropy;
use schema::id::AccountKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use storage::CallFilter;
use storage::audit::{AuditReport, audit};
use tempfile::TempDir;

/// The caller ID of every account.
pub const CALLER_ID: &str = "+12025550123";
/// What owners of accounts sign in with.
pub const PASSWORD: &str = "correct horse battery";
/// SIP password of every account made by [`TestServer::customer`].
pub const SIP_PASSWORD: &str = "a phone's secret";

/// Rates of the test world: 0.60 a minute in steps of a second for numbers of fiction; a cent a minute is what it costs us.
pub const RETAIL: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
1555,Fiction US,0.60,0,0,1,0,,
447700900,Fiction UK,0.60,0,0,1,0,,
";
/// What the carrier charges in the test world.
pub const WHOLESALE: &str = "\
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
    /// The carrier of the accounts to be provisioned; at first the built-in one, if there is one.
    pub gateway: SocketAddr,
    /// Its name, when it is to be found by one.
    pub gateway_name: Option<String>,
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
        Self::start_with(|_| ()).await
    }

    /// Starts one with a changed configuration.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = config(&folder);
        change(&mut config);
        let server = Server::start(&config).await.expect("the server starts");
        let gateway = server.addresses.test_carrier.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9)));
        Self { server, config, folder, gateway, gateway_name: None }
    }

    /// Starts one that can be [`Self::restarted`]: nobody else is given its ports meanwhile.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_to_restart() -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], lasting_port()));
        Self::start_with(|config| {
            config.http.listen = address();
            (config.sip.udp, config.sip.tcp) = (Some(address()), Some(address()));
            config.sip.tls = Some(SipTls { listen: address(), cert: None, key: None });
            config.test_carrier = Some(address());
        })
        .await
    }

    /// Ends the server and starts another one on the same folder and addresses.
    ///
    /// # Panics
    /// When it does not end or start, or was not started for it.
    pub async fn restarted(self) -> Self {
        let Self { server, mut config, folder, gateway, gateway_name } = self;
        let Addresses { http, sip_udp, sip_tcp, sip_tls, sip_v6, test_carrier, .. } = server.addresses;
        assert!(lasts(http.port()), "start_to_restart");
        server.stop().await.expect("the server ends");
        config.http.listen = http;
        config.sip.udp = sip_udp;
        config.sip.tcp = sip_tcp;
        config.sip.tls = sip_tls.map(|listen| SipTls { listen, cert: None, key: None });
        (config.sip.v6.udp, config.sip.v6.tcp, config.sip.v6.tls) = (sip_v6.udp, sip_v6.tcp, sip_v6.tls);
        config.test_carrier = test_carrier;
        let server = Server::start(&config).await.expect("the server starts again");
        Self { server, config, folder, gateway, gateway_name }
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
        self.provision(&format!(
            r#"
            [[accounts_bulk]]
            count = {count}
            first_sip_username = "u0"
            sip_password = "pw{{n}}"
            country = "US"
            currency = "EUR"
            opening_credit = "{opening_credit}"
            rate_deck = "Retail test"
            caller_ids = [{{ number = "{CALLER_ID}", evidence = "assigned" }}]
            limits = {{ rate_per_minute = "none", {limits} }}
            "#
        ))
        .await
    }

    /// Adds an account whose owner signs in as `USERNAME@example.test` with [`PASSWORD`]; its phone has the same username
    /// and the password [`SIP_PASSWORD`].
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn customer(&self, username: &str, opening_credit: &str) -> AccountKey {
        self.provision(&format!(
            r#"
            [[account]]
            email = "{username}@example.test"
            username = "{username}"
            password = "{PASSWORD}"
            country = "US"
            currency = "EUR"
            opening_credit = "{opening_credit}"
            rate_deck = "Retail test"
            sip_username = "{username}"
            sip_password = "{SIP_PASSWORD}"
            caller_ids = [{{ number = "{CALLER_ID}", evidence = "assigned" }}]
            limits = {{ rate_per_minute = "none", live_calls = 10, calls_per_minute = 100 }}
            "#
        ))
        .await;
        self.account(username).await
    }

    /// Adds what this piece of a world file describes; it may name the decks `Retail test` and `Wholesale`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn provision(&self, piece: &str) -> Provisioned {
        let gateway = self.gateway_name.clone().unwrap_or_else(|| format!("udp:{}", self.gateway));
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
            gateway = "{gateway}"
            currency = "EUR"
            deck = "Wholesale"
            max_channels = 20000
            max_cps = 10000
            {piece}
            "#
        );
        let files =
            BTreeMap::from([("retail".to_owned(), RETAIL.to_owned()), ("wholesale".to_owned(), WHOLESALE.to_owned())]);
        let world = World::of_texts(&text, &files).expect("a valid world");
        let store = &self.server.store;
        let brand = store.brand().await.expect("readable").expect("made at the start");
        let clock = ringfence::clock::system();
        let seed = u64::try_from(clock().wall.0).expect("after 1970");
        let mut provisioning =
            Provisioning { store, brand: &brand, clock: &clock, entropy: Entropy::from_number(seed) };
        let done = provisioning.apply(&world, &mut |_, _| ()).await.expect("provisioned");
        self.server.actors.change_tariffs().await.expect("tariffs");
        done
    }

    /// The account of a SIP username.
    ///
    /// # Panics
    /// When there is none.
    pub async fn account(&self, username: &str) -> AccountKey {
        let found = self.server.store.credential(username).await.expect("readable");
        found.unwrap_or_else(|| panic!("{username} exists")).account
    }

    /// Its balance and live calls now.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn view(&self, account: AccountKey) -> Arc<AccountView> {
        self.server.actors.view(account).await.expect("the account answers")
    }

    /// The calls of an account that are over, oldest first.
    ///
    /// # Panics
    /// When they cannot be read.
    pub async fn history(&self, account: AccountKey) -> Vec<Cdr> {
        let page = self.server.store.calls_page(account, None, 1_000, &CallFilter::default()).await;
        let mut calls = page.expect("readable");
        calls.reverse();
        calls
    }

    /// Waits until no call, leg or hold is left, then audits. SIP's transactions live on for 32 s, as they must.
    ///
    /// # Panics
    /// When something is left, or an invariant is broken.
    pub async fn left_clean(&self) -> AuditReport {
        self.until("no call, leg or hold is left", async |server| {
            server.actors.counts().live_calls == 0
                && server.sip_counts().legs == 0
                && server.store.open_holds().await.is_ok_and(|open| open == 0)
        })
        .await;
        let report = audit(&self.server.store, |_| ()).await.expect("readable");
        assert!(report.is_clean(), "{:?}", report.told);
        report
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
