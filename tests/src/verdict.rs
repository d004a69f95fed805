//! What was seen outside against what the server has written: credits, calls, charges. What the checks of this package find is
//! named by what ought to hold, as somebody outside would say it (the code's own invariants are those of ARCHITECTURE.md):
//!
//! - I1: each transfer takes from one ledger account what it gives to another, in whole micro-units.
//! - I2: a balance is the sum of what came and went, at any time and after each recovery.
//! - I3: what was acknowledged is written once, what was refused not at all; nothing that was written is taken back.
//! - I4: what is available is never negative, however many calls an account has.
//! - I5: each hold ends, within a minute of its call or of the recovery.
//! - I6: each answered call on the wire has one CDR, right to a billing increment; a call nobody answered costs nothing.
//! - I7: a payment is credited once, however often and in what order it is told; no more is given back than was paid.
//! - I8: nothing of an audit trail can be changed, left out or put in another order unseen. (There is none yet.)
//! - I9: no call goes on for more than 2 s without money, and none that has money is cut.
//! - I10: within 30 s after a fault has healed new calls succeed.
//! - I11: an account has one owner at a time: what an old one writes is refused.
//! - I12: an account is told of its own events only, in order and without a gap that is not said.

use crate::site::{Accounts, POOR, Site};
use crate::wire::{Side, Talk};
use schema::call::Cdr;
use schema::id::AccountKey;
use schema::money::Micros;
use schema::time::Timestamp;
use std::collections::BTreeMap;
use storage::{CallFilter, Store};

/// Q.850 cause of a leg that was found gone.
const LOST: u8 = 41;
/// A second costs this.
const STEP: i64 = 10_000;
/// What a charge may differ by from what the wire shows (I6): one billing increment.
const INCREMENT_S: i64 = 1;

/// A credit that was acknowledged.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "as named")]
pub struct Credited {
    pub account: String,
    pub key: String,
    pub amount: &'static str,
}

/// How much was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Calls that somebody dialled.
    pub calls: usize,
    /// Of them answered.
    pub answered: usize,
    /// Of them answered and found gone later: nobody could tell their end, so they are billed to their last proof of life.
    pub lost: usize,
    /// Acknowledged credits.
    pub credits: usize,
}

/// A call record and whose it is.
struct Record {
    username: String,
    cdr: Cdr,
}

impl Record {
    /// An answered call that was found gone.
    fn is_lost(&self) -> bool {
        let cause = self.cdr.call.hangup.as_ref().and_then(|hangup| hangup.q850);
        self.cdr.call.answered_at.is_some() && cause == Some(LOST)
    }
}

/// Compares all; the server has ended. Keys of credits begin with `top-`.
///
/// # Errors
/// The findings.
pub async fn judge(site: &Site, accounts: &[Accounts], credits: &[Credited]) -> Result<Verdict, String> {
    let store = site.store().await;
    let mut findings = Vec::new();
    judge_money(&store, accounts, credits, &mut findings).await;
    let records = records(&store, accounts).await;
    let (callers, callees) = (site.wire.talks(Side::Caller), site.wire.talks(Side::Callee));
    let (mut answered, mut lost) = (0, 0);
    for (number, caller) in &callers {
        let none = Vec::new();
        let call = Seen {
            number,
            caller: *caller,
            callee: callees.get(number).copied().unwrap_or_default(),
            records: records.get(number).unwrap_or(&none),
        };
        answered += usize::from(caller.answered.is_some());
        lost += call.records.iter().filter(|record| record.is_lost()).count();
        findings.extend(call.findings());
    }
    for (number, of_number) in &records {
        if !callers.contains_key(number) {
            findings.push(format!("I6: {} records of a number that nobody dialled: {number}", of_number.len()));
        }
    }
    store.close().await;
    if findings.is_empty() {
        return Ok(Verdict { calls: callers.len(), answered, lost, credits: credits.len() });
    }
    let all = findings.len();
    findings.truncate(12);
    Err(format!("{all} findings:\n{}", findings.join("\n")))
}

