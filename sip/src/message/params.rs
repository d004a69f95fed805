//! Parameters of header values (RFC 3261 §25.1): read where they stand, or kept in one normal form.

use super::Malformed;
use super::limits::MAX_PARAMS;
use super::scan::{Cursor, is_clean, is_lws, is_token, is_value_byte, quote, unquote};
use std::fmt;

/// Parameters as they stand in a header's text, checked: names unique, at most [`MAX_PARAMS`].
#[derive(Clone, Copy, Default)]
pub(crate) struct ParamList<'a>(&'a str);

impl<'a> ParamList<'a> {
    /// `*(SEMI param)` up to the end of the value.
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let text = cursor.rest();
        let mut names = [""; MAX_PARAMS];
        let mut count = 0;
        while cursor.eat(b';') {
            let (name, _) = cursor.param()?;
            if names[..count].iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(Malformed);
            }
            *names.get_mut(count).ok_or(Malformed)? = name;
            count += 1;
        }
        cursor.skip_lws();
        if cursor.is_end() { Ok(Self(text)) } else { Err(Malformed) }
    }

    /// A text that was read before.
    pub(super) const fn known(text: &'a str) -> Self {
        Self(text)
    }

    pub(super) const fn as_str(self) -> &'a str {
        self.0
    }

    /// All of them in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let mut cursor = Cursor::new(self.0);
        std::iter::from_fn(move || if cursor.eat(b';') { cursor.param().ok() } else { None })
    }

    /// Value of `name` (case-insensitive); `Some("")` for a flag without value.
    pub(crate) fn value(self, name: &str) -> Option<&'a str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.unwrap_or(""))
    }
}

/// Writes one parameter in the normal form.
pub(super) fn write(out: &mut String, name: &str, value: Option<&str>) {
    out.push(';');
    out.push_str(name);
    if let Some(value) = value {
        out.push('=');
        out.push_str(value);
    }
}

/// Parameters of a header value, in order, names unique, values as written (quotes kept).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Params {
    // `;name=value;flag`, normalised: no white space outside quotes.
    text: Box<str>,
}

impl Params {
    /// Those of a list, without white space outside quotes.
    pub(crate) fn of(list: ParamList<'_>) -> Self {
        if !list.0.bytes().any(is_lws) {
            return Self { text: list.0.into() };
        }
        let mut text = String::with_capacity(list.0.len());
        list.iter().for_each(|(name, value)| write(&mut text, name, value));
        Self::written(text)
    }

    /// A text in the normal form.
    pub(super) fn written(text: String) -> Self {
        Self { text: text.into_boxed_str() }
    }

    pub(super) fn list(&self) -> ParamList<'_> {
        ParamList::known(&self.text)
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.list().iter()
    }

    /// Value of `name` (case-insensitive); `Some("")` for a flag without value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.list().value(name)
    }

    /// Value of `name` without quotes and escapes.
    #[must_use]
    pub fn unquoted(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| unquote(value).into_owned())
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Sets `name`; a value that is not a token or host is quoted. `None` sets a flag.
    ///
    /// # Errors
    /// A name that is no token, a control character in the value, or an empty value.
    pub fn with(self, name: &str, value: Option<&str>) -> Result<Self, Malformed> {
        if !is_token(name) || value.is_some_and(|v| v.is_empty() || !is_clean(v)) {
            return Err(Malformed);
        }
        let quoted = value.map(|v| {
            let plain = v.bytes().all(is_value_byte);
            let already = v.starts_with('"') && Cursor::new(v).quoted().is_ok_and(|q| q.len() == v.len());
            if plain || already { v.to_owned() } else { quote(v) }
        });
        let mut text = String::with_capacity(self.text.len() + name.len() + quoted.as_ref().map_or(0, String::len) + 2);
        let mut count = 0;
        for (n, v) in self.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name)) {
            write(&mut text, n, v);
            count += 1;
        }
        if count == MAX_PARAMS {
            return Err(Malformed);
        }
        write(&mut text, name, quoted.as_deref());
        Ok(Self::written(text))
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Only the names: values may be personal.
impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}
