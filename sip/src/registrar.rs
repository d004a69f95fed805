//! Registrar (RFC 3261 §10.3, RFC 5626): which phones are where. Pure; durable rows are kept by whoever hears the changes.

use crate::flow::{ConnectionId, Flow};
use crate::message::{Malformed, NameAddr};
use schema::edge::{Binding, BindingChange};
use schema::id::{AccountKey, CredentialId};
use schema::pii::Pii;
use schema::time::{Mono, Now, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Shortest registration, in seconds.
pub(crate) const EXPIRES_MIN_S: u32 = 60;
/// Longest registration, in seconds.
const EXPIRES_MAX_S: u32 = 7_200;
/// Most contacts of one address-of-record; a further one takes the place of the one that was refreshed the longest ago.
const CONTACTS_MAX: usize = 5;

/// An authenticated REGISTER.
pub(crate) struct Registration<'a> {
    pub(crate) credential: CredentialId,
    pub(crate) account: AccountKey,
    pub(crate) flow: Flow,
    pub(crate) call_id: &'a str,
    pub(crate) cseq: u32,
    /// Seconds when the phone asks for none.
    pub(crate) default_s: u32,
    /// By how many thousandths a registration is made shorter than asked for (RFC 3261 §10.3 allows it): those that came at once
    /// are spread, so that they do not come at once again.
    pub(crate) shorter_permille: u32,
    pub(crate) asks: Ask,
    /// Several flows of one phone are kept apart by their `reg-id` (RFC 5626 §6); else that is ignored.
    pub(crate) outbound: bool,
    /// Proxies between us and the phone, the nearest first (RFC 3327).
    pub(crate) path: Vec<NameAddr>,
}

/// What it asks for.
pub(crate) enum Ask {
    /// `Contact: *`, which must come with `Expires: 0`.
    RemoveAll { expires_s: Option<u32> },
    /// Contacts with their seconds; none: only asks what is there.
    Contacts(Vec<(NameAddr, Option<u32>)>),
}

/// What becomes of it.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Final status.
    Refused(u16),
    /// Done: all contacts now, with their seconds, and what changed.
    Registered { contacts: Vec<NameAddr>, changes: Vec<BindingChange>, moved: Option<Moved> },
}

/// A flow over UDP has another address now (RFC 5626 §6: it is the same one by its instance and `reg-id`). Unlike that of a
/// connection its end shows in no other way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) instance: Box<str>,
    pub(crate) from: Flow,
}

struct Entry {
    binding: Binding,
    /// When it ends. Its row says that by the wall clock, which may be set; then phones must not be gone all at once.
    ends: Mono,
    contact: NameAddr,
    /// None: its connection is gone.
    flow: Option<Flow>,
    /// A request that left by its flow met silence, and nothing came over it since.
    is_silent: bool,
    call_id: Box<str>,
    cseq: u32,
}

/// All bindings, by credential; of each credential the newest last.
#[derive(Default)]
pub(crate) struct Registrar {
    entries: BTreeMap<CredentialId, Vec<Entry>>,
    count: usize,
    /// When bindings run out, so that nobody looks through all of them.
    expiries: BTreeSet<(Mono, CredentialId)>,
    /// Who registered over which connection.
    connections: BTreeMap<ConnectionId, BTreeSet<CredentialId>>,
}

impl Registrar {
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Carries a registration out, all of it or nothing.
    pub(crate) fn register(&mut self, registration: &Registration<'_>, now: Now) -> Decision {
        let mut entries = self.take(registration.credential);
        let decision = match &registration.asks {
            Ask::RemoveAll { expires_s: Some(0) } => remove_all(&mut entries, registration, now.wall),
            Ask::RemoveAll { .. } => Decision::Refused(400),
            Ask::Contacts(contacts) => update(&mut entries, registration, contacts, now),
        };
        self.put(registration.credential, entries);
        decision
    }

