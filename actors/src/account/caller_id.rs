//! Which number a call shows: one of the account's own that is verified now, or none at all. An unverified wish is refused
//! with an explanation, never replaced (invariant P2).

use crate::dialplan::{self, Dialled, Form};
use schema::account::{CallerId, CallerIdStatus, Evidence};
use schema::call::{Refusal, RefusalCode};
use schema::id::CallerIdId;
use schema::leg::CallerIdWish;
use schema::number::{E164, NotPresentable, PresentedNumber};
use schema::time::Timestamp;

/// Which caller ID is asked for.
#[derive(Debug, Clone)]
pub enum CallerChoice {
    /// The account's default.
    Default,
    /// What a phone put into P-Preferred-Identity or From.
    Wanted(CallerIdWish),
    /// One of the account's, by identity.
    Chosen(CallerIdId),
}

/// The caller ID that a call shows, and why it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The number.
    pub number: PresentedNumber,
    /// Why it is attested as it is.
    pub basis: &'static str,
}

/// Chooses among the account's numbers.
///
/// # Errors
/// The refusal: none given and no default, unknown, or not verified now.
pub fn choose(caller_ids: &[CallerId], choice: &CallerChoice, country: &str, at: Timestamp) -> Result<Chosen, Refusal> {
    let caller_id = match choice {
        CallerChoice::Default => default(caller_ids, at)?,
        CallerChoice::Chosen(id) => caller_ids.iter().find(|c| c.id == *id).ok_or_else(unknown)?,
        CallerChoice::Wanted(wish) => wanted(caller_ids, wish, country, at)?,
    };
    Ok(Chosen { number: presentable(caller_id, at)?, basis: basis(caller_id.evidence) })
}

/// The number that a live call began with, if it may still be shown: a proof can end between two attempts.
///
/// # Errors
/// The refusal of any further attempt.
pub fn choose_again(caller_ids: &[CallerId], number: Option<&E164>, at: Timestamp) -> Result<PresentedNumber, Refusal> {
    let known = caller_ids.iter().find(|known| Some(&known.number) == number).ok_or_else(unknown)?;
    presentable(known, at)
}

fn presentable(caller_id: &CallerId, at: Timestamp) -> Result<PresentedNumber, Refusal> {
    let refused = |why| refuse(RefusalCode::CallerIdUnverified, not_presentable(why, caller_id.status));
    PresentedNumber::of(caller_id, at).map_err(refused)
}

/// The default, else the only verified one, else the only one that was: its refusal says what to do.
fn default(caller_ids: &[CallerId], at: Timestamp) -> Result<&CallerId, Refusal> {
    let only = |status| {
        let mut of_it = caller_ids.iter().filter(|c| c.status_at(at) == status);
        of_it.next().filter(|_| of_it.next().is_none())
    };
    let chosen = caller_ids.iter().find(|c| c.is_default).or_else(|| {
        let is_any_verified = caller_ids.iter().any(|c| c.status_at(at) == CallerIdStatus::Verified);
        only(if is_any_verified { CallerIdStatus::Verified } else { CallerIdStatus::Expired })
    });
    chosen.ok_or_else(|| {
        refuse(
            RefusalCode::CallerIdMissing,
            "the account has no default caller ID: verify a number and make it the default",
        )
    })
}

