//! Ten times as many calls as the node takes: the surplus is told so at once, what is admitted is carried to its end, and what
//! is written is what was carried. And all phones at once after a restart.

use std::time::Duration;
use tests::phone::TestPhone;
use tests::program::Program;
use tests::server::TestServer;
use tests::sipp::{MESSAGES, Sipp};
use tests::site::{Accounts, Site};
use tests::verdict::judge;
use tests::wire::{Side, Talk};
use tokio::time::Instant;

const ACCOUNTS: [Accounts; 1] = [Accounts { word: "u", count: 20, credit: "100.00" }];

/// So many calls, each of half a second, each to a number of its own.
fn load(site: &Site, calls: u32, rate: u32) -> Sipp {
    let caller = |n: u32| (format!("u{}", n % 20), format!("pw{}", n % 20), format!("1555{n:05}00"));
    Sipp {
        server: site.sip,
        transport: "u1",
        calls,
        rate,
        at_once: calls,
        hold_ms: 500,
        callers: (0..calls).map(caller).collect(),
        patience_ms: 20_000,
        may_be_refused: true,
    }
}

/// How often a new call was refused before it was challenged; and how often whoever was let in met the limit again behind it.
async fn shed(site: &Site) -> (usize, usize) {
    let mut early = 0;
    for reason in ["rate", "delay", "queue"] {
        early += site.metric(&format!("ringfence_sip_shed{{reason=\"{reason}\"}}")).await;
    }
    (early, site.metric("ringfence_calls_shed ").await)
}

/// What became of the calls: those refused, those answered; none else. An INVITE that SIPp repeated because its challenge came late
/// may have been refused although the call went on.
fn parted(site: &Site) -> (Vec<Talk>, Vec<Talk>) {
    let talks = site.wire.talks(Side::Caller);
    let (answered, refused): (Vec<_>, Vec<_>) = talks.into_values().partition(|talk| talk.answered.is_some());
    for talk in &refused {
        assert_eq!(talk.refused, Some(503), "{talk:?}");
        assert!(talk.retry_after_s.is_some_and(|seconds| (1..=60).contains(&seconds)), "{talk:?}");
    }
    (refused, answered)
}

/// How long each took, shortest first.
fn sorted(talks: &[Talk], took: impl Fn(&Talk) -> Option<Duration>) -> Vec<Duration> {
    let mut all: Vec<_> = talks.iter().filter_map(took).collect();
    all.sort_unstable();
    all
}

