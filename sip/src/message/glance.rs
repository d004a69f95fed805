//! What an INVITE, or the ACK of its refusal, shows at first sight: enough to refuse it for a fifth of the price of reading it
//! whole, when many more calls come than are let in. Of a message that is not as ordinary ones are it says nothing.

use super::address::AddressParts;
use super::lexer::head_end;
use super::scan::{self, next_control, split_at, split_list};
use super::via::ViaParts;
use super::writer::Writer;
use super::{HeaderName, reason_phrase, validate};
use bytes::Bytes;
use std::net::SocketAddr;

/// A request that passed more servers than this is read whole.
const VIAS_MAX: usize = 4;

/// An INVITE outside dialogs whose refusal can be written. Whatever of it is not needed for that is not checked.
pub struct Glance<'a> {
    via: ViaParts<'a>,
    vias: Vias<'a>,
    from: &'a str,
    to: &'a str,
    from_tag: Option<&'a str>,
    call_id: &'a str,
    cseq: &'a str,
    agent: Option<&'a str>,
}

/// Values of Via, one a line.
#[derive(Default)]
struct Vias<'a> {
    texts: [&'a str; VIAS_MAX],
    count: usize,
}

impl<'a> Vias<'a> {
    fn put(&mut self, text: &'a str) -> Option<()> {
        *self.texts.get_mut(self.count)? = single(text)?;
        self.count += 1;
        Some(())
    }

    fn all(&self) -> &[&'a str] {
        &self.texts[..self.count]
    }
}

impl<'a> Glance<'a> {
    /// Looks at a datagram. `None`: it is something else, in a dialog, with credentials, or not ordinary: it is to be read.
    #[must_use]
    pub fn of(datagram: &'a [u8]) -> Option<Self> {
        let mut vias = Vias::default();
        let [mut from, mut to, mut call_id, mut cseq] = [None; 4];
        let mut agent = None;
        for line in Lines::of(datagram, b"INVITE ")? {
            let (name, value) = split_at(line?, b':')?;
            let value = scan::trim(value);
            match HeaderName::parse(name.trim_end_matches([' ', '\t'])) {
                HeaderName::Via => vias.put(value)?,
                HeaderName::From => once(&mut from, value)?,
                HeaderName::To => once(&mut to, value)?,
                HeaderName::CallId => once(&mut call_id, value)?,
                HeaderName::CSeq => once(&mut cseq, value)?,
                HeaderName::UserAgent => agent = agent.or(Some(value)),
                HeaderName::Authorization | HeaderName::ProxyAuthorization => return None,
                _ => {}
            }
        }
        let (from, to, call_id, cseq) = (from?, to?, call_id?, cseq?);
        let (from_tag, to_tag) = (tag_of(from)?, tag_of(to)?);
        let (_, method) = validate::cseq(cseq).ok()?;
        if method != "INVITE" || to_tag.is_some() || !scan::is_call_id(call_id) {
            return None;
        }
        let via = ViaParts::parse(vias.all().first()?).ok()?;
        Some(Self { via, vias, from, to, from_tag, call_id, cseq, agent })
    }

    /// `branch` of the top Via.
    #[must_use]
    pub fn branch(&self) -> Option<&'a str> {
        self.via.params.value("branch")
    }

    /// Sent-by of the top Via.
    #[must_use]
    pub const fn sent_by(&self) -> (&'a str, Option<u16>) {
        (self.via.host, self.via.port)
    }

    /// Call-ID.
    #[must_use]
    pub const fn call_id(&self) -> &'a str {
        self.call_id
    }

    /// From's tag.
    #[must_use]
    pub const fn from_tag(&self) -> Option<&'a str> {
        self.from_tag
    }

    /// User-Agent.
    #[must_use]
    pub const fn user_agent(&self) -> Option<&'a str> {
        self.agent
    }

    /// Where a response goes, as [`super::Message::response_address`] has it.
    #[must_use]
    pub fn response_address(&self, source: SocketAddr) -> Option<SocketAddr> {
        self.via.response_address(Some(source))
    }

    /// The 503, byte for byte as it would be if the request were read whole. `None`: something in it cannot be copied.
    #[must_use]
    pub fn refusal(&self, source: SocketAddr, to_tag: &str, retry_after_s: u64) -> Option<Bytes> {
        let mut writer = Writer::new();
        writer.reserve(320 + self.vias.all().iter().map(|via| via.len() + 50).sum::<usize>());
        writer.start_line(&["SIP/2.0 503 ", reason_phrase(503)]);
        writer.line_with(HeaderName::Via, |text| self.via.write_seen_from(Some(source), text));
        self.vias.all().iter().skip(1).for_each(|via| writer.line(HeaderName::Via, &[via]));
        writer.line(HeaderName::From, &[self.from]);
        writer.line(HeaderName::To, &[self.to, ";tag=", to_tag]);
        writer.line(HeaderName::CallId, &[self.call_id]);
        writer.line(HeaderName::CSeq, &[self.cseq]);
        writer.extra(HeaderName::RetryAfter, &retry_after_s);
        writer.finish().ok()
    }
}