/// I2, I3, I7: each acknowledged credit is in the ledger once, and a balance is what came less what was charged.
async fn judge_money(store: &Store, accounts: &[Accounts], credits: &[Credited], findings: &mut Vec<String>) {
    let amount = |text: &str| Micros::parse(text).expect("an amount");
    let mut came: BTreeMap<String, Micros> =
        usernames(accounts).map(|(username, of)| (username, amount(of.credit))).collect();
    for Credited { account, key, amount: text } in credits {
        let of = Site::account(store, account).await;
        let posted = store.transfer_by_key(of, key).await.expect("readable");
        if posted.as_ref().map(|posted| posted.transfer.amount) != Some(amount(text)) {
            findings.push(format!("I3: the acknowledged credit {key} of {account} is not in the ledger"));
        }
        *came.get_mut(account).expect("a known account") += amount(text);
    }
    for (username, came) in came {
        let account = Site::account(store, &username).await;
        let figures = store.account(account).await.expect("readable").expect("an account").figures;
        let charged: Micros = history(store, account).await.iter().fold(Micros::ZERO, |sum, cdr| sum + cdr.charged);
        if figures.total != came - charged || figures.held != Micros::ZERO || figures.total.is_negative() {
            findings.push(format!("I2: {username} was given {came} and charged {charged}, but has {figures:?}"));
        }
    }
}

fn usernames(accounts: &[Accounts]) -> impl Iterator<Item = (String, &Accounts)> {
    accounts.iter().flat_map(|of| (0..of.count).map(move |n| (format!("{}{n}", of.word), of)))
}

async fn history(store: &Store, account: AccountKey) -> Vec<Cdr> {
    let mut all: Vec<Cdr> = Vec::new();
    loop {
        let before = all.last().map(|cdr| cdr.no);
        let page = store.calls_page(account, before, 1_000, &CallFilter::default()).await.expect("readable");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// All call records by number dialled.
async fn records(store: &Store, accounts: &[Accounts]) -> BTreeMap<String, Vec<Record>> {
    let mut all: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for (username, _) in usernames(accounts) {
        for cdr in history(store, Site::account(store, &username).await).await {
            let number = cdr.call.destination.as_ref().map(|n| n.as_str().trim_start_matches('+').to_owned());
            all.entry(number.unwrap_or_default()).or_default().push(Record { username: username.clone(), cdr });
        }
    }
    all
}

/// A call as all sides saw it.
struct Seen<'a> {
    number: &'a str,
    caller: Talk,
    callee: Talk,
    records: &'a [Record],
}

impl Seen<'_> {
    fn findings(&self) -> Vec<String> {
        let told = |what: String| format!("{what}; {} caller {:?} callee {:?}", self.number, self.caller, self.callee);
        let mut findings: Vec<String> = self.of_sides().into_iter().map(told).collect();
        // A phone that repeats its INVITE after a kill begins anew: at most one of its calls is answered.
        let answered: Vec<_> = self.records.iter().filter(|record| record.cdr.call.answered_at.is_some()).collect();
        match answered[..] {
            [] if self.caller.confirmed.is_some() => findings.push(told("I6: no record of an answered call".into())),
            [] => {}
            [record] => {
                let record_told = |what: String| format!("{} {}", told(what), explained(record));
                findings.extend(self.of_charge(record).into_iter().map(record_told));
            }
            _ => findings.push(told(format!("C3: {} records of one answered call", answered.len()))),
        }
        let free = self.records.iter().filter(|record| record.cdr.call.answered_at.is_none());
        for record in free.filter(|record| record.cdr.charged != Micros::ZERO || record.cdr.loss != Micros::ZERO) {
            findings.push(format!("{} {}", told("I6: an unanswered call is charged".into()), explained(record)));
        }
        findings
    }

    /// What the two sides alone show.
    fn of_sides(&self) -> Vec<String> {
        let Self { caller, callee, .. } = self;
        let mut findings = Vec::new();
        if caller.answered.is_some() && !caller.is_over() {
            findings.push(String::from("C4: the caller's leg never ended"));
        }
        if callee.confirmed.is_some() && !callee.is_over() {
            findings.push(String::from("C4: the callee's leg never ended"));
        }
        if caller.confirmed.is_some() && callee.answered.is_none() {
            findings.push(String::from("the caller was connected to nobody"));
        }
        findings
    }

    /// What was charged for an answered call against the time that passed on the wire.
    fn of_charge(&self, record: &Record) -> Vec<String> {
        let Record { username, cdr } = record;
        let mut findings = Vec::new();
        let (caller, callee) = (&self.caller, &self.callee);
        let (Some(rang_off), Some(picked_up)) = (self.ended_by(), callee.answered) else {
            findings.push(String::from("I6: a record of a call that nobody answered or nobody ended"));
            return findings;
        };
        let billed = i64::try_from(cdr.call.billed_seconds).expect("short");
        let most = seconds(picked_up, rang_off) + INCREMENT_S;
        if billed > most {
            findings.push(format!("I6: {billed} s billed, at most {most} s on the wire"));
        }
        let is_rich = !username.starts_with(POOR);
        let hung_up = [caller.bye_sent, callee.bye_sent].into_iter().flatten().min();
        let connected = [callee.confirmed, caller.answered].into_iter().flatten().min();
        match (hung_up, connected) {
            (Some(hung_up), Some(connected)) if is_rich && !record.is_lost() => {
                let least = seconds(connected, hung_up) - INCREMENT_S;
                if billed < least {
                    findings.push(format!("I6: {billed} s billed, at least {least} s on the wire"));
                }
            }
            // One that gave up before it heard of the answer does not hang up.
            (None, _) if is_rich && caller.refused.is_none() => {
                findings.push(String::from("I9: the server ended a call that had money"))
            }
            _ => {}
        }
        if !is_priced_rightly(billed, cdr.talk_ms, cdr.charged, cdr.loss) {
            findings.push(String::from("charge and loss are not what the seconds cost"));
        }
        if is_rich && cdr.loss != Micros::ZERO {
            findings.push(String::from("a loss though there was money"));
        }
        findings
    }

    /// The latest that the server can have known of the end.
    fn ended_by(&self) -> Option<Timestamp> {
        let sides = [&self.caller, &self.callee];
        let answered = sides.iter().filter_map(|talk| talk.bye_answered.map(|(at, _)| at));
        answered.chain(sides.iter().filter_map(|talk| talk.bye_received)).min()
    }
}

