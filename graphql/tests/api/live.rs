//! A call as its owner sees it: money falling, states changing, hung up from the dashboard, and the record of it.

use crate::world::{CUSTOMER, OTHER, World};
use schema::call::LegSide;
use schema::id::CallId;
use schema::leg::{Checkpoint, EndCause, Invited, LegCommand, LegEvent, LegEventAt, LegId};
use schema::pii::Pii;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const DESTINATION: &str = "+447700900999";

/// The SIP side of a world, played by hand.
pub(crate) struct Phone {
    world: Arc<World>,
    commands: mpsc::Receiver<LegCommand>,
}

impl Phone {
    pub(crate) fn of(world: &Arc<World>) -> Self {
        let commands = world.legs.lock().expect("not poisoned").take().expect("one phone a world");
        Self { world: world.clone(), commands }
    }

    fn tell(&self, event: LegEvent) {
        self.world.actors.on_leg_event(LegEventAt { event, at: (self.world.clock)() });
    }

    async fn command(&mut self) -> LegCommand {
        timeout(Duration::from_secs(10), self.commands.recv()).await.expect("in time").expect("a command")
    }

    pub(crate) fn dial(&self, destination: &str) -> CallId {
        let mut entropy = schema::entropy::Entropy::from_number(99);
        let call = CallId::generate(&mut entropy, (self.world.clock)().wall);
        self.tell(LegEvent::Invited(Box::new(Invited {
            leg: LegId::a(call),
            account: self.world.customer.key,
            credential: self.world.customer.credential,
            dialled: Pii::new(destination.to_owned()),
            wanted_caller_id: None,
            withhold: false,
            needs_tls: false,
            offer: None,
            is_watched: true,
            checkpoint: checkpoint(),
        })));
        call
    }

    /// The customer calls, the other side answers.
    async fn answered_call(&mut self) -> CallId {
        let call = self.dial(DESTINATION);
        let b = loop {
            if let LegCommand::Invite(invite) = self.command().await {
                break invite.leg;
            }
        };
        self.tell(LegEvent::Progress { leg: b, status: 180, sdp: None, rings: true });
        self.tell(LegEvent::Answered { leg: b, sdp: None, offers: false, checkpoint: checkpoint() });
        while !matches!(self.command().await, LegCommand::Accept { .. }) {}
        self.tell(LegEvent::Confirmed { leg: LegId::a(call), answer: None });
        call
    }

    /// Ends the legs that are hung up until both have been.
    async fn obey_hang_ups(&mut self) {
        let mut ended = Vec::new();
        while ended.len() < 2 {
            if let LegCommand::HangUp { leg, .. } = self.command().await
                && !ended.contains(&leg)
            {
                self.tell(LegEvent::Ended { leg, cause: EndCause::HungUp });
                ended.push(leg);
            }
        }
        assert!(ended.iter().any(|leg| leg.side == LegSide::A) && ended.iter().any(|leg| leg.side == LegSide::B));
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint { state: Pii::new("".into()) }
}

fn micros(value: &Value) -> i64 {
    value["micros"].as_str().expect("a string").parse().expect("a number")
}

#[tokio::test]
async fn the_balance_falls_while_a_call_lasts() {
    let world = World::start().await;
    let mut phone = Phone::of(&world);
    let mut socket = world.signed_in(CUSTOMER).await.ready_socket().await;
    let fields = "total { micros } reserved { micros } available { micros } accrued { micros } remaining { micros } burnPerMinute { micros } exhaustsAt";
    socket.subscribe("balance", &format!("subscription {{ balance {{ {fields} }} }}"), json!({})).await;
    let before = socket.next("balance").await["balance"].clone();
    assert_eq!((micros(&before["remaining"]), &before["exhaustsAt"]), (10_000_000, &Value::Null));
    phone.answered_call().await;
    let mut figures = Vec::new();
    while figures.len() < 3 {
        let balance = socket.next("balance").await["balance"].clone();
        assert_eq!(micros(&balance["total"]), 10_000_000, "nothing posts before the end");
        assert_eq!(micros(&balance["remaining"]), 10_000_000 - micros(&balance["accrued"]));
        assert_eq!(micros(&balance["available"]), 10_000_000 - micros(&balance["reserved"]));
        let remaining = micros(&balance["remaining"]);
        if figures.last().is_none_or(|last| remaining < *last) && remaining < 10_000_000 {
            assert_eq!(micros(&balance["burnPerMinute"]), 600_000);
            assert!(balance["exhaustsAt"].is_string());
            figures.push(remaining);
        }
    }
    assert!(figures.is_sorted_by(|a, b| a > b), "{figures:?}");
}

#[tokio::test]
async fn a_call_is_seen_live_and_hung_up_from_the_dashboard() {
    a_call_from_dial_to_ledger(World::start().await).await;
}

#[tokio::test]
async fn the_same_call_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    a_call_from_dial_to_ledger(World::start_on_sqlite(folder.path()).await).await;
}

