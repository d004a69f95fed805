//! Tables of what the rules decide, and properties that hold whatever an attacker does.

use super::*;
use crate::flow::Standing;
use proptest::prelude::*;
use schema::entropy::Entropy;
use schema::id::{AccountKey, CredentialId};
use schema::pii::Pii;
use schema::time::Timestamp;

const OWNER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn peer(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 5_060)
}

/// Somebody else behind the same address.
fn neighbour(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 4_000)
}

fn at(millis: u64) -> Mono {
    Mono(1_000_000 + millis * 1_000)
}

fn guard() -> Guard {
    Guard::new(GuardLimits { exempt: Arc::new([Network::LOOPBACK_V4]), ..GuardLimits::default() })
}

/// How many of so many requests at once pass.
fn passed(guard: &mut Guard, ip: IpAddr, tries: usize, now: Mono) -> usize {
    (0..tries).filter(|_| guard.request(ip, None, false, now) == Verdict::Pass).count()
}

#[test]
fn strangers_have_a_rate_and_a_burst() {
    let mut guard = guard();
    assert_eq!(passed(&mut guard, ATTACKER, 100, at(0)), 40);
    assert_eq!(passed(&mut guard, ATTACKER, 100, at(1_000)), 20);
    assert_eq!(passed(&mut guard, ATTACKER, 100, at(1_049)), 0);
    assert_eq!(passed(&mut guard, ATTACKER, 100, at(60_000)), 40);
    assert_eq!(passed(&mut guard, OWNER, 100, at(60_000)), 40, "each source has its own");
    assert_eq!(guard.counts().rate, 60 + 80 + 100 + 60 + 60);
    assert_eq!(guard.request(ATTACKER, None, true, at(60_000)), Verdict::Pass, "a carrier");
    assert_eq!(passed(&mut guard, ip("127.9.9.9"), 100, at(0)), 100, "exempt by configuration");
}

#[test]
fn an_ipv6_network_is_one_source_and_a_mapped_address_is_what_it_is() {
    let mut guard = guard();
    for host in 0..100 {
        guard.request(ip(&format!("2001:db8:0:1::{host:x}")), None, false, at(0));
    }
    assert_eq!(guard.counts().rate, 60);
    assert_eq!(passed(&mut guard, ip("2001:db8:0:2::1"), 100, at(0)), 40);
    passed(&mut guard, ATTACKER, 40, at(0));
    assert_eq!(passed(&mut guard, ip("::ffff:198.51.100.1"), 1, at(0)), 0);
}

#[test]
fn scanners_get_no_answer_wherever_they_are() {
    let mut guard = guard();
    guard.succeeded(peer(OWNER), "alice", at(0));
    for (ip, agent) in
        [(OWNER, "friendly-scanner"), (ip("127.0.0.1"), "SIPVicious 0.3"), (ATTACKER, "VaxSIPUserAgent/3.1")]
    {
        assert_eq!(guard.request(ip, Some(agent), true, at(0)), Verdict::Drop(Why::Scanner), "{agent}");
    }
    assert_eq!(guard.request(ATTACKER, Some("Yealink SIP-T46S 66.84.0.15"), false, at(0)), Verdict::Pass);
    assert_eq!((guard.counts().scanners, guard.counts().sources), (3, 1));
}

#[test]
fn bans_double_to_a_day_and_are_forgotten() {
    let mut guard = guard();
    let mut now = at(0);
    let mut lengths = Vec::new();
    for _ in 0..10 {
        for failure in 0..10 {
            assert_eq!(guard.request(ATTACKER, None, false, now), Verdict::Pass, "failure {failure}");
            guard.failed(ATTACKER, "alice", now);
        }
        let begun = now;
        while guard.request(ATTACKER, None, false, now) == Verdict::Drop(Why::Banned) {
            now = now + Duration::from_secs(60);
        }
        lengths.push(now.since(begun).as_secs() / 60);
    }
    assert_eq!(lengths, [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]);
    now = now + Duration::from_secs(90_000);
    (0..10).for_each(|_| guard.failed(ATTACKER, "alice", now));
    assert_eq!(guard.request(ATTACKER, None, false, now + Duration::from_secs(599)), Verdict::Drop(Why::Banned));
    assert_eq!(guard.request(ATTACKER, None, false, now + Duration::from_secs(600)), Verdict::Pass);
}

