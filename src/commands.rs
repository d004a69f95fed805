//! What each command does, and its exit code.

use crate::admin::{Client, Reply, Request};
use crate::cli::{Cli, Command, Demo};
use crate::config::Config;
use crate::provision::{self, Provisioned, Provisioning};
use crate::server::{self, Server};
use crate::world::World;
use crate::{clock, credit, data, demo, logs};
use actors::{Actors, ActorsConfig};
use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use storage::audit::audit;
use storage::{Journal, JournalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How long writing what is left may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(8);

/// Runs a command. 0: done; 1: failed, or the audit found something; 2: wrong usage or configuration.
pub async fn run(cli: Cli) -> ExitCode {
    let _log = logs::start();
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            logs::complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    let done = match cli.command {
        None | Some(Command::Serve) => serve(&config).await,
        Some(Command::Provision { world }) => provision_world(&config, &world).await,
        Some(Command::Credit { account, amount, key, reason }) => {
            credit_account(&config, account, amount, key, reason).await
        }
        Some(Command::Audit) => audit_all(&config).await,
        Some(Command::Failures) => failures(&config).await,
        Some(Command::Demo { demo: Demo::Call { to, seconds } }) => demo_call(&config, &to, seconds).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            logs::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Allows as many open files as the system lets this process have: each connection is one, and the usual first limit is 1,024.
fn may_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, current = limit.current, "no more files can be opened than now");
    }
}

async fn serve(config: &Config) -> anyhow::Result<bool> {
    // First: from the first line on it can be told to end.
    let mut signals = Signals::listen()?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    may_open_files();
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        // What was acknowledged is stored, as it is when a process is killed.
        () = signals.told_to_end() => {
            tracing::info!("told to end before it had started");
            return Ok(true);
        }
    };
    // Whoever cannot be shown it is no reason to end.
    if let Err(error) = writeln!(std::io::stdout(), "{}", server.screen()) {
        tracing::warn!(%error, "the screen could not be shown");
    }
    let is_well = tokio::select! {
        () = signals.told_to_end() => {
            tracing::info!("no more calls are let in; live calls stay for the next start");
            true
        }
        error = server.failed() => {
            tracing::error!("{error:#}");
            false
        }
    };
    tokio::select! {
        stopped = server.stop() => stopped.map(|()| is_well),
        // What was acknowledged is stored, and nothing else is waited for.
        () = signals.told_to_end() => {
            tracing::warn!("told to end while it ends: ending without what is not written yet");
            Ok(false)
        }
    }
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns at the next one.
    async fn told_to_end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn provision_world(config: &Config, path: &Path) -> anyhow::Result<bool> {
    let bar = demo::progress_bar("accounts");
    let update = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let world = World::load(path)?;
    for warning in world.warnings() {
        tracing::warn!("{warning}");
    }
    let done = match data::lock(&config.data_dir)? {
        Some(_lock) => provision_directly(config, &world, &mut |done, all| update(done, all)).await?,
        None => provision_running(config, path, update).await?,
    };
    bar.finish_and_clear();
    let Provisioned { domain, operators, carriers, rate_decks, accounts, accounts_existed, differing } = done;
    println!(
        "created {operators} operators, {carriers} carriers, {rate_decks} rate decks and {accounts} accounts; \
         {accounts_existed} accounts were there already (data_dir {}, sip.domain {domain})",
        config.data_dir.display()
    );
    differing.iter().for_each(|line| println!("{line}"));
    Ok(true)
}

