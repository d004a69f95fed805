//! The parameter list of digest headers: `Digest name=value, name="value"` (RFC 7616 §3.3, §3.4).

use crate::message::Malformed;
use crate::message::scan::{Cursor, unquote};
use std::borrow::Cow;

/// Most parameters of one header; RFC 7616 names 12.
const MAX_PARAMETERS: usize = 24;

/// Name and value as written, quotes kept.
pub(super) struct DigestParams<'a>(Vec<(&'a str, &'a str)>);

impl<'a> DigestParams<'a> {
    /// Reads one header value. `None` when its scheme is not Digest.
    ///
    /// # Errors
    /// When the list does not follow its grammar or a parameter stands twice.
    pub(super) fn parse(text: &'a str) -> Result<Option<Self>, Malformed> {
        let Some((scheme, list)) = text.split_once([' ', '\t']) else { return Ok(None) };
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Ok(None);
        }
        let mut cursor = Cursor::new(list);
        cursor.skip_lws();
        let mut params: Vec<(&str, &str)> = Vec::with_capacity(12);
        loop {
            let (name, value) = parameter(&mut cursor)?;
            if params.len() == MAX_PARAMETERS || params.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                return Err(Malformed);
            }
            params.push((name, value));
            if !cursor.eat(b',') {
                break;
            }
        }
        cursor.skip_lws();
        if cursor.is_end() { Ok(Some(Self(params))) } else { Err(Malformed) }
    }

    /// Value without quotes and escapes.
    pub(super) fn value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| unquote(value))
    }

    /// A value of at most `most` bytes.
    ///
    /// # Errors
    /// When it is absent, empty or longer.
    pub(super) fn required(&self, name: &str, most: usize) -> Result<Cow<'a, str>, Malformed> {
        self.value(name).filter(|value| !value.is_empty() && value.len() <= most).ok_or(Malformed)
    }
}

fn parameter<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, &'a str), Malformed> {
    let name = cursor.token()?;
    if !cursor.eat(b'=') {
        return Err(Malformed);
    }
    let value = if cursor.peek() == Some(b'"') { cursor.quoted()? } else { cursor.token()? };
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_with_their_quotes_and_escapes() {
        let params = DigestParams::parse(r#"dIgEsT  username="a \"b\" \\, c=d" ,Realm = "r",nc=00000001, opaque="""#);
        let params = params.expect("well-formed").expect("digest");
        assert_eq!(params.value("USERNAME").as_deref(), Some(r#"a "b" \, c=d"#));
        assert_eq!(params.value("realm").as_deref(), Some("r"));
        assert_eq!(params.value("opaque").as_deref(), Some(""));
        assert!(params.required("opaque", 9).is_err() && params.required("nc", 7).is_err());
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        assert!(matches!(DigestParams::parse("Basic QWxhZGRpbg=="), Ok(None)));
        assert!(matches!(DigestParams::parse("Digest"), Ok(None)));
        let many = format!("Digest {}a=b", (0..30).map(|n| format!("p{n}=x,")).collect::<String>());
        for text in [
            "Digest ",
            "Digest a",
            "Digest a=",
            "Digest a=b,",
            "Digest a=b,,c=d",
            "Digest a=b c=d",
            "Digest a=\"b",
            "Digest a=\"b\\",
            "Digest a=b, A=c",
            "Digest =b",
            &many,
        ] {
            assert!(DigestParams::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(Digest )?[ -~é]{0,60}") {
            let _ = DigestParams::parse(&text);
        }
    }
}
