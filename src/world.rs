//! World files: operators, carriers, rate decks and accounts as TOML, for `ringfence provision` and the demo.

use schema::account::{Evidence, Limits};
use schema::carrier::{REGISTER_S, TrunkLogin};
use schema::money::{Currency, Micros, NanosPerMinute};
use schema::number::{CallbackNumber, E164};
use schema::pii::Pii;
use schema::target::TrunkGateway;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::Path;

mod check;

/// How long a registration with a carrier is asked for, seconds.
const DEFAULT_REGISTER_S: u32 = 3_600;
/// The most accounts one `[[accounts_bulk]]` may make.
const MAX_BULK: u32 = 10_000_000;

/// A world file, read and checked; rate decks are read in too.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Operator staff.
    #[serde(default, rename = "operator")]
    pub operators: Vec<Operator>,
    /// Carriers, one trunk each.
    #[serde(default, rename = "carrier")]
    pub carriers: Vec<Carrier>,
    /// Rate decks.
    #[serde(default, rename = "rate_deck")]
    pub rate_decks: Vec<RateDeck>,
    /// Customers.
    #[serde(default, rename = "account")]
    pub accounts: Vec<Account>,
    /// Many customers at once.
    #[serde(default, rename = "accounts_bulk")]
    pub accounts_bulk: Vec<AccountsBulk>,
}

/// `[[operator]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys of the world file, as the README shows them")]
pub struct Operator {
    pub email: String,
    pub password: String,
    pub roles: Vec<String>,
}

/// `[[carrier]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys of the world file, as the README shows them")]
pub struct Carrier {
    pub name: String,
    #[serde(deserialize_with = "gateway")]
    pub gateway: TrunkGateway,
    pub currency: Currency,
    pub deck: String,
    #[serde(default = "default_channels")]
    pub max_channels: u32,
    #[serde(default = "default_cps")]
    pub max_cps: u32,
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub large_over_tcp: bool,
    #[serde(default)]
    pub trusted: bool,
    pub auth_username: Option<String>,
    pub auth_password: Option<Pii<String>>,
    pub auth_realm: Option<String>,
    #[serde(default)]
    pub register: bool,
    pub register_expires: Option<u32>,
}

impl Carrier {
    /// How we show the carrier who we are; `None`: it knows our address.
    ///
    /// # Errors
    /// One line naming key and value.
    pub fn login(&self) -> Result<Option<TrunkLogin>, WorldError> {
        let wrong = |key: &str, why: &str| Err(WorldError(format!("{}: {why}", self.key(key))));
        let (username, password) = match (&self.auth_username, &self.auth_password) {
            (Some(username), Some(password)) => (username, password),
            (Some(_), None) => return wrong("auth_username", "needs auth_password too"),
            (None, Some(_)) => return wrong("auth_password", "needs auth_username too"),
            (None, None) if self.register => return wrong("register", "needs auth_username and auth_password"),
            (None, None) if self.auth_realm.is_some() => return wrong("auth_realm", "needs auth_username"),
            (None, None) if self.register_expires.is_some() => {
                return wrong("register_expires", "needs register = true");
            }
            (None, None) => return Ok(None),
        };
        if !is_printable(username, 64) {
            return wrong("auth_username", "must have 1 to 64 printable ASCII characters");
        }
        if !is_printable(password.expose(), 128) {
            return wrong("auth_password", "(hidden) must have 1 to 128 printable ASCII characters");
        }
        if self.auth_realm.as_ref().is_some_and(|realm| !is_printable(realm, 256)) {
            return wrong("auth_realm", "must have 1 to 256 printable ASCII characters");
        }
        let register_s = match (self.register, self.register_expires) {
            (true, seconds) => Some(seconds.unwrap_or(DEFAULT_REGISTER_S)),
            (false, Some(_)) => return wrong("register_expires", "needs register = true"),
            (false, None) => None,
        };
        if let Some(seconds) = register_s.filter(|seconds| !REGISTER_S.contains(seconds)) {
            return wrong("register_expires", &format!("{seconds} must be 60 to 86400 seconds"));
        }
        let (username, password, realm) = (username.clone(), password.clone(), self.auth_realm.clone());
        Ok(Some(TrunkLogin { username, password, realm, register_s }))
    }
}

