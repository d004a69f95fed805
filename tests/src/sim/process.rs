//! One life of the server within a world: the real actors, journal and SIP core on a runtime of their own with paused time.
//! It ends when the plan does, or as a crash: then nothing of it remains but the disk.

use super::checker::reliably;
use super::needless::Whom;
use super::plan::{Act, Crash, LAST_CALL, Limits};
use super::sessions::Peer;
use super::tap::Notable;
use super::world::{Arrival, DOMAIN, carrier, server};
use super::{Simulation, history};
use actors::faults::{Fault, FaultPoint};
use actors::poison::Subject;
use actors::{Actors, ActorsConfig, Credit, CreditError, EventItem};
use futures_util::StreamExt;
use schema::call::CallState;
use schema::edge::EdgeCommand;
use schema::event::EventCursor;
use schema::id::{AccountKey, CallId, Seq};
use schema::ledger::{IdempotencyKey, LedgerKind};
use schema::leg::{LegCommand, LegEvent, LegEventAt, LegId};
use schema::money::Micros;
use schema::time::{Clock, Mono, Now};
use sip::core::{Advertised, Core, CoreConfig, Counts, Input, Output};
use sip::demo::phone::PhoneCall;
use sip::digest::Algorithm;
use sip::flow::{ConnectionId, Destination, Flow, Protocol, Unreached};
use sip::guard::GuardLimits;
use sip::message::{Frame, Framer, Message};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::memory::MemFaults;
use storage::{Journal, MemDisk, Store};
use tokio::sync::mpsc;

/// Most commands that wait for the SIP core.
const COMMANDS: usize = 1_024;
/// A process that is told to end has so much time.
const DRAIN: Duration = Duration::from_secs(5);
/// Times the other tasks run between two datagrams at most.
const YIELDS: u64 = 4;
/// All calls of the process before are taken up within this time, whatever reads fail (A3).
const RECOVERED: Duration = Duration::from_secs(30);
/// A probe or a refreshed registration may be under way at the end: it is waited for no longer.
const SETTLE: Duration = Duration::from_secs(90);

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The plan is done.
    Over,
    /// It died.
    Crashed(Crash),
    /// It was told to end, and did.
    Drained,
}

/// What tasks beside the main one tell, each with what was stored in the moment in which they heard it: later it may be more (A2).
pub(super) enum Heard {
    /// A subscriber was told; the account's newest entry.
    Event(AccountKey, EventItem, Option<Seq>),
    /// A top-up was answered; what was posted under its key.
    Credited(AccountKey, String, Result<Micros, CreditError>, Option<Micros>),
    /// A hang-up was answered; whether the call was in the history.
    HungUp(CallId, Result<CallState, String>, bool),
}

/// What was heard and not looked at yet.
pub(super) type Log = Arc<Mutex<Vec<Heard>>>;

fn tell(log: &Log, heard: Heard) {
    log.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
}

struct Life<'a> {
    sim: &'a mut Simulation,
    actors: Actors,
    core: Core,
    legs: mpsc::Receiver<LegCommand>,
    edge: mpsc::Receiver<EdgeCommand>,
    clock: Clock,
    /// The server's monotonic clock at the world's moment 0 lies so far back.
    boot_at: Mono,
    up_since: Mono,
    crash: Option<Dying>,
    /// What was received of each connection.
    framers: BTreeMap<ConnectionId, Framer>,
    /// All calls of the process before are taken up.
    recovered: Arc<AtomicBool>,
    recovered_at: Option<Mono>,
    /// Messages may be set aside.
    is_poisoned: bool,
    /// It was told to end; whether it has written what it had to.
    draining: Option<Arc<AtomicBool>>,
}

/// A crash that is near.
struct Dying {
    crash: Crash,
    left: u64,
    latest: Mono,
}

