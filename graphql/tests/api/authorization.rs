//! Who may do what, through the API: each kind of viewer against each operation on each kind of thing.

use crate::world::{CUSTOMER, Client, OTHER, STAFF, World};
use serde_json::Value;
use std::sync::Arc;

/// What an operation led to: a value, null, or an error's code.
fn outcome(answer: &crate::world::Answer, path: &str) -> String {
    if let Some(code) = answer.code() {
        return code.to_owned();
    }
    let value = path.split('.').fold(&answer.body["data"], |value, key| match key.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[key],
    });
    match value {
        Value::Null => "null".to_owned(),
        _ => "shown".to_owned(),
    }
}

/// The kinds of viewer, by name.
async fn viewers(world: &Arc<World>) -> Vec<(&'static str, Client)> {
    let revoked = world.signed_in(CUSTOMER).await;
    revoked.query("mutation { signOut { ok } }").await;
    let mut all = vec![
        ("nobody", world.app()),
        ("signed out", revoked),
        ("owner", world.signed_in(CUSTOMER).await),
        ("owner's READ", world.token(CUSTOMER, &["READ"]).await),
        ("owner's CALL", world.token(CUSTOMER, &["CALL"]).await),
        ("owner's MANAGE", world.token(CUSTOMER, &["MANAGE"]).await),
        ("another customer", world.signed_in(OTHER).await),
    ];
    for ((email, _), name) in STAFF.into_iter().zip(["admin", "support", "finance", "compliance"]) {
        all.push((name, world.signed_in(email).await));
    }
    all
}

/// For each operation: the path to look at, and what each viewer gets, in the order of [`viewers`].
type Row = (String, &'static str, [&'static str; 11]);

const SIGN_IN: &str = "UNAUTHENTICATED";
const NO: &str = "FORBIDDEN";

fn rows(world: &World) -> Vec<Row> {
    let mine = world.customer;
    let node = |id: String| format!("{{ node(id: \"{id}\") {{ id }} }}");
    let operator = |field: &str| format!("{{ viewer {{ operator {{ {field} }} }} }}");
    let own = |field: &str| format!("{{ viewer {{ account {{ {field} }} }} }}");
    let found = ["UNAUTHENTICATED", "UNAUTHENTICATED", "shown", "shown", NO, NO, "null"];
    let with_staff = |staff: [&'static str; 4]| {
        let mut all = ["null"; 11];
        all[..7].copy_from_slice(&found);
        all[7..].copy_from_slice(&staff);
        all
    };
    let viewer = ["null", "null", "shown", "shown", NO, NO, "shown", "null", "null", "null", "null"];
    let mutation = |staff: &'static str, read, call, manage| {
        [SIGN_IN, SIGN_IN, "NOT_FOUND", read, call, manage, "NOT_FOUND", staff, staff, staff, staff]
    };
    let all_staff = ["shown"; 4];
    vec![
        (
            "{ viewer { id } }".to_owned(),
            "viewer.id",
            ["null", "null", "shown", "shown", NO, NO, "shown", "shown", "shown", "shown", "shown"],
        ),
        (own("balance { available { micros } }"), "viewer.account.balance.available", viewer),
        (own("callbackNumbers { masked }"), "viewer.account.callbackNumbers.0.masked", viewer),
        (own("sipCredentials { username }"), "viewer.account.sipCredentials.0.username", viewer),
        (own("ledger { edges { node { id } } }"), "viewer.account.ledger.edges.0.node.id", viewer),
        (own("calls { edges { node { id } } }"), "viewer.account.calls.edges", viewer),
        (
            "{ viewer { deviceTokens { id } } }".to_owned(),
            "viewer.deviceTokens",
            ["null", "null", "shown", "shown", NO, NO, "shown", "shown", "shown", "shown", "shown"],
        ),
        (node(mine.account.to_string()), "node.id", with_staff(all_staff)),
        (node(mine.credential.to_string()), "node.id", with_staff(["null"; 4])),
        (node(mine.caller_id.to_string()), "node.id", with_staff(["null"; 4])),
        (node(mine.callback_number.to_string()), "node.id", with_staff(["null"; 4])),
        (node(mine.opening.to_string()), "node.id", with_staff(["shown", "null", "shown", "shown"])),
        (
            node(world.trunk.to_string()),
            "node.id",
            [SIGN_IN, SIGN_IN, "null", "null", NO, NO, "null", "shown", "shown", "shown", "shown"],
        ),
        (
            format!("{{ node(id: \"{}\") {{ ... on Account {{ callbackNumbers {{ masked }} }} }} }}", mine.account),
            "node.callbackNumbers.0.masked",
            with_staff([NO; 4]),
        ),
        (
            format!(
                "{{ node(id: \"{}\") {{ ... on Account {{ ledger {{ edges {{ node {{ id }} }} }} }} }} }}",
                mine.account
            ),
            "node.ledger.edges",
            with_staff(["shown", NO, "shown", "shown"]),
        ),
        (
            format!(
                "{{ node(id: \"{}\") {{ ... on Account {{ calls {{ edges {{ node {{ id }} }} }} }} }} }}",
                mine.account
            ),
            "node.calls.edges",
            with_staff(["shown", "shown", NO, "shown"]),
        ),
        (
            operator("carriers { name }"),
            "viewer.operator.carriers.0.name",
            ["null", "null", "null", "null", NO, NO, "null", "shown", "shown", "shown", "shown"],
        ),
        (
            operator("accounts { edges { node { id } } }"),
            "viewer.operator.accounts.edges.1.node.id",
            ["null", "null", "null", "null", NO, NO, "null", "shown", "shown", "shown", "shown"],
        ),
        (
            operator("liveCalls { edges { node { id } } }"),
            "viewer.operator.liveCalls.edges",
            ["null", "null", "null", "null", NO, NO, "null", "shown", "shown", NO, "shown"],
        ),
        (
            "{ quote(input: {destination: \"+447700900999\"}) { affordableSeconds } }".to_owned(),
            "quote.affordableSeconds",
            [SIGN_IN, SIGN_IN, "shown", "shown", NO, NO, "shown", NO, NO, NO, NO],
        ),
        (
            format!(
                "{{ quote(input: {{destination: \"+447700900999\", via: {{sipCredentialId: \"{}\"}}}}) {{ affordableSeconds }} }}",
                mine.credential
            ),
            "quote.affordableSeconds",
            [SIGN_IN, SIGN_IN, "shown", "shown", NO, NO, "NOT_FOUND", NO, NO, NO, NO],
        ),
        (
            format!("mutation {{ hangUp(input: {{callId: \"{}\"}}) {{ call {{ id }} }} }}", mine.account),
            "",
            mutation(NO, NO, "NOT_FOUND", NO),
        ),
        (
            format!("mutation {{ revokeDeviceToken(input: {{id: \"{}\"}}) {{ id }} }}", mine.account),
            "",
            mutation("NOT_FOUND", NO, NO, "NOT_FOUND"),
        ),
        (
            "mutation { createDeviceToken(input: {label: \"x\", scopes: [MANAGE]}) { token } }".to_owned(),
            "createDeviceToken.token",
            [SIGN_IN, SIGN_IN, "shown", NO, NO, "shown", "shown", "shown", "shown", "shown", "shown"],
        ),
    ]
}