/// Of an ACK the tag of To, by which it names the answer that it acknowledges. `None`: it is something else, or not ordinary.
#[must_use]
pub fn acknowledged(datagram: &[u8]) -> Option<&str> {
    let mut lines = Lines::of(datagram, b"ACK ")?;
    while let Some(line) = lines.next() {
        let line = line?;
        // Most lines are told by their first letter.
        if line.starts_with(['T', 't']) {
            let (name, value) = split_at(line, b':')?;
            if HeaderName::parse(name.trim_end_matches([' ', '\t'])) == HeaderName::To {
                // Of a line that is folded the rest is in the next one.
                let is_whole = lines.next().is_none_or(|next| next.is_some());
                return tag_of(scan::trim(value))?.filter(|_| is_whole);
            }
        }
    }
    None
}

/// The tag of From or To, if it has one; `None` when it cannot be read.
fn tag_of(address: &str) -> Option<Option<&str>> {
    AddressParts::parse(address).map(|parts| parts.params.value("tag")).ok()
}

/// A value that may stand once.
fn once<'a>(place: &mut Option<&'a str>, value: &'a str) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// The value of a line that is no list.
fn single(text: &str) -> Option<&str> {
    let mut values = split_list(text);
    values.next()?.ok().filter(|_| values.next().is_none())
}

