//! Dialogs (RFC 3261 §12): what both ends have agreed on, and how it survives a restart.

use crate::key::Key;
use crate::message::{AddressText, Malformed, Message, Method, NameAddr, RequestBuilder, Uri, Written};
use crate::sdp::Origin;
use schema::id::{CredentialId, TrunkId};
use schema::leg::Checkpoint;
use schema::pii::Pii;
use schema::target::HostName;
use schema::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

/// Version of [`Stored`]'s encoding.
const VERSION: u16 = 1;
/// Room for the usual one.
const USUAL: usize = 1_536;
/// Added to the local CSeq after a restart: requests sent since the checkpoint used lower ones. Gaps are legal.
const CSEQ_GAP: u32 = 1_000;
/// Added beside it for each tenth of a second since the checkpoint, so that a second restart does not begin where the first
/// did.
const CSEQ_STEP: Duration = Duration::from_millis(100);

/// The highest CSeq that may be sent (RFC 3261 §8.1.1.5), with room for a request or two.
const CSEQ_MAX: u32 = (1 << 31) - 100;

/// One end of a dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialog {
    pub(crate) call_id: Box<str>,
    /// Our From or To, with our tag.
    pub(crate) local: AddressText,
    /// Theirs; with a tag once the dialog stands.
    pub(crate) remote: AddressText,
    /// CSeq of our last request.
    pub(crate) local_cseq: u32,
    /// CSeq of their last request; `None` before one came.
    pub(crate) remote_cseq: Option<u32>,
    /// Their Contact.
    pub(crate) target: Uri,
    /// Proxies to pass, the nearest first.
    pub(crate) routes: Box<[NameAddr]>,
}

/// What identifies a dialog that has ended among ours: Call-ID and our tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DialogKey(Key);

impl DialogKey {
    pub(crate) fn new(call_id: &str, our_tag: &str) -> Self {
        Self(Key::of(our_tag, &[call_id.as_bytes(), our_tag.as_bytes()]))
    }
}

impl Dialog {
    /// The dialog that a 2xx to this INVITE, whose From is read, would make at its server (RFC 3261 §12.1.1).
    pub(crate) fn of_invite(invite: &Message, from: &NameAddr, local_tag: &str) -> Result<Self, Malformed> {
        let target = invite.contact().ok_or(Malformed)?.uri;
        Ok(Self {
            call_id: invite.call_id().into(),
            local: AddressText::from(&invite.to().with_tag(local_tag)?),
            remote: AddressText::from(from),
            local_cseq: 0,
            remote_cseq: Some(invite.cseq().0),
            target,
            routes: invite.record_routes().into(),
        })
    }

    /// The dialog that this 2xx or reliable 18x makes at the client (RFC 3261 §12.1.2), out of what stood before it.
    pub(crate) fn confirmed_by(&self, response: &Message) -> Self {
        let mut routes = response.record_routes();
        routes.reverse();
        Self {
            call_id: self.call_id.clone(),
            local: self.local.clone(),
            remote: AddressText::from(&response.to()),
            local_cseq: self.local_cseq,
            remote_cseq: self.remote_cseq.filter(|_| self.remote.tag() == response.to_tag()),
            target: response.contact().map_or_else(|| self.target.clone(), |contact| contact.uri),
            routes: routes.into(),
        }
    }

    pub(crate) fn key(&self) -> DialogKey {
        DialogKey::new(&self.call_id, self.our_tag())
    }

    pub(crate) fn our_tag(&self) -> &str {
        self.local.tag().unwrap_or_default()
    }

    /// Whether a request with our tag is of this dialog: it has their tag, too.
    pub(crate) fn is_from_peer(&self, request: &Message) -> bool {
        self.remote.tag() == request.from_tag()
    }

    /// Takes a request's CSeq over (RFC 3261 §12.2.2).
    ///
    /// # Errors
    /// The status to answer with: it is of another dialog, or was overtaken by a later one.
    pub(crate) fn take_request(&mut self, request: &Message) -> Result<(), u16> {
        if !self.is_from_peer(request) {
            return Err(481);
        }
        let number = request.cseq().0;
        if self.remote_cseq.is_some_and(|last| number <= last) {
            return Err(500);
        }
        self.remote_cseq = Some(number);
        Ok(())
    }

    /// Takes the Contact of a re-INVITE or UPDATE that is accepted over; true when it is another one.
    pub(crate) fn refresh_target(&mut self, request: &Message) -> bool {
        let Some(contact) = request.contact() else { return false };
        std::mem::replace(&mut self.target, contact.uri.clone()) != contact.uri
    }

