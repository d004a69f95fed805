//! Which leg has the dialog of a message.

use super::Core;
use super::leg::Leg;
use crate::key::last_eight;
use schema::leg::LegId;
use std::collections::BTreeSet;

/// The legs by the end of their tag, which is random and ours: mostly there is one. Whether it is that dialog's, its leg knows. `None` is no
/// leg, but before all with that end.
#[derive(Default)]
pub(super) struct Dialogs(BTreeSet<(u64, Option<LegId>)>);

impl Dialogs {
    pub(super) fn insert(&mut self, our_tag: &str, leg: LegId) {
        self.0.insert((last_eight(our_tag), Some(leg)));
    }

    pub(super) fn remove(&mut self, our_tag: &str, leg: LegId) {
        self.0.remove(&(last_eight(our_tag), Some(leg)));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn with_end_of(&self, our_tag: &str) -> impl Iterator<Item = LegId> {
        let end = last_eight(our_tag);
        self.0.range((end, None)..).take_while(move |(of, _)| *of == end).filter_map(|(_, leg)| *leg)
    }
}

impl Core {
    /// The leg whose dialog has this Call-ID and this tag of ours.
    pub(super) fn leg_with(&self, call_id: &str, our_tag: &str) -> Option<LegId> {
        let is_it = |leg: &Leg| *leg.dialog.call_id == *call_id && leg.dialog.our_tag() == our_tag;
        self.dialogs.with_end_of(our_tag).find(|id| self.legs.get(id).is_some_and(is_it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::entropy::Entropy;
    use schema::id::CallId;
    use schema::time::Timestamp;

    #[test]
    fn legs_whose_tags_end_alike_are_all_found() {
        let mut entropy = Entropy::from_number(1);
        let [one, other] = [0; 2].map(|_| LegId::a(CallId::generate(&mut entropy, Timestamp(0))));
        let mut dialogs = Dialogs::default();
        for (tag, leg) in [("a01234567", one), ("b01234567", other), ("01234568", one), ("", other)] {
            dialogs.insert(tag, leg);
        }
        let found = |dialogs: &Dialogs, tag: &str| dialogs.with_end_of(tag).collect::<Vec<_>>();
        assert_eq!(found(&dialogs, "c01234567"), [one.min(other), one.max(other)]);
        assert_eq!((found(&dialogs, "01234568"), found(&dialogs, "")), (vec![one], vec![other]));
        dialogs.remove("a01234567", one);
        assert_eq!((found(&dialogs, "a01234567"), dialogs.len()), (vec![other], 3));
    }
}
