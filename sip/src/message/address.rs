//! Name-addr values: From, To, Contact, Route, Record-Route, P-Asserted-Identity (RFC 3261 §20.10, §25.1).

use super::params::ParamList;
use super::scan::{self, Cursor};
use super::{Malformed, Params, Uri, Written};
use std::fmt;

/// A URI with an optional display name and header parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// Display name without quotes; `None` if absent or empty.
    pub display: Option<Box<str>>,
    /// The URI.
    pub uri: Uri,
    /// Header parameters (`tag`, `expires`, `q`, `+sip.instance` …).
    pub params: Params,
}

/// The pieces of a name-addr as they stand in the text.
pub(crate) struct AddressParts<'a> {
    display: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) params: ParamList<'a>,
}

impl<'a> AddressParts<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Malformed> {
        let text = scan::trim(text);
        let mut cursor = Cursor::new(text);
        if let Some(display) = leading_display(&mut cursor)? {
            let uri = cursor.take_while(|b| b != b'>');
            if !cursor.eat(b'>') {
                return Err(Malformed);
            }
            return Ok(Self { display, uri, params: ParamList::read(&mut cursor)? });
        }
        // addr-spec form: without brackets the first `;` starts header parameters; `?` and `,` are not allowed.
        let mut cursor = Cursor::new(text);
        let uri = cursor.take_while(|b| b != b';').trim_end_matches([' ', '\t']);
        if uri.contains(['?', ',']) {
            return Err(Malformed);
        }
        Ok(Self { display: "", uri, params: ParamList::read(&mut cursor)? })
    }
}

/// The display name before `<`, the cursor then behind `<`; `None` when there is no `<`.
fn leading_display<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a str>, Malformed> {
    if cursor.peek() == Some(b'"') {
        let quoted = cursor.quoted()?;
        cursor.skip_lws();
        return if cursor.take(b'<') { Ok(Some(quoted)) } else { Err(Malformed) };
    }
    let start = cursor.clone();
    let words = cursor.take_while(|b| scan::is_token_byte(b) || scan::is_lws(b) || b >= 0x80);
    if cursor.take(b'<') {
        return Ok(Some(scan::trim(words)));
    }
    *cursor = start;
    Ok(None)
}

impl NameAddr {
    /// Reads one value (no comma list).
    ///
    /// # Errors
    /// When the text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let parts = AddressParts::parse(text)?;
        let display = scan::unquote(parts.display);
        Ok(Self {
            display: (!display.is_empty()).then(|| Box::from(display)),
            uri: Uri::parse(parts.uri)?,
            params: Params::of(parts.params),
        })
    }

    /// A value without display name and parameters.
    #[must_use]
    pub fn new(uri: Uri) -> Self {
        Self { display: None, uri, params: Params::default() }
    }

    /// With a display name.
    ///
    /// # Errors
    /// When the name holds a control character.
    pub fn with_display(self, display: &str) -> Result<Self, Malformed> {
        if !scan::is_clean(display) {
            return Err(Malformed);
        }
        Ok(Self { display: (!display.is_empty()).then(|| display.into()), ..self })
    }

    /// With a header parameter (see [`Params::with`]).
    ///
    /// # Errors
    /// As [`Params::with`].
    pub fn with_param(self, name: &str, value: Option<&str>) -> Result<Self, Malformed> {
        Ok(Self { params: self.params.with(name, value)?, ..self })
    }

    /// With this tag.
    ///
    /// # Errors
    /// When the tag is no token.
    pub fn with_tag(self, tag: &str) -> Result<Self, Malformed> {
        if scan::is_token(tag) { self.with_param("tag", Some(tag)) } else { Err(Malformed) }
    }

    /// The tag of a From or To.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.params.value("tag")
    }

    /// `expires` of a Contact, in seconds; `None` if absent or not a number.
    #[must_use]
    pub fn expires_s(&self) -> Option<u32> {
        self.params.value("expires").and_then(|v| scan::decimal(v).ok())
    }
}

/// What can stand in From, To and Contact.
pub trait Address: Written {}

impl Address for NameAddr {}

impl Address for AddressText {}

/// A name-addr that is kept for long: only its text, as it is written, and where the tag stands in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AddressText {
    text: Box<str>,
    /// Where it begins and ends; it ends at 0 when there is none.
    tag: (u32, u32),
}

impl From<&NameAddr> for AddressText {
    fn from(address: &NameAddr) -> Self {
        let params = address.params.list().as_str();
        let display = address.display.as_ref().map_or(0, |display| display.len() + 3);
        let mut text = String::with_capacity(display + "<>".len() + address.uri.as_str().len() + params.len());
        address.write_to(&mut text);
        // Parameters are written last, and as they are.
        let tag = address.tag().and_then(|tag| {
            let behind_start = tag.as_ptr().addr().checked_sub(params.as_ptr().addr())?;
            let start = text.len() - params.len() + behind_start;
            Some((u32::try_from(start).ok()?, u32::try_from(start + tag.len()).ok()?))
        });
        Self { text: text.into(), tag: tag.unwrap_or_default() }
    }
}