/// Lives until the plan's end or a crash.
pub(super) async fn live(sim: &mut Simulation) -> End {
    let mut life = Life::begin(sim).await;
    loop {
        let now = life.now();
        life.sim.now = now;
        for arrival in life.sim.world.advance(now) {
            life.receive(arrival).await;
            if life.dies() {
                return life.die().await;
            }
        }
        if life.core.next_timeout().is_some_and(|at| at <= life.server_now().mono) {
            life.input(Input::Timeout, None).await;
        }
        while let Some(act) = life.sim.due(now) {
            life.act(act);
        }
        life.look().await;
        if life.dies() {
            return life.die().await;
        }
        if life.draining.as_ref().is_some_and(|done| done.load(Ordering::Acquire)) {
            // What was decided since it flushed is not acknowledged, and lost.
            life.look().await;
            life.count_refused();
            return End::Drained;
        }
        if now >= life.sim.end && (life.is_at_rest() || now >= life.sim.end + SETTLE) {
            life.check_the_end().await;
            life.count_refused();
            return End::Over;
        }
        life.wait().await;
    }
}

fn core_config(limits: Limits) -> CoreConfig {
    let host: Box<str> = server().ip().to_string().into();
    CoreConfig {
        domain: DOMAIN.into(),
        other_hosts: Vec::new(),
        digest: vec![Algorithm::Sha256, Algorithm::Md5],
        udp: Some(Advertised { host: host.clone(), port: server().port() }),
        tcp: Some(Advertised { host, port: server().port() }),
        tls: None,
        v6: Default::default(),
        sdp_address: server().ip(),
        plain_customers: true,
        dialog_probe: Duration::from_secs(30),
        legs_max: limits.legs,
        calls_per_second: limits.calls_per_second,
        bounds_waiting: true,
        transactions_max: 10_000,
        lookups_max: 100,
        guard: GuardLimits::default(),
    }
}

impl<'a> Life<'a> {
    async fn begin(sim: &'a mut Simulation) -> Self {
        let (up_since, (boot, boot_at)) = (sim.now, sim.boot);
        let (begun, wall) = (tokio::time::Instant::now(), sim.checker.wall.clone());
        let clock: Clock = Arc::new(move || {
            let world = up_since + begun.elapsed();
            Now { mono: Mono(world.0 - boot_at.0), wall: wall.at(world) }
        });
        let store = Store::memory(&sim.disk);
        let journal = Journal::start(&store, sim.journal);
        let ((legs_in, legs), (edge_in, edge)) = (mpsc::channel(COMMANDS), mpsc::channel(COMMANDS));
        let config = ActorsConfig { boot, passivate_after: Duration::from_secs(61), ..sim.actors.clone() };
        let entropy = sim.entropy.fork();
        let actors = Actors::start(config, store, journal, clock.clone(), entropy, legs_in, edge_in);
        let actors = actors.await.expect("a disk without faults can be started from");
        let faults = sim.disk.faults();
        sim.disk.set_faults(MemFaults { failing_calls: sim.failing_reads, ..faults });
        let core = Core::new(core_config(sim.limits), sim.entropy.fork()).expect("a realm").recovering();
        sim.world.trace.note(up_since, "the server starts");
        sim.world.server_is_up = true;
        let recovered = Arc::new(AtomicBool::new(false));
        tokio::spawn({
            let (actors, recovered) = (actors.clone(), recovered.clone());
            async move {
                actors.recovered().await;
                recovered.store(true, Ordering::Release);
            }
        });
        for account in &sim.accounts {
            let after = sim.checker.told.get(account).and_then(|told| told.last()).map(|event| event.cursor);
            let (log, disk) = (sim.log.clone(), sim.disk.clone());
            tokio::spawn(subscribe(actors.clone(), *account, after.unwrap_or_default(), log, disk));
        }
        Self {
            sim,
            actors,
            core,
            legs,
            edge,
            clock,
            boot_at,
            up_since,
            crash: None,
            framers: BTreeMap::new(),
            recovered,
            recovered_at: None,
            is_poisoned: false,
            draining: None,
        }
    }

    fn server_now(&self) -> Now {
        (self.clock)()
    }

