//! The graphql-transport-ws protocol as a pure machine: what a client's message leads to. It knows nothing of sockets,
//! sessions or time; the shell tells it what it learnt and does what it says.
//!
//! ```text
//! Fresh ── connection_init ──► Asked ── accepted ──► Ready ── subscribe, complete, ping, pong
//!   │ 4401 subscribe             │ 4403 refused         │ 4409 a taken id
//!   │ 4408 nothing for 3 s       │ 4429 init again      │ 4429 init again
//!   │                            │ 1013 store failed    │
//!   └ 4400 anything that is no message of the protocol, in every state
//! ```

use schema::pii::Pii;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// The name in `Sec-WebSocket-Protocol`.
pub(crate) const NAME: &str = "graphql-transport-ws";
/// Subscriptions of one socket.
pub(crate) const SUBSCRIPTIONS: usize = 20;
/// Longest id of a subscription, in bytes.
const ID_BYTES: usize = 64;

/// Why a socket is closed: code and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close(pub(crate) u16, pub(crate) &'static str);

impl Close {
    pub(crate) const GOING_AWAY: Self = Self(1001, "going away");
    pub(crate) const SILENT: Self = Self(1001, "no answer to a ping");
    pub(crate) const UNAVAILABLE: Self = Self(1013, "Try again later");
    pub(crate) const BAD_MESSAGE: Self = Self(4400, "no message of graphql-transport-ws");
    pub(crate) const UNAUTHORIZED: Self = Self(4401, "Unauthorized");
    pub(crate) const FORBIDDEN: Self = Self(4403, "Forbidden");
    pub(crate) const NO_SUBPROTOCOL: Self = Self(4406, "Subprotocol not acceptable");
    pub(crate) const INIT_TIMEOUT: Self = Self(4408, "Connection initialisation timeout");
    pub(crate) const SUBSCRIBER_EXISTS: Self = Self(4409, "Subscriber already exists");
    pub(crate) const TOO_MANY_INITS: Self = Self(4429, "Too many initialisation requests");
    pub(crate) const TOO_MANY_MESSAGES: Self = Self(4429, "Too many messages");
    pub(crate) const TOO_MANY_SOCKETS: Self = Self(4429, "Too many sockets of one session");
}

/// An operation to run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operation {
    pub(crate) query: String,
    #[serde(default)]
    pub(crate) operation_name: Option<String>,
    #[serde(default)]
    pub(crate) variables: Pii<Value>,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Find out who it is; answered by [`Protocol::accepted`], or the socket is closed.
    Authenticate {
        /// `authorization` of the payload, if given.
        authorization: Option<Pii<String>>,
    },
    /// Run an operation.
    Subscribe(String, Box<Operation>),
    /// One more than allowed: say so to this operation.
    TooMany(String),
    /// Stop an operation.
    Stop(String),
    /// Answer a ping.
    Pong,
    /// Nothing.
    Nothing,
    /// Close the socket.
    Close(Close),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    Ready,
}

/// One socket's protocol state.
#[derive(Debug)]
pub(crate) struct Protocol {
    state: State,
    running: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    payload: Value,
}

impl Protocol {
    pub(crate) const fn new() -> Self {
        Self { state: State::Fresh, running: BTreeSet::new() }
    }

    /// Whether `connection_init` has come.
    pub(crate) fn is_fresh(&self) -> bool {
        self.state == State::Fresh
    }

    /// A text message of the client.
    pub(crate) fn on_text(&mut self, text: &str) -> Action {
        let Ok(message) = serde_json::from_str::<Message>(text) else { return Action::Close(Close::BAD_MESSAGE) };
        match (message.kind.as_str(), message.id) {
            ("connection_init", None) => self.on_init(&message.payload),
            ("subscribe", Some(id)) if is_id(&id) => self.on_subscribe(id, message.payload),
            ("complete", Some(id)) if is_id(&id) => {
                if self.running.remove(&id) {
                    Action::Stop(id)
                } else {
                    Action::Nothing
                }
            }
            ("ping", None) if is_object(&message.payload) => Action::Pong,
            ("pong", None) if is_object(&message.payload) => Action::Nothing,
            _ => Action::Close(Close::BAD_MESSAGE),
        }
    }

    /// The client is who it says.
    pub(crate) fn accepted(&mut self) {
        self.state = State::Ready;
    }

    /// An operation has ended by itself; false when the client had stopped it before.
    pub(crate) fn ended(&mut self, id: &str) -> bool {
        self.running.remove(id)
    }

    fn on_init(&mut self, payload: &Value) -> Action {
        if self.state != State::Fresh {
            return Action::Close(Close::TOO_MANY_INITS);
        }
        let authorization = match (payload, payload.get("authorization").or_else(|| payload.get("Authorization"))) {
            (Value::Null | Value::Object(_), None | Some(Value::Null)) => None,
            (Value::Object(_), Some(Value::String(text))) => Some(Pii::new(text.clone())),
            _ => return Action::Close(Close::BAD_MESSAGE),
        };
        self.state = State::Asked;
        Action::Authenticate { authorization }
    }

