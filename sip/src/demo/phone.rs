//! The test phone: registers, calls with digest, answers what a phone must answer, and reports what it sees. It takes reliable
//! provisional responses where it is told to, and changes its sessions.

mod call;
mod client;
mod early;

use super::{Actions, Endpoint, Repeat, Timers};
use crate::message::{HeaderName, Message, Method, NameAddr, RAck, Uri};
use crate::sdp::Origin;
use bytes::Bytes;
use schema::entropy::Entropy;
use schema::pii::Pii;
use schema::time::Mono;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Times a request is sent again with credentials.
const MAX_CHALLENGES: u8 = 2;

/// Whose phone it is and where.
#[derive(Debug, Clone)]
pub struct PhoneConfig {
    /// The server, also the first hop of every request whose target is a name.
    pub server: SocketAddr,
    /// The domain of its addresses.
    pub domain: Box<str>,
    /// Where the phone itself is.
    pub address: SocketAddr,
    /// Digest username, also the user of its address.
    pub username: Box<str>,
    /// Its password.
    pub password: Pii<Box<str>>,
    /// Seconds a registration is asked for.
    pub expires_s: u32,
    /// Most calls at a time; more fail with 503.
    pub most_calls: usize,
    /// Its INVITEs say that it takes reliable provisional responses (RFC 3262), and UPDATE.
    pub takes_reliable: bool,
}

/// A call of this phone; chosen by whoever commands it, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneCall(pub u64);

/// What the phone is told.
#[derive(Debug, Clone)]
pub enum PhoneCommand {
    /// Register, and again before it ends.
    Register,
    /// Remove the registration.
    Unregister,
    /// Call a number.
    Call {
        /// The new call.
        call: PhoneCall,
        /// User part of the Request-URI.
        number: Pii<Box<str>>,
    },
    /// Offer another session, on hold or back: re-INVITE in a call, UPDATE before the answer (RFC 3311) where that is allowed. What
    /// is not possible now is not done.
    Change {
        /// Which.
        call: PhoneCall,
    },
    /// End a call: CANCEL before the answer, BYE behind it.
    HangUp {
        /// Which.
        call: PhoneCall,
    },
}

/// What the phone reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhoneEvent {
    /// The server accepted the registration.
    Registered {
        /// Seconds granted; 0 when removed.
        expires_s: u32,
    },
    /// It did not; 408 when nothing came.
    RegistrationFailed {
        /// Final status.
        status: u16,
    },
    /// A provisional response above 100.
    Progress {
        /// Which.
        call: PhoneCall,
        /// 180, 183 …
        status: u16,
        /// Whether it has a session description.
        early_media: bool,
    },
    /// Answered, and acknowledged by us.
    Answered {
        /// Which.
        call: PhoneCall,
    },
    /// An offer of the phone was answered.
    Changed {
        /// Which.
        call: PhoneCall,
        /// Final status.
        status: u16,
    },
    /// Not answered.
    Failed {
        /// Which.
        call: PhoneCall,
        /// Final status; 408 when nothing came, 487 after our CANCEL.
        status: u16,
    },
    /// An answered call is over.
    Ended {
        /// Which.
        call: PhoneCall,
        /// Whether the phone hung up.
        by_phone: bool,
        /// Q.850 cause of the server's BYE.
        q850: Option<u16>,
    },
}

/// Where a call stands.
///
/// ```text
/// Calling ──(1xx)──▶ Ringing ──(2xx)──▶ Up ──(BYE from them)──▶ Over
///    └──────(final)─────┴─▶ Over         └──▶ Ending ──(200)──▶ Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Calling,
    Ringing,
    Up,
    Ending,
    Over,
}

struct Call {
    dialog: Dialog,
    stage: Stage,
    /// Hung up before the answer.
    unwanted: bool,
    invite: u64,
    /// The ACK of each 2xx by its CSeq number, and where it went, for repetitions of the 2xx.
    acks: BTreeMap<u32, (SocketAddr, Bytes)>,
    origin: Origin,
    early: early::Early,
    /// It is on hold, as the phone has offered last.
    held: bool,
    /// Branch of the BYE that ended it.
    ended_by: Option<Box<str>>,
}

/// What requests of one dialog, or of the registration, have in common.
#[derive(Clone)]
struct Dialog {
    call_id: Box<str>,
    from: NameAddr,
    to: NameAddr,
    target: Uri,
    routes: Vec<NameAddr>,
    cseq: u32,
}

