//! Trunks: who they are, where their names lead, and whether calls can be sent there: targets answer OPTIONS, the carrier has us
//! registered and takes our credentials.

use super::exchange::Owner;
use super::peers::Way;
use super::timers::Timer;
use super::{Core, Output};
use crate::flow::{Flow, Unreached};
use crate::message::{Malformed, Method, NameAddr, RequestBuilder, Uri};
use schema::carrier::{Gateway, TrunkDown, TrunkLogin, TrunkState};
use schema::edge::{EdgeEvent, TrunkAddress};
use schema::id::TrunkId;
use schema::target::{GatewayName, HostName, Targets, TrunkGateway};
use schema::time::{Mono, Now};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Between two probes of a trunk.
const EVERY: Duration = Duration::from_secs(30);
/// Unanswered probes until a target counts as down.
const MISSES: u32 = 3;
/// A target of a name that failed a call is not chosen for so long while the name has others (RFC 3263 §4.3 leaves the time to
/// us).
pub(super) const SKIP: Duration = Duration::from_secs(30);

/// A trunk whose carrier refused our credentials rests for this long.
const REST: Duration = Duration::from_secs(60);
/// A trunk over which a call got through within this does not rest for what one call was told.
const SERVED: Duration = Duration::from_secs(600);
/// The largest request that goes over UDP where TCP may be used (RFC 3261 §18.1.1).
const UDP_MAX: usize = 1_300;

/// What is known of one address.
#[derive(Default)]
struct Health {
    misses: u32,
    /// Its certificate is not the right one.
    refused: Option<TrunkDown>,
    /// It failed a call.
    skipped_until: Option<Mono>,
}

struct Probe {
    address: TrunkAddress,
    /// Addresses asked, with what they said.
    health: BTreeMap<Gateway, Health>,
    /// Its registration, when it has one.
    registration: Option<u64>,
    /// It refused our credentials: it rests until then.
    rests: Option<(TrunkDown, Mono)>,
    /// When a call over it last got through to somebody.
    served: Option<Mono>,
    /// What was told last.
    told: Option<TrunkState>,
    /// When the next round leaves; timers of an earlier address are ignored.
    due: Mono,
}

impl Probe {
    const fn new(address: TrunkAddress, registration: Option<u64>, told: Option<TrunkState>, now: Mono) -> Self {
        Self { address, health: BTreeMap::new(), registration, rests: None, served: None, told, due: now }
    }

    fn is_at(&self, flow: Flow) -> bool {
        // A carrier sends from any port. On loopback carriers and phones share an address.
        let same = |gateway: &Gateway| {
            gateway.address == flow.peer || (gateway.address.ip() == flow.ip() && !flow.ip().is_loopback())
        };
        match &self.address.gateway {
            TrunkGateway::At(gateway) => same(gateway),
            TrunkGateway::Named(_) => self.health.keys().any(same),
        }
    }

    fn is_silent(&self, gateway: Gateway) -> bool {
        self.health.get(&gateway).is_some_and(|health| health.misses >= MISSES || health.refused.is_some())
    }

    fn is_skipped(&self, gateway: Gateway, now: Mono) -> bool {
        self.health.get(&gateway).and_then(|health| health.skipped_until).is_some_and(|until| until > now)
    }

    /// Its state, given where its name leads and why it is not registered. Why it cannot be reached comes first.
    fn state(
        &self,
        located: Option<Result<Arc<Targets>, TrunkDown>>,
        unregistered: Option<TrunkDown>,
        now: Mono,
    ) -> TrunkState {
        let reached = self.reached(located, now);
        match reached.down {
            None | Some(TrunkDown::Silent) => {
                let refused = unregistered.or(self.rests.map(|(down, _)| down));
                refused.map_or(reached, TrunkState::down)
            }
            Some(_) => reached,
        }
    }

    /// Where it can be reached, given where its name leads.
    fn reached(&self, located: Option<Result<Arc<Targets>, TrunkDown>>, now: Mono) -> TrunkState {
        let refused = self.health.values().find_map(|health| health.refused);
        let silent = Some(refused.unwrap_or(TrunkDown::Silent));
        let targets = match located {
            None if self.health.keys().any(|gateway| self.is_silent(*gateway)) => {
                return TrunkState { down: silent, targets: None };
            }
            None => return TrunkState::UP,
            Some(Err(why)) => return TrunkState::down(why),
            Some(Ok(targets)) => targets,
        };
        let answering = targets.only(|gateway| !self.is_silent(gateway));
        if answering.is_empty() {
            return TrunkState { down: silent, targets: Some(targets) };
        }
        // The last one is not skipped: it may have refused one call only.
        let fresh = answering.only(|gateway| !self.is_skipped(gateway, now));
        let usable = if fresh.is_empty() { answering } else { fresh };
        TrunkState { down: None, targets: Some(Arc::new(usable)) }
    }
}

