//! Accounts, calls and trunks as actors. The rules are pure files (functions of state, input and now); the actors only carry.
//!
//! ```text
//! RootSupervisor                       restarts a supervisor that fails; gives up when that happens again and again
//! ├── AccountsSupervisor ×64           an account of key k belongs to number k mod 64
//! │   └── AccountActor                 one for each account in use; loaded on demand, sent away when idle
//! ├── TrunksSupervisor
//! │   └── TrunkActor                   one for each carrier gateway
//! └── CallActor                        one for each live call; below the root, since with a supervisor its children die
//! ```
//!
//! | when it panics | what is lost | what happens |
//! |---|---|---|
//! | `AccountActor` | its mailbox; the count of the last minute's calls; which warnings were given | the journal acknowledges what was submitted, then a successor loads the rows: at once when calls are up, else when somebody asks. Senders ask again within their time limit; each question may be asked more than once. Its calls go on. |
//! | `CallActor` | its mailbox, its timers | both legs are hung up, the call is settled: at its end when it had one, else for what it lasted, at most its grant. Other calls go on. |
//! | `TrunkActor` | the probe in hand | it is started again; its figures stand outside it |
//! | `AccountsSupervisor` | its accounts' mailboxes | it is started again; each of its accounts is loaded when somebody asks. No call ends. |
//! | `TrunksSupervisor` | probes in its mailbox | it is started again with all trunks. No call ends. |
//! | `RootSupervisor`, the process | what was not acknowledged | [`Actors::failed`] has the process end; [`Actors::start`] of the next one takes answered calls up again and settles the others |
//!
//! **Restarts** (`restarts.rs` decides, `failures.rs` remembers, outside all actors). The first panic of an account or a trunk
//! costs no rest; each further one within 10 s of the last rest doubles it, from 10 ms to 10 s. A rest up to 1 s is waited
//! for by whoever asks; during a longer one they are told [`AskError::Resting`], and callers 503. More than 50 panics in 10 s
//! below one supervisor are beyond its intensity: what fails then rests 10 s at once, the others go on. A call is never
//! restarted: an account's 4th lost call in a row has its new calls refused, for 100 ms to 10 s; more than 100 lost calls of
//! the node in 10 s have all new calls refused, and the node is not ready ([`Actors::is_ready`]), until it is quieter. More
//! than 10 failures of supervisors in 10 s end the node.
//!
//! **Messages that kill** (`poison.rs`). What an actor has in hand is known outside it as (subject, kind, what it is about).
//! The third death by the same message sets it aside for 15 minutes: it is refused with [`AskError::SetAside`], logged,
//! counted and listed ([`Actors::set_aside`]); all other messages go on. A renewal that is refused ends its call in time. A
//! settlement that is refused keeps the call's end in the call's row and its hold where it is; it is tried again when the
//! 15 minutes are over, and by recovery at the next start (`settling.rs`).
//!
//! **Mailboxes** have no limit of their own: what may be sent to them has. 256 questions of clients and 256 calls to be
//! authorized may wait for an account, 16,384 each for all of them, more are told [`AskError::Unavailable`] or 503; a call
//! asks one question at a time; beyond 256 waiting messages a call does without further 18x, checkpoints and hang-ups.
//!
//! **The way of a decision.** A message reaches the account's actor; [`account::core::AccountCore`] decides on its provisional
//! state and gives a reply and, when something durable changes, a journal entry. The actor submits the entry, applies it and
//! takes the next message; it never waits for the journal. After the commit the account's gate publishes the events and
//! sends the reply, in the order of the entries (commit, publish, reply). Refusals and reads wait for the entries that they
//! depend on. When an entry is rejected, the actor ends and its successor loads what is true.
//!
//! **The way of a call.** [`Actors::on_leg_event`] lets it in or turns it away, starts its actor, and from then on passes its
//! legs' events to it. The actor runs [`call::machine::CallCore`] and carries out its actions in order; when the machine asks
//! the account, the actor waits for the answer, with a time limit, before it takes the next message. An answered call costs
//! six messages and three journal entries; a renewal costs two messages (its timer and the question) and one entry more.
//!
//! Pure files (no async, clock, randomness or I/O): everything below `account/` and `call/`, and [`rating`], [`routing`],
//! [`dialplan`], [`deck_file`], `restarts.rs`, `poison.rs`.

pub mod account;
mod admission;
mod alarm;
pub mod call;
mod context;
mod counts;
pub mod deck_file;
pub mod dialplan;
mod directory;
mod edge;
mod failures;
pub mod faults;
mod gate;
pub mod hub;
mod keeping;
pub mod poison;
mod progress;
pub mod rating;
mod recovery;
mod restarts;
pub mod routing;
mod settling;
mod supervisor;
pub mod system;
mod trunk;
mod watches;

#[cfg(test)]
mod tests;

pub use account::authorize::{Quote, QuoteRequest};
pub use account::core::Credited;
pub use account::ledger::{Credit, CreditRefused, credit_request_hash};
pub use account::view::{AccountView, LiveView};
pub use counts::Counts;
pub use directory::AskError;
pub use hub::EventItem;
pub use system::{Actors, ActorsConfig, CreditError, HangUpError, StartError};
