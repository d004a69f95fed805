//! One call leg: its dialog, where it stands, and what it repeats.

use super::exchange::{ServerKey, Way};
use crate::dialog::Dialog;
use crate::flow::{Destination, Flow, Protocol};
use crate::message::{Message, NameAddr};
use crate::sdp::Origin;
use crate::transaction::Repetition;
use bytes::Bytes;
use schema::leg::HangupCause;
use schema::time::Mono;
use std::net::SocketAddr;

/// Where a leg stands.
///
/// ```text
/// Incoming ─ Accept ─► Up (the 200 repeated until its ACK) ─► gone
///     └─ Reject, CANCEL ─► gone
/// Outgoing ─ 200 ─► Answered ─ Confirm ─► Up ─► gone
///     └─ failure, time-out, cancelled ─► gone
/// ```
pub(super) enum Stage {
    /// An INVITE to us, not answered finally.
    Incoming { key: ServerKey, invite: Message },
    /// Our INVITE, not answered finally.
    Outgoing(Outgoing),
    /// Our INVITE was answered; the ACK waits for the commit.
    Answered { cseq: u32 },
    /// Both ends have the session.
    Up,
}

/// Our INVITE under way.
pub(super) struct Outgoing {
    pub(super) branch: Box<str>,
    pub(super) invite: Message,
    /// A provisional response came: it may be cancelled.
    pub(super) provisional: bool,
    /// A 18x came.
    pub(super) rang: bool,
    /// It is not wanted any more.
    pub(super) unwanted: Option<HangupCause>,
    pub(super) cancelled: bool,
    /// Rings no longer than this; after a CANCEL: waits for its end no longer than this.
    pub(super) until: Mono,
}

/// A 200 to an INVITE, repeated until its ACK comes.
pub(super) struct Pending200 {
    pub(super) bytes: Bytes,
    pub(super) flow: Flow,
    pub(super) cseq: u32,
    /// Of the INVITE that began the call, not of a refresh.
    pub(super) is_first: bool,
    pub(super) repeat: Repetition,
    pub(super) give_up: Mono,
}

pub(super) struct Leg {
    pub(super) stage: Stage,
    pub(super) dialog: Dialog,
    /// Our Contact.
    pub(super) contact: NameAddr,
    /// Where its requests go.
    pub(super) way: Way,
    /// Whether the peer is a customer's phone: it is reached the way it came, never challenged an answer.
    pub(super) is_customer: bool,
    /// Origin of our session descriptions.
    pub(super) origin: Origin,
    pub(super) local_sdp: Option<Bytes>,
    pub(super) remote_sdp: Option<Bytes>,
    pub(super) ok: Option<Pending200>,
    /// The ACK of their 200, for its repetitions.
    pub(super) ack: Option<Bytes>,
    /// To be hung up as soon as the ACK of our 200 has come.
    pub(super) hang_up: Option<HangupCause>,
    pub(super) armed: Option<Mono>,
}

impl Leg {
    pub(super) fn next_time(&self) -> Option<Mono> {
        let ok = self.ok.as_ref().map(|ok| ok.repeat.at().min(ok.give_up));
        match &self.stage {
            Stage::Outgoing(outgoing) => Some(outgoing.until),
            _ => ok,
        }
    }

    /// Confirmed by both ends: nothing of its INVITE is under way.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up) && self.ok.is_none()
    }
}

/// Where a peer was, in a checkpoint.
pub(super) fn peer_text(way: Way) -> String {
    let (protocol, address) = match way {
        Way::Flow(flow) => (flow.protocol, flow.peer),
        Way::To(destination) => (destination.protocol, destination.address),
    };
    format!("{} {address}", protocol.via().as_str())
}

/// Reads [`peer_text`]; a connection is not the same after a restart, so it becomes a destination.
pub(super) fn peer_way(text: &str) -> Option<Way> {
    let (protocol, address) = text.split_once(' ')?;
    let address: SocketAddr = address.parse().ok()?;
    let protocol = [Protocol::Udp, Protocol::Tcp, Protocol::Tls].into_iter().find(|p| p.via().as_str() == protocol)?;
    Some(match protocol {
        Protocol::Udp => Way::Flow(Flow::udp(address)),
        _ => Way::To(Destination { protocol, address }),
    })
}
