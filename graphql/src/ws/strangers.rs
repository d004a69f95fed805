//! Sockets that have not said who they are: so many of all, and a share of each network, so that nobody takes the room of others.

use crate::origin::network;
use axum::http::StatusCode;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of the whole process.
const TOTAL: usize = 1_000;
/// Of one network: an IPv4 address, perhaps that of many customers (CGNAT), or an IPv6 /64.
const SHARE: usize = 100;

/// Counted by network; those whose listener did not say are one.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<BTreeMap<Option<IpAddr>, usize>>);

impl Strangers {
    /// Counts a socket in, until the place is dropped.
    ///
    /// # Errors
    /// 429 where the network's share is taken, 503 where all are.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Stranger, StatusCode> {
        let network = address.map(network);
        let mut shares = self.shares();
        if shares.get(&network).is_some_and(|count| *count >= SHARE) {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        if shares.values().sum::<usize>() >= TOTAL {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        *shares.entry(network).or_default() += 1;
        Ok(Stranger { of: self.clone(), network })
    }

    fn shares(&self) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stranger's place.
pub(crate) struct Stranger {
    of: Arc<Strangers>,
    network: Option<IpAddr>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut shares = self.of.shares();
        if let Some(count) = shares.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn each_network_has_a_share_and_gives_it_back() {
        let strangers = Arc::new(Strangers::default());
        let mut first: Vec<_> =
            (0..SHARE).map(|n| strangers.admit(address(&format!("2001:db8::{n:x}"))).expect("room")).collect();
        assert_eq!(strangers.admit(address("2001:db8::ffff:1")).err(), Some(StatusCode::TOO_MANY_REQUESTS));
        assert!(strangers.admit(address("2001:db8:0:1::1")).is_ok() && strangers.admit(None).is_ok());
        first.pop();
        assert!(strangers.admit(address("2001:db8::1")).is_ok());
        drop(first);
        assert!(strangers.shares().is_empty());
    }

    #[test]
    fn all_together_are_limited() {
        let strangers = Arc::new(Strangers::default());
        let mut all = Vec::new();
        for n in 0..TOTAL {
            let network = n / SHARE;
            all.push(strangers.admit(address(&format!("192.0.2.{network}"))).expect("room"));
        }
        assert_eq!(strangers.admit(address("198.51.100.1")).err(), Some(StatusCode::SERVICE_UNAVAILABLE));
        all.pop();
        assert!(strangers.admit(address("198.51.100.1")).is_ok());
    }
}
