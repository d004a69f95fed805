//! The SIP thread: takes what arrives, commands and time to the core, and carries out what it answers.

use super::inbox::Inbox;
use super::wire::{Arrival, Wire};
use super::{Bound, TransportCounts, TransportLimits};
use crate::core::{Core, Counts, Figures, Input, Output};
use schema::edge::{EdgeCommand, EdgeEvent};
use schema::entropy::Entropy;
use schema::leg::{LegCommand, LegEvent, LegEventAt};
use schema::time::{Clock, Mono, Now};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Commands taken before sockets and timers are looked at again.
const BATCH: usize = 128;

/// Batches of datagrams read at once, so that what is under way is found among them.
const READ_ON: usize = 16;
/// Whoever waits less has perhaps not waited at all.
const WAITED: Duration = Duration::from_millis(1);
/// Requests that begin something handled before sockets are looked at again.
const SLICE: usize = 32;

/// The seam to the rest of the server. The two functions must not block.
pub struct Seam {
    /// Commands for call legs.
    pub legs: mpsc::Receiver<LegCommand>,
    /// Commands for the edge.
    pub edge: mpsc::Receiver<EdgeCommand>,
    /// Told what legs tell, in order.
    pub on_leg: Box<dyn Fn(LegEventAt) + Send>,
    /// Told what the edge tells, in order.
    pub on_edge: Box<dyn Fn(EdgeEvent) + Send>,
}

/// The running SIP thread.
pub struct SipThread {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    counts: Arc<TransportCounts>,
    figures: Arc<Mutex<Figures>>,
}

impl SipThread {
    /// Starts it. `entropy` is for the tags of messages that the core never sees.
    ///
    /// # Errors
    /// When the runtime or the thread cannot be made.
    pub fn start(
        bound: Bound,
        limits: TransportLimits,
        core: Core,
        entropy: Entropy,
        clock: Clock,
        seam: Seam,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let counts = Arc::new(TransportCounts::default());
        let figures = Arc::new(Mutex::new(Figures::default()));
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let wire = {
            let _registered_here = runtime.enter();
            Wire::new(bound, limits, entropy, Arc::clone(&counts))?
        };
        let worker = Worker {
            wire,
            core,
            clock,
            seam,
            figures: Arc::clone(&figures),
            inbox: Inbox::default(),
            emptied: Mono(0),
            parted: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("sip".to_owned()).spawn(move || {
            // Dropped at the end, also by a panic.
            let _ending: oneshot::Sender<()> = ending;
            runtime.block_on(worker.work(stopped));
        })?;
        Ok(Self { stop: Some(stop), ended, thread, counts, figures })
    }

    /// What the transports counted.
    #[must_use]
    pub fn transport_counts(&self) -> &Arc<TransportCounts> {
        &self.counts
    }

    /// Sizes of the core's tables as of its last input.
    #[must_use]
    pub fn core_counts(&self) -> Counts {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).tables
    }

    /// The core's figures as of its last input, for whoever reads them later.
    #[must_use]
    pub fn core_figures(&self) -> Arc<dyn Fn() -> Figures + Send + Sync> {
        let figures = Arc::clone(&self.figures);
        Arc::new(move || *figures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when the thread is over. Before [`SipThread::stop`] that is a panic: the server cannot go on without it.
    pub async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Stops it after what it is doing and waits for it (milliseconds). Dialogs are not ended: the next process carries them
    /// on.
    ///
    /// # Errors
    /// When the thread had panicked.
    pub fn stop(mut self) -> std::thread::Result<()> {
        drop(self.stop.take());
        self.thread.join()
    }
}

impl std::fmt::Debug for SipThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SipThread").field("core", &self.core_counts()).finish_non_exhaustive()
    }
}

struct Worker {
    wire: Wire,
    core: Core,
    clock: Clock,
    seam: Seam,
    figures: Arc<Mutex<Figures>>,
    inbox: Inbox,
    /// When the sockets were last seen without anything unread.
    emptied: Mono,
    /// What legs have told since one of them ended in this turn.
    parted: Vec<LegEventAt>,
}

impl Worker {
    /// Works until `stopped` resolves.
    async fn work(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut arrivals = Vec::new();
        loop {
            let idle_from = (self.clock)().mono;
            let wait = self.core.next_timeout().map(|at| at.since(idle_from));
            let timer = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let standing = |protocol, peer| {
                let now = (self.clock)().mono;
                (self.core.standing(protocol, peer, now), now)
            };
            tokio::select! {
                _ = &mut stopped => return self.leave().await,
                () = self.wire.arrivals(&mut arrivals, &standing) => self.receive(&mut arrivals, idle_from),
                () = std::future::ready(()), if !self.inbox.is_empty() => self.serve(),
                Some(command) = self.seam.legs.recv() => {
                    let now = self.woke(idle_from);
                    self.handle(Input::Leg(command), now);
                    for _ in 1..BATCH {
                        let Ok(command) = self.seam.legs.try_recv() else { break };
                        self.handle(Input::Leg(command), now);
                    }
                }
                Some(command) = self.seam.edge.recv() => {
                    let now = self.woke(idle_from);
                    // The last leg that was resumed before `Recovered` must be known.
                    while let Ok(command) = self.seam.legs.try_recv() {
                        self.handle(Input::Leg(command), now);
                    }
                    self.handle(Input::Edge(command), now);
                    for _ in 1..BATCH {
                        let Ok(command) = self.seam.edge.try_recv() else { break };
                        self.handle(Input::Edge(command), now);
                    }
                }
                () = timer => {
                    let now = self.woke(idle_from);
                    self.handle(Input::Timeout, now);
                }
            }
            self.end_turn();
            *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = self.core.figures();
            if !self.inbox.is_empty() {
                // The runtime looks at sockets and time only when this task waits: what came meanwhile is not to wait for all
                // that does.
                tokio::task::yield_now().await;
            }
        }
    }