/// All calls are over: what was seen outside is what was written.
async fn right(site: &Site, server: Program) -> String {
    site.settled().await.expect("nothing is left");
    server.terminate();
    let ended = server.ended(tests::site::END).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    site.audited().await.expect("clean");
    judge(site, &ACCOUNTS, &[]).await.unwrap_or_else(|findings| panic!("{findings}"));
    ended.stdout + &ended.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_woken_take_the_place_of_no_other_thread() {
    const SCHED_OTHER: u32 = 0;
    const SCHED_BATCH: u32 = 3;
    let site = Site::make(&ACCOUNTS, "").await;
    let server = site.serve().await;
    let policies = server.policies();
    for (name, policy) in [("tokio-rt-worker", SCHED_BATCH), ("sip", SCHED_OTHER), ("journal-write", SCHED_OTHER)] {
        let mut threads = policies.iter().filter(|(thread, _)| thread == name).peekable();
        assert!(threads.peek().is_some() && threads.all(|(_, of)| *of == policy), "{name}: {policies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_rate_is_refused_at_once_and_what_is_admitted_is_carried() {
    const PER_SECOND: usize = 20;
    let limits = format!("[limits]\ncalls_per_second = {PER_SECOND}\nexempt_ips = [\"127.0.0.0/8\"]\n");
    let site = Site::make(&ACCOUNTS, &limits).await;
    let server = site.serve().await;
    let mut phone = site.phone("u", 0).await;
    let (mut up, begun) = (Vec::new(), Instant::now());
    for n in 0..4 {
        up.push(phone.talk(&format!("1555{}00", 90_000 + n)).await);
    }
    // A call in the quiet takes a challenge and two commits; a refusal takes neither.
    let quiet = begun.elapsed() / 4;
    let (began, folder) = (Instant::now(), site.place.folder.path());
    let sipp = load(&site, 800, 200).start(folder);
    for call in up {
        tokio::time::sleep(Duration::from_millis(600)).await;
        phone.hang_up(call).await;
    }
    let ended = sipp.ended(Duration::from_secs(60)).await;
    assert_eq!(ended.code, Some(0), "every call was refused or carried: {}", ended.stderr);
    let lasted = began.elapsed();
    site.wire.read_sipp(&std::fs::read_to_string(folder.join(MESSAGES)).expect("SIPp kept its messages"));

    let (refused, answered) = parted(&site);
    let most = PER_SECOND + PER_SECOND * usize::try_from(lasted.as_secs() + 2).expect("short");
    assert!((PER_SECOND..=most).contains(&answered.len()), "{} of {most} answered", answered.len());
    let (early, late) = shed(&site).await;
    let counted = refused.len()..=refused.len() * 21 / 20;
    assert!(counted.contains(&(early + late)) && late * 20 <= early, "{early} and {late} of {} counted", refused.len());
    let told = sorted(&refused, |talk| Some(talk.refused_at?.since(talk.invited?)));
    let (median, late) = (told[told.len() / 2], told[told.len() * 95 / 100]);
    let at_once = Duration::from_millis(100).max(10 * quiet);
    assert!(
        median < at_once && late < 10 * at_once,
        "told after {median:?}, {late:?}; a call in the quiet took {quiet:?}"
    );
    let byes = sorted(&answered, |talk| Some(talk.bye_answered?.0.since(talk.bye_sent?)));
    let slowest = *byes.last().expect("BYEs");
    assert!(byes.len() == answered.len() && slowest < Duration::from_secs(3), "the slowest BYE took {slowest:?}");

    let log = right(&site, server).await;
    let lines = log.matches("too much to do").count();
    let seconds = usize::try_from(lasted.as_secs()).expect("short");
    assert!((1..=seconds + 2).contains(&lines), "{lines} lines in {seconds} s: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_disk_is_too_slow_calls_are_refused_before_they_pile_up() {
    let site = Site::make(&ACCOUNTS, "[limits]\nexempt_ips = [\"127.0.0.0/8\"]\n").await;
    let slow = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=400ms"];
    let mut server = site.launch_traced(&slow);
    Site::ready(&mut server).await;
    let folder = site.place.folder.path();
    let sipp = load(&site, 800, 200).start(folder);
    let ended = sipp.ended(Duration::from_secs(60)).await;
    assert_eq!(ended.code, Some(0), "every call was refused or carried: {}", ended.stderr);
    site.wire.read_sipp(&std::fs::read_to_string(folder.join(MESSAGES)).expect("SIPp kept its messages"));
    let (refused, answered) = parted(&site);
    let (early, late) = shed(&site).await;
    assert!(
        answered.len() >= 20 && early >= 100 && early + late <= refused.len() * 21 / 20,
        "{} {early} {late}",
        answered.len()
    );
    // Until it was noticed some had come in; none of them waited for all the others.
    let waited = sorted(&answered, |talk| Some(talk.answered?.since(talk.invited?)));
    let slowest = *waited.last().expect("answers");
    assert!(slowest < Duration::from_secs(6), "the slowest set-up took {slowest:?}");
    right(&site, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_that_all_register_after_a_restart_are_let_in_and_calls_go_on() {
    const PHONES: u32 = 200;
    let server = TestServer::start_to_restart().await;
    server.accounts(PHONES, "10.00", "live_calls = 20, calls_per_minute = 1000").await;
    let address = server.addresses().sip_udp.expect("UDP");
    let mut caller = TestPhone::start(address, "u0", "pw0").await;
    let mut phones = Vec::new();
    for n in 1..PHONES {
        let mut phone = TestPhone::start(address, &format!("u{n}"), &format!("pw{n}")).await;
        phone.register().await;
        phones.push(phone);
    }
    let server = server.restarted().await;
    let up = caller.talk("15550000000").await;
    let mut storm = tokio::task::JoinSet::new();
    let began = Instant::now();
    for mut phone in phones {
        storm.spawn(async move {
            // Whoever is told to come back later does, here sooner than phones do.
            while let Err(status) = phone.try_register().await {
                assert!(status == 503 && began.elapsed() < Duration::from_secs(40), "{status}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    let call = caller.talk("15550000100").await;
    let set_up = began.elapsed();
    caller.hang_up(up).await;
    caller.hang_up(call).await;
    while let Some(registered) = storm.join_next().await {
        registered.expect("each is registered");
    }
    assert!(set_up < Duration::from_secs(5), "a call was set up after {set_up:?}");
    assert_eq!(server.server.sip_counts().registrations, usize::try_from(PHONES - 1).expect("small"));
    server.left_clean().await;
}
