//! A trunk: whether it is up, how many calls it carries, how many it takes a second. The gauge is shared, so that an account
//! plans its routes without asking anybody; its actor alone says whether the trunk is up.

use crate::context::Context;
use crate::failures::{Handling, Whose};
use crate::faults::FaultPoint;
use crate::poison::{About, Subject, Work};
use crate::routing::TrunkStatus;
use arc_swap::ArcSwap;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::carrier::{Trunk, TrunkDown, TrunkState};
use schema::id::TrunkId;
use schema::target::TrunkGateway;
use schema::time::Mono;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// A silent trunk is half-open: in so long a call may find out whether it is there, when no other trunk takes it. There are carriers
/// that take calls and answer no OPTIONS.
const HALF_OPEN_EVERY: Duration = Duration::from_secs(30);
/// So many attempts are made in that time: as many as one call may make of a name that leads to several targets.
const HALF_OPEN_ATTEMPTS: u32 = 4;

/// A limit of events per second: a bucket that refills evenly and holds one second's worth.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: u32,
    /// In millionths of a token.
    tokens: u64,
    at: Mono,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, at: Mono) -> Self {
        Self { per_second, tokens: u64::from(per_second) * 1_000_000, at }
    }

    fn refill(&mut self, at: Mono) {
        let passed = u64::try_from(at.since(self.at).as_micros()).unwrap_or(u64::MAX).min(1_000_000);
        let full = u64::from(self.per_second) * 1_000_000;
        self.tokens = (self.tokens + passed * u64::from(self.per_second)).min(full);
        self.at = self.at.max(at);
    }

    /// Whether one would be let through.
    pub(crate) fn allows(&mut self, at: Mono) -> bool {
        self.refill(at);
        self.tokens >= 1_000_000
    }

    /// Lets one through, or not.
    pub(crate) fn take(&mut self, at: Mono) -> bool {
        let allowed = self.allows(at);
        if allowed {
            self.tokens -= 1_000_000;
        }
        allowed
    }
}

/// The figures of a trunk.
pub(crate) struct Gauge {
    gateway: TrunkGateway,
    /// Of all gauges of the trunk with this gateway: what is told while they are replaced is not lost.
    state: Arc<ArcSwap<TrunkState>>,
    /// Of all gauges of the trunk: calls that began under other limits count.
    channels: Arc<AtomicU32>,
    max_channels: u32,
    rate: Mutex<TokenBucket>,
    half_open: Mutex<HalfOpen>,
}

/// Attempts that may find out whether a silent trunk is there.
#[derive(Default)]
struct HalfOpen {
    /// When the first of the newest ones was made.
    since: Option<Mono>,
    attempts: u32,
}

impl HalfOpen {
    fn is_over(&self, at: Mono) -> bool {
        self.since.is_none_or(|since| at.since(since) >= HALF_OPEN_EVERY)
    }

    fn allows(&self, at: Mono) -> bool {
        self.attempts < HALF_OPEN_ATTEMPTS || self.is_over(at)
    }

    fn take(&mut self, at: Mono) -> bool {
        if self.is_over(at) {
            *self = Self { since: Some(at), attempts: 0 };
        }
        let allowed = self.allows(at);
        self.attempts += u32::from(allowed);
        allowed
    }
}

/// A channel of a trunk in use; dropping it gives it back.
pub(crate) struct Channel(Arc<Gauge>);