impl Carrier {
    /// How an error names a key of this carrier.
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        format!("carrier.{key} of {}", self.name)
    }
}

fn is_printable(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

/// `[[rate_deck]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys of the world file, as the README shows them")]
pub struct RateDeck {
    pub name: String,
    /// CSV file, relative to the world file.
    pub file: String,
    /// What the file held.
    #[serde(skip)]
    pub csv: String,
    pub currency: Currency,
    #[serde(default)]
    pub tax_included: bool,
}

/// `[[account]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys of the world file, as the README shows them")]
pub struct Account {
    pub email: String,
    pub username: String,
    pub password: String,
    pub country: String,
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    pub currency: Currency,
    #[serde(default, deserialize_with = "amount")]
    pub opening_credit: Micros,
    pub rate_deck: String,
    pub sip_username: String,
    pub sip_password: String,
    #[serde(default)]
    pub caller_ids: Vec<CallerId>,
    #[serde(default, deserialize_with = "callback_numbers")]
    pub callback_numbers: Vec<CallbackNumber>,
    #[serde(default)]
    pub limits: GivenLimits,
}

impl Account {
    /// How an error names a key of this account.
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        format!("account.{key} of sip_username {}", self.sip_username)
    }
}

/// `caller_ids = [{number, evidence}]`; the first is the default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys of the world file, as the README shows them")]
pub struct CallerId {
    pub number: E164,
    #[serde(deserialize_with = "evidence")]
    pub evidence: Evidence,
}

/// `[[accounts_bulk]]`: `count` accounts whose SIP usernames count up from the first, e.g. `u0`. `{n}` in `sip_password`
/// stands for the number at the end of the username. They have no web password until it is reset.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys of the world file, as the README shows them")]
pub struct AccountsBulk {
    pub count: u32,
    pub first_sip_username: FirstUsername,
    pub sip_password: String,
    pub country: String,
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    pub currency: Currency,
    #[serde(default, deserialize_with = "amount")]
    pub opening_credit: Micros,
    pub rate_deck: String,
    #[serde(default)]
    pub caller_ids: Vec<CallerId>,
    #[serde(default)]
    pub limits: GivenLimits,
}

impl AccountsBulk {
    /// Username and password of the `n`-th account, from 0.
    #[must_use]
    pub fn sip_credential(&self, n: u32) -> (String, String) {
        let FirstUsername { stem, number } = &self.first_sip_username;
        let number = number + u64::from(n);
        (format!("{stem}{number}"), self.sip_password.replace("{n}", &number.to_string()))
    }

    /// How an error names a key of these accounts.
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        format!("accounts_bulk.{key} of first_sip_username {}", self.sip_credential(0).0)
    }
}

/// A SIP username that ends in the number that is counted up from. Of at most 18 digits: adding a `u32` never overflows.
pub struct FirstUsername {
    stem: String,
    number: u64,
}

impl FirstUsername {
    /// # Errors
    /// Why nothing can be counted up from it.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &text[stem.len()..];
        match digits.parse() {
            // Counting would drop the noughts: after u009 came u10.
            Ok(_) if digits.len() > 1 && digits.starts_with('0') => Err("its number must not begin with 0"),
            Ok(number) if digits.len() <= 18 => Ok(Self { stem: stem.to_owned(), number }),
            Err(_) if digits.is_empty() => Err("must end in a number, e.g. u0"),
            _ => Err("its number must have at most 18 digits"),
        }
    }
}

impl<'de> Deserialize<'de> for FirstUsername {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(|why| serde::de::Error::custom(format!("first_sip_username {text:?}: {why}")))
    }
}

/// What is wrong with a world file: one line for each thing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WorldError(pub String);

