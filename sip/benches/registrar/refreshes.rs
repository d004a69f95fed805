//! Everybody registers, is refreshed at a steady rate, and leaves.

use crate::figures::{at, bar};
use crate::phone::{Answer, Domain, Phone};
use crate::process::{memory_kib, processor_time};
use bytes::Bytes;
use indicatif::ProgressBar;
use sip::message::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// Whoever heard nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(4);
/// What is not answered is sent again after this, as phones do (T1 of RFC 3261).
const REPEAT: Duration = Duration::from_millis(500);
/// Rounds in which those register that were told to come back later.
const ROUNDS: u32 = 5;
/// For how long phones register: the whole run and more.
const EXPIRES_S: u32 = 3_600;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The server's process.
    #[arg(long)]
    pid: u32,
    /// A shell command that succeeds when the database has as many bindings as its last argument says, and prints how many.
    #[arg(long)]
    rows: String,
    /// REGISTERs a second; one that is challenged counts once.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rate: u32,
    /// How long to refresh, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
}

/// Phones behind one socket.
struct Phones<'a> {
    domain: &'a Domain,
    socket: UdpSocket,
    own: SocketAddr,
    phones: Vec<Phone>,
    waiting: BTreeMap<usize, Waiting>,
}

/// A REGISTER that is not answered yet.
struct Waiting {
    due: Instant,
    sent: Instant,
    bytes: Bytes,
}

/// What became of so many.
#[derive(Default)]
struct Tally {
    times: Vec<Duration>,
    registered: Vec<usize>,
    challenges: u64,
    repeated: u64,
    refused: BTreeMap<u16, u64>,
    unanswered: u64,
    took: Duration,
}

pub(crate) async fn run(domain: &Domain, users: u32, asked: &Arguments) -> bool {
    let users = usize::try_from(users).expect("small");
    let socket = UdpSocket::bind((domain.server.ip(), 0)).await.expect("a socket");
    let own = socket.local_addr().expect("bound");
    let phone = |number: usize| Phone::new(number, format!("u{number}"), format!("pw{number}"));
    let phones = (0..users).map(phone).collect();
    let mut phones = Phones { domain, socket, own, phones, waiting: BTreeMap::new() };

    let (mut missing, mut rounds): (Vec<usize>, _) = ((0..users).collect(), 0);
    while !missing.is_empty() && rounds < ROUNDS {
        rounds += 1;
        let tally = phones.drive("registering", &missing, asked.rate, EXPIRES_S).await;
        tally.print(&format!("registering, round {rounds}"));
        let registered: std::collections::BTreeSet<usize> = tally.registered.into_iter().collect();
        missing.retain(|number| !registered.contains(number));
    }
    let total = asked.rate * asked.seconds;
    let turns: Vec<usize> = (0..usize::try_from(total).expect("small")).map(|turn| turn % users).collect();
    let before = processor_time(asked.pid).expect("the server runs");
    let mut tally = phones.drive("refreshing", &turns, asked.rate, EXPIRES_S).await;
    let spent = processor_time(asked.pid).expect("the server runs") - before;
    let refreshed = tally.times.len();
    tally.print("refreshing");
    tally.times.sort_unstable();
    let peak = memory_kib(asked.pid, "VmHWM").expect("the server runs");
    println!("registered              {} of {users}", users - missing.len());
    println!("refreshed               {:.0}/s", refreshed as f64 / tally.took.as_secs_f64());
    let (p50, p99, most) = (at(&tally.times, 500), at(&tally.times, 990), at(&tally.times, 1_000));
    println!("a refresh took          p50 {p50:.1?}, p99 {p99:.1?}, at most {most:.1?}");
    println!("processor time          {:.3} s per 1,000", spent.as_secs_f64() * 1e3 / refreshed.max(1) as f64);
    println!("memory of the server    {} MiB at most (aim: at most 512)", peak / 1_024);

    let kept = has_rows(&asked.rows, users - missing.len());
    let left = phones.drive("leaving", &(0..users).collect::<Vec<_>>(), asked.rate, 0).await;
    left.print("leaving");
    let gone = has_rows(&asked.rows, 0);
    let all = kept && gone && missing.is_empty() && tally.times.len() == turns.len() && left.times.len() == users;
    all && peak <= 512 * 1_024
}