    /// Takes up a binding from before a restart. True when its phone can be reached: a flow over UDP is as it was, a connection
    /// is gone. What the phone has registered since is newer, and stays. When it ends only the wall clock knows, which may have
    /// been set back meanwhile.
    pub(crate) fn restore(&mut self, binding: Binding, now: Now) -> bool {
        let Ok(contact) = NameAddr::parse(binding.contact.expose()) else { return false };
        let credential = binding.credential;
        let mut entries = self.take(credential);
        let (instance, flow) = (binding.instance.as_ref().map(|instance| instance.expose().as_str()), binding.reg_id);
        let is_newer = entries.iter().any(|entry| is_same(entry, &contact, instance, flow));
        let flow = Flow::of_source(binding.source.expose());
        let has_room = !is_newer && entries.len() < CONTACTS_MAX;
        if has_room {
            let at = entries.partition_point(|entry| entry.binding.registered_at <= binding.registered_at);
            let lasts = binding.expires_at.since(now.wall).min(Duration::from_secs(EXPIRES_MAX_S.into()));
            let ends = now.mono + lasts;
            entries.insert(at, Entry { binding, ends, contact, flow, is_silent: false, call_id: "".into(), cseq: 0 });
        }
        self.put(credential, entries);
        has_room && flow.is_some()
    }

    /// Ends all bindings of a credential.
    pub(crate) fn revoke(&mut self, credential: CredentialId, at: Timestamp) -> Vec<BindingChange> {
        self.take(credential).into_iter().map(|entry| left(entry.binding, 0, at)).collect()
    }

    /// Ends what has run out.
    pub(crate) fn expire(&mut self, now: Now) -> Vec<BindingChange> {
        let mut changes = Vec::new();
        while let Some(&(first, credential)) = self.expiries.first()
            && first <= now.mono
        {
            let entries = self.take(credential);
            let (kept, gone): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.ends > now.mono);
            let bindings = count_of(&kept);
            self.put(credential, kept);
            changes.extend(gone.into_iter().map(|entry| left(entry.binding, bindings, now.wall)));
        }
        changes
    }

    /// When the next binding runs out.
    pub(crate) fn next_expiry(&self) -> Option<Mono> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// The connection is gone: the phone is not reached over it any more, though its registration stands.
    pub(crate) fn connection_closed(&mut self, connection: ConnectionId) {
        for credential in self.connections.remove(&connection).unwrap_or_default() {
            for entry in self.entries.get_mut(&credential).into_iter().flatten() {
                entry.flow = entry.flow.filter(|flow| flow.connection != Some(connection));
            }
        }
    }

    /// The newest way to a phone: by its instance, else when it is the credential's only one. One that was silent is better than
    /// none.
    pub(crate) fn flow_of(&self, credential: CredentialId, instance: Option<&str>) -> Option<Flow> {
        let entries = self.entries.get(&credential)?;
        let is_it = |entry: &&Entry| match instance {
            Some(_) => instance_of(entry) == instance,
            None => entries.len() == 1,
        };
        let its = entries.iter().rev().filter(is_it).filter(|entry| entry.flow.is_some());
        its.min_by_key(|entry| entry.is_silent).and_then(|entry| entry.flow)
    }

    /// Another way to the phone than this one, the newest first. None that was silent: a request that
    /// goes from one to the next must come to an end.
    pub(crate) fn flow_besides(&self, credential: CredentialId, instance: Option<&str>, failed: Flow) -> Option<Flow> {
        let of_phone = self.entries.get(&credential)?.iter().rev().filter(|entry| instance_of(entry) == instance);
        let heard = of_phone.filter(|entry| !entry.is_silent);
        heard.filter_map(|entry| entry.flow).find(|flow| instance.is_some() && *flow != failed)
    }

    /// The proxies on the way to a phone by this flow, as it has registered it.
    pub(crate) fn path_of(&self, credential: CredentialId, instance: Option<&str>, flow: Flow) -> &[Pii<String>] {
        let is_it = |entry: &&Entry| entry.flow == Some(flow) && instance_of(entry) == instance;
        let its = self.entries.get(&credential).and_then(|entries| entries.iter().find(is_it));
        its.map_or(&[], |entry| &entry.binding.path)
    }

    /// A proxy on the way says that the phone is not behind it any more (430, RFC 5626 §11.5): what was registered over this
    /// flow ends.
    pub(crate) fn flow_failed(
        &mut self,
        credential: CredentialId,
        instance: Option<&str>,
        failed: Flow,
        at: Timestamp,
    ) -> Vec<BindingChange> {
        let is_it = |entry: &Entry| entry.flow == Some(failed) && instance_of(entry) == instance;
        let (gone, kept): (Vec<_>, Vec<_>) = self.take(credential).into_iter().partition(is_it);
        let bindings = count_of(&kept);
        self.put(credential, kept);
        gone.into_iter().map(|entry| left(entry.binding, bindings, at)).collect()
    }

    /// A request of ours that left by this flow met silence (RFC 5626 §7 has a 408 as a reason to try another one). Its
    /// registration stands until it ends: whoever is there registers anew.
    pub(crate) fn flow_silent(&mut self, credential: CredentialId, instance: Option<&str>, flow: Flow) {
        for entry in self.entries.get_mut(&credential).into_iter().flatten() {
            entry.is_silent |= entry.flow == Some(flow) && instance_of(entry) == instance;
        }
    }

    /// The phone was heard over this flow.
    pub(crate) fn flow_heard(&mut self, credential: CredentialId, flow: Flow) {
        for entry in self.entries.get_mut(&credential).into_iter().flatten() {
            entry.is_silent &= entry.flow != Some(flow);
        }
    }

    /// The instance of the phone that registered over this flow.
    pub(crate) fn instance_at(&self, credential: CredentialId, flow: Flow) -> Option<&str> {
        let entries = self.entries.get(&credential)?;
        entries.iter().rev().find(|entry| entry.flow == Some(flow)).and_then(instance_of)
    }

    /// Takes a credential's bindings out, and all that points to them.
    fn take(&mut self, credential: CredentialId) -> Vec<Entry> {
        let entries = self.entries.remove(&credential).unwrap_or_default();
        self.count -= entries.len();
        for entry in &entries {
            self.expiries.remove(&(entry.ends, credential));
            if let Some(connection) = entry.flow.and_then(|flow| flow.connection)
                && let Some(users) = self.connections.get_mut(&connection)
            {
                users.remove(&credential);
                if users.is_empty() {
                    self.connections.remove(&connection);
                }
            }
        }
        entries
    }

    /// Puts them back.
    fn put(&mut self, credential: CredentialId, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        self.count += entries.len();
        for entry in &entries {
            self.expiries.insert((entry.ends, credential));
            if let Some(connection) = entry.flow.and_then(|flow| flow.connection) {
                self.connections.entry(connection).or_default().insert(credential);
            }
        }
        self.entries.insert(credential, entries);
    }
}

