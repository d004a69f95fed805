//! What every message is asked for again and again, read once: its top Via, the tags, Call-ID.

use super::HeaderName;
use super::address::AddressParts;
use super::lexer::{Head, Span};
use super::params::ParamList;
use super::scan::split_list;
use super::via::{Transport, ViaParts};

/// Of a message that was not checked yet any of them may be absent or malformed.
#[derive(Default)]
pub(super) struct Essentials {
    via: Option<TopVia>,
    from: Option<Party>,
    to: Option<Party>,
    call_id: Option<Span>,
}

struct TopVia {
    transport: Transport,
    host: Span,
    port: Option<u16>,
    params: Span,
    branch: Option<Span>,
}

/// From or To, its URI not checked.
struct Party {
    uri: Span,
    tag: Option<Span>,
}

impl Essentials {
    pub(super) fn of(head: &Head) -> Self {
        let first = |name| head.texts(name).next();
        Self {
            via: first(HeaderName::Via).and_then(|text| TopVia::read(head, text)),
            from: first(HeaderName::From).and_then(|text| Party::read(head, text)),
            to: first(HeaderName::To).and_then(|text| Party::read(head, text)),
            call_id: first(HeaderName::CallId).and_then(|text| head.place(text)),
        }
    }
}

impl TopVia {
    fn read(head: &Head, text: &str) -> Option<Self> {
        let parts = ViaParts::parse(split_list(text).next()?.ok()?).ok()?;
        Some(Self {
            transport: parts.transport,
            host: head.place(parts.host)?,
            port: parts.port,
            params: head.place(parts.params.as_str())?,
            branch: parts.params.value("branch").and_then(|branch| head.place(branch)),
        })
    }
}

impl Party {
    fn read(head: &Head, text: &str) -> Option<Self> {
        let parts = AddressParts::parse(text).ok()?;
        Some(Self { uri: head.place(parts.uri)?, tag: parts.params.value("tag").and_then(|tag| head.place(tag)) })
    }
}

impl Head {
    /// The top Via, where it is well-formed.
    pub(super) fn top_via(&self) -> Option<ViaParts<'_>> {
        let via = self.essentials.via.as_ref()?;
        let (host, params) = (self.at(via.host), ParamList::known(self.at(via.params)));
        Some(ViaParts { transport: via.transport, host, port: via.port, params })
    }

    /// `branch` of the top Via.
    pub(super) fn branch(&self) -> Option<&str> {
        self.essentials.via.as_ref()?.branch.map(|branch| self.at(branch))
    }

    /// The tags of From and To.
    pub(super) fn tags(&self) -> (Option<&str>, Option<&str>) {
        let tag = |party: &Option<Party>| party.as_ref()?.tag.map(|tag| self.at(tag));
        (tag(&self.essentials.from), tag(&self.essentials.to))
    }

    /// URI and tag of From or To, where that is well-formed.
    pub(super) fn party(&self, name: HeaderName) -> Option<(&str, Option<&str>)> {
        let is_from = name == HeaderName::From;
        let party = if is_from { &self.essentials.from } else { &self.essentials.to }.as_ref()?;
        Some((self.at(party.uri), party.tag.map(|tag| self.at(tag))))
    }

    /// Whether To is well-formed and has no tag.
    pub(super) fn takes_to_tag(&self) -> bool {
        self.essentials.to.as_ref().is_some_and(|to| to.tag.is_none())
    }

    /// Call-ID, as it came.
    pub(super) fn call_id(&self) -> Option<&str> {
        self.essentials.call_id.map(|call_id| self.at(call_id))
    }
}
