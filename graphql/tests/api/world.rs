//! One server with two customers and operator staff, and a client for each way to talk to it.

use actors::{Actors, ActorsConfig};
use axum::http::{HeaderMap, StatusCode};
use futures_util::{SinkExt, StreamExt};
use graphql::{Api, WebConfig};
use schema::account::{AccountStatus, CallbackPhone, CallerId, CallerIdStatus, Evidence, Ha1, Limits};
use schema::carrier::Trunk;
use schema::entropy::Entropy;
use schema::id::*;
use schema::ledger::{IdempotencyKey, LedgerAccount, LedgerKind, Transfer};
use schema::leg::LegCommand;
use schema::money::{Currency, Micros, NanosPerMinute};
use schema::number::{CallbackNumber, E164};
use schema::pii::Pii;
use schema::rate::RateTerms;
use schema::time::{BootId, Clock, Mono, Now, Timestamp};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use storage::{
    Brand, DatabaseUrl, Deck, Journal, JournalOptions, Keyring, MasterKey, MemDisk, MemberRole, NewAccount,
    NewCredential, OperatorRole, Rate, Store, User,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const CUSTOMER: &str = "customer@example.test";
pub(crate) const OTHER: &str = "other@example.test";
pub(crate) const STAFF: [(&str, OperatorRole); 4] = [
    ("admin@example.test", OperatorRole::Admin),
    ("support@example.test", OperatorRole::Support),
    ("finance@example.test", OperatorRole::Finance),
    ("compliance@example.test", OperatorRole::Compliance),
];
/// Microseconds since 1970 at the start of each world.
const EPOCH: i64 = 1_790_000_000_000_000;

/// Hashed once: it takes its time on purpose.
static HASH: LazyLock<Pii<String>> =
    LazyLock::new(|| graphql::password::hash_password(PASSWORD, [3; 16]).expect("hashed"));

/// A customer as the world made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Customer {
    pub(crate) account: AccountId,
    pub(crate) key: AccountKey,
    pub(crate) credential: CredentialId,
    pub(crate) caller_id: CallerIdId,
    pub(crate) callback_number: CallbackNumberId,
    pub(crate) opening: TransferId,
}

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) actors: Actors,
    pub(crate) clock: Clock,
    pub(crate) legs: Mutex<Option<mpsc::Receiver<LegCommand>>>,
    pub(crate) customer: Customer,
    pub(crate) other: Customer,
    pub(crate) trunk: TrunkId,
    pub(crate) drain: watch::Sender<bool>,
    /// Microseconds that the clock is ahead of the time passed.
    ahead: Arc<AtomicU64>,
}

impl World {
    pub(crate) async fn start() -> Arc<Self> {
        Self::start_with(true).await
    }

    pub(crate) async fn start_with(development: bool) -> Arc<Self> {
        Self::start_on(Store::memory(&MemDisk::new()), development).await
    }

    /// On a simulated disk, whose faults can be chosen.
    pub(crate) async fn start_on_disk(disk: &MemDisk) -> Arc<Self> {
        Self::start_on(Store::memory(disk), true).await
    }

    /// On SQLite in this folder, where personal columns are sealed.
    pub(crate) async fn start_on_sqlite(folder: &Path) -> Arc<Self> {
        let master = MasterKey::create(&folder.join("master.key")).expect("made");
        let keys = Keyring::open(&DatabaseUrl::sqlite(folder.join("keys.db")), &master).await.expect("opened");
        let store = Store::open(&DatabaseUrl::sqlite(folder.join("data.db")), keys).await.expect("opened");
        Self::start_on(store, true).await
    }

