//! What is refused before the schema sees it, and what every answer carries.

use crate::world::{CUSTOMER, World};
use axum::http::StatusCode;
use serde_json::json;

const SIGNED_IN: &str = "{ viewer { id } }";

#[tokio::test]
async fn only_json_posts_are_operations() {
    let world = World::start().await;
    let app = world.app();
    assert_eq!(app.get("/graphql?query=%7Bviewer%7Bid%7D%7D").await.status, StatusCode::METHOD_NOT_ALLOWED);
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin1",
    ] {
        let answer = app.with("content-type", media).query(SIGNED_IN).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some("INVALID_INPUT")),
            "{media}"
        );
    }
    let answer = app.with("content-type", "application/json; charset=utf-8").query(SIGNED_IN).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &json!({"data": {"viewer": null}})));
    for body in [
        "",
        "nonsense",
        "[]",
        "[{\"query\":\"{ viewer { id } }\"}]",
        "{}",
        "{\"query\":1}",
        "{\"query\":\"{ viewer { id } }\",\"x\":1}",
    ] {
        let answer = app.post(body.to_owned()).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Some("INVALID_INPUT")), "{body}");
    }
    let large = json!({"query": SIGNED_IN, "variables": {"x": "x".repeat(64 * 1024)}}).to_string();
    assert_eq!(app.post(large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(app.with("accept", "text/html").query(SIGNED_IN).await.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn the_media_type_of_the_answer_is_negotiated() {
    let world = World::start().await;
    for (accept, media, status) in [
        ("application/json", "application/json; charset=utf-8", StatusCode::OK),
        ("*/*", "application/graphql-response+json; charset=utf-8", StatusCode::BAD_REQUEST),
        (
            "application/graphql-response+json",
            "application/graphql-response+json; charset=utf-8",
            StatusCode::BAD_REQUEST,
        ),
    ] {
        let answer = world.app().with("accept", accept).query("{ nonsense }").await;
        assert_eq!(answer.headers["content-type"], media);
        assert_eq!((answer.status, answer.code()), (status, Some("INVALID_INPUT")), "{accept}");
        assert!(answer.body.get("data").is_none(), "a refused request has no data");
    }
}

#[tokio::test]
async fn a_page_changes_things_only_from_our_origin_with_the_mark() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let query = "mutation { revokeDeviceToken(input: {id: \"x\"}) { id } }";
    let refused = [
        page.without("origin"),
        page.without("x-csrf"),
        page.with("x-csrf", "0"),
        page.with("origin", "https://evil.example"),
        page.with("origin", "null"),
        page.without("cookie").without("x-csrf"),
        page.without("cookie").with("origin", "https://evil.example"),
        page.without("cookie").without("origin").with("sec-fetch-site", "cross-site"),
        world.app().with("authorization", "Bearer x").with("origin", "https://evil.example"),
    ];
    for client in refused {
        let answer = client.query(query).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Some("FORBIDDEN")), "{:?}", client.headers);
        assert!(answer.body.get("data").is_none());
    }
    for client in [page.clone(), page.with("origin", "https://app.example.test")] {
        assert_eq!(client.query(query).await.code(), Some("NOT_FOUND"), "it reached the mutation");
    }
    let reading = page.without("origin").without("x-csrf").query(SIGNED_IN).await;
    assert!(reading.body["data"]["viewer"]["id"].is_string(), "reading changes nothing");
    assert_eq!(world.app().query(query).await.code(), Some("UNAUTHENTICATED"), "an app is no page");
}

#[tokio::test]
async fn costly_queries_are_refused_by_name() {
    let world = World::start().await;
    let client = world.signed_in(CUSTOMER).await;
    let money = "amount currency micros";
    let call = format!(
        "id state mode dialled startedAt cost {{ {money} }} legs {{ side cost {{ {money} }} rate {{ deck prefix destination minimumSeconds }} }} explanation {{ candidates {{ carrier prefix outcome }} }}"
    );
    let page = format!("edges {{ node {{ {call} }} }}");
    let pages: String = (0..5).map(|n| format!("p{n}: calls(first: 100) {{ {page} }} ")).collect();
    for (query, says) in [
        (
            format!("{{ {} }}", (0..11).map(|n| format!("a{n}: viewer {{ id }} ")).collect::<String>()),
            "query: at most 10 aliases",
        ),
        (format!("{{ viewer {{ account {{ {pages} }} }} }}"), "Query is too complex."),
        (
            "{ viewer { operator { accounts { edges { node { ledger { edges { node { call { cost { amount }}}}}}}}}}}"
                .to_owned(),
            "query: at most 10 levels of fields",
        ),
    ] {
        let answer = client.query(&query).await;
        assert_eq!((answer.code(), answer.message()), (Some("QUERY_TOO_COSTLY"), says));
    }
    let answer = client.query("mutation { a: signOut { ok } b: signIn(input: {email: \"a\", password: \"b\"}) { token } c: signIn(input: {email: \"a\", password: \"b\"}) { token } }").await;
    assert_eq!(answer.code(), Some("QUERY_TOO_COSTLY"));
    assert!(client.query(SIGNED_IN).await.body["data"]["viewer"]["id"].is_string(), "nothing of it was done");
}

