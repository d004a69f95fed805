//! Registrations with carriers, by hand and at random.

use super::*;
use proptest::prelude::*;

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000)
}

const SILENT: Input = Input::Failed { down: TrunkDown::Silent, retry_after_s: None };

#[test]
fn a_registration_is_refreshed_before_it_ends_and_left_at_the_end() {
    let mut entropy = Entropy::from_number(1);
    let mut registration = Registration::new(3_600, at(0));
    assert_eq!((registration.down(), registration.next_time()), (Some(TrunkDown::Unregistered), Some(at(0))));
    assert_eq!(registration.on(Input::Time, at(0), &mut entropy), Some(Step::Register { expires_s: 3_600 }));
    assert_eq!(registration.on(Input::Time, at(1), &mut entropy), None, "one is under way");
    assert_eq!(registration.on(Input::Accepted { expires_s: 100 }, at(1), &mut entropy), None);
    assert_eq!(registration.down(), None);
    let next = registration.next_time().expect("a refresh");
    assert!((at(61)..at(86)).contains(&next), "{next:?}");
    assert_eq!(registration.on(Input::Time, next, &mut entropy), Some(Step::Register { expires_s: 3_600 }));
    registration.on(Input::Accepted { expires_s: 100 }, next, &mut entropy);
    assert_eq!(registration.on(Input::Leave, next, &mut entropy), Some(Step::Unregister));
    assert_eq!(registration.on(SILENT, next, &mut entropy), Some(Step::Gone));
    assert_eq!(registration.next_time(), None);
}

#[test]
fn one_that_cannot_be_refreshed_holds_to_its_end() {
    let mut entropy = Entropy::from_number(1);
    let mut registration = Registration::new(100, at(0));
    registration.on(Input::Time, at(0), &mut entropy);
    registration.on(Input::Accepted { expires_s: 100 }, at(0), &mut entropy);
    let next = registration.next_time().expect("a refresh");
    registration.on(Input::Time, next, &mut entropy);
    registration.on(SILENT, next + Duration::from_secs(5), &mut entropy);
    assert_eq!(registration.down(), None);
    registration.on(Input::Time, at(100), &mut entropy);
    assert_eq!(registration.down(), Some(TrunkDown::Silent));
}

#[test]
fn a_423_is_followed_once_and_no_further_than_a_day() {
    let mut entropy = Entropy::from_number(1);
    for (first, second, expected) in [(600, 700, None), (600, 600, None), (60, 60, None), (90_000, 90_000, None)] {
        let mut registration = Registration::new(60, at(0));
        registration.on(Input::Time, at(0), &mut entropy);
        let raised = registration.on(Input::TooBrief { min_s: first }, at(0), &mut entropy);
        assert_eq!(raised, (first == 600).then_some(Step::Register { expires_s: 600 }));
        assert_eq!(registration.on(Input::TooBrief { min_s: second }, at(0), &mut entropy), expected);
        assert_eq!(registration.down(), Some(TrunkDown::RegistrationRefused));
    }
}

#[test]
fn failures_back_off_and_what_stays_wrong_is_asked_seldom() {
    let mut entropy = Entropy::from_number(1);
    let mut waits = |down, retry_after_s| {
        let (mut registration, mut now, mut waits) = (Registration::new(60, at(0)), at(0), Vec::new());
        for _ in 0..6 {
            assert!(registration.on(Input::Time, now, &mut entropy).is_some());
            registration.on(Input::Failed { down, retry_after_s }, now, &mut entropy);
            let next = registration.next_time().expect("another try");
            waits.push(next.since(now).as_secs());
            now = next;
        }
        waits
    };
    for (wait, most) in waits(TrunkDown::Silent, None).into_iter().zip([30, 60, 120, 240, 300, 300]) {
        assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
    }
    assert!(waits(TrunkDown::CredentialsRefused, None).iter().all(|wait| (150..=300).contains(wait)));
    assert!(waits(TrunkDown::RegistrationRefused, Some(1_000)).iter().all(|wait| *wait == 1_000));
    assert!(waits(TrunkDown::RegistrationRefused, Some(u32::MAX)).iter().all(|wait| *wait == 3_600));
}

