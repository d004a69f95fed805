//! Which calls the node lets in: a limit of live calls, a limit of new ones a second, and none while it drains. And how many
//! may wait for an account.

use crate::trunk::TokenBucket;
use dashmap::DashMap;
use schema::call::RefusalCode;
use schema::id::AccountKey;
use schema::time::Mono;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many calls the node lets in.
pub(crate) struct Admission {
    live: Arc<AtomicU32>,
    rate: Mutex<TokenBucket>,
    draining: AtomicBool,
}

/// One of the node's live calls; dropping it makes room for another.
pub(crate) struct Live(Arc<AtomicU32>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Most that may wait for one account, and for all of them: a mailbox has no limit of its own.
const PLACES: u32 = 256;
const PLACES_IN_ALL: u32 = 16_384;

/// How many wait for each account.
#[derive(Default)]
pub(crate) struct Places {
    of: DashMap<AccountKey, u32>,
    in_all: AtomicU32,
}

/// A place in the line for an account; dropping it makes room for another.
pub(crate) struct Place<'a> {
    places: &'a Places,
    account: AccountKey,
}

impl Places {
    /// Takes a place; `None` when too many wait.
    pub(crate) fn enter(&self, account: AccountKey) -> Option<Place<'_>> {
        let one_more = |taken: u32| (taken < PLACES_IN_ALL).then_some(taken + 1);
        self.in_all.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        let mut taken = self.of.entry(account).or_insert(0);
        if *taken >= PLACES {
            self.in_all.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        *taken += 1;
        Some(Place { places: self, account })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.in_all.fetch_sub(1, Ordering::AcqRel);
        if let Some(mut taken) = self.places.of.get_mut(&self.account) {
            *taken -= 1;
        }
        self.places.of.remove_if(&self.account, |_, taken| *taken == 0);
    }
}

impl Admission {
    pub(crate) fn new(per_second: u32, at: Mono) -> Self {
        Self {
            live: Arc::default(),
            rate: Mutex::new(TokenBucket::new(per_second, at)),
            draining: AtomicBool::new(false),
        }
    }

    /// Lets a call in. Only reasons of the whole node are looked at: an account's own limits are its own business.
    pub(crate) fn admit(&self, max_live: u32, at: Mono) -> Result<Live, RefusalCode> {
        if self.draining.load(Ordering::Acquire) {
            return Err(RefusalCode::Draining);
        }
        let one_more = |live: u32| (live < max_live).then_some(live + 1);
        self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).map_err(|_| RefusalCode::Overloaded)?;
        let live = Live(self.live.clone());
        let allowed = self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(at);
        if allowed { Ok(live) } else { Err(RefusalCode::Overloaded) }
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Counts a call that is up already.
    pub(crate) fn admit_anyway(&self) -> Live {
        self.live.fetch_add(1, Ordering::AcqRel);
        Live(self.live.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_wait_for_one_account_and_for_all() {
        let (places, account) = (Places::default(), AccountKey);
        let mut taken: Vec<_> = (0..PLACES).map(|_| places.enter(account(0)).expect("a place")).collect();
        assert!(places.enter(account(0)).is_none() && places.enter(account(1)).is_some());
        taken.pop();
        taken.push(places.enter(account(0)).expect("there is room again"));
        for n in 1..i64::from(PLACES_IN_ALL / PLACES) {
            taken.extend((0..PLACES).filter_map(|_| places.enter(account(n))));
        }
        assert_eq!(taken.len(), PLACES_IN_ALL as usize);
        assert!(places.enter(account(99)).is_none(), "all places are taken");
        drop(taken);
        assert!(places.of.is_empty() && places.enter(account(99)).is_some());
    }
}