impl AddressText {
    /// Reads one that was kept elsewhere.
    ///
    /// # Errors
    /// As [`NameAddr::parse`].
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        NameAddr::parse(text).map(|address| Self::from(&address))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The tag of a From or To.
    pub(crate) fn tag(&self) -> Option<&str> {
        let (start, end) = self.tag;
        (end > 0).then(|| &self.text[start as usize..end as usize])
    }

    /// Its URI.
    pub(crate) fn uri(&self) -> Result<Uri, Malformed> {
        NameAddr::parse(&self.text).map(|address| address.uri)
    }
}

impl Written for AddressText {
    fn write_to(&self, text: &mut String) {
        text.push_str(&self.text);
    }
}

/// Nothing of it: it is personal.
impl fmt::Debug for AddressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressText")
    }
}

impl Written for NameAddr {
    fn write_to(&self, text: &mut String) {
        if let Some(display) = &self.display {
            text.push_str(&scan::quote(display));
            text.push(' ');
        }
        for part in ["<", self.uri.as_str(), ">", self.params.list().as_str()] {
            text.push_str(part);
        }
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written())
    }
}

/// No display name, user or host: they may be personal.
impl fmt::Debug for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameAddr({:?}, {:?})", self.uri, self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let cases = [
            ("sip:a@h;tag=x", None, "sip:a@h", Some("x")),
            ("<sip:a@h;lr>;tag=x", None, "sip:a@h;lr", Some("x")),
            ("caller<sip:a@h>", Some("caller"), "sip:a@h", None),
            ("Bell Alexander <sip:a@h> ; tag = 9", Some("Bell Alexander"), "sip:a@h", Some("9")),
            (r#""J \"Q\" \\"   <sip:a@h>"#, Some(r#"J "Q" \"#), "sip:a@h", None),
            ("<sip:a@h;tag=no>", None, "sip:a@h;tag=no", None),
            (r#"<sip:a@h>;tag=x;other=";tag=y""#, None, "sip:a@h", Some("x")),
            (r#""a;tag=" <sip:a@h>"#, Some("a;tag="), "sip:a@h", None),
            (r#""a, <b>;" <sip:a@h?x=y>;q=0.1;Tag=T"#, Some("a, <b>;"), "sip:a@h?x=y", Some("T")),
            ("\"\" <sip:a@h>", None, "sip:a@h", None),
            ("tel:+12015550123;tag=1", None, "tel:+12015550123", Some("1")),
        ];
        for (text, display, uri, tag) in cases {
            let addr = NameAddr::parse(text).expect(text);
            assert_eq!((addr.display.as_deref(), addr.uri.as_str(), addr.tag()), (display, uri, tag), "{text}");
            let kept = AddressText::from(&addr);
            assert_eq!((kept.as_str(), kept.tag(), kept.uri()), (&*addr.written(), tag, Ok(addr.uri)), "{text}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        let bad = [
            "",
            "<sip:a@h",
            "sip:a@h>",
            "\"x <sip:a@h>",
            "Bell, Alexander <sip:a@h>",
            "< sip:a@h>",
            "<sip:a@h >",
            "sip:a@h?x=y",
            "sip:a@h,b",
            "<sip:a@h>;;tag=1",
            "<sip:a@h>;tag=1;tag=2",
            "<sip:a@h> x",
            "\"x\"",
            "<>",
            "<<sip:a@h>>",
            "sip:a@h;tag=",
        ];
        for text in bad {
            assert!(NameAddr::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_address_written_is_read_back(display in proptest::option::of("\\PC{1,30}"), user in "\\PC{1,20}", tag in "[A-Za-z0-9.!%*_+`'~-]{1,20}", other in "\\PC{1,20}") {
            let uri = Uri::sip(Some(&user), "example.com", None).unwrap();
            let mut addr = NameAddr::new(uri).with_tag(&tag).unwrap().with_param("other", Some(&other)).unwrap();
            if let Some(display) = display {
                addr = addr.with_display(&display).unwrap();
            }
            let again = NameAddr::parse(&addr.to_string()).unwrap();
            let kept = AddressText::from(&addr);
            proptest::prop_assert_eq!((kept.tag(), kept.uri()), (Some(&*tag), Ok(addr.uri.clone())));
            proptest::prop_assert_eq!(AddressText::parse(kept.as_str()), Ok(kept));
            proptest::prop_assert_eq!(again, addr);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*", shaped in "[\"<>;=, a\\\\:@é]{0,40}") {
            let _ = NameAddr::parse(&text);
            let _ = NameAddr::parse(&shaped);
            let _: Vec<_> = scan::split_list(&shaped).collect();
        }
    }
}