    fn now(&self) -> Mono {
        Mono(self.server_now().mono.0 + self.boot_at.0)
    }

    async fn receive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Datagram { from, bytes } => {
                self.sim.world.trace.bytes(self.now(), &bytes, || format!("in  {from} {}", first_line(&bytes)));
                match Message::parse_datagram(&bytes) {
                    Ok(message) if self.core.turn_away(from, &bytes, self.server_now()) => {
                        self.sim.world.tally.add("datagrams turned away at first sight");
                        self.note_received(Flow::udp(from), &message);
                        self.output(None).await;
                    }
                    Ok(message) => self.message(Flow::udp(from), message).await,
                    Err(_) => self.unreadable(&bytes),
                }
            }
            Arrival::Bytes { connection, peer, bytes } => self.bytes(connection, peer, &bytes).await,
            Arrival::Closed { connection, peer } => {
                self.framers.remove(&connection);
                let now = self.now();
                self.sim.checker.tap.closed(now, peer, carrier_at(peer));
                self.sim.checker.ringing.closed(peer);
                self.sim.checker.admission.closed(peer);
                self.sim.checker.sessions.closed(peer);
                let flow = over(connection, peer);
                let ended = match carrier_at(peer) {
                    Some(_) => Input::Disconnected(flow, Destination::new(Protocol::Tcp, peer)),
                    None => Input::FlowClosed(flow),
                };
                self.input(ended, None).await;
            }
            Arrival::Unreachable { peer } => {
                self.sim.checker.ringing.closed(peer);
                // A BYE to it is given up.
                self.sim.checker.legs_left_behind |= self.sim.checker.tap.ends_under_way(self.sim.now);
                let to = Destination::new(Protocol::Tcp, peer);
                self.input(Input::Unreachable(to, Unreached::NoConnection), None).await;
            }
        }
        // The actors may be at any point when the next datagram comes.
        for _ in 0..self.sim.schedule.below(YIELDS) {
            tokio::task::yield_now().await;
            self.commands().await;
        }
    }

    fn unreadable(&mut self, bytes: &[u8]) {
        self.sim.checker.broken(format!("a message to the server cannot be read: {}", first_line(bytes)));
    }

    async fn bytes(&mut self, connection: ConnectionId, peer: std::net::SocketAddr, bytes: &[u8]) {
        self.sim.world.trace.bytes(self.now(), bytes, || format!("in  {peer} TCP {}", first_line(bytes)));
        self.framers.entry(connection).or_default().push(bytes);
        loop {
            let frame = self.framers.get_mut(&connection).map(Framer::next_frame);
            match frame {
                Some(Ok(Some(Frame::Message(message)))) => {
                    self.message(over(connection, peer), message).await;
                }
                Some(Ok(None)) | None => return,
                Some(Ok(Some(_)) | Err(_)) => return self.unreadable(bytes),
            }
        }
    }

    async fn message(&mut self, flow: Flow, message: Message) {
        self.note_received(flow, &message);
        let message = message.with_source(flow.peer);
        self.input(Input::Message(flow, message), None).await;
    }

    fn note_received(&mut self, flow: Flow, message: &Message) {
        let (now, from) = (self.now(), flow.peer);
        let peer = peer(from, flow.connection.is_some());
        let from_carrier = peer.carrier.is_some();
        let Simulation { checker, world, .. } = &mut *self.sim;
        checker.tap.received(now, peer, message);
        checker.ringing.received(now, from_carrier, message, &mut world.tally);
        checker.admission.received(now, from, from_carrier, message);
        checker.sessions.received(now, peer, message, &mut world.tally);
    }

    async fn commands(&mut self) {
        while !self.dies()
            && let Ok(command) = self.legs.try_recv()
        {
            self.command(command).await;
        }
        while !self.dies()
            && let Ok(command) = self.edge.try_recv()
        {
            self.input(Input::Edge(command), None).await;
        }
    }

    async fn command(&mut self, command: LegCommand) {
        let call = call_of(&command);
        if matches!(command, LegCommand::HangUp { leg, .. } if leg == LegId::a(call)) {
            self.sim.checker.tap.hangs_up(self.sim.now, call);
        }
        self.sim.world.trace.line(self.sim.now, || format!("      {}", name_of(&command)));
        self.input(Input::Leg(command), Some(call)).await;
    }

    /// `call`: on whose behalf.
    async fn input(&mut self, input: Input, call: Option<CallId>) {
        if matches!(input, Input::Edge(EdgeCommand::Recovered)) {
            let now = self.now();
            self.sim.checker.admission.recovered(now);
        }
        if let Some(dying) = &mut self.crash {
            dying.left = dying.left.saturating_sub(1);
        }
        self.core.handle(input, self.server_now());
        self.output(call).await;
    }

    async fn output(&mut self, call: Option<CallId>) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(Flow { peer, connection, .. }, bytes) => {
                    self.sends(peer, connection.is_some(), &bytes, call).await;
                    match connection {
                        Some(connection) => self.sim.world.send_on(self.now(), connection, bytes),
                        None => self.sim.world.send(self.now(), peer, bytes),
                    }
                }
                Output::SendTo(Destination { protocol, address, .. }, bytes) => {
                    self.sends(address, protocol.is_reliable(), &bytes, call).await;
                    match protocol {
                        Protocol::Udp => self.sim.world.send(self.now(), address, bytes),
                        _ => self.sim.world.send_to(self.now(), address, bytes),
                    }
                }
                Output::Trust(_) => {}
                Output::Leg(told) => self.on_leg(told),
                Output::Edge(event) => self.actors.on_edge_event(event),
            }
        }
    }

    async fn sends(&mut self, to: std::net::SocketAddr, over_tcp: bool, bytes: &bytes::Bytes, call: Option<CallId>) {
        let now = self.now();
        self.sim.world.trace.bytes(now, bytes, || format!("out {to} {}", first_line(bytes)));
        match Message::parse_datagram(bytes) {
            Ok(message) => {
                self.note_sent(to, over_tcp, &message, bytes);
                if let Some(notable) = self.sim.checker.tap.sent(now, carrier_at(to), &message, call, over_tcp) {
                    self.notable(notable).await;
                }
            }
            Err(_) => self.sim.checker.broken(format!("the server sends what cannot be read: {}", first_line(bytes))),
        }
    }

    fn note_sent(&mut self, to: std::net::SocketAddr, over_tcp: bool, message: &Message, bytes: &bytes::Bytes) {
        let (now, peer) = (self.now(), peer(to, over_tcp));
        let to_carrier = peer.carrier.is_some();
        let Simulation { checker, world, .. } = &mut *self.sim;
        let rings = checker.ringing.sent(now, to, to_carrier, message, bytes, &mut world.tally);
        let served = checker.admission.sent(now, message, &mut world.tally);
        let session = checker.sessions.sent(now, peer, message, bytes.len(), &mut world.tally);
        [rings, served, session].into_iter().filter_map(Result::err).for_each(|what| checker.broken(what));
    }

    async fn notable(&mut self, notable: Notable) {
        self.sim.checker.leaves(notable, &self.sim.disk, self.sim.now, self.up_since).await;
    }

    fn on_leg(&mut self, told: LegEventAt) {
        if let LegEvent::Invited(invited) = &told.event {
            self.sim.checker.needless.began(self.sim.now, invited.leg.call);
            self.sim.checker.invited(invited.leg.call, invited.dialled.expose(), invited.checkpoint.state.expose());
        }
        let (now, leg) = (self.sim.now, told.event.leg());
        if let LegEvent::Confirmed { .. } = told.event {
            self.sim.checker.admission.confirmed(now, &mut self.sim.world.tally);
        }
        self.sim.world.trace.line(now, || format!("      {} {:?}{}", event_name(&told.event), leg.side, leg.attempt));
        self.actors.on_leg_event(told);
    }

    fn act(&mut self, act: Act) {
        let now = self.sim.now;
        self.sim.world.trace.note(now, &format!("act {act:?}"));
        self.sim.checker.disturbed |= act.disturbs();
        self.sim.note_trouble(&act);
        let disk = &self.sim.disk;
        let mut faults = disk.faults();
        match act {
            Act::Request { account, pick } => self.request(account, Some(pick)),
            Act::TopUp { account, amount, key } => self.top_up(account, amount, key),
            Act::PanicAccount { account, point } => {
                self.is_poisoned = true;
                self.actors.arm(Subject::Account(self.sim.accounts[account]), at_next(point));
            }
            Act::Poison { account, kind, point } => {
                self.is_poisoned = true;
                let fault = Fault { point, kind: Some(kind), times: 3 };
                self.actors.arm(Subject::Account(self.sim.accounts[account]), fault);
            }
            Act::Disarm => self.actors.disarm(),
            Act::PanicCall { account, pick, point } => self.panic_call(account, pick, point),
            Act::PanicTrunk(trunk) => self.actors.panic_trunk(self.sim.trunks[trunk]),
            Act::PanicSupervisor { account } => self.actors.panic_supervisor_of(self.sim.accounts[account]),
            Act::Stall(time) => {
                self.sim.world.tally.add("journal stalled");
                faults.next_stall += time;
                disk.set_faults(faults);
            }
            Act::FailBatches(count) => {
                self.sim.world.tally.add("batches failed");
                faults.failing_batches += count;
                disk.set_faults(faults);
            }
            Act::Drain => self.drain(),
            Act::FailReads(count) => {
                self.sim.world.tally.add("reads failed");
                faults.failing_calls += count;
                self.sim.checker.reads_failed = true;
                disk.set_faults(faults);
            }
            Act::Crash(crash) if self.crash.is_none() => {
                faults.halt = crash.halt;
                disk.set_faults(faults);
                self.crash = Some(Dying { crash, left: crash.after, latest: now + crash.within });
            }
            Act::Crash(_) => {}
            Act::HangUpAll => (0..self.sim.accounts.len()).for_each(|account| self.request(account, None)),
            other => self.sim.act_outside(other),
        }
    }

    /// As SIGTERM does.
    fn drain(&mut self) {
        if self.draining.is_some() {
            return;
        }
        let done = Arc::new(AtomicBool::new(false));
        self.draining = Some(done.clone());
        let actors = self.actors.clone();
        tokio::spawn(async move {
            actors.drain(DRAIN).await;
            done.store(true, Ordering::Release);
        });
    }

    /// Hangs up one live call of an account as the dashboard would, or all of them.
    fn request(&self, account: usize, pick: Option<u64>) {
        let (actors, account, log) = (self.actors.clone(), self.sim.accounts[account], self.sim.log.clone());
        let disk = self.sim.disk.clone();
        let spawned = async move {
            let Ok(view) = actors.view(account).await else { return };
            let calls: Vec<_> = view.live_calls.iter().map(|call| call.id).collect();
            let picked = pick.and_then(|pick| pick.checked_rem(calls.len() as u64));
            let wanted = |at: usize| pick.is_none() || picked == Some(at as u64);
            for (_, call) in calls.iter().enumerate().filter(|(at, _)| wanted(*at)) {
                let ended = actors.hang_up(account, *call).await;
                let stored = reliably(&disk, async |store| store.call(*call).await).await.is_some();
                let ended = ended.map(|call| call.state).map_err(|error| error.to_string());
                tell(&log, Heard::HungUp(*call, ended, stored));
            }
        };
        tokio::spawn(spawned);
    }

    fn top_up(&mut self, account: usize, amount: Micros, key: String) {
        let (actors, account, log) = (self.actors.clone(), self.sim.accounts[account], self.sim.log.clone());
        let disk = self.sim.disk.clone();
        self.sim.checker.asks_for(account, &key, amount);
        let reason = "top-up".to_owned();
        let request = actors::credit_request_hash(LedgerKind::TopUp, amount, &reason);
        let keyed = IdempotencyKey { key: key.clone(), request };
        let credit = Credit { kind: LedgerKind::TopUp, amount, key: keyed, reason };
        tokio::spawn(async move {
            let posted = actors.credit(account, credit).await;
            let stored = reliably(&disk, async |store| store.transfer_by_key(account, &key).await).await;
            let stored = stored.map(|stored| stored.transfer.amount);
            tell(&log, Heard::Credited(account, key, posted.map(|posted| posted.amount), stored));
        });
    }

    fn panic_call(&mut self, account: usize, pick: u64, point: FaultPoint) {
        let account = self.sim.accounts[account];
        let known = &self.sim.checker.known;
        let live: Vec<_> = self.sim.checker.live.iter().filter(|call| known[call].account == account).collect();
        let picked = pick.checked_rem(live.len() as u64).and_then(|at| usize::try_from(at).ok());
        if let Some(call) = picked.and_then(|at| live.get(at)).map(|call| **call) {
            self.actors.arm(Subject::Call(call), at_next(point));
            self.sim.checker.needless.arm(Whom::Call(call));
            self.sim.checker.panicked.insert(call);
        }
    }

    /// Looks at everything that has happened until now.
    async fn look(&mut self) {
        let Simulation { checker, disk, world, log, now, .. } = &mut *self.sim;
        let faults = disk.faults();
        if faults.next_stall > Duration::ZERO || faults.failing_batches + faults.failing_calls > 0 {
            checker.needless.disk(*now, faults.next_stall);
        }
        checker.needless.panicked(*now, super::panics());
        if self.is_poisoned {
            let may_be_kept = faults.failing_batches == 0;
            self.actors
                .set_aside()
                .iter()
                .for_each(|aside| checker.is_set_aside(*now, aside, may_be_kept, &mut world.tally));
        }
        let recovered = self.recovered.load(Ordering::Acquire);
        if recovered && self.recovered_at.is_none() {
            self.recovered_at = Some(*now);
            if self.crash.is_none() && self.draining.is_none() {
                checker.needless.recovered(*now);
            }
            checker.audit(disk).await;
        }
        let latest = self.up_since + RECOVERED;
        let began = self.recovered_at.unwrap_or(*now).min(latest);
        if self.recovered_at.is_none() && *now > latest {
            checker.broken("A3: recovery has not ended".to_owned());
        }
        let actors = &self.actors;
        let has_actor = |call| actors.is_live(call) || actors.is_being_settled(call);
        let has_actor = recovered.then_some(&has_actor as &dyn Fn(CallId) -> bool);
        checker.look(*now, began, disk, &mut world.trace, has_actor).await;
        let heard = std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
        for heard in heard {
            match heard {
                Heard::Event(account, EventItem::Event(event), stored) => {
                    let EventCursor { seq, index } = event.cursor;
                    world.trace.note(*now, &format!("account {} tells {}.{index}", account.0, seq.0));
                    checker.told(account, event, stored);
                }
                Heard::Event(account, EventItem::SnapshotRequired(_), _) => {
                    world.trace.note(*now, &format!("account {} tells no events", account.0));
                    checker.not_told(account);
                }
                Heard::Credited(account, key, posted, stored) => {
                    world.trace.note(*now, &format!("account {} credited {key}: {posted:?}", account.0));
                    world.tally.add("top-ups");
                    checker.credited(account, key, posted, stored);
                }
                Heard::HungUp(call, ended, stored) => {
                    world.trace.note(*now, &format!("{call} hung up: {ended:?}"));
                    world.tally.add("hang-ups by request");
                    checker.hung_up(call, ended, stored);
                }
            }
        }
    }

    /// Waits until something happens: a command, or time.
    async fn wait(&mut self) {
        let server = self.server_now().mono;
        let core = self.core.next_timeout().map(|at| self.sim.now + at.since(server));
        let dying = self.crash.as_ref().map(|dying| dying.latest);
        let end = (self.sim.now < self.sim.end).then_some(self.sim.end);
        let moments = [self.sim.world.next(), core, self.sim.next_act(), dying, end];
        let next = moments.into_iter().flatten().min().unwrap_or(self.sim.now + Duration::from_secs(1));
        let wait = next.since(self.sim.now).min(Duration::from_secs(1));
        tokio::select! {
            biased;
            Some(command) = self.legs.recv() => {
                self.sim.now = self.now();
                // What was told in the moment of its death is not carried out.
                if !self.dies() {
                    self.command(command).await;
                }
            }
            Some(command) = self.edge.recv() => {
                self.sim.now = self.now();
                if !self.dies() {
                    self.input(Input::Edge(command), None).await;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
    }

    fn dies(&self) -> bool {
        let due = |dying: &Dying| dying.left == 0 || self.sim.now >= dying.latest || self.sim.disk.is_halted();
        self.crash.as_ref().is_some_and(due)
    }

    async fn die(mut self) -> End {
        // Whoever was told something was told it, even if the process dies now.
        self.look().await;
        self.count_refused();
        let halted =
            if self.sim.disk.is_halted() { self.crash.as_ref().and_then(|dying| dying.crash.halt) } else { None };
        self.sim.world.tally.add(match halted.map(|halt| halt.acknowledged) {
            None => "crashes between two steps",
            Some(false) => "crashes in a step of the journal",
            Some(true) => "crashes behind a step of the journal",
        });
        self.sim.world.tally.add_if("crashes with two batches in flight", self.sim.disk.in_flight() == 2);
        let crash = self.crash.as_ref().expect("it dies").crash;
        self.sim.world.trace.note(self.sim.now, &format!("the server dies: {crash:?}"));
        End::Crashed(crash)
    }

    /// What this process has refused, by reason.
    fn count_refused(&mut self) {
        let refused = self.core.figures().overload;
        for (what, count) in [
            ("calls refused: too many a second", refused.rate),
            ("calls refused: too many live", refused.live),
            ("calls refused: they wait too long", refused.delay),
        ] {
            self.sim.world.tally.add_many(what, count);
        }
    }

    fn is_at_rest(&self) -> bool {
        let counts = self.core.counts();
        counts == Counts { registrations: counts.registrations, ..Counts::default() }
    }

    async fn check_the_end(&mut self) {
        let (core, actors) = (self.core.counts(), self.actors.counts());
        let rest = self.is_at_rest();
        let channels: Vec<_> = self.sim.trunks.iter().filter_map(|trunk| self.actors.trunk(*trunk)).collect();
        let Simulation { checker, disk, accounts, world, .. } = &mut *self.sim;
        if !rest {
            checker.broken(format!("the SIP core is not empty: {core:?}"));
        }
        if actors.live_calls + actors.journal_depth > 0 {
            checker.broken(format!("the actors are not at rest: {actors:?}"));
        }
        if channels.iter().any(|(used, down)| *used > 0 || down.is_some()) || channels.len() != 2 {
            checker.broken(format!("channels of trunks in use, and whether they are up: {channels:?}"));
        }
        let (phones, carriers) = world.live_calls();
        // A BYE that was under way when the process died is not repeated, and one that nobody received is given up.
        if phones > 0 || (carriers > 0 && !checker.legs_left_behind) {
            checker.broken(format!("phones know {phones} calls, carriers {carriers}"));
        }
        let open = reliably(disk, async |store| store.open_holds().await).await;
        if open > 0 {
            checker.broken(format!("L3: {open} holds are open"));
        }
        checker.needless.gave_up = std::mem::take(&mut world.gave_up);
        history::check(checker, accounts, disk, &mut world.tally).await;
        let sentinel = accounts.len() - 1;
        for phone in 0..=sentinel {
            let call = if phone == sentinel { 0 } else { LAST_CALL };
            if !world.was_answered(phone, PhoneCall(call)) {
                checker.broken(format!("I10: a call of phone {phone} after all faults ended was not answered"));
            }
        }
    }
}

async fn subscribe(actors: Actors, account: AccountKey, after: EventCursor, log: Log, disk: MemDisk) {
    let mut events = Box::pin(actors.events(account, Some(after)));
    while let Some(item) = events.next().await {
        let stored = reliably(&disk, async |store| store.account(account).await).await;
        tell(&log, Heard::Event(account, item, stored.map(|stored| stored.figures.seq)));
    }
}

/// Once, at whatever comes next.
const fn at_next(point: FaultPoint) -> Fault {
    Fault { point, kind: None, times: 1 }
}

const fn over(connection: ConnectionId, peer: std::net::SocketAddr) -> Flow {
    Flow { protocol: Protocol::Tcp, peer, connection: Some(connection) }
}

fn peer(address: std::net::SocketAddr, over_tcp: bool) -> Peer {
    Peer { address, carrier: carrier_at(address), over_tcp }
}

/// Which carrier is there.
fn carrier_at(address: std::net::SocketAddr) -> Option<usize> {
    (0..2).find(|number| carrier(*number) == address)
}

fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let cseq = bytes.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"CSeq:")).unwrap_or_default();
    format!("{} | {}", String::from_utf8_lossy(line), String::from_utf8_lossy(cseq).trim_end())
}