fn has_rows(command: &str, expected: usize) -> bool {
    let output = Command::new("sh").args(["-c", &format!("{command} {expected}")]).output().expect("a shell");
    println!("rows of bindings        {} of {expected}", String::from_utf8_lossy(&output.stdout).trim());
    output.status.success()
}

impl Tally {
    fn print(&self, what: &str) {
        let refused: Vec<String> = self.refused.iter().map(|(status, n)| format!("{n} times {status}")).collect();
        let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
        println!(
            "{what}: {} answered 200 in {:.1} s, {} challenged before, {} sent again; refused: {refused}; unanswered: {}",
            self.times.len(),
            self.took.as_secs_f64(),
            self.challenges,
            self.repeated,
            self.unanswered
        );
    }
}

impl Phones<'_> {
    /// These phones register, so many a second, whatever becomes of those before. Times count from when each was due.
    async fn drive(&mut self, what: &str, turns: &[usize], rate: u32, expires_s: u32) -> Tally {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let progress = bar(what, turns.len() as u64);
        let due = |turn: usize| start + Duration::from_secs(1) * u32::try_from(turn).expect("few") / rate;
        let (mut sent, mut seen, mut looked) = (0, start, start);
        while sent < turns.len() || !self.waiting.is_empty() {
            while sent < turns.len() && due(sent) <= Instant::now() {
                self.send(turns[sent], due(sent), expires_s).await;
                sent += 1;
                seen = Instant::now();
            }
            if sent == turns.len() && seen.elapsed() > PATIENCE {
                break;
            }
            if looked.elapsed() > REPEAT / 5 {
                looked = Instant::now();
                tally.repeated += self.repeat().await;
            }
            let until = if sent < turns.len() { due(sent) } else { Instant::now() + REPEAT / 5 };
            self.receive(until, expires_s, &mut tally, &progress).await;
        }
        tally.took = start.elapsed();
        tally.unanswered = std::mem::take(&mut self.waiting).len() as u64;
        progress.finish_and_clear();
        tally
    }

    async fn send(&mut self, number: usize, due: Instant, expires_s: u32) {
        let bytes = self.phones[number].register(self.domain, self.own, expires_s);
        self.socket.send_to(&bytes, self.domain.server).await.expect("sent");
        self.waiting.insert(number, Waiting { due, sent: Instant::now(), bytes });
    }

    /// Sends again what was not answered in time; how many.
    async fn repeat(&mut self) -> u64 {
        let mut repeated = 0;
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.sent.elapsed() > REPEAT) {
            self.socket.send_to(&waiting.bytes, self.domain.server).await.expect("sent");
            waiting.sent = Instant::now();
            repeated += 1;
        }
        repeated
    }

    /// Takes an answer, if one comes until then, and those that came with it.
    async fn receive(&mut self, until: Instant, expires_s: u32, tally: &mut Tally, progress: &ProgressBar) {
        let mut buffer = [0; 4_096];
        let Ok(read) = timeout_at(until, self.socket.recv(&mut buffer)).await else { return };
        let mut length = read.expect("open");
        loop {
            let answer = Message::parse_datagram(&Bytes::copy_from_slice(&buffer[..length])).expect("readable");
            self.take(&answer, expires_s, tally, progress).await;
            match self.socket.try_recv(&mut buffer) {
                Ok(next) if Instant::now() < until => length = next,
                _ => return,
            }
        }
    }

    async fn take(&mut self, answer: &Message, expires_s: u32, tally: &mut Tally, progress: &ProgressBar) {
        let Some(number) = Phone::number_of(answer) else { return };
        let Some(due) = self.waiting.get(&number).map(|waiting| waiting.due) else { return };
        match self.phones[number].take(answer) {
            None => {}
            Some(Answer::Challenged) => {
                tally.challenges += 1;
                self.send(number, due, expires_s).await;
            }
            Some(Answer::Final(status)) => {
                self.waiting.remove(&number);
                progress.inc(1);
                if status == 200 {
                    tally.times.push(due.elapsed());
                    tally.registered.push(number);
                } else {
                    *tally.refused.entry(status).or_default() += 1;
                }
            }
        }
    }
}
