//! How long a start takes until the first new call is answered, with calls to take up: see `tests/bench/recovery`.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use schema::time::Timestamp;
use sip::demo::phone::PhoneCall;
use std::time::Duration;
use tests::api::Client;
use tests::phone::TestPhone;
use tests::program::Program;
use tests::site::{Accounts, Site};
use tests::verdict::judge;
use tokio::time::{Instant, sleep};

/// Phones that call at the same time at first.
const AT_ONCE: usize = 200;
/// Between two tries of the probe.
const TRY: Duration = Duration::from_millis(5);
/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills a server with live calls and measures how soon the next one answers new ones.
#[derive(Parser)]
struct Arguments {
    /// Accounts in the database.
    #[arg(long, default_value_t = 100_000)]
    accounts: u32,
    /// Calls to take up, each of another account.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=90_000))]
    calls: u32,
    /// How often it is killed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    restarts: u32,
}

/// Milliseconds from the start of the process.
struct Start {
    first_answer: u64,
    all_taken_up: u64,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let busy = [
        Accounts { word: "u", count: arguments.calls, credit: "1000.00" },
        Accounts { word: "probe", count: 1, credit: "1000.00" },
    ];
    let idle = Accounts { word: "z", count: arguments.accounts.saturating_sub(arguments.calls + 1), credit: "10.00" };
    let limits = "[limits]\nlive_calls = 100000\ncalls_per_second = 100000\nexempt_ips = [\"127.0.0.0/8\"]\n";
    println!("making {} accounts", arguments.accounts);
    let site = Site::make(&[busy[0], busy[1], idle], limits).await;
    let mut server = site.serve().await;
    let calls = begin(&site, arguments.calls).await;
    let mut probe = Probe { phone: site.phone("probe", 0).await, next: 0 };

    let bar = bar("restarts", arguments.restarts.into());
    let mut starts = Vec::new();
    for _ in 0..arguments.restarts {
        server.kill().unwrap_or_else(|ended| panic!("{ended}"));
        let began = ringfence::clock::system()().wall;
        server = site.launch();
        let start = probe.start(&site, began, arguments.calls).await;
        bar.set_message(format!("{} ms", start.first_answer));
        starts.push(start);
        bar.inc(1);
        sleep(Duration::from_millis(500)).await;
    }
    bar.finish_and_clear();
    finish(&site, server, calls, &busy).await;
    report("first new call answered", starts.iter().map(|start| start.first_answer).collect());
    report("all live calls taken up", starts.iter().map(|start| start.all_taken_up).collect());
}

fn bar(what: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    bar.set_style(
        ProgressStyle::with_template(&format!("{what} {{bar:40}} {{pos}}/{{len}} {{msg}}")).expect("a template"),
    );
    bar
}

/// Every call is answered and stays up.
async fn begin(site: &Site, calls: u32) -> Vec<(TestPhone, PhoneCall)> {
    let bar = bar("calls", calls.into());
    let mut up = Vec::new();
    let mut ringing = Vec::new();
    for n in 0..calls {
        let mut phone = site.phone("u", n).await;
        let call = phone.dial(&format!("1555{n:05}00")).await;
        ringing.push((phone, call));
        if ringing.len() == AT_ONCE || n + 1 == calls {
            for (mut phone, call) in ringing.drain(..) {
                phone.outcome(call).await.expect("answered");
                up.push((phone, call));
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    up
}

/// Calls again and again.
struct Probe {
    phone: TestPhone,
    next: u32,
}

impl Probe {
    async fn start(&mut self, site: &Site, began: Timestamp, calls: u32) -> Start {
        let deadline = Instant::now() + PATIENCE;
        let mut tries = Vec::new();
        let answered = loop {
            tries.push(self.phone.dial(&format!("1555{:05}01", self.next)).await);
            self.next += 1;
            sleep(TRY).await;
            if let Some(at) = site.wire.first_answer_since(began) {
                break at;
            }
            assert!(Instant::now() < deadline, "no call is answered");
        };
        let taken_up = loop {
            let now = ringfence::clock::system()().wall;
            if live_calls(site).await >= calls {
                break now;
            }
            assert!(Instant::now() < deadline, "not all calls are taken up");
            sleep(TRY).await;
        };
        for call in tries {
            self.phone.outcome(call).await.expect("answered at the latest when it is repeated");
            self.phone.hang_up(call).await;
        }
        let since = |at: Timestamp| u64::try_from(at.since(began).as_millis()).expect("short");
        Start { first_answer: since(answered), all_taken_up: since(taken_up) }
    }
}

async fn live_calls(site: &Site) -> u32 {
    let metrics = Client::app(site.metrics, [127, 0, 0, 1].into()).text("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("ringfence_live_calls "));
    line.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Nobody lost a call, and all are charged for what they lasted.
async fn finish(site: &Site, server: Program, calls: Vec<(TestPhone, PhoneCall)>, accounts: &[Accounts]) {
    let expected = calls.len();
    for (mut phone, call) in calls {
        assert!(phone.is_up(call), "a call was dropped");
        phone.hang_up(call).await;
    }
    site.settled().await.expect("nothing is left");
    site.stop(server).await;
    site.audited().await.expect("clean");
    let verdict = judge(site, accounts, &[]).await.unwrap_or_else(|findings| panic!("{findings}"));
    println!("{expected} calls outlived it all; {} calls checked", verdict.calls);
}

fn report(what: &str, mut times: Vec<u64>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).clamp(1, times.len()) - 1];
    println!("\n{what}: p50 {} ms, p99 {} ms, max {} ms over {} starts", at(50), at(99), at(100), times.len());
    let (least, most) = (times[0], at(100));
    let width = ((most - least) / 12).max(1);
    for from in (least..=most).step_by(usize::try_from(width).expect("small")) {
        let count = times.iter().filter(|time| (from..from + width).contains(time)).count();
        println!("{from:>6} ms {}", "#".repeat(count));
    }
}