fn call_of(command: &LegCommand) -> CallId {
    match command {
        LegCommand::Invite(invite) => invite.leg.call,
        LegCommand::Progress { leg, .. }
        | LegCommand::Accept { leg, .. }
        | LegCommand::Reject { leg, .. }
        | LegCommand::Confirm { leg, .. }
        | LegCommand::HangUp { leg, .. }
        | LegCommand::Resume { leg, .. }
        | LegCommand::Probe { leg }
        | LegCommand::Offer { leg, .. }
        | LegCommand::PressKey { leg, .. }
        | LegCommand::AnswerOffer { leg, .. } => leg.call,
        LegCommand::TakeBack(call) => call.leg.call,
        LegCommand::Settled { call } => *call,
    }
}

fn name_of(command: &LegCommand) -> String {
    match command {
        LegCommand::Invite(invite) => format!("invite B{}", invite.leg.attempt),
        LegCommand::Progress { status, .. } => format!("progress {status}"),
        LegCommand::Accept { .. } => "accept".to_owned(),
        LegCommand::Reject { status, .. } => format!("reject {status}"),
        LegCommand::Confirm { leg, .. } => format!("confirm B{}", leg.attempt),
        LegCommand::HangUp { leg, cause } => format!("hang up {:?}{} {cause:?}", leg.side, leg.attempt),
        LegCommand::Resume { leg, .. } => format!("resume {:?}{}", leg.side, leg.attempt),
        LegCommand::Settled { .. } => "settled".to_owned(),
        LegCommand::Probe { leg } => format!("probe {:?}{}", leg.side, leg.attempt),
        LegCommand::Offer { leg, .. } => format!("offer {:?}{}", leg.side, leg.attempt),
        LegCommand::AnswerOffer { leg, .. } => format!("answer {:?}{}", leg.side, leg.attempt),
        LegCommand::PressKey { leg, .. } => format!("key {:?}{}", leg.side, leg.attempt),
        LegCommand::TakeBack(_) => "take back".to_owned(),
    }
}

const fn event_name(event: &LegEvent) -> &'static str {
    match event {
        LegEvent::Invited(_) => "invited",
        LegEvent::Progress { .. } => "progress",
        LegEvent::Answered { .. } => "answered",
        LegEvent::Confirmed { .. } => "confirmed",
        LegEvent::Failed { .. } => "failed",
        LegEvent::Cancelled { .. } => "cancelled",
        LegEvent::Ended { .. } => "ended",
        LegEvent::Alive { .. } => "alive",
        LegEvent::Unwatched { .. } => "unwatched",
        LegEvent::Offered { .. } => "offered",
        LegEvent::OfferAnswered { .. } => "offer answered",
        LegEvent::KeyPressed { .. } => "key",
        LegEvent::Checkpointed { .. } => "checkpointed",
    }
}
