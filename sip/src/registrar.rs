//! Registrar (RFC 3261 §10.3, RFC 5626): which phones are where. Pure; durable rows are kept by whoever hears the changes.

use crate::flow::Flow;
use crate::message::NameAddr;
use schema::edge::{Binding, BindingChange};
use schema::id::{AccountKey, CredentialId};
use schema::pii::Pii;
use schema::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Shortest registration, in seconds.
pub(crate) const EXPIRES_MIN_S: u32 = 60;
/// Longest registration, in seconds.
const EXPIRES_MAX_S: u32 = 7_200;
/// Most contacts of one address-of-record.
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
    pub(crate) asks: Ask,
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
    Registered { contacts: Vec<NameAddr>, changes: Vec<BindingChange> },
}

struct Entry {
    binding: Binding,
    contact: NameAddr,
    flow: Option<Flow>,
    call_id: Box<str>,
    cseq: u32,
}

/// All bindings, by credential.
#[derive(Default)]
pub(crate) struct Registrar {
    entries: BTreeMap<CredentialId, Vec<Entry>>,
}

impl Registrar {
    pub(crate) fn len(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }

    /// Carries a registration out, all of it or nothing.
    pub(crate) fn register(&mut self, registration: &Registration<'_>, at: Timestamp) -> Decision {
        let entries = self.entries.entry(registration.credential).or_default();
        let decision = match &registration.asks {
            Ask::RemoveAll { expires_s: Some(0) } => remove_all(entries, registration, at),
            Ask::RemoveAll { .. } => Decision::Refused(400),
            Ask::Contacts(contacts) => update(entries, registration, contacts, at),
        };
        if entries.is_empty() {
            self.entries.remove(&registration.credential);
        }
        decision
    }

    /// Takes up a binding from before a restart.
    pub(crate) fn restore(&mut self, binding: Binding) {
        let Ok(contact) = NameAddr::parse(binding.contact.expose()) else { return };
        let entries = self.entries.entry(binding.credential).or_default();
        entries.retain(|entry| !is_same(entry, &contact));
        if entries.len() < CONTACTS_MAX {
            entries.push(Entry { binding, contact, flow: None, call_id: "".into(), cseq: 0 });
        }
    }

    /// Ends all bindings of a credential.
    pub(crate) fn revoke(&mut self, credential: CredentialId, at: Timestamp) -> Vec<BindingChange> {
        let gone = self.entries.remove(&credential).unwrap_or_default();
        gone.into_iter().map(|entry| left(entry.binding, 0, at)).collect()
    }

    /// Ends what has run out.
    pub(crate) fn expire(&mut self, at: Timestamp) -> Vec<BindingChange> {
        let mut changes = Vec::new();
        self.entries.retain(|_, entries| {
            let (kept, gone): (Vec<_>, Vec<_>) = entries.drain(..).partition(|entry| entry.binding.expires_at > at);
            let bindings = u32::try_from(kept.len()).unwrap_or(u32::MAX);
            *entries = kept;
            changes.extend(gone.into_iter().map(|entry| BindingChange { binding: entry.binding, bindings }));
            !entries.is_empty()
        });
        changes
    }

    /// When the next binding runs out.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.entries.values().flatten().map(|entry| entry.binding.expires_at).min()
    }

    /// The connection is gone: the phone is not reached over it any more, though its registration stands.
    pub(crate) fn flow_closed(&mut self, flow: Flow) {
        for entry in self.entries.values_mut().flatten().filter(|entry| entry.flow == Some(flow)) {
            entry.flow = None;
        }
    }
}

fn remove_all(entries: &mut Vec<Entry>, registration: &Registration<'_>, at: Timestamp) -> Decision {
    if entries.iter().any(|entry| is_stale(entry, registration)) {
        return Decision::Refused(500);
    }
    let changes = entries.drain(..).map(|entry| left(entry.binding, 0, at)).collect();
    Decision::Registered { contacts: Vec::new(), changes }
}

fn update(
    entries: &mut Vec<Entry>,
    registration: &Registration<'_>,
    contacts: &[(NameAddr, Option<u32>)],
    at: Timestamp,
) -> Decision {
    let seconds = |asked: &Option<u32>| asked.unwrap_or(registration.default_s).min(EXPIRES_MAX_S);
    for (contact, asked) in contacts {
        if (1..EXPIRES_MIN_S).contains(&seconds(asked)) {
            return Decision::Refused(423);
        }
        if entries.iter().any(|entry| is_same(entry, contact) && is_stale(entry, registration)) {
            return Decision::Refused(500);
        }
    }
    let new =
        contacts.iter().filter(|(contact, asked)| seconds(asked) > 0 && !entries.iter().any(|e| is_same(e, contact)));
    let leaving =
        entries.iter().filter(|e| contacts.iter().any(|(c, asked)| is_same(e, c) && seconds(asked) == 0)).count();
    if entries.len() + new.count() - leaving > CONTACTS_MAX {
        return Decision::Refused(403);
    }
    let mut changed = Vec::new();
    for (contact, asked) in contacts {
        let before = entries.iter().position(|entry| is_same(entry, contact)).map(|at| entries.remove(at));
        if seconds(asked) == 0 {
            changed.extend(before.map(|entry| Binding { expires_at: at, ..entry.binding }));
            continue;
        }
        let entry = entry(registration, contact, at + Duration::from_secs(u64::from(seconds(asked))));
        changed.push(entry.binding.clone());
        entries.push(entry);
    }
    let bindings = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let changes = changed.into_iter().map(|binding| BindingChange { binding, bindings }).collect();
    let contacts = entries.iter().filter_map(|entry| with_expires(entry, at)).collect();
    Decision::Registered { contacts, changes }
}

