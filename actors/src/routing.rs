//! Which carrier takes a call: the trunks able to carry it, cheapest first, with the reason each other was left out. A
//! simulation (`quote`) and a live call use the same function, so that they cannot differ.

use crate::rating::Tariffs;
use schema::call::RouteCandidate;
use schema::carrier::{Gateway, Trunk, TrunkDown, TrunkState};
use schema::entropy::Entropy;
use schema::id::TrunkId;
use schema::leg::AttemptIds;
use schema::money::{Currency, Micros};
use schema::number::{E164, Presentation};
use schema::rate::{RateApplied, RateTerms};
use schema::target::{Targets, TrunkGateway};
use schema::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A trunk as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkStatus {
    /// Whether and where calls can be sent.
    pub state: TrunkState,
    /// It is silent, and a call that no other trunk takes may find out whether it still is.
    pub half_open: bool,
    /// Calls it can still take at the same time.
    pub free_channels: u32,
    /// Whether its calls-per-second limit lets one through now.
    pub rate_allows: bool,
}

/// What a route is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// The number to call.
    pub destination: &'a E164,
    /// What the callee is shown.
    pub presentation: &'a Presentation,
    /// What the customer pays.
    pub price: &'a RateTerms,
    /// In which currency.
    pub currency: Currency,
    /// Whether the keys of its media leave over TLS only.
    pub needs_tls: bool,
    /// Trunks tried before in this call.
    pub tried: &'a [TrunkId],
}

/// A trunk that can take the call, and what it costs us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The trunk.
    pub trunk: Trunk,
    /// The line of its deck.
    pub cost: RateApplied,
    /// Where its name leads, when its gateway is one.
    pub targets: Option<Arc<Targets>>,
}

impl Route {
    /// The next hop of an attempt whose identifiers these are: the trunk's address, or a target of its name that was not
    /// `tried`, drawn anew for each attempt (RFC 3263 §4.2, RFC 2782). The same identifiers give the same.
    #[must_use]
    pub fn next_hop(&self, tried: &[Gateway], ids: &AttemptIds) -> Option<Gateway> {
        match &self.trunk.gateway {
            TrunkGateway::At(gateway) => Some(*gateway),
            TrunkGateway::Named(_) => {
                let order = self.targets.as_ref()?.ordered(&mut entropy_of(ids));
                order.into_iter().find(|gateway| !tried.contains(gateway))
            }
        }
    }
}

/// Randomness that belongs to one attempt: its Call-ID is random.
fn entropy_of(ids: &AttemptIds) -> Entropy {
    let mut seed = [0; 32];
    seed.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, ids.call_id.as_bytes()).as_ref());
    Entropy::from_seed(seed)
}

/// Routes in the order to try, and every trunk that was thought of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoutePlan {
    /// Cheapest first; silent trunks last.
    pub routes: Vec<Route>,
    /// The routes, then the trunks left out, by name.
    pub candidates: Vec<RouteCandidate>,
    /// A trunk left out serves the destination: it is only down, or has too much to do.
    pub is_served_later: bool,
}

/// The word for a route that was not tried yet.
pub const PLANNED: &str = "planned";

/// Plans the routes of a call.
#[must_use]
pub fn plan_routes(
    request: &RouteRequest<'_>,
    tariffs: &Tariffs,
    trunks: &BTreeMap<TrunkId, TrunkStatus>,
    at: Timestamp,
) -> RoutePlan {
    let mut plan = RoutePlan::default();
    let mut left_out = Vec::new();
    for trunk in &tariffs.trunks {
        let cost = tariffs.decks.get(&trunk.deck).and_then(|deck| deck.rate(request.destination.digits(), at));
        let status = trunks.get(&trunk.id);
        match exclusion(request, trunk, cost.as_ref(), status) {
            Some(Exclusion { why, passes }) => {
                plan.is_served_later |= passes;
                left_out.push(candidate(trunk, cost.as_ref(), format!("excluded: {why}")));
            }
            None => {
                let targets = status.and_then(|status| status.state.targets.clone());
                plan.routes.extend(cost.map(|cost| Route { trunk: trunk.clone(), cost, targets }));
            }
        }
    }
    let is_half_open = |trunk: &Trunk| trunks.get(&trunk.id).is_some_and(|status| status.half_open);
    plan.routes.sort_by_key(|route| {
        (is_half_open(&route.trunk), minute(&route.cost.terms), route.trunk.priority, route.trunk.id)
    });
    plan.candidates.extend(plan.routes.iter().map(|r| candidate(&r.trunk, Some(&r.cost), PLANNED.to_owned())));
    plan.candidates.extend(left_out);
    plan
}

/// Why a trunk is left out.
struct Exclusion {
    why: &'static str,
    /// It may take the same call a moment later.
    passes: bool,
}

