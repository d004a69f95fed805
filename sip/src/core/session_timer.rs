//! Session timers (RFC 4028): a session that nobody refreshes in time is over. We refresh wherever the far end lets us, by
//! UPDATE when it takes that, else by a re-INVITE without a change. Only far ends that know timers have one; of the others the
//! probes of `liveness.rs` tell.

use super::Core;
use super::challenge::branch_after;
use super::change::Purpose;
use super::departure::Departure;
use super::exchange::Owner;
use super::incoming::text_of;
use super::leg::Leg;
use super::matching::ClientKey;
use super::peers::Way;
use crate::dialog::StoredTimer;
use crate::message::{HeaderName, Message, Method, RequestBuilder, ResponseBuilder};
use schema::leg::LegId;
use schema::time::{Mono, Now};
use schema::wrong::{self, Wrong};
use std::time::Duration;

/// What we propose where the far end does not, seconds (§4 advises it).
const INTERVAL_S: u32 = 1_800;
/// The longest that we agree to unless the far end's Min-SE is longer, seconds.
const INTERVAL_MAX_S: u32 = 7_200;
/// The shortest, seconds (§5).
const MIN_SE_S: u32 = 90;
/// A refresh that could not be sent or was refused is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// How often an INVITE asks for a longer interval.
const LONGER_MAX: u8 = 3;
/// The option tag.
pub(super) const TIMER: &str = "timer";

/// The timer of a leg's session.
#[derive(Debug, Clone)]
pub(super) struct SessionTimer {
    terms: StoredTimer,
    refreshed: Mono,
    /// The next refresh, when it is ours.
    next: Mono,
    asking: bool,
}

impl SessionTimer {
    fn new(terms: StoredTimer, now: Mono) -> Self {
        let next = now + Duration::from_secs(u64::from(terms.interval_s / 2));
        Self { terms, refreshed: now, next, asking: false }
    }

    /// Of a leg after a restart; it runs from when the leg is taken up.
    pub(super) fn stored(terms: StoredTimer) -> Self {
        Self::new(terms, Mono::default())
    }

    pub(super) const fn terms(&self) -> StoredTimer {
        self.terms
    }

    /// What a request to us asks for, `before` being what held until now; `None`: its sender knows no timers, nor does a proxy
    /// on its way, which would have put a Session-Expires in.
    pub(super) fn asked(request: &Message, before: Option<&Self>, now: Mono) -> Option<Self> {
        let is_known = knows_timers(request);
        let (asked, refresher) = session_expires(request).unzip();
        if !is_known && asked.is_none() {
            return None;
        }
        let longest = INTERVAL_MAX_S.max(min_se(request));
        let interval_s = asked.map_or(INTERVAL_S.max(min_se(request)), |asked| asked.min(longest)).max(MIN_SE_S);
        let ours = match refresher.flatten() {
            // Its sender cannot refresh (§9, table 2).
            _ if !is_known => true,
            Some(Refresher::Client) => false,
            Some(Refresher::Server) => true,
            None => before.is_none_or(|timer| timer.terms.ours),
        };
        let updates = request.takes_updates() || before.is_some_and(|timer| timer.terms.updates);
        let min_se_s = min_se(request).max(min_se_before(before));
        Some(Self::new(StoredTimer { interval_s, ours, updates, min_se_s }, now))
    }

    /// What a 2xx to a request of ours says.
    pub(super) fn agreed(response: &Message, before: Option<&Self>, now: Mono) -> Option<Self> {
        let (interval_s, refresher) = session_expires(response)?;
        let updates = response.takes_updates() || before.is_some_and(|timer| timer.terms.updates);
        let ours = refresher != Some(Refresher::Server);
        let terms =
            StoredTimer { interval_s: interval_s.max(MIN_SE_S), ours, updates, min_se_s: min_se_before(before) };
        Some(Self::new(terms, now))
    }

    pub(super) fn restart(&mut self, now: Mono) {
        *self = Self::new(self.terms, now);
    }

    /// The next request asks for as long as the far end's 422 wants it (§7.3), however long: whatever is shorter would be refused
    /// again, and a session whose timer never runs out still has its probes. Until that is taken, what was agreed stands.
    /// False when that is no longer than was asked.
    fn lengthen(&mut self, asked_s: u32, refusal: &Message) -> bool {
        self.terms.min_se_s = self.terms.min_se_s.max(min_se(refusal));
        self.terms.min_se_s > asked_s
    }

    /// What a request asks for, seconds.
    fn asks_s(&self) -> u32 {
        self.terms.interval_s.max(self.terms.min_se_s)
    }

