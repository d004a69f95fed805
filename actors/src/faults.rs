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
    #[expect(clippy::unused_self, reason = "nothing waits in a program that is no test")]
    pub(crate) const fn strike(&self, _: Subject, _: &'static str, _: FaultPoint) {}
}

#[cfg(any(test, feature = "faults"))]
pub use armed::Fault;
#[cfg(any(test, feature = "faults"))]
pub(crate) use armed::Faults;

#[cfg(any(test, feature = "faults"))]
mod armed {
    use super::{Context, FaultPoint, Subject};
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
}
