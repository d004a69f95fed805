//! Bytes of a head that are not UTF-8. Phones and carriers write names and phrases in Latin-1; a message is not lost for what
//! nobody reads. In what we copy or act on such a byte is refused (RFC 3261 §7: messages are UTF-8).

use super::lexer::{Head, Start};
use super::{HeaderName, Problem};

/// Stands for such a byte. A letter of tokens, so that a display name without quotes remains one, and no mark of any grammar.
const STAND_IN: u8 = b'_';

/// Where such bytes stand.
#[derive(Default)]
pub(super) struct Spoilt {
    in_start_line: bool,
    /// In the name of a field, which might have been any.
    in_name: bool,
    /// In a value that we use.
    in_use: bool,
    /// In Privacy: what it asks for must not be missed (RFC 3323 §4.2).
    in_privacy: bool,
    /// Ends of the last ones in From and To, whose display names nobody uses.
    from: usize,
    to: usize,
}

/// What a line is.
#[derive(Clone, Copy)]
enum Line {
    Start,
    Field(HeaderName),
    /// It begins with such a byte, or has one before its colon.
    Nameless,
}

/// Puts a letter in the place of each byte that is not UTF-8. Lines end where `line_ends` says.
pub(super) fn mend(bytes: &mut [u8], line_ends: &[usize]) -> Spoilt {
    let mut spoilt = Spoilt::default();
    let (mut at, mut known) = (0, None);
    while let Err(error) = std::str::from_utf8(&bytes[at..]) {
        let start = at + error.valid_up_to();
        at = error.error_len().map_or(bytes.len(), |length| start + length);
        let number = line_ends.partition_point(|end| *end < start);
        let line = match known {
            Some((of, line)) if of == number => line,
            _ => line_of(bytes, line_ends, number, start),
        };
        known = Some((number, line));
        bytes[start..at].fill(STAND_IN);
        spoilt.note(line, at);
    }
    spoilt
}

/// What the line of this number is, of which `bad` is the first byte that is not UTF-8.
fn line_of(bytes: &[u8], line_ends: &[usize], number: usize, bad: usize) -> Line {
    let Some(before) = number.checked_sub(1) else { return Line::Start };
    let text = std::str::from_utf8(&bytes[line_ends[before] + 2..bad]).unwrap_or_default();
    match text.split_once(':') {
        Some((name, _)) => Line::Field(HeaderName::parse(name.trim_end_matches([' ', '\t']))),
        None => Line::Nameless,
    }
}

impl Spoilt {
    fn note(&mut self, line: Line, end: usize) {
        match line {
            Line::Start => self.in_start_line = true,
            Line::Nameless => self.in_name = true,
            Line::Field(HeaderName::From) => self.from = end,
            Line::Field(HeaderName::To) => self.to = end,
            Line::Field(HeaderName::Privacy) => self.in_privacy = true,
            Line::Field(name) => self.in_use |= is_used(name),
        }
    }

    /// What is wrong with such bytes in this head.
    pub(super) fn problem(&self, head: &Head) -> Option<Problem> {
        let is_beyond_display = |name, end: usize| {
            let uri = head.party(name).and_then(|(uri, _)| head.place(uri));
            end > 0 && uri.is_none_or(|uri| end > uri.start as usize)
        };
        // A phrase may say what it likes; its status would not have been read.
        let is_request = matches!(head.start, Start::Request { .. });
        // A stream goes on only if its length was not meant.
        if self.in_name {
            return Some(Problem::HeaderLine);
        }
        let is_refused = (is_request && (self.in_start_line || self.in_privacy))
            || self.in_use
            || is_beyond_display(HeaderName::From, self.from)
            || is_beyond_display(HeaderName::To, self.to);
        is_refused.then_some(Problem::IllegalCharacter)
    }
}

/// Whether its value says who is meant, or where something goes or ends.
const fn is_used(name: HeaderName) -> bool {
    matches!(
        name,
        HeaderName::Via
            | HeaderName::CallId
            | HeaderName::CSeq
            | HeaderName::Contact
            | HeaderName::Route
            | HeaderName::RecordRoute
            | HeaderName::Path
            | HeaderName::ContentLength
            | HeaderName::Authorization
            | HeaderName::ProxyAuthorization
    )
}