    async fn start_on(store: Store, development: bool) -> Arc<Self> {
        let (clock, ahead) = movable_clock();
        let mut entropy = Entropy::from_number(7);
        let now = clock().wall;
        let brand = make_brand(&store, &mut entropy, now).await;
        let (deck, trunk) = make_tariffs(&store, &mut entropy, now).await;
        let mut made = Vec::new();
        for (email, suffix) in [(CUSTOMER, 1), (OTHER, 2)] {
            made.push(make_customer(&store, &mut entropy, now, brand, deck, email, suffix).await);
        }
        for (email, role) in STAFF {
            let user = user(&mut entropy, now, brand, email);
            store.create_user(&user, &[], &[role]).await.expect("created");
        }
        let (legs, legs_out) = mpsc::channel(1_024);
        let (edge, mut edge_out) = mpsc::channel(1_024);
        tokio::spawn(async move { while edge_out.recv().await.is_some() {} });
        let journal = Journal::start(&store, JournalOptions::default());
        let config = ActorsConfig { boot: BootId(1), ..ActorsConfig::default() };
        let actors = Actors::start(config, store.clone(), journal, clock.clone(), entropy.fork(), legs, edge);
        let actors = actors.await.expect("started");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = WebConfig {
            public_url: format!("http://{address}"),
            origins: vec!["https://app.example.test".to_owned()],
            trusted_proxies: vec!["127.0.0.1".parse().expect("an address")],
            sip_domain: "localhost".to_owned(),
            development,
        };
        let (drain, draining) = watch::channel(false);
        let api = Api { actors: actors.clone(), store, clock: clock.clone(), entropy, config, draining };
        let service = graphql::router(api).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let (customer, other) = (made[0], made[1]);
        let legs = Mutex::new(Some(legs_out));
        Arc::new(Self { address, actors, clock, legs, customer, other, trunk, drain, ahead })
    }

