//! Signing in and out, and what a token is good for.

use crate::world::{CUSTOMER, OTHER, PASSWORD, World};
use axum::http::StatusCode;
use serde_json::json;
use std::time::Duration;

const WHO: &str = "{ viewer { email } }";

#[tokio::test]
async fn signing_in_sets_a_session_cookie_that_scripts_and_other_sites_cannot_use() {
    let world = World::start().await;
    let page = world.browser();
    let answer = page.sign_in("  Customer@Example.TEST ", PASSWORD).await;
    assert_eq!(answer.body["data"]["signIn"]["viewer"], json!({"email": CUSTOMER, "account": {"currency": "EUR"}}));
    assert_eq!(answer.body["data"]["signIn"]["token"], json!(null), "browsers get no token to lose");
    let line = answer.headers["set-cookie"].to_str().expect("text");
    let (token, attributes) = line.split_once(';').expect("attributes");
    assert!(token.starts_with("__Host-sid=") && token.len() == "__Host-sid=".len() + 43, "256 bits: {token}");
    assert_eq!(attributes, " Path=/; Secure; HttpOnly; SameSite=Strict", "and no Max-Age: it ends with the browser");
    assert_eq!(page.with("cookie", token).query(WHO).await.body["data"]["viewer"]["email"], CUSTOMER);
    assert!(page.query(WHO).await.body["data"]["viewer"].is_null());
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_person_get_the_same_answer() {
    let world = World::start().await;
    let page = world.browser();
    let wrong = page.sign_in(CUSTOMER, "wrong password").await;
    let unknown = page.sign_in("nobody@example.test", PASSWORD).await;
    assert_eq!(wrong.body, unknown.body);
    assert_eq!((wrong.status, unknown.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!((wrong.code(), wrong.message()), (Some("UNAUTHENTICATED"), "e-mail address or password is wrong"));
    assert!(wrong.cookie().is_none() && unknown.cookie().is_none());
}

#[tokio::test]
async fn guessing_is_limited_per_account_whether_it_exists_or_not() {
    let world = World::start().await;
    for email in [CUSTOMER, "nobody@example.test"] {
        for attempt in 0..5 {
            // From another address each time: the account's own limit is what counts here.
            let page = world.browser().with("x-forwarded-for", &format!("192.0.2.{attempt}"));
            assert_eq!(page.sign_in(email, "wrong").await.code(), Some("UNAUTHENTICATED"));
        }
        let page = world.browser().with("x-forwarded-for", "192.0.2.77");
        assert_eq!(page.sign_in(email, PASSWORD).await.code(), Some("RATE_LIMITED"));
        assert_eq!(page.sign_in(&email.to_uppercase(), PASSWORD).await.code(), Some("RATE_LIMITED"));
    }
    assert_eq!(world.browser().sign_in(OTHER, PASSWORD).await.code(), None, "others are not concerned");
    world.pass(Duration::from_secs(15 * 60));
    assert_eq!(world.browser().sign_in(CUSTOMER, PASSWORD).await.code(), None);
}

#[tokio::test]
async fn guessing_is_limited_per_source() {
    let world = World::start().await;
    let page = world.browser().with("x-forwarded-for", "192.0.2.1");
    for attempt in 0..20 {
        let email = format!("nobody{attempt}@example.test");
        assert_eq!(page.sign_in(&email, "wrong").await.code(), Some("UNAUTHENTICATED"));
    }
    assert_eq!(page.sign_in(CUSTOMER, PASSWORD).await.code(), Some("RATE_LIMITED"));
    let elsewhere = page.with("x-forwarded-for", "192.0.2.2");
    assert_eq!(elsewhere.sign_in(CUSTOMER, PASSWORD).await.code(), None);
}

#[tokio::test]
async fn signing_in_often_is_not_guessing() {
    let world = World::start().await;
    for _ in 0..8 {
        assert_eq!(world.browser().sign_in(CUSTOMER, PASSWORD).await.code(), None);
    }
}

#[tokio::test]
async fn a_new_sign_in_ends_the_session_it_replaces() {
    let world = World::start().await;
    let first = world.signed_in(CUSTOMER).await;
    let answer = first.sign_in(CUSTOMER, PASSWORD).await;
    let second = first.with("cookie", &answer.cookie().expect("a cookie"));
    assert!(first.query(WHO).await.body["data"]["viewer"].is_null());
    assert_eq!(second.query(WHO).await.body["data"]["viewer"]["email"], CUSTOMER);
}

#[tokio::test]
async fn signing_out_ends_the_session_and_removes_the_cookie() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let answer = page.query("mutation { signOut { ok } }").await;
    assert_eq!(answer.body["data"]["signOut"]["ok"], true);
    let removed = "__Host-sid=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0";
    assert_eq!(answer.headers["set-cookie"], removed);
    assert!(page.query(WHO).await.body["data"]["viewer"].is_null());
    assert_eq!(page.query("mutation { signOut { ok } }").await.body["data"]["signOut"]["ok"], true, "twice is fine");
}

#[tokio::test]
async fn a_session_ends_when_idle_and_after_half_a_day() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    for _ in 0..25 {
        world.pass(Duration::from_secs(28 * 60));
        assert_eq!(page.query(WHO).await.body["data"]["viewer"]["email"], CUSTOMER);
    }
    world.pass(Duration::from_secs(25 * 60));
    assert!(page.query(WHO).await.body["data"]["viewer"].is_null(), "12 hours have passed");
    let page = world.signed_in(CUSTOMER).await;
    world.pass(Duration::from_secs(30 * 60));
    assert!(page.query(WHO).await.body["data"]["viewer"].is_null(), "idle for 30 minutes");
}

#[tokio::test]
async fn an_app_signs_in_for_a_token() {
    let world = World::start().await;
    let query =
        "mutation($i: SignInInput!) { signIn(input: $i) { token viewer { deviceTokens { id label scopes } } } }";
    let input = json!({"i": {"email": CUSTOMER, "password": PASSWORD, "device": "my phone"}});
    let answer = world.app().send(query, input).await;
    assert!(answer.cookie().is_none(), "{}", answer.body);
    let tokens = &answer.body["data"]["signIn"]["viewer"]["deviceTokens"];
    assert_eq!((&tokens[0]["label"], &tokens[0]["scopes"]), (&json!("my phone"), &json!(["READ", "CALL", "MANAGE"])));
    let token = answer.body["data"]["signIn"]["token"].as_str().expect("a token");
    let app = world.app().with("authorization", &format!("Bearer {token}"));
    assert_eq!(app.query(WHO).await.body["data"]["viewer"]["email"], CUSTOMER);
    assert_eq!(app.query("mutation { signOut { ok } }").await.code(), None);
    let answer = app.query(WHO).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Some("UNAUTHENTICATED")));
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_as_a_hash() {
    let world = World::start().await;
    let owner = world.signed_in(CUSTOMER).await;
    let query = "mutation { createDeviceToken(input: {label: \"a\", scopes: [READ, READ]}) { token deviceToken { id scopes lastUsedAt } } }";
    let made = &owner.query(query).await.body["data"]["createDeviceToken"];
    assert_eq!((&made["deviceToken"]["scopes"], &made["deviceToken"]["lastUsedAt"]), (&json!(["READ"]), &json!(null)));
    let token = made["token"].as_str().expect("a token");
    let app = world.app().with("authorization", &format!("Bearer {token}"));
    let listed = app.query("{ viewer { deviceTokens { id label lastUsedAt } } }").await;
    assert!(listed.body["data"]["viewer"]["deviceTokens"][0]["lastUsedAt"].is_string(), "its use is noted");
    assert!(!listed.body.to_string().contains(token));
    let id = made["deviceToken"]["id"].as_str().expect("an id");
    let stranger = world.signed_in(OTHER).await;
    let revoke = format!("mutation {{ revokeDeviceToken(input: {{id: \"{id}\"}}) {{ id }} }}");
    assert_eq!(stranger.query(&revoke).await.code(), Some("NOT_FOUND"), "not another's");
    assert_eq!(owner.query(&revoke).await.body["data"]["revokeDeviceToken"]["id"], id);
    assert_eq!(app.query(WHO).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(owner.query(&revoke).await.code(), Some("NOT_FOUND"));
}

#[tokio::test]
async fn no_token_makes_one_that_is_good_for_more() {
    let world = World::start().await;
    let app = world.token(CUSTOMER, &["READ", "MANAGE"]).await;
    let query = "mutation($s: [TokenScope!]!) { createDeviceToken(input: {label: \"b\", scopes: $s}) { token } }";
    assert_eq!(app.send(query, json!({"s": ["READ"]})).await.code(), None);
    assert_eq!(app.send(query, json!({"s": ["READ", "CALL"]})).await.code(), Some("FORBIDDEN"));
    assert_eq!(app.send(query, json!({"s": []})).await.code(), Some("INVALID_INPUT"));
    let long = "mutation($l: String!) { createDeviceToken(input: {label: $l, scopes: [READ]}) { token } }";
    for label in [String::new(), "x".repeat(65), "a\nb".to_owned()] {
        assert_eq!(app.send(long, json!({"l": label})).await.code(), Some("INVALID_INPUT"));
    }
}

#[tokio::test]
async fn a_basic_credential_is_no_token() {
    let world = World::start().await;
    for value in ["Basic abc", "Bearer", "Bearer nonsense", "nonsense"] {
        assert_eq!(
            world.app().with("authorization", value).query(WHO).await.status,
            StatusCode::UNAUTHORIZED,
            "{value}"
        );
    }
}
