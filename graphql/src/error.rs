//! What an error of the API says: a code from a fixed list, and words without anything internal or personal.

use actors::AskError;
use async_graphql::{Enum, Error, ErrorExtensionValues, ErrorExtensions, ServerError};
use std::borrow::Cow;
use std::fmt::Display;
use storage::StoreError;

/// `errors[].extensions.code`. A refused call is a Call in state REFUSED, not an error.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    Unauthenticated,
    Forbidden,
    NotFound,
    InvalidInput,
    RateLimited,
    IdempotencyConflict,
    CodeWrong,
    CodeExpired,
    MfaRequired,
    Conflict,
    QueryTooCostly,
    Unavailable,
    Internal,
}

impl ErrorCode {
    /// The word in answers and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::InvalidInput => "INVALID_INPUT",
            Self::RateLimited => "RATE_LIMITED",
            Self::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Self::CodeWrong => "CODE_WRONG",
            Self::CodeExpired => "CODE_EXPIRED",
            Self::MfaRequired => "MFA_REQUIRED",
            Self::Conflict => "CONFLICT",
            Self::QueryTooCostly => "QUERY_TOO_COSTLY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

/// An error of the API. It has no `Display`, so that async-graphql cannot take its text without its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: Cow<'static, str>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::new(ErrorCode::Unauthenticated, "not signed in")
    }

    pub(crate) fn forbidden(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Forbidden, why)
    }

    pub(crate) fn not_found(what: &'static str) -> Self {
        Self::new(ErrorCode::NotFound, format!("no such {what}"))
    }

    /// A wrong argument: which, its value, and what is allowed. The value must not be personal.
    pub(crate) fn invalid(field: &str, value: impl Display, allowed: &str) -> Self {
        Self::new(ErrorCode::InvalidInput, format!("{field} = {value}: {allowed}"))
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, "the service cannot answer at the moment")
    }

    /// For answers that are made without async-graphql.
    pub(crate) fn into_server_error(self) -> ServerError {
        let mut error = ServerError::new(self.message, None);
        error.extensions = Some(extensions(self.code));
        error
    }
}

fn extensions(code: ErrorCode) -> ErrorExtensionValues {
    let mut values = ErrorExtensionValues::default();
    values.set("code", code.as_str());
    values
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Self::new(error.message).extend_with(|_, values| values.set("code", error.code.as_str()))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::unavailable()
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        tracing::warn!(%error, "an account did not answer");
        Self::unavailable()
    }
}

/// The code of an error in an answer.
pub(crate) fn code_of(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        async_graphql::Value::String(code) => Some(code),
        _ => None,
    }
}

/// async-graphql's words for a query over the limit of complexity.
const TOO_COMPLEX: &str = "Query is too complex.";

/// Gives errors that async-graphql made itself their code: they are about the document or its variables.
pub(crate) fn complete(errors: &mut [ServerError]) {
    for error in errors.iter_mut().filter(|error| code_of(error).is_none()) {
        let code = if error.message == TOO_COMPLEX { ErrorCode::QueryTooCostly } else { ErrorCode::InvalidInput };
        error.extensions.get_or_insert_default().set("code", code.as_str());
    }
}
