//! SIGTERM with a thousand calls up, and a kill: the next process carries them on.

use sip::demo::phone::PhoneCall;
use std::time::Duration;
use tests::phone::TestPhone;
use tests::site::{Accounts, END, Site};
use tests::verdict::judge;
use tests::wire::Side;
use tokio::time::Instant;

const PHONES: u32 = 10;
const CALLS_EACH: u32 = 100;
/// Calls dialled at a time: so few that wait are no queue, and none is refused for overload.
const AT_ONCE: u32 = 5;
const ACCOUNTS: [Accounts; 1] = [Accounts { word: "u", count: PHONES, credit: "100.00" }];

/// A number dialled once: of the n-th call of a phone, to a callee who answers at once.
fn number(phone: u32, call: u32) -> String {
    // The other side ends every tenth call itself, 15 seconds after its answer.
    let behaviour = if call.is_multiple_of(10) { 82 } else { 0 };
    format!("1555{:05}{behaviour:02}", phone * CALLS_EACH + call)
}

/// Waits for the answer of a call; refused for overload on a busy machine it is dialled again.
async fn answered(phone: &mut TestPhone, n: u32, n_th: u32, call: &mut PhoneCall) {
    for again in 1..20 {
        match phone.outcome(*call).await {
            Ok(()) => return,
            Err(status) => assert_eq!(status, 503, "overload is the only reason to refuse"),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        *call = phone.dial(&number(n, n_th + again * 1_000)).await;
    }
    panic!("refused again and again");
}

async fn calls_up(site: &Site) -> Vec<(TestPhone, Vec<PhoneCall>)> {
    let mut phones = Vec::new();
    for n in 0..PHONES {
        let mut phone = site.phone("u", n).await;
        let mut calls = Vec::new();
        for first in (0..CALLS_EACH).step_by(AT_ONCE as usize) {
            let mut dialled = Vec::new();
            for n_th in first..CALLS_EACH.min(first + AT_ONCE) {
                dialled.push((n_th, phone.dial(&number(n, n_th)).await));
            }
            for (n_th, mut call) in dialled {
                answered(&mut phone, n, n_th, &mut call).await;
                calls.push(call);
            }
        }
        phones.push((phone, calls));
    }
    phones
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_thousand_calls_outlive_a_kill_and_a_drain_and_none_is_billed_wrong() {
    let site = Site::make(&ACCOUNTS, "").await;
    let server = site.serve().await;
    let phones = calls_up(&site).await;
    server.kill().expect("it lives");
    let server = site.serve().await;

    let drained = Instant::now();
    server.terminate();
    let ended = server.ended(END).await;
    let exit = drained.elapsed();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    site.audited().await.expect("clean while no server runs");

    let started = Instant::now();
    let server = site.serve().await;
    let ready = started.elapsed();
    let mut probe = site.phone("u", 0).await;
    let call = probe.dial("15559999900").await;
    probe.outcome(call).await.expect("a new call is answered");
    let answered = started.elapsed();
    println!("exit after {exit:?}, ready after {ready:?}, first new call answered after {answered:?}");
    probe.hang_up(call).await;
    for (mut phone, calls) in phones {
        for (n, call) in calls.into_iter().enumerate() {
            if n.is_multiple_of(10) {
                assert!(!phone.ended(call).await, "the other side ended it");
            } else {
                phone.hang_up(call).await;
            }
        }
    }
    site.settled().await.expect("nothing is left");
    site.stop(server).await;
    site.audited().await.expect("clean");
    let verdict = judge(&site, &ACCOUNTS, &[]).await.unwrap_or_else(|findings| panic!("{findings}"));
    assert_eq!(verdict.lost, 0, "nobody of them is found gone");
    assert_eq!(verdict.answered, (PHONES * CALLS_EACH + 1) as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_refuses_new_calls_and_says_when_to_come_back() {
    let site = Site::make(&ACCOUNTS, "").await;
    // What is being written keeps it from ending at once.
    let mut server =
        site.launch_traced(&["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=700ms"]);
    Site::ready(&mut server).await;
    let mut phone = site.phone("u", 0).await;
    let answered = phone.talk("15550000100").await;
    let being_set_up = phone.dial("15550000200").await;
    site.has_live_calls(2).await;
    server.terminate();
    server.until_stderr("draining", |said| said.contains("no more calls are let in")).await;
    let refused = phone.dial("15550000300").await;
    assert_eq!(phone.outcome(refused).await, Err(503));
    let refusal = site.wire.talks(Side::Caller)["15550000300"];
    assert!(refusal.retry_after_s.is_some_and(|seconds| (1..=60).contains(&seconds)), "{refusal:?}");
    let ended = server.ended(END).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let server = site.serve().await;
    let fresh = phone.talk("15550000400").await;
    phone.hang_up(fresh).await;
    phone.hang_up(answered).await;
    phone.give_up(being_set_up).await;
    site.settled().await.expect("nothing is left");
    site.stop(server).await;
    site.audited().await.expect("clean");
}
