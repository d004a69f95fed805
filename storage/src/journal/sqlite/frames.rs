//! Which frames of the write-ahead log are held back and written together. SQLite writes each by two calls, its header and its
//! page; a batch has hundreds, and most of what the kernel does for a small write it does once for many.
//!
//! All frames of a commit come one behind the other, and nothing else in between. With the last one all are with the kernel,
//! before SQLite makes them visible; a write that fails takes with it what was held. So nothing is ever held that others could
//! miss, or that could be written over what they wrote meanwhile. It stands on `cache_spill=off`: a frame written before its
//! commit would be held through a rollback, of which the log's file hears nothing.

use rusqlite::ffi;
use std::ffi::c_int;

/// SQLite's file format: "The Write-Ahead Log".
const LOG_HEADER: i64 = 32;
const HEADER: usize = 24;
/// SQLite's files take less than 128 KB at once: 31 frames with pages of 4 KB.
const HELD_MAX: usize = 131_071;

/// Frames that are held back, one behind the other.
pub(super) struct Frames {
    held: Vec<u8>,
    /// Where they belong in the log.
    at: i64,
    /// Where what was written or held last ends: a frame that does not begin there is not held.
    end: i64,
    /// A header was the last, and its page is next.
    page_next: bool,
    /// That frame is the last of its transaction.
    commits: bool,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { held: Vec::with_capacity(HELD_MAX), at: 0, end: 0, page_next: false, commits: false }
    }

    /// Takes a write. `through` writes to the log itself.
    ///
    /// # Errors
    /// SQLite's codes, of `through` or of [`Self::rest`]; what was held is gone then, as if that write had failed.
    pub(super) fn write(
        &mut self,
        at: i64,
        bytes: &[u8],
        through: impl FnOnce(i64, &[u8]) -> Result<(), c_int>,
    ) -> Result<(), c_int> {
        let follows = at == self.end && at >= LOG_HEADER;
        let page_next = std::mem::take(&mut self.page_next);
        if follows && !page_next && bytes.len() == HEADER {
            // "For commit records, the size of the database file in pages after the commit. For all other records, zero."
            self.commits = bytes[4..8] != [0; 4];
            self.page_next = true;
            self.hold(at, bytes);
            return Ok(());
        }
        if follows && page_next {
            self.hold(at, bytes);
            if self.commits || self.held.len() + HEADER + bytes.len() > HELD_MAX {
                let written = through(self.at, &self.held);
                self.held.clear();
                return written;
            }
            return Ok(());
        }
        self.rest()?;
        through(at, bytes)?;
        self.end = end(at, bytes);
        Ok(())
    }

    fn hold(&mut self, at: i64, bytes: &[u8]) {
        if self.held.is_empty() {
            self.at = at;
        }
        self.held.extend_from_slice(bytes);
        self.end = end(at, bytes);
    }

    /// Something else is done with the log.
    ///
    /// # Errors
    /// `SQLITE_IOERR` when something is held, which is gone then.
    pub(super) fn rest(&mut self) -> Result<(), c_int> {
        self.page_next = false;
        if self.held.is_empty() {
            return Ok(());
        }
        self.held.clear();
        Err(ffi::SQLITE_IOERR)
    }
}