impl Drop for Channel {
    fn drop(&mut self) {
        self.0.channels.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gauge {
    fn new(trunk: &Trunk, channels: Arc<AtomicU32>, registers: bool, at: Mono) -> Self {
        Self {
            gateway: trunk.gateway.clone(),
            state: Arc::new(ArcSwap::from_pointee(TrunkState::first(&trunk.gateway, registers))),
            channels,
            max_channels: trunk.max_channels,
            rate: Mutex::new(TokenBucket::new(trunk.max_cps, at)),
            half_open: Mutex::default(),
        }
    }

    fn status(&self, at: Mono) -> TrunkStatus {
        TrunkStatus {
            state: TrunkState::clone(&self.state.load()),
            half_open: self.is_silent() && self.half_open().allows(at),
            free_channels: self.max_channels.saturating_sub(self.channels.load(Ordering::Acquire)),
            rate_allows: self.rate.lock().unwrap_or_else(PoisonError::into_inner).allows(at),
        }
    }

    fn is_silent(&self) -> bool {
        self.state.load().down == Some(TrunkDown::Silent)
    }

    fn half_open(&self) -> MutexGuard<'_, HalfOpen> {
        self.half_open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call may go there as far as is known.
    fn lets_in(&self, at: Mono) -> bool {
        !self.is_silent() || self.half_open().take(at)
    }

    /// Takes a channel within both limits.
    fn take(self: &Arc<Self>, at: Mono) -> Option<Channel> {
        let one_more = |used: u32| (used < self.max_channels).then_some(used + 1);
        self.channels.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        let channel = Channel(self.clone());
        let rate_allows = self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(at);
        (rate_allows && self.lets_in(at)).then_some(channel)
    }
}

/// The gauges of all trunks.
#[derive(Default)]
pub(crate) struct Trunks {
    gauges: ArcSwap<BTreeMap<TrunkId, Arc<Gauge>>>,
    /// Channels in use of each trunk that is known or still carries calls.
    channels: Mutex<BTreeMap<TrunkId, Arc<AtomicU32>>>,
    /// Woken when a trunk's state changes.
    changed: Notify,
}

impl Trunks {
    /// Replaces the trunks. Those that stay keep their calls and state. A new one is used until a probe says otherwise; one that
    /// registers, from when it has.
    pub(crate) fn replace(&self, trunks: &[Trunk], registers: impl Fn(TrunkId) -> bool, at: Mono) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.gauges.load();
        let gauge = |trunk: &Trunk| {
            let in_use = channels.entry(trunk.id).or_default().clone();
            let mut new = Gauge::new(trunk, in_use, registers(trunk.id), at);
            if let Some(old) = old.get(&trunk.id).filter(|old| old.gateway == trunk.gateway) {
                if old.max_channels == new.max_channels && old.rate_per_second() == trunk.max_cps {
                    return (trunk.id, old.clone());
                }
                new.state = old.state.clone();
            }
            (trunk.id, Arc::new(new))
        };
        let new: BTreeMap<_, _> = trunks.iter().map(gauge).collect();
        channels.retain(|trunk, in_use| new.contains_key(trunk) || in_use.load(Ordering::Acquire) > 0);
        self.gauges.store(Arc::new(new));
    }

    pub(crate) fn status(&self, at: Mono) -> BTreeMap<TrunkId, TrunkStatus> {
        self.gauges.load().iter().map(|(id, gauge)| (*id, gauge.status(at))).collect()
    }

    pub(crate) fn take(&self, trunk: TrunkId, at: Mono) -> Option<Channel> {
        self.gauges.load().get(&trunk)?.take(at)
    }

    /// For a call that is up already: counted, whatever the limits say.
    pub(crate) fn take_anyway(&self, trunk: TrunkId) -> Option<Channel> {
        let gauge = self.gauges.load().get(&trunk)?.clone();
        gauge.channels.fetch_add(1, Ordering::AcqRel);
        Some(Channel(gauge))
    }

    /// What a probe has shown.
    pub(crate) fn set_state(&self, trunk: TrunkId, state: TrunkState) {
        let gauges = self.gauges.load();
        let Some(gauge) = gauges.get(&trunk) else { return };
        let down = state.down;
        let before = gauge.state.swap(Arc::new(state));
        if before.down != down {
            tracing::info!(%trunk, up = down.is_none(), reason = down.map(TrunkDown::as_str), "trunk changed");
        }
        self.changed.notify_waiters();
    }

    /// Returns when some trunk is up, or none is being looked up or registered for the first time, at the latest after `limit`.
    /// A call that comes right after the start is not refused because DNS or a registrar has not answered yet.
    pub(crate) async fn searched(&self, limit: Duration) {
        let settled = async {
            loop {
                let changed = self.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if !self.is_searching() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(limit, settled).await;
    }

    fn is_searching(&self) -> bool {
        let gauges = self.gauges.load();
        let mut states = gauges.values().map(|gauge| gauge.state.load().down);
        states.clone().all(|down| down.is_some())
            && states.any(|down| matches!(down, Some(TrunkDown::Searching | TrunkDown::Unregistered)))
    }

    /// Calls on a trunk, and why no more can be sent there.
    pub(crate) fn in_use(&self, trunk: TrunkId) -> Option<(u32, Option<TrunkDown>)> {
        let gauges = self.gauges.load();
        let gauge = gauges.get(&trunk)?;
        Some((gauge.channels.load(Ordering::Acquire), gauge.state.load().down))
    }
}

impl Gauge {
    fn rate_per_second(&self) -> u32 {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).per_second
    }
}

/// One carrier gateway's actor. Nothing is lost with it: its figures stand outside.
pub(crate) struct TrunkActor {
    pub(crate) trunk: TrunkId,
    pub(crate) ctx: Weak<Context>,
}

/// What a trunk's actor is told.
pub(crate) enum TrunkMsg {
    /// The trunk can be used, or not any more. Sent by the SIP edge; answered by nothing.
    Probed(TrunkState),
    /// Panic. Sent by tests only.
    #[cfg(any(test, feature = "faults"))]
    Panic,
}

impl Actor for TrunkActor {
    type Msg = TrunkMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<TrunkMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<TrunkMsg>, message: TrunkMsg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let Some(ctx) = self.ctx.upgrade() else { return Ok(()) };
        let work = match &message {
            TrunkMsg::Probed(TrunkState { down, .. }) => {
                Some(Work { kind: if down.is_none() { "up" } else { "down" }, about: About::Whole })
            }
            #[cfg(any(test, feature = "faults"))]
            TrunkMsg::Panic => None,
        };
        let handling = Handling::begin(&ctx, Whose::Trunk(self.trunk), work);
        if handling.is_set_aside() {
            return Ok(());
        }
        ctx.strike(Subject::Trunk(self.trunk), work.map_or("", |work| work.kind), FaultPoint::Received);
        match message {
            TrunkMsg::Probed(state) => ctx.trunks.set_state(self.trunk, state),
            #[cfg(any(test, feature = "faults"))]
            TrunkMsg::Panic => panic!("a fault was injected into a trunk"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::trunk;

    #[test]
    fn a_trunk_takes_no_more_calls_than_it_has_channels() {
        let (trunks, trunk) = (Trunks::default(), Trunk { max_channels: 2, max_cps: 100, ..trunk(1, 1) });
        trunks.replace(std::slice::from_ref(&trunk), |_| false, Mono(0));
        let first = trunks.take(trunk.id, Mono(0));
        let second = trunks.take(trunk.id, Mono(0));
        assert!(first.is_some() && second.is_some());
        assert!(trunks.take(trunk.id, Mono(0)).is_none());
        assert_eq!(trunks.status(Mono(0))[&trunk.id].free_channels, 0);
        drop(first);
        assert!(trunks.take(trunk.id, Mono(0)).is_some());
    }

    #[test]
    fn calls_that_are_up_count_whatever_the_limits_become() {
        let trunks = Trunks::default();
        let of = |max_channels| Trunk { max_channels, max_cps: 1_000, ..trunk(1, 1) };
        let id = of(1).id;
        let replace = |all: &[Trunk]| trunks.replace(all, |_| false, Mono(0));
        let used = || trunks.in_use(id).map(|(used, _)| used);
        replace(&[of(50)]);
        let mut up: Vec<_> = (0..50).filter_map(|_| trunks.take(id, Mono(0))).collect();
        replace(&[of(52)]);
        assert_eq!(used(), Some(50));
        up.extend((0..50).filter_map(|_| trunks.take(id, Mono(0))));
        assert_eq!((up.len(), used()), (52, Some(52)), "two more, as the new limit says");
        let elsewhere = Trunk { gateway: "sip.example.com".parse().expect("a name"), ..of(10) };
        replace(&[elsewhere]);
        assert_eq!((used(), trunks.status(Mono(0))[&id].free_channels), (Some(52), 0), "another gateway of the trunk");
        // Taken away and configured again while its calls are up.
        replace(&[]);
        up.truncate(9);
        replace(&[of(10)]);
        assert_eq!(used(), Some(9));
        up.extend((0..50).filter_map(|_| trunks.take(id, Mono(0))));
        assert_eq!((up.len(), used()), (10, Some(10)));
        drop(up);
        assert_eq!(used(), Some(0));
        replace(&[]);
        assert!(trunks.channels.lock().expect("no panic").is_empty(), "nothing is kept of a trunk that is gone");
    }

    #[test]
    fn a_trunk_takes_no_more_calls_a_second_than_allowed() {
        let (trunks, trunk) = (Trunks::default(), Trunk { max_channels: 100, max_cps: 3, ..trunk(1, 1) });
        trunks.replace(std::slice::from_ref(&trunk), |_| false, Mono(0));
        let taken = |at| (0..10).filter_map(|_| trunks.take(trunk.id, Mono(at))).count();
        assert_eq!((taken(0), taken(0), taken(1_000_000), taken(1_400_000)), (3, 0, 3, 1));
        assert_eq!(trunks.in_use(trunk.id), Some((0, None)), "a refused call gives its channel back");
    }

    #[test]
    fn a_silent_trunk_lets_the_attempts_of_one_call_in_every_half_minute() {
        let (trunks, trunk) = (Trunks::default(), trunk(1, 1));
        trunks.replace(std::slice::from_ref(&trunk), |_| false, Mono(0));
        let second = |s: u64| Mono(s * 1_000_000);
        let half_open = |s| trunks.status(second(s))[&trunk.id].half_open;
        let takes = |s| trunks.take(trunk.id, second(s)).is_some();
        assert!(!half_open(1), "it is up");
        trunks.set_state(trunk.id, TrunkState::down(TrunkDown::Silent));
        assert!(half_open(2) && takes(2));
        assert!(half_open(3) && takes(3) && takes(4) && takes(5), "the other targets of its name");
        assert!(!half_open(31) && !takes(31));
        assert!(half_open(32) && takes(32) && half_open(33));
        trunks.set_state(trunk.id, TrunkState::UP);
        assert!(takes(33) && takes(33));
        trunks.set_state(trunk.id, TrunkState::down(TrunkDown::Untrusted));
        assert!(!half_open(100), "a call would find out nothing");
    }

    #[test]
    fn a_trunk_that_registers_is_used_from_when_it_has() {
        let (trunks, trunk) = (Trunks::default(), trunk(1, 1));
        let replace = |registers| trunks.replace(std::slice::from_ref(&trunk), |_| registers, Mono(0));
        let down = || trunks.status(Mono(0))[&trunk.id].state.down;
        replace(true);
        assert_eq!(down(), Some(TrunkDown::Unregistered));
        trunks.set_state(trunk.id, TrunkState::UP);
        replace(true);
        assert_eq!(down(), None, "the trunks were read again");
        let before = trunks.gauges.load_full();
        trunks.replace(&[Trunk { max_channels: 7, ..trunk.clone() }], |_| true, Mono(0));
        // Told to who still has those from before.
        before[&trunk.id].state.store(Arc::new(TrunkState::down(TrunkDown::CredentialsRefused)));
        assert_eq!(trunks.in_use(trunk.id), Some((0, Some(TrunkDown::CredentialsRefused))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_the_first_look_up_or_registration_when_no_other_trunk_is_up() {
        let limit = Duration::from_secs(2);
        let named = |id| Trunk { gateway: "sip.example.com".parse().expect("a name"), ..trunk(id, 1) };
        let waited = |trunks: Arc<Trunks>| async move {
            let since = tokio::time::Instant::now();
            trunks.searched(limit).await;
            since.elapsed()
        };
        let trunks = Arc::new(Trunks::default());
        trunks.replace(&[named(1)], |_| false, Mono(0));
        assert_eq!(waited(trunks.clone()).await, limit, "DNS does not answer");
        let waiting = tokio::spawn(waited(trunks.clone()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        trunks.set_state(named(1).id, TrunkState::down(TrunkDown::NoSuchName));
        assert_eq!(waiting.await.ok(), Some(Duration::from_millis(500)), "there is nothing more to wait for");
        trunks.replace(&[named(2), trunk(1, 1)], |_| false, Mono(0));
        assert_eq!(waited(trunks.clone()).await, Duration::ZERO, "another carrier can take it");
        trunks.replace(&[trunk(3, 1)], |_| true, Mono(0));
        assert_eq!(waited(trunks).await, limit, "the registrar does not answer");
    }
}