fn count_of(entries: &[Entry]) -> u32 {
    u32::try_from(entries.len()).unwrap_or(u32::MAX)
}

fn instance_of(entry: &Entry) -> Option<&str> {
    entry.binding.instance.as_ref().map(|instance| instance.expose().as_str())
}

fn remove_all(entries: &mut Vec<Entry>, registration: &Registration<'_>, at: Timestamp) -> Decision {
    if entries.iter().any(|entry| is_stale(entry, registration)) {
        return Decision::Refused(500);
    }
    let changes = entries.drain(..).map(|entry| left(entry.binding, 0, at)).collect();
    Decision::Registered { contacts: Vec::new(), changes, moved: None }
}

fn update(
    entries: &mut Vec<Entry>,
    registration: &Registration<'_>,
    contacts: &[(NameAddr, Option<u32>)],
    now: Now,
) -> Decision {
    let at = now.wall;
    let seconds = |asked: &Option<u32>| asked.unwrap_or(registration.default_s).min(EXPIRES_MAX_S);
    if contacts.len() > CONTACTS_MAX {
        return Decision::Refused(403);
    }
    let Ok(flows) =
        contacts.iter().map(|(contact, _)| flow_number(registration, contact)).collect::<Result<Vec<_>, _>>()
    else {
        return Decision::Refused(400);
    };
    // One REGISTER is one flow.
    let wanted = contacts.iter().zip(&flows).filter(|((_, asked), flow)| flow.is_some() && seconds(asked) > 0);
    if wanted.count() > 1 {
        return Decision::Refused(400);
    }
    let is_it = |entry: &Entry, contact: &NameAddr, flow: Option<u32>| {
        is_same(entry, contact, contact.params.unquoted("+sip.instance").as_deref(), flow)
    };
    for ((contact, asked), flow) in contacts.iter().zip(&flows) {
        if (1..EXPIRES_MIN_S).contains(&seconds(asked)) {
            return Decision::Refused(423);
        }
        if entries.iter().any(|entry| is_it(entry, contact, *flow) && is_stale(entry, registration)) {
            return Decision::Refused(500);
        }
    }
    let (mut changed, mut moved) = (Vec::new(), None);
    for ((contact, asked), flow) in contacts.iter().zip(&flows) {
        let before = entries.iter().position(|entry| is_it(entry, contact, *flow)).map(|at| entries.remove(at));
        if seconds(asked) == 0 {
            changed.extend(before.map(|entry| Binding { expires_at: at, ..entry.binding }));
            continue;
        }
        let asked_s = seconds(asked);
        let granted_s = (asked_s - asked_s * registration.shorter_permille.min(1_000) / 1_000).max(EXPIRES_MIN_S);
        let entry = entry(registration, contact, *flow, now, Duration::from_secs(u64::from(granted_s)));
        if before.is_none() {
            changed.extend(left_behind(entries, &entry).map(|entry| Binding { expires_at: at, ..entry.binding }));
        }
        moved = moved.or(before.and_then(|before| moved_from(&before, &entry)));
        changed.push(entry.binding.clone());
        entries.push(entry);
    }
    // A phone that came back with another address and no instance must not be locked out by its own past.
    let surplus = entries.len().saturating_sub(CONTACTS_MAX);
    changed.extend(entries.drain(..surplus).map(|entry| Binding { expires_at: at, ..entry.binding }));
    let bindings = count_of(entries);
    let changes = changed.into_iter().map(|binding| BindingChange { binding, bindings }).collect();
    let contacts = entries.iter().filter_map(|entry| with_expires(entry, now.mono)).collect();
    Decision::Registered { contacts, changes, moved }
}