fn end(at: i64, bytes: &[u8]) -> i64 {
    at.saturating_add_unsigned(bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that notes how it was written.
    #[derive(Default)]
    struct Log {
        bytes: Vec<u8>,
        writes: Vec<(i64, usize)>,
    }

    impl Log {
        fn write(&mut self, at: i64, bytes: &[u8]) -> Result<(), c_int> {
            let from = usize::try_from(at).expect("in the log");
            self.bytes.resize(self.bytes.len().max(from + bytes.len()), 0);
            self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
            self.writes.push((at, bytes.len()));
            Ok(())
        }
    }

    const PAGE: usize = 4_096;
    const FRAME: usize = HEADER + PAGE;

    fn at(frame: usize) -> i64 {
        LOG_HEADER + i64::try_from(frame * FRAME).expect("small")
    }

    fn header(commits: bool, mark: u8) -> [u8; HEADER] {
        let mut header = [mark; HEADER];
        header[4..8].copy_from_slice(&u32::from(commits).to_be_bytes());
        header
    }

    /// Writes one frame through `frames`, and at once into the log as it should be.
    fn frame(frames: &mut Frames, log: &mut Log, expected: &mut Log, number: usize, commits: bool) {
        let mark = u8::try_from(number % 251).expect("small");
        let page = [mark; PAGE];
        for (at, bytes) in [(at(number), &header(commits, mark)[..]), (at(number) + 24, &page[..])] {
            expected.write(at, bytes).expect("written");
            frames.write(at, bytes, |at, bytes| log.write(at, bytes)).expect("written");
        }
    }

    fn begun() -> (Frames, Log, Log) {
        let (mut frames, mut log, mut expected) = (Frames::new(), Log::default(), Log::default());
        let begins = [7; 32];
        expected.write(0, &begins).expect("written");
        frames.write(0, &begins, |at, bytes| log.write(at, bytes)).expect("written");
        log.writes.clear();
        (frames, log, expected)
    }

    #[test]
    fn the_frames_of_a_commit_are_written_together_and_are_all_there_at_its_end() {
        let (mut frames, mut log, mut expected) = begun();
        let mut number = 0;
        for length in [1_usize, 2, 30, 31, 32, 200] {
            log.writes.clear();
            for n in 1..=length {
                frame(&mut frames, &mut log, &mut expected, number, n == length);
                number += 1;
            }
            assert_eq!(log.bytes, expected.bytes);
            assert_eq!(log.writes.len(), length.div_ceil(31), "{length} frames");
            assert!(log.writes.iter().all(|(_, written)| *written < 131_072));
        }
    }

    #[test]
    fn what_is_no_frame_behind_the_last_is_written_as_it_comes() {
        let (mut frames, mut log, mut expected) = begun();
        let mut both = |at: i64, bytes: &[u8]| {
            expected.write(at, bytes).expect("written");
            frames.write(at, bytes, |at, bytes| log.write(at, bytes)).expect("written");
            assert_eq!(log.bytes, expected.bytes);
        };
        // The first frame of a log that was there already, a header that is written again, a log that begins anew.
        both(at(5), &header(false, 1));
        both(at(5) + 24, &[3; PAGE]);
        both(at(2), &header(true, 4));
        both(0, &[5; 32]);
        assert_eq!(frames.rest(), Ok(()));
    }

    #[test]
    fn whatever_comes_between_the_frames_of_a_commit_is_an_error_and_they_are_gone() {
        let begins = |commits| {
            let (mut frames, mut log, mut expected) = begun();
            frame(&mut frames, &mut log, &mut expected, 0, commits);
            (frames, log)
        };
        let (mut frames, _) = begins(true);
        assert_eq!(frames.rest(), Ok(()), "a commit leaves nothing behind");
        let (mut frames, log) = begins(false);
        assert_eq!((frames.rest(), frames.rest()), (Err(ffi::SQLITE_IOERR), Ok(())));
        assert!(log.writes.is_empty());
        let (mut frames, log) = begins(false);
        assert_eq!(frames.write(at(0), &header(true, 1), |_, _| Ok(())), Err(ffi::SQLITE_IOERR));
        assert_eq!(frames.rest(), Ok(()));
        assert!(log.writes.is_empty());
    }

    #[test]
    fn a_write_that_fails_fails_the_commit_and_leaves_nothing_held() {
        let (mut frames, mut log, mut expected) = begun();
        frame(&mut frames, &mut log, &mut expected, 0, false);
        frames.write(at(1), &header(true, 1), |_, _| panic!("it is held")).expect("held");
        let full = |_: i64, bytes: &[u8]| {
            assert_eq!(bytes.len(), 2 * FRAME);
            Err(ffi::SQLITE_FULL)
        };
        assert_eq!(frames.write(at(1) + 24, &[1; PAGE], full), Err(ffi::SQLITE_FULL));
        assert_eq!(frames.rest(), Ok(()));
        // The next commit takes the same place.
        let mut expected = Log { bytes: log.bytes.clone(), writes: Vec::new() };
        frame(&mut frames, &mut log, &mut expected, 0, false);
        frame(&mut frames, &mut log, &mut expected, 1, true);
        assert_eq!(log.bytes, expected.bytes);
    }

    #[test]
    fn pages_of_any_size_are_written_whole() {
        for page in [512, 1_024, 8_192, 65_536] {
            let (mut frames, mut log, mut expected) = begun();
            let mut at = LOG_HEADER;
            for n in 0..5 {
                for bytes in [header(n == 4, n).to_vec(), vec![n; page]] {
                    expected.write(at, &bytes).expect("written");
                    frames.write(at, &bytes, |at, bytes| log.write(at, bytes)).expect("written");
                    at = end(at, &bytes);
                }
            }
            assert_eq!(log.bytes, expected.bytes);
            assert!(log.writes.iter().all(|(_, written)| *written < 131_072), "{page}");
        }
    }

    #[test]
    fn a_long_commit_that_fails_in_the_middle_is_written_over_by_the_next() {
        for then in [40, 62, 70] {
            let (mut frames, mut log, _) = begun();
            let mut failed = false;
            for number in 0..70 {
                let page = [9; PAGE];
                for (at, bytes) in [(at(number), &header(number == 69, 9)[..]), (at(number) + 24, &page[..])] {
                    // SQLite gives up at the first error.
                    if failed {
                        continue;
                    }
                    failed = frames
                        .write(at, bytes, |at, bytes| match log.writes.len() {
                            0 => log.write(at, bytes),
                            _ => Err(ffi::SQLITE_FULL),
                        })
                        .is_err();
                }
            }
            assert!(failed);
            // The first 31 are there and belong to nothing; the next commit begins in their place.
            let mut expected = Log { bytes: log.bytes.clone(), writes: Vec::new() };
            for number in 0..then {
                frame(&mut frames, &mut log, &mut expected, number, number == then - 1);
            }
            assert_eq!(log.bytes, expected.bytes);
            // One that begins just where the failed one was given up.
            frame(&mut frames, &mut log, &mut expected, 62, true);
            assert_eq!(log.bytes, expected.bytes);
        }
    }
}
