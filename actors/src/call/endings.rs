//! How a call's end is written down: who, why, with which codes.

use crate::account::settle::CallEnd;
use schema::call::{Hangup, HangupSide, LegSide};
use schema::leg::{EndCause, HangupCause};

/// An end with nothing else to say.
pub(crate) const fn end(hangup: Hangup) -> CallEnd {
    CallEnd { at: None, hangup, failed: None, late_answer: false, cut: false, post_dial_delay_ms: None }
}

pub(super) fn service_hangup(cause: HangupCause, sip_code: Option<u16>) -> Hangup {
    Hangup {
        side: HangupSide::Service,
        sip_code,
        q850: Some(cause.q850()),
        reason: cause.as_str().to_owned(),
        redress: None,
    }
}

/// Who ended an answered call, or one whose caller could not be told how it goes, and how.
pub(super) fn ended_by(side: LegSide, cause: EndCause) -> Hangup {
    let person = if side == LegSide::A { HangupSide::Caller } else { HangupSide::Callee };
    let (side, q850, reason) = match cause {
        EndCause::Bye { q850 } => (person, q850.or(Some(16)), "hung up"),
        EndCause::HungUp => (HangupSide::Service, Some(16), "hung up by the service"),
        EndCause::NoAck => (HangupSide::Service, Some(102), "the caller's phone never acknowledged the answer"),
        EndCause::NoPrack => (HangupSide::Service, Some(102), "the caller's phone never acknowledged that it rings"),
        EndCause::NoSession => {
            (HangupSide::Service, Some(88), "the caller's phone did not answer the offer of a session")
        }
        EndCause::Lost => (person, Some(41), "the connection was lost"),
    };
    let sip_code = (cause == EndCause::NoPrack).then_some(504);
    Hangup { side, sip_code, q850, reason: reason.to_owned(), redress: None }
}
