//! The load of the kill loop: SIPp and phones of our own that call, cancel and hang up, and top-ups that are repeated until
//! they are acknowledged.

use crate::phone::TestPhone;
use crate::program::Program;
use crate::sipp::{MESSAGES, Sipp};
use crate::site::{POOR, Site};
use crate::verdict::Credited;
use ringfence::admin::{Client, Reply, Request};
use schema::entropy::Entropy;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Phones with money, accounts `u0` ….
pub(super) const PHONES: u32 = 8;
/// Phones with money for seconds.
pub(super) const POOR_PHONES: u32 = 2;
/// SIPp's accounts, `s0` ….
pub(super) const SIPP: u32 = 10;
/// SIPp's new calls a second.
const RATE: u32 = 20;
/// SIPp's calls at most: an hour's.
const CALLS: u32 = 70_000;
/// A phone that heard nothing of its call gives up.
const PATIENCE: Duration = Duration::from_secs(8);
/// A BYE is repeated for 32 s.
const BYE: Duration = Duration::from_secs(40);

pub(super) struct Load {
    stopping: Arc<AtomicBool>,
    phones: JoinSet<()>,
    sipp: Program,
    credits: JoinHandle<Vec<Credited>>,
}

impl Load {
    /// Begins at once, though no server runs yet.
    pub(super) async fn start(site: &Site, mut entropy: Entropy) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        // Numbers are dialled once; SIPp's begin with another digit.
        let numbers = Arc::new(AtomicU32::new(0));
        let mut phones = JoinSet::new();
        for (word, count) in [("u", PHONES), (POOR, POOR_PHONES)] {
            for n in 0..count {
                let phone = site.phone(word, n).await;
                let caller = Caller { phone, numbers: numbers.clone(), entropy: entropy.fork() };
                phones.spawn(caller.call_until(stopping.clone()));
            }
        }
        let callers = (0..CALLS).map(|n| {
            let (user, answered_at_once) = (n % SIPP, n % 20);
            (format!("s{user}"), format!("pw{user}"), format!("1555{:05}{answered_at_once:02}", 30_000 + n))
        });
        let sipp = Sipp {
            server: site.sip,
            transport: "u1",
            calls: CALLS,
            rate: RATE,
            at_once: 500,
            hold_ms: 2_000,
            callers: callers.collect(),
            patience_ms: 15_000,
            may_be_refused: false,
        };
        let sipp = sipp.start(site.place.folder.path());
        let credits = tokio::spawn(top_up(site.data_dir(), entropy.fork(), stopping.clone()));
        Self { stopping, phones, sipp, credits }
    }

    /// Begins nothing more, waits until everything is over and gives the acknowledged credits.
    pub(super) async fn stop(mut self, site: &Site) -> Vec<Credited> {
        self.stopping.store(true, Ordering::Release);
        self.sipp.signal("USR1");
        self.sipp.ended(Duration::from_secs(60)).await;
        while let Some(ended) = self.phones.join_next().await {
            ended.expect("a phone does not panic");
        }
        let log = std::fs::read_to_string(site.place.folder.path().join(MESSAGES)).expect("SIPp kept its messages");
        site.wire.read_sipp(&log);
        self.credits.await.expect("topping up does not panic")
    }
}

struct Caller {
    phone: TestPhone,
    numbers: Arc<AtomicU32>,
    entropy: Entropy,
}

impl Caller {
    async fn call_until(mut self, stopping: Arc<AtomicBool>) {
        while !stopping.load(Ordering::Acquire) {
            self.one_call().await;
            self.pause(200).await;
        }
    }

    async fn pause(&mut self, most_ms: u64) {
        sleep(Duration::from_millis(self.entropy.below(most_ms))).await;
    }

    async fn one_call(&mut self) {
        // What the carrier does, and how long the phone waits for it.
        let (behaviour, patience) = match self.entropy.below(10) {
            0..=4 => (self.entropy.below(20), PATIENCE),
            5 => (20, PATIENCE),
            6 => (80, PATIENCE),
            7 => (50, PATIENCE),
            // Given up while it rings, or just before or after the answer.
            8 => (60, Duration::from_millis(self.entropy.below(1_500))),
            _ => (20, Duration::from_millis(1_900 + self.entropy.below(250))),
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        assert!(number < 30_000, "out of numbers");
        let call = self.phone.dial(&format!("1555{number:05}{behaviour:02}")).await;
        match timeout(patience, self.phone.outcome(call)).await {
            Err(_) => self.phone.give_up(call).await,
            Ok(Err(_)) => {}
            Ok(Ok(())) => {
                let hold = Duration::from_millis(self.entropy.below(6_000));
                if timeout(hold, self.phone.ended(call)).await.is_err() {
                    self.phone.give_up(call).await;
                    // One that is never answered is found on the wire.
                    let _ = timeout(BYE, self.phone.ended(call)).await;
                }
            }
        }
    }
}

async fn top_up(data_dir: PathBuf, mut entropy: Entropy, stopping: Arc<AtomicBool>) -> Vec<Credited> {
    let mut acknowledged = Vec::new();
    for n in 0_u64.. {
        if stopping.load(Ordering::Acquire) {
            break;
        }
        // The poor get so little that their calls are still cut.
        let account = if n % 50 == 0 {
            format!("{POOR}{}", n / 50 % u64::from(POOR_PHONES))
        } else {
            format!("u{}", n % u64::from(PHONES))
        };
        let credited = Credited { account, key: format!("top-{n}"), amount: "0.01" };
        while credit(&data_dir, &credited).await.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
        // A client that missed the answer asks again.
        if entropy.below(3) == 0
            && let Some(repeated) = credit(&data_dir, &credited).await
        {
            assert!(repeated, "L4: {credited:?} was posted twice");
        }
        acknowledged.push(credited);
        sleep(Duration::from_millis(entropy.below(100))).await;
    }
    acknowledged
}

/// Whether the key had been used; nothing when the server gave no answer.
async fn credit(data_dir: &std::path::Path, credited: &Credited) -> Option<bool> {
    let mut client = Client::connect(data_dir).await.ok()??;
    let Credited { account, key, amount } = credited.clone();
    let request = Request::Credit { account, amount: amount.to_owned(), key, reason: "a top-up".to_owned() };
    client.send(&request).await.ok()?;
    match client.reply().await.ok()?? {
        Reply::Credited { repeated, .. } => Some(repeated),
        _ => None,
    }
}
