//! A browser's page and an app: GraphQL over HTTP and graphql-transport-ws.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// How long anything expected of the server may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client and the headers it sends.
#[derive(Clone)]
pub struct Client {
    server: SocketAddr,
    ip: IpAddr,
    headers: HeaderMap,
    http: reqwest::Client,
}

impl Client {
    /// An app, signed out, at this address of the machine.
    ///
    /// # Panics
    /// When no client can be made.
    #[must_use]
    pub fn app(server: SocketAddr, ip: IpAddr) -> Self {
        // reqwest is built without a provider of TLS: whoever makes the process's client chooses it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().local_address(ip).build().expect("a client");
        Self { server, ip, headers: HeaderMap::new(), http }
    }

    /// A page of ours in a browser, signed out.
    #[must_use]
    pub fn page(server: SocketAddr, ip: IpAddr) -> Self {
        Self::app(server, ip).with("origin", &format!("http://{server}")).with("x-csrf", "1")
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a header's value");
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    /// What stands at a path.
    ///
    /// # Panics
    /// When nothing answers.
    pub async fn text(&self, path: &str) -> String {
        let answer = self.http.get(format!("http://{}{path}", self.server)).send().await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// Sends an operation; its data.
    ///
    /// # Panics
    /// When it is answered with errors.
    pub async fn ask(&self, query: &str, variables: Value) -> Value {
        self.send(query, variables).await.1
    }

    async fn send(&self, query: &str, variables: Value) -> (HeaderMap, Value) {
        let (headers, body) = self.post(query, variables).await;
        assert!(body.get("errors").is_none(), "{body}");
        (headers, body["data"].clone())
    }

    async fn post(&self, query: &str, variables: Value) -> (HeaderMap, Value) {
        let request = self.http.post(format!("http://{}/graphql", self.server)).headers(self.headers.clone());
        let asked = request.json(&json!({"query": query, "variables": variables})).send();
        let response = tokio::time::timeout(PATIENCE, asked).await.expect("in time").expect("an answer");
        let headers = response.headers().clone();
        (headers, response.json().await.expect("JSON"))
    }

    /// Tries to sign in; the code of the refusal.
    ///
    /// # Panics
    /// When it is let in.
    pub async fn refused_sign_in(&self, email: &str, password: &str) -> String {
        let input = json!({"i": {"email": email, "password": password}});
        let (_, body) = self.post("mutation($i: SignInInput!) { signIn(input: $i) { token } }", input).await;
        let code = body["errors"][0]["extensions"]["code"].as_str();
        code.unwrap_or_else(|| panic!("not refused: {body}")).to_owned()
    }

    /// Signs in; the client with its cookie.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn signed_in(self, email: &str, password: &str) -> Self {
        let input = json!({"i": {"email": email, "password": password}});
        let (headers, data) =
            self.send("mutation($i: SignInInput!) { signIn(input: $i) { viewer { email } } }", input).await;
        assert_eq!(data["signIn"]["viewer"]["email"], email);
        let cookie = headers.get(SET_COOKIE).and_then(|line| line.to_str().ok()).expect("a cookie");
        let pair = cookie.split(';').next().expect("name=value").to_owned();
        self.with("cookie", &pair)
    }

    /// Signs in as a device; the client with its token.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn with_token(self, email: &str, password: &str) -> Self {
        let input = json!({"i": {"email": email, "password": password, "device": "test phone"}});
        let data = self.ask("mutation($i: SignInInput!) { signIn(input: $i) { token } }", input).await;
        let token = data["signIn"]["token"].as_str().expect("a token").to_owned();
        self.bearing(&token)
    }

    /// The client with this token.
    #[must_use]
    pub fn bearing(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// Opens a socket as this client.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn socket(&self) -> Socket {
        let mut request = format!("ws://{}/graphql/ws", self.server).into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("graphql-transport-ws"));
        for name in ["cookie", "origin"] {
            if let Some(value) = self.headers.get(name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let tcp = if self.ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
        tcp.bind(SocketAddr::new(self.ip, 0)).expect("an address");
        let stream = tcp.connect(self.server).await.expect("a connection");
        let (stream, _) = tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
        let mut socket = Socket { stream, waiting: BTreeMap::new() };
        let token = self.headers.get("authorization").and_then(|value| value.to_str().ok());
        socket.send(json!({"type": "connection_init", "payload": {"authorization": token}})).await;
        assert_eq!(socket.receive().await, json!({"type": "connection_ack"}));
        socket
    }
}

/// A graphql-transport-ws connection.
pub struct Socket {
    stream: tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>,
    /// Received for subscriptions that were not asked for meanwhile.
    waiting: BTreeMap<String, VecDeque<Value>>,
}

impl Socket {
    async fn send(&mut self, message: Value) {
        self.stream.send(Message::Text(message.to_string().into())).await.expect("open");
    }

    /// Subscribes under a name.
    pub async fn subscribe(&mut self, name: &str, query: &str, variables: Value) {
        let payload = json!({"query": query, "variables": variables});
        self.send(json!({"type": "subscribe", "id": name, "payload": payload})).await;
    }

    /// The data of the next message of a subscription.
    ///
    /// # Panics
    /// When none comes, or an error.
    pub async fn next(&mut self, name: &str) -> Value {
        loop {
            if let Some(value) = self.waiting.get_mut(name).and_then(VecDeque::pop_front) {
                return value;
            }
            let message = self.receive().await;
            match message["type"].as_str() {
                Some("next") => {
                    assert!(message["payload"].get("errors").is_none(), "{message}");
                    let id = message["id"].as_str().expect("an id").to_owned();
                    self.waiting.entry(id).or_default().push_back(message["payload"]["data"].clone());
                }
                Some("ping") => self.send(json!({"type": "pong"})).await,
                _ => panic!("unexpected: {message}"),
            }
        }
    }

    async fn receive(&mut self) -> Value {
        match self.message().await {
            Ok(message) => message,
            Err(code) => panic!("closed: {code}"),
        }
    }

    /// The code with which the server closes; what comes before it is skipped.
    ///
    /// # Panics
    /// When it does not.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.message().await {
                return code;
            }
        }
    }

    /// The next message, or the code of the end.
    async fn message(&mut self) -> Result<Value, u16> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("something in time");
            match message.expect("open").expect("open") {
                Message::Text(text) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Message::Close(why) => return Err(why.map_or(1_005, |frame| frame.code.into())),
                _ => {}
            }
        }
    }
}
