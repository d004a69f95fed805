//! Words and codes: what a final SIP status is called, what the caller is told of the callee's, and who ended a call.

use schema::call::RefusalCode;

/// The reason phrase of a final status (RFC 3261 §21 and its extensions).
#[must_use]
pub const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        415 => "Unsupported Media Type",
        420 => "Bad Extension",
        480 => "Temporarily Unavailable",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        other => match other / 100 {
            3 => "Redirected",
            4 => "Request Failure",
            5 => "Server Failure",
            6 => "Global Failure",
            _ => "Unknown",
        },
    }
}

/// What the caller's phone is told of a refusal; the whole sentence, with figures, is in the call's record.
#[must_use]
pub const fn refusal(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::InsufficientBalance => "insufficient balance",
        RefusalCode::CallerIdUnverified => "caller ID not verified",
        RefusalCode::CallerIdMissing => "no default caller ID",
        RefusalCode::AccountNotActive => "account not active",
        RefusalCode::DestinationInvalid => "not a telephone number",
        RefusalCode::DestinationNotPermitted => "destination not permitted",
        RefusalCode::EmergencyNotSupported => "no emergency calls: use another phone",
        RefusalCode::NoRate => "destination not served",
        RefusalCode::NoRoute => "no carrier available",
        RefusalCode::TooManyCalls => "too many calls at the same time",
        RefusalCode::TooFast => "too many calls in a minute",
        RefusalCode::SpendLimit => "spending limit reached",
        RefusalCode::FraudSuspected => "call suspected of fraud",
        RefusalCode::Overloaded => "service busy",
        RefusalCode::Draining => "service restarting",
        RefusalCode::Unavailable => "service unavailable",
    }
}

/// Whether another carrier may be tried after this status: it says that the carrier could not, not that the person called would
/// not. A carrier that redirects (3xx) is not followed, and not replaced: it said that the number lives elsewhere, which another
/// carrier would only repeat. One that does not accept our credentials (401, 407) or our session's
/// interval (422) has not looked at the call.
#[must_use]
pub const fn may_reroute(status: u16) -> bool {
    matches!(status, 401 | 407 | 408 | 422 | 500 | 502 | 503 | 504)
}

/// What the caller's phone is told when the last attempt ended with this status. What the callee decided passes as it is;
/// what went wrong between us and the carrier is our gateway's failure, not the phone's: its own credentials, session and
/// extensions were fine (RFC 3261 §16.7 forbids passing a 503 on for the same reason).
#[must_use]
pub const fn status_for_caller(status: u16) -> u16 {
    match status {
        404 | 410 | 480 | 484 | 486 | 488 | 415 | 603 | 604 | 606 | 607 | 608 | 600 => status,
        408 | 504 => 504,
        _ => 502,
    }
}

/// Whether the callee, rather than the carrier, gave this status.
#[must_use]
pub const fn is_callee_decision(status: u16) -> bool {
    matches!(status, 480 | 486 | 600 | 603 | 607 | 608)
}

/// The usual Q.850 cause of a status (RFC 3398 §8.2.6.1), when the carrier gave none.
#[must_use]
pub const fn q850(status: u16) -> Option<u8> {
    match status {
        404 | 604 => Some(1),
        410 => Some(22),
        408 | 504 => Some(102),
        480 => Some(19),
        484 => Some(28),
        486 | 600 => Some(17),
        487 => Some(16),
        500 | 503 => Some(41),
        502 => Some(38),
        603 | 607 | 608 => Some(21),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_carrier_faults_are_tried_elsewhere() {
        let tried: Vec<u16> = (300..700).filter(|status| may_reroute(*status)).collect();
        assert_eq!(tried, [401, 407, 408, 422, 500, 502, 503, 504]);
    }

    #[test]
    fn every_final_status_has_words_and_a_safe_answer() {
        for status in 300..700 {
            assert!(!phrase(status).is_empty());
            assert!((400..700).contains(&status_for_caller(status)));
            assert_ne!(status_for_caller(status), 503, "a 503 would make the phone give up on us");
        }
    }
}