/// Its weight is three, a failed authentication's one, and at ten the source is banned.
#[test]
fn a_scanner_that_nobody_forged_weighs_more_than_a_mistake() {
    let mut guard = guard();
    guard.succeeded(peer(OWNER), "alice", at(0));
    for ip in [OWNER, ip("127.0.0.1")] {
        (0..100).for_each(|_| guard.scanned(ip, at(0)));
        assert_eq!(guard.request(ip, None, false, at(0)), Verdict::Pass, "{ip}: others come from there too");
    }
    (0..3).for_each(|_| guard.scanned(ATTACKER, at(0)));
    assert_eq!(guard.request(ATTACKER, None, false, at(0)), Verdict::Pass, "nine");
    guard.failed(ATTACKER, "alice", at(0));
    assert_eq!(guard.request(ATTACKER, None, false, at(0)), Verdict::Drop(Why::Banned));
    assert_eq!(guard.counts().bans, 1);
}

#[test]
fn few_failures_in_five_minutes_ban_nobody() {
    let mut guard = guard();
    (0..9).for_each(|_| guard.failed(ATTACKER, "alice", at(0)));
    guard.failed(ATTACKER, "alice", at(300_000));
    assert_eq!(guard.request(ATTACKER, None, false, at(300_000)), Verdict::Pass);
}

#[test]
fn guesses_from_an_address_that_many_share_slow_the_guessed_name_there_and_ban_nobody() {
    let mut guard = guard();
    guard.succeeded(peer(OWNER), "ann", at(0));
    (0..9).for_each(|_| guard.failed(OWNER, "bob", at(0)));
    assert_eq!(guard.attempt(peer(OWNER), "bob", at(0)), Verdict::Pass);
    (0..11).for_each(|_| guard.failed(OWNER, "bob", at(0)));
    assert_eq!(guard.attempt(peer(OWNER), "bob", at(0)), Verdict::Pass, "one in 30 s");
    assert_eq!(guard.attempt(peer(OWNER), "bob", at(29_999)), Verdict::Slow);
    (0..80).for_each(|_| guard.failed(OWNER, "bob", at(29_999)));
    assert_eq!((passed(&mut guard, OWNER, 1_000, at(29_999)), guard.counts().bans), (1_000, 0));
    assert_eq!(guard.attempt(peer(OWNER), "ann", at(29_999)), Verdict::Pass);
    assert_eq!(guard.attempt(peer(OWNER), "bob", at(29_999)), Verdict::Slow);
    assert_eq!(guard.attempt(peer(OWNER), "bob", at(3_600_000)), Verdict::Pass, "not for ever");
}

#[test]
fn guesses_at_many_names_from_such_an_address_slow_all_that_never_signed_in_there() {
    let mut guard = guard();
    guard.succeeded(peer(OWNER), "ann", at(0));
    (0..99).for_each(|n| guard.failed(OWNER, &format!("name-{n}"), at(0)));
    assert_eq!(
        [guard.attempt(peer(OWNER), "carol", at(0)), guard.attempt(peer(OWNER), "carol", at(0))],
        [Verdict::Pass; 2]
    );
    guard.failed(OWNER, "name-99", at(0));
    assert_eq!(guard.attempt(peer(OWNER), "carol", at(0)), Verdict::Pass, "one in 30 s");
    assert_eq!(guard.attempt(peer(OWNER), "dave", at(0)), Verdict::Slow);
    assert_eq!(guard.attempt(peer(OWNER), "ann", at(0)), Verdict::Pass);
    assert_eq!((passed(&mut guard, OWNER, 1_000, at(0)), guard.counts().accounts_slowed), (1_000, 1));
    assert_eq!(guard.attempt(peer(OWNER), "dave", at(300_000)), Verdict::Pass, "five minutes later");
}

#[test]
fn guesses_at_one_name_from_everywhere_become_slow_but_not_for_its_owner() {
    let mut guard = guard();
    let elsewhere = |n: u8| ip(&format!("203.0.113.{n}"));
    guard.succeeded(peer(OWNER), "alice", at(0));
    (0..20).for_each(|n| guard.failed(elsewhere(n), "alice", at(1)));
    assert_eq!(guard.counts().accounts_slowed, 1);
    let tries =
        [(40, 2, Verdict::Pass), (41, 3, Verdict::Slow), (41, 30_001, Verdict::Slow), (41, 30_002, Verdict::Pass)];
    for (n, millis, verdict) in tries {
        assert_eq!(guard.attempt(peer(elsewhere(n)), "alice", at(millis)), verdict, "{n} after {millis} ms");
    }
    assert_eq!(guard.attempt(peer(OWNER), "alice", at(3)), Verdict::Pass);
    assert_eq!(guard.attempt(peer(elsewhere(41)), "bob", at(3)), Verdict::Pass);
    // From where only another customer comes, a guesser is a stranger.
    guard.succeeded(peer(elsewhere(50)), "mallory", at(3));
    assert_eq!(guard.attempt(peer(elsewhere(50)), "alice", at(3)), Verdict::Slow);
    assert_eq!(guard.attempt(peer(elsewhere(41)), "alice", at(3_700_000)), Verdict::Pass, "an hour later");
}

