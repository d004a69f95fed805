//! May this call proceed, what does it cost and which way does it go: the ladder standing → caller ID → destination class →
//! limits → price → routes → hold. A quote climbs the same ladder and leaves nothing behind.

use super::caller_id::{self, CallerChoice};
use super::core::{AccountCore, Draft, Market, Patch};
use super::failover::attempt;
use super::holds::{self, NoSlice, Slice};
use crate::dialplan::{self, Dialled};
use crate::routing::{self, Route, RoutePlan, RouteRequest};
use schema::account::{AccountStatus, Attestation};
use schema::call::{
    Attempt, Call, CallLeg, CallMode, CallState, Cdr, Explanation, LegSide, LiveCall, Refusal, RefusalCode,
};
use schema::event::EventBody;
use schema::id::{CallId, CallNo, CallerIdId, CredentialId, TrunkId};
use schema::journal::Change;
use schema::ledger::Hold;
use schema::leg::{AttemptIds, Checkpoint, Dialogs};
use schema::money::Micros;
use schema::number::{E164, Presentation};
use schema::pii::Pii;
use schema::rate::RateApplied;
use schema::time::Now;
use std::borrow::Cow;
use std::sync::Arc;

/// A call that somebody wants to make.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// Its identity, given by whoever took the request.
    pub call: CallId,
    /// How it begins.
    pub mode: CallMode,
    /// The credential that asks.
    pub credential: Option<CredentialId>,
    /// What was dialled.
    pub dialled: Pii<String>,
    /// Which number to show.
    pub caller_id: CallerChoice,
    /// Whether not to show it.
    pub withhold: bool,
    /// Whether only a trunk over TLS can take it.
    pub needs_tls: bool,
    /// The A-leg's dialog, as it will be once accepted.
    pub a_leg: Option<Checkpoint>,
    /// When the request arrived.
    pub at: Now,
}

/// A call as the ladder looks at it.
struct Asked<'a> {
    dialled: &'a Pii<String>,
    choice: &'a CallerChoice,
    withhold: bool,
    needs_tls: bool,
}

impl<'a> Asked<'a> {
    const fn of(request: &'a CallRequest) -> Self {
        let CallRequest { dialled, caller_id: choice, withhold, needs_tls, .. } = request;
        Self { dialled, choice, withhold: *withhold, needs_tls: *needs_tls }
    }
}

/// What a customer wants to know before calling.
#[derive(Debug, Clone)]
pub struct QuoteRequest {
    /// What would be dialled.
    pub destination: Pii<String>,
    /// Which number would be shown; `None`: the default.
    pub caller_id: Option<CallerIdId>,
    /// Whether it would be withheld.
    pub withhold: bool,
}

/// What a call would cost, and which way it would go.
#[derive(Debug, Clone)]
pub struct Quote {
    /// The number meant; `None` when the text is none.
    pub destination: Option<E164>,
    /// The rate of the B-leg; `None` when refused before the price.
    pub rate: Option<RateApplied>,
    /// For how many seconds the available money lasts, within the longest duration.
    pub affordable_s: u64,
    /// The number shown; `None` when withheld or refused.
    pub presented_number: Option<E164>,
    /// How far the number's proof allows the call to be attested.
    pub attestation: Option<Attestation>,
    /// Why; with the refusal, if it would be refused.
    pub explanation: Explanation,
}

/// Until where a call is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Funding {
    /// Paid seconds from the answer, the end of a billing step.
    pub paid_s: u64,
    /// Of which so many were added last: they decide when to renew.
    pub slice_s: u64,
    /// The longest duration in seconds.
    pub limit_s: u64,
    /// The number of the last hold.
    pub step: u32,
}

/// Permission for an attempt. Its hold is durable when this is told to anyone (C1).
#[derive(Debug, Clone)]
pub struct Grant {
    /// The call's number.
    pub no: CallNo,
    /// The attempt to make.
    pub attempt: Attempt,
    /// Whether the trunk may see P-Asserted-Identity of a withheld number.
    pub trusted: bool,
    /// The number to call.
    pub destination: E164,
    /// What to show.
    pub presentation: Presentation,
    /// Until where it is paid.
    pub funding: Funding,
}

/// The answer to [`AccountCore::authorize`].
#[derive(Debug, Clone)]
pub enum Authorized {
    /// It may proceed.
    Granted(Box<Grant>),
    /// It may not; the refusal is on record, unless there are too many.
    Refused(Refusal),
}

