//! What a world must be before anything of it is stored. Pure, but for the system's time zones. An error names the entry and its key;
//! whatever is personal or secret is hidden.

use super::{Account, AccountsBulk, CallerId, FirstUsername, GivenLimits, MAX_BULK, World, WorldError};
use actors::dialplan::special::{self, DestinationClass};
use schema::account::Limits;
use schema::money::{Currency, Micros};
use schema::number::CallbackNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Fewest characters of an account's SIP password. Those of `accounts_bulk`, which load tests use, are warned of only.
const SIP_PASSWORD_MIN: usize = 8;
/// SIP passwords with fewer characters are warned of: twenty letters and digits at random have 119 bits.
const SIP_PASSWORD_ADVISED: usize = 20;
/// Currencies in which the rate that a new account may call at most, [`Limits::default`], makes sense.
const RATE_KNOWN: [&str; 8] = ["EUR", "USD", "GBP", "CHF", "CAD", "AUD", "NZD", "SGD"];
/// How long a call may be allowed to last, in seconds.
const CALL_SECONDS: RangeInclusive<u32> = 10..=86_400;

type Checked = Result<(), WorldError>;

impl World {
    pub(super) fn check(&self) -> Checked {
        names_once("rate_deck.name", self.rate_decks.iter().map(|deck| deck.name.as_str()))?;
        names_once("carrier.name", self.carriers.iter().map(|carrier| carrier.name.as_str()))?;
        for (n, operator) in (1..).zip(&self.operators) {
            check_password(format!("operator.password of operator {n}"), &operator.password)?;
            check_email(format!("operator.email of operator {n}"), &operator.email)?;
        }
        for carrier in &self.carriers {
            carrier.login()?;
        }
        self.accounts.iter().try_for_each(Account::check)?;
        self.accounts_bulk.iter().try_for_each(AccountsBulk::check)?;
        self.sip_usernames_once()
    }

    /// What an operator should think of: one line for each thing.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        let short = |password: &str| password.chars().count() < SIP_PASSWORD_ADVISED;
        let why = "has fewer than 20 characters and may be guessed";
        let mut named = self.accounts.iter().filter(|account| short(&account.sip_password));
        if let Some(first) = named.next() {
            let more = named.count();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            all.push(format!("{}{more}: {why}", first.key("sip_password")));
        }
        for bulk in &self.accounts_bulk {
            if !bulk.sip_password.contains("{n}") {
                all.push(format!("{}: is the same for all of them", bulk.key("sip_password")));
            }
            if short(&bulk.sip_credential(0).1) {
                all.push(format!("{}: {why}", bulk.key("sip_password")));
            }
        }
        all.extend(
            self.shared_caller_ids().into_iter().map(|key| format!("{key}: another account may show the same number")),
        );
        all
    }

    /// Keys with a number that an entry before, or another account of the same one, has too.
    fn shared_caller_ids(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let named = self.accounts.iter().map(|account| (account.key("caller_ids"), &account.caller_ids, 1));
        let bulk = self.accounts_bulk.iter().map(|bulk| (bulk.key("caller_ids"), &bulk.caller_ids, bulk.count));
        let mut shared = Vec::new();
        for (key, caller_ids, count) in named.chain(bulk) {
            let known = caller_ids.iter().filter(|caller_id| !seen.insert(&caller_id.number)).count();
            if known > 0 || (count > 1 && !caller_ids.is_empty()) {
                shared.push(key);
            }
        }
        shared
    }

    /// A SIP username is one account's.
    fn sip_usernames_once(&self) -> Checked {
        names_once("account.sip_username", self.accounts.iter().map(|account| account.sip_username.as_str()))?;
        // By what stands before their numbers, each with its first and last number.
        let mut ranges: BTreeMap<&str, Vec<(u64, u64, &AccountsBulk)>> = BTreeMap::new();
        for bulk in &self.accounts_bulk {
            let FirstUsername { stem, number } = &bulk.first_sip_username;
            ranges.entry(stem).or_default().push((*number, number + u64::from(bulk.count - 1), bulk));
        }
        for ranges in ranges.values_mut() {
            ranges.sort_unstable_by_key(|(first, ..)| *first);
            if let Some([(.., one), (_, _, other)]) = ranges.array_windows().find(|[one, other]| one.1 >= other.0) {
                let first = other.sip_credential(0).0;
                return wrong(
                    "accounts_bulk.first_sip_username",
                    first,
                    format!("is there already, as one of those from {}", one.sip_credential(0).0),
                );
            }
        }
        for account in &self.accounts {
            let name = &account.sip_username;
            let Ok(FirstUsername { stem, number }) = FirstUsername::parse(name) else { continue };
            let mut of_stem = ranges.get(stem.as_str()).into_iter().flatten();
            if let Some((.., bulk)) = of_stem.find(|(first, last, _)| (*first..=*last).contains(&number)) {
                return wrong(
                    "account.sip_username",
                    name,
                    format!("is there already, as one of accounts_bulk from {}", bulk.sip_credential(0).0),
                );
            }
        }
        Ok(())
    }
}

