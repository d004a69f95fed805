//! Reliable provisional responses (RFC 3262): what is numbered, repeated and acknowledged, on both sides. Pure, as the
//! transactions are; which message belongs to which dialog is not known here.

use super::{GIVE_UP, Repetition};
use bytes::Bytes;
use schema::time::Mono;
use std::collections::VecDeque;

/// Responses that wait for the PRACK of the one before; more are left out, of which the caller hears nothing.
pub(crate) const WAITING_MAX: usize = 16;

/// The responses to one INVITE, as its server (§3).
///
/// ```text
/// push ─► waiting ─► outstanding ─ PRACK ─► the next one
///                     │  └─ at T1, doubling: again
///                     └─ 64·T1: the INVITE is given up
/// ```
/// One is outstanding at a time, so that they arrive in their order.
#[derive(Debug)]
pub(crate) struct ReliableServer {
    /// RSeq of the next one.
    next: u32,
    outstanding: Option<Outstanding>,
    waiting: VecDeque<Provisional>,
    /// One with a session description was pushed.
    has_answer: bool,
    /// It was sent.
    answered: bool,
    /// The final response was sent.
    finished: bool,
}

#[derive(Debug)]
struct Provisional {
    rseq: u32,
    bytes: Bytes,
    has_sdp: bool,
}

#[derive(Debug)]
struct Outstanding {
    rseq: u32,
    bytes: Bytes,
    has_sdp: bool,
    repeat: Repetition,
    give_up: Mono,
}

/// What a PRACK means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// Nothing with this number is outstanding: 481.
    Unknown,
    /// It is acknowledged; the next one is to be sent, if there is one.
    Known(Option<Bytes>),
}

/// What is to be done as time passes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// Send this again.
    Repeat(Bytes),
    /// Nobody acknowledges: refuse the INVITE.
    GiveUp,
}

impl ReliableServer {
    /// `first` is the first RSeq, 1 to 2³¹ - 1 (§3).
    pub(crate) const fn new(first: u32) -> Self {
        Self {
            next: first,
            outstanding: None,
            waiting: VecDeque::new(),
            has_answer: false,
            answered: false,
            finished: false,
        }
    }

    /// RSeq of the response that is pushed next.
    pub(crate) const fn next_rseq(&self) -> u32 {
        self.next
    }

    /// Whether the INVITE's offer is answered in none of those pushed so far: there is one answer to an offer.
    pub(crate) const fn takes_answer(&self) -> bool {
        !self.has_answer
    }

    /// Takes a response that was written with [`Self::next_rseq`]; gives it back when it is to be sent now.
    pub(crate) fn push(&mut self, bytes: Bytes, has_sdp: bool, now: Mono) -> Option<Bytes> {
        if self.finished || self.waiting.len() >= WAITING_MAX {
            return None;
        }
        self.waiting.push_back(Provisional { rseq: self.next, bytes, has_sdp });
        self.next += 1;
        self.has_answer |= has_sdp;
        self.send_next(now)
    }

    fn send_next(&mut self, now: Mono) -> Option<Bytes> {
        if self.outstanding.is_some() {
            return None;
        }
        let Provisional { rseq, bytes, has_sdp } = self.waiting.pop_front()?;
        // Over every transport, and at ever longer intervals (§3).
        let repeat = Repetition::from(now, GIVE_UP);
        self.answered |= has_sdp;
        self.outstanding = Some(Outstanding { rseq, bytes: bytes.clone(), has_sdp, repeat, give_up: now + GIVE_UP });
        Some(bytes)
    }

    /// A PRACK of this number came.
    pub(crate) fn acknowledge(&mut self, rseq: u32, now: Mono) -> Acknowledged {
        match self.outstanding.take_if(|outstanding| outstanding.rseq == rseq) {
            Some(_) => Acknowledged::Known(self.send_next(now)),
            None => Acknowledged::Unknown,
        }
    }

    /// The answer was sent, and is not to be changed by a later response.
    pub(crate) const fn is_answered(&self) -> bool {
        self.answered
    }

    /// Nothing is outstanding.
    pub(crate) const fn is_settled(&self) -> bool {
        self.outstanding.is_none()
    }

    /// Whether a 2xx may be sent: not while a session description is not acknowledged (§3).
    pub(crate) fn may_accept(&self) -> bool {
        self.outstanding.as_ref().is_none_or(|outstanding| !outstanding.has_sdp)
    }

    /// The final response is sent: nothing is repeated, and what waits is not needed. A PRACK of the outstanding one is still
    /// known.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        self.waiting.clear();
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.bytes = Bytes::new();
        }
    }

    /// Time passed.
    pub(crate) fn on_time(&mut self, now: Mono) -> Due {
        let Some(outstanding) = self.outstanding.as_mut().filter(|_| !self.finished) else { return Due::Nothing };
        if outstanding.give_up <= now {
            return Due::GiveUp;
        }
        if outstanding.repeat.take(now) { Due::Repeat(outstanding.bytes.clone()) } else { Due::Nothing }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) fn next_time(&self) -> Option<Mono> {
        let outstanding = self.outstanding.as_ref().filter(|_| !self.finished)?;
        Some(outstanding.repeat.at().min(outstanding.give_up))
    }
}

/// The responses of one early dialog, as the client of its INVITE (§4).
#[derive(Debug, Default)]
pub(crate) struct ReliableClient {
    /// RSeq of the last one that was acknowledged.
    last: Option<u32>,
}

impl ReliableClient {
    /// Whether this one is to be acknowledged and processed: the first, or the next in order. A repeated one is neither, nor is
    /// one out of order.
    pub(crate) fn take(&mut self, rseq: u32) -> bool {
        let is_next = self.last.is_none_or(|last| last.checked_add(1) == Some(rseq));
        if is_next {
            self.last = Some(rseq);
        }
        is_next
    }
}

#[cfg(test)]
mod tests;
