//! What happens when an attempt fails: its record, and the next route for the same call.

use super::authorize::{Grant, is_trusted};
use super::core::{AccountCore, Draft, Market, Patch, terms};
use crate::routing::{self, Route, RoutePlan, RouteRequest};
use schema::call::{Attempt, AttemptRecord, LiveCall, Refusal, RouteCandidate};
use schema::carrier::Gateway;
use schema::id::{CallId, CallNo, TrunkId};
use schema::journal::Change;
use schema::leg::AttemptIds;
use schema::money::Currency;
use schema::number::Presentation;
use schema::target::TrunkGateway;
use schema::time::Now;
use std::sync::Arc;

/// An attempt that ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFailed {
    /// Which, from 1.
    pub number: u8,
    /// Final status; 408 when nothing came.
    pub sip_code: u16,
}

impl AttemptFailed {
    /// As the explanation says it: `503 Service Unavailable`.
    #[must_use]
    pub fn outcome(&self) -> String {
        format!("{} {}", self.sip_code, crate::call::reasons::phrase(self.sip_code))
    }
}

/// The answer to [`AccountCore::next_attempt`].
#[derive(Debug, Clone)]
pub enum NextAttempt {
    /// Another route.
    Granted(Box<Grant>),
    /// No other route can take the call now.
    NoRoute,
    /// The call's number may not be shown any more (P2).
    Refused(Refusal),
    /// The account has no such live call.
    NotLive,
}

impl AccountCore {
    /// An attempt ended and others may follow: its record, and the next route if there is one. Without one the call stays as
    /// it is. Asked again for the same attempt it gives the same answer and changes nothing.
    pub fn next_attempt(
        &self,
        call: CallId,
        failed: &AttemptFailed,
        ids: AttemptIds,
        market: &Market<'_>,
        now: Now,
    ) -> (NextAttempt, Option<Draft>) {
        let Some(live) = self.live.get(&call) else { return (NextAttempt::NotLive, None) };
        let Some(current) = &live.attempt else { return (NextAttempt::NoRoute, None) };
        let presentation = match self.presentation_of(live, now) {
            Ok(presentation) => presentation,
            Err(refusal) => return (NextAttempt::Refused(refusal), None),
        };
        if current.number > failed.number {
            let trusted = is_trusted(market, current.trunk);
            let grant = self.grant_of(live, presentation, trusted, live.paid_s);
            return (grant.map_or(NextAttempt::NoRoute, |grant| NextAttempt::Granted(Box::new(grant))), None);
        }
        let Some((plan, tried)) = self.plan_again(live, current, failed, &presentation, market, now) else {
            return (NextAttempt::NoRoute, None);
        };
        // The other targets of a name come before other carriers (RFC 3263 §4.3).
        let same = plan.routes.iter().find(|route| route.trunk.id == current.trunk);
        let Some(route) = same.or_else(|| plan.routes.first()) else { return (NextAttempt::NoRoute, None) };
        let hops = if route.trunk.id == current.trunk { current.hops_tried() } else { Vec::new() };
        let number = failed.number.saturating_add(1);
        let Some(attempt) = attempt(number, route, hops, ids, self.profile.currency, now) else {
            return (NextAttempt::NoRoute, None);
        };
        let mut next = LiveCall::clone(live);
        next.attempt = Some(attempt);
        next.call.route = Some(route.trunk.name.clone());
        next.call.explanation.candidates = tried.into_iter().chain(plan.candidates).collect();
        next.proof_of_life = Some(self.reading(now));
        let record = attempt_record(live.no, current, failed.sip_code, now);
        let next = Arc::new(next);
        let changes = vec![Change::AttemptEnded(record), Change::CallUpdated(next.clone())];
        let Some(grant) = self.grant_of(&next, presentation, route.trunk.trusted, next.paid_s) else {
            return (NextAttempt::NoRoute, None);
        };
        let patch = Patch::put(next);
        (NextAttempt::Granted(Box::new(grant)), Some(self.draft(now, self.figures, changes, Vec::new(), patch)))
    }

    /// Routes beside those tried, and what is said of those.
    fn plan_again(
        &self,
        live: &LiveCall,
        current: &Attempt,
        failed: &AttemptFailed,
        presentation: &Presentation,
        market: &Market<'_>,
        now: Now,
    ) -> Option<(RoutePlan, Vec<RouteCandidate>)> {
        let mut kept = live.call.explanation.candidates.clone();
        note_outcome(&mut kept, &current.carrier, failed.outcome());
        kept.retain(|c| c.outcome != routing::PLANNED && !c.outcome.starts_with("excluded"));
        let stays = has_another_target(current, failed, market);
        let is_tried = |name: &str| kept.iter().any(|c| c.carrier == name) && !(stays && name == current.carrier);
        let tried: Vec<TrunkId> = market.tariffs.trunks.iter().filter(|t| is_tried(&t.name)).map(|t| t.id).collect();
        let terms = terms(live);
        let request = RouteRequest {
            destination: live.call.destination.as_ref()?,
            presentation,
            price: &terms,
            currency: self.profile.currency,
            needs_tls: live.needs_tls,
            tried: &tried,
        };
        let mut plan = routing::plan_routes(&request, market.tariffs, market.trunks, now.wall);
        plan.candidates.retain(|c| !is_tried(&c.carrier));
        Some((plan, kept))
    }
}

/// An attempt over this route. `tried` are the next hops of the same trunk that failed before; `None`: there is no other.
pub(super) fn attempt(
    number: u8,
    route: &Route,
    tried: Vec<Gateway>,
    ids: AttemptIds,
    currency: Currency,
    now: Now,
) -> Option<Attempt> {
    debug_assert_eq!(route.trunk.currency, currency, "routes in another currency are left out");
    let name = match &route.trunk.gateway {
        TrunkGateway::Named(name) => Some(name.clone()),
        TrunkGateway::At(_) => None,
    };
    Some(Attempt {
        number,
        trunk: route.trunk.id,
        carrier: route.trunk.name.clone(),
        gateway: route.next_hop(&tried, &ids)?,
        name,
        tried,
        ids,
        cost: route.cost.terms,
        cost_currency: route.trunk.currency,
        started_at: now.wall,
    })
}

/// Whether another target of the same name may be tried: after silence, an error of the transport or a 503 (RFC 3263 §4.3).
fn has_another_target(current: &Attempt, failed: &AttemptFailed, market: &Market<'_>) -> bool {
    let targets = market.trunks.get(&current.trunk).and_then(|status| status.state.targets.as_ref());
    let tried = current.hops_tried();
    matches!(failed.sip_code, 408 | 503)
        && targets.is_some_and(|targets| targets.gateways().any(|gateway| !tried.contains(&gateway)))
}

pub(super) fn note_outcome(candidates: &mut [RouteCandidate], carrier: &str, outcome: String) {
    let tried = candidates.iter_mut().find(|c| c.carrier == carrier && c.outcome == routing::PLANNED);
    if let Some(candidate) = tried {
        candidate.outcome = outcome;
    }
}

pub(super) fn attempt_record(call: CallNo, attempt: &Attempt, sip_code: u16, now: Now) -> AttemptRecord {
    AttemptRecord {
        call,
        number: attempt.number,
        trunk: attempt.trunk,
        started_at: attempt.started_at,
        ended_at: now.wall,
        sip_code,
    }
}
