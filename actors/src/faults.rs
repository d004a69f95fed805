//! Panics on purpose, for tests: at which point of the message loop an actor's next message strikes. Without the feature
//! `faults` nothing of it is compiled but the names of the points.

use crate::context::Context;
use crate::poison::Subject;

/// Where in the handling of a message it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// Before anything was decided.
    Received,
    /// After the decision, before anything left the actor: its entry is not submitted, its leg commands are not told.
    Decided,
    /// After all of it left the actor.
    Done,
}

impl Context {
    /// Panics when a fault waits here.
    #[cfg(not(any(test, feature = "faults")))]
    pub(crate) const fn strike(&self, _: Subject, _: &'static str, _: FaultPoint) {}
}

#[cfg(any(test, feature = "faults"))]
pub use armed::Fault;
#[cfg(any(test, feature = "faults"))]
pub(crate) use armed::Faults;

#[cfg(any(test, feature = "faults"))]
mod armed {
    use super::{Context, FaultPoint, Subject};
    use crate::account::AccountMsg;
    use crate::call::CallMsg;
    use crate::supervisor::TrunksMsg;
    use crate::system::Actors;
    use schema::id::{AccountKey, CallId, TrunkId};
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    /// A panic that waits for its moment.
    #[derive(Debug, Clone, Copy)]
    pub struct Fault {
        /// Where.
        pub point: FaultPoint,
        /// At which kind of message; `None`: at any.
        pub kind: Option<&'static str>,
        /// So many times.
        pub times: u32,
    }

    /// Faults that wait, by whom they strike; one each.
    #[derive(Debug, Default)]
    pub(crate) struct Faults(Mutex<BTreeMap<Subject, Fault>>);

    impl Faults {
        pub(crate) fn arm(&self, subject: Subject, fault: Fault) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(subject, fault);
        }

        pub(crate) fn disarm(&self) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }

        fn takes(&self, subject: Subject, kind: &'static str, point: FaultPoint) -> bool {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(fault) = waiting.get_mut(&subject) else { return false };
            if fault.point != point || fault.kind.is_some_and(|wanted| wanted != kind) {
                return false;
            }
            fault.times -= 1;
            if fault.times == 0 {
                waiting.remove(&subject);
            }
            true
        }
    }

    impl Context {
        /// Panics when a fault waits here.
        pub(crate) fn strike(&self, subject: Subject, kind: &'static str, point: FaultPoint) {
            assert!(!self.faults.takes(subject, kind, point), "a fault was injected: {point:?}, {kind}");
        }
    }

    /// Faults for tests: the next message makes the actor panic.
    impl Actors {
        /// Makes an account's actor panic, if it is loaded.
        pub fn panic_account(&self, account: AccountKey) {
            if let Some(actor) = self.ctx.directory.loaded(account) {
                let _ = actor.send_message(AccountMsg::Panic);
            }
        }

        /// Makes a call's actor panic, if it is live.
        pub fn panic_call(&self, call: CallId) {
            if let Some(entry) = self.ctx.directory.call(call) {
                let _ = entry.actor.send_message(CallMsg::Panic);
            }
        }

        /// Makes a trunk's actor panic, if there is one.
        pub fn panic_trunk(&self, trunk: TrunkId) {
            self.ctx.supervisors.tell_trunks(TrunksMsg::Panic(Some(trunk)));
        }

        /// Makes the supervisor of an account panic; all loaded accounts of it end with it.
        pub fn panic_supervisor_of(&self, account: AccountKey) {
            self.ctx.supervisors.panic_accounts(crate::failures::shard(account));
        }

        /// Makes the trunks' supervisor panic.
        pub fn panic_trunks_supervisor(&self) {
            self.ctx.supervisors.tell_trunks(TrunksMsg::Panic(None));
        }

        /// Has an actor panic when it handles its next message that fits, where the fault says; instead of a fault that waits.
        pub fn arm(&self, subject: Subject, fault: Fault) {
            self.ctx.faults.arm(subject, fault);
        }

        /// Takes back all faults that wait.
        pub fn disarm(&self) {
            self.ctx.faults.disarm();
        }
    }
}