impl World {
    /// Reads a world file and the rate decks it names.
    ///
    /// # Errors
    /// One line naming file, key and value.
    pub fn load(path: &Path) -> Result<Self, WorldError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| WorldError(format!("{}: {error}", path.display())))
        };
        let mut world =
            Self::parse(&read(path)?).map_err(|error| WorldError(format!("{}: {error}", path.display())))?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        for deck in &mut world.rate_decks {
            deck.csv = read(&folder.join(&deck.file))?;
        }
        Ok(world)
    }

    /// The texts of a world file and of the rate decks it names, to be sent to a running server.
    ///
    /// # Errors
    /// As [`World::load`].
    pub fn texts(path: &Path) -> Result<(String, BTreeMap<String, String>), WorldError> {
        let world = Self::load(path)?;
        let text = std::fs::read_to_string(path).map_err(|error| WorldError(format!("{}: {error}", path.display())))?;
        Ok((text, world.rate_decks.into_iter().map(|deck| (deck.file, deck.csv)).collect()))
    }

    /// Out of what [`World::texts`] gave.
    ///
    /// # Errors
    /// As [`World::load`].
    pub fn of_texts(text: &str, files: &BTreeMap<String, String>) -> Result<Self, WorldError> {
        let mut world = Self::parse(text)?;
        for deck in &mut world.rate_decks {
            let csv = files.get(&deck.file).ok_or_else(|| WorldError(format!("{}: not sent", deck.file)))?;
            deck.csv.clone_from(csv);
        }
        Ok(world)
    }

    /// Reads the text of a world file; the decks' files are not read.
    ///
    /// # Errors
    /// One line naming key and value.
    pub fn parse(text: &str) -> Result<Self, WorldError> {
        let world: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let line = line.map_or_else(String::new, |line| format!("line {line}: "));
            WorldError(line + &without_value(&error.message().replace('\n', " ")))
        })?;
        world.check()?;
        Ok(world)
    }
}

/// A message of the TOML library without a value of the wrong type, which may be a password: `password = 12345678`.
fn without_value(message: &str) -> String {
    match (message.split_once(": "), message.rsplit_once(", expected ")) {
        (Some((problem @ ("invalid type" | "invalid value"), found)), Some((_, expected))) => {
            format!("{problem}: {}, expected {expected}", crate::config::hidden(found))
        }
        _ => message.to_owned(),
    }
}

const fn default_channels() -> u32 {
    1_000
}

const fn default_cps() -> u32 {
    100
}

fn default_time_zone() -> String {
    String::from("UTC")
}

/// An amount as a string or an integer; a TOML float has lost its exactness already.
fn amount<'de, D: Deserializer<'de>>(d: D) -> Result<Micros, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an amount as text, e.g. \"10.00\"")]
    enum Amount {
        Text(String),
        Whole(i64),
    }
    let text = match Amount::deserialize(d)? {
        Amount::Text(text) => text,
        Amount::Whole(units) => units.to_string(),
    };
    Micros::parse(&text).map_err(|error| serde::de::Error::custom(format!("amount {text:?}: {error}")))
}

/// `limits = {…}`: those left out have their defaults.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys of the world file, as the README shows them")]
pub struct GivenLimits {
    pub live_calls: Option<u32>,
    pub calls_per_minute: Option<u32>,
    pub call_seconds: Option<u32>,
    /// A decimal as text; `Some(None)`: `"none"`.
    #[serde(deserialize_with = "rate")]
    pub rate_per_minute: Option<Option<NanosPerMinute>>,
}

impl GivenLimits {
    /// With the defaults of what is left out.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            live_calls: self.live_calls.unwrap_or(default.live_calls),
            calls_per_minute: self.calls_per_minute.unwrap_or(default.calls_per_minute),
            call_seconds: self.call_seconds.unwrap_or(default.call_seconds),
            rate_per_minute: self.rate_per_minute.unwrap_or(default.rate_per_minute),
        }
    }
}

fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<NanosPerMinute>>, D::Error> {
    let text = String::deserialize(d)?;
    if text == "none" {
        return Ok(Some(None));
    }
    let rate = NanosPerMinute::parse(&text)
        .map_err(|error| serde::de::Error::custom(format!("rate_per_minute {text:?}: {error}")))?;
    Ok(Some(Some(rate)))
}

