//! Messages that kill their actor: counted by what they are about, and set aside at the third death, as a function of
//! (state, what happened, now). Everything is bounded in number and in time.

use schema::id::{AccountKey, CallId, TrunkId};
use schema::time::{Now, Timestamp};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Deaths by the same message after which it is set aside.
const DEATHS: u32 = 3;
/// So long a message stays set aside; then it may be tried again.
pub(crate) const SET_ASIDE_FOR: Duration = Duration::from_secs(15 * 60);
/// A message that killed and was not seen again is forgotten after this time.
const SUSPECTED_FOR: Duration = Duration::from_secs(5 * 60);
/// Messages set aside at a time; beyond, the oldest is let through again.
const SET_ASIDE_MAX: usize = 1_024;
/// Messages that killed once or twice; beyond, the oldest is forgotten.
const SUSPECTS_MAX: usize = 4_096;

/// Whose message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An account's actor.
    Account(AccountKey),
    /// A call's actor.
    Call(CallId),
    /// A trunk's actor.
    Trunk(TrunkId),
}

/// A message as it is known outside its actor: its kind and what it is about. Sent again, it is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    /// The kind of message, in lower case.
    pub kind: &'static str,
    /// What it is about.
    pub about: About,
}

/// What a message is about. Nothing personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Its subject as a whole.
    Whole,
    /// A call, and of it the n-th step, attempt or side; 0 when there is but one.
    Call(CallId, u32),
    /// An idempotency key, by the first bytes of its SHA-256.
    Key([u8; 8]),
}

/// A message that is set aside, for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetAside {
    /// Whose.
    pub subject: Subject,
    /// Which.
    pub work: Work,
    /// Since when.
    pub since: Timestamp,
    /// How often it came since and was refused.
    pub refused: u64,
}

/// What is remembered of messages that killed.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    suspects: BTreeMap<(Subject, Work), Suspect>,
    set_aside: BTreeMap<(Subject, Work), Aside>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    deaths: u32,
    last: Now,
}

#[derive(Debug, Clone, Copy)]
struct Aside {
    since: Now,
    refused: u64,
}

impl Poison {
    /// An actor died of this message. True when it is set aside from now on.
    pub(crate) fn died(&mut self, subject: Subject, work: Work, now: Now) -> bool {
        self.lapse(now);
        let key = (subject, work);
        let deaths = self.suspects.get(&key).map_or(0, |suspect| suspect.deaths) + 1;
        if deaths < DEATHS {
            drop_oldest(&mut self.suspects, SUSPECTS_MAX, |suspect| suspect.last);
            self.suspects.insert(key, Suspect { deaths, last: now });
            return false;
        }
        self.suspects.remove(&key);
        drop_oldest(&mut self.set_aside, SET_ASIDE_MAX, |aside| aside.since);
        self.set_aside.insert(key, Aside { since: now, refused: 0 });
        true
    }

    /// The message was handled: it kills nobody.
    pub(crate) fn handled(&mut self, subject: Subject, work: Work) {
        self.suspects.remove(&(subject, work));
    }

    /// Whether the message is set aside; counts that it came.
    pub(crate) fn refuses(&mut self, subject: Subject, work: Work, now: Now) -> bool {
        let key = (subject, work);
        match self.set_aside.get_mut(&key) {
            None => false,
            Some(aside) if now.mono.since(aside.since.mono) >= SET_ASIDE_FOR => {
                self.set_aside.remove(&key);
                false
            }
            Some(aside) => {
                aside.refused += 1;
                true
            }
        }
    }

    /// Whether there is nothing to remember: the usual state, in which nobody need be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.suspects.is_empty() && self.set_aside.is_empty()
    }

    /// What is set aside, by subject.
    pub(crate) fn list(&mut self, now: Now) -> Vec<SetAside> {
        self.lapse(now);
        let entry = |(&(subject, work), aside): (&(Subject, Work), &Aside)| SetAside {
            subject,
            work,
            since: aside.since.wall,
            refused: aside.refused,
        };
        self.set_aside.iter().map(entry).collect()
    }

    fn lapse(&mut self, now: Now) {
        self.suspects.retain(|_, suspect| now.mono.since(suspect.last.mono) < SUSPECTED_FOR);
        self.set_aside.retain(|_, aside| now.mono.since(aside.since.mono) < SET_ASIDE_FOR);
    }
}