    /// Moves the clock forward.
    pub(crate) fn pass(&self, time: Duration) {
        self.ahead.fetch_add(u64::try_from(time.as_micros()).expect("short"), Ordering::SeqCst);
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A browser's page of ours, signed out.
    pub(crate) fn browser(self: &Arc<Self>) -> Client {
        let headers = vec![("origin".to_owned(), self.origin()), ("x-csrf".to_owned(), "1".to_owned())];
        Client { world: self.clone(), headers, http: http() }
    }

    /// A browser's page of ours, signed in.
    pub(crate) async fn signed_in(self: &Arc<Self>, email: &str) -> Client {
        let client = self.browser();
        let answer = client.sign_in(email, PASSWORD).await;
        assert_eq!(answer.code(), None, "{}", answer.body);
        client.with("cookie", &answer.cookie().expect("a cookie"))
    }

    /// An app with nothing.
    pub(crate) fn app(self: &Arc<Self>) -> Client {
        Client { world: self.clone(), headers: Vec::new(), http: http() }
    }

    /// An app with a device token of the customer.
    pub(crate) async fn token(self: &Arc<Self>, email: &str, scopes: &[&str]) -> Client {
        let owner = self.signed_in(email).await;
        let query = "mutation($i: CreateDeviceTokenInput!) { createDeviceToken(input: $i) { token } }";
        let answer = owner.send(query, json!({"i": {"label": "phone", "scopes": scopes}})).await;
        let token = answer.body["data"]["createDeviceToken"]["token"].as_str().expect("a token").to_owned();
        self.app().with("authorization", &format!("Bearer {token}"))
    }
}

/// A clock that runs with tokio's and can be moved forward.
fn movable_clock() -> (Clock, Arc<AtomicU64>) {
    let ahead = Arc::new(AtomicU64::new(0));
    let (begun, moved) = (tokio::time::Instant::now(), ahead.clone());
    let clock = move || {
        let passed = u64::try_from(begun.elapsed().as_micros()).expect("short") + moved.load(Ordering::SeqCst);
        Now { mono: Mono(1_000_000 + passed), wall: Timestamp(EPOCH + i64::try_from(passed).expect("short")) }
    };
    (Arc::new(clock), ahead)
}

async fn make_brand(store: &Store, entropy: &mut Entropy, now: Timestamp) -> BrandId {
    let brand =
        Brand { id: BrandId::generate(entropy, now), domain: "localhost".to_owned(), realm: "localhost".to_owned() };
    store.put_brand(&brand).await.expect("stored");
    brand.id
}

/// 0.60 a minute and a carrier that charges 0.10, per second.
async fn make_tariffs(store: &Store, entropy: &mut Entropy, now: Timestamp) -> (DeckId, TrunkId) {
    let currency = Currency::parse("EUR").expect("a currency");
    let mut ids = Vec::new();
    for (name, per_minute) in [("retail", 600_000_000), ("wholesale", 100_000_000)] {
        let terms = RateTerms { per_minute: NanosPerMinute(per_minute), ..RateTerms::FREE };
        let rate = Rate {
            prefix: "44".to_owned(),
            destination: "United Kingdom".to_owned(),
            terms,
            effective_from: None,
            effective_until: None,
        };
        let deck = Deck {
            id: DeckId::generate(entropy, now),
            name: name.to_owned(),
            currency,
            tax_included: true,
            version: DeckVersionId::generate(entropy, now),
            rates: vec![rate],
        };
        store.put_deck(&deck, now).await.expect("stored");
        ids.push(deck.id);
    }
    let trunk = Trunk {
        id: TrunkId::generate(entropy, now),
        name: "test carrier".to_owned(),
        gateway: "udp:127.0.0.1:5090".parse().expect("a gateway"),
        currency,
        deck: ids[1],
        max_channels: 100,
        max_cps: 100,
        priority: 1,
        large_over_tcp: false,
        trusted: false,
    };
    store.put_trunk(&trunk).await.expect("stored");
    (ids[0], trunk.id)
}

async fn make_customer(
    store: &Store,
    entropy: &mut Entropy,
    now: Timestamp,
    brand: BrandId,
    deck: DeckId,
    email: &str,
    suffix: u8,
) -> Customer {
    let credential = NewCredential {
        id: CredentialId::generate(entropy, now),
        username: format!("phone{suffix}").into(),
        label: Pii::new("desk".to_owned()),
        secret: Pii::new(Ha1 { md5: [0; 16], sha256: [0; 32] }),
    };
    let caller_id = CallerId {
        id: CallerIdId::generate(entropy, now),
        number: E164::parse(&format!("+44770090010{suffix}")).expect("a number"),
        label: None,
        status: CallerIdStatus::Verified,
        evidence: Some(Evidence::CallCode),
        is_default: true,
        verified_at: Some(now),
        expires_at: None,
    };
    let past = CallerId {
        id: CallerIdId::generate(entropy, now),
        number: E164::parse(&format!("+44770090030{suffix}")).expect("a number"),
        is_default: false,
        expires_at: Some(now),
        ..caller_id.clone()
    };
    let callback = CallbackPhone {
        id: CallbackNumberId::generate(entropy, now),
        number: CallbackNumber::parse(&format!("+44770090020{suffix}")).expect("a number"),
        label: None,
        status: CallerIdStatus::Verified,
    };
    let opening = opening_credit(entropy, now);
    let (credential_id, caller_id_id, callback_id, opening_id) = (credential.id, caller_id.id, callback.id, opening.id);
    let account = NewAccount {
        id: AccountId::generate(entropy, now),
        brand,
        parent: None,
        country: "GB".into(),
        time_zone: "Europe/London".into(),
        currency: Currency::parse("EUR").expect("a currency"),
        deck,
        limits: Limits { rate_per_minute: None, ..Limits::default() },
        status: AccountStatus::Active,
        created_at: now,
        opening: Some(opening),
        credentials: vec![credential],
        caller_ids: vec![caller_id, past],
        callback_phones: vec![callback],
    };
    let created = store.create_accounts(std::slice::from_ref(&account), |_| {}).await.expect("created");
    let user = user(entropy, now, brand, email);
    store.create_user(&user, &[(created[0].key, MemberRole::Owner)], &[]).await.expect("created");
    Customer {
        account: account.id,
        key: created[0].key,
        credential: credential_id,
        caller_id: caller_id_id,
        callback_number: callback_id,
        opening: opening_id,
    }
}

fn opening_credit(entropy: &mut Entropy, now: Timestamp) -> Transfer {
    Transfer {
        id: TransferId::generate(entropy, now),
        kind: LedgerKind::Promotion,
        debit: LedgerAccount::Promotion,
        credit: LedgerAccount::Customer,
        amount: Micros(10_000_000),
        call: None,
        carrier_cost: None,
        loss: Micros::ZERO,
        key: Some(IdempotencyKey { key: "opening_credit".to_owned(), request: [0; 32] }),
        balance_after: Micros(10_000_000),
        description: "opening credit".to_owned(),
    }
}

fn user(entropy: &mut Entropy, now: Timestamp, brand: BrandId, email: &str) -> User {
    User {
        id: UserId::generate(entropy, now),
        brand,
        email: Pii::new(email.to_owned()),
        username: Pii::new(email.split('@').next().expect("a name").to_owned()),
        password: Some(HASH.clone()),
        created_at: now,
    }
}

fn http() -> reqwest::Client {
    // reqwest is built without a provider of TLS: whoever makes the process's client chooses it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// One way to talk to the server: the headers that it sends.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) headers: Vec<(String, String)>,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// `errors[0].extensions.code`.
    pub(crate) fn code(&self) -> Option<&str> {
        self.body["errors"][0]["extensions"]["code"].as_str()
    }

    pub(crate) fn message(&self) -> &str {
        self.body["errors"][0]["message"].as_str().unwrap_or("")
    }

    /// `name=value` of the cookie that was set.
    pub(crate) fn cookie(&self) -> Option<String> {
        let line = self.headers.get("set-cookie")?.to_str().ok()?;
        line.split(';').next().map(str::to_owned)
    }
}

impl Client {
    /// The same with this header set, in place of what it was.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.without(name);
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    pub(crate) fn without(&self, name: &str) -> Self {
        let mut client = self.clone();
        client.headers.retain(|(known, _)| known != name);
        client
    }

