//! The dashboard in a real browser, while real SIP calls are charged.

use schema::call::HangupSide;
use schema::money::Micros;
use std::net::SocketAddr;
use tests::browser::Browser;
use tests::phone::TestPhone;
use tests::server::{CALLER_ID, PASSWORD, SIP_PASSWORD, TestServer};

/// A number that answers at once and stays; 0.60 a minute.
const NUMBER: &str = "+447700900000";
const SHOWN_NUMBER: &str = "+44 770 090 0000";

/// An element by its name for tests.
fn part(name: &str) -> String {
    format!("[data-test={name}]")
}

/// An element of a live or a recent call.
fn of(row: &str, name: &str) -> String {
    format!("[data-test={row}] [data-test={name}]")
}

/// The amount that a text such as `€9.9900` shows.
fn amount(text: &str) -> Option<Micros> {
    text.trim_start_matches('€').parse().ok()
}

async fn start(username: &str) -> (TestServer, TestPhone, Browser) {
    let server = TestServer::start().await;
    server.customer(username, "10.00").await;
    let phone = TestPhone::start(server.addresses().sip_udp.expect("UDP"), username, SIP_PASSWORD).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", server.addresses().http)).await;
    (server, phone, browser)
}

async fn sign_in(browser: &Browser, username: &str, password: &str) {
    browser.enter("#email", &format!("{username}@example.test")).await;
    browser.enter("#password", password).await;
    browser.click(&part("sign-in")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_signs_in_watches_a_call_being_charged_and_hangs_it_up() {
    let (server, mut phone, browser) = start("ada").await;
    let account = server.account("ada").await;

    sign_in(&browser, "ada", "not the password").await;
    browser.see_words(&part("sign-in-problem"), "do not match").await;
    assert_eq!(browser.cookies().await.len(), 0, "no session without the password");
    assert_eq!(browser.text(&part("remaining")).await, None);
    sign_in(&browser, "ada", PASSWORD).await;
    assert_eq!(browser.wait(&part("remaining"), amount).await, Micros(10_000_000));
    assert_eq!(browser.wait(&part("available"), amount).await, Micros(10_000_000));
    assert_eq!(browser.see(&part("sip-username")).await, "ada");
    assert!(browser.see(&part("no-recent-calls")).await.starts_with("None yet"));
    assert_cookie(&browser).await;

    let call = phone.talk(NUMBER).await;
    browser.see_words(&of("live-call", "state"), "In call").await;
    browser.see_words(&part("live-call"), SHOWN_NUMBER).await;
    assert_eq!(browser.wait(&part("burn"), amount).await, Micros(600_000), "a minute's price");
    watch_money_fall(&browser).await;

    browser.click(&of("live-call", "hang-up")).await;
    assert!(!phone.ended(call).await, "the server ended the call");
    browser.gone(&part("live-call")).await;
    browser.see_words(&of("recent-call", "outcome"), "Answered").await;
    browser.see_words(&part("recent-call"), SHOWN_NUMBER).await;
    server.until("the call is settled", async |server| server.actors.counts().live_calls == 0).await;
    let cdrs = server.history(account).await;
    let [cdr] = cdrs.as_slice() else { panic!("one call, not {}", cdrs.len()) };
    assert_eq!(cdr.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Service));
    assert_eq!(browser.wait(&of("recent-call", "cost"), amount).await, cdr.charged);
    let left = Micros(10_000_000) - cdr.charged;
    browser.wait(&part("remaining"), |text| (amount(text)? == left).then_some(())).await;
    browser.wait(&part("reserved"), |text| (amount(text)? == Micros::ZERO).then_some(())).await;

    browser.click(&format!("{} summary", part("recent-call"))).await;
    browser.see_words(&part("recent-call"), "Attestation A: the number was assigned").await;
    browser.see_words(&part("recent-call"), "Hung up from the dashboard").await;
    check_a_price(&browser).await;
    browser.click(&part("sign-out")).await;
    browser.see(&part("sign-in")).await;
    assert_eq!(browser.text(&part("remaining")).await, None);
    assert_eq!(browser.cookies().await.len(), 0, "the session's cookie is gone");
    assert_quiet(&browser, server.addresses().http).await;
    browser.close().await;
    server.server.stop().await.expect("the server stops");
}

/// Both figures of the account and of the call move, and agree with each other.
async fn watch_money_fall(browser: &Browser) {
    let reserved = browser.wait(&part("reserved"), |text| amount(text).filter(|held| *held > Micros::ZERO)).await;
    assert!(reserved < Micros(10_000_000), "a hold, not everything: {reserved}");
    let mut last = (Micros(10_000_000), Micros::ZERO);
    for _ in 0..2 {
        let below = |text: &str| amount(text).filter(|remaining| *remaining < last.0);
        let remaining = browser.wait(&part("remaining"), below).await;
        let above = |text: &str| amount(text).filter(|cost| *cost > last.1);
        let cost = browser.wait(&of("live-call", "cost"), above).await;
        last = (remaining, cost);
    }
    let both = browser
        .script(
            "return arguments[0].split(' ').map((name) => document.querySelector(`[data-test=${name}]`).innerText)",
            "remaining accrued",
        )
        .await;
    let shown: Vec<Micros> = both.as_array().into_iter().flatten().filter_map(|text| amount(text.as_str()?)).collect();
    assert_eq!(shown.iter().copied().sum::<Micros>(), Micros(10_000_000), "remaining and accrued are all there was");
    browser
        .wait(&of("live-call", "duration"), |text| text.strip_prefix("0:")?.parse::<u8>().ok().filter(|s| *s >= 1))
        .await;
    browser.see_words(&of("live-call", "funded"), ":").await;
    assert!(browser.title().await.contains("€9.9"), "the title has the balance for whoever is in another tab");
}

async fn check_a_price(browser: &Browser) {
    browser.enter("#price-number", "+44 7700 900123").await;
    browser.click(&part("price-check")).await;
    browser.see_words(&part("quote"), "€0.60 a minute").await;
    browser.see_words(&part("quote"), "Fiction UK").await;
    browser.see_words(&part("affordable"), "min").await;
    let presented = browser.see(&part("presented")).await.replace(' ', "");
    assert!(presented.contains(CALLER_ID), "{presented}");
    browser.enter("#price-number", "+999 123 456").await;
    browser.click(&part("price-check")).await;
    browser.see_words(&part("refusal"), "would be refused").await;
    assert_eq!(browser.text(&part("affordable")).await, None);
}

/// The session's cookie cannot be read by scripts, sent from elsewhere, or kept.
async fn assert_cookie(browser: &Browser) {
    let cookies = browser.cookies().await;
    let [cookie] = cookies.as_slice() else { panic!("one cookie, not {}", cookies.len()) };
    assert_eq!(cookie["name"], "__Host-sid");
    assert_eq!((cookie["httpOnly"].as_bool(), cookie["secure"].as_bool()), (Some(true), Some(true)));
    assert_eq!((cookie["sameSite"].as_str(), cookie["path"].as_str()), (Some("Strict"), Some("/")));
    assert_eq!(cookie["expiry"].as_u64(), None, "it ends with the browser");
    assert_eq!(
        browser.script("return document.cookie + Object.keys(localStorage) + Object.keys(sessionStorage)", "").await,
        ""
    );
}

/// Nothing was asked of another host, and the browser had nothing to object to.
async fn assert_quiet(browser: &Browser, server: SocketAddr) {
    assert_eq!(browser.console().await, Vec::<String>::new());
    let requested = browser.requested().await;
    let ours = [format!("http://{server}/"), format!("ws://{server}/")];
    let foreign = requested.iter().filter(|url| !ours.iter().any(|ours| url.starts_with(ours.as_str())));
    assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&String>::new());
    for wanted in [format!("http://{server}/graphql"), format!("ws://{server}/graphql/ws")] {
        assert!(requested.contains(&wanted), "{wanted} is not among {requested:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_reach_no_other_host_and_the_tests_would_see_it_try() {
    let (server, _phone, browser) = start("bob").await;
    // Loopback, and nobody listens.
    let elsewhere = "http://127.0.0.1:9/";
    let ask = "return fetch(arguments[0]).then(() => 'came', (error) => error.name)";
    browser.see(&part("sign-in")).await;
    assert_eq!(browser.script(ask, elsewhere).await, "TypeError");
    let console = browser.console().await;
    assert!(console.iter().any(|line| line.contains("Content Security Policy")), "{console:?}");
    // Where no policy forbids it, the request leaves, and is seen.
    browser.open("about:blank").await;
    assert_eq!(browser.script(ask, elsewhere).await, "TypeError");
    assert!(browser.requested().await.iter().any(|url| url == elsewhere));
    browser.close().await;
    server.server.stop().await.expect("the server stops");
}
