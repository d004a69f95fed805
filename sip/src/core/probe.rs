//! Trunks: who they are, and whether they answer OPTIONS.

use super::exchange::{Owner, Way};
use super::timers::Timer;
use super::{Core, Output};
use crate::flow::{Destination, Flow, Protocol};
use crate::message::{Method, NameAddr, RequestBuilder, Uri};
use schema::carrier::GatewayTransport;
use schema::edge::{EdgeEvent, TrunkAddress};
use schema::id::TrunkId;
use schema::time::{Mono, Now};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two probes of a trunk (`features.md` §5.4).
const EVERY: Duration = Duration::from_secs(30);
/// Unanswered probes until a trunk counts as down.
const MISSES: u32 = 3;

struct Probe {
    address: TrunkAddress,
    misses: u32,
    up: Option<bool>,
    /// When the next one leaves; timers of an earlier address are ignored.
    due: Mono,
}

/// The configured trunks.
#[derive(Default)]
pub(super) struct Probes(BTreeMap<TrunkId, Probe>);

impl Core {
    pub(super) fn is_trunk(&self, flow: Flow) -> bool {
        let known = self.probes.0.values().map(|probe| probe.address.gateway);
        let same = |gateway: schema::carrier::Gateway| {
            // A carrier sends from any port. On loopback carriers and phones share an address.
            gateway.address == flow.peer || (gateway.address.ip() == flow.ip() && !flow.ip().is_loopback())
        };
        known.into_iter().any(same)
    }

    pub(super) fn set_trunks(&mut self, trunks: Vec<TrunkAddress>, now: Now) {
        let mut before = std::mem::take(&mut self.probes.0);
        for address in trunks {
            let kept = before.remove(&address.trunk).filter(|probe| probe.address == address);
            if kept.is_none() {
                self.timers.set(now.mono, Timer::Probe(address.trunk));
            }
            self.probes.0.insert(address.trunk, kept.unwrap_or(Probe { address, misses: 0, up: None, due: now.mono }));
        }
    }

    /// Sends the next probe.
    pub(super) fn probe_time(&mut self, trunk: TrunkId, now: Now) {
        let Some(probe) = self.probes.0.get_mut(&trunk).filter(|probe| probe.due <= now.mono) else { return };
        probe.due = now.mono + EVERY;
        let gateway = probe.address.gateway;
        let protocol = match gateway.transport {
            GatewayTransport::Udp => Protocol::Udp,
            GatewayTransport::Tcp => Protocol::Tcp,
            GatewayTransport::Tls => Protocol::Tls,
        };
        self.timers.set(now.mono + EVERY, Timer::Probe(trunk));
        let target = Uri::of_address(None, gateway.address);
        let (Some(via), Ok(us)) = (self.via(protocol, None), Uri::sip(None, &self.config.domain, None)) else { return };
        let Ok(from) = NameAddr::new(us).with_tag(&self.entropy.hex::<8>()) else { return };
        let options = RequestBuilder::new(Method::Options, target.clone())
            .via(&via)
            .from(&from)
            .to(&NameAddr::new(target))
            .call_id(&self.entropy.hex::<16>())
            .cseq(1);
        let branch = via.branch().unwrap_or_default().to_owned();
        let way = Way::To(Destination { protocol, address: gateway.address });
        let _ = self.request(way, &branch, Method::Options, options, Owner::Probe(trunk), now);
    }

    /// Any answer shows that somebody is there.
    pub(super) fn on_probe_answer(&mut self, trunk: TrunkId) {
        let Some(probe) = self.probes.0.get_mut(&trunk) else { return };
        probe.misses = 0;
        if probe.up != Some(true) {
            probe.up = Some(true);
            self.output.push_back(Output::Edge(EdgeEvent::TrunkProbed { trunk, up: true }));
        }
    }

    pub(super) fn on_probe_unanswered(&mut self, trunk: TrunkId) {
        let Some(probe) = self.probes.0.get_mut(&trunk) else { return };
        probe.misses += 1;
        if probe.misses >= MISSES && probe.up != Some(false) {
            probe.up = Some(false);
            self.output.push_back(Output::Edge(EdgeEvent::TrunkProbed { trunk, up: false }));
        }
    }
}
