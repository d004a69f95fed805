//! The alarms of calls' actors: one each, of the earliest of its machine's time-outs. They stand in one order, and one task rings them: a
//! task for each would take 300 bytes a call.

use schema::time::{Clock, Mono};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Which setting of an alarm it is: no two have the same.
pub(crate) type Number = NonZeroU64;

/// Whom an alarm wakes.
pub(crate) trait Sleeper: Clone + Send + 'static {
    /// It is time, as of the setting with this number.
    fn wake(self, number: Number);
}

/// Rings alarms until it is dropped.
pub(crate) struct AlarmClock<S> {
    alarms: Arc<Alarms<S>>,
    task: AbortHandle,
}

struct Alarms<S> {
    set: Mutex<Set<S>>,
    /// Another one is the first now.
    changed: Notify,
}

struct Set<S> {
    sleepers: BTreeMap<(Mono, Number), S>,
    last: Number,
}

impl<S: Sleeper> AlarmClock<S> {
    pub(crate) fn start(clock: Clock) -> Self {
        let set = Mutex::new(Set { sleepers: BTreeMap::new(), last: Number::MIN });
        let alarms = Arc::new(Alarms { set, changed: Notify::new() });
        let task = tokio::spawn(ring(alarms.clone(), clock)).abort_handle();
        Self { alarms, task }
    }

    /// One that is not set.
    pub(crate) fn alarm(&self) -> Alarm<S> {
        Alarm { alarms: self.alarms.clone(), set: None }
    }
}

impl<S> Drop for AlarmClock<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ring<S: Sleeper>(alarms: Arc<Alarms<S>>, clock: Clock) {
    loop {
        match alarms.wake(clock().mono) {
            Some(at) => drop(tokio::time::timeout(at.since(clock().mono), alarms.changed.notified()).await),
            None => alarms.changed.notified().await,
        }
    }
}

impl<S> Alarms<S> {
    fn set(&self) -> MutexGuard<'_, Set<S>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sleeper> Alarms<S> {
    /// Wakes all whose time has come. When the next one is due.
    fn wake(&self, now: Mono) -> Option<Mono> {
        loop {
            let mut set = self.set();
            let first = set.sleepers.first_entry()?;
            let (at, number) = *first.key();
            if at > now {
                return Some(at);
            }
            let sleeper = first.remove();
            drop(set);
            sleeper.wake(number);
        }
    }
}

/// Set, or not. One that rang already when it was cleared or set anew is known by its number.
pub(crate) struct Alarm<S> {
    alarms: Arc<Alarms<S>>,
    set: Option<(Mono, Number)>,
}

impl<S: Sleeper> Alarm<S> {
    /// Rings at this time, and not before it; what it was set to before counts no more.
    pub(crate) fn set(&mut self, at: Option<Mono>, sleeper: &S) {
        if self.set.map(|(at, _)| at) == at {
            return;
        }
        self.clear();
        let Some(at) = at else { return };
        let mut set = self.alarms.set();
        set.last = set.last.saturating_add(1);
        let place = (at, set.last);
        let is_first = set.sleepers.first_key_value().is_none_or(|(first, _)| place < *first);
        set.sleepers.insert(place, sleeper.clone());
        drop(set);
        self.set = Some(place);
        if is_first {
            self.alarms.changed.notify_one();
        }
    }
}

impl<S> Alarm<S> {
    /// This one rang: whether it is the one that is set, which it then is no more.
    pub(crate) fn rang(&mut self, number: Number) -> bool {
        self.set.take_if(|(_, set)| *set == number).is_some()
    }

    pub(crate) fn clear(&mut self) {
        if let Some(place) = self.set.take() {
            let sleeper = self.alarms.set().sleepers.remove(&place);
            drop(sleeper);
        }
    }
}

impl<S> Drop for Alarm<S> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::time::{Now, Timestamp};
    use std::time::Duration;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::time::Instant;

    impl Sleeper for UnboundedSender<Number> {
        fn wake(self, number: Number) {
            self.send(number).expect("heard");
        }
    }

    fn virtual_clock() -> Clock {
        let start = Instant::now();
        Arc::new(move || Now { mono: Mono(0) + start.elapsed(), wall: Timestamp(0) })
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rang_before_it_was_set_anew_counts_no_more() {
        let clock = AlarmClock::start(virtual_clock());
        let (sleeper, mut woken) = unbounded_channel();
        let mut alarm = clock.alarm();
        alarm.set(Some(Mono(10_000)), &sleeper);
        let first = woken.recv().await.expect("it rings");
        alarm.clear();
        alarm.set(Some(Mono(10_000)), &sleeper);
        assert!(!alarm.rang(first), "set anew to the same time");
        let second = woken.recv().await.expect("it rings");
        assert!(alarm.rang(second) && !alarm.rang(second), "once");

        alarm.set(Some(Mono(20_000)), &sleeper);
        alarm.set(None, &sleeper);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(woken.try_recv().is_err(), "nothing is set");
    }

    #[tokio::test(start_paused = true)]
    async fn each_rings_at_its_time_in_whatever_order_they_are_set() {
        let (start, clock) = (Instant::now(), AlarmClock::start(virtual_clock()));
        let mut alarms = Vec::new();
        for after in [40_u64, 10, 30, 10, 20] {
            // The task waits for the one before by now.
            tokio::task::yield_now().await;
            let (sleeper, woken) = unbounded_channel();
            let mut alarm = clock.alarm();
            alarm.set(Some(Mono(after * 1_000_000)), &sleeper);
            alarms.push((after, alarm, woken));
        }
        alarms.sort_by_key(|(after, ..)| *after);
        for (after, alarm, woken) in &mut alarms {
            let number = woken.recv().await.expect("it rings");
            assert!(alarm.rang(number));
            assert_eq!(start.elapsed(), Duration::from_secs(*after));
        }
        drop(alarms);
        assert!(clock.alarms.set().sleepers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_dropped_wakes_nobody() {
        let clock = AlarmClock::start(virtual_clock());
        let (sleeper, mut woken) = unbounded_channel();
        let mut alarm = clock.alarm();
        alarm.set(Some(Mono(10_000)), &sleeper);
        drop((alarm, sleeper));
        assert_eq!(woken.recv().await, None, "nobody holds the sleeper either");
    }
}
