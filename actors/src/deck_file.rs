//! Reads a rate deck's CSV file. All errors of a file are reported, each with line, column and value; a file
//! with one bad line gives no deck.

use schema::money::{Micros, MoneyError, NanosPerMinute};
use schema::rate::RateTerms;
use schema::time::Timestamp;
use std::collections::BTreeMap;

/// The columns, in this order, in the first line of the file.
pub const COLUMNS: [&str; 9] = [
    "prefix",
    "destination",
    "rate_per_minute",
    "connect_fee",
    "minimum_s",
    "increment_s",
    "grace_s",
    "effective_from",
    "effective_until",
];
/// Largest file, in bytes.
pub const FILE_MAX: usize = 128 * 1024 * 1024;
/// Most lines.
pub const LINES_MAX: usize = 1_000_000;
/// After so many errors reading stops.
pub const ERRORS_MAX: usize = 100;

/// One thing wrong with a deck file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}, found '{value}'")]
pub struct DeckError {
    /// Counted from 1, the header included.
    pub line: u64,
    /// The column's name.
    pub column: &'static str,
    /// What stands there, at most 40 characters.
    pub value: String,
    /// What is wrong.
    pub problem: String,
}

/// Reads a deck. Amounts are decimals in the deck's currency. Empty: no connect fee, no minimum, no grace time, always in
/// effect. Times are RFC 3339 or a date, which begins at 00:00 UTC.
///
/// # Errors
/// What is wrong, by line; at most [`ERRORS_MAX`].
pub fn read(text: &str) -> Result<Vec<storage::Rate>, Vec<DeckError>> {
    if text.len() > FILE_MAX {
        return Err(vec![error(1, "prefix", "", &format!("the file is larger than {FILE_MAX} bytes"))]);
    }
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    check_header(&mut reader)?;
    let (mut rates, mut errors) = (Vec::new(), Vec::new());
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                match read_line(line, &record) {
                    Ok(rate) => rates.push((line, rate)),
                    Err(wrong) => errors.extend(wrong),
                }
            }
            Err(broken) => {
                let line = broken.position().map_or(0, csv::Position::line);
                errors.push(error(line, "prefix", "", "the line is no CSV"));
            }
        }
        if errors.len() >= ERRORS_MAX {
            break;
        }
        if rates.len() > LINES_MAX {
            errors.push(error(LINES_MAX as u64, "prefix", "", &format!("more than {LINES_MAX} lines")));
            break;
        }
    }
    errors.extend(overlaps(&rates));
    errors.truncate(ERRORS_MAX);
    if rates.is_empty() && errors.is_empty() {
        errors.push(error(2, "prefix", "", "the deck has no lines"));
    }
    if errors.is_empty() { Ok(rates.into_iter().map(|(_, rate)| rate).collect()) } else { Err(errors) }
}

fn check_header(reader: &mut csv::Reader<&[u8]>) -> Result<(), Vec<DeckError>> {
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(_) => return Err(vec![error(1, COLUMNS[0], "", "the header is no CSV")]),
    };
    let wrong = COLUMNS.iter().enumerate().find(|(at, name)| header.get(*at) != Some(**name));
    if let Some((at, name)) = wrong {
        return Err(vec![error(
            1,
            name,
            header.get(at).unwrap_or_default(),
            &format!("the header must be {}", COLUMNS.join(",")),
        )]);
    }
    match header.get(COLUMNS.len()) {
        Some(extra) => Err(vec![error(1, COLUMNS[8], extra, "a column too many")]),
        None => Ok(()),
    }
}

fn read_line(line: u64, record: &csv::StringRecord) -> Result<storage::Rate, Vec<DeckError>> {
    if record.len() != COLUMNS.len() {
        return Err(vec![error(
            line,
            "prefix",
            "",
            &format!("a line has {} values, this one {}", COLUMNS.len(), record.len()),
        )]);
    }
    let mut errors = Vec::new();
    let mut fields = Fields { line, record, errors: &mut errors };
    let rate = storage::Rate {
        prefix: fields.read(0, prefix),
        destination: fields.read(1, destination),
        terms: RateTerms {
            per_minute: fields.read(2, |text| NanosPerMinute::parse(text).map_err(|e| money(e, 9))),
            connect_fee: fields.read(3, amount),
            minimum_s: fields.read(4, |text| seconds(text, 0, true)),
            increment_s: fields.read(5, |text| seconds(text, 1, false)),
            grace_s: fields.read(6, |text| seconds(text, 0, true)),
        },
        effective_from: fields.read(7, time),
        effective_until: fields.read(8, time),
    };
    if rate.effective_from.zip(rate.effective_until).is_some_and(|(from, until)| from >= until) {
        errors.push(error(line, "effective_until", &record[8], "it must be later than effective_from"));
    }
    if errors.is_empty() { Ok(rate) } else { Err(errors) }
}

struct Fields<'a> {
    line: u64,
    record: &'a csv::StringRecord,
    errors: &'a mut Vec<DeckError>,
}