impl Account {
    fn check(&self) -> Checked {
        check_sip_username("account.sip_username", &self.sip_username)?;
        check_email(self.key("email"), &self.email)?;
        check_password(self.key("password"), &self.password)?;
        check_sip_password(self.key("sip_password"), &self.sip_password, SIP_PASSWORD_MIN)?;
        check_country(self.key("country"), &self.country)?;
        check_time_zone(self.key("time_zone"), &self.time_zone)?;
        check_credit(self.key("opening_credit"), self.opening_credit)?;
        check_limits(|key| self.key(key), self.currency, &self.limits)?;
        check_caller_ids(self.key("caller_ids"), &self.caller_ids, &self.callback_numbers)
    }
}

impl AccountsBulk {
    fn check(&self) -> Checked {
        check_sip_username("accounts_bulk.first_sip_username", &self.sip_credential(0).0)?;
        if !(1..=MAX_BULK).contains(&self.count) {
            return wrong(self.key("count"), self.count, "must be 1 to 10000000");
        }
        check_sip_username("the last of accounts_bulk.first_sip_username", &self.sip_credential(self.count - 1).0)?;
        check_sip_password(self.key("sip_password"), &self.sip_password, 1)?;
        check_country(self.key("country"), &self.country)?;
        check_time_zone(self.key("time_zone"), &self.time_zone)?;
        check_credit(self.key("opening_credit"), self.opening_credit)?;
        check_limits(|key| self.key(key), self.currency, &self.limits)?;
        check_caller_ids(self.key("caller_ids"), &self.caller_ids, &[])
    }
}

fn wrong(key: impl Display, value: impl Display, allowed: impl Display) -> Checked {
    Err(WorldError(format!("{key} = {value}: {allowed}")))
}

fn names_once<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Checked {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return wrong(key, name.escape_debug(), "each name must be there once");
        }
    }
    Ok(())
}

fn check_password(key: impl Display, password: &str) -> Checked {
    graphql::password::check_password(password).or_else(|error| wrong(key, "(hidden)", error))
}

/// `{n}` counts as it stands there.
fn check_sip_password(key: impl Display, password: &str, least: usize) -> Checked {
    if (least..=128).contains(&password.chars().count()) && !password.chars().any(char::is_control) {
        return Ok(());
    }
    wrong(key, "(hidden)", format!("must have {least} to 128 printable characters"))
}

fn check_email(key: impl Display, email: &str) -> Checked {
    let email = email.trim();
    let fits = email
        .split_once('@')
        .is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if fits && (3..=254).contains(&email.len()) && !email.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    wrong(key, "(hidden)", "must have 3 to 254 bytes, one @ and no spaces")
}

fn check_country(key: impl Display, country: &str) -> Checked {
    if country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase()) {
        return Ok(());
    }
    wrong(key, country, "must be two capitals such as GB (ISO 3166-1)")
}

/// Where the system has no time zones any name is taken.
fn check_time_zone(key: impl Display, name: &str) -> Checked {
    if jiff::tz::TimeZone::get(name).is_ok() || jiff::tz::db().is_definitively_empty() {
        return Ok(());
    }
    wrong(
        key,
        name.escape_debug(),
        "must be a name of the IANA time zone database, as this machine has it (tzdata), such as Europe/London",
    )
}

fn check_credit(key: impl Display, credit: Micros) -> Checked {
    if credit.is_negative() { wrong(key, credit, "must not be negative") } else { Ok(()) }
}

fn check_limits(key: impl Fn(&str) -> String, currency: Currency, limits: &GivenLimits) -> Checked {
    check_rate(key("limits.rate_per_minute"), currency, limits)?;
    check_call_seconds(key("limits.call_seconds"), limits)
}

/// The default would refuse every call in one currency and none in another.
fn check_rate(key: impl Display, currency: Currency, limits: &GivenLimits) -> Checked {
    let Some(default) = Limits::default().rate_per_minute.filter(|_| limits.rate_per_minute.is_none()) else {
        return Ok(());
    };
    if RATE_KNOWN.contains(&currency.as_str()) {
        return Ok(());
    }
    let why = format!(
        "must say what a minute may cost in {currency} at most, or \"none\": {default} is meant for EUR or USD"
    );
    wrong(key, "(none)", why)
}