/// The configured trunks.
#[derive(Default)]
pub(super) struct Probes(BTreeMap<TrunkId, Probe>);

impl Probes {
    /// How we show a trunk's carrier who we are.
    pub(super) fn login(&self, trunk: TrunkId) -> Option<Arc<TrunkLogin>> {
        self.0.get(&trunk)?.address.login.clone()
    }
}

impl Core {
    pub(super) fn is_trunk(&self, flow: Flow) -> bool {
        self.probes.0.values().any(|probe| probe.is_at(flow))
    }

    /// The trunk that is there, when there is one only.
    pub(super) fn trunk_at(&self, flow: Flow) -> Option<TrunkId> {
        let mut there = self.probes.0.iter().filter(|(_, probe)| probe.is_at(flow));
        let (trunk, _) = there.next()?;
        there.next().is_none().then_some(*trunk)
    }

    /// Whether a trunk is found under this name.
    pub(super) fn is_trunk_name(&self, name: &GatewayName) -> bool {
        self.probes
            .0
            .values()
            .any(|probe| matches!(&probe.address.gateway, TrunkGateway::Named(named) if named == name))
    }

    pub(super) fn set_trunks(&mut self, trunks: Vec<TrunkAddress>, now: Now) {
        let mut before = std::mem::take(&mut self.probes.0);
        for address in trunks {
            let trunk = address.trunk;
            let name = match &address.gateway {
                TrunkGateway::Named(name) => Some(name.clone()),
                TrunkGateway::At(_) => None,
            };
            let (probe, is_new) = match before.remove(&trunk) {
                Some(kept) if kept.address == address => (kept, false),
                changed => (self.begin_trunk(address, changed, now), true),
            };
            self.probes.0.insert(trunk, probe);
            match name {
                Some(name) => {
                    self.want_name(&name, now);
                    self.trunk_located(trunk, now);
                }
                None if is_new => {
                    self.timers.set(now.mono, Timer::Probe(trunk));
                    self.tell_change(trunk, now);
                }
                None => {}
            }
        }
        for gone in before.into_values() {
            self.leave(Some(gone), now);
        }
    }

    /// A trunk that is new, or not as it was.
    fn begin_trunk(&mut self, address: TrunkAddress, changed: Option<Probe>, now: Now) -> Probe {
        // Whoever was told of another gateway knows nothing of this one.
        let same = changed.as_ref().filter(|before| before.address.gateway == address.gateway);
        let told = same.and_then(|before| before.told.clone());
        self.leave(changed, now);
        let registration = self.begin_registering(&address, now);
        Probe::new(address, registration, told, now.mono)
    }

    fn leave(&mut self, gone: Option<Probe>, now: Now) {
        if let Some(number) = gone.and_then(|probe| probe.registration) {
            self.leave_registrar(number, now);
        }
    }

    /// A call over it has got through to somebody.
    pub(super) fn trunk_serves(&mut self, trunk: TrunkId, now: Now) {
        if let Some(probe) = self.probes.0.get_mut(&trunk) {
            probe.served = Some(now.mono);
        }
    }

    /// Its carrier does not take our calls as they are: others are tried first for a while. Not when others' calls got through not
    /// long ago: then whoever was called may have said it, to keep the trunk from everybody.
    pub(super) fn trunk_refuses(&mut self, trunk: TrunkId, down: TrunkDown, now: Now) {
        let serves = |probe: &&mut Probe| probe.served.is_some_and(|at| now.mono.since(at) < SERVED);
        if let Some(probe) = self.probes.0.get_mut(&trunk).filter(|probe| !serves(probe)) {
            probe.rests = Some((down, now.mono + REST));
            self.tell_trunk(trunk, now);
        }
    }

    /// Its carrier may have forgotten that we are registered.
    pub(super) fn doubt_trunk(&mut self, trunk: TrunkId, now: Now) {
        if let Some(number) = self.probes.0.get(&trunk).and_then(|probe| probe.registration) {
            self.doubt_registration(number, now);
        }
    }