#[test]
fn a_phone_of_before_a_restart_is_no_stranger_to_its_name_where_it_was() {
    let mut guard = guard();
    let elsewhere = |n: u8| ip(&format!("203.0.113.{n}"));
    let binding = Binding {
        credential: CredentialId::generate(&mut Entropy::from_number(7), Timestamp(0)),
        account: AccountKey(1),
        contact: Pii::new("<sip:ann@192.0.2.1>".to_owned()),
        instance: None,
        reg_id: None,
        path: Vec::new(),
        source: Pii::new(format!("udp {OWNER}:5060")),
        registered_at: Timestamp(0),
        expires_at: Timestamp(1),
    };
    guard.restored(&binding, "ann", at(0));
    (0..20).for_each(|n| guard.failed(elsewhere(n), "ann", at(1)));
    assert_eq!(guard.attempt(peer(elsewhere(40)), "ann", at(2)), Verdict::Pass, "one in 30 s");
    assert_eq!(guard.attempt(peer(OWNER), "ann", at(3)), Verdict::Pass);
}

#[derive(Debug, Clone)]
enum Deed {
    Request(u8),
    Fail(u8, u8),
    Attempt(u8, u8),
    /// By somebody who shares the owner's address, and has an account of its own or none.
    FailAtHome(u8),
    AttemptAtHome(u8),
    SucceedAtHome,
    /// The attacker has accounts of its own.
    Succeed(u8),
    /// Datagrams with the owner's address written on them.
    Forge,
    Wait(u32),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        any::<u8>().prop_map(Deed::Request),
        (any::<u8>(), 0..3_u8).prop_map(|(ip, name)| Deed::Fail(ip, name)),
        (any::<u8>(), 0..3_u8).prop_map(|(ip, name)| Deed::Attempt(ip, name)),
        (0..3_u8).prop_map(Deed::FailAtHome),
        (0..3_u8).prop_map(Deed::AttemptAtHome),
        Just(Deed::SucceedAtHome),
        any::<u8>().prop_map(Deed::Succeed),
        Just(Deed::Forge),
        (0..100_000_u32).prop_map(Deed::Wait),
    ]
}

/// Whoever shares an address with its owner guesses no faster than from elsewhere, and locks nobody out.
#[test]
fn guesses_at_a_name_from_its_own_address_slow_all_but_its_last_flow() {
    let mut guard = guard();
    guard.succeeded(peer(OWNER), "ann", at(0));
    (0..99).for_each(|_| guard.failed(OWNER, "ann", at(0)));
    assert_eq!(
        [guard.attempt(neighbour(OWNER), "ann", at(0)), guard.attempt(neighbour(OWNER), "ann", at(0))],
        [Verdict::Pass; 2]
    );
    guard.failed(OWNER, "ann", at(0));
    assert_eq!(guard.attempt(neighbour(OWNER), "ann", at(0)), Verdict::Pass, "one in 30 s");
    assert_eq!(guard.attempt(neighbour(OWNER), "ann", at(29_999)), Verdict::Slow);
    assert_eq!(guard.attempt(peer(OWNER), "ann", at(29_999)), Verdict::Pass);
    // Wherever its last right answer came from, also within a minute of the one before.
    guard.succeeded(neighbour(OWNER), "ann", at(30_000));
    assert_eq!(guard.attempt(neighbour(OWNER), "ann", at(30_000)), Verdict::Pass);
    assert_eq!(guard.attempt(peer(OWNER), "ann", at(300_000)), Verdict::Pass, "not for ever");
}

