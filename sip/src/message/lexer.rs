//! The lexer: one pass over the head finds its lines, unfolds them and names each field.

use super::essentials::Essentials;
use super::limits::{MAX_HEADER_LINE, MAX_HEADERS, MAX_START_LINE};
use super::scan::{self, Cursor, is_lws, next_control};
use super::spoilt::{Spoilt, mend};
use super::{HeaderName, Method, Problem, Uri};

/// Where something stands in the head's text.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u32,
    end: u32,
}

/// One header field: its name and where its value stands.
pub(super) struct Field {
    pub(super) name: HeaderName,
    at: Span,
}

/// What the start line says.
pub(super) enum Start {
    /// `uri` is absent when it does not follow its grammar.
    Request {
        uri: Option<Uri>,
    },
    Response {
        status: u16,
    },
}

/// Start line and header fields, unfolded.
pub(super) struct Head {
    text: Box<str>,
    pub(super) start: Start,
    /// Of a request: from its start line. Of a response: from CSeq, after the check.
    pub(super) method: Method,
    /// From CSeq, after the check.
    pub(super) cseq: u32,
    pub(super) essentials: Essentials,
    /// Whether there is a top Via and no other, after the check.
    pub(super) is_of_one_hop: bool,
    /// Whether its body is a session description by its type, after the check.
    pub(super) is_of_sdp: bool,
    /// Those that the fields have, a bit each.
    names: u64,
    pub(super) fields: Vec<Field>,
}

impl Head {
    /// Bytes of memory of start line and fields.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.fields.capacity() * size_of::<Field>()
    }

    /// Value of a field, without white space around it.
    pub(super) fn value(&self, field: &Field) -> &str {
        self.at(field.at)
    }

    /// What stands there.
    pub(super) fn at(&self, span: Span) -> &str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// Where a part of the text stands, an empty one at its beginning. `None` for any other text.
    pub(super) fn place(&self, part: &str) -> Option<Span> {
        if part.is_empty() {
            return Some(Span { start: 0, end: 0 });
        }
        let start = part.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        let end = start.checked_add(part.len()).filter(|end| *end <= self.text.len())?;
        Some(Span { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    /// Values of all fields of this name, not split at commas.
    pub(super) fn texts(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let fields = if self.names & name.bit() == 0 { &[][..] } else { &self.fields };
        fields.iter().filter(move |field| field.name == name).map(|field| self.value(field))
    }

    /// Content-Length, which must stand at most once and be digits only.
    pub(super) fn content_length(&self) -> Result<Option<usize>, Problem> {
        let mut values = self.texts(HeaderName::ContentLength);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::Duplicate(HeaderName::ContentLength));
        }
        let length = scan::decimal(value).map_err(|_| Problem::Malformed(HeaderName::ContentLength))?;
        usize::try_from(length).map(Some).map_err(|_| Problem::Malformed(HeaderName::ContentLength))
    }
}

/// Bytes of line ends in front of the start line, which are ignored (RFC 3261 §7.5).
pub(super) fn blank_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// Where the head ends (behind its empty line), searching from `from`.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(3);
    // The last of four bytes says how far the next possible place is: most are text, so steps are of four.
    while let Some(&last) = bytes.get(at + 3) {
        match last {
            b'\n' if bytes[at..at + 3] == *b"\r\n\r" => return Some(at + 4),
            b'\r' => at += 1,
            b'\n' => at += 2,
            _ => at += 4,
        }
    }
    None
}

/// Reads a head that ends in an empty line. The problem beside it is the first one that leaves the head readable.
///
/// # Errors
/// What leaves nothing to read: illegal characters and line ends, or a start line of no kind.
pub(super) fn lex(bytes: &[u8]) -> Result<(Head, Option<Problem>), Problem> {
    let mut unfolded = bytes[..bytes.len() - 2].to_vec();
    let line_ends = unfold(&mut unfolded)?;
    let (text, spoilt) = text_of(unfolded, &line_ends)?;
    let mut problem = None;
    let mut note = |found: Problem| problem = problem.or(Some(found));

    let first_end = line_ends.first().copied().unwrap_or(0);
    let (start, method) = start_line(&text[..first_end], &mut note)?;
    let mut fields = Vec::with_capacity(line_ends.len().min(MAX_HEADERS));
    let mut line_start = first_end + 2;
    for &line_end in line_ends.iter().skip(1) {
        if fields.len() == MAX_HEADERS {
            note(Problem::TooManyHeaders);
            break;
        }
        if line_end - line_start > MAX_HEADER_LINE {
            note(Problem::HeaderLineTooLong);
        } else if let Some(field) = header_line(&text, line_start, line_end) {
            fields.push(field);
        } else {
            note(Problem::HeaderLine);
        }
        line_start = line_end + 2;
    }
    let names = fields.iter().fold(0, |names, field: &Field| names | field.name.bit());
    let mut head = Head {
        text,
        start,
        method,
        cseq: 0,
        essentials: Essentials::default(),
        is_of_one_hop: false,
        is_of_sdp: false,
        names,
        fields,
    };
    head.essentials = Essentials::of(&head);
    let problem = problem.or_else(|| spoilt?.problem(&head));
    Ok((head, problem))
}