impl Dialog {
    /// What a response says of the far end (RFC 3261 §12.1.2).
    fn begin(&mut self, response: &Message) {
        self.to = response.to();
        if let Some(contact) = response.contact() {
            self.target = contact.uri;
        }
        self.routes = response.record_routes().into_iter().rev().collect();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Call(PhoneCall),
    Registration,
}

/// What differs between the requests of one dialog.
#[derive(Clone)]
struct Outgoing {
    method: Method,
    expires_s: Option<u32>,
    body: Option<Bytes>,
    /// Header and value of the credentials.
    authorization: Option<(HeaderName, String)>,
    /// What a PRACK acknowledges.
    rack: Option<RAck>,
    /// CSeq number of an ACK: its INVITE's.
    cseq: Option<u32>,
    /// An offer within the dialog.
    is_change: bool,
}

impl Outgoing {
    const fn new(method: Method) -> Self {
        Self { method, expires_s: None, body: None, authorization: None, rack: None, cseq: None, is_change: false }
    }
}

/// A request under way.
struct Pending {
    owner: Owner,
    outgoing: Outgoing,
    branch: Box<str>,
    to: SocketAddr,
    bytes: Bytes,
    challenges: u8,
    provisional: bool,
    /// What is repeated now: the request, or its CANCEL.
    repeat: Option<(Bytes, Repeat)>,
    due: Option<Mono>,
    /// The ACK of a final response, for its repetitions.
    ack: Option<Bytes>,
}

impl Pending {
    fn is_change_of(&self, call: PhoneCall) -> bool {
        self.outgoing.is_change && self.owner == Owner::Call(call)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Pending(u64),
    Linger(PhoneCall),
    Refresh,
}

/// One address of record with many calls.
pub struct Phone {
    config: PhoneConfig,
    entropy: Entropy,
    aor: Uri,
    registration: Dialog,
    calls: BTreeMap<PhoneCall, Call>,
    by_call_id: BTreeMap<Box<str>, PhoneCall>,
    pending: BTreeMap<u64, Pending>,
    next_pending: u64,
    timers: Timers<Timer>,
    refresh_at: Option<Mono>,
}

type Out = Actions<PhoneEvent>;

impl Phone {
    /// A phone that does nothing yet.
    ///
    /// # Errors
    /// When the domain is no host.
    pub fn new(config: PhoneConfig, mut entropy: Entropy) -> Result<Self, crate::message::Malformed> {
        let aor = Uri::sip(Some(&config.username), &config.domain, None)?;
        let registration = Dialog {
            call_id: entropy.hex::<16>().into(),
            from: NameAddr::new(aor.clone()).with_tag(&entropy.hex::<8>())?,
            to: NameAddr::new(aor.clone()),
            target: Uri::sip(None, &config.domain, None)?,
            routes: Vec::new(),
            cseq: 0,
        };
        Ok(Self {
            config,
            entropy,
            aor,
            registration,
            calls: BTreeMap::new(),
            by_call_id: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_pending: 0,
            timers: Timers::new(),
            refresh_at: None,
        })
    }

    /// Calls in the table, those that only answer repetitions included.
    #[must_use]
    pub fn live_calls(&self) -> usize {
        self.calls.len()
    }

    fn contact(&self) -> NameAddr {
        NameAddr::new(Uri::of_address(Some(&self.config.username), self.config.address))
    }

    fn dialog(&mut self, owner: Owner) -> Option<&mut Dialog> {
        match owner {
            Owner::Registration => Some(&mut self.registration),
            Owner::Call(call) => self.calls.get_mut(&call).map(|call| &mut call.dialog),
        }
    }

    fn media_address(&self, call: PhoneCall) -> SocketAddr {
        let port = 40_000 + 2 * u16::try_from(call.0 % 10_000).unwrap_or(0);
        SocketAddr::new(self.config.address.ip(), port)
    }
}

impl Endpoint for Phone {
    type Command = PhoneCommand;
    type Event = PhoneEvent;

    fn on_command(&mut self, command: PhoneCommand, now: Mono, actions: &mut Out) {
        match command {
            PhoneCommand::Register => {
                let expires_s = Some(self.config.expires_s);
                self.send(Owner::Registration, Outgoing { expires_s, ..Outgoing::new(Method::Register) }, now, actions);
            }
            PhoneCommand::Unregister => {
                self.refresh_at = None;
                let expires_s = Some(0);
                self.send(Owner::Registration, Outgoing { expires_s, ..Outgoing::new(Method::Register) }, now, actions);
            }
            PhoneCommand::Call { call, number } => self.place_call(call, number.expose(), now, actions),
            PhoneCommand::Change { call } => self.change(call, now, actions),
            PhoneCommand::HangUp { call } => self.hang_up(call, now, actions),
        }
    }

    fn on_datagram(&mut self, datagram: &Bytes, source: SocketAddr, now: Mono, actions: &mut Out) {
        let Ok(message) = Message::parse_datagram(datagram) else { return };
        if message.is_request() {
            self.on_request(&message.with_source(source), now, actions);
        } else {
            self.on_response(&message, now, actions);
        }
    }

    fn on_time(&mut self, now: Mono, actions: &mut Out) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Pending(number) => self.on_pending_due(number, now, actions),
                Timer::Linger(call) => self.on_linger_end(call),
                Timer::Refresh if self.refresh_at.is_some_and(|at| at <= now) => {
                    self.on_command(PhoneCommand::Register, now, actions);
                }
                Timer::Refresh => {}
            }
        }
    }

    fn next_time(&self) -> Option<Mono> {
        self.timers.next()
    }
}

/// Counts only.
impl std::fmt::Debug for Phone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Phone")
            .field("calls", &self.calls.len())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
