//! The one timer of a call's actor, of the earliest of the machine's time-outs.

use schema::time::Mono;
use tokio::task::AbortHandle;

/// Set, or not. One that rang already when it was cleared or set anew is known by its number.
#[derive(Default)]
pub(crate) struct Alarm {
    number: u64,
    set: Option<(Mono, AbortHandle)>,
}

impl Alarm {
    /// Rings at this time, and not before it; what it was set to before counts no more. `ring` is told its number.
    pub(crate) fn set(&mut self, at: Option<Mono>, now: Mono, ring: impl FnOnce(u64) + Send + 'static) {
        if self.set.as_ref().map(|(at, _)| *at) == at {
            return;
        }
        self.clear();
        let Some(at) = at else { return };
        self.number += 1;
        let (wait, number) = (at.since(now), self.number);
        let task = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            ring(number);
        });
        self.set = Some((at, task.abort_handle()));
    }

    /// This one rang: whether it is the one that is set, which it then is no more.
    pub(crate) fn rang(&mut self, number: u64) -> bool {
        number == self.number && self.set.take().is_some()
    }

    pub(crate) fn clear(&mut self) {
        if let Some((_, task)) = self.set.take() {
            task.abort();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_that_rang_before_it_was_set_anew_counts_no_more() {
        let (rings, mut rung) = tokio::sync::mpsc::unbounded_channel();
        let mut alarm = Alarm::default();
        let set = |alarm: &mut Alarm, at| {
            let rings = rings.clone();
            alarm.set(at, Mono(0), move |number| rings.send(number).expect("heard"));
        };
        set(&mut alarm, Some(Mono(10_000)));
        let first = rung.recv().await.expect("it rings");
        alarm.clear();
        set(&mut alarm, Some(Mono(10_000)));
        assert!(!alarm.rang(first), "set anew to the same time");
        let second = rung.recv().await.expect("it rings");
        assert!(alarm.rang(second) && !alarm.rang(second), "once");

        set(&mut alarm, Some(Mono(20_000)));
        set(&mut alarm, None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(rung.try_recv().is_err(), "nothing is set");
    }
}
