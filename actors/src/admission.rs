//! Which calls the node lets in: a limit of live calls, a limit of new ones a second, and none while it drains.

use crate::trunk::TokenBucket;
use schema::call::RefusalCode;
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
