//! The server's end of the admin socket.

use crate::admin::{DemoPhone, Live, LiveCall, REQUEST_MAX, Reply, Request};
use crate::provision::Provisioning;
use crate::world::World;
use crate::{credit, failures, receipt};
use actors::{Actors, LiveView};
use anyhow::{Context as _, bail};
use schema::account::SipCredential;
use schema::entropy::Entropy;
use schema::id::CredentialId;
use schema::pii::Pii;
use schema::time::{Clock, Timestamp};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::{Brand, Store};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

/// Conversations at a time.
const CONVERSATIONS: usize = 16;
/// After a failure to accept: no file may be left for the socket.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// SIP username of the built-in test phone.
const DEMO_PHONE: &str = "demo-phone";

/// What the commands work on.
pub(crate) struct Admin {
    /// The data.
    pub(crate) store: Store,
    /// The accounts.
    pub(crate) actors: Actors,
    /// The brand.
    pub(crate) brand: Brand,
    /// For times.
    pub(crate) clock: Clock,
    /// For identities.
    pub(crate) entropy: Mutex<Entropy>,
    /// Where the test phone calls; development mode only.
    pub(crate) phone_server: Option<SocketAddr>,
}

/// Opens the socket. Whoever connects is answered when it is served.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    // The folder's lock is ours, so a socket that is there belongs to nobody.
    let _ = std::fs::remove_file(path);
    let made = UnixListener::bind(path).and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Serves it until it is dropped.
///
/// # Errors
/// Never.
pub(crate) async fn serve(listener: UnixListener, admin: Arc<Admin>) -> anyhow::Result<()> {
    let conversations = Arc::new(Semaphore::new(CONVERSATIONS));
    loop {
        let permit = conversations.clone().acquire_owned().await?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a command could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let _permit = permit;
            converse(stream, &admin).await;
        });
    }
}

async fn converse(stream: UnixStream, admin: &Arc<Admin>) {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let read = BufReader::new(read).take(REQUEST_MAX).read_until(b'\n', &mut line).await;
    if read.is_err() {
        return;
    }
    let (replies, mut outgoing) = mpsc::channel(64);
    let answering = async {
        let answered = match serde_json::from_slice(&line) {
            Ok(request) => admin.answer(request, &replies).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = answered {
            let _ = replies.send(Reply::Failed(format!("{error:#}"))).await;
        }
        drop(replies);
    };
    let writing = async {
        while let Some(reply) = outgoing.recv().await {
            let Ok(mut line) = serde_json::to_vec(&reply) else { return };
            line.push(b'\n');
            if write.write_all(&line).await.is_err() {
                return;
            }
        }
    };
    // Writing ends when all is written, or when the other side is gone: then the answer is not wanted any more.
    let never_first = async {
        answering.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = writing => {}
        () = never_first => {}
    }
}

/// Has what was stored taken into use when provisioning is given up half-way, because nobody waits for its answer any more.
struct Stored(Option<Actors>);

impl Drop for Stored {
    fn drop(&mut self) {
        let (Some(actors), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            if let Err(error) = actors.change_tariffs().await {
                tracing::error!(%error, "decks and carriers that were stored are not in use yet");
            }
        });
    }
}

impl Admin {
    fn entropy(&self) -> Entropy {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    async fn answer(&self, request: Request, replies: &mpsc::Sender<Reply>) -> anyhow::Result<()> {
        match request {
            Request::Provision { world, files } => {
                let world = World::of_texts(&world, &files)?;
                let progress = replies.clone();
                let entropy = self.entropy();
                let mut provisioning =
                    Provisioning { store: &self.store, brand: &self.brand, clock: &self.clock, entropy };
                let mut stored = Stored(Some(self.actors.clone()));
                let done = provisioning
                    .apply(&world, &mut |done, all| {
                        let _ = progress.try_send(Reply::Progress(done, all));
                    })
                    .await;
                // Also after a failure: decks and carriers may be stored all the same.
                let changed = self.actors.change_tariffs().await;
                stored.0 = None;
                let done = done?;
                changed?;
                replies.send(Reply::Provisioned(done)).await?;
            }
            Request::Credit { account, amount, key, reason } => {
                let account = credit::account(&self.store, &account).await?;
                let credited = self.actors.credit(account, credit::by_operator(&amount, &key, &reason)?).await?;
                let view = self.actors.view(account).await?;
                let available = format!("{} {}", view.balance.available, view.balance.currency);
                replies.send(Reply::Credited { available, repeated: credited.replayed }).await?;
            }
            Request::DemoPhone => replies.send(Reply::DemoPhone(self.demo_phone().await?)).await?,
            Request::Watch { account } => self.watch(&account, replies).await?,
            Request::Failures => replies.send(Reply::Lines(failures::lines(&self.actors))).await?,
            Request::LastCall { account } => {
                let account = credit::account(&self.store, &account).await?;
                replies.send(Reply::Lines(receipt::last_call(&self.store, account).await?)).await?;
            }
        }
        Ok(())
    }

    /// A credential of the demo customer's account for the test phone, made anew each time so that no secret is kept.
    async fn demo_phone(&self) -> anyhow::Result<DemoPhone> {
        let Some(server) = self.phone_server else { bail!("the test phone calls a server in development mode only") };
        let Some(demo) = self.store.credential(crate::development::SIP_USERNAME).await? else {
            bail!("this data folder has no demo customer")
        };
        if let Some(before) = self.store.credential(DEMO_PHONE).await? {
            self.store.revoke_credential(before.id).await?;
            self.actors.credential_revoked(before.id);
        }
        let at = (self.clock)().wall;
        let (id, password) = self.secret(at);
        let credential = SipCredential {
            id,
            account: demo.account,
            username: DEMO_PHONE.into(),
            label: Pii::new(String::from("Test phone")),
            secret: Pii::new(sip::digest::ha1(DEMO_PHONE, &self.brand.realm, &password)),
            created_at: at,
        };
        self.store.create_credential(&credential).await?;
        let profile = self.store.account_profile(demo.account).await?.context("the demo account is gone")?;
        Ok(DemoPhone {
            account: profile.id.to_string(),
            username: DEMO_PHONE.to_owned(),
            password,
            domain: self.brand.domain.clone(),
            server,
        })
    }

    fn secret(&self, at: Timestamp) -> (CredentialId, String) {
        let mut entropy = self.entropy();
        (CredentialId::generate(&mut entropy, at), entropy.word(20))
    }

    async fn watch(&self, account: &str, replies: &mpsc::Sender<Reply>) -> anyhow::Result<()> {
        let account = credit::account(&self.store, account).await?;
        let mut figures = self.actors.watch(account).await?;
        loop {
            let live = live(&figures.borrow_and_update(), (self.clock)().wall);
            replies.send(Reply::Live(live)).await?;
            figures.changed().await?;
        }
    }
}

fn live(view: &LiveView, at: Timestamp) -> Live {
    let balance = &view.balance;
    let calls = view.live_calls.iter().map(|call| LiveCall {
        state: receipt::word(&call.state),
        seconds: call.answered_at.map_or(0, |answered| at.since(answered).as_secs()),
        cost: call.cost.to_string(),
    });
    Live {
        currency: balance.currency.to_string(),
        remaining: balance.remaining.to_string(),
        reserved: balance.reserved.to_string(),
        available: balance.available.to_string(),
        calls: calls.collect(),
    }
}