fn entry(registration: &Registration<'_>, contact: &NameAddr, expires_at: Timestamp) -> Entry {
    let instance = contact.params.unquoted("+sip.instance");
    let flow = registration.flow;
    Entry {
        binding: Binding {
            credential: registration.credential,
            account: registration.account,
            contact: Pii::new(contact.to_string()),
            instance: instance.map(Pii::new),
            source: Pii::new(format!("{} {}", flow.protocol.via().as_str(), flow.peer)),
            expires_at,
        },
        contact: contact.clone(),
        flow: Some(flow),
        call_id: registration.call_id.into(),
        cseq: registration.cseq,
    }
}

/// The same phone: its instance (RFC 5626 §6), else an equivalent Contact.
fn is_same(entry: &Entry, contact: &NameAddr) -> bool {
    let known = entry.binding.instance.as_ref().map(|instance| instance.expose().as_str());
    match (known, contact.params.unquoted("+sip.instance")) {
        (Some(known), Some(instance)) => {
            known == instance && entry.contact.params.value("reg-id") == contact.params.value("reg-id")
        }
        _ => entry.contact.uri.is_equivalent(&contact.uri),
    }
}

/// A REGISTER that was overtaken by a later one (RFC 3261 §10.3 step 7).
fn is_stale(entry: &Entry, registration: &Registration<'_>) -> bool {
    *entry.call_id == *registration.call_id && registration.cseq <= entry.cseq
}

fn with_expires(entry: &Entry, at: Timestamp) -> Option<NameAddr> {
    let seconds = entry.binding.expires_at.since(at).as_secs();
    let mut contact = NameAddr::new(entry.contact.uri.clone());
    if let Some(instance) = entry.contact.params.value("+sip.instance") {
        contact = contact.with_param("+sip.instance", Some(instance)).ok()?;
    }
    contact.with_param("expires", Some(&seconds.to_string())).ok()
}

fn left(binding: Binding, bindings: u32, at: Timestamp) -> BindingChange {
    BindingChange { binding: Binding { expires_at: at, ..binding }, bindings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::entropy::Entropy;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn contact(text: &str) -> NameAddr {
        NameAddr::parse(text).expect("valid")
    }

    fn ask(registrar: &mut Registrar, cseq: u32, asks: Ask) -> Decision {
        let credential = CredentialId::generate(&mut Entropy::from_number(1), NOW);
        let flow = Flow::udp(std::net::SocketAddr::from(([127, 0, 0, 1], 5100)));
        let registration =
            Registration { credential, account: AccountKey(1), flow, call_id: "c", cseq, default_s: 300, asks };
        registrar.register(&registration, NOW)
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
        let Decision::Registered { contacts, changes } = one(&mut registrar, 1, "<sip:a@10.0.0.1>", None) else {
            panic!()
        };
        assert_eq!((contacts[0].expires_s(), changes[0].bindings, registrar.len()), (Some(300), 1, 1));
        assert!(matches!(one(&mut registrar, 2, "<sip:a@10.0.0.1>", Some(600)), Decision::Registered { .. }));
        assert_eq!((registrar.len(), registrar.next_expiry()), (1, Some(NOW + Duration::from_secs(600))));
        let Decision::Registered { contacts, changes } = one(&mut registrar, 3, "<sip:a@10.0.0.1>", Some(0)) else {
            panic!()
        };
        assert!(contacts.is_empty() && changes[0].bindings == 0 && changes[0].binding.expires_at <= NOW);
        assert_eq!(registrar.len(), 0);
    }

    #[test]
    fn what_is_too_short_late_or_many_is_refused() {
        let mut registrar = Registrar::default();
        assert!(is_refused(&one(&mut registrar, 1, "<sip:a@10.0.0.1>", Some(59)), 423));
        assert!(is_refused(&ask(&mut registrar, 1, Ask::RemoveAll { expires_s: None }), 400));
        one(&mut registrar, 5, "<sip:a@10.0.0.1>", None);
        assert!(is_refused(&one(&mut registrar, 5, "<sip:a@10.0.0.1>", None), 500));
        for n in 2..=5 {
            assert!(matches!(
                one(&mut registrar, 6, &format!("<sip:a@10.0.0.{n}>"), None),
                Decision::Registered { .. }
            ));
        }
        assert!(is_refused(&one(&mut registrar, 7, "<sip:a@10.0.0.6>", None), 403));
        assert_eq!(registrar.len(), CONTACTS_MAX);
    }

    #[test]
    fn a_star_removes_all_and_time_removes_the_rest() {
        let mut registrar = Registrar::default();
        one(&mut registrar, 1, "<sip:a@10.0.0.1>", Some(60));
        one(&mut registrar, 2, "<sip:a@10.0.0.2>", Some(120));
        let gone = registrar.expire(NOW + Duration::from_secs(60));
        assert_eq!((gone.len(), gone[0].bindings, registrar.len()), (1, 1, 1));
        let Decision::Registered { changes, .. } = ask(&mut registrar, 3, Ask::RemoveAll { expires_s: Some(0) }) else {
            panic!()
        };
        assert_eq!((changes.len(), registrar.len(), registrar.next_expiry()), (1, 0, None));
    }

    #[test]
    fn a_phone_with_an_instance_keeps_one_binding_when_its_address_changes() {
        let mut registrar = Registrar::default();
        one(&mut registrar, 1, "<sip:a@10.0.0.1>;+sip.instance=\"<urn:uuid:1>\"", None);
        one(&mut registrar, 2, "<sip:a@10.0.0.9>;+sip.instance=\"<urn:uuid:1>\"", None);
        assert_eq!(registrar.len(), 1);
    }
}