/// No server runs: the store is ours.
async fn provision_directly(
    config: &Config,
    world: &World,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> anyhow::Result<Provisioned> {
    let (store, clock, mut entropy) = (data::open(config).await?, clock::system(), server::system_entropy()?);
    let brand = provision::brand(&store, &config.sip.domain, &mut entropy, clock().wall).await?;
    let mut provisioning = Provisioning { store: &store, brand: &brand, clock: &clock, entropy };
    let done = provisioning.apply(world, progress).await;
    store.close().await;
    done
}

/// A running server does it, so that its actors know.
async fn provision_running(config: &Config, path: &Path, update: impl Fn(u64, u64)) -> anyhow::Result<Provisioned> {
    let (world, files) = World::texts(path)?;
    let mut client = connect(config).await?;
    client.send(&Request::Provision { world, files }).await?;
    loop {
        match client.reply().await? {
            Some(Reply::Progress(done, all)) => update(done, all),
            Some(Reply::Provisioned(done)) => return Ok(done),
            Some(Reply::Failed(why)) => bail!(why),
            _ => bail!("the server went away"),
        }
    }
}

async fn connect(config: &Config) -> anyhow::Result<Client> {
    let client = Client::connect(&config.data_dir).await.context("the running server cannot be reached")?;
    client.context("no server runs on this data folder, or it cannot be reached")
}

async fn credit_account(
    config: &Config,
    account: String,
    amount: String,
    key: String,
    reason: String,
) -> anyhow::Result<bool> {
    must_be_there(config, "to credit")?;
    let (available, repeated) = match data::lock(&config.data_dir)? {
        Some(_lock) => credit_directly(config, &account, &amount, &key, &reason).await?,
        None => credit_running(config, Request::Credit { account, amount, key, reason }).await?,
    };
    println!("{}available {available}", if repeated { "this key was used before, nothing was posted; " } else { "" });
    Ok(true)
}

async fn credit_running(config: &Config, request: Request) -> anyhow::Result<(String, bool)> {
    let mut client = connect(config).await?;
    client.send(&request).await?;
    match client.reply().await? {
        Some(Reply::Credited { available, repeated }) => Ok((available, repeated)),
        Some(Reply::Failed(why)) => bail!(why),
        _ => bail!("the server went away"),
    }
}

/// No server runs: the account's actor is started for this alone, without a SIP edge.
async fn credit_directly(
    config: &Config,
    account: &str,
    amount: &str,
    key: &str,
    reason: &str,
) -> anyhow::Result<(String, bool)> {
    let store = data::open(config).await?;
    let journal = Journal::start(&store, JournalOptions::default());
    let (legs, _) = mpsc::channel(1);
    let (edge, _) = mpsc::channel(1);
    let actors_config =
        ActorsConfig { boot: clock::boot_id(), takes_up_what_was_live: false, ..ActorsConfig::default() };
    let entropy = server::system_entropy()?;
    let actors = Actors::start(actors_config, store.clone(), journal, clock::system(), entropy, legs, edge).await?;
    let posted = async {
        let account = credit::account(&store, account).await?;
        let credited = actors.credit(account, credit::by_operator(amount, key, reason)?).await?;
        let balance = actors.view(account).await?.balance;
        Ok((format!("{} {}", balance.available, balance.currency), credited.replayed))
    };
    let posted = posted.await;
    actors.drain(DRAIN_LIMIT).await;
    actors.stop();
    store.close().await;
    posted
}

/// For commands that work on what is there: opening a data folder that is not there would make it.
fn must_be_there(config: &Config, what_for: &str) -> anyhow::Result<()> {
    if !config.data_dir.join("keys.db").exists() {
        bail!("data_dir {}: has no keys.db, so there is nothing {what_for}", config.data_dir.display());
    }
    Ok(())
}

async fn audit_all(config: &Config) -> anyhow::Result<bool> {
    must_be_there(config, "to audit")?;
    let store = data::open(config).await?;
    let bar = demo::progress_bar("accounts");
    let report = audit(&store, |progress| {
        bar.set_length(progress.of);
        bar.set_position(progress.done);
    })
    .await;
    bar.finish_and_clear();
    store.close().await;
    let report = report?;
    println!(
        "{} accounts, {} transfers, {} holds, {} live calls, {} CDRs, {} events",
        report.accounts, report.transfers, report.holds, report.live_calls, report.cdrs, report.events
    );
    for breach in &report.told {
        println!("{}: account {}: {}", breach.invariant.as_str(), breach.account.0, breach.what);
    }
    println!("{}", if report.is_clean() { String::from("clean") } else { format!("{} breaches", report.breaches) });
    Ok(report.is_clean())
}

async fn failures(config: &Config) -> anyhow::Result<bool> {
    let mut client = connect(config).await?;
    client.send(&Request::Failures).await?;
    match client.reply().await? {
        Some(Reply::Lines(lines)) => lines.iter().for_each(|line| println!("{line}")),
        Some(Reply::Failed(why)) => bail!(why),
        _ => bail!("the server went away"),
    }
    Ok(true)
}

async fn demo_call(config: &Config, to: &str, seconds: u64) -> anyhow::Result<bool> {
    let entropy = server::system_entropy()?;
    demo::call(&config.data_dir, to, Duration::from_secs(seconds), clock::system(), entropy).await
}