/// The number that a phone asks for. Its digits alone say which of the account's it is, whether or not they could be dialled so.
/// A preferred number is meant, so no other is shown in its place; digits in From may be a name of the phone's, when nobody
/// would dial them, when they would be dialled without any prefix, or when they are its username.
fn wanted<'a>(
    caller_ids: &'a [CallerId],
    wish: &CallerIdWish,
    country: &str,
    at: Timestamp,
) -> Result<&'a CallerId, Refusal> {
    let (CallerIdWish::Preferred(text) | CallerIdWish::From(text) | CallerIdWish::Username(text)) = wish;
    let text = text.expose();
    let is_meant = match wish {
        CallerIdWish::Preferred(_) => true,
        CallerIdWish::From(_) => text.starts_with('+'),
        CallerIdWish::Username(_) => false,
    };
    let digits = text.strip_prefix('+').unwrap_or(text);
    let own = |digits: &str| caller_ids.iter().find(|known| known.number.digits() == digits);
    if let Some(known) = own(digits) {
        return Ok(known);
    }
    let (meant, is_number) = match dialplan::read(text, country) {
        Dialled::Number { number, form, .. } => {
            let may_be_a_name = form == Form::Bare || matches!(wish, CallerIdWish::Username(_));
            (own(number.digits()), is_meant || !may_be_a_name)
        }
        Dialled::Emergency | Dialled::Invalid(_) => (None, is_meant && digits.len() >= E164::DIGITS_MIN),
    };
    match meant {
        Some(known) => Ok(known),
        None if is_number => Err(unknown()),
        None => default(caller_ids, at),
    }
}

fn unknown() -> Refusal {
    refuse(
        RefusalCode::CallerIdUnverified,
        "the wanted caller ID is not one of the account's numbers: add and verify it first",
    )
}

const fn not_presentable(why: NotPresentable, status: CallerIdStatus) -> &'static str {
    match (why, status) {
        (NotPresentable::Expired, _) => "the verification of this caller ID has ended: verify the number again",
        (_, CallerIdStatus::Pending) => "the verification of this caller ID is not finished: enter its code",
        (_, CallerIdStatus::Revoked) => "this caller ID was revoked: verify the number again",
        (_, CallerIdStatus::Contested) => "another account has proved this number since: verify it again",
        _ => "this caller ID is not verified: verify the number first",
    }
}

const fn basis(evidence: Option<Evidence>) -> &'static str {
    match evidence {
        Some(Evidence::Assigned) => "A: the number was assigned to the account by the service",
        Some(Evidence::Document) => "A: a letter of authorization was reviewed",
        Some(Evidence::CallCode) => "B: proved by a code given in a call",
        Some(Evidence::SmsCode) => "B: proved by a code sent by SMS",
        Some(Evidence::Operator) | None => "B: on the operator's word",
    }
}