async fn a_call_from_dial_to_ledger(world: Arc<World>) {
    let mut phone = Phone::of(&world);
    let page = world.signed_in(CUSTOMER).await;
    let cursor =
        page.query("{ viewer { account { eventCursor } } }").await.body["data"]["viewer"]["account"]["eventCursor"]
            .clone();
    let mut socket = page.ready_socket().await;
    socket.subscribe("calls", "subscription { liveCalls { id state presentedNumber } }", json!({})).await;
    assert_eq!(socket.next("calls").await["liveCalls"], json!([]));
    let call = phone.answered_call().await.to_string();
    loop {
        let calls = socket.next("calls").await["liveCalls"].clone();
        assert!(calls.as_array().expect("a list").iter().all(|c| c["id"] == call));
        if calls[0]["state"] == "ANSWERED" {
            assert_eq!(calls[0]["presentedNumber"], "+447700900101");
            break;
        }
    }
    let stranger = world.signed_in(OTHER).await;
    let hang_up = "mutation($id: ID!) { hangUp(input: {callId: $id}) { call { id state } } }";
    assert_eq!(stranger.send(hang_up, json!({"id": call})).await.code(), Some("NOT_FOUND"));
    let admin = world.signed_in("admin@example.test").await;
    assert_eq!(admin.send(hang_up, json!({"id": call})).await.code(), Some("FORBIDDEN"));
    let live = "{ viewer { operator { liveCalls { totalCount edges { node { id state } } } accounts { edges { node { balance { reserved { micros } } liveCalls { id } } } } } } }";
    let live = admin.query(live).await.body["data"]["viewer"]["operator"].clone();
    assert_eq!(live["liveCalls"], json!({"totalCount": 1, "edges": [{"node": {"id": call, "state": "ANSWERED"}}]}));
    assert_eq!(live["accounts"]["edges"][0]["node"]["liveCalls"], json!([{"id": call}]));
    assert!(micros(&live["accounts"]["edges"][0]["node"]["balance"]["reserved"]) > 0);
    let by_id = "query($id: ID!) { call(id: $id) { id } node(id: $id) { id } }";
    assert_eq!(stranger.send(by_id, json!({"id": call})).await.body["data"], json!({"call": null, "node": null}));
    let obeys = tokio::spawn(async move {
        phone.obey_hang_ups().await;
        phone
    });
    let answer = page.send(hang_up, json!({"id": call})).await;
    assert_eq!(answer.body["data"]["hangUp"]["call"]["id"], call, "{}", answer.body);
    obeys.await.expect("both legs were hung up");
    while socket.next("calls").await["liveCalls"] != json!([]) {}
    let again = page.send(hang_up, json!({"id": call})).await;
    assert_eq!(
        again.body["data"]["hangUp"]["call"],
        json!({"id": call, "state": "ENDED"}),
        "an ended call is a success"
    );

    let query = "query($id: ID!) { call(id: $id) { state cost { micros } hangup { side reason } route explanation { candidates { carrier costPerMinute { amount } } rate { perMinute { amount } } } }
        viewer { account { liveCalls { id } calls { edges { node { id } } } ledger { edges { node { kind amount { micros } call { id } } } } } } }";
    let record = page.send(query, json!({"id": call})).await.body["data"].clone();
    assert_eq!(
        (&record["call"]["state"], &record["call"]["hangup"]["side"]),
        (&json!("ENDED"), &json!("SERVICE")),
        "{record}"
    );
    assert_eq!(record["call"]["route"], "test carrier");
    assert_eq!(
        record["call"]["explanation"]["candidates"][0]["costPerMinute"],
        Value::Null,
        "customers do not see our costs"
    );
    let account = &record["viewer"]["account"];
    assert_eq!((&account["liveCalls"], &account["calls"]["edges"][0]["node"]["id"]), (&json!([]), &json!(call)));
    let charge = &account["ledger"]["edges"][0]["node"];
    assert_eq!((&charge["kind"], &charge["call"]["id"]), (&json!("CALL_CHARGE"), &json!(call)));
    assert_eq!(micros(&charge["amount"]), -micros(&record["call"]["cost"]));
    let staff = admin.send(query, json!({"id": call})).await.body["data"].clone();
    assert_eq!(staff["call"]["explanation"]["candidates"][0]["costPerMinute"]["amount"], "0.10");

    // Everything again from before the call, in order, from storage.
    socket.subscribe("events", "subscription($c: Cursor) { accountEvents(after: $c) { __typename cursor at ... on CallChanged { call { id state } } } }", json!({"c": cursor})).await;
    let mut states = Vec::new();
    while states.last() != Some(&json!("ENDED")) {
        let event = socket.next("events").await["accountEvents"].clone();
        if event["__typename"] == "CallChanged" {
            assert_eq!(event["call"]["id"], call);
            states.push(event["call"]["state"].clone());
        }
    }
    assert!(states.contains(&json!("ANSWERED")), "{states:?}");
}