    /// Our next request in the dialog, without Via: how it leaves is not known yet.
    pub(crate) fn request(&mut self, method: Method) -> RequestBuilder {
        self.local_cseq += 1;
        self.numbered(method, self.local_cseq)
    }

    /// The ACK of the 2xx to our INVITE of this CSeq.
    pub(crate) fn ack_without_via(&self, cseq: u32) -> RequestBuilder {
        self.numbered(Method::Ack, cseq)
    }

    fn numbered(&self, method: Method, cseq: u32) -> RequestBuilder {
        let strict = self.routes.first().filter(|route| route.uri.param("lr").is_none());
        let (uri, routes) = match strict {
            None => (self.target.clone(), self.routes.clone()),
            // A strict router reads its own address off the Request-URI (RFC 3261 §12.2.1.1).
            Some(first) => {
                let rest = self.routes.iter().skip(1).cloned();
                (first.uri.clone(), rest.chain([NameAddr::new(self.target.clone())]).collect())
            }
        };
        let request = RequestBuilder::new(method, uri.without_headers())
            .from(&self.local)
            .to(&self.remote)
            .call_id(&self.call_id)
            .cseq(cseq);
        routes.iter().fold(request, RequestBuilder::route)
    }

    /// Where the next request goes by the dialog's own word: the first route, else the target.
    pub(crate) fn next_hop(&self) -> &Uri {
        self.routes.first().map_or(&self.target, |route| &route.uri)
    }
}

/// Everything a leg needs after a restart, as text. What there is none of is left out.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored<'a> {
    /// Of this form.
    version: u16,
    call_id: Cow<'a, str>,
    local: Cow<'a, str>,
    remote: Cow<'a, str>,
    local_cseq: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_cseq: Option<u32>,
    target: Cow<'a, str>,
    routes: Vec<String>,
    /// When this was so.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    /// Our Contact.
    pub(crate) contact: Cow<'a, str>,
    /// `UDP 192.0.2.1:5060`, `TLS …`: where the peer was.
    pub(crate) peer: String,
    /// The name under which the peer was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<HostName>,
    /// The phone, to find its newest flow; none of a carrier's leg.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone: Option<StoredPhone>,
    /// The trunk of a carrier's leg; none of a customer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trunk: Option<TrunkId>,
    /// Where a carrier's call went, when the peer is elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) called: Option<IpAddr>,
    /// The A-leg's INVITE, for the 200 sent after a restart; none once that was acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) invite: Option<StoredInvite>,
    /// CSeq of our INVITE, whose 200 holds an offer that is not answered yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unanswered: Option<u32>,
    /// The INVITE had no offer.
    #[serde(default)]
    pub(crate) offerless: bool,
    /// Its session timer; none where the other side knows no timers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timer: Option<StoredTimer>,
    /// Identity of our session descriptions.
    pub(crate) origin: Origin,
    /// Our last session description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local_sdp: Option<Cow<'a, str>>,
    /// Their last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_sdp: Option<Cow<'a, str>>,
}

/// Which phone it is: its credential stands for the address-of-record (RFC 5626 §4.1).
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredPhone {
    pub(crate) credential: CredentialId,
    pub(crate) instance: Option<Box<str>>,
}

/// What is agreed about refreshes (RFC 4028).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredTimer {
    /// The session is over when it is not refreshed for so long, seconds.
    pub(crate) interval_s: u32,
    /// We refresh it.
    pub(crate) ours: bool,
    /// The other side takes UPDATE.
    pub(crate) updates: bool,
    /// The shortest that the far end takes, seconds: the largest Min-SE that it sent in this dialog; 0 when it sent none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(crate) min_se_s: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
const fn is_none(seconds: &u32) -> bool {
    *seconds == 0
}

/// What a response to the A-leg's INVITE needs beside the dialog.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredInvite {
    pub(crate) vias: Vec<String>,
    pub(crate) cseq: u32,
}

impl<'a> Stored<'a> {
    pub(crate) fn of(
        dialog: &'a Dialog,
        contact: &'a AddressText,
        peer: String,
        origin: Origin,
        at: Timestamp,
    ) -> Self {
        Self {
            version: VERSION,
            call_id: Cow::Borrowed(&dialog.call_id),
            local: Cow::Borrowed(dialog.local.as_str()),
            remote: Cow::Borrowed(dialog.remote.as_str()),
            local_cseq: dialog.local_cseq,
            remote_cseq: dialog.remote_cseq,
            target: Cow::Borrowed(dialog.target.as_str()),
            routes: dialog.routes.iter().map(Written::written).collect(),
            at: Some(at),
            contact: Cow::Borrowed(contact.as_str()),
            peer,
            server: None,
            phone: None,
            trunk: None,
            called: None,
            invite: None,
            unanswered: None,
            offerless: false,
            timer: None,
            origin,
            local_sdp: None,
            remote_sdp: None,
        }
    }