impl Fields<'_> {
    fn read<T: Default>(&mut self, column: usize, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let text = self.record.get(column).unwrap_or_default();
        parse(text).unwrap_or_else(|problem| {
            self.errors.push(error(self.line, COLUMNS[column], text, &problem));
            T::default()
        })
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let good = (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if good { Ok(text.to_owned()) } else { Err("a prefix is 1 to 15 digits without + and leading 0".to_owned()) }
}

fn destination(text: &str) -> Result<String, String> {
    let good = (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if good { Ok(text.to_owned()) } else { Err("a destination has 1 to 100 printable characters".to_owned()) }
}

fn amount(text: &str) -> Result<Micros, String> {
    if text.is_empty() {
        return Ok(Micros::ZERO);
    }
    match Micros::parse(text) {
        Ok(amount) if amount.is_negative() => Err("it must not be negative".to_owned()),
        Ok(amount) => Ok(amount),
        Err(e) => Err(money(e, 6)),
    }
}

fn money(why: MoneyError, decimals: u32) -> String {
    match why {
        MoneyError::NotDecimal => "it must be a decimal number, not negative, such as 0.0125".to_owned(),
        MoneyError::TooPrecise => format!("it must have at most {decimals} decimals"),
        other => other.to_string(),
    }
}

/// At most a day: more is a mistake, not a billing step.
fn seconds(text: &str, least: u32, may_be_empty: bool) -> Result<u32, String> {
    if text.is_empty() && may_be_empty {
        return Ok(0);
    }
    let good = text.parse::<u32>().ok().filter(|s| (least..=86_400).contains(s));
    good.ok_or_else(|| format!("it must be whole seconds, {least} to 86400"))
}

fn time(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let midnight = format!("{text}T00:00:00Z");
    let parsed = Timestamp::parse_rfc3339(text).or_else(|| Timestamp::parse_rfc3339(&midnight));
    parsed.map(Some).ok_or_else(|| "it must be a time such as 2027-01-31T00:00:00Z, or a date".to_owned())
}

/// Lines of one prefix whose times overlap: which of them counts would be left to chance.
fn overlaps(rates: &[(u64, storage::Rate)]) -> Vec<DeckError> {
    let mut by_prefix: BTreeMap<&str, Vec<(Timestamp, Timestamp, u64)>> = BTreeMap::new();
    for (line, rate) in rates {
        let from = rate.effective_from.unwrap_or(Timestamp(i64::MIN));
        let until = rate.effective_until.unwrap_or(Timestamp(i64::MAX));
        by_prefix.entry(&rate.prefix).or_default().push((from, until, *line));
    }
    let mut errors = Vec::new();
    for (prefix, mut spans) in by_prefix {
        spans.sort_unstable();
        for pair in spans.windows(2) {
            if pair[1].0 < pair[0].1 {
                let (first, second) = (pair[0].2.min(pair[1].2), pair[0].2.max(pair[1].2));
                errors.push(error(
                    second,
                    "prefix",
                    prefix,
                    &format!("the prefix of line {first} again, at the same time"),
                ));
            }
        }
    }
    errors.sort_by_key(|e| e.line);
    errors
}

fn error(line: u64, column: &'static str, value: &str, problem: &str) -> DeckError {
    DeckError { line, column, value: value.chars().take(40).collect(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str =
        "prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until\n";

    fn problems(lines: &str) -> Vec<String> {
        read(&format!("{HEADER}{lines}")).err().unwrap_or_default().iter().map(DeckError::to_string).collect()
    }

    #[test]
    fn a_good_deck_is_read() {
        let text =
            format!("{HEADER}44,\"United Kingdom, fixed\",0.01,0.005,30,6,3,2026-01-01,\n447,UK mobile,0.025,,,1,,,\n");
        let rates = read(&text).expect("good");
        assert_eq!(rates.len(), 2);
        assert_eq!(rates[0].destination, "United Kingdom, fixed");
        let terms = RateTerms {
            per_minute: NanosPerMinute(10_000_000),
            connect_fee: Micros(5_000),
            minimum_s: 30,
            increment_s: 6,
            grace_s: 3,
        };
        assert_eq!(rates[0].terms, terms);
        assert_eq!(rates[0].effective_from, Timestamp::parse_rfc3339("2026-01-01T00:00:00Z"));
        assert_eq!(rates[1].terms.connect_fee, Micros(0));
    }

    #[test]
    fn each_error_names_line_column_and_value() {
        assert_eq!(
            problems("+44,UK,0.01,0,0,1,0,,\n44,UK,-1,0,0,0,x,,\n44,,0.01,0,0,1,0,tomorrow,\n"),
            [
                "line 2, column prefix: a prefix is 1 to 15 digits without + and leading 0, found '+44'",
                "line 3, column rate_per_minute: it must be a decimal number, not negative, such as 0.0125, found '-1'",
                "line 3, column increment_s: it must be whole seconds, 1 to 86400, found '0'",
                "line 3, column grace_s: it must be whole seconds, 0 to 86400, found 'x'",
                "line 4, column destination: a destination has 1 to 100 printable characters, found ''",
                "line 4, column effective_from: it must be a time such as 2027-01-31T00:00:00Z, or a date, found 'tomorrow'",
            ]
        );
        assert_eq!(problems("44,UK,0.01\n"), ["line 2, column prefix: a line has 9 values, this one 3, found ''"]);
        assert_eq!(problems(""), ["line 2, column prefix: the deck has no lines, found ''"]);
        assert!(read("prefix,name\n").is_err());
    }

    #[test]
    fn a_prefix_twice_at_one_time_is_an_error() {
        assert_eq!(
            problems("44,UK,0.01,0,0,1,0,,\n33,FR,0.01,0,0,1,0,,\n44,UK,0.02,0,0,1,0,,\n"),
            ["line 4, column prefix: the prefix of line 2 again, at the same time, found '44'"]
        );
        assert_eq!(problems("44,UK,1,0,0,1,0,,2027-01-01\n44,UK,2,0,0,1,0,2027-01-01,\n"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}", lines in "[0-9,.\n\"a]{0,200}") {
            let _ = read(&text);
            let _ = read(&format!("{HEADER}{lines}"));
        }
    }
}