/// Lines of a head, each `None` that is folded or holds a control character.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// Those behind the request line of this method, which ends with its space.
    fn of(datagram: &'a [u8], method: &[u8]) -> Option<Self> {
        if !datagram.starts_with(method) {
            return None;
        }
        let text = std::str::from_utf8(&datagram[..head_end(datagram, 0)? - 2]).ok()?;
        let mut lines = Lines { text, at: 0 };
        lines.next()??.ends_with(" SIP/2.0").then_some(lines)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Option<&'a str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (start, bytes) = (self.at, self.text.as_bytes());
        if start >= bytes.len() {
            return None;
        }
        let end = next_control(bytes, start);
        self.at = end + 2;
        let is_whole = bytes.get(end..self.at) == Some(b"\r\n") && !bytes.get(start).copied().is_some_and(scan::is_lws);
        Some(is_whole.then(|| &self.text[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Method, ResponseBuilder};
    use proptest::prelude::*;

    fn source() -> SocketAddr {
        ([192, 0, 2, 9], 4321).into()
    }

    fn invite(lines: &str) -> String {
        format!("INVITE sip:1@h SIP/2.0\r\n{lines}Max-Forwards: 70\r\nContact: <sip:a@h>\r\nContent-Length: 0\r\n\r\n")
    }

    const PLAIN: &str = "Via: SIP/2.0/UDP 10.0.0.1:5062;rport;branch=z9hG4bKa\r\nFrom: \"A\" <sip:a@h>;tag=1\r\nTo: <sip:1@h>\r\nCall-ID: c@h\r\nCSeq: 7 INVITE\r\n";

    /// What is said of `text` at first sight is what is said of it when it is read.
    fn agrees(text: &str) -> bool {
        let Ok(message) = Message::parse_datagram(&Bytes::copy_from_slice(text.as_bytes())) else { return false };
        let message = message.with_source(source());
        if let Some(tag) = acknowledged(text.as_bytes()) {
            assert_eq!((message.is_ack(), message.to_tag()), (true, Some(tag)));
            return true;
        }
        let Some(glance) = Glance::of(text.as_bytes()) else { return false };
        assert_eq!((message.method(), message.to_tag()), (&Method::Invite, None));
        assert_eq!((glance.branch(), glance.sent_by()), (message.branch(), message.sent_by()));
        assert_eq!((glance.call_id(), glance.from_tag()), (message.call_id(), message.from_tag()));
        assert_eq!(glance.user_agent(), message.text(HeaderName::UserAgent));
        assert_eq!(glance.response_address(source()), message.response_address());
        let whole = ResponseBuilder::to_request(&message, 503, Some("t")).header(HeaderName::RetryAfter, &9_u64);
        assert_eq!(glance.refusal(source(), "t", 9), whole.build().ok());
        true
    }

    fn ack() -> String {
        let invite = invite(&PLAIN.replace("INVITE", "ACK").replace("<sip:1@h>", "\"To: x;tag=y\" <sip:1@h>;tag=z"));
        invite.replace("INVITE sip", "ACK sip")
    }

    #[test]
    fn an_ordinary_invite_is_refused_as_if_it_were_read() {
        assert!(agrees(&invite(PLAIN)));
        let by_proxies = format!("v: SIP/2.0/UDP p;branch=z9hG4bKb;x=\"a,b\"\r\nUser-Agent: t\r\n{PLAIN}");
        assert!(agrees(&invite(&by_proxies)));
        assert!(agrees(&ack()) && acknowledged(ack().as_bytes()) == Some("z"));
        assert!(agrees(&ack().replace("To: \"", "t : \"")));
    }

    #[test]
    fn of_what_is_not_ordinary_nothing_is_said() {
        let not = [
            PLAIN.replace("<sip:1@h>", "<sip:1@h>;tag=z"),
            PLAIN.replace("7 INVITE", "7 ACK"),
            PLAIN.replace("c@h", ""),
            PLAIN.replace("Call-ID", "Call-IDs"),
            PLAIN.replace("\r\nTo:", "\r\n ,\r\nTo:"),
            PLAIN.replace("\r\nTo:", "\r\nTo: <sip:2@h>\r\nTo:"),
            PLAIN.replace("z9hG4bKa", "z9hG4bKa, SIP/2.0/UDP x;branch=z9hG4bKb"),
            PLAIN.replace("Via: SIP/2.0", "Via: SIP/3.0"),
            format!("{PLAIN}Proxy-Authorization: Digest a=\"b\"\r\n"),
            format!("{PLAIN}Subject: a\tb\r\n"),
            format!("{PLAIN}no colon\r\n"),
            format!("{}{PLAIN}", "Via: SIP/2.0/UDP p;branch=z9hG4bKb\r\n".repeat(VIAS_MAX)),
        ];
        for lines in not {
            assert!(Glance::of(invite(&lines).as_bytes()).is_none(), "{lines}");
        }
        let whole = invite(PLAIN);
        for end in 0..whole.len() {
            assert!(Glance::of(&whole.as_bytes()[..end]).is_none());
            assert!(acknowledged(&ack().as_bytes()[..end]).is_none());
        }
        let folded = ack().replace(";tag=z", ";tag\r\n =z");
        assert!(Message::parse_datagram(&Bytes::from(folded.clone())).is_ok_and(|ack| ack.to_tag() == Some("z")));
        for not in [
            folded,
            ack().replace("ACK sip", "BYE sip"),
            ack().replace("\r\nTo:", "\r\nTop:"),
            ack().replace(";tag=z", ""),
        ] {
            assert!(acknowledged(not.as_bytes()).is_none(), "{not}");
        }
        for other in ["INVITE sip:1@h SIP/3.0", "INVITE  ", "REGISTER sip:h SIP/2.0"] {
            assert!(Glance::of(whole.replace("INVITE sip:1@h SIP/2.0", other).as_bytes()).is_none());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_changed_both_ways_of_reading_agree(at in 0_usize..180, with in "[ -~\\t\r\n]{0,3}", drop in 0_usize..3) {
            for text in [invite(PLAIN), ack()] {
                let (before, behind) = text.split_at(at);
                agrees(&format!("{before}{with}{}", &behind[drop..]));
            }
        }
    }
}