fn drop_oldest<T>(map: &mut BTreeMap<(Subject, Work), T>, max: usize, at: impl Fn(&T) -> Now) {
    if map.len() < max {
        return;
    }
    if let Some(oldest) = map.iter().min_by_key(|(_, item)| at(item).mono).map(|(key, _)| *key) {
        map.remove(&oldest);
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(key) => write!(f, "account {}", key.0),
            Self::Call(call) => write!(f, "call {call}"),
            Self::Trunk(trunk) => write!(f, "trunk {trunk}"),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        match self.about {
            About::Whole => Ok(()),
            About::Call(call, 0) => write!(f, " of call {call}"),
            About::Call(call, step) => write!(f, " {step} of call {call}"),
            About::Key(hash) => write!(f, " with key {:016x}", u64::from_be_bytes(hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schema::time::Mono;

    const ACCOUNT: Subject = Subject::Account(AccountKey(1));

    const fn work(key: u8) -> Work {
        Work { kind: "credit", about: About::Key([key; 8]) }
    }

    const fn at(s: u64) -> Now {
        Now { mono: Mono(s * 1_000_000), wall: Timestamp(s as i64 * 1_000_000) }
    }

    #[test]
    fn the_third_death_by_the_same_message_sets_it_aside_and_no_other() {
        let mut poison = Poison::default();
        assert!(!poison.died(ACCOUNT, work(1), at(0)) && !poison.died(ACCOUNT, work(2), at(0)));
        assert!(!poison.died(ACCOUNT, work(1), at(1)));
        assert!(!poison.refuses(ACCOUNT, work(1), at(1)), "twice may be chance");
        assert!(poison.died(ACCOUNT, work(1), at(2)));
        assert!(poison.refuses(ACCOUNT, work(1), at(3)) && poison.refuses(ACCOUNT, work(1), at(4)));
        assert!(!poison.refuses(ACCOUNT, work(2), at(3)), "another key");
        assert!(!poison.refuses(Subject::Account(AccountKey(2)), work(1), at(3)), "another account");
        assert!(!poison.refuses(ACCOUNT, Work { kind: "view", ..work(1) }, at(3)), "another kind");
        let listed = SetAside { subject: ACCOUNT, work: work(1), since: at(2).wall, refused: 2 };
        assert_eq!(poison.list(at(5)), [listed]);
        assert_eq!(format!("{}: {}", listed.subject, listed.work), "account 1: credit with key 0101010101010101");
    }

    #[test]
    fn a_message_that_was_handled_is_no_suspect_any_more() {
        let mut poison = Poison::default();
        for round in 0..10 {
            assert!(!poison.died(ACCOUNT, work(1), at(round)) && !poison.died(ACCOUNT, work(1), at(round)));
            poison.handled(ACCOUNT, work(1));
        }
        assert!(poison.is_empty());
    }

    #[test]
    fn what_is_set_aside_is_tried_again_after_a_while() {
        let mut poison = Poison::default();
        for _ in 0..3 {
            poison.died(ACCOUNT, work(1), at(0));
        }
        let lapses = SET_ASIDE_FOR.as_secs();
        assert!(poison.refuses(ACCOUNT, work(1), at(lapses - 1)) && !poison.refuses(ACCOUNT, work(1), at(lapses)));
        assert!(!poison.died(ACCOUNT, work(1), at(lapses)), "it is counted anew");
        poison.lapse(at(lapses + SUSPECTED_FOR.as_secs()));
        assert!(poison.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_bounded_and_only_three_deaths_in_a_row_set_aside(
            steps in proptest::collection::vec((0..4_u8, any::<bool>()), 1..100),
        ) {
            let mut poison = Poison::default();
            let mut in_a_row = [0_u32; 4];
            for (key, dies) in steps {
                let row = &mut in_a_row[usize::from(key)];
                if poison.refuses(ACCOUNT, work(key), at(0)) {
                    prop_assert!(*row >= DEATHS);
                } else if dies {
                    *row += 1;
                    prop_assert_eq!(poison.died(ACCOUNT, work(key), at(0)), *row == DEATHS);
                } else {
                    *row = 0;
                    poison.handled(ACCOUNT, work(key));
                }
            }
        }
    }

    #[test]
    fn floods_of_poison_do_not_fill_memory() {
        let mut poison = Poison::default();
        for account in 0..5_000 {
            for _ in 0..1 + account % 3 {
                poison.died(Subject::Account(AccountKey(account)), work(1), at(0));
            }
        }
        assert!(poison.suspects.len() <= SUSPECTS_MAX && poison.set_aside.len() <= SET_ASIDE_MAX);
        assert!(poison.set_aside.len() > 1_000);
    }
}