/// What the ladder found on its way.
#[derive(Default)]
struct Assessment {
    destination: Option<E164>,
    presentation: Option<Presentation>,
    basis: Option<&'static str>,
    rate: Option<RateApplied>,
    plan: RoutePlan,
    slice: Option<Slice>,
    refusal: Option<Refusal>,
}

impl AccountCore {
    /// Decides a call. Asked again for the same call it gives the same grant and changes nothing.
    pub fn authorize(
        &self,
        request: &CallRequest,
        ids: AttemptIds,
        market: &Market<'_>,
        now: Now,
    ) -> (Authorized, Option<Draft>) {
        if let Some(live) = self.live.get(&request.call) {
            return (self.grant_again(live, market, now), None);
        }
        if self.voided.contains(&request.call) {
            return (Authorized::Refused(refuse(RefusalCode::Unavailable, "the call was given up before")), None);
        }
        let mut found = self.assess(&Asked::of(request), market, now);
        match (found.refusal.take(), found.slice, found.plan.routes.first().cloned()) {
            (None, Some(slice), Some(route)) => self.grant(request, &found, slice, route, ids, now),
            (refusal, ..) => {
                let refusal = refusal.unwrap_or_else(not_now);
                let draft = self.records_refusals(now).then(|| self.refused(request, found, refusal.clone(), now));
                (Authorized::Refused(refusal), draft)
            }
        }
    }

    /// What a call would cost now: the same ladder, without any effect.
    #[must_use]
    pub fn quote(&self, request: &QuoteRequest, market: &Market<'_>, now: Now) -> Quote {
        let choice = &request.caller_id.map_or(CallerChoice::Default, CallerChoice::Chosen);
        let (dialled, withhold) = (&request.destination, request.withhold);
        let found = self.assess(&Asked { dialled, choice, withhold, needs_tls: false }, market, now);
        let limit_s = u64::from(self.profile.limits.call_seconds);
        let affordable = found.rate.as_ref().and_then(|r| r.terms.affordable_s(self.figures.available(), limit_s));
        Quote {
            destination: found.destination.clone(),
            affordable_s: affordable.unwrap_or(0).min(limit_s),
            presented_number: shown(found.presentation.as_ref()),
            attestation: found.presentation.as_ref().map(|p| p.number().attestation()),
            explanation: found.explanation(found.refusal.clone()),
            rate: found.rate,
        }
    }

    fn assess(&self, asked: &Asked<'_>, market: &Market<'_>, now: Now) -> Assessment {
        let mut found = Assessment::default();
        let meant = dialplan::read(asked.dialled.expose(), &self.profile.country);
        if let Dialled::Number { number, .. } = &meant {
            found.destination = Some(number.clone());
        }
        found.refusal = self.climb(&meant, asked, market, now, &mut found).err();
        found
    }

    /// The ladder. What each rung finds stays in `found`, so that a refusal can be explained.
    fn climb(
        &self,
        meant: &Dialled,
        asked: &Asked<'_>,
        market: &Market<'_>,
        now: Now,
        found: &mut Assessment,
    ) -> Result<(), Refusal> {
        // Whoever needs help is told so, whatever is the matter with the account.
        if *meant == Dialled::Emergency {
            return Err(emergency());
        }
        self.check_standing()?;
        let caller = caller_id::choose(&self.caller_ids, asked.choice, &self.profile.country, now.wall)?;
        let presentation = Presentation::of(caller.number, asked.withhold);
        found.basis = Some(caller.basis);
        found.presentation = Some(presentation.clone());
        let destination = permitted(meant)?;
        self.check_limits(now)?;
        let rate = self.price(&destination, market, now)?;
        found.rate = Some(rate.clone());
        let request = RouteRequest {
            destination: &destination,
            presentation: &presentation,
            price: &rate.terms,
            currency: self.profile.currency,
            needs_tls: asked.needs_tls,
            tried: &[],
        };
        found.plan = routing::plan_routes(&request, market.tariffs, market.trunks, now.wall);
        if found.plan.routes.is_empty() {
            return Err(if found.plan.is_served_later { not_now() } else { no_route() });
        }
        found.slice = Some(self.first_slice(&rate)?);
        Ok(())
    }

    fn check_standing(&self) -> Result<(), Refusal> {
        let message = match self.figures.status {
            AccountStatus::Active | AccountStatus::Limited => return Ok(()),
            AccountStatus::Pending => "the account is not active yet: verify its e-mail address",
            AccountStatus::Suspended => "the account is suspended: contact support",
            AccountStatus::Closing | AccountStatus::Closed => "the account is closed",
        };
        Err(refuse(RefusalCode::AccountNotActive, message))
    }

