//! Phones whose calls are refused by 503, and that call the same number again: when they are told to, at once, or without end.

use super::plan::Temper;
use super::tally::Tally;
use bytes::Bytes;
use schema::entropy::Entropy;
use schema::time::Mono;
use sip::demo::phone::PhoneCall;
use sip::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first of the calls that are made again; those of a plan have lower numbers.
const FIRST: u64 = 1_000;
/// Tries of a phone that hurries or waits, and of one that never stops while there is somebody to refuse it.
const FEW: u32 = 3;
const MANY: u32 = 8;

/// What a plan's call has come to.
struct Dialled {
    number: Box<str>,
    /// The newest try, itself at first.
    newest: PhoneCall,
    tries: u32,
}

/// Who calls again, and when.
pub struct Redial {
    tempers: Vec<Temper>,
    entropy: Entropy,
    /// By phone and the plan's number of the call.
    dialled: BTreeMap<(usize, PhoneCall), Dialled>,
    /// The plan's call of each try.
    tried: BTreeMap<(usize, PhoneCall), PhoneCall>,
    due: BTreeMap<(Mono, usize, PhoneCall), ()>,
    made: u64,
}

impl Redial {
    /// `tempers`: of the phones, in order.
    #[must_use]
    pub const fn new(tempers: Vec<Temper>, entropy: Entropy) -> Self {
        Self { tempers, entropy, dialled: BTreeMap::new(), tried: BTreeMap::new(), due: BTreeMap::new(), made: 0 }
    }

    /// A phone calls a number.
    pub fn calls(&mut self, phone: usize, call: PhoneCall, number: &str) {
        let dialled = Dialled { number: number.into(), newest: call, tries: 0 };
        self.dialled.entry((phone, call)).or_insert(dialled);
    }

    /// The try of a plan's call that is under way.
    #[must_use]
    pub fn newest(&self, phone: usize, call: PhoneCall) -> PhoneCall {
        self.dialled.get(&(phone, call)).map_or(call, |dialled| dialled.newest)
    }

    /// A plan's call is not wanted any more.
    pub fn gives_up(&mut self, phone: usize, call: PhoneCall) {
        self.due.retain(|(_, who, what), ()| (*who, *what) != (phone, call));
        if let Some(dialled) = self.dialled.get_mut(&(phone, call)) {
            dialled.tries = MANY;
        }
    }

    /// Nobody calls again.
    pub fn calm(&mut self) {
        self.due.clear();
        self.tempers.fill(Temper::GivesUp);
    }

    /// A try was refused, with so many seconds to wait.
    pub fn refused(&mut self, now: Mono, phone: usize, call: PhoneCall, retry_after_s: Option<u32>) {
        let call = self.tried.get(&(phone, call)).copied().unwrap_or(call);
        let temper = self.tempers.get(phone).copied().unwrap_or(Temper::GivesUp);
        let Some(dialled) = self.dialled.get_mut(&(phone, call)) else { return };
        let (most, wait_ms) = match temper {
            Temper::GivesUp => return,
            Temper::Waits => (FEW, u64::from(retry_after_s.unwrap_or(30)) * 1_000),
            Temper::Hurries => (FEW, 0),
            Temper::Insists => (MANY, 100),
        };
        if dialled.tries < most {
            dialled.tries += 1;
            let wait = Duration::from_millis(wait_ms + self.entropy.below(50));
            self.due.insert((now + wait, phone, call), ());
        }
    }

    /// When somebody calls again next.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.due.keys().next().map(|(at, ..)| *at)
    }

    /// Who calls which number now, as which call.
    pub fn take(&mut self, now: Mono, tally: &mut Tally) -> Option<(usize, PhoneCall, Box<str>)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let ((_, phone, call), ()) = first.remove_entry();
        let dialled = self.dialled.get_mut(&(phone, call))?;
        self.made += 1;
        dialled.newest = PhoneCall(FIRST + self.made);
        self.tried.insert((phone, dialled.newest), call);
        tally.add(match self.tempers[phone] {
            Temper::Waits => "calls made again when told to",
            Temper::Insists => "calls made again and again",
            Temper::Hurries | Temper::GivesUp => "calls made again at once",
        });
        Some((phone, dialled.newest, dialled.number.clone()))
    }
}

/// The seconds that a 503 asks its receiver to wait.
#[must_use]
pub fn retry_after_s(bytes: &Bytes) -> Option<u32> {
    let message = bytes.starts_with(b"SIP/2.0 503").then(|| Message::parse_datagram(bytes).ok())??;
    message.text(sip::message::HeaderName::RetryAfter)?.trim().parse().ok()
}
