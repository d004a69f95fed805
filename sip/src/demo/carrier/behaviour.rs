//! What the last two digits of a number make the test carrier do.

use std::time::Duration;

/// The table above, as shown to whoever may dial: last two digits and what happens.
pub const BEHAVIOURS: [(&str, &str); 8] = [
    ("000", "answers at once (00 to 19)"),
    ("020", "rings 2 seconds, then answers (20 to 39)"),
    ("040", "early media, answers after 5 seconds (40 to 49)"),
    ("050", "busy (50 to 59)"),
    ("060", "rings, no answer (60 to 69)"),
    ("070", "503: the carrier fails (70 to 79)"),
    ("081", "answers, hangs up after (n - 80) x 5 + 5 seconds (80 to 89)"),
    ("090", "does not exist (90 to 94); declined (95 to 99)"),
];

/// How a number is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// 180, 183 or none, at once.
    pub progress: Option<u16>,
    /// The final status.
    pub status: u16,
    /// When it is sent, after the INVITE.
    pub after: Duration,
    /// When an answered call is hung up, after the answer.
    pub hang_up_after: Option<Duration>,
}

impl Behaviour {
    /// By the last two digits of the number dialled (the table above).
    #[must_use]
    pub fn of_number(number: &str) -> Self {
        let new = |progress, status, after_s| Self {
            progress,
            status,
            after: Duration::from_secs(after_s),
            hang_up_after: None,
        };
        let two = number.len().checked_sub(2).and_then(|at| number.get(at..));
        match two.filter(|two| two.bytes().all(|b| b.is_ascii_digit())).and_then(|two| two.parse::<u64>().ok()) {
            Some(0..=19) => new(Some(180), 200, 0),
            Some(20..=39) => new(Some(180), 200, 2),
            Some(40..=49) => new(Some(183), 200, 5),
            Some(50..=59) => new(Some(180), 486, 0),
            Some(60..=69) => new(Some(180), 480, 180),
            Some(70..=79) => new(None, 503, 0),
            Some(n @ 80..=89) => {
                Self { hang_up_after: Some(Duration::from_secs((n - 80) * 5 + 5)), ..new(None, 200, 0) }
            }
            Some(90..=94) => new(None, 604, 0),
            Some(_) => new(None, 603, 0),
            None => new(None, 484, 0),
        }
    }
}