    /// When the session is over; a little sooner than the interval, so that the BYE leaves within it (§10).
    fn expires(&self) -> Mono {
        let interval = if wrong::chosen(Wrong::TimerIgnored) { u32::MAX } else { self.terms.interval_s };
        self.refreshed + Duration::from_secs(u64::from(interval - (interval / 3).min(32)))
    }

    pub(super) fn next_time(&self) -> Mono {
        if self.terms.ours && !self.asking { self.next.min(self.expires()) } else { self.expires() }
    }

    /// For a 2xx to the far end's request.
    pub(super) fn in_response(timer: Option<&Self>, response: ResponseBuilder) -> ResponseBuilder {
        let response = response.header(HeaderName::Supported, &TIMER);
        let Some(StoredTimer { interval_s, ours, .. }) = timer.map(Self::terms) else { return response };
        let refresher = if ours { "uas" } else { "uac" };
        let response = response.header(HeaderName::SessionExpires, &format_args!("{interval_s};refresher={refresher}"));
        // Whoever has to refresh must know that there is something to refresh (§9).
        if ours { response } else { response.header(HeaderName::Require, &TIMER) }
    }

    /// For the INVITE of a call: we would refresh. A far end that does not know timers takes no notice.
    pub(super) fn proposed(request: RequestBuilder) -> RequestBuilder {
        request.header(HeaderName::SessionExpires, &format_args!("{INTERVAL_S};refresher=uac"))
    }

    /// For a re-INVITE or UPDATE of ours: without it the session would have no timer any more (§7.4).
    pub(super) fn in_request(timer: Option<&Self>, request: RequestBuilder) -> RequestBuilder {
        let request = request.header(HeaderName::Supported, &TIMER);
        let Some(timer) = timer else { return request };
        let StoredTimer { ours, min_se_s, .. } = timer.terms;
        let (asks_s, refresher) = (timer.asks_s(), if ours { "uac" } else { "uas" });
        let request = request.header(HeaderName::SessionExpires, &format_args!("{asks_s};refresher={refresher}"));
        // Required once the far end has sent one (§7.4).
        if min_se_s > 0 { request.header(HeaderName::MinSe, &min_se_s) } else { request }
    }
}

/// Who refreshes, by its part in the transaction that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresher {
    Client,
    Server,
}

fn knows_timers(message: &Message) -> bool {
    message.supported().chain(message.require()).any(|tag| tag.eq_ignore_ascii_case(TIMER))
}

/// Session-Expires: seconds, and who refreshes.
fn session_expires(message: &Message) -> Option<(u32, Option<Refresher>)> {
    let mut parts = message.text(HeaderName::SessionExpires)?.split(';').map(str::trim);
    let interval_s = parts.next()?.parse().ok()?;
    let refresher = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        match value.trim().to_ascii_lowercase().as_str() {
            _ if !name.trim().eq_ignore_ascii_case("refresher") => None,
            "uac" => Some(Refresher::Client),
            "uas" => Some(Refresher::Server),
            _ => None,
        }
    });
    Some((interval_s, refresher))
}

