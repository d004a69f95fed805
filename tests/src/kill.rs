//! The kill loop: the real server under load is killed without warning, again and again, and started again on the same
//! folder. Afterwards everything that was acknowledged to the outside is compared with its ledger and its call records.

mod load;

use crate::program::Program;
use crate::site::{Accounts, POOR, Site};
use crate::verdict::{Verdict, judge};
use crate::wire::Side;
use load::Load;
use schema::entropy::Entropy;
use schema::time::Timestamp;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// After a fault has healed new calls succeed within this (I10).
const HEALED: Duration = Duration::from_secs(30);
/// Longest time from a new call being possible to the kill.
const LIFE_MS: u64 = 2_000;
/// A server that is to die at a system call gets there within this.
const DEATH: Duration = Duration::from_secs(60);

/// When the server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At any time, its start-up included.
    Random,
    /// On entering a thread's n-th call to `fsync` or `fdatasync`.
    Sync(u32),
    /// On entering a thread's n-th call that sends datagrams: what is committed is not told yet.
    Send(u32),
}

/// What a run found. Nothing broken: it would have failed.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Kills survived.
    pub kills: u32,
    /// Of them with calls up.
    pub with_calls_up: u32,
    /// Calls up, summed over the kills.
    pub calls_up: usize,
    /// Calls compared with their records.
    pub calls: usize,
    /// Of them answered.
    pub answered: usize,
    /// Of them found gone: nobody could tell their end.
    pub lost: usize,
    /// Acknowledged credits compared with the ledger.
    pub credits: usize,
    /// From the start of a process to the first answer to a new call, in milliseconds.
    pub answer_ms: Vec<u64>,
}

impl Summary {
    fn add(&mut self, verdict: &Verdict) {
        self.calls += verdict.calls;
        self.answered += verdict.answered;
        self.lost += verdict.lost;
        self.credits += verdict.credits;
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut times = self.answer_ms.clone();
        times.sort_unstable();
        let at = |percent: usize| {
            times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        write!(
            f,
            "{} kills survived, {} of them with calls up ({} calls up in all); {} calls checked, {} of them answered, {} lost; \
             {} credits checked; first answer after a start p50 {} ms, max {} ms",
            self.kills,
            self.with_calls_up,
            self.calls_up,
            self.calls,
            self.answered,
            self.lost,
            self.credits,
            at(50),
            at(100)
        )
    }
}

/// One folder's life: load, a kill at each moment, then quiet and the comparison. `more` are lines of the configuration.
///
/// # Errors
/// Each finding, in a line.
pub async fn round(
    seed: u64,
    moments: &[Moment],
    more: &str,
    summary: &mut Summary,
    progress: &mut (dyn FnMut(&Summary) + Send),
) -> Result<(), String> {
    let mut entropy = Entropy::from_number(seed);
    let accounts = [
        Accounts { word: "u", count: load::PHONES, credit: "100.00" },
        Accounts { word: POOR, count: load::POOR_PHONES, credit: "0.08" },
        Accounts { word: "s", count: load::SIPP, credit: "100.00" },
    ];
    let site = Site::make(&accounts, more).await;
    let lived = lives(&site, &accounts, moments, &mut entropy, summary, progress).await;
    lived.map_err(|findings| format!("{findings}\nthe folder is kept: {}", site.place.keep().display()))
}

async fn lives(
    site: &Site,
    accounts: &[Accounts],
    moments: &[Moment],
    entropy: &mut Entropy,
    summary: &mut Summary,
    progress: &mut (dyn FnMut(&Summary) + Send),
) -> Result<(), String> {
    let load = Load::start(site, entropy.fork()).await;
    for moment in moments {
        let up = one_life(site, *moment, entropy, summary).await?;
        summary.kills += 1;
        summary.calls_up += up;
        summary.with_calls_up += u32::from(up > 0);
        progress(summary);
    }
    let (mut server, began) = (site.launch(), now());
    answers(site, &mut server, began).await?;
    let credits = load.stop(site).await;
    site.settled().await?;
    site.audited().await?;
    site.stop(server).await;
    let verdict = judge(site, accounts, &credits).await?;
    summary.add(&verdict);
    let compared = verdict.answered > 0 && verdict.credits > 0;
    compared.then_some(()).ok_or_else(|| String::from("nothing was compared"))
}

/// A server's life from its start to its kill; how many calls were up then.
async fn one_life(site: &Site, moment: Moment, entropy: &mut Entropy, summary: &mut Summary) -> Result<usize, String> {
    let began = now();
    match moment {
        Moment::Random => {
            let mut server = site.launch();
            // One in five does not live to see its start-up's end.
            if entropy.below(5) == 0 {
                sleep(Duration::from_millis(entropy.below(300))).await;
            } else {
                summary.answer_ms.push(answers(site, &mut server, began).await?);
                site.audited().await?;
                sleep(Duration::from_millis(entropy.below(LIFE_MS))).await;
            }
            let up = site.wire.up(Side::Callee);
            server.kill().map(|()| up)
        }
        Moment::Sync(n) => dies_at(site, "fsync,fdatasync", n).await,
        Moment::Send(n) => dies_at(site, "sendto,sendmsg,sendmmsg", n).await,
    }
}

async fn dies_at(site: &Site, calls: &str, n: u32) -> Result<usize, String> {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=KILL:when={n}"));
    let mut server = site.launch_traced(&["-e", &trace, "-e", &inject]);
    let deadline = Instant::now() + DEATH;
    while !server.has_ended() {
        if Instant::now() > deadline {
            return Err(format!("the server lives on after call {n} of {calls}"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    server.was_killed()?;
    Ok(site.wire.up(Side::Callee))
}

/// Waits until a call is answered that was begun since the server's start; milliseconds from that.
async fn answers(site: &Site, server: &mut Program, began: Timestamp) -> Result<u64, String> {
    let deadline = Instant::now() + HEALED;
    loop {
        if let Some(at) = site.wire.first_answer_since(began) {
            return Ok(u64::try_from(at.since(began).as_millis()).unwrap_or(u64::MAX));
        }
        if server.has_ended() || Instant::now() > deadline {
            return Err(format!("I10: no new call is answered; the server said:\n{}", server.stderr()));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn now() -> Timestamp {
    ringfence::clock::system()().wall
}
