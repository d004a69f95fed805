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
            _ if self.knows(ip, now) => Standing::Known,
            Some(record) if record.banned_until > now => Standing::Banned,
            _ => Standing::Stranger,
        }
    }
}

/// From where a username's right answers came.
#[derive(Clone, Copy)]
struct Place {
    source: Source,
    last: Mono,
    /// Of the last one.
    port: u16,
}

#[derive(Default)]
pub(super) struct Known {
    /// Oldest first.
    users: BTreeMap<Arc<str>, Vec<Place>>,
    order: BTreeSet<(Mono, Arc<str>)>,
    /// How many usernames know a source, and when the last right answer came from it.
    sources: BTreeMap<Source, (usize, Mono)>,
}

impl Known {
    pub(super) fn has(&self, source: Source, now: Mono) -> bool {
        self.sources.get(&source).is_some_and(|(_, last)| *last + KNOWN > now)
    }

    pub(super) fn has_user(&self, source: Source, username: &str, now: Mono) -> bool {
        self.port_of(source, username, now).is_some()
    }

    /// From which port this username's last right answer from this source came.
    pub(super) fn port_of(&self, source: Source, username: &str, now: Mono) -> Option<u16> {
        let mut of_user = self.users.get(username).into_iter().flatten();
        of_user.find(|place| place.source == source && place.last + KNOWN > now).map(|place| place.port)
    }

    pub(super) fn note(&mut self, source: Source, port: u16, username: &str, now: Mono) {
        let (user, mut sources) =
            self.users.remove_entry(username).unwrap_or_else(|| (Arc::from(username), Vec::new()));
        let place = sources.iter().position(|known| known.source == source);
        if let Some(known) = place.map(|place| &mut sources[place])
            && known.last + AGAIN > now
        {
            known.port = port;
            self.users.insert(user, sources);
            return;
        }
        if let Some(newest) = sources.last() {
            self.order.remove(&(newest.last, user.clone()));
        }
        match place {
            Some(place) => drop(sources.remove(place)),
            None => self.sources.entry(source).or_insert((0, now)).0 += 1,
        }
        if let Some((_, last)) = self.sources.get_mut(&source) {
            *last = now;
        }
        sources.push(Place { source, last: now, port });
        if sources.len() > SOURCES_MAX {
            self.release(sources.remove(0).source);
        }
        self.order.insert((now, user.clone()));
        self.users.insert(user, sources);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.users.len() > USERS_MAX {
            let Some((_, user)) = self.order.pop_first() else { break };
            for place in self.users.remove(&user).into_iter().flatten() {
                self.release(place.source);
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