/// Of a phone that connected anew and has no instance: what it registered over the connection that is gone. Its Contact often names
/// the port of that one. Where two wait for their phone nobody can say whose it is.
fn left_behind(entries: &mut Vec<Entry>, now: &Entry) -> Option<Entry> {
    let is_its = |entry: &Entry| {
        instance_of(entry).is_none() && entry.flow.is_none() && entry.contact.uri.user() == now.contact.uri.user()
    };
    let mut waiting = entries.iter().enumerate().filter(|(_, entry)| is_its(entry)).map(|(at, _)| at);
    let (first, second) = (waiting.next()?, waiting.next());
    (instance_of(now).is_none() && second.is_none()).then(|| entries.remove(first))
}

fn moved_from(before: &Entry, now: &Entry) -> Option<Moved> {
    let from = before.flow.filter(|flow| flow.connection.is_none() && now.flow != Some(*flow))?;
    now.binding.reg_id?;
    Some(Moved { instance: instance_of(now)?.into(), from })
}

fn entry(registration: &Registration<'_>, contact: &NameAddr, reg_id: Option<u32>, now: Now, lasts: Duration) -> Entry {
    let instance = contact.params.unquoted("+sip.instance");
    let flow = registration.flow;
    Entry {
        binding: Binding {
            credential: registration.credential,
            account: registration.account,
            contact: Pii::new(contact.to_string()),
            instance: instance.map(Pii::new),
            reg_id,
            path: registration.path.iter().map(|hop| Pii::new(hop.to_string())).collect(),
            source: Pii::new(flow.source()),
            registered_at: now.wall,
            expires_at: now.wall + lasts,
        },
        ends: now.mono + lasts,
        contact: contact.clone(),
        flow: Some(flow),
        is_silent: false,
        call_id: registration.call_id.into(),
        cseq: registration.cseq,
    }
}

/// The same phone and flow of it (RFC 5626 §6); without an instance, an equivalent Contact.
fn is_same(entry: &Entry, contact: &NameAddr, instance: Option<&str>, flow: Option<u32>) -> bool {
    match (instance_of(entry), instance) {
        (Some(known), Some(instance)) => known == instance && entry.binding.reg_id == flow,
        _ => entry.contact.uri.is_equivalent(&contact.uri),
    }
}

/// Which flow of its phone a Contact is: its `reg-id`, 1 to 2³¹ - 1, which means nothing without an instance.
///
/// # Errors
/// It is no such number.
fn flow_number(registration: &Registration<'_>, contact: &NameAddr) -> Result<Option<u32>, Malformed> {
    let has_instance = contact.params.value("+sip.instance").is_some();
    let text = contact.params.value("reg-id").filter(|_| registration.outbound && has_instance);
    let Some(text) = text else { return Ok(None) };
    let number = text.parse().map_err(|_| Malformed)?;
    if (1..1 << 31).contains(&number) { Ok(Some(number)) } else { Err(Malformed) }
}