/// A call is cut half a second before its last paid one ends.
fn check_call_seconds(key: impl Display, limits: &GivenLimits) -> Checked {
    match limits.call_seconds.filter(|seconds| !CALL_SECONDS.contains(seconds)) {
        Some(seconds) => wrong(key, seconds, "must be 10 to 86400"),
        None => Ok(()),
    }
}

/// Numbers that may be shown: each once, of a kind that a person can own, and none that the account is called back on, which its
/// owner would have to prove and agree to (the file cannot say that).
fn check_caller_ids(key: impl Display, caller_ids: &[CallerId], called_back: &[CallbackNumber]) -> Checked {
    let mut seen = BTreeSet::new();
    for (n, CallerId { number, .. }) in (1..).zip(caller_ids) {
        let why = if !seen.insert(number) {
            "each number must be there once"
        } else if special::class(number.digits()) != DestinationClass::Ordinary {
            "premium-rate, shared-cost and satellite numbers cannot be verified"
        } else if called_back.iter().any(|phone| phone.sealed_form() == number.as_str()) {
            "must not be one of callback_numbers, which are never shown"
        } else {
            continue;
        };
        return wrong(key, format!("(number {n} is hidden)"), why);
    }
    Ok(())
}

fn check_sip_username(key: &str, name: &str) -> Checked {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    wrong(key, name.escape_debug(), "must have 1 to 64 of a-z A-Z 0-9 - _ .")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "[[account]]\nemail = \"a@x.test\"\nusername = \"a\"\npassword = \"hunter22\"\ncountry = \"GB\"\ncurrency = \"EUR\"\nrate_deck = \"d\"\nsip_username = \"ann\"\nsip_password = \"12345678\"\n";
    const BULK: &str = "[[accounts_bulk]]\ncount = 10\nfirst_sip_username = \"u90\"\nsip_password = \"pw{n}\"\ncountry = \"GB\"\ncurrency = \"EUR\"\nrate_deck = \"d\"\n";
    const DECK: &str = "[[rate_deck]]\nname = \"Retail\"\nfile = \"d.csv\"\ncurrency = \"EUR\"\n";
    const CARRIER: &str =
        "[[carrier]]\nname = \"One\"\ngateway = \"192.0.2.1:5060\"\ncurrency = \"EUR\"\ndeck = \"d\"\n";

    /// What is said of this world; empty when it is well.
    fn said(text: &str) -> String {
        World::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_name_that_is_there_twice_is_named() {
        let named = |name: &str| ACCOUNT.replace("\"ann\"", &format!("\"{name}\"")).replace("a@", &format!("{name}@"));
        let from = |first: &str| BULK.replace("u90", first);
        for (text, says) in [
            (DECK.repeat(2), "rate_deck.name = Retail: each name must be there once"),
            (CARRIER.repeat(2), "carrier.name = One: each name must be there once"),
            (named("ann") + &named("bob") + &named("ann"), "account.sip_username = ann: each name must be there once"),
            (
                from("u90") + &from("u99"),
                "accounts_bulk.first_sip_username = u99: is there already, as one of those from u90",
            ),
            (
                from("u99") + &from("u90"),
                "accounts_bulk.first_sip_username = u99: is there already, as one of those from u90",
            ),
            (named("u99") + BULK, "account.sip_username = u99: is there already, as one of accounts_bulk from u90"),
            (named("u90") + BULK, "account.sip_username = u90: is there already, as one of accounts_bulk from u90"),
            (
                named("u89") + &named("u100") + &named("u095") + &named("v95") + BULK + &from("u100") + &from("v0"),
                "account.sip_username = u100: ",
            ),
            (named("u89") + &named("u110") + &named("u095") + &named("v95") + BULK + &from("u100") + &from("v0"), ""),
            (DECK.to_owned() + &DECK.replace("Retail", "retail") + CARRIER, ""),
        ] {
            let said = said(&text);
            assert!(said.starts_with(says) && said.is_empty() == says.is_empty(), "{says}: {said}");
        }
    }

    #[test]
    fn a_sip_password_is_neither_empty_nor_trivial() {
        let with = |password: &str| ACCOUNT.replace("12345678", password);
        let refused = "account.sip_password of sip_username ann = (hidden): must have 8 to 128 printable characters";
        for password in ["", "hunter7", "äääääää", "hunter7\\u0007", &"x".repeat(129)] {
            assert_eq!(said(&with(password)), refused, "{password}");
        }
        let warnings = |text: &str| World::parse(text).expect("allowed").warnings();
        let guessed = "has fewer than 20 characters and may be guessed";
        assert_eq!(warnings(ACCOUNT), [format!("account.sip_password of sip_username ann: {guessed}")]);
        let two = ACCOUNT.to_owned() + &ACCOUNT.replace("ann", "bob").replace("a@", "b@");
        assert_eq!(warnings(&two), [format!("account.sip_password of sip_username ann and 1 more: {guessed}")]);
        assert!(warnings(&with("a long random secret of chance")).is_empty());
        // Load tests have short ones.
        let bulk = "accounts_bulk.sip_password of first_sip_username u90";
        assert_eq!(warnings(BULK), [format!("{bulk}: {guessed}")]);
        let same = warnings(&BULK.replace("pw{n}", "the same long secret for all"));
        assert_eq!(same, [format!("{bulk}: is the same for all of them")]);
        assert!(said(&BULK.replace("pw{n}", "")).starts_with(&format!("{bulk} = (hidden): must have 1 to 128")));
    }

    #[test]
    fn a_number_that_two_accounts_may_show_is_warned_of() {
        let showing = |text: &str, number: &str| {
            format!("{text}caller_ids = [{{ number = \"{number}\", evidence = \"assigned\" }}]\n")
        };
        let (ann, bob) = (ACCOUNT.to_owned(), ACCOUNT.replace("ann", "bob").replace("a@", "b@"));
        let (one, other) = ("+442079460123", "+442079460124");
        let warned = |text: String| {
            let warnings = World::parse(&text).expect("allowed").warnings();
            warnings.into_iter().filter(|line| line.contains("another account")).collect::<Vec<_>>()
        };
        let says = "another account may show the same number";
        assert!(warned(showing(&ann, one) + &showing(&bob, other)).is_empty());
        let of_bob = format!("account.caller_ids of sip_username bob: {says}");
        assert_eq!(warned(showing(&ann, one) + &showing(&bob, one)), [of_bob]);
        let of_bulk = format!("accounts_bulk.caller_ids of first_sip_username u90: {says}");
        assert_eq!(warned(showing(BULK, one)), [of_bulk]);
        assert!(warned(showing(&BULK.replace("count = 10", "count = 1"), one)).is_empty());
    }

    #[test]
    fn time_zones_and_addresses_are_what_they_are_called() {
        let zone = |name: &str| format!("time_zone = \"{name}\"\n");
        for name in ["UTC", "Europe/London", "America/Argentina/Buenos_Aires"] {
            assert_eq!(
                (said(&(ACCOUNT.to_owned() + &zone(name))), said(&(BULK.to_owned() + &zone(name)))),
                Default::default()
            );
        }
        for name in ["London", "Mars/Base", "", "GMT+25"] {
            let (account, bulk) = (said(&(ACCOUNT.to_owned() + &zone(name))), said(&(BULK.to_owned() + &zone(name))));
            let says = format!("account.time_zone of sip_username ann = {name}: must be a name of the IANA");
            assert!(account.starts_with(&says), "{account}");
            assert!(bulk.starts_with("accounts_bulk.time_zone of first_sip_username u90 = "), "{bulk}");
        }
        let operator = "[[operator]]\nemail = \"a@x.test\"\npassword = \"hunter22\"\nroles = []\n";
        for email in ["", "hunter", "@x.test", "hunter@", "a@b@c", "a b@x.test", &format!("{}@x.test", "a".repeat(250))]
        {
            let with = |text: &str| said(&text.replace("a@x.test", email));
            let says = "(hidden): must have 3 to 254 bytes, one @ and no spaces";
            assert_eq!(with(ACCOUNT), format!("account.email of sip_username ann = {says}"), "{email}");
            assert_eq!(with(operator), format!("operator.email of operator 1 = {says}"), "{email}");
        }
    }

    #[test]
    fn a_limit_of_price_is_asked_for_where_the_default_makes_no_sense() {
        for text in [ACCOUNT, BULK] {
            let in_yen = text.replace("EUR", "JPY");
            let asked = said(&in_yen);
            assert!(
                asked.contains("limits.rate_per_minute of ")
                    && asked.contains(" = (none): must say what a minute may cost in JPY"),
                "{asked}"
            );
            assert!(!said(&(in_yen.clone() + "limits = { live_calls = 1 }\n")).is_empty());
            for given in ["80", "none"] {
                assert_eq!(said(&format!("{in_yen}limits = {{ rate_per_minute = \"{given}\" }}\n")), "");
            }
            assert_eq!(said(&text.replace("EUR", "CHF")), "");
        }
    }

    #[test]
    fn the_longest_call_is_one_that_can_be_paid_and_cut() {
        for text in [ACCOUNT, BULK] {
            let with = |seconds: u32| said(&format!("{text}limits = {{ call_seconds = {seconds} }}\n"));
            for seconds in [0, 1, 9, 86_401] {
                let says = format!(" = {seconds}: must be 10 to 86400");
                assert!(with(seconds).contains("limits.call_seconds of ") && with(seconds).ends_with(&says));
            }
            assert_eq!((with(10), with(86_400)), Default::default());
        }
    }
}