/// The ban came before the first right answer from there.
#[test]
fn a_source_that_is_known_is_not_banned_for_connections_either() {
    let mut guard = guard();
    (0..10).for_each(|_| guard.failed(OWNER, "bob", at(0)));
    assert_eq!(guard.standing(OWNER, at(0)), Standing::Banned);
    guard.succeeded(peer(OWNER), "ann", at(0));
    assert_eq!(
        (guard.standing(OWNER, at(0)), guard.request(OWNER, None, false, at(0))),
        (Standing::Known, Verdict::Pass)
    );
}

proptest! {
    #[test]
    fn nobody_locks_an_owner_out_of_his_known_address(deeds in prop::collection::vec(deed(), 0..400)) {
        let (mut guard, mut now) = (guard(), at(0));
        let names = ["alice", "mallory", "nobody"];
        let elsewhere = |n: u8| ip(&format!("203.0.113.{n}"));
        guard.succeeded(peer(OWNER), "alice", now);
        for deed in deeds {
            match deed {
                Deed::Request(n) => { let _ = guard.request(elsewhere(n), None, false, now); },
                Deed::Fail(n, name) => guard.failed(elsewhere(n), names[usize::from(name)], now),
                Deed::Attempt(n, name) => { let _ = guard.attempt(peer(elsewhere(n)), names[usize::from(name)], now); },
                Deed::FailAtHome(name) => (0..20).for_each(|_| guard.failed(OWNER, names[usize::from(name)], now)),
                Deed::AttemptAtHome(name) => { let _ = guard.attempt(neighbour(OWNER), names[usize::from(name)], now); },
                Deed::SucceedAtHome => guard.succeeded(peer(OWNER), "mallory", now),
                Deed::Succeed(n) => guard.succeeded(peer(elsewhere(n)), "mallory", now),
                Deed::Forge => (0..100).for_each(|_| { let _ = guard.request(OWNER, None, false, now); }),
                Deed::Wait(millis) => now = now + Duration::from_millis(millis.into()),
            }
            prop_assert_eq!(guard.request(OWNER, None, false, now), Verdict::Pass);
            prop_assert_eq!(guard.attempt(peer(OWNER), "alice", now), Verdict::Pass);
        }
    }

    #[test]
    fn a_table_is_bounded_and_forgets_first_what_ends_first(
        rows in prop::collection::vec((0..40_u8, 0..1_000_u64), 0..200),
    ) {
        let mut table = Table::new(8);
        let mut last = std::collections::BTreeMap::new();
        for (key, ends) in rows {
            let longest = last.iter().filter(|(other, _)| **other != key).map(|(_, ends)| *ends).max();
            table.put(key, (), Mono(ends + 1), Mono(0));
            last.insert(key, ends);
            last.retain(|key, _| table.peek(key).is_some());
            prop_assert!(table.len() <= 8);
            if let Some(longest) = longest {
                prop_assert!(last.values().max() >= Some(&longest), "what matters longest is still there");
            }
        }
    }
}

#[test]
fn a_flood_from_everywhere_takes_a_bounded_room_and_leaves_bans_alone() {
    let mut guard = guard();
    (0..10).for_each(|_| guard.failed(ATTACKER, "alice", at(0)));
    for n in 0..200_000_u32 {
        let source = IpAddr::V4((0x0a00_0000 + n).into());
        guard.request(source, None, false, at(0));
        guard.failed(ip("203.0.113.9"), &format!("name-{n}"), at(0));
    }
    let home = ip("192.0.2.77");
    guard.succeeded(peer(home), "bob", at(0));
    (0..60_000).for_each(|n| guard.failed(home, &format!("name-{n}"), at(0)));
    assert_eq!((guard.counts().sources, guard.accounts.rows.len()), (SOURCES_MAX, ACCOUNTS_MAX));
    assert_eq!((guard.pairs.rows.len(), guard.newcomers.rows.len()), (ACCOUNTS_MAX, 1));
    assert_eq!(guard.request(ATTACKER, None, false, at(1)), Verdict::Drop(Why::Banned));
}

#[test]
fn an_owners_own_travels_push_out_the_oldest_place_only() {
    let mut guard = guard();
    let place = |n: u64| ip(&format!("203.0.113.{n}"));
    for n in 0..9 {
        guard.succeeded(peer(place(n)), "alice", at(n));
    }
    let known =
        |n| guard.known.has(Source::of(place(n)), at(9)) && guard.known.has_user(Source::of(place(n)), "alice", at(9));
    assert!(!known(0) && (1..9).all(known));
    let week = Duration::from_secs(7 * 86_400);
    assert!(!guard.known.has(Source::of(place(8)), at(8) + week), "not for ever");
}
