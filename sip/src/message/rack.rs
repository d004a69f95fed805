//! RAck and RSeq (RFC 3262 §7): which reliable provisional response is meant.

use super::{HeaderName, Message, Method, Written, scan};

/// What a PRACK acknowledges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RAck {
    /// RSeq of the response.
    pub rseq: u32,
    /// CSeq number of the request it answers.
    pub cseq: u32,
    /// Method of that request.
    pub method: Method,
}

impl Written for RAck {
    fn write_to(&self, text: &mut String) {
        format_args!("{} {} {}", self.rseq, self.cseq, self.method).write_to(text);
    }
}

impl Message {
    /// RSeq, 1 to 2³² - 1.
    #[must_use]
    pub fn rseq(&self) -> Option<u32> {
        scan::decimal(self.text(HeaderName::RSeq)?).ok().filter(|rseq| *rseq != 0)
    }

    /// RAck; `None` when there is none or it does not follow the grammar.
    #[must_use]
    pub fn rack(&self) -> Option<RAck> {
        let mut words = self.text(HeaderName::RAck)?.split([' ', '\t']).filter(|word| !word.is_empty());
        let rseq = scan::decimal(words.next()?).ok()?;
        let cseq = scan::decimal(words.next()?).ok()?;
        let method = Method::parse(words.next()?).ok()?;
        words.next().is_none().then_some(RAck { rseq, cseq, method })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_a_prack_acknowledges_is_read_strictly() {
        let read = |rack: &str| {
            let text = format!(
                "PRACK sip:x@localhost SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bKz\r\nMax-Forwards: 70\r\nFrom: <sip:a@localhost>;tag=a\r\nTo: <sip:b@localhost>;tag=b\r\nCall-ID: c\r\nCSeq: 2 PRACK\r\nRAck: {rack}\r\nContent-Length: 0\r\n\r\n"
            );
            Message::parse_datagram(&Bytes::from(text)).expect("well-formed").rack().map(|rack| rack.written())
        };
        assert_eq!(read("776656 1 INVITE").as_deref(), Some("776656 1 INVITE"));
        assert_eq!(read("4294967295\t 2147483647   INVITE").as_deref(), Some("4294967295 2147483647 INVITE"));
        for broken in
            ["", "1", "1 2", "1 2 INVITE x", "-1 2 INVITE", "x 2 INVITE", "4294967296 1 INVITE", "1 2 IN(VITE"]
        {
            assert_eq!(read(broken), None, "{broken}");
        }
    }
}
