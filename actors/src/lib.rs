//! Accounts, calls and trunks as actors. The rules are pure files (functions of state, input and now); the actors only carry.
//!
//! ```text
//! RootSupervisor                       restarts a supervisor that fails
//! ├── AccountsSupervisor ×64           an account of key k belongs to number k mod 64
//! │   └── AccountActor                 one for each account in use; loaded on demand, sent away when idle
//! ├── CallsSupervisor
//! │   └── CallActor                    one for each live call
//! └── TrunksSupervisor
//!     └── TrunkActor                   one for each carrier gateway
//! ```
//!
//! | when it panics | what is lost | what happens |
//! |---|---|---|
//! | `AccountActor` | its mailbox; the count of the last minute's calls; which warnings were given | the journal acknowledges what was submitted, then a successor loads the rows: at once when calls are up (at most 5 times in 10 s for each supervisor), else when somebody asks. Senders ask again once; each question may be asked twice. Its calls go on. |
//! | `CallActor` | its mailbox, its timers | both legs are hung up, the call is settled for what it lasted, at most its grant. Other calls go on. |
//! | `TrunkActor` | nothing: the figures stand outside it | it is started again |
//! | `AccountsSupervisor` | its accounts' mailboxes | it is started again; each of its accounts is loaded when somebody asks |
//! | `CallsSupervisor` | the mailboxes of all calls | it is started again; all calls are ended and settled |
//! | the process | what was not acknowledged | [`Actors::start`] takes answered calls up again and settles the others |
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
//! [`dialplan`], [`deck_file`].

pub mod account;
mod admission;
pub mod call;
mod context;
pub mod deck_file;
pub mod dialplan;
mod directory;
mod edge;
mod failures;
pub mod faults;
mod gate;
pub mod hub;
pub mod poison;
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
pub use directory::AskError;
pub use hub::EventItem;
pub use system::{Actors, ActorsConfig, Counts, CreditError, HangUpError, StartError};