#[tokio::test]
async fn each_viewer_gets_what_the_policy_says_and_nothing_else() {
    the_matrix(World::start().await).await;
}

#[tokio::test]
async fn the_same_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    the_matrix(World::start_on_sqlite(folder.path()).await).await;
}

async fn the_matrix(world: Arc<World>) {
    let viewers = viewers(&world).await;
    let mut wrong = Vec::new();
    for (query, path, expected) in rows(&world) {
        for ((name, client), expected) in viewers.iter().zip(expected) {
            let answer = client.query(&query).await;
            let got = outcome(&answer, path);
            if got != expected {
                wrong.push(format!("{name}: {query}: {got}, not {expected}: {}", answer.body));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn p1_a_callback_number_is_shown_masked_only() {
    let world = World::start().await;
    let answer = world
        .signed_in(CUSTOMER)
        .await
        .query("{ viewer { account { callbackNumbers { id masked label status } } } }")
        .await;
    assert_eq!(answer.body["data"]["viewer"]["account"]["callbackNumbers"][0]["masked"], "+••••••••••01");
    assert!(!answer.body.to_string().contains("7700900201"), "{}", answer.body);
}

#[tokio::test]
async fn a_caller_id_whose_proof_ran_out_is_told_so() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let answer = page.query("{ viewer { account { callerIds { status attestation } } } }").await;
    let told = answer.body["data"]["viewer"]["account"]["callerIds"].to_string();
    for one in [r#"{"attestation":"B","status":"VERIFIED"}"#, r#"{"attestation":null,"status":"EXPIRED"}"#] {
        assert!(told.contains(one), "{told}");
    }
}

#[tokio::test]
async fn staff_find_an_account_by_what_names_it_whole() {
    let world = World::start().await;
    let staff = world.signed_in("support@example.test").await;
    let query = "query($s: String!) { viewer { operator { accounts(search: $s) { edges { node { id } } pageInfo { hasNextPage } } } } }";
    for (text, found) in [
        (OTHER.to_owned(), true),
        ("phone2".to_owned(), true),
        (world.other.account.to_string(), true),
        ("phone".to_owned(), false),
        ("nobody@example.test".to_owned(), false),
    ] {
        let answer = staff.send(query, serde_json::json!({"s": text})).await;
        let edges = answer.body["data"]["viewer"]["operator"]["accounts"]["edges"].as_array().expect("a list").clone();
        assert_eq!(
            edges.first().map(|edge| edge["node"]["id"].as_str().expect("an id").to_owned()),
            found.then(|| world.other.account.to_string()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let world = World::start().await;
    let staff = world.signed_in("admin@example.test").await;
    let query = "query($a: String) { viewer { operator { accounts(first: 1, after: $a) { edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage endCursor } } } } }";
    let first =
        staff.send(query, serde_json::json!({"a": null})).await.body["data"]["viewer"]["operator"]["accounts"].clone();
    assert_eq!(first["edges"][0]["node"]["id"], world.customer.account.to_string());
    assert_eq!(
        (&first["pageInfo"]["hasNextPage"], &first["pageInfo"]["hasPreviousPage"]),
        (&true.into(), &false.into())
    );
    let next = staff.send(query, serde_json::json!({"a": first["pageInfo"]["endCursor"]})).await;
    let next = next.body["data"]["viewer"]["operator"]["accounts"].clone();
    assert_eq!(next["edges"][0]["node"]["id"], world.other.account.to_string());
    assert_eq!((&next["pageInfo"]["hasNextPage"], &next["pageInfo"]["hasPreviousPage"]), (&false.into(), &true.into()));
}