fn evidence<'de, D: Deserializer<'de>>(d: D) -> Result<Evidence, D::Error> {
    let text = String::deserialize(d)?;
    Ok(match text.as_str() {
        "assigned" => Evidence::Assigned,
        "call_code" => Evidence::CallCode,
        "sms_code" => Evidence::SmsCode,
        "document" => Evidence::Document,
        "operator" => Evidence::Operator,
        _ => {
            let allowed = "must be assigned, call_code, sms_code, document or operator";
            return Err(serde::de::Error::custom(format!("evidence {text:?}: {allowed}")));
        }
    })
}

fn callback_numbers<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<CallbackNumber>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    texts.iter().map(|text| CallbackNumber::parse(text).map_err(serde::de::Error::custom)).collect()
}

/// `HOST:PORT`, a name, or `udp:`, `tcp:`, `tls:` and that.
fn gateway<'de, D: Deserializer<'de>>(d: D) -> Result<TrunkGateway, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|error| serde::de::Error::custom(format!("gateway {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code blocks of README.md that begin with this comment.
    fn readme_block(first_line: &str) -> &'static str {
        let blocks = include_str!("../README.md").split("```toml\n").skip(1);
        let mut texts = blocks.filter_map(|block| block.split("```").next());
        texts.find(|text| text.starts_with(first_line)).expect("the README has it")
    }

    #[test]
    fn the_files_in_the_readme_are_valid() {
        let world = World::parse(readme_block("# world.toml")).expect("valid");
        assert_eq!((world.accounts.len(), world.carriers.len(), world.rate_decks.len()), (1, 1, 2));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ringfence.toml");
        std::fs::write(&path, readme_block("# ringfence.toml")).expect("written");
        assert!(crate::config::Config::load(Some(&path)).is_ok());
    }

    #[test]
    fn bulk_accounts_count_up() {
        let text = "[[accounts_bulk]]\ncount = 3\nfirst_sip_username = \"u98\"\nsip_password = \"pw{n}\"\ncountry = \"GB\"\ncurrency = \"EUR\"\nopening_credit = 5\nrate_deck = \"retail\"";
        let world = World::parse(text).expect("valid");
        let bulk = &world.accounts_bulk[0];
        assert_eq!(bulk.sip_credential(2), ("u100".to_owned(), "pw100".to_owned()));
        assert_eq!(bulk.opening_credit, Micros(5_000_000));
    }

    #[test]
    fn what_counts_up_is_a_number_that_can() {
        let read = |first: &str, count: u64| {
            World::parse(&format!(
                "[[accounts_bulk]]\ncount = {count}\nfirst_sip_username = \"{first}\"\nsip_password = \"p\"\n\
                 country = \"GB\"\ncurrency = \"EUR\"\nrate_deck = \"d\""
            ))
        };
        let longest = format!("{}9", "u".repeat(63));
        for (first, last) in [("u0", "u1"), ("7", "8"), ("u999999999999999999", "u1000000000000000000")] {
            assert_eq!(read(first, 2).expect("valid").accounts_bulk[0].sip_credential(1).0, last);
        }
        assert!(read(&longest, 1).is_ok());
        for (first, count, begins) in [
            ("u00", 1, "line 3: first_sip_username \"u00\": its number must not begin with 0"),
            ("u007", 1, "line 3: first_sip_username \"u007\": its number must not begin with 0"),
            ("u1000000000000000000", 1, "line 3: first_sip_username \"u1000000000000000000\": its number must have"),
            ("u99999999999999999999999", 1, "line 3: first_sip_username \"u99999999999999999999999\": its number"),
            (longest.as_str(), 2, "the last of accounts_bulk.first_sip_username = uuu"),
            ("u 0", 1, "accounts_bulk.first_sip_username = u 0: must have 1 to 64 of"),
            ("u0", 0, "accounts_bulk.count of first_sip_username u0 = 0: must be"),
        ] {
            let error = read(first, count).err().expect(first).to_string();
            assert!(error.starts_with(begins), "{first} gave {error:?}");
        }
    }

    #[test]
    fn an_account_that_cannot_be_is_named() {
        let account = "[[account]]\nemail = \"a@x.test\"\nusername = \"a\"\npassword = \"hunter22\"\ncountry = \"GB\"\n\
                       currency = \"EUR\"\nrate_deck = \"d\"\nsip_username = \"ann\"\nsip_password = \"12345678\"\n";
        let twice = "caller_ids = [{ number = \"+442079460123\", evidence = \"assigned\" }, \
                     { number = \"+442079460124\", evidence = \"assigned\" }, \
                     { number = \"+442079460123\", evidence = \"document\" }]";
        let own = |number: &str| format!("caller_ids = [{{ number = \"{number}\", evidence = \"assigned\" }}]");
        assert!(World::parse(account).is_ok());
        for (text, begins) in [
            (account.replace("\"GB\"", "\"gb\""), "account.country of sip_username ann = gb: must be two capitals"),
            (account.to_owned() + "opening_credit = -1", "account.opening_credit of sip_username ann = -1"),
            (account.replace("\"ann\"", "\"a\\nn\""), "account.sip_username = a\\nn: must have 1 to 64"),
            (account.to_owned() + twice, "account.caller_ids of sip_username ann = (number 3 is hidden): each number"),
            (
                account.to_owned() + &own("+449098790123"),
                "account.caller_ids of sip_username ann = (number 1 is hidden): premium",
            ),
            (
                account.to_owned() + &own("+448700790123"),
                "account.caller_ids of sip_username ann = (number 1 is hidden): premium",
            ),
            (
                account.to_owned() + &own("+881612345678"),
                "account.caller_ids of sip_username ann = (number 1 is hidden): premium",
            ),
            (
                account.to_owned() + &own("+442079460123") + "\ncallback_numbers = [\"+442079460123\"]",
                "account.caller_ids of sip_username ann = (number 1 is hidden): must not be one of callback_numbers",
            ),
        ] {
            let error = World::parse(&text).err().expect(&text).to_string();
            assert!(error.starts_with(begins) && !error.contains("44207946") && !error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn a_password_that_cannot_be_set_is_refused_before_anything_is_written() {
        let operator =
            |password: &str| format!("[[operator]]\nemail = \"o@x.test\"\npassword = \"{password}\"\nroles = []\n");
        let account = |password: &str| {
            format!(
                "[[account]]\nemail = \"a@x.test\"\nusername = \"a\"\npassword = \"{password}\"\ncountry = \"GB\"\n\
                 currency = \"EUR\"\nrate_deck = \"d\"\nsip_username = \"ann\"\nsip_password = \"12345678\"\n"
            )
        };
        // Characters count, not bytes: as where a password is hashed.
        for password in ["hunter22", &"ä".repeat(128)] {
            assert!(World::parse(&(operator(password) + &account(password))).is_ok(), "{password}");
        }
        for password in ["ääääxyz", &"ä".repeat(129)] {
            for (text, begins) in [
                (
                    operator("hunter22") + &operator(password),
                    "operator.password of operator 2 = (hidden): a password has",
                ),
                (account(password), "account.password of sip_username ann = (hidden): a password has"),
            ] {
                let error = World::parse(&text).err().expect(password).to_string();
                assert!(error.starts_with(begins) && !error.contains(password), "{error}");
            }
        }
    }

    #[test]
    fn errors_name_line_key_and_value() {
        let cases = [
            (
                "[[carrier]]\nname = \"c\"\ngateway = \"no where\"\ncurrency = \"EUR\"\ndeck = \"d\"",
                "line 3: gateway \"no where\": must be an address or a name",
            ),
            ("[[account]]\nemial = \"x\"", "line 2: unknown field `emial`"),
            (
                "[[accounts_bulk]]\ncount = 1\nfirst_sip_username = \"u\"\nsip_password = \"p\"\ncountry = \"GB\"\ncurrency = \"EUR\"\nrate_deck = \"d\"",
                "line 3: first_sip_username \"u\": must end in a number",
            ),
            (
                "[[accounts_bulk]]\ncount = 1\nfirst_sip_username = \"u0\"\nsip_password = \"p\"\ncountry = \"gb\"\ncurrency = \"EUR\"\nrate_deck = \"d\"",
                "accounts_bulk.country of first_sip_username u0 = gb: must be two capitals",
            ),
            ("[[accounts_bulk]]\ncount = 1\nopening_credit = 1.5", "line 3:"),
        ];
        for (text, begins) in cases {
            let error = World::parse(text).err().expect(text).to_string();
            assert!(error.starts_with(begins) && !error.contains('\n'), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn p3_no_error_shows_a_password() {
        let account = "[[account]]\nemail = \"a@example.com\"\nusername = \"a\"\n";
        for (text, says) in [
            (format!("{account}password = 20251129"), "line 4: invalid type: integer (hidden), expected a string"),
            (
                format!("{account}sip_password = 2.5"),
                "line 4: invalid type: floating point (hidden), expected a string",
            ),
            (
                String::from("[[carrier]]\nname = \"c\"\nauth_password = 20251129"),
                "line 3: invalid type: integer (hidden), expected a string",
            ),
            (
                String::from("[[operator]]\nemail = \"a\"\nroles = \"hunter2\""),
                "line 3: invalid type: string (hidden), expected a sequence",
            ),
            (String::from("account = \"hunter2\""), "line 1: invalid type: string (hidden), expected a sequence"),
            (format!("{account}password = hunter2"), "line 4: "),
        ] {
            let error = World::parse(&text).err().expect("refused").to_string();
            assert!(error.starts_with(says), "{text:?} gave {error:?}");
            assert!(["20251129", "2.5", "hunter2"].iter().all(|secret| !error.contains(secret)), "{error}");
        }
    }

    #[test]
    fn a_carriers_login_is_whole_or_refused_by_name() {
        let login = |keys: &str| {
            let carrier = "[[carrier]]\nname = \"c\"\ngateway = \"192.0.2.1:5060\"\ncurrency = \"EUR\"\ndeck = \"d\"\n";
            World::parse(&format!("{carrier}{keys}")).and_then(|world| world.carriers[0].login())
        };
        let both = "auth_username = \"us\"\nauth_password = \"unseen\"\n";
        let read = |keys: &str| login(&format!("{both}{keys}")).expect("valid").expect("a login");
        assert!(login("").expect("valid").is_none(), "trusted by its address");
        assert_eq!((read("").register_s, read("").realm), (None, None));
        assert_eq!(read("register = true\nauth_realm = \"r\"").register_s, Some(3_600));
        assert_eq!(read("register = true\nregister_expires = 60").register_s, Some(60));
        for (keys, why) in [
            ("auth_username = \"us\"", "carrier.auth_username of c: needs auth_password too"),
            ("auth_password = \"unseen\"", "carrier.auth_password of c: needs auth_username too"),
            ("register = true", "carrier.register of c: needs auth_username and auth_password"),
            ("auth_realm = \"r\"", "carrier.auth_realm of c: needs auth_username"),
            (&format!("{both}register_expires = 90"), "carrier.register_expires of c: needs register = true"),
            (&format!("{both}register = true\nregister_expires = 59"), "carrier.register_expires of c: 59 must be 60"),
            (&format!("{both}register = true\nregister_expires = 86401"), "carrier.register_expires of c: 86401 must"),
            ("auth_username = \"\"\nauth_password = \"unseen\"", "carrier.auth_username of c: must have 1 to 64"),
            ("auth_username = \"us\"\nauth_password = \"unseen\\u0007\"", "carrier.auth_password of c: (hidden) must"),
        ] {
            let error = login(keys).expect_err(keys).to_string();
            assert!(error.starts_with(why) && !error.contains("unseen"), "{keys:?} gave {error:?}");
        }
    }
}