fn min_se(message: &Message) -> u32 {
    let text = message.text(HeaderName::MinSe).unwrap_or_default();
    text.split(';').next().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn min_se_before(timer: Option<&SessionTimer>) -> u32 {
    timer.map_or(0, |timer| timer.terms.min_se_s)
}

impl Core {
    /// A 422 to the INVITE of a call, which leaves once more and asks for as long as that says (§7.3), each proxy on its way having its
    /// say (§13); in the end for nothing, which none can refuse. True when it has left.
    pub(super) fn asks_longer(&mut self, key: &ClientKey, request: &Message, refusal: &Message, now: Now) -> bool {
        let Some(exchange) = self.clients.get(key) else { return false };
        let (owner, usual, moves) = (exchange.owner, exchange.usual_way(), exchange.moves);
        let Some((asked_s, _)) = session_expires(request) else { return false };
        if !matches!(owner, Owner::Leg(_)) || !self.is_wanted_still(owner) {
            return false;
        }
        let Some(cseq) = self.next_cseq(owner) else { return false };
        let again = RequestBuilder::again(request, cseq);
        let again = again.without(HeaderName::SessionExpires).without(HeaderName::MinSe);
        let min_se_s = min_se(refusal);
        let again = if min_se_s > asked_s && moves < LONGER_MAX {
            let again = again.header(HeaderName::SessionExpires, &format_args!("{min_se_s};refresher=uac"));
            again.header(HeaderName::MinSe, &min_se_s)
        } else {
            again
        };
        let again = self.signed(owner, usual, again);
        let (trunk, branch) = (self.trunk_of(owner), branch_after(request));
        let departure = self.departure(trunk, usual, Some(&branch), again, owner);
        departure
            .is_some_and(|departure| self.begin_again(Departure { moves: moves + 1, ..departure }, Some(cseq), now))
    }

    /// The 422 to a request whose sender knows timers and asks for too short a one (§9).
    pub(super) fn interval_too_small(&self, request: &Message) -> Option<ResponseBuilder> {
        let is_too_small = session_expires(request).is_some_and(|(interval_s, _)| interval_s < MIN_SE_S);
        (is_too_small && knows_timers(request))
            .then(|| self.response(request, 422).header(HeaderName::MinSe, &MIN_SE_S))
    }

    /// After a restart nobody knows when the session was refreshed last: it is refreshed soon, not all calls at once.
    pub(super) fn resume_timer(&mut self, leg: &mut Leg, now: Now) {
        if let Some(timer) = &mut leg.timer {
            timer.restart(now.mono);
            let spread_ms = u64::from(timer.terms.interval_s) * 1_000 / 8;
            timer.next = now.mono + Duration::from_millis(self.entropy.below(spread_ms));
        }
    }

    /// A refresh is due, or the session has not been refreshed.
    pub(super) fn timer_time(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_free = leg.is_up() && leg.change.is_none();
        let Some(timer) = &mut leg.timer else { return };
        if timer.expires() <= now.mono {
            return self.lost(id, true, now);
        }
        timer.next = now.mono + AGAIN;
        let updates = timer.terms.updates;
        if !is_free {
            return;
        }
        let unchanged = if updates { None } else { self.session(id).and_then(|sdp| text_of(&sdp)) };
        match unchanged {
            Some(sdp) => self.offer_for(id, &sdp, Purpose::Refreshing, now.mono + AGAIN * 4, now),
            None => self.send_update(id, now),
        }
    }

    fn send_update(&mut self, id: LegId, now: Now) {
        let Some(way) = self.legs.get(&id).map(|leg| self.way_of(leg)) else { return };
        if matches!(way, Way::Gone(_)) {
            return;
        }
        self.legs.lead(&id, way);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let update = leg.dialog.request(Method::Update).contact(&leg.contact);
        let update = SessionTimer::in_request(leg.timer.as_ref(), update);
        let is_kept = self.request(way, update, Owner::Refresh(id), now);
        if let Some(timer) = self.legs.get_mut(&id).and_then(|leg| leg.timer.as_mut()) {
            timer.asking = is_kept;
        }
    }

    /// The far end's word on our UPDATE; `None`: it said nothing.
    pub(super) fn on_refresh_outcome(&mut self, id: LegId, response: Option<&Message>, now: Now) {
        let pause = self.glare_pause(id);
        let Some(timer) = self.legs.get_mut(&id).and_then(|leg| leg.timer.as_mut()) else { return };
        timer.asking = false;
        timer.next = now.mono + AGAIN;
        let Some(response) = response else { return self.arm_leg(id) };
        match response.status().unwrap_or(0) {
            200..=299 => {
                if self.take_target(id, response, now) {
                    self.tell_checkpoint(id, now);
                }
                return self.refreshed(id, response, now);
            }
            481 => return self.lost(id, false, now),
            408 => return self.lost(id, true, now),
            // One that wants nothing else is asked as seldom as one that says nothing.
            422 if !timer.lengthen(timer.asks_s(), response) => {}
            422 => timer.next = now.mono + pause,
            491 => timer.next = now.mono + pause,
            // Whatever it has against an UPDATE, a re-INVITE may be taken; not so with credentials that it does not take. One that
            // names a time is asked again.
            status @ 400..=699 if !matches!(status, 401 | 407) && response.retry_after().is_none() => {
                timer.terms.updates = false;
                timer.next = now.mono;
            }
            _ => {}
        }
        self.arm_leg(id);
    }

    /// A 422 to this re-INVITE of ours came. Whether one that is made again asks for longer.
    pub(super) fn lengthens(&mut self, id: LegId, refused: &Message, refusal: &Message) -> bool {
        let timer = self.legs.get_mut(&id).and_then(|leg| leg.timer.as_mut());
        // A refresh may have learnt meanwhile that it has to be longer.
        timer.zip(session_expires(refused)).is_some_and(|(timer, (asked_s, _))| timer.lengthen(asked_s, refusal))
    }

    /// A 2xx to a re-INVITE or UPDATE of ours came.
    pub(super) fn refreshed(&mut self, id: LegId, response: &Message, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.timer = SessionTimer::agreed(response, leg.timer.as_ref(), now.mono);
        self.heard(id, now);
        self.arm_leg(id);
    }
}
