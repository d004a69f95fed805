//! From where right answers came, by username: what an outsider can neither add nor take away.

use super::{Guard, Source};
use crate::flow::Standing;
use schema::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A source is known so long after the last right answer from it.
const KNOWN: Duration = Duration::from_secs(7 * 86_400);
/// Most sources of one username: its owner's own doing pushes the oldest out, and nobody else's.
const SOURCES_MAX: usize = 8;
/// Most usernames; each exists and gave a right answer.
const USERS_MAX: usize = 200_000;
/// A source is noted again after this, so that a busy one costs nothing.
const AGAIN: Duration = Duration::from_secs(60);

impl Guard {
    /// What is known of whoever opens a connection; it asks for nothing yet, so nothing is counted.
    pub(crate) fn standing(&self, ip: IpAddr, now: Mono) -> Standing {
        let record = self.sources.peek(&Source::of(ip));
        match record {
            _ if self.is_exempt(ip) => Standing::Known,
            Some(record) if record.banned_until > now => Standing::Banned,
            _ if self.knows(ip, now) => Standing::Known,
            _ => Standing::Stranger,
        }
    }
}

#[derive(Default)]
pub(super) struct Known {
    /// Oldest first.
    users: BTreeMap<Arc<str>, Vec<(Source, Mono)>>,
    order: BTreeSet<(Mono, Arc<str>)>,
    /// How many usernames know a source, and when the last right answer came from it.
    sources: BTreeMap<Source, (usize, Mono)>,
}

impl Known {
    pub(super) fn has(&self, source: Source, now: Mono) -> bool {
        self.sources.get(&source).is_some_and(|(_, last)| *last + KNOWN > now)
    }

    pub(super) fn has_user(&self, source: Source, username: &str, now: Mono) -> bool {
        let mut of_user = self.users.get(username).into_iter().flatten();
        of_user.any(|(known, last)| *known == source && *last + KNOWN > now)
    }

    pub(super) fn note(&mut self, source: Source, username: &str, now: Mono) {
        let (user, mut sources) =
            self.users.remove_entry(username).unwrap_or_else(|| (Arc::from(username), Vec::new()));
        let place = sources.iter().position(|(known, _)| *known == source);
        if let Some((_, last)) = place.map(|place| sources[place])
            && last + AGAIN > now
        {
            self.users.insert(user, sources);
            return;
        }
        if let Some((_, newest)) = sources.last() {
            self.order.remove(&(*newest, user.clone()));
        }
        match place {
            Some(place) => drop(sources.remove(place)),
            None => self.sources.entry(source).or_insert((0, now)).0 += 1,
        }
        if let Some((_, last)) = self.sources.get_mut(&source) {
            *last = now;
        }
        sources.push((source, now));
        if sources.len() > SOURCES_MAX {
            self.release(sources.remove(0).0);
        }
        self.order.insert((now, user.clone()));
        self.users.insert(user, sources);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.users.len() > USERS_MAX {
            let Some((_, user)) = self.order.pop_first() else { break };
            for (source, _) in self.users.remove(&user).into_iter().flatten() {
                self.release(source);
            }
        }
    }

    fn release(&mut self, source: Source) {
        if let Some((count, _)) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}
