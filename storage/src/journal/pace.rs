//! When the writer takes its next batch: decisions alone.

use std::time::Duration;

/// What writing a batch came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) entries: usize,
    /// From when it was taken until the writer was done with it.
    pub(super) took: Duration,
    /// Entries that wait already.
    pub(super) waiting: usize,
}

/// Decides how long entries gather. Shorter than a commit and the wake-ups around it is not worth it: they cost as much as ten
/// entries.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Commit>,
    /// Whether the time between two batches grows with what comes.
    grows: bool,
}

impl Pace {
    /// Between the beginnings of two batches while entries come several at a time. Without it a call takes a fifth more processor
    /// time at 400 calls/s; with twice as long a sixth less, and a set-up half as long again.
    const BETWEEN: Duration = Duration::from_millis(1);
    /// The same at most, on a server.
    const BETWEEN_MAX: Duration = Duration::from_millis(4);
    /// So many are a batch whose commit costs little beside them.
    pub(super) const PLENTY: usize = 64;

    /// For a server, which needs as long for a statement as for fifty entries in it. With a fixed time it would spend most of a busy
    /// machine on statements; with one that grows by the root of a batch's size, so in step with the rate, calls take a third less
    /// at 2,000 a second, and as long at 600.
    pub(super) fn of_a_server() -> Self {
        Self { grows: true, ..Self::default() }
    }

    /// A batch was written.
    pub(super) fn note(&mut self, commit: Commit) {
        self.last = Some(commit);
    }

    /// After a batch of so many.
    fn between(&self, entries: usize) -> Duration {
        if !self.grows {
            return Self::BETWEEN;
        }
        Duration::from_micros((entries as u64 * 500_000).isqrt()).clamp(Self::BETWEEN, Self::BETWEEN_MAX)
    }

    /// How long to let entries gather before the next batch is looked at, at most until there are plenty; nothing while they come one
    /// by one.
    pub(super) fn pause(&self) -> Option<Duration> {
        let last = self.last.filter(|last| last.entries >= 2 && last.waiting < Self::PLENTY)?;
        Some(self.between(last.entries).saturating_sub(last.took)).filter(|pause| !pause.is_zero())
    }
}

/// How long the next batch may gather while the disk, which takes `sync` for one, is busy with the one before: written much earlier
/// it would only stand there, and what comes later would wait for the one after it.
pub(super) fn gathers(sync: Duration, wrote: Duration) -> Duration {
    sync.saturating_sub(wrote * 2)
}

/// Decides whether a writer that waits for its server waits a moment more before it takes a batch. When callers wait for their
/// answers, those of the batch before come back together within less than a commit: without a moment's patience each would find
/// the writer already gone, and every batch would be half of what it could be. When they do not come back, it is tried ever less
/// often.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How long the batch before took.
    took: Duration,
    /// Of those it told and those who waited meanwhile as many as are worth waiting for.
    wanted: usize,
    /// Batches until the next try, and how many after a try in vain.
    skip: u32,
    penalty: u32,
}

impl Patience {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(2);
    const PENALTY_MAX: u32 = 256;

    /// A batch was written. One or two that have nothing more to say are no reason to wait for them.
    pub(super) fn note(&mut self, commit: Commit) {
        self.took = commit.took;
        self.wanted = (commit.entries + commit.waiting) * 7 / 8;
    }

    /// For how many to wait, and how long at most.
    pub(super) fn linger(&mut self) -> Option<(usize, Duration)> {
        let most = (self.took / 2).min(Self::LONGEST);
        if most < Self::SHORTEST || self.wanted < 2 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some((self.wanted, most))
    }

    /// Whether they came.
    pub(super) fn lingered(&mut self, came: bool) {
        self.penalty = if came { 0 } else { (self.penalty * 2).clamp(1, Self::PENALTY_MAX) };
        self.skip = self.penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_come_several_at_a_time_are_given_a_moment_to_gather() {
        let mut pace = Pace::default();
        assert_eq!(pace.pause(), None);
        let mut after = |took: u64, entries: usize, waiting: usize| {
            pace.note(Commit { entries, took: Duration::from_micros(took), waiting });
            pace.pause()
        };
        assert_eq!(after(400, 1, 0), None, "one alone is answered at once");
        assert_eq!(after(400, 2, 0), Some(Duration::from_micros(600)));
        assert_eq!(after(400, 2, 63), Some(Duration::from_micros(600)));
        assert_eq!(after(400, 2, 64), None, "plenty are there");
        assert_eq!(after(999, 200, 0), Some(Duration::from_micros(1)));
        assert_eq!(after(1_000, 200, 0), None);
    }

    #[test]
    fn on_a_server_batches_come_the_more_seldom_the_more_there_is() {
        let mut pace = Pace::of_a_server();
        let mut between = |entries| {
            pace.note(Commit { entries, took: Duration::ZERO, waiting: 0 });
            pace.pause().map_or(0, |pause| pause.as_micros())
        };
        assert_eq!([1, 2, 3, 8, 32, 500].map(&mut between), [0, 1_000, 1_224, 2_000, 4_000, 4_000]);
        // At so many entries a millisecond it comes to rest.
        for (rate, rests) in [(2, 1_000), (3, 1_500), (6, 3_000), (20, 4_000)] {
            let mut batch = 2;
            for _ in 0..20 {
                batch = (between(batch) as usize * rate).div_ceil(1_000);
            }
            assert!(between(batch).abs_diff(rests) <= 250, "{rate}: {batch}");
        }
    }

    #[test]
    fn a_batch_gathers_until_it_can_be_written_just_in_time_for_the_disk() {
        let gathers = |sync, wrote| gathers(Duration::from_millis(sync), Duration::from_millis(wrote));
        assert_eq!(gathers(10, 1), Duration::from_millis(8));
        assert_eq!(gathers(2, 1), Duration::ZERO);
        assert_eq!(gathers(1, 5), Duration::ZERO);
    }

    #[test]
    fn a_writer_that_waits_for_its_server_waits_for_nearly_all_and_less_often_when_nobody_comes() {
        let mut patience = Patience::default();
        let after = |patience: &mut Patience, took: u64| {
            patience.note(Commit { entries: 200, took: Duration::from_micros(took), waiting: 56 });
            patience.linger()
        };
        assert_eq!(after(&mut patience, 3_000), Some((224, Duration::from_micros(1_500))));
        assert_eq!(after(&mut patience, 30_000), Some((224, Duration::from_millis(2))));
        assert_eq!(after(&mut patience, 1_900), None, "a quick server is not worth it");
        let tries = |patience: &mut Patience| (0..16).filter(|_| after(patience, 3_000).is_some()).count();
        assert_eq!(tries(&mut patience), 16);
        patience.lingered(false);
        patience.lingered(false);
        assert_eq!((after(&mut patience, 3_000), after(&mut patience, 3_000)), (None, None));
        assert_eq!(tries(&mut patience), 16);
    }
}