/// Why a trunk cannot take the call; `None` when it can. Facts that last are asked before those that pass.
fn exclusion(
    request: &RouteRequest<'_>,
    trunk: &Trunk,
    cost: Option<&RateApplied>,
    status: Option<&TrunkStatus>,
) -> Option<Exclusion> {
    let Some(cost) = cost else { return Some(Exclusion { why: "no rate for this destination", passes: false }) };
    let down = status.map_or(Some(TrunkDown::Silent), |status| status.state.down.filter(|_| !status.half_open));
    let (free_channels, rate_allows) = status.map_or((0, false), |status| (status.free_channels, status.rate_allows));
    // Carrier costs are compared with the price only in one currency; there are no exchange rates yet.
    let lasting = [
        (trunk.currency != request.currency, "no exchange rate to the account's currency"),
        (loses_money(&cost.terms, request.price), "it would cost more than the call earns"),
        (request.presentation.is_withheld() && !trunk.trusted, "it may not be told a withheld number"),
        (request.needs_tls && !trunk.gateway.is_tls(), "keys of media (SDES) need TLS"),
        (request.tried.contains(&trunk.id), "tried before"),
    ];
    let passing = [
        (down.is_some(), down.map_or("", TrunkDown::as_str)),
        (free_channels == 0, "all channels in use"),
        (!rate_allows, "too many calls a second"),
    ];
    let first = |rules: &[(bool, &'static str)], passes| {
        rules.iter().find(|(applies, _)| *applies).map(|(_, why)| Exclusion { why, passes })
    };
    first(&lasting, false).or_else(|| first(&passing, true))
}

/// A minute as the measure of a route's cost: connect fee and billing steps included.
fn minute(terms: &RateTerms) -> Micros {
    terms.charge(Duration::from_secs(60))
}

fn loses_money(cost: &RateTerms, price: &RateTerms) -> bool {
    minute(cost) > minute(price) || cost.per_minute > price.per_minute
}

fn candidate(trunk: &Trunk, cost: Option<&RateApplied>, outcome: String) -> RouteCandidate {
    RouteCandidate {
        carrier: trunk.name.clone(),
        prefix: cost.map(|cost| cost.prefix.clone()).unwrap_or_default(),
        cost_per_minute: cost.map(|c| c.terms.per_minute),
        currency: trunk.currency,
        outcome,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rating::tests::{deck, line};
    use schema::carrier::GatewayTransport;
    use schema::id::DeckId;
    use schema::money::NanosPerMinute;
    use schema::number::{PresentedNumber, ServiceNumber};
    use uuid::Uuid;

    pub(crate) const UP: TrunkStatus =
        TrunkStatus { state: TrunkState::UP, half_open: false, free_channels: 10, rate_allows: true };

    pub(crate) fn trunk(id: u128, deck: u128) -> Trunk {
        Trunk {
            id: TrunkId(Uuid::from_u128(id)),
            name: format!("carrier {id}"),
            gateway: TrunkGateway::At(Gateway {
                transport: GatewayTransport::Udp,
                address: std::net::SocketAddr::from(([127, 0, 0, 1], 5070)),
            }),
            currency: Currency::parse("EUR").expect("a currency"),
            deck: DeckId(Uuid::from_u128(deck)),
            max_channels: 10,
            max_cps: 10,
            priority: 0,
            large_over_tcp: false,
            trusted: false,
        }
    }

    fn outcomes(
        change: impl FnOnce(&mut Vec<Trunk>, &mut BTreeMap<TrunkId, TrunkStatus>),
        withheld: bool,
        tried: &[TrunkId],
    ) -> Vec<String> {
        let plan = planned(change, withheld, tried);
        plan.candidates.into_iter().map(|c| format!("{} {}", &c.carrier[8..], c.outcome)).collect()
    }

    fn planned(
        change: impl FnOnce(&mut Vec<Trunk>, &mut BTreeMap<TrunkId, TrunkStatus>),
        withheld: bool,
        tried: &[TrunkId],
    ) -> RoutePlan {
        let mut trunks = vec![trunk(1, 10), trunk(2, 20), trunk(3, 30)];
        let mut status = trunks.iter().map(|t| (t.id, UP.clone())).collect();
        change(&mut trunks, &mut status);
        let decks =
            [deck(10, vec![line("44", 8_000)]), deck(20, vec![line("44", 5_000)]), deck(30, vec![line("44", 8_000)])];
        let number = E164::parse("+447700900123").expect("valid");
        let shown = PresentedNumber::service(&ServiceNumber(number.clone()));
        let presentation = if withheld { Presentation::Withheld(shown) } else { Presentation::Shown(shown) };
        let price = RateTerms { per_minute: NanosPerMinute(10_000), ..RateTerms::FREE };
        let currency = Currency::parse("EUR").expect("a currency");
        let request = RouteRequest {
            destination: &number,
            presentation: &presentation,
            price: &price,
            currency,
            needs_tls: false,
            tried,
        };
        plan_routes(&request, &Tariffs::build(&decks, trunks), &status, Timestamp(0))
    }

    #[test]
    fn the_cheapest_route_is_tried_first_then_by_priority() {
        assert_eq!(outcomes(|_, _| {}, false, &[]), ["2 planned", "1 planned", "3 planned"]);
        assert_eq!(outcomes(|trunks, _| trunks[0].priority = 1, false, &[]), ["2 planned", "3 planned", "1 planned"]);
    }

    #[test]
    fn a_silent_trunk_is_tried_last() {
        let silent = |status: &mut BTreeMap<TrunkId, TrunkStatus>| {
            let second = status.get_mut(&TrunkId(Uuid::from_u128(2))).expect("known");
            (second.state, second.half_open) = (TrunkState::down(TrunkDown::Silent), true);
        };
        assert_eq!(outcomes(|_, status| silent(status), false, &[]), ["1 planned", "3 planned", "2 planned"]);
    }

    #[test]
    fn each_route_left_out_says_why() {
        type Change = Box<dyn FnOnce(&mut Vec<Trunk>, &mut BTreeMap<TrunkId, TrunkStatus>)>;
        const SECOND: TrunkId = TrunkId(Uuid::from_u128(2));
        let of_status = |change: fn(&mut TrunkStatus)| -> Change {
            Box::new(move |_, status| change(status.get_mut(&SECOND).expect("known")))
        };
        let cases: [(Change, &str); 9] = [
            (of_status(|s| s.state = TrunkState::down(TrunkDown::Silent)), "down: it does not answer"),
            (
                of_status(|s| s.state = TrunkState::down(TrunkDown::CredentialsRefused)),
                "down: it refuses the credentials",
            ),
            (of_status(|s| s.state = TrunkState::down(TrunkDown::NoSuchName)), "down: its name does not exist in DNS"),
            (
                of_status(|s| s.state = TrunkState::first(&"a.example".parse().expect("a name"), false)),
                "down: its name is being looked up",
            ),
            (of_status(|s| s.free_channels = 0), "all channels in use"),
            (of_status(|s| s.rate_allows = false), "too many calls a second"),
            (Box::new(|t, _| t[1].deck = DeckId(Uuid::from_u128(99))), "no rate for this destination"),
            (
                Box::new(|t, _| t[1].currency = Currency::parse("USD").expect("a currency")),
                "no exchange rate to the account's currency",
            ),
            (
                Box::new(|_, status| {
                    status.remove(&SECOND);
                }),
                "down: it does not answer",
            ),
        ];
        for (change, why) in cases {
            assert_eq!(outcomes(change, false, &[]), ["1 planned", "3 planned", &format!("2 excluded: {why}")]);
        }
        assert_eq!(outcomes(|_, _| {}, false, &[SECOND]).pop(), Some("2 excluded: tried before".into()));
    }

    /// With the other trunks gone, whether the second one could take the call later.
    #[test]
    fn only_a_trunk_that_is_down_or_busy_serves_the_destination_later() {
        type Change = fn(&mut Trunk, &mut TrunkStatus);
        const SECOND: TrunkId = TrunkId(Uuid::from_u128(2));
        let cases: [(Change, bool); 6] = [
            (|_, s| s.state = TrunkState::down(TrunkDown::Silent), true),
            (|_, s| s.free_channels = 0, true),
            (|_, s| s.rate_allows = false, true),
            (|t, _| t.deck = DeckId(Uuid::from_u128(99)), false),
            (|t, _| t.currency = Currency::parse("USD").expect("a currency"), false),
            // What lasts counts, whatever else is so.
            (
                |t, s| {
                    t.deck = DeckId(Uuid::from_u128(99));
                    s.state = TrunkState::down(TrunkDown::Silent);
                },
                false,
            ),
        ];
        for (number, (change, later)) in cases.into_iter().enumerate() {
            let only = |trunks: &mut Vec<Trunk>, status: &mut BTreeMap<TrunkId, TrunkStatus>| {
                trunks.retain(|trunk| trunk.id == SECOND);
                change(&mut trunks[0], status.get_mut(&SECOND).expect("known"));
            };
            let plan = planned(only, false, &[]);
            assert_eq!((plan.routes.len(), plan.is_served_later), (0, later), "{number}");
        }
        let withheld = planned(|trunks, _| trunks.truncate(1), true, &[]);
        assert_eq!((withheld.routes.len(), withheld.is_served_later), (0, false));
    }

    #[test]
    fn a_withheld_number_goes_over_trusted_trunks_only() {
        let expected = [
            "3 planned",
            "1 excluded: it may not be told a withheld number",
            "2 excluded: it may not be told a withheld number",
        ];
        assert_eq!(outcomes(|trunks, _| trunks[2].trusted = true, true, &[]), expected);
    }

    #[test]
    fn a_route_that_loses_money_is_left_out() {
        let price = RateTerms { per_minute: NanosPerMinute(1_000_000), ..RateTerms::FREE };
        for (cost, loses) in [
            (RateTerms { per_minute: NanosPerMinute(1_000_000), ..RateTerms::FREE }, false),
            (RateTerms { per_minute: NanosPerMinute(1_000_001), ..RateTerms::FREE }, true),
            (RateTerms { per_minute: NanosPerMinute(900_000), connect_fee: Micros(101), ..RateTerms::FREE }, true),
            (RateTerms { per_minute: NanosPerMinute(900_000), minimum_s: 120, ..RateTerms::FREE }, true),
        ] {
            assert_eq!(loses_money(&cost, &price), loses, "{cost:?}");
        }
    }
}
