//! Keys pressed during a call, in INFO (RFC 6086's legacy use): read, and written anew for the other leg. Those in the media
//! (RFC 4733) pass with them.

use super::Core;
use super::exchange::Owner;
use super::leg::Stage;
use super::outgoing::ALLOW_IN_DIALOG;
use super::peers::Way;
use crate::flow::Flow;
use crate::message::{HeaderName, Message, Method, ResponseBuilder};
use bytes::Bytes;
use schema::leg::{Key, LegEvent, LegId};
use schema::pii::Pii;
use schema::time::Now;

const RELAY: &str = "application/dtmf-relay";
const PLAIN: &str = "application/dtmf";
/// What we take, for Accept.
const ACCEPT: &str = "application/dtmf-relay, application/dtmf";
/// Longest body; a key with its duration is about 26 bytes.
const BODY_MAX: usize = 64;
/// Longest key press, milliseconds.
const DURATION_MAX_MS: u16 = 10_000;

impl Core {
    /// INFO with a key is answered here and passed on. Packages are refused (RFC 6086 §4.2.2), as are other bodies, since nobody
    /// knows what is in them.
    pub(super) fn on_info(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        if request.text(HeaderName::InfoPackage).is_some() {
            let response = ResponseBuilder::to_request(request, 469, None).header(HeaderName::RecvInfo, &"");
            return self.answer(flow, request, response, now);
        }
        let kind = request.content_type().and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        let is_known = [RELAY, PLAIN].iter().any(|known| kind.eq_ignore_ascii_case(known));
        if request.body().is_empty() {
            return self.answer_in_dialog(flow, request, 200, now);
        }
        if !is_known {
            let response = ResponseBuilder::to_request(request, 415, None).header(HeaderName::Accept, &ACCEPT);
            return self.answer(flow, request, response, now);
        }
        let Some(key) = read(request.body()) else { return self.answer_in_dialog(flow, request, 400, now) };
        if !self.legs.get(&id).is_some_and(|leg| matches!(leg.stage, Stage::Up)) {
            return self.answer_later(flow, request, now);
        }
        self.answer_in_dialog(flow, request, 200, now);
        self.tell(LegEvent::KeyPressed { leg: id, key }, now);
    }

    /// Tells the far end of a leg that a key was pressed at the other. What it answers changes nothing.
    pub(super) fn press_key(&mut self, id: LegId, key: &Key, now: Now) {
        let Some(leg) = self.legs.get(&id).filter(|leg| matches!(leg.stage, Stage::Up)) else { return };
        let way = self.way_of(leg);
        if matches!(way, Way::Gone(_)) {
            return;
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let info = leg.dialog.request(Method::Info).contact(&leg.contact);
        let info = info.header(HeaderName::Allow, &ALLOW_IN_DIALOG).body(RELAY, Bytes::from(written(key)));
        let _ = self.request(way, info, Owner::Key(id), now);
    }
}

/// `5`, or `Signal=5` and `Duration=160` on lines of their own.
fn read(body: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= BODY_MAX)?;
    let (mut signal, mut duration_ms) = (None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once('=').map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim())) {
            Some((name, value)) if name == "signal" => signal = Some(value),
            Some((name, value)) if name == "duration" => duration_ms = Some(value.parse().ok()?),
            Some(_) => return None,
            None => signal = Some(line),
        }
    }
    let mut signal = signal?.chars();
    let key = signal.next().filter(|key| "0123456789*#ABCD".contains(key.to_ascii_uppercase()))?;
    let is_possible = duration_ms.is_none_or(|ms| (1..=DURATION_MAX_MS).contains(&ms));
    (signal.next().is_none() && is_possible).then(|| Key { signal: Pii::new(key.to_ascii_uppercase()), duration_ms })
}

fn written(Key { signal, duration_ms }: &Key) -> String {
    let duration_ms = duration_ms.unwrap_or(160);
    format!("Signal={}\r\nDuration={duration_ms}\r\n", signal.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_both_forms_and_nothing_else_is() {
        let again = |text: &str| read(text.as_bytes()).map(|key| written(&key));
        for (text, expected) in [
            ("Signal=5\r\nDuration=160\r\n", "Signal=5\r\nDuration=160\r\n"),
            ("signal= #\nduration= 90", "Signal=#\r\nDuration=90\r\n"),
            ("d", "Signal=D\r\nDuration=160\r\n"),
        ] {
            assert_eq!(again(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "Signal=", "Signal=55", "Signal=E", "Signal=5\r\nDuration=0", "Signal=5\r\nDuration=10001"] {
            assert!(again(text).is_none(), "{text}");
        }
        for text in ["Signal=5\r\nCaller=demo\r\n", "Duration=160", "Signal=5\r\nDuration=x", &"5".repeat(65)] {
            assert!(again(text).is_none(), "{text}");
        }
    }
}
