//! A wrapper for personal data: it can be used, stored and sent, but not printed (invariant P3).

use serde::{Deserialize, Serialize};
use std::fmt;

/// Personal data or a secret. `Debug` shows only that it is there; there is no `Display`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pii<T>(T);

impl<T> Pii<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the places that must see it: a sealed column, the wire, its owner's screen.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The value itself.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<T> From<T> for Pii<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

/// Shared text as text: serde itself does so with a feature only that every crate would be built with.
pub(crate) mod shared {
    use super::Pii;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::sync::Arc;

    pub(crate) fn serialize<S: Serializer>(text: &Pii<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pii<Arc<str>>, D::Error> {
        String::deserialize(from).map(|text| Pii::new(text.into()))
    }
}

/// As [`shared`], where there may be none.
pub(crate) mod shared_option {
    use super::Pii;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(crate) fn serialize<S: Serializer>(text: &Option<Pii<Arc<str>>>, to: S) -> Result<S::Ok, S::Error> {
        text.as_ref().map(|text| &**text.expose()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Pii<Arc<str>>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(|text| Pii::new(text.into())))
    }
}