/// The billed seconds are what was charged for. A loss is the price of the rest of the talk: a call whose grant ran out while no
/// server was up to end it.
fn is_priced_rightly(billed_s: i64, talk_ms: u64, charged: Micros, loss: Micros) -> bool {
    // Whole milliseconds were stored.
    let talked = [talk_ms.div_ceil(1_000), talk_ms / 1_000 + 1].map(|s| i64::try_from(s).expect("short"));
    if charged.is_negative() || loss.is_negative() {
        return false;
    }
    match loss {
        Micros::ZERO => charged == Micros(STEP * billed_s),
        loss => billed_s == charged.0 / STEP && talked.iter().any(|talked| charged + loss == Micros(STEP * talked)),
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(to.since(from).as_millis().div_ceil(1_000)).expect("short")
}

fn explained(Record { username, cdr }: &Record) -> String {
    format!(
        "{username} call {}: answered {:?} ended {:?} talk {} ms billed {} s charged {} loss {} {:?}",
        cdr.no.0,
        cdr.call.answered_at,
        cdr.call.ended_at,
        cdr.talk_ms,
        cdr.call.billed_seconds,
        cdr.charged,
        cdr.loss,
        cdr.call.hangup
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_the_price_of_the_seconds_that_nobody_paid() {
        let right = |billed, talk_ms, charged, loss| {
            is_priced_rightly(billed, talk_ms, Micros(charged * STEP), Micros(loss * STEP))
        };
        assert!(right(2, 1_162, 2, 0) && right(1, 1_162, 1, 0), "the second one was cut at its grant");
        assert!(right(1, 1_162, 1, 1) && right(0, 1_162, 0, 2) && right(1, 2_000, 1, 2));
        assert!(!right(1, 1_162, 2, 0) && !right(1, 1_162, 1, 2) && !right(2, 1_162, 1, 1) && !right(1, 1_162, 2, -1));
    }
}
