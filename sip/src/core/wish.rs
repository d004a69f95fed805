//! What a caller asks for about its own number: which one to show, to show none, and how much privacy it insists on.

use crate::message::{HeaderName, Message, NameAddr, Uri};
use schema::leg::CallerIdWish;
use schema::number::E164;
use schema::pii::Pii;

/// Fewer digits say nothing: a key, a service.
const SHORTEST: usize = 4;

/// The number a phone asks to show.
pub(super) fn caller_id_wish(invite: &Message, from: &Uri, username: &str) -> Option<CallerIdWish> {
    let preferred = invite.values(HeaderName::PPreferredIdentity).next().and_then(|v| NameAddr::parse(v.ok()?).ok());
    match preferred {
        Some(preferred) => number_in(&preferred.uri, usize::MAX).map(Pii::new).map(CallerIdWish::Preferred),
        None => {
            let is_username = from.user_decoded().is_some_and(|user| user == username);
            let wish = if is_username { CallerIdWish::Username } else { CallerIdWish::From };
            number_in(from, E164::DIGITS_MAX).map(Pii::new).map(wish)
        }
    }
}

/// The user of a URI, when it looks like a number of at most so many digits: without its parameters (RFC 3261 §19.1.6) and
/// visual separators (RFC 3966 §5.1.1).
fn number_in(uri: &Uri, longest: usize) -> Option<String> {
    let user = uri.user_decoded()?;
    let user = user.split_once(';').map_or(user.as_str(), |(user, _)| user);
    let number: String = user.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')' | ' ')).collect();
    let digits = number.strip_prefix('+').unwrap_or(&number);
    let looks_like_one = (SHORTEST..=longest).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    looks_like_one.then_some(number)
}

/// `Privacy: id` or stronger (RFC 3323, RFC 3325), or an anonymous From: by its host, by its user, or by its display name before an
/// address that means nothing (RFC 3261 §8.1.1.3).
pub(super) fn wants_privacy(invite: &Message, from: &NameAddr) -> bool {
    let is_anonymous = |text: Option<&str>| text.is_some_and(|text| text.trim().eq_ignore_ascii_case("anonymous"));
    privacy(invite).any(|value| ["id", "user", "header"].iter().any(|it| value.eq_ignore_ascii_case(it)))
        || is_anonymous(from.uri.user())
        || is_anonymous(from.display.as_deref())
        || from.uri.host().eq_ignore_ascii_case("anonymous.invalid")
}

/// Why a request fails that would rather fail than be without some privacy (`critical`, RFC 3323 §4.2).
pub(super) fn lacks_privacy(request: &Message) -> Option<&'static str> {
    let is_one_of = |value: &str, known: &[&str]| known.iter().any(|it| value.eq_ignore_ascii_case(it));
    if !privacy(request).any(|value| is_one_of(value, &["critical"])) {
        return None;
    }
    if wants_session_privacy(request) {
        return Some("no privacy of the session: the addresses of media pass");
    }
    let provided = ["none", "id", "user", "header", "history", "critical"];
    (!privacy(request).all(|value| is_one_of(value, &provided))).then_some("an unknown kind of privacy")
}

/// Whether it asks that even the addresses of its media are hidden.
pub(super) fn wants_session_privacy(request: &Message) -> bool {
    privacy(request).any(|value| value.eq_ignore_ascii_case("session"))
}

/// The values of Privacy.
fn privacy(request: &Message) -> impl Iterator<Item = &str> {
    request.texts(HeaderName::Privacy).flat_map(|text| text.split(';')).map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(from: &str, more: &str) -> (Message, NameAddr) {
        let text = format!(
            "INVITE sip:+447700900000@localhost SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
             From: {from};tag=a\r\nTo: <sip:+447700900000@localhost>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:192.0.2.1>\r\n{more}\r\n"
        );
        let message = Message::parse_datagram(&text.into_bytes().into()).expect("readable");
        (message, NameAddr::parse(from).expect("an address"))
    }

    #[test]
    fn an_anonymous_from_withholds_by_host_user_or_display_name() {
        for (from, is_withheld) in [
            ("\"Anonymous\" <sip:c8oqz84zk7z@privacy.example>", true),
            ("anonymous <sip:+442079460000@localhost>", true),
            ("\" ANONYMOUS \" <sip:+442079460000@localhost>", true),
            ("<sip:anonymous@localhost>", true),
            ("<sip:thisis@anonymous.invalid>", true),
            ("\"Anonymous Jones\" <sip:+442079460000@localhost>", false),
            ("<sip:+442079460000@localhost>", false),
        ] {
            let (message, address) = invite(from, "");
            assert_eq!(wants_privacy(&message, &address), is_withheld, "{from}");
        }
    }

    #[test]
    fn a_wish_says_where_it_stood() {
        let preferred = |text: &str| Some(CallerIdWish::Preferred(Pii::new(text.into())));
        let from = |text: &str| Some(CallerIdWish::From(Pii::new(text.into())));
        let own_name = |text: &str| Some(CallerIdWish::Username(Pii::new(text.into())));
        let username = "02079460000";
        for (in_from, in_preferred, wish) in [
            ("<sip:02079460000@localhost>", "", own_name("02079460000")),
            ("<sip:0207946000%30@localhost>", "", own_name("02079460000")),
            ("<sip:+442079460000@localhost>", "", from("+442079460000")),
            ("<sip:02079460000@localhost>", "<sip:447700900002@localhost>", preferred("447700900002")),
            ("<sip:02079460000@localhost>", "<sip:02079460000@localhost>", preferred("02079460000")),
            ("<sip:+447700900001@localhost>", "<sip:+447700900002;ext=5@localhost>", preferred("+447700900002")),
            ("<sip:+447700900001@localhost>", "<tel:+44-7700-900002>", preferred("+447700900002")),
            ("<sip:1001@localhost>", "<sip:4477009000021234567@localhost>", preferred("4477009000021234567")),
            ("<sip:4477009000021234567@localhost>", "", None),
            ("<sip:1001@localhost>", "", from("1001")),
            ("<sip:alice@localhost>", "", None),
            ("<sip:+447700900001@localhost>", "<sip:alice@localhost>", None),
        ] {
            let more = if in_preferred.is_empty() {
                String::new()
            } else {
                format!("P-Preferred-Identity: {in_preferred}\r\n")
            };
            let (message, address) = invite(in_from, &more);
            let told = caller_id_wish(&message, &address.uri, username);
            assert!(told == wish, "{in_from} {in_preferred}");
        }
    }
}
