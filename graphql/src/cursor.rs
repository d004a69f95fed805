//! Cursors: places in an account's events, calls and ledger, as opaque text. Version, kind, a check of the account and the
//! place, in base64url: a cursor of another account or list is refused, not read as some other place.

use crate::error::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use schema::event::EventCursor;
use schema::id::{AccountId, AccountKey, CallNo, Seq};
use storage::LedgerCursor;

const VERSION: u8 = 1;

/// A place in one of an account's lists.
pub(crate) trait Place: Sized + Copy {
    /// Tells the lists apart.
    const KIND: u8;
    fn numbers(self) -> (i64, u16);
    fn from_numbers(number: i64, index: u16) -> Self;
}

impl Place for EventCursor {
    const KIND: u8 = b'e';
    fn numbers(self) -> (i64, u16) {
        (self.seq.0, self.index)
    }
    fn from_numbers(number: i64, index: u16) -> Self {
        Self { seq: Seq(number), index }
    }
}

impl Place for CallNo {
    const KIND: u8 = b'c';
    fn numbers(self) -> (i64, u16) {
        (self.0, 0)
    }
    fn from_numbers(number: i64, _: u16) -> Self {
        Self(number)
    }
}

impl Place for LedgerCursor {
    const KIND: u8 = b'l';
    fn numbers(self) -> (i64, u16) {
        (self.seq.0, self.position)
    }
    fn from_numbers(number: i64, index: u16) -> Self {
        Self { seq: Seq(number), position: index }
    }
}

/// Of the operators' list of accounts.
impl Place for AccountKey {
    const KIND: u8 = b'a';
    fn numbers(self) -> (i64, u16) {
        (self.0, 0)
    }
    fn from_numbers(number: i64, _: u16) -> Self {
        Self(number)
    }
}

/// The text of a place; `owner` is `None` for lists that belong to no account.
pub(crate) fn write<P: Place>(owner: Option<AccountId>, place: P) -> String {
    let (number, index) = place.numbers();
    let mut bytes = vec![VERSION, P::KIND];
    bytes.extend(number.to_be_bytes());
    bytes.extend(index.to_be_bytes());
    bytes.extend(check(owner, &bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads what [`write`] wrote; `field` names the argument in the error.
pub(crate) fn read<P: Place>(owner: Option<AccountId>, text: &str, field: &str) -> Result<P, ApiError> {
    let wrong = || ApiError::invalid(field, "(…)", "not a cursor of this list");
    if text.len() > 64 {
        return Err(wrong());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let (&[version, kind, ref place @ .., _, _, _, _], Some((body, tag))) =
        (bytes.as_slice(), bytes.split_last_chunk::<4>())
    else {
        return Err(wrong());
    };
    let (Some((number, index)), true) = (place.split_first_chunk::<8>(), version == VERSION && kind == P::KIND) else {
        return Err(wrong());
    };
    let index = <[u8; 2]>::try_from(index).map_err(|_| wrong())?;
    if check(owner, body) != *tag {
        return Err(wrong());
    }
    Ok(P::from_numbers(i64::from_be_bytes(*number), u16::from_be_bytes(index)))
}

/// Not a secret: it finds mistakes. Who may read the list is decided elsewhere.
fn check(owner: Option<AccountId>, body: &[u8]) -> [u8; 4] {
    let mut all = owner.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default();
    all.extend(body);
    let digest = digest(&SHA256, &all);
    let mut tag = [0; 4];
    tag.copy_from_slice(&digest.as_ref()[..4]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schema::entropy::Entropy;
    use schema::time::Timestamp;

    fn account(seed: u64) -> Option<AccountId> {
        Some(AccountId::generate(&mut Entropy::from_number(seed), Timestamp(1)))
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_back_by_its_own_list_only(seq in any::<i64>(), index in any::<u16>()) {
            let place = EventCursor { seq: Seq(seq), index };
            let text = write(account(1), place);
            prop_assert_eq!(read::<EventCursor>(account(1), &text, "after"), Ok(place));
            prop_assert!(read::<EventCursor>(account(2), &text, "after").is_err());
            prop_assert!(read::<CallNo>(account(1), &text, "after").is_err());
            prop_assert!(read::<LedgerCursor>(account(1), &text, "after").is_err());
        }

        #[test]
        fn arbitrary_text_is_no_cursor(text in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(read::<EventCursor>(account(1), &text, "after").is_err());
            prop_assert!(read::<CallNo>(None, &URL_SAFE_NO_PAD.encode(bytes), "after").is_err());
        }
    }
}