#[tokio::test]
async fn a_refused_call_is_a_call_with_its_reason() {
    let world = World::start().await;
    let phone = Phone::of(&world);
    let page = world.signed_in(CUSTOMER).await;
    let mut socket = page.ready_socket().await;
    let before =
        page.query("{ viewer { account { eventCursor } } }").await.body["data"]["viewer"]["account"]["eventCursor"]
            .clone();
    socket.subscribe("1", "subscription($c: Cursor) { accountEvents(after: $c) { ... on CallChanged { call { id state explanation { refusal { code message } } } } } }", json!({"c": before})).await;
    let call = phone.dial("+33140000000").to_string();
    let refused = loop {
        let event = socket.next("1").await["accountEvents"].clone();
        if event["call"].is_object() {
            break event["call"].clone();
        }
    };
    assert_eq!((&refused["id"], &refused["state"]), (&json!(call), &json!("REFUSED")), "{refused}");
    assert!(refused["explanation"]["refusal"]["code"].is_string());
    let found = page.send("query($id: ID!) { call(id: $id) { state } }", json!({"id": call})).await;
    assert_eq!(found.body["data"]["call"]["state"], "REFUSED");
}

#[tokio::test]
async fn a_quote_says_what_a_call_would_cost() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let query = "query($i: CallInput!) { quote(input: $i) { destination affordableSeconds presentedNumber attestation legs { side rate { perMinute { amount currency nanos } } } explanation { refusal { code } candidates { carrier costPerMinute { amount } } } } }";
    let quote = page.send(query, json!({"i": {"destination": DESTINATION}})).await.body["data"]["quote"].clone();
    assert_eq!(
        (&quote["destination"], &quote["presentedNumber"], &quote["attestation"]),
        (&json!(DESTINATION), &json!("+447700900101"), &json!("B")),
        "{quote}"
    );
    assert_eq!(quote["affordableSeconds"], 1_000, "10.00 at 0.60 a minute");
    assert_eq!(
        quote["legs"],
        json!([{"side": "B", "rate": {"perMinute": {"amount": "0.60", "currency": "EUR", "nanos": "600000000"}}}])
    );
    assert_eq!(quote["explanation"]["candidates"][0]["costPerMinute"], Value::Null);
    for (input, code) in [
        (json!({"destination": ""}), "INVALID_INPUT"),
        (json!({"destination": "x".repeat(65)}), "INVALID_INPUT"),
        (json!({"destination": DESTINATION, "callerIdId": "x"}), "NOT_FOUND"),
        (
            json!({"destination": DESTINATION, "via": {"callbackNumberId": world.customer.callback_number.to_string()}}),
            "INVALID_INPUT",
        ),
        (json!({"destination": DESTINATION, "via": {}}), "INVALID_INPUT"),
    ] {
        assert_eq!(page.send(query, json!({"i": input})).await.code(), Some(code), "{input}");
    }
    let nonsense = page.send(query, json!({"i": {"destination": "nonsense"}})).await.body["data"]["quote"].clone();
    assert_eq!(
        (&nonsense["destination"], &nonsense["explanation"]["refusal"]["code"]),
        (&Value::Null, &json!("DESTINATION_INVALID"))
    );
}