    /// What was said until now leaves. Nothing more is taken first: whoever was told that a command is on its way (C4) may rely
    /// on it.
    async fn leave(&mut self) {
        let now = (self.clock)();
        self.seam.legs.close();
        while let Some(command) = self.seam.legs.recv().await {
            self.handle(Input::Leg(command), now);
        }
        self.end_turn();
    }

    /// What was said leaves, and then it is told which legs ended.
    fn end_turn(&mut self) {
        self.wire.leave();
        for event in self.parted.drain(..) {
            (self.seam.on_leg)(event);
        }
    }

    /// Takes what arrived and all else that has; handles what is under way at once, and of the rest a slice.
    fn receive(&mut self, arrivals: &mut Vec<Arrival>, idle_from: Mono) {
        let now = self.woke(idle_from);
        let mut is_unread = true;
        for _ in 0..READ_ON {
            is_unread =
                self.wire.datagrams(arrivals, &mut |source, datagram| self.core.turn_away(source, datagram, now));
            // While their bytes are at hand.
            self.carry_out_refusals();
            if !is_unread {
                break;
            }
        }
        let now = (self.clock)();
        // The oldest may have come as soon as nobody looked any more.
        let worked = idle_from.since(self.emptied);
        let surplus = self.inbox.sort(arrivals, Mono(now.mono.0.saturating_sub(micros(worked))));
        if !is_unread {
            self.emptied = now.mono;
        }
        for arrival in arrivals.drain(..) {
            self.take(arrival, now);
        }
        for arrival in surplus {
            if let Arrival::Message(flow, request) = arrival {
                self.core.handle(Input::Surplus(flow, request), now);
            }
        }
        self.carry_out_refusals();
        self.serve();
    }

    /// The time, after waiting since `idle_from`: whoever had to wait saw that nothing was unread.
    fn woke(&mut self, idle_from: Mono) -> Now {
        let now = (self.clock)();
        if now.mono.since(idle_from) >= WAITED {
            self.emptied = now.mono;
        }
        now
    }

    fn serve(&mut self) {
        let now = (self.clock)();
        let (calls, others) = self.inbox.ages(now.mono);
        self.handle(Input::Waited { calls, others }, now);
        for _ in 0..SLICE {
            let Some(arrival) = self.inbox.next() else { break };
            self.take(arrival, now);
        }
    }

    fn take(&mut self, arrival: Arrival, now: Now) {
        let input = match arrival {
            Arrival::Message(flow, message) => Input::Message(flow, message),
            Arrival::Closed(flow) => Input::FlowClosed(flow),
            Arrival::Disconnected(flow, destination) => Input::Disconnected(flow, destination),
            Arrival::Unreachable(destination, why) => Input::Unreachable(destination, why),
            Arrival::Refused(flow, error) => {
                if self.core.may_refuse(flow, &error, now) {
                    self.wire.refuse(flow, &error);
                }
                return;
            }
        };
        self.handle(input, now);
    }

    fn handle(&mut self, input: Input, now: Now) {
        self.core.handle(input, now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.carry(output);
        }
    }

    /// Carries out answers to requests that have nothing to do with one another.
    fn carry_out_refusals(&mut self) {
        let mut datagrams = Vec::new();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(flow, bytes) if flow.connection.is_none() => datagrams.push((flow.peer, bytes)),
                other => self.carry(other),
            }
        }
        self.wire.send_unordered(datagrams);
    }

    fn carry(&mut self, output: Output) {
        match output {
            Output::Send(flow, bytes) => self.wire.send(flow, bytes),
            Output::SendTo(destination, bytes) => {
                self.wire.send_to(destination, self.core.peer_name(destination), bytes);
            }
            Output::Trust(flow) => self.wire.trust(flow),
            Output::Leg(event) => {
                // A call is settled once its end is told, and then nobody repeats the BYE, which leaves with the turn.
                if self.parted.is_empty() && !matches!(event.event, LegEvent::Ended { .. }) {
                    (self.seam.on_leg)(event);
                } else {
                    self.parted.push(event);
                }
            }
            Output::Edge(event) => (self.seam.on_edge)(event),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