    /// Where a trunk's name leads, in the order to be tried; those that do not answer only when all are so.
    pub(super) fn answering_targets(&mut self, trunk: TrunkId, name: &GatewayName) -> Vec<Gateway> {
        let Ok(found) = self.names.find(name) else { return Vec::new() };
        let probe = self.probes.0.get(&trunk);
        let answering = found.only(|gateway| !probe.is_some_and(|probe| probe.is_silent(gateway)));
        let usable = if answering.is_empty() { &*found } else { &answering };
        usable.ordered(&mut self.entropy)
    }

    /// Whether a gateway of this trunk has this address.
    pub(super) fn is_gateway_of(&self, trunk: TrunkId, ip: IpAddr) -> bool {
        let probe = self.probes.0.get(&trunk);
        probe.is_some_and(|probe| self.gateways(probe).iter().any(|gateway| gateway.address.ip() == ip))
    }

    /// The addresses of a trunk.
    fn gateways(&self, probe: &Probe) -> Vec<Gateway> {
        match &probe.address.gateway {
            TrunkGateway::At(gateway) => vec![*gateway],
            TrunkGateway::Named(name) => self.names.find(name).map(|t| t.gateways().collect()).unwrap_or_default(),
        }
    }

    /// A name leads elsewhere, or nowhere any more.
    pub(super) fn trunks_located(&mut self, name: &GatewayName, now: Now) {
        let is_its = |probe: &Probe| matches!(&probe.address.gateway, TrunkGateway::Named(named) if named == name);
        let trunks: Vec<TrunkId> = self.probes.0.iter().filter(|(_, p)| is_its(p)).map(|(id, _)| *id).collect();
        for trunk in trunks {
            self.trunk_located(trunk, now);
        }
    }

    /// Targets that are new are probed at once; of those that stay what is known stays.
    fn trunk_located(&mut self, trunk: TrunkId, now: Now) {
        let Some(probe) = self.probes.0.get(&trunk) else { return };
        let gateways = self.gateways(probe);
        let Some(probe) = self.probes.0.get_mut(&trunk) else { return };
        probe.health.retain(|gateway, _| gateways.contains(gateway));
        if gateways.iter().any(|gateway| !probe.health.contains_key(gateway)) {
            probe.due = now.mono;
            self.timers.set(now.mono, Timer::Probe(trunk));
        }
        for gateway in gateways {
            probe.health.entry(gateway).or_default();
        }
        let registration = probe.registration;
        self.tell_trunk(trunk, now);
        if let Some(number) = registration {
            self.registrar_located(number, now);
        }
    }

    /// Tells the state of a trunk of which something is known.
    pub(super) fn tell_change(&mut self, trunk: TrunkId, now: Now) {
        if self.probes.0.get(&trunk).is_some_and(|probe| probe.told.is_some() || probe.registration.is_some()) {
            self.tell_trunk(trunk, now);
        }
    }

    /// Tells a trunk's state, when it is another one than before.
    pub(super) fn tell_trunk(&mut self, trunk: TrunkId, now: Now) {
        let Some(probe) = self.probes.0.get_mut(&trunk) else { return };
        probe.rests.take_if(|(_, until)| *until <= now.mono);
        let unregistered = probe.registration.and_then(|number| self.registrations.down(number));
        let located = match &probe.address.gateway {
            TrunkGateway::At(_) => None,
            TrunkGateway::Named(name) => Some(self.names.find(name)),
        };
        let state = probe.state(located, unregistered, now.mono);
        if let Some(probe) = self.probes.0.get_mut(&trunk)
            && probe.told.as_ref() != Some(&state)
        {
            probe.told = Some(state.clone());
            self.output.push_back(Output::Edge(EdgeEvent::TrunkProbed { trunk, state }));
        }
    }

    /// Sends the next probes, one to each address.
    pub(super) fn probe_time(&mut self, trunk: TrunkId, now: Now) {
        let Some(probe) = self.probes.0.get_mut(&trunk) else { return };
        if probe.due <= now.mono {
            probe.due = now.mono + EVERY;
            self.timers.set(now.mono + EVERY, Timer::Probe(trunk));
            let Some(probe) = self.probes.0.get(&trunk) else { return };
            let (gateways, address) = (self.gateways(probe), probe.address.gateway.clone());
            for gateway in gateways {
                let _ = self.send_probe(trunk, &address, gateway, now);
            }
        }
        // Whoever was skipped, or rested, may be chosen again.
        self.tell_change(trunk, now);
    }