#[tokio::test]
async fn wrong_arguments_are_named_with_their_value() {
    let world = World::start().await;
    let client = world.signed_in(CUSTOMER).await;
    for (argument, says) in [
        ("calls(first: 0)", "first = 0: must be 1 to 100"),
        ("calls(first: 101)", "first = 101: must be 1 to 100"),
        ("calls(after: \"nonsense\")", "after = (…): not a cursor of this list"),
        (
            "calls(filter: {destinationPrefix: \"44\"})",
            "filter.destinationPrefix = (…): must be a plus and at most 15 digits",
        ),
    ] {
        let answer = client
            .query(&format!("{{ viewer {{ account {{ {argument} {{ pageInfo {{ hasNextPage }} }} }} }} }}"))
            .await;
        assert_eq!((answer.code(), answer.message()), (Some("INVALID_INPUT"), says), "{}", answer.body);
    }
    let answer = client
        .query("{ viewer { account { calls(filter: {from: \"yesterday\"}) { pageInfo { hasNextPage } } } } }")
        .await;
    assert_eq!(answer.code(), Some("INVALID_INPUT"), "{}", answer.body);
}

#[tokio::test]
async fn introspection_and_suggestions_are_for_development() {
    let query = "{ __schema { types { name fields { type { name ofType { name ofType { name } } } } } } }";
    let answer = World::start_with(true).await.app().query(query).await;
    assert!(answer.body["data"]["__schema"]["types"].is_array(), "{}", answer.body);
    let production = World::start_with(false).await.app();
    assert!(production.query(query).await.body["data"]["__schema"].is_null());
    assert!(!production.query("{ viewe { id } }").await.message().contains("viewer"));
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_protect_it() {
    let world = World::start().await;
    let client = world.app();
    for answer in [
        client.get("/").await,
        client.get("/nothing-here").await,
        client.query(SIGNED_IN).await,
        client.get("/healthz").await,
    ] {
        let policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
        assert_eq!(answer.headers["content-security-policy"], policy);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "same-origin");
        assert!(!answer.headers.contains_key("strict-transport-security"), "this server is not https");
        assert!(!answer.headers.contains_key("server"));
    }
    assert_eq!(client.query(SIGNED_IN).await.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn the_dashboard_is_served_from_the_binary() {
    let world = World::start().await;
    let client = world.app();
    let page = client.get("/").await;
    assert_eq!((page.status, &page.headers["content-type"]), (StatusCode::OK, &"text/html".parse().expect("a value")));
    assert_eq!(page.headers["cache-control"], "no-cache");
    let known = client.with("if-none-match", page.headers["etag"].to_str().expect("text")).get("/").await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    for path in ["/nothing-here", "/../Cargo.toml", "/assets/", "/%2e%2e/Cargo.toml"] {
        assert_eq!(client.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let page = page.body.as_str().expect("text").to_owned();
    // The page that says how to get a dashboard names one file, a dashboard several of names that change with them.
    let files: Vec<_> =
        page.split('"').filter(|text| text.starts_with('/') && text.contains('.') && !text.contains('>')).collect();
    let is_named_by_content = |path: &str| path.starts_with("/assets/");
    assert!(files == ["/missing.css"] || files.iter().any(|path| is_named_by_content(path)), "{page}");
    for path in files {
        let file = client.get(path).await;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        let lasts = if is_named_by_content(path) { "public, max-age=31536000, immutable" } else { "no-cache" };
        assert_eq!(file.headers["cache-control"], lasts, "{path}");
    }
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() {
    let world = World::start().await;
    assert_eq!(world.app().get("/healthz").await.status, StatusCode::OK);
    assert_eq!(world.app().get("/readyz").await.status, StatusCode::OK);
    let mut socket = world.signed_in(CUSTOMER).await.ready_socket().await;
    world.drain.send_replace(true);
    assert_eq!(socket.closed().await, 1001, "sockets are opened again at the next process");
    assert_eq!(world.app().get("/healthz").await.status, StatusCode::OK);
    assert_eq!(world.app().get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
}