/// The text, and where it was not UTF-8.
fn text_of(unfolded: Vec<u8>, line_ends: &[usize]) -> Result<(Box<str>, Option<Spoilt>), Problem> {
    let mut bytes = match String::from_utf8(unfolded) {
        Ok(text) => return Ok((text.into_boxed_str(), None)),
        Err(error) => error.into_bytes(),
    };
    let spoilt = mend(&mut bytes, line_ends);
    let text = String::from_utf8(bytes).map_err(|_| Problem::IllegalCharacter)?;
    Ok((text.into_boxed_str(), Some(spoilt)))
}

/// Finds the ends of the lines, up to one header more than the limit; a folded line's CRLF becomes two spaces (RFC 3261 §7.3.1).
fn unfold(bytes: &mut [u8]) -> Result<Vec<usize>, Problem> {
    let mut ends = Vec::with_capacity(24);
    let mut at = next_control(bytes, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\r' => {
                if bytes.get(at + 1) != Some(&b'\n') {
                    return Err(Problem::LineEnding);
                }
                if !ends.is_empty() && bytes.get(at + 2).copied().is_some_and(is_lws) {
                    bytes[at] = b' ';
                    bytes[at + 1] = b' ';
                } else if ends.len() < MAX_HEADERS + 2 {
                    ends.push(at);
                }
                at += 1;
            }
            b'\n' => return Err(Problem::LineEnding),
            // A quoted pair may hold a control character (RFC 3261 §25.1); it is dropped when the value is read.
            _ if byte == b'\t' || (at > 0 && bytes[at - 1] == b'\\') => {}
            _ => return Err(Problem::IllegalCharacter),
        }
        at = next_control(bytes, at + 1);
    }
    Ok(ends)
}

fn start_line(line: &str, note: &mut impl FnMut(Problem)) -> Result<(Start, Method), Problem> {
    if line.len() > MAX_START_LINE {
        note(Problem::StartLineTooLong);
    }
    if line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("SIP/")) {
        return status_line(line).map(|status| (Start::Response { status }, Method::Options));
    }
    let (method, rest) = line.split_once(' ').ok_or(Problem::StartLine)?;
    let method = Method::parse(method).map_err(|_| Problem::StartLine)?;
    // A request all the same: it can be answered when the rest is wrong (RFC 4475 §3.1.2.9, §3.1.2.10).
    let Some((uri, version)) = rest.rsplit_once(' ') else {
        note(Problem::StartLine);
        return Ok((Start::Request { uri: None }, method));
    };
    if !is_version(version) {
        note(if version.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("SIP/")) {
            Problem::Version
        } else {
            Problem::StartLine
        });
    }
    let uri = Uri::parse(uri).ok().filter(|uri| !uri.has_headers());
    if uri.is_none() {
        note(Problem::RequestUri);
    }
    Ok((Start::Request { uri }, method))
}

fn is_version(text: &str) -> bool {
    text.eq_ignore_ascii_case("SIP/2.0")
}

fn status_line(line: &str) -> Result<u16, Problem> {
    let (version, rest) = line.split_once(' ').ok_or(Problem::StartLine)?;
    if !is_version(version) {
        return Err(Problem::Version);
    }
    let (code, _phrase) = rest.split_once(' ').ok_or(Problem::StartLine)?;
    match code.parse() {
        Ok(status @ 100..=699) if code.len() == 3 => Ok(status),
        _ => Err(Problem::StartLine),
    }
}

fn header_line(text: &str, start: usize, end: usize) -> Option<Field> {
    let line = &text[start..end];
    let mut cursor = Cursor::new(line);
    let name = cursor.token().ok()?;
    // White space before the colon is allowed (RFC 3261 §7.3.1), before the name it would be a folded line.
    cursor.skip_lws();
    if !cursor.take(b':') {
        return None;
    }
    cursor.skip_lws();
    let value = cursor.rest();
    let value_start = end - value.len();
    let value_end = value_start + scan::trim(value).len();
    Some(Field {
        name: HeaderName::parse(name),
        at: Span { start: u32::try_from(value_start).ok()?, end: u32::try_from(value_end).ok()? },
    })
}
