//! One call: INVITE, credentials, ACK, and BYE as soon as it is answered. Its number is in its Call-ID.

use sip::digest::Challenge;
use sip::message::{Message, Method};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// Sent after 0.5, 1, 2 and 4 s again; 8 s after that it has failed.
const SENT_MAX: u32 = 5;
const INVITE: u32 = 1;
const INVITE_AGAIN: u32 = 2;
const BYE: u32 = 3;

/// Who calls, and whom.
pub(crate) struct World {
    pub(crate) server: SocketAddr,
    pub(crate) own: SocketAddr,
    /// Accounts `u0`, `u1` … with the passwords `pw0`, `pw1` ….
    pub(crate) users: u32,
    /// Differs between two runs.
    pub(crate) run: u64,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// 503, so long after its INVITE.
    Refused(Duration),
    /// 200, so long after its INVITE with credentials.
    Answered(Duration),
    /// Its BYE was answered.
    Ended,
    /// Another answer than these, or none.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its request waits for an answer.
    Asking,
    /// Its INVITE has arrived.
    Proceeding,
    Over,
}

/// The last request of a call, and how often it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    cseq: u32,
    sent: u32,
}

/// A call under way.
pub(crate) struct Call {
    number: u32,
    step: Step,
    asked: Asked,
    since: Instant,
    /// Its failure is told; answered after that, it is hung up.
    is_given_up: bool,
    credentials: String,
    /// Request URI and To within the dialog.
    dialog: (String, String),
}

impl Call {
    pub(crate) fn new(number: u32, now: Instant) -> Self {
        let (credentials, dialog) = Default::default();
        Self {
            number,
            step: Step::Asking,
            asked: Asked { cseq: INVITE, sent: 0 },
            since: now,
            is_given_up: false,
            credentials,
            dialog,
        }
    }

    /// Whose answer this is.
    pub(crate) fn number_of(world: &World, answer: &Message) -> Option<usize> {
        let (number, run) = answer.call_id().split_once('-')?;
        (run.parse() == Ok(world.run)).then(|| number.parse().ok())?
    }

    pub(crate) const fn asked(&self) -> Asked {
        self.asked
    }

    /// Its request, and when to come back with [`Call::asked`]. Nothing to send: it waits for none.
    pub(crate) fn send(&mut self, world: &World) -> Option<(String, Duration)> {
        if self.step != Step::Asking {
            return None;
        }
        let request = if self.asked.cseq == BYE { self.in_dialog(world, "BYE", BYE) } else { self.invite(world) };
        let wait = T1 * (1 << self.asked.sent);
        self.asked.sent += 1;
        Some((request, wait))
    }

    /// Whether it gives up now, for no answer has come since it asked so.
    pub(crate) fn gives_up(&mut self, asked: Asked) -> bool {
        let is_over = self.step == Step::Asking && self.asked == asked && asked.sent >= SENT_MAX;
        let is_told = self.is_given_up;
        if is_over {
            (self.step, self.is_given_up) = (Step::Over, true);
        }
        is_over && !is_told
    }

    /// Takes an answer: the ACK that it asks for, and what became of the call.
    pub(crate) fn take(&mut self, world: &World, answer: &Message, now: Instant) -> (Option<String>, Option<Event>) {
        let Some(status) = answer.status() else { return (None, None) };
        let (cseq, method) = answer.cseq();
        let is_awaited = self.step != Step::Over && cseq == self.asked.cseq;
        let event = if is_awaited { self.on_answer(world, answer, status, now) } else { None };
        if self.is_given_up && self.step == Step::Over && cseq == self.asked.cseq && cseq != BYE && status == 200 {
            self.goes_up(world, answer, now);
        }
        // Also when the answer comes again.
        let ack = (*method == Method::Invite && status >= 200).then(|| match status {
            200..300 => self.in_dialog(world, "ACK", cseq),
            _ => self.request(world, "ACK", (&self.target(world), &self.to(world, answer)), (cseq, "INVITE"), ("", "")),
        });
        (ack, event)
    }

    fn on_answer(&mut self, world: &World, answer: &Message, status: u16, now: Instant) -> Option<Event> {
        let took = now - self.since;
        match status {
            100..200 if self.asked.cseq == BYE => {}
            100..200 => self.step = Step::Proceeding,
            407 if self.asked.cseq == INVITE && self.authorize(world, answer).is_some() => self.ask(INVITE_AGAIN, now),
            200 if self.asked.cseq != BYE => {
                self.goes_up(world, answer, now);
                return Some(Event::Answered(took));
            }
            _ => {
                self.step = Step::Over;
                return (!self.is_given_up).then_some(match status {
                    200 => Event::Ended,
                    503 if self.asked.cseq != BYE => Event::Refused(took),
                    _ => Event::Failed,
                });
            }
        }
        None
    }

    /// It is answered, and hung up at once.
    fn goes_up(&mut self, world: &World, answer: &Message, now: Instant) {
        let target = answer.contact().map(|contact| contact.uri.as_str().to_owned());
        self.dialog = (target.unwrap_or_else(|| self.target(world)), self.to(world, answer));
        self.ask(BYE, now);
    }

    const fn ask(&mut self, cseq: u32, now: Instant) {
        (self.step, self.asked, self.since) = (Step::Asking, Asked { cseq, sent: 0 }, now);
    }

    /// Nothing: it has no challenge that can be answered.
    fn authorize(&mut self, world: &World, answer: &Message) -> Option<()> {
        let challenge = Challenge::best_of(answer)?;
        let (user, target) = (self.user(world), self.target(world));
        let text = challenge.answer(&format!("u{user}"), &format!("pw{user}"), "INVITE", &target, "c", 1);
        self.credentials = format!("Proxy-Authorization: {text}\r\n");
        Some(())
    }

    const fn user(&self, world: &World) -> u32 {
        self.number % world.users
    }

    fn target(&self, world: &World) -> String {
        format!("sip:1555{:07}@{}", self.number % 10_000_000, world.server)
    }

    fn to(&self, world: &World, answer: &Message) -> String {
        format!("<{}>;tag={}", self.target(world), answer.to_tag().unwrap_or_default())
    }

    fn invite(&self, world: &World) -> String {
        let (target, ip) = (self.target(world), world.own.ip());
        let head = format!("{}Content-Type: application/sdp\r\n", self.credentials);
        let body = format!(
            "v=0\r\no=- 53655765 2353687637 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
        );
        self.request(world, "INVITE", (&target, &format!("<{target}>")), (self.asked.cseq, "INVITE"), (&head, &body))
    }

    fn in_dialog(&self, world: &World, method: &str, cseq: u32) -> String {
        self.request(world, method, (&self.dialog.0, &self.dialog.1), (cseq, method), ("", ""))
    }

    /// `transaction`: CSeq and the method that began it.
    fn request(
        &self,
        world: &World,
        method: &str,
        (target, to): (&str, &str),
        (cseq, transaction): (u32, &str),
        (head, body): (&str, &str),
    ) -> String {
        let (number, user) = (self.number, self.user(world));
        let World { server, own, run, .. } = world;
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{run}.{number}.{cseq}{transaction}\r\nFrom: <sip:u{user}@{domain}>;tag={number}\r\nTo: {to}\r\nCall-ID: {number}-{run}\r\nCSeq: {cseq} {method}\r\nContact: <sip:u{user}@{own}>\r\nMax-Forwards: 70\r\n{head}Content-Length: {length}\r\n\r\n{body}",
            domain = server.ip(),
            length = body.len()
        )
    }
}
