//! The Reason header (RFC 3326).

use super::params::ParamList;
use super::scan::{self, Cursor};
use super::{Malformed, Params, Written};

/// Why a request was sent: a protocol, its cause code and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `SIP`, `Q.850` or another token.
    pub protocol: Box<str>,
    /// Status code or Q.850 cause.
    pub cause: Option<u16>,
    /// Text for people; never sent on to another leg.
    pub text: Option<Box<str>>,
}

impl Reason {
    /// A SIP status as reason, e.g. `SIP;cause=200;text="Call completed elsewhere"`.
    #[must_use]
    pub fn sip(cause: u16, text: &str) -> Self {
        Self { protocol: "SIP".into(), cause: Some(cause), text: Some(text.into()) }
    }

    /// A Q.850 cause as reason.
    #[must_use]
    pub fn q850(cause: u16, text: &str) -> Self {
        Self { protocol: "Q.850".into(), cause: Some(cause), text: Some(text.into()) }
    }

    /// Reads one value (no comma list).
    ///
    /// # Errors
    /// When the text does not follow the grammar.
    pub fn parse(value: &str) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        let protocol = cursor.token()?.into();
        let params = Params::of(ParamList::read(&mut cursor)?);
        let cause = params.value("cause").map(scan::decimal).transpose()?;
        Ok(Self {
            protocol,
            cause: cause.map(u16::try_from).transpose().map_err(|_| Malformed)?,
            text: params.unquoted("text").filter(|text| !text.is_empty()).map(String::into_boxed_str),
        })
    }
}

impl Written for Reason {
    fn write_to(&self, text: &mut String) {
        text.push_str(&self.protocol);
        if let Some(cause) = self.cause {
            text.push_str(";cause=");
            cause.write_to(text);
        }
        if let Some(words) = &self.text {
            text.push_str(";text=");
            text.push_str(&scan::quote(words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_written_is_read_back() {
        let cases = [
            ("SIP ;cause=200 ;text=\"Call completed elsewhere\"", "SIP", Some(200), Some("Call completed elsewhere")),
            ("Q.850;cause=16", "Q.850", Some(16), None),
            ("preemption;text=\"a \\\"b\\\"\"", "preemption", None, Some("a \"b\"")),
        ];
        for (text, protocol, cause, words) in cases {
            let reason = Reason::parse(text).expect(text);
            assert_eq!((&*reason.protocol, reason.cause, reason.text.as_deref()), (protocol, cause, words));
            assert_eq!(Reason::parse(&reason.written()), Ok(reason));
        }
        for text in ["", ";cause=1", "SIP;cause=x", "SIP;cause=99999", "SIP cause=1", "SIP;text=\"x"] {
            assert!(Reason::parse(text).is_err(), "{text}");
        }
    }
}