/// A REGISTER that was overtaken by a later one (RFC 3261 §10.3 step 7).
fn is_stale(entry: &Entry, registration: &Registration<'_>) -> bool {
    *entry.call_id == *registration.call_id && registration.cseq <= entry.cseq
}

fn with_expires(entry: &Entry, now: Mono) -> Option<NameAddr> {
    let seconds = entry.ends.since(now).as_secs();
    let mut contact = NameAddr::new(entry.contact.uri.clone());
    if let Some(instance) = entry.contact.params.value("+sip.instance") {
        contact = contact.with_param("+sip.instance", Some(instance)).ok()?;
    }
    if let Some(flow) = entry.binding.reg_id {
        contact = contact.with_param("reg-id", Some(&flow.to_string())).ok()?;
    }
    contact.with_param("expires", Some(&seconds.to_string())).ok()
}

fn left(binding: Binding, bindings: u32, at: Timestamp) -> BindingChange {
    BindingChange { binding: Binding { expires_at: at, ..binding }, bindings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;
    use schema::entropy::Entropy;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn now() -> Now {
        Now { mono: Mono(7_000_000), wall: NOW }
    }

    fn contact(text: &str) -> NameAddr {
        NameAddr::parse(text).expect("valid")
    }

    fn credential() -> CredentialId {
        CredentialId::generate(&mut Entropy::from_number(1), NOW)
    }

    fn ask(registrar: &mut Registrar, cseq: u32, asks: Ask) -> Decision {
        ask_over(registrar, Flow::udp(std::net::SocketAddr::from(([127, 0, 0, 1], 5100))), cseq, asks)
    }

    fn ask_over(registrar: &mut Registrar, flow: Flow, cseq: u32, asks: Ask) -> Decision {
        let registration = Registration {
            credential: credential(),
            account: AccountKey(1),
            flow,
            call_id: "c",
            cseq,
            default_s: 300,
            shorter_permille: 0,
            asks,
            outbound: true,
            path: Vec::new(),
        };
        registrar.register(&registration, now())
    }

    fn one(registrar: &mut Registrar, cseq: u32, text: &str, expires_s: Option<u32>) -> Decision {
        ask(registrar, cseq, Ask::Contacts(vec![(contact(text), expires_s)]))
    }

    fn is_refused(decision: &Decision, with: u16) -> bool {
        matches!(decision, Decision::Refused(status) if *status == with)
    }

    #[test]
    fn a_phone_registers_refreshes_and_leaves() {
        let mut registrar = Registrar::default();
        let Decision::Registered { contacts, changes, .. } = one(&mut registrar, 1, "<sip:a@10.0.0.1>", None) else {
            panic!()
        };
        assert_eq!((contacts[0].expires_s(), changes[0].bindings, registrar.len()), (Some(300), 1, 1));
        assert!(matches!(one(&mut registrar, 2, "<sip:a@10.0.0.1>", Some(600)), Decision::Registered { .. }));
        assert_eq!((registrar.len(), registrar.next_expiry()), (1, Some(now().mono + Duration::from_secs(600))));
        let Decision::Registered { contacts, changes, .. } = one(&mut registrar, 3, "<sip:a@10.0.0.1>", Some(0)) else {
            panic!()
        };
        assert!(contacts.is_empty() && changes[0].bindings == 0 && changes[0].binding.expires_at <= NOW);
        assert_eq!(registrar.len(), 0);
    }

    #[test]
    fn a_phone_without_an_instance_that_connects_anew_is_found_again() {
        let mut registrar = Registrar::default();
        let over = |number: u64, port: u16| {
            let peer = std::net::SocketAddr::from(([10, 0, 0, 5], port));
            Flow { protocol: Protocol::Tls, peer, connection: Some(ConnectionId(number)) }
        };
        let register = |registrar: &mut Registrar, number, port: u16| {
            let text = format!("<sip:u@10.0.0.5:{port};transport=tls>");
            ask_over(registrar, over(number, port), u32::from(port), Ask::Contacts(vec![(contact(&text), None)]))
        };
        register(&mut registrar, 1, 49_152);
        registrar.connection_closed(ConnectionId(1));
        assert_eq!(registrar.flow_of(credential(), None), None);
        let Decision::Registered { contacts, changes, .. } = register(&mut registrar, 2, 50_311) else { panic!() };
        assert_eq!(registrar.flow_of(credential(), None), Some(over(2, 50_311)));
        assert_eq!((contacts.len(), changes.len(), changes[0].binding.expires_at), (1, 2, NOW));
        // Beside another one that is there, too; but of two that are away nobody can say which one came back.
        register(&mut registrar, 3, 50_400);
        registrar.connection_closed(ConnectionId(2));
        register(&mut registrar, 4, 50_500);
        assert_eq!((registrar.len(), registrar.flow_of(credential(), None)), (2, None));
        registrar.connection_closed(ConnectionId(3));
        registrar.connection_closed(ConnectionId(4));
        register(&mut registrar, 5, 50_600);
        assert_eq!((registrar.len(), registrar.flow_of(credential(), None)), (3, None));
    }

    #[test]
    fn what_a_phone_with_an_instance_left_behind_stays() {
        let mut registrar = Registrar::default();
        let flow = |number| Flow { connection: Some(ConnectionId(number)), ..Flow::udp(([10, 0, 0, 5], 5_061).into()) };
        let ask = |registrar: &mut Registrar, number: u64, text: &str| {
            let cseq = u32::try_from(number).expect("small");
            ask_over(registrar, flow(number), cseq, Ask::Contacts(vec![(contact(text), None)]))
        };
        ask(&mut registrar, 1, "<sip:u@10.0.0.5:1>;+sip.instance=\"<urn:uuid:1>\"");
        registrar.connection_closed(ConnectionId(1));
        ask(&mut registrar, 2, "<sip:u@10.0.0.5:2>");
        registrar.connection_closed(ConnectionId(2));
        ask(&mut registrar, 3, "<sip:other@10.0.0.5:3>");
        ask(&mut registrar, 4, "<sip:u@10.0.0.5:4>;+sip.instance=\"<urn:uuid:2>\"");
        assert_eq!(registrar.len(), 4);
    }

    #[test]
    fn a_registration_may_be_shorter_than_asked_for_but_not_too_short() {
        for (asked_s, shorter_permille, granted_s) in [(1_000, 100, 900), (300, 7, 298), (61, 100, 60), (60, 100, 60)] {
            let mut registrar = Registrar::default();
            let credential = CredentialId::generate(&mut Entropy::from_number(1), NOW);
            let flow = Flow::udp(std::net::SocketAddr::from(([127, 0, 0, 1], 5100)));
            let asks = Ask::Contacts(vec![(contact("<sip:a@10.0.0.1>"), Some(asked_s))]);
            let account = AccountKey(1);
            let registration = Registration {
                credential,
                account,
                flow,
                call_id: "c",
                cseq: 1,
                default_s: 300,
                shorter_permille,
                asks,
                outbound: true,
                path: Vec::new(),
            };
            let Decision::Registered { contacts, .. } = registrar.register(&registration, now()) else { panic!() };
            assert_eq!(contacts[0].expires_s(), Some(granted_s));
        }
    }

    #[test]
    fn what_is_too_short_late_or_many_is_refused() {
        let mut registrar = Registrar::default();
        assert!(is_refused(&one(&mut registrar, 1, "<sip:a@10.0.0.1>", Some(59)), 423));
        assert!(is_refused(&ask(&mut registrar, 1, Ask::RemoveAll { expires_s: None }), 400));
        one(&mut registrar, 5, "<sip:a@10.0.0.1>", None);
        assert!(is_refused(&one(&mut registrar, 5, "<sip:a@10.0.0.1>", None), 500));
        let six = (1..=6).map(|n| (contact(&format!("<sip:a@10.0.0.{n}>")), None)).collect();
        assert!(is_refused(&ask(&mut registrar, 6, Ask::Contacts(six)), 403));
        assert_eq!(registrar.len(), 1);
    }

    #[test]
    fn the_contact_refreshed_the_longest_ago_gives_way_to_a_sixth() {
        let mut registrar = Registrar::default();
        for (cseq, n) in [1, 2, 3, 4, 5, 1].into_iter().enumerate() {
            one(&mut registrar, 1 + u32::try_from(cseq).expect("small"), &format!("<sip:a@10.0.0.{n}>"), None);
        }
        let Decision::Registered { contacts, changes, .. } = one(&mut registrar, 7, "<sip:a@10.0.0.6>", None) else {
            panic!()
        };
        let hosts: Vec<_> = contacts.iter().map(|c| c.uri.host().to_owned()).collect();
        assert_eq!(hosts, ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.1", "10.0.0.6"]);
        assert_eq!(changes.len(), 2);
        assert!(changes[1].binding.contact.expose().contains("10.0.0.2") && changes[1].binding.expires_at <= NOW);
        assert_eq!((changes[0].bindings, registrar.len()), (5, CONTACTS_MAX));
    }

    #[test]
    fn a_phone_is_found_by_its_instance_until_its_connection_ends() {
        let mut registrar = Registrar::default();
        let over = |number, port| Flow {
            protocol: crate::flow::Protocol::Tls,
            peer: std::net::SocketAddr::from(([10, 0, 0, 1], port)),
            connection: Some(ConnectionId(number)),
        };
        let credential = credential();
        let instance = |text: &str| Ask::Contacts(vec![(contact(text), None)]);
        let mut register = |cseq, flow, text: &str| ask_over(&mut registrar, flow, cseq, instance(text));
        register(1, over(1, 1), "<sip:a@10.0.0.1>;+sip.instance=\"<urn:uuid:1>\"");
        register(2, over(2, 2), "<sip:a@10.0.0.2>;+sip.instance=\"<urn:uuid:2>\"");
        let one = Some("<urn:uuid:1>");
        assert_eq!(registrar.flow_of(credential, one), Some(over(1, 1)));
        assert_eq!(registrar.flow_of(credential, None), None, "one of two is nobody's");
        assert_eq!(registrar.instance_at(credential, over(2, 2)), Some("<urn:uuid:2>"));
        registrar.connection_closed(ConnectionId(1));
        assert_eq!((registrar.flow_of(credential, one), registrar.len()), (None, 2));
        let flow = over(3, 3);
        ask_over(&mut registrar, flow, 3, instance("<sip:a@10.0.0.1>;+sip.instance=\"<urn:uuid:1>\""));
        assert_eq!(registrar.flow_of(credential, one), Some(over(3, 3)));
        registrar.revoke(credential, NOW);
        assert_eq!((registrar.len(), registrar.connections.len(), registrar.expiries.len()), (0, 0, 0));
    }

    #[test]
    fn a_star_removes_all_and_time_removes_the_rest() {
        let mut registrar = Registrar::default();
        one(&mut registrar, 1, "<sip:a@10.0.0.1>", Some(60));
        one(&mut registrar, 2, "<sip:a@10.0.0.2>", Some(120));
        let gone = registrar.expire(now().after(Duration::from_secs(60)));
        assert_eq!((gone.len(), gone[0].bindings, registrar.len()), (1, 1, 1));
        let Decision::Registered { changes, .. } = ask(&mut registrar, 3, Ask::RemoveAll { expires_s: Some(0) }) else {
            panic!()
        };
        assert_eq!((changes.len(), registrar.len(), registrar.next_expiry()), (1, 0, None));
    }

    #[test]
    fn a_wall_clock_that_is_set_ends_nothing() {
        let mut registrar = Registrar::default();
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        let Decision::Registered { changes, .. } = one(&mut registrar, 1, "<sip:a@10.0.0.1>", Some(300)) else {
            panic!()
        };
        let later = now().after(Duration::from_secs(1));
        assert!(registrar.expire(Now { wall: later.wall + hours(2), ..later }).is_empty());
        assert_eq!(registrar.next_expiry(), Some(now().mono + Duration::from_secs(300)));
        // Set back, it is over when its time is, and its row is told so by that clock.
        let end = now().after(Duration::from_secs(300));
        let gone = registrar.expire(Now { wall: end.wall - hours(2), ..end });
        assert_eq!((gone.len(), gone[0].binding.expires_at, registrar.len()), (1, end.wall - hours(2), 0));
        // After a restart there is that clock alone.
        let binding = changes.into_iter().next().expect("one").binding;
        let booted = |wall| Now { mono: Mono(5), wall };
        for (wall, lasts_s) in [(NOW, 300), (NOW + Duration::from_secs(100), 200), (NOW - hours(9), 7_200)] {
            let mut registrar = Registrar::default();
            registrar.restore(binding.clone(), booted(wall));
            assert_eq!(registrar.next_expiry(), Some(Mono(5) + Duration::from_secs(lasts_s)));
        }
    }

    #[test]
    fn a_phone_with_an_instance_keeps_one_binding_when_its_address_changes() {
        let mut registrar = Registrar::default();
        one(&mut registrar, 1, "<sip:a@10.0.0.1>;+sip.instance=\"<urn:uuid:1>\"", None);
        one(&mut registrar, 2, "<sip:a@10.0.0.9>;+sip.instance=\"<urn:uuid:1>\"", None);
        assert_eq!(registrar.len(), 1);
    }

    #[test]
    fn each_flow_of_a_phone_is_a_binding_of_its_own_and_they_are_tried_in_turn() {
        let mut registrar = Registrar::default();
        let over = |number: u64| Flow {
            protocol: crate::flow::Protocol::Tls,
            peer: std::net::SocketAddr::from(([10, 0, 0, 1], 1)),
            connection: Some(ConnectionId(number)),
        };
        let credential = CredentialId::generate(&mut Entropy::from_number(1), NOW);
        let register = |registrar: &mut Registrar, number, text: &str, outbound| {
            let asks = Ask::Contacts(text.split(' ').map(|text| (contact(text), None)).collect());
            let (account, path) = (AccountKey(1), vec![contact("<sip:edge@10.9.9.9;lr;ob>")]);
            let (flow, cseq) = (over(number), u32::try_from(number).expect("small"));
            let default_s = 300;
            let registration = Registration {
                credential,
                account,
                flow,
                call_id: "c",
                cseq,
                default_s,
                shorter_permille: 0,
                asks,
                outbound,
                path,
            };
            registrar.register(&registration, now())
        };
        let phone = |flow: &str| format!("<sip:a@10.0.0.1;ob>;+sip.instance=\"<urn:uuid:1>\"{flow}");
        register(&mut registrar, 1, &phone(";reg-id=1"), true);
        register(&mut registrar, 2, &phone(";reg-id=2"), true);
        let Decision::Registered { contacts, changes, .. } = register(&mut registrar, 3, &phone(";reg-id=1"), true)
        else {
            panic!()
        };
        let flows: Vec<_> = contacts.iter().map(|c| c.params.value("reg-id").map(str::to_owned)).collect();
        assert_eq!(flows, [Some("2".to_owned()), Some("1".to_owned())], "the refreshed one is the newest");
        assert_eq!((changes[0].binding.reg_id, changes[0].bindings, registrar.len()), (Some(1), 2, 2));
        assert_eq!(changes[0].binding.path.len(), 1);
        let it = Some("<urn:uuid:1>");
        assert_eq!(registrar.flow_of(credential, it), Some(over(3)));
        assert_eq!(
            registrar
                .flow_besides(credential, it, over(3))
                .map(|flow| (flow, registrar.path_of(credential, it, flow).len())),
            Some((over(2), 1))
        );
        assert_eq!(registrar.flow_besides(credential, None, over(3)), None, "another phone is another phone");
        let ended = registrar.flow_failed(credential, it, over(3), NOW);
        assert_eq!((ended.len(), ended[0].binding.reg_id, ended[0].bindings), (1, Some(1), 1));
        assert_eq!(registrar.flow_of(credential, it), Some(over(2)));
        // Two flows in one REGISTER, and numbers that are none.
        let two = format!("{} {}", phone(";reg-id=3"), phone(";reg-id=4"));
        assert!(is_refused(&register(&mut registrar, 5, &two, true), 400));
        for wrong in [";reg-id=0", ";reg-id=2147483648", ";reg-id=x"] {
            assert!(is_refused(&register(&mut registrar, 6, &phone(wrong), true), 400), "{wrong}");
        }
        // Not asked for, or without an instance: the number is ignored.
        register(&mut registrar, 7, &phone(";reg-id=8"), false);
        register(&mut registrar, 8, "<sip:b@10.0.0.2>;reg-id=9", true);
        assert_eq!(registrar.len(), 3);
    }
}