    fn on_subscribe(&mut self, id: String, payload: Value) -> Action {
        if self.state != State::Ready {
            return Action::Close(Close::UNAUTHORIZED);
        }
        let Ok(operation) = serde_json::from_value::<Operation>(payload) else {
            return Action::Close(Close::BAD_MESSAGE);
        };
        if !is_object(operation.variables.expose()) {
            return Action::Close(Close::BAD_MESSAGE);
        }
        if self.running.contains(&id) {
            return Action::Close(Close::SUBSCRIBER_EXISTS);
        }
        if self.running.len() >= SUBSCRIPTIONS {
            return Action::TooMany(id);
        }
        self.running.insert(id.clone());
        Action::Subscribe(id, Box::new(operation))
    }
}

fn is_id(id: &str) -> bool {
    (1..=ID_BYTES).contains(&id.len())
}

fn is_object(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Object(_))
}

/// A message of ours.
pub(crate) fn message(kind: &str, id: Option<&str>, payload: Option<Value>) -> String {
    let mut message = serde_json::Map::new();
    message.insert("type".to_owned(), kind.into());
    message.extend(id.map(|id| ("id".to_owned(), id.into())));
    message.extend(payload.map(|payload| ("payload".to_owned(), payload)));
    Value::Object(message).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INIT: &str = r#"{"type":"connection_init"}"#;

    fn ready() -> Protocol {
        let mut protocol = Protocol::new();
        assert_eq!(protocol.on_text(INIT), Action::Authenticate { authorization: None });
        protocol.accepted();
        protocol
    }

    fn subscribe(id: &str) -> String {
        format!(r#"{{"type":"subscribe","id":"{id}","payload":{{"query":"subscription {{ balance }}"}}}}"#)
    }

    #[test]
    fn what_is_no_message_closes_4400() {
        for text in [
            "",
            "no json",
            "[]",
            "{}",
            r#"{"type":"start"}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","id":"","payload":{"query":"x"}}"#,
            r#"{"type":"subscribe","id":"1","payload":{}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"x","variables":[]}}"#,
            r#"{"type":"complete"}"#,
            r#"{"type":"ping","payload":1}"#,
        ] {
            assert_eq!(ready().on_text(text), Action::Close(Close::BAD_MESSAGE), "{text}");
        }
        for text in
            [r#"{"type":"connection_init","payload":1}"#, r#"{"type":"connection_init","payload":{"authorization":1}}"#]
        {
            assert_eq!(Protocol::new().on_text(text), Action::Close(Close::BAD_MESSAGE), "{text}");
        }
    }

    #[test]
    fn only_an_accepted_client_subscribes() {
        let mut protocol = Protocol::new();
        assert_eq!(protocol.on_text(&subscribe("1")), Action::Close(Close::UNAUTHORIZED));
        protocol.on_text(INIT);
        assert_eq!(protocol.on_text(&subscribe("1")), Action::Close(Close::UNAUTHORIZED), "not yet acknowledged");
        assert_eq!(protocol.on_text(INIT), Action::Close(Close::TOO_MANY_INITS));
        assert_eq!(ready().on_text(INIT), Action::Close(Close::TOO_MANY_INITS));
    }

    #[test]
    fn an_id_is_used_once_at_a_time() {
        let mut protocol = ready();
        assert!(matches!(protocol.on_text(&subscribe("1")), Action::Subscribe(id, _) if id == "1"));
        assert_eq!(protocol.on_text(&subscribe("1")), Action::Close(Close::SUBSCRIBER_EXISTS));
        assert_eq!(protocol.on_text(r#"{"type":"complete","id":"1"}"#), Action::Stop("1".to_owned()));
        assert_eq!(protocol.on_text(r#"{"type":"complete","id":"1"}"#), Action::Nothing, "crossed with ours");
        assert!(matches!(protocol.on_text(&subscribe("1")), Action::Subscribe(..)));
        assert!(protocol.ended("1") && !protocol.ended("1"));
        assert!(matches!(protocol.on_text(&subscribe("1")), Action::Subscribe(..)));
    }

    #[test]
    fn the_token_comes_in_the_payload() {
        let text = r#"{"type":"connection_init","payload":{"authorization":"Bearer abc"}}"#;
        let authorization = Some(Pii::new("Bearer abc".to_owned()));
        assert_eq!(Protocol::new().on_text(text), Action::Authenticate { authorization });
    }

    proptest! {
        #[test]
        fn never_more_than_the_allowed_subscriptions(ids in proptest::collection::vec((0..40_u8, any::<bool>()), 0..200)) {
            let mut protocol = ready();
            for (id, starts) in ids {
                if starts {
                    if let Action::Close(close) = protocol.on_text(&subscribe(&id.to_string())) {
                        prop_assert_eq!(close, Close::SUBSCRIBER_EXISTS);
                    }
                } else {
                    protocol.ended(&id.to_string());
                }
                prop_assert!(protocol.running.len() <= SUBSCRIPTIONS);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,100}") {
            let _ = ready().on_text(&text);
        }
    }
}
