//! Scalars. All are strings on the wire.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use schema::event::EventCursor;
use schema::id::AccountId;
use schema::number::E164;
use schema::time::Timestamp;

/// The scalar of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DateTime(pub(crate) Timestamp);

/// RFC 3339 in UTC, with up to six decimals of a second: `2026-11-24T05:00:00.000001Z`.
#[Scalar]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let time = match &value {
            Value::String(text) if text.len() <= 64 => Timestamp::parse_rfc3339(text),
            _ => None,
        };
        time.map(Self).ok_or_else(|| InputValueError::custom("a time such as 2026-11-24T05:00:00Z (RFC 3339)"))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_rfc3339())
    }
}

/// The scalar of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decimal(pub(crate) String);

/// Decimal number as a string, never a float: `12.345678`. At least two decimals are written.
#[Scalar]
impl ScalarType for Decimal {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) if text.len() <= 32 => Ok(Self(text)),
            _ => Err(InputValueError::custom("a decimal number as a string, such as \"12.34\"")),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// The scalar of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PhoneNumber(pub(crate) E164);

/// A number in E.164 with the plus: `+447700900123`.
#[Scalar]
impl ScalarType for PhoneNumber {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::custom("a number as a string")) };
        E164::parse(text).map(Self).map_err(InputValueError::custom)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.as_str().to_owned())
    }
}

/// The scalar of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) String);

impl Cursor {
    pub(crate) fn of(account: AccountId, place: EventCursor) -> Self {
        Self(crate::cursor::write(Some(account), place))
    }
}

/// A place in an account's events: opaque, ordered within one account. Pass back what you were given.
#[Scalar]
impl ScalarType for Cursor {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) if text.len() <= 64 => Ok(Self(text)),
            _ => Err(InputValueError::custom("a cursor as it was given")),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// A count or a number of seconds as the `Int` of GraphQL, which has 32 bits; larger ones stop there.
pub(crate) fn int(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