#[test]
fn a_doubt_brings_the_next_try_forward_but_not_where_credentials_are_wrong() {
    let mut entropy = Entropy::from_number(1);
    for (down, is_sooner) in [(TrunkDown::Silent, true), (TrunkDown::CredentialsRefused, false)] {
        let mut registration = Registration::new(60, at(0));
        registration.on(Input::Time, at(0), &mut entropy);
        registration.on(Input::Failed { down, retry_after_s: None }, at(0), &mut entropy);
        registration.on(Input::Doubted, at(5), &mut entropy);
        assert_eq!(registration.next_time() == Some(at(10)), is_sooner, "{down:?}");
    }
}

fn inputs() -> impl Strategy<Value = (u64, Input)> {
    let down = prop_oneof![
        Just(TrunkDown::Silent),
        Just(TrunkDown::RegistrationRefused),
        Just(TrunkDown::CredentialsRefused),
    ];
    let seconds = prop_oneof![0..90_000_u32, Just(u32::MAX)];
    let input = prop_oneof![
        4 => Just(Input::Time),
        3 => seconds.clone().prop_map(|expires_s| Input::Accepted { expires_s }),
        1 => seconds.clone().prop_map(|min_s| Input::TooBrief { min_s }),
        2 => (down, proptest::option::of(seconds)).prop_map(|(down, retry_after_s)| Input::Failed { down, retry_after_s }),
        1 => Just(Input::Doubted),
        1 => Just(Input::Leave),
    ];
    (0..4_000_u64, input)
}

proptest! {
    /// Whatever comes, whenever: one REGISTER at a time, up only while a 2xx holds, always something to wait for, and
    /// nothing after the end.
    #[test]
    fn a_registration_is_never_lost_track_of(events in proptest::collection::vec(inputs(), 1..120), seed: u64) {
        let mut entropy = Entropy::from_number(seed);
        let (mut registration, mut now) = (Registration::new(3_600, at(0)), at(0));
        let (mut under_way, mut leaves, mut is_gone, mut holds_until) = (false, false, false, at(0));
        for (seconds, input) in events {
            now = now + Duration::from_secs(seconds);
            let is_answer = matches!(input, Input::Accepted { .. } | Input::TooBrief { .. } | Input::Failed { .. });
            // Nobody answers what was not asked.
            let input = if is_answer && !under_way { Input::Time } else { input };
            let is_answer = is_answer && under_way;
            leaves |= input == Input::Leave;
            let step = registration.on(input, now, &mut entropy);
            prop_assert!(!is_gone || step.is_none(), "nothing after the end");
            if is_answer {
                under_way = false;
                if let (Input::Accepted { expires_s }, false) = (input, leaves) {
                    holds_until = now + Duration::from_secs(u64::from(expires_s.min(EXPIRES_MAX_S)));
                }
            }
            match step {
                Some(Step::Register { expires_s }) => {
                    prop_assert!(!under_way && !leaves && (1..=EXPIRES_MAX_S).contains(&expires_s));
                    under_way = true;
                }
                Some(Step::Unregister) => {
                    prop_assert!(!under_way && leaves);
                    under_way = true;
                }
                Some(Step::Gone) => {
                    prop_assert!(!under_way && leaves);
                    is_gone = true;
                }
                None => {}
            }
            if !leaves {
                prop_assert_eq!(registration.down().is_none(), holds_until > now, "up exactly while it holds");
                prop_assert!(under_way || registration.next_time().is_some(), "always something to wait for");
            }
            if let Some(next) = registration.next_time().filter(|next| *next > now) {
                prop_assert!(next.since(now) <= RETRY_AFTER_MAX.max(Duration::from_secs(u64::from(EXPIRES_MAX_S))));
            }
        }
    }
}