    pub(crate) async fn send(&self, query: &str, variables: Value) -> Answer {
        self.post(json!({"query": query, "variables": variables}).to_string()).await
    }

    pub(crate) async fn query(&self, query: &str) -> Answer {
        self.send(query, json!({})).await
    }

    pub(crate) async fn post(&self, body: String) -> Answer {
        let mut request = self.http.post(format!("{}/graphql", self.world.origin())).body(body);
        if !self.headers.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        answer(self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = self.http.get(format!("{}{path}", self.world.origin()));
        answer(self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))).await
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Answer {
        let query = "mutation($i: SignInInput!) { signIn(input: $i) { viewer { email account { currency } } challenge { id } token } }";
        self.send(query, json!({"i": {"email": email, "password": password}})).await
    }

    /// Opens a socket with this client's cookie and origin.
    pub(crate) async fn socket(&self) -> Result<Socket, StatusCode> {
        let mut request = format!("ws://{}/graphql/ws", self.world.address).into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().expect("a value"));
        for (name, value) in
            self.headers.iter().filter(|(name, _)| ["cookie", "origin", "x-forwarded-for"].contains(&name.as_str()))
        {
            let name: axum::http::HeaderName = name.parse().expect("a name");
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, _)) => Ok(Socket(stream)),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status()),
            Err(error) => panic!("no socket: {error}"),
        }
    }

    /// The first message of a socket.
    pub(crate) fn init(&self) -> Value {
        let token = self.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.clone());
        json!({"type": "connection_init", "payload": {"authorization": token}})
    }

    /// Opens a socket and says who it is.
    pub(crate) async fn ready_socket(&self) -> Socket {
        let mut socket = self.socket().await.expect("a socket");
        socket.send(self.init()).await;
        assert_eq!(socket.receive().await.expect("open"), json!({"type": "connection_ack"}));
        socket
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

type Stream = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A client's socket.
pub(crate) struct Socket(pub Stream);

impl Socket {
    pub(crate) async fn send(&mut self, message: Value) {
        self.send_text(message.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: String) {
        // A socket that the server has closed takes nothing; what it said is read afterwards.
        let _ = self.0.send(Message::Text(text.into())).await;
    }

    pub(crate) async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        self.send(json!({"type": "subscribe", "id": id, "payload": {"query": query, "variables": variables}})).await;
    }

    /// The next message, or how the socket was closed.
    pub(crate) async fn receive(&mut self) -> Result<Value, Option<(u16, String)>> {
        let patience = Duration::from_secs(10);
        loop {
            match timeout(patience, self.0.next()).await.expect("something in time") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Err(Some((code.into(), reason.to_string())));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The data of the next `next` of an operation.
    pub(crate) async fn next(&mut self, id: &str) -> Value {
        loop {
            let message = self.receive().await.expect("open");
            if message["type"] == "next" && message["id"] == id {
                assert!(message["payload"].get("errors").is_none(), "{message}");
                return message["payload"]["data"].clone();
            }
            assert!(message["type"] == "ping" || message["type"] == "next", "{message}");
        }
    }

    /// The code with which the server closes; messages before it are skipped.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.receive().await {
                Ok(_) => {}
                Err(Some((code, _))) => return code,
                Err(None) => panic!("closed without a code"),
            }
        }
    }
}