    /// The durable form.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let mut state = Vec::with_capacity(USUAL);
        let written = serde_json::to_writer(&mut state, self).ok().and_then(|()| std::str::from_utf8(&state).ok());
        Checkpoint { state: Pii::new(written.unwrap_or_default().into()) }
    }

    /// Reads the durable form.
    ///
    /// # Errors
    /// When it is of another version or not ours.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Self, Malformed> {
        let stored: Self = serde_json::from_str(checkpoint.state.expose()).map_err(|_| Malformed)?;
        if stored.version == VERSION { Ok(stored) } else { Err(Malformed) }
    }

    /// The dialog as it goes on after a restart.
    pub(crate) fn dialog(&self, now: Timestamp) -> Result<Dialog, Malformed> {
        let since = self.at.map_or(Duration::ZERO, |at| now.since(at));
        let steps = u32::try_from(since.as_millis() / CSEQ_STEP.as_millis()).unwrap_or(0);
        let gap = CSEQ_GAP.saturating_add(steps);
        Ok(Dialog {
            call_id: Box::from(&*self.call_id),
            local: AddressText::parse(&self.local)?,
            remote: AddressText::parse(&self.remote)?,
            local_cseq: self.local_cseq.saturating_add(gap).min(CSEQ_MAX),
            remote_cseq: self.remote_cseq,
            target: Uri::parse(&self.target)?,
            routes: self.routes.iter().map(|route| NameAddr::parse(route)).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Transport, Via};
    use bytes::Bytes;

    fn message(text: &str) -> Message {
        Message::parse_datagram(&Bytes::from(text.replace('\n', "\r\n"))).expect("valid")
    }

    fn invite() -> Message {
        message(
            "INVITE sip:+447700900123@localhost SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bKx\nRecord-Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\nMax-Forwards: 70\nFrom: <sip:demo@localhost>;tag=a\nTo: <sip:+447700900123@localhost>\nCall-ID: c\nCSeq: 7 INVITE\nContact: <sip:demo@127.0.0.1:5100>\nContent-Length: 0\n\n",
        )
    }

    fn dialog() -> Dialog {
        let invite = invite();
        Dialog::of_invite(&invite, &invite.from(), "b").expect("a contact")
    }

    fn via() -> Via {
        Via::new(Transport::Udp, "127.0.0.1", Some(5060), "z9hG4bKy").expect("valid")
    }

    #[test]
    fn a_dialog_survives_its_checkpoint_with_a_gap_in_its_cseq() {
        let dialog = dialog();
        let contact = AddressText::parse("<sip:x@127.0.0.1:5060>").expect("valid");
        let origin = Origin { id: 7, version: 1 };
        let stored =
            Stored::of(&dialog, &contact, String::from("UDP 127.0.0.1:5100"), origin, Timestamp(0)).checkpoint();
        let again = |second: i64| {
            Stored::read(&stored).and_then(|s| s.dialog(Timestamp(second * 1_000_000))).expect("readable")
        };
        assert_eq!(again(0), Dialog { local_cseq: 1_000, ..dialog });
        // Probes leave every 10 s at most, and one BYE: a second restart begins behind them.
        assert!((1..7_200).all(|second| again(second).local_cseq > again(second - 1).local_cseq + 2));
        assert_eq!(again(-5).local_cseq, 1_000, "the clock was set back");
        let later = stored.state.expose().replacen("\"version\":1", "\"version\":2", 1);
        assert!(Stored::read(&Checkpoint { state: Pii::new(later.into()) }).is_err());
    }

    /// Checkpoints name what there is none of when they are older than this, and some of it not at all when they are older still.
    #[test]
    fn what_there_is_none_of_may_be_named_or_left_out() {
        let text = r#"{"version":1,"call_id":"c","local":"<sip:a@h>;tag=b","remote":"<sip:x@h>;tag=a","local_cseq":1,"remote_cseq":null,"target":"sip:x@h","routes":[],"at":null,"contact":"<sip:x@h>","peer":"UDP 127.0.0.1:5100","server":null,"phone":null,"trunk":null,"invite":null,"unanswered":null,"offerless":false,"timer":null,"origin":{"id":7,"version":1},"local_sdp":null,"remote_sdp":null}"#;
        let left_out = r#"{"version":1,"call_id":"c","local":"<sip:a@h>;tag=b","remote":"<sip:x@h>;tag=a","local_cseq":1,"target":"sip:x@h","routes":[],"contact":"<sip:x@h>","peer":"UDP 127.0.0.1:5100","origin":{"id":7,"version":1}}"#;
        let read = |text: &str| {
            let checkpoint = Checkpoint { state: Pii::new(text.into()) };
            Stored::read(&checkpoint).expect("readable").checkpoint().state
        };
        assert_eq!(read(text), read(left_out));
        assert!(!read(text).expose().contains("null"));
    }

    #[test]
    fn requests_of_a_server_side_dialog_follow_the_record_route() {
        let mut dialog = dialog();
        let bye = message(
            &String::from_utf8(dialog.request(Method::Bye).via(&via()).build().expect("complete").to_vec())
                .expect("text")
                .replace("\r\n", "\n"),
        );
        assert_eq!(bye.request_uri().expect("a request").as_str(), "sip:demo@127.0.0.1:5100");
        assert_eq!(
            bye.routes().iter().map(|r| r.uri.host().to_owned()).collect::<Vec<_>>(),
            ["p1.example.com", "p2.example.com"]
        );
        assert_eq!((bye.from_tag(), bye.to_tag(), bye.cseq().0), (Some("b"), Some("a"), 1));
    }

    #[test]
    fn requests_of_a_client_side_dialog_follow_the_record_route_backwards() {
        let name = |text: &str| AddressText::parse(text).expect("valid");
        let asked = Dialog {
            call_id: "c".into(),
            local: name("<sip:us@localhost>;tag=ours"),
            remote: name("<sip:+447700900123@localhost>"),
            local_cseq: 1,
            remote_cseq: None,
            target: Uri::parse("sip:+447700900123@gateway.example").expect("valid"),
            routes: Box::default(),
        };
        let ok = message(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKy\nRecord-Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\nRecord-Route: <sip:p3.example.com;lr>\nFrom: <sip:us@localhost>;tag=ours\nTo: <sip:+447700900123@localhost>;tag=theirs\nCall-ID: c\nCSeq: 1 INVITE\nContact: <sip:c@127.0.0.1:5090>\nContent-Length: 0\n\n",
        );
        let mut dialog = asked.confirmed_by(&ok);
        let bye = dialog.request(Method::Bye).via(&via()).build().expect("complete");
        let bye = Message::parse_datagram(&bye).expect("readable");
        let hosts: Vec<_> = bye.routes().iter().map(|route| route.uri.host().to_owned()).collect();
        assert_eq!(hosts, ["p3.example.com", "p2.example.com", "p1.example.com"]);
        assert_eq!(bye.request_uri().expect("a request").as_str(), "sip:c@127.0.0.1:5090");
        assert_eq!((bye.from_tag(), bye.to_tag(), bye.cseq().0), (Some("ours"), Some("theirs"), 2));
    }

    #[test]
    fn a_lower_cseq_and_a_foreign_tag_are_refused() {
        let mut dialog = dialog();
        let request = |tag: &str, cseq: u32| {
            message(&format!(
                "BYE sip:x@127.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bKz\nMax-Forwards: 70\nFrom: <sip:demo@localhost>;tag={tag}\nTo: <sip:y@localhost>;tag=b\nCall-ID: c\nCSeq: {cseq} BYE\nContent-Length: 0\n\n"
            ))
        };
        assert_eq!(dialog.take_request(&request("other", 8)), Err(481));
        assert_eq!(dialog.take_request(&request("a", 7)), Err(500));
        assert_eq!(dialog.take_request(&request("a", 8)), Ok(()));
        assert_eq!(dialog.take_request(&request("a", 8)), Err(500));
    }

    #[test]
    fn a_target_is_refreshed_by_another_contact_only() {
        let mut dialog = dialog();
        assert!(!dialog.refresh_target(&invite()));
        let moved = invite().request_uri().map(ToString::to_string).unwrap_or_default();
        let text = format!(
            "UPDATE {moved} SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bKu\nMax-Forwards: 70\nFrom: <sip:demo@localhost>;tag=a\nTo: <sip:y@localhost>;tag=b\nCall-ID: c\nCSeq: 8 UPDATE\nContact: <sip:demo@127.0.0.1:5200>\nContent-Length: 0\n\n"
        );
        assert!(dialog.refresh_target(&message(&text)));
        assert_eq!(dialog.target.port(), Some(5200));
    }
}
