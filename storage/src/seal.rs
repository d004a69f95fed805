//! Sealed JSON, and the words of enums as stored.

use crate::error::StoreError;
use crate::keyring::{Class, Keyring, Sealer, Subject};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of a sealed JSON text: the version of its form. A later program reads all versions up to its own.
const VERSION: u8 = 1;
/// What is sealed has seldom more bytes: a live call with both dialogs.
const ROOM: usize = 8 * 1024;

impl Sealer<'_> {
    pub(crate) fn seal_json<T: Serialize>(&self, place: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
        let mut plain = Vec::with_capacity(ROOM);
        plain.push(VERSION);
        serde_json::to_writer(&mut plain, value)
            .map_err(|_| StoreError::unreadable(place, "a value that is no JSON"))?;
        self.seal(place, &plain)
    }
}

impl Keyring {
    pub(crate) fn seal_json<T: Serialize>(
        &self,
        subject: Subject,
        class: Class,
        place: &'static str,
        value: &T,
    ) -> Result<Vec<u8>, StoreError> {
        self.sealer(subject, class)?.seal_json(place, value)
    }

    /// `None` when the key was destroyed.
    pub(crate) fn unseal_json<T: DeserializeOwned>(
        &self,
        subject: Subject,
        class: Class,
        place: &'static str,
        sealed: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let Some(plain) = self.unseal(subject, class, place, sealed)? else { return Ok(None) };
        let Some((&VERSION, json)) = plain.split_first() else {
            return Err(StoreError::unreadable(place, "a sealed value of another version"));
        };
        serde_json::from_slice(json)
            .map(Some)
            .map_err(|_| StoreError::unreadable(place, "a sealed value of another form"))
    }

    pub(crate) fn seal_text(
        &self,
        subject: Subject,
        class: Class,
        place: &'static str,
        text: &str,
    ) -> Result<Vec<u8>, StoreError> {
        self.seal(subject, class, place, text.as_bytes())
    }

    /// `None` when the key was destroyed.
    pub(crate) fn unseal_text(
        &self,
        subject: Subject,
        class: Class,
        place: &'static str,
        sealed: &[u8],
    ) -> Result<Option<String>, StoreError> {
        let Some(plain) = self.unseal(subject, class, place, sealed)? else { return Ok(None) };
        String::from_utf8(plain).map(Some).map_err(|_| StoreError::unreadable(place, "a sealed text that is no text"))
    }
}

/// The word of an enum's value, as its `Serialize` says.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("an enum without fields is a word, not {other:?}"),
    }
}

/// Reads the word.
pub(crate) fn parse_word<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}