    fn price(&self, destination: &E164, market: &Market<'_>, now: Now) -> Result<RateApplied, Refusal> {
        let deck = market.tariffs.decks.get(&self.profile.deck);
        let deck = deck.filter(|deck| deck.currency() == self.profile.currency);
        let rate = deck.and_then(|deck| deck.rate(destination.digits(), now.wall));
        let rate = rate
            .ok_or_else(|| refuse(RefusalCode::NoRate, "there is no price for this destination: it is not served"))?;
        match self.profile.limits.rate_per_minute {
            Some(most) if rate.terms.per_minute > most => {
                let message = format!(
                    "{} costs {} a minute and the account's limit is {most}: ask support to allow it",
                    rate.destination, rate.terms.per_minute
                );
                Err(Refusal { code: RefusalCode::DestinationNotPermitted, message })
            }
            _ => Ok(rate),
        }
    }

    fn first_slice(&self, rate: &RateApplied) -> Result<Slice, Refusal> {
        let limit_s = u64::from(self.profile.limits.call_seconds);
        let available = self.reservable();
        holds::next_slice(&rate.terms, 0, Micros::ZERO, available, self.live.len(), limit_s).map_err(|why| {
            let needed = match why {
                NoSlice::NotAffordable { needed } => needed,
                NoSlice::LimitReached => Micros::ZERO,
            };
            let currency = self.profile.currency;
            let message = format!(
                "a call to {} needs at least {needed} {currency} and {available} {currency} are available: top up",
                rate.destination
            );
            Refusal { code: RefusalCode::InsufficientBalance, message }
        })
    }

    fn grant(
        &self,
        request: &CallRequest,
        found: &Assessment,
        slice: Slice,
        route: Route,
        ids: AttemptIds,
        now: Now,
    ) -> (Authorized, Option<Draft>) {
        let no = self.next_call_no();
        let Some(attempt) = attempt(1, &route, Vec::new(), ids, self.profile.currency, now) else {
            return (Authorized::Refused(not_now()), None);
        };
        let mut call = self.call(request, found, CallState::Routing, None);
        call.route = Some(attempt.carrier.clone());
        let live = LiveCall {
            no,
            credential: request.credential,
            call,
            held: slice.amount,
            hold_step: 0,
            paid_s: slice.paid_s,
            attempt: Some(attempt),
            caller_id: found.presentation.as_ref().map(|p| p.number().number().clone()),
            needs_tls: request.needs_tls,
            answered: None,
            late_answer: false,
            proof_of_life: Some(self.reading(now)),
        };
        let mut figures = self.figures;
        figures.last_call = no;
        figures.held += slice.amount;
        let hold = Hold { call: no, leg: LegSide::B, step: 0, amount: slice.amount };
        let live = Arc::new(live);
        let mut changes = vec![Change::CallStarted(live.clone()), Change::HoldPlaced(hold)];
        let dialogs = request.a_leg.clone().map(|a_leg| Dialogs::of(LegSide::A, a_leg));
        changes.extend(dialogs.map(|dialogs| Change::DialogsChanged(no, Box::new(dialogs))));
        let events = vec![
            EventBody::CallChanged(Box::new(live.call.clone())),
            EventBody::BalanceChanged(self.balance_of(&figures, now)),
        ];
        let presentation = found.presentation.clone();
        let grant = presentation.and_then(|p| self.grant_of(&live, p, route.trunk.trusted, slice.paid_s));
        let patch = Patch { begun_at: Some(request.at), ..Patch::put(live) };
        match grant {
            Some(grant) => {
                (Authorized::Granted(Box::new(grant)), Some(self.draft(now, figures, changes, events, patch)))
            }
            None => (Authorized::Refused(not_now()), None),
        }
    }

    pub(super) fn grant_of(
        &self,
        live: &LiveCall,
        presentation: Presentation,
        trusted: bool,
        slice_s: u64,
    ) -> Option<Grant> {
        Some(Grant {
            no: live.no,
            attempt: live.attempt.clone()?,
            trusted,
            destination: live.call.destination.clone()?,
            presentation,
            funding: self.funding(live, slice_s),
        })
    }

    /// What a live call shows, looked at anew for each grant (P2).
    ///
    /// # Errors
    /// Its number may not be shown any more.
    pub(super) fn presentation_of(&self, live: &LiveCall, now: Now) -> Result<Presentation, Refusal> {
        let number = caller_id::choose_again(&self.caller_ids, live.caller_id.as_ref(), now.wall)?;
        Ok(Presentation::of(number, live.call.withheld))
    }