    fn send_probe(
        &mut self,
        trunk: TrunkId,
        address: &TrunkGateway,
        gateway: Gateway,
        now: Now,
    ) -> Result<(), Malformed> {
        let way = Way::To(self.destination(gateway, host_of(address)));
        let target = target_uri(None, address, gateway)?;
        let us = Uri::sip(None, &self.config.domain, None)?;
        let options = RequestBuilder::new(Method::Options, target.clone())
            .from(&NameAddr::new(us).with_tag(&self.entropy.hex::<8>())?)
            .to(&NameAddr::new(target))
            .call_id(&self.entropy.hex::<16>())
            .cseq(1);
        let _ = self.request(way, options, Owner::Probe(trunk, gateway), now);
        Ok(())
    }

    /// Any answer shows that somebody is there.
    pub(super) fn on_probe_answer(&mut self, trunk: TrunkId, gateway: Gateway, now: Now) {
        if let Some(probe) = self.probes.0.get_mut(&trunk) {
            let health = probe.health.entry(gateway).or_default();
            let was_away = health.misses >= MISSES;
            (health.misses, health.refused) = (0, None);
            if was_away {
                self.doubt_trunk(trunk, now);
            }
            self.tell_trunk(trunk, now);
        }
    }

    /// It answers a call: so it is there, whether it answers probes or not.
    pub(super) fn gateway_speaks(&mut self, trunk: TrunkId, gateway: Gateway, now: Now) {
        let health = self.probes.0.get(&trunk).and_then(|probe| probe.health.get(&gateway));
        if health.is_some_and(|health| health.misses > 0) {
            self.on_probe_answer(trunk, gateway, now);
        }
    }

    pub(super) fn on_probe_unanswered(&mut self, trunk: TrunkId, gateway: Gateway, now: Now) {
        let Some(probe) = self.probes.0.get_mut(&trunk) else { return };
        let health = probe.health.entry(gateway).or_default();
        health.misses = health.misses.saturating_add(1);
        if health.misses >= MISSES || health.refused.is_some() {
            self.tell_trunk(trunk, now);
        }
    }

    /// A probe found another peer than the one meant, or nobody; told with [`Self::on_probe_unanswered`], which follows.
    pub(super) fn on_probe_unreached(&mut self, trunk: TrunkId, gateway: Gateway, why: Unreached) {
        if let Some(probe) = self.probes.0.get_mut(&trunk) {
            probe.health.entry(gateway).or_default().refused = match why {
                Unreached::NoConnection | Unreached::NotTried => None,
                Unreached::WrongName => Some(TrunkDown::WrongName),
                Unreached::Untrusted => Some(TrunkDown::Untrusted),
            };
        }
    }

    /// Whether a request of this size to this trunk goes over TCP rather than UDP (RFC 3261 §18.1.1).
    pub(super) fn is_too_large(&self, trunk: TrunkId, bytes: usize) -> bool {
        bytes > UDP_MAX && self.probes.0.get(&trunk).is_some_and(|probe| probe.address.large_over_tcp)
    }

    /// A call was not taken there: no answer, no connection, or a 503 (RFC 3263 §4.3).
    pub(super) fn target_failed(&mut self, trunk: TrunkId, gateway: Gateway, now: Now) {
        let Some(probe) = self.probes.0.get_mut(&trunk) else { return };
        if probe.is_skipped(gateway, now.mono) {
            return;
        }
        if let (TrunkGateway::Named(_), Some(health)) = (&probe.address.gateway, probe.health.get_mut(&gateway)) {
            health.skipped_until = Some(now.mono + SKIP);
            self.timers.set(now.mono + SKIP, Timer::Probe(trunk));
            self.tell_trunk(trunk, now);
        }
    }
}

/// The name that a trunk's certificate has to be for: its own, not that of the SRV target (RFC 5922 §4).
pub(super) const fn host_of(address: &TrunkGateway) -> Option<&HostName> {
    match address {
        TrunkGateway::At(_) => None,
        TrunkGateway::Named(name) => Some(&name.host),
    }
}

/// Request-URI of a request to a trunk: its name, as configured; else its address.
///
/// # Errors
/// The user cannot be written in a URI.
pub(super) fn target_uri(user: Option<&str>, address: &TrunkGateway, gateway: Gateway) -> Result<Uri, Malformed> {
    match address {
        TrunkGateway::At(_) => Ok(Uri::of_address(user, gateway.address)),
        TrunkGateway::Named(name) => Uri::sip(user, name.host.as_str(), name.port),
    }
}
