//! Does the time of a refusal tell whether a user exists? Phones answer their challenges with a wrong password, in random order as a
//! user that exists or as one that does not; names are of the same length and each is as likely to come again.

use crate::figures::{at, bar};
use crate::phone::{Answer, Domain, Phone};
use schema::entropy::Entropy;
use sip::message::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Times that the samples are drawn again for the interval.
const DRAWS: usize = 1_000;
/// Beyond so many standard deviations ranks differ by chance once in a thousand times.
const DEVIATIONS: f64 = 3.29;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Tries of each kind.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    tries: u32,
}

/// Phones that wait for their refusals at the same time, each with a socket of its own.
const AT_ONCE: usize = 20;

/// Somebody to be: a user that exists or not, by name.
struct Try {
    is_known: bool,
    name: String,
}

pub(crate) async fn run(domain: &Arc<Domain>, users: u32, asked: &Arguments) -> bool {
    let mut entropy = Entropy::from_number(1);
    let progress = bar("tries", u64::from(asked.tries) * 2);
    let mut phones = JoinSet::new();
    for mut tries in order(users, asked.tries, &mut entropy) {
        let (domain, progress) = (Arc::clone(domain), progress.clone());
        phones.spawn(async move {
            let socket = UdpSocket::bind((domain.server.ip(), 0)).await.expect("a socket");
            let mut times = Vec::with_capacity(tries.len());
            for (number, Try { is_known, name }) in tries.drain(..).enumerate() {
                let phone = Phone::new(number, name, "wrong".to_owned());
                times.push((is_known, refusal(&domain, &socket, phone).await));
                progress.inc(1);
            }
            times
        });
    }
    let all = phones.join_all().await.concat();
    progress.finish_and_clear();
    let of = |wanted: bool| all.iter().filter(|(is_known, _)| *is_known == wanted).map(|(_, time)| *time).collect();
    judge(of(true), of(false), &mut entropy)
}

/// So many tries of each kind in an order that cannot be foretold, so that nothing in the server's rhythm can fall in with it; dealt out
/// to the phones.
fn order(users: u32, each: u32, entropy: &mut Entropy) -> Vec<Vec<Try>> {
    let mut left = [u64::from(each); 2];
    let mut dealt: Vec<Vec<Try>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    for turn in 0.. {
        let all = left[0] + left[1];
        if all == 0 {
            break;
        }
        let is_known = entropy.below(all) < left[1];
        left[usize::from(is_known)] -= 1;
        let name = format!("{}{}", if is_known { 'u' } else { 'v' }, entropy.below(users.into()));
        dealt[turn % AT_ONCE].push(Try { is_known, name });
    }
    dealt
}

/// How long after its credentials a phone is refused.
async fn refusal(domain: &Domain, socket: &UdpSocket, mut phone: Phone) -> Duration {
    let own = socket.local_addr().expect("bound");
    loop {
        let bytes = phone.register(domain, own, 300);
        let start = Instant::now();
        socket.send_to(&bytes, domain.server).await.expect("sent");
        match answer(socket, &mut phone).await {
            (Answer::Challenged, _) => {}
            (Answer::Final(401), at) => return at - start,
            (Answer::Final(status), _) => panic!("{status}: is this address exempt from the limits?"),
        }
    }
}

async fn answer(socket: &UdpSocket, phone: &mut Phone) -> (Answer, Instant) {
    let mut buffer = [0; 4_096];
    loop {
        let received = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await;
        let length = received.expect("an answer within 5 s").expect("open");
        let at = Instant::now();
        let bytes = bytes::Bytes::copy_from_slice(&buffer[..length]);
        if let Some(answer) = phone.take(&Message::parse_datagram(&bytes).expect("readable")) {
            return (answer, at);
        }
    }
}

fn judge(mut known: Vec<Duration>, mut unknown: Vec<Duration>, entropy: &mut Entropy) -> bool {
    known.sort_unstable();
    unknown.sort_unstable();
    for (name, times) in [("wrong password", &known), ("unknown user", &unknown)] {
        let (p50, p90, p99) = (at(times, 500), at(times, 900), at(times, 990));
        println!("{name:<16} {} tries, p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}", times.len());
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let median = |times: &[Duration]| micros(at(times, 500));
    let mut drawn: Vec<f64> =
        (0..DRAWS).map(|_| median(&again(&known, entropy)) - median(&again(&unknown, entropy))).collect();
    drawn.sort_unstable_by(f64::total_cmp);
    let (low, high) = (drawn[DRAWS / 200], drawn[DRAWS - 1 - DRAWS / 200]);
    let difference = median(&known) - median(&unknown);
    println!("medians          differ by {difference:.1} us (99 % interval {low:.1} to {high:.1} us, {DRAWS} draws)");
    let (share, deviations) = ranks(&known, &unknown);
    println!(
        "ranks            a wrong password takes longer with probability {share:.4}, {deviations:.1} deviations from 1/2"
    );
    let differ = deviations.abs() > DEVIATIONS && (low > 0.0 || high < 0.0);
    let verdict =
        if differ { "the time tells that a user exists" } else { "the time does not tell whether a user exists" };
    println!("verdict          {verdict} ({} tries of each kind)", known.len());
    !differ
}

/// As many samples drawn from these, sorted.
fn again(times: &[Duration], entropy: &mut Entropy) -> Vec<Duration> {
    let most = times.len() as u64;
    let mut drawn: Vec<_> =
        (0..times.len()).map(|_| times[usize::try_from(entropy.below(most)).expect("small")]).collect();
    drawn.sort_unstable();
    drawn
}

/// The rank test of Mann and Whitney on sorted samples: how probably a time of the first is longer than one of the second (ties count
/// half), and how many standard deviations that is from one half.
fn ranks(first: &[Duration], second: &[Duration]) -> (f64, f64) {
    let (mut below, mut up_to, mut wins) = (0, 0, 0.0);
    for time in first {
        below += second[below..].iter().take_while(|other| *other < time).count();
        up_to = up_to.max(below);
        up_to += second[up_to..].iter().take_while(|other| *other <= time).count();
        wins += (below + up_to) as f64 / 2.0;
    }
    let (m, n) = (first.len() as f64, second.len() as f64);
    (wins / (m * n), (wins - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt())
}
