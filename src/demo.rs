//! `ringfence demo call`: the built-in test phone calls over the network like any other, and the money is shown falling.

use crate::admin::{Client, DemoPhone, Live, Reply, Request};
use anyhow::{Context as _, bail};
use schema::entropy::Entropy;
use schema::pii::Pii;
use schema::time::Clock;
use sip::demo::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// How long the phone waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);
/// How long the CDR may take after the call.
const CDR_LIMIT: Duration = Duration::from_secs(5);
const CALL: PhoneCall = PhoneCall(1);

/// Places the call, prints what happens, then the CDR and the ledger. True when the call was answered.
///
/// # Errors
/// No development server runs on this data folder, or it went away.
pub async fn call(
    data_dir: &Path,
    number: &str,
    talk: Duration,
    clock: Clock,
    mut entropy: Entropy,
) -> anyhow::Result<bool> {
    let credential = demo_phone(data_dir).await?;
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.context("the phone needs a UDP port")?;
    let config = PhoneConfig {
        server: credential.server,
        domain: credential.domain.as_str().into(),
        address: socket.local_addr()?,
        username: credential.username.as_str().into(),
        password: Pii::new(credential.password.as_str().into()),
        expires_s: 300,
        most_calls: 1,
        takes_reliable: false,
    };
    let mut phone = Phone::new(config, entropy.fork())?;
    let (commands, commands_in) = mpsc::channel(8);
    let (events, mut events_out) = mpsc::channel(64);
    let shell = tokio::spawn(async move { sip::demo::run(&socket, &mut phone, &clock, commands_in, &events).await });
    let mut watch = request(data_dir, &Request::Watch { account: credential.account.clone() }).await?;
    let before = last_call(data_dir, &credential.account).await?;
    println!("{} dials {number} at {}", credential.username, credential.server);
    commands.send(PhoneCommand::Call { call: CALL, number: Pii::new(number.into()) }).await?;
    let answered = follow(&commands, &mut events_out, &mut watch, talk).await?;
    drop(commands);
    shell.await??;
    print_receipt(data_dir, &credential.account, before).await?;
    Ok(answered)
}

/// Prints the call's events and the balance until the call is over.
async fn follow(
    commands: &mpsc::Sender<PhoneCommand>,
    events: &mut mpsc::Receiver<PhoneEvent>,
    watch: &mut Client,
    talk: Duration,
) -> anyhow::Result<bool> {
    let (mut answered, mut hang_up_at) = (false, tokio::time::Instant::now() + ANSWER_LIMIT);
    let mut hung_up = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(PhoneEvent::Progress { status, .. }) => println!("{status} {}", if status == 180 { "ringing" } else { "progress" }),
                Some(PhoneEvent::Answered { .. }) => {
                    println!("200 answered");
                    answered = true;
                    hang_up_at = tokio::time::Instant::now() + talk;
                }
                Some(PhoneEvent::Failed { status, .. }) => {
                    println!("{status} not answered");
                    return Ok(false);
                }
                Some(PhoneEvent::Ended { by_phone, q850, .. }) => {
                    let who = if by_phone { "the phone" } else { "the other side" };
                    println!("hung up by {who}{}", q850.map_or_else(String::new, |cause| format!(" (Q.850 cause {cause})")));
                    return Ok(answered);
                }
                Some(PhoneEvent::Registered { .. } | PhoneEvent::RegistrationFailed { .. } | PhoneEvent::Changed { .. }) => {}
                None => bail!("the phone's socket failed"),
            },
            reply = watch.reply() => match reply? {
                Some(Reply::Live(live)) => show(&live)?,
                Some(_) => {}
                None => bail!("the server went away"),
            },
            () = tokio::time::sleep_until(hang_up_at), if !hung_up => {
                hung_up = true;
                commands.send(PhoneCommand::HangUp { call: CALL }).await?;
            }
        }
    }
}

fn show(live: &Live) -> std::io::Result<()> {
    let call = live
        .calls
        .first()
        .map_or_else(String::new, |call| format!("   {} {:>3} s, cost {}", call.state, call.seconds, call.cost));
    println!(
        "  remaining {:>9} {}   reserved {:>8}   available {:>9}{call}",
        live.remaining, live.currency, live.reserved, live.available
    );
    std::io::stdout().flush()
}

/// The test phone's own credential, made anew by the server so that nothing secret is kept.
async fn demo_phone(data_dir: &Path) -> anyhow::Result<DemoPhone> {
    match request(data_dir, &Request::DemoPhone).await?.reply().await? {
        Some(Reply::DemoPhone(phone)) => Ok(phone),
        Some(Reply::Failed(why)) => bail!(why),
        _ => bail!("the server went away"),
    }
}

async fn request(data_dir: &Path, request: &Request) -> anyhow::Result<Client> {
    let Some(mut client) = Client::connect(data_dir).await? else {
        bail!("no server runs on {}: start it with `ringfence` in another terminal", data_dir.display());
    };
    client.send(request).await?;
    Ok(client)
}

/// The account's last call as text, the call's identity in the first line; `None` when it has none.
async fn last_call(data_dir: &Path, account: &str) -> anyhow::Result<Option<Vec<String>>> {
    let mut client = request(data_dir, &Request::LastCall { account: account.to_owned() }).await?;
    match client.reply().await? {
        Some(Reply::Lines(lines)) => Ok(Some(lines).filter(|lines| !lines.is_empty())),
        Some(Reply::Failed(why)) => bail!(why),
        _ => bail!("the server went away"),
    }
}

/// Prints the CDR and the ledger, once the call is settled: when there is another last call than `before`.
async fn print_receipt(data_dir: &Path, account: &str, before: Option<Vec<String>>) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + CDR_LIMIT;
    let call_of = |lines: &Option<Vec<String>>| lines.as_ref().and_then(|lines| lines.first().cloned());
    loop {
        let now = last_call(data_dir, account).await?;
        if call_of(&now) != call_of(&before) {
            println!("\n{}", now.unwrap_or_default().join("\n"));
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("the call left no record");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A bar on a terminal, nothing elsewhere.
#[must_use]
pub fn progress_bar(what: &'static str) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {eta}");
    let bar = indicatif::ProgressBar::new(0).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