fn refuse(code: RefusalCode, message: &str) -> Refusal {
    Refusal { code, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::pii::Pii;
    use uuid::Uuid;

    fn caller_id(id: u128, number: &str, status: CallerIdStatus, is_default: bool) -> CallerId {
        CallerId {
            id: CallerIdId(Uuid::from_u128(id)),
            number: E164::parse(number).expect("valid"),
            label: None,
            status,
            evidence: (status == CallerIdStatus::Verified).then_some(Evidence::CallCode),
            is_default,
            verified_at: None,
            expires_at: Some(Timestamp(1_000)),
        }
    }

    fn chosen(caller_ids: &[CallerId], choice: CallerChoice, at: i64) -> String {
        match choose(caller_ids, &choice, "GB", Timestamp(at)) {
            Ok(chosen) => chosen.number.number().as_str().to_owned(),
            Err(refusal) => refusal.code.as_str().to_owned(),
        }
    }

    #[test]
    fn p2_only_a_verified_number_of_the_account_is_shown() {
        use CallerIdStatus::{Contested, Pending, Revoked, Unverified, Verified};
        let (one, two) = ("+447700900001", "+447700900002");
        let ids = [caller_id(1, one, Verified, true), caller_id(2, two, Pending, false)];
        let wish = |text: &str| CallerChoice::Wanted(CallerIdWish::From(Pii::new(text.to_owned())));
        let preferred = |text: &str| CallerChoice::Wanted(CallerIdWish::Preferred(Pii::new(text.to_owned())));
        for (choice, at, expected) in [
            (CallerChoice::Default, 0, one),
            (CallerChoice::Default, 1_000, "CALLER_ID_UNVERIFIED"),
            (wish(one), 0, one),
            (wish("07700900001"), 0, one),
            (wish(two), 0, "CALLER_ID_UNVERIFIED"),
            (wish("+447700900009"), 0, "CALLER_ID_UNVERIFIED"),
            (wish("00447700900009"), 0, "CALLER_ID_UNVERIFIED"),
            (wish("1001"), 0, one),
            (wish("alice"), 0, one),
            // E.164 without a plus, as many exchanges write it.
            (wish("447700900001"), 0, one),
            (wish("447700900002"), 0, "CALLER_ID_UNVERIFIED"),
            (wish("447700900009"), 0, one),
            (wish("+0447700900"), 0, "CALLER_ID_UNVERIFIED"),
            (preferred("447700900001"), 0, one),
            (preferred("447700900002"), 0, "CALLER_ID_UNVERIFIED"),
            (preferred("447700900009"), 0, "CALLER_ID_UNVERIFIED"),
            (preferred("7700900009"), 0, "CALLER_ID_UNVERIFIED"),
            (preferred("4477009000091234567"), 0, "CALLER_ID_UNVERIFIED"),
            (preferred("07700900001"), 0, one),
            (preferred("1001"), 0, one),
            (CallerChoice::Chosen(CallerIdId(Uuid::from_u128(2))), 0, "CALLER_ID_UNVERIFIED"),
            (CallerChoice::Chosen(CallerIdId(Uuid::from_u128(7))), 0, "CALLER_ID_UNVERIFIED"),
        ] {
            assert_eq!(chosen(&ids, choice.clone(), at), expected, "{choice:?} at {at}");
        }
        for status in [Unverified, Revoked, Contested] {
            assert_eq!(chosen(&[caller_id(1, one, status, true)], CallerChoice::Default, 0), "CALLER_ID_UNVERIFIED");
        }
    }

    #[test]
    fn p2_national_digits_are_a_wish_where_they_are_preferred_and_may_be_a_name_in_from() {
        let (one, two) = ("+12125550123", "+12125550124");
        let ids =
            [caller_id(1, one, CallerIdStatus::Verified, true), caller_id(2, two, CallerIdStatus::Verified, false)];
        type Wish = fn(Pii<String>) -> CallerIdWish;
        for (wish, text, expected) in [
            (CallerIdWish::Preferred as Wish, "2125550124", two),
            (CallerIdWish::Preferred, "2125550199", "CALLER_ID_UNVERIFIED"),
            (CallerIdWish::From, "2125550124", two),
            (CallerIdWish::From, "12125550124", two),
            (CallerIdWish::From, "2125550199", one),
            (CallerIdWish::From, "12125550199", "CALLER_ID_UNVERIFIED"),
            (CallerIdWish::Username, "12125550124", two),
            (CallerIdWish::Username, "2125550124", two),
            (CallerIdWish::Username, "12125550199", one),
        ] {
            let choice = CallerChoice::Wanted(wish(Pii::new(text.to_owned())));
            let chosen = choose(&ids, &choice, "US", Timestamp(0)).map(|chosen| chosen.number.number().clone());
            let said = chosen.as_ref().map_or_else(|refusal| refusal.code.as_str(), E164::as_str);
            assert_eq!(said, expected, "{text}");
        }
    }

    #[test]
    fn without_a_default_the_only_verified_number_is_shown() {
        use CallerIdStatus::Verified;
        let (one, two) =
            (caller_id(1, "+447700900001", Verified, false), caller_id(2, "+447700900002", Verified, false));
        assert_eq!(chosen(std::slice::from_ref(&one), CallerChoice::Default, 0), "+447700900001");
        assert_eq!(chosen(&[one.clone(), two.clone()], CallerChoice::Default, 0), "CALLER_ID_MISSING");
        // One whose proof ran out counts no more, and is named when there is no other.
        let lasting = CallerId { expires_at: None, ..two };
        assert_eq!(chosen(&[one.clone(), lasting], CallerChoice::Default, 1_000), "+447700900002");
        assert_eq!(chosen(&[one], CallerChoice::Default, 1_000), "CALLER_ID_UNVERIFIED");
        assert_eq!(chosen(&[], CallerChoice::Default, 0), "CALLER_ID_MISSING");
    }
}