    pub(super) fn funding(&self, live: &LiveCall, slice_s: u64) -> Funding {
        let limit_s = u64::from(self.profile.limits.call_seconds);
        Funding { paid_s: live.paid_s, slice_s, limit_s, step: live.hold_step }
    }

    /// The grant of a call that was authorized before: the answer to a question asked twice.
    fn grant_again(&self, live: &LiveCall, market: &Market<'_>, now: Now) -> Authorized {
        let trusted = live.attempt.as_ref().is_some_and(|a| is_trusted(market, a.trunk));
        match self.presentation_of(live, now).map(|p| self.grant_of(live, p, trusted, live.paid_s)) {
            Ok(Some(grant)) => Authorized::Granted(Box::new(grant)),
            Ok(None) => Authorized::Refused(not_now()),
            Err(refusal) => Authorized::Refused(refusal),
        }
    }

    fn refused(&self, request: &CallRequest, found: Assessment, refusal: Refusal, now: Now) -> Draft {
        let no = self.next_call_no();
        let too_fast = refusal.code == RefusalCode::TooFast;
        let mut call = self.call(request, &found, CallState::Refused, Some(refusal));
        call.presented_number = None;
        call.ended_at = Some(now.wall);
        let event = EventBody::CallChanged(Box::new(call.clone()));
        let cdr = Cdr {
            no,
            credential: request.credential,
            call,
            withheld_number: None,
            talk_ms: 0,
            charged: Micros::ZERO,
            loss: Micros::ZERO,
            carrier_cost: None,
            attempts: 0,
        };
        let mut figures = self.figures;
        figures.last_call = no;
        // A call refused for its speed does not count again, else a phone that repeats would never get through.
        let patch = Patch { begun_at: (!too_fast).then_some(request.at), refused_at: Some(now), ..Patch::default() };
        self.draft(now, figures, vec![Change::CallRefused(Box::new(cdr))], vec![event], patch)
    }

    fn call(&self, request: &CallRequest, found: &Assessment, state: CallState, refusal: Option<Refusal>) -> Call {
        let leg = CallLeg { side: LegSide::B, rate: found.rate.clone(), billed_seconds: 0, cost: Micros::ZERO };
        // A refused call shows nobody anything.
        let presentation = found.presentation.as_ref().filter(|_| refusal.is_none());
        Call {
            id: request.call,
            state,
            mode: request.mode,
            dialled: Some(request.dialled.clone()),
            destination: found.destination.clone(),
            presented_number: shown(presentation),
            withheld: request.withhold,
            attestation: presentation.map(|p| p.number().attestation()),
            started_at: request.at.wall,
            answered_at: None,
            ended_at: None,
            currency: self.profile.currency,
            cost: Micros::ZERO,
            billed_seconds: 0,
            legs: vec![leg],
            funded_until: None,
            route: None,
            post_dial_delay_ms: None,
            hangup: None,
            explanation: found.explanation(refusal),
        }
    }
}

impl Assessment {
    fn explanation(&self, refusal: Option<Refusal>) -> Explanation {
        Explanation {
            candidates: self.plan.candidates.clone(),
            refusal: refusal.map(Box::new),
            attestation_basis: self.basis.map(Cow::Borrowed),
        }
    }
}

/// The destination class: what is never called, whatever it costs.
fn permitted(meant: &Dialled) -> Result<E164, Refusal> {
    match meant {
        Dialled::Emergency => Err(emergency()),
        Dialled::Invalid(help) => Err(Refusal {
            code: RefusalCode::DestinationInvalid,
            message: format!("this is not a telephone number: {help}"),
        }),
        Dialled::Number { number, class, .. } => match class.refused_as() {
            Some(why) => Err(refuse(RefusalCode::DestinationNotPermitted, why)),
            None => Ok(number.clone()),
        },
    }
}

pub(super) fn is_trusted(market: &Market<'_>, trunk: TrunkId) -> bool {
    market.tariffs.trunks.iter().any(|t| t.id == trunk && t.trusted)
}

fn shown(presentation: Option<&Presentation>) -> Option<E164> {
    presentation.filter(|p| !p.is_withheld()).map(|p| p.number().number().clone())
}

fn emergency() -> Refusal {
    refuse(
        RefusalCode::EmergencyNotSupported,
        "emergency calls are not possible here: use a mobile or fixed-line phone",
    )
}

fn no_route() -> Refusal {
    refuse(RefusalCode::NoRoute, "no carrier serves this destination on these terms")
}

fn not_now() -> Refusal {
    refuse(RefusalCode::Unavailable, "no carrier can take this call now: try again later")
}

fn refuse(code: RefusalCode, message: &str) -> Refusal {
    Refusal { code, message: message.to_owned() }
}
