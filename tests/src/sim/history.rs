//! What must be true once a world has come to rest: every call has its one record, which says what was seen on the wire, and
//! the money adds up.

use super::checker::{Checker, Known, NO_ACK, reliably, terms};
use super::mischief::FORK;
use super::needless;
use super::tally::Tally;
use super::tap::{BLeg, Fork, Observed};
use super::tariff::price as charge_of;
use super::wall::Wall;
use actors::account::holds::CUTOFF_LEAD;
use actors::call::machine::WITHDRAW_TIMEOUT;
use schema::call::{Cdr, HangupSide};
use schema::event::AccountEvent;
use schema::id::{AccountKey, CallId};
use schema::ledger::LedgerKind;
use schema::leg::HangupCause;
use schema::money::Micros;
use schema::time::Mono;
use std::collections::BTreeMap;
use std::time::Duration;
use storage::memory::MemDisk;
use storage::{CallFilter, PostedTransfer};

/// Who repeats a BYE does so this often (T2).
const REPEATED_EVERY: Duration = Duration::from_secs(4);
/// A process takes up the calls before it within this time, failing reads included.
const RECOVERY: Duration = Duration::from_secs(4);
/// What was sent over a connection may not have arrived so much later.
const LOST_WITH_CONNECTION: Duration = Duration::from_secs(2);
/// What lies between the CANCEL on the wire and the call actor that hears of it.
const NEARLY: Duration = Duration::from_millis(500);

/// A call hears within this time of money that comes in.
const HEARD: Duration = Duration::from_millis(500);

/// Of what is repeated for 64·T1 so few may all be lost.
const LOST_MAX: usize = 3;

/// An account's records, as stored at the end.
struct Records {
    cdrs: Vec<Cdr>,
    transfers: Vec<PostedTransfer>,
    events: Vec<AccountEvent>,
}

/// Checks the records of all accounts.
pub async fn check(checker: &mut Checker, accounts: &[AccountKey], disk: &MemDisk, tally: &mut Tally) {
    let mut counted: BTreeMap<CallId, u32> = BTreeMap::new();
    for &account in accounts {
        let records = read(account, disk).await;
        for cdr in &records.cdrs {
            *counted.entry(cdr.call.id).or_default() += 1;
            checker.has_row(cdr.call.id);
            count(tally, cdr, checker.known.get(&cdr.call.id), checker.seen(cdr.call.id), &checker.wall);
            if let Err(what) = bill(checker, cdr).and_then(|()| late_answer(checker, cdr)) {
                checker.broken(format!("C3: {}: {what}", cdr.call.id));
            }
            if let Err(what) = goes_on(checker, cdr) {
                checker.broken(format!("I9: {}: {what}", cdr.call.id));
            }
            let answered = checker.seen(cdr.call.id).and_then(|seen| answered_leg(cdr, seen, &checker.wall));
            if let Err(what) = needless::check(checker, account, cdr, answered, tally) {
                checker.broken(format!("I9: {}: {what}", cdr.call.id));
            }
        }
        money(checker, account, &records);
        let told = checker.told.remove(&account).unwrap_or_default();
        if told != records.events && !checker.skipped.contains(&account) {
            checker.broken(format!("A2: a subscriber of account {} missed events, or saw some twice", account.0));
        }
    }
    let calls: Vec<_> = checker.known.keys().chain(checker.tap.calls().keys()).copied().collect();
    for call in calls {
        if counted.get(&call) != Some(&1) {
            checker.broken(format!("C3: {call} has {} records", counted.get(&call).copied().unwrap_or(0)));
        }
    }
    for (call, seen) in checker.tap.calls().clone() {
        both_legs_ended(checker, call, &seen);
    }
    checker.audit(disk).await;
}

async fn read(account: AccountKey, disk: &MemDisk) -> Records {
    reliably(disk, async |store| {
        let cdrs = store.calls_page(account, None, 1_000, &CallFilter::default()).await?;
        let transfers = store.ledger_page(account, None, 1_000).await?;
        let mut events = Vec::new();
        loop {
            let after = events.last().map(|event: &AccountEvent| event.cursor).unwrap_or_default();
            let page = store.events_after(account, after, 1_000).await?;
            if page.is_empty() {
                break;
            }
            events.extend(page);
        }
        Ok(Records { cdrs, transfers, events })
    })
    .await
}

fn count(tally: &mut Tally, cdr: &Cdr, known: Option<&Known>, seen: Option<&Observed>, wall: &Wall) {
    let leg = seen.and_then(|seen| answered_leg(cdr, seen, wall));
    let first_end = seen.and_then(|seen| [seen.a_end(), leg?.bye].into_iter().flatten().min());
    let answered = leg.and_then(|leg| leg.answered);
    let seen_ms = first_end.zip(answered).map(|(end, answered)| end.since(answered).as_millis());
    tally.add_if("billed past a forgotten end", seen_ms.is_some_and(|seen| u128::from(cdr.talk_ms) > seen));
    let answered_before_crash =
        |known: &Known| answered.is_some_and(|answered| known.crashes.iter().any(|crash| *crash >= answered));
    tally.add("calls");
    for (what, happened) in [
        ("refused", cdr.attempts == 0),
        ("charged", cdr.charged.is_positive()),
        ("rerouted", cdr.attempts > 1),
        ("lost", is_lost(cdr)),
        ("cut", is_by(cdr, HangupCause::FundsExhausted)),
        ("resumed", known.is_some_and(answered_before_crash)),
        ("with a loss", cdr.loss.is_positive()),
    ] {
        tally.add_if(what, happened);
    }
}

/// The attempt that was answered when the record says so.
fn answered_leg<'a>(cdr: &Cdr, seen: &'a Observed, wall: &Wall) -> Option<&'a BLeg> {
    let at = cdr.call.answered_at?;
    seen.b_legs.iter().find(|leg| leg.answered.is_some_and(|answered| wall.at(answered) == at))
}

fn is_by(cdr: &Cdr, cause: HangupCause) -> bool {
    cdr.call.hangup.as_ref().is_some_and(|hangup| hangup.reason == cause.as_str())
}

/// A side did not know the call any more, or was silent: nobody knows when it left.
fn is_lost(cdr: &Cdr) -> bool {
    cdr.call.hangup.as_ref().is_some_and(|hangup| hangup.reason == "the connection was lost")
}

/// Between which two moments the end of a call lies, as far as the wire shows: the first end of a leg, whether a process was there
/// to hear of it or not.
fn end(cdr: &Cdr, seen: &Observed, leg: &BLeg, answered: Mono, known: &Known) -> Result<(Mono, Mono), String> {
    // In another process it may be told its answer again, and go on.
    let deserted = seen.deserted.filter(|_| seen.accepted.is_none());
    let ends = [seen.a_end(), deserted, leg.bye].into_iter().flatten().filter(|end| *end >= answered);
    let Some(first) = ends.min() else { return Err("no leg ended on the wire".to_owned()) };
    let mut last = first;
    for crash in &known.crashes {
        // After a boot the wall clock counts, and never less than the proof of life: a renewal while the BYE waited for its dialog.
        if *crash <= first && first <= *crash + RECOVERY {
            last = last.max(first + RECOVERY);
        }
        // An end that nobody had written down yet is told again to the next process, over another connection, for 64·T1.
        let is_told_again = seen.over_tcp || (leg.bye_over_tcp && leg.bye == Some(first));
        if is_told_again && first <= *crash && *crash <= first + NO_ACK {
            last = last.max(*crash + REPEATED_EVERY + RECOVERY);
        }
        // Ours went with the process: the call goes on until somebody ends it again.
        if seen.a_bye_over_tcp == Some(first) && first <= *crash && *crash <= first + LOST_WITH_CONNECTION {
            last = Mono(u64::MAX);
        }
        // One past its grant, or its longest duration, that was being cut when the process died is cut by the next.
        let is_cut = is_by(cdr, HangupCause::FundsExhausted) || is_by(cdr, HangupCause::DurationLimit);
        if is_cut && first <= *crash {
            last = last.max(*crash + RECOVERY);
        }
    }
    Ok((first, last))
}

/// What was charged against what was seen.
fn bill(checker: &Checker, cdr: &Cdr) -> Result<(), String> {
    let seen = checker.seen(cdr.call.id);
    let accepted = seen.is_some_and(|seen| seen.accepted.is_some());
    let price = cdr.charged + cdr.loss;
    if !accepted && cdr.talk_ms == 0 && price == Micros::ZERO {
        return Ok(());
    }
    let (Some(seen), Some(known)) = (seen, checker.known.get(&cdr.call.id)) else {
        return Err(format!("{} ms of talk in a call that was not seen", cdr.talk_ms));
    };
    let Some(answered_at) = cdr.call.answered_at else {
        return Err("it was accepted, not recorded".to_owned());
    };
    let found = answered_leg(cdr, seen, &checker.wall).and_then(|leg| Some((leg, leg.answered?)));
    let Some((leg, answered)) = found else { return Err(format!("no carrier answered at {answered_at:?}")) };
    // Shortly after an answer the next process tells the caller again; later it takes it that it heard.
    let long_down = known.crashes.iter().any(|began| *began >= answered + NO_ACK);
    let is_first_end = |cancelled: Mono| cancelled >= answered && leg.bye.is_none_or(|bye| cancelled <= bye);
    let given_up = is_by(cdr, HangupCause::ServiceFailure) || seen.cancelled.is_some_and(is_first_end);
    // Over a connection it is not told again: the 200 went with the process.
    let connection_lost = seen.over_tcp && checker.has_lost_connection(Some(answered));
    // Who never acknowledges that it rings cannot be told, whatever the carrier did (D43).
    let unheard = checker.tap.caller(cdr.call.id).is_some_and(|call_id| checker.ringing.was_unheard(call_id));
    let excused = given_up || long_down || connection_lost || unheard;
    if !accepted && !excused && price.is_positive() {
        return Err("the caller never heard the answer and is charged".to_owned());
    }
    let panicked = checker.panicked.contains(&cdr.call.id);
    let gave_up = seen.cancelled.is_some_and(is_first_end) || seen.deserted.is_some() || unheard || panicked;
    if seen.turned_down && seen.confirmed.is_none() && !gave_up && price.is_positive() {
        return Err("the caller was refused and is charged".to_owned());
    }
    // Lost before anything had shown the process that took it up that its caller heard: one before may have refused it (D24).
    let first_end = [seen.a_end(), leg.bye].into_iter().flatten().min();
    let in_time = |at: Mono| first_end.is_none_or(|end| at <= end) && known.crashes.iter().all(|crash| at >= *crash);
    let has_shown = seen.a_alive.is_some_and(in_time);
    let is_unproved = !known.crashes.is_empty() && !known.was_proved && !has_shown;
    let is_free = cdr.talk_ms == 0 && price == Micros::ZERO && cdr.carrier_cost.is_some();
    if (is_lost(cdr) || is_by(cdr, HangupCause::ServiceFailure) || panicked) && is_unproved && is_free {
        return Ok(());
    }
    if cdr.call.route != Some(format!("carrier {}", leg.carrier)) {
        return Err(format!("recorded over {:?}, answered by carrier {}", cdr.call.route, leg.carrier));
    }
    let (first, mut last) = end(cdr, seen, leg, answered, known)?;
    // A CANCEL behind the answer ends a call only in the process that has both.
    let elsewhere = |cancelled: Mono| cancelled >= answered && known.crashes.iter().any(|crash| *crash >= answered);
    if seen.cancelled.is_some_and(elsewhere) || seen.deserted.is_some_and(elsewhere) {
        last = Mono(u64::MAX);
    }
    // The actor's panic may take the news of the end with it: then it is billed at most its grant (D12).
    if is_by(cdr, HangupCause::ServiceFailure) && checker.panicked.contains(&cdr.call.id) {
        last = last.max(answered + Duration::from_secs(known.paid_s));
    }
    // A call that could not be taken up again, or lost one side, is billed to its last proof of life; so is one whose actor
    // failed while it asked both sides about that.
    let failed = is_by(cdr, HangupCause::ServiceFailure) || checker.panicked.contains(&cdr.call.id);
    let unknown = is_lost(cdr) || (failed && !known.crashes.is_empty());
    let least = if unknown { Duration::ZERO } else { first.since(answered) };
    let most = last.since(answered);
    // After a boot only the wall clock tells how long a call lasted, whoever has set it meanwhile; what was paid is the most.
    let least = if known.rebooted { least.min(Duration::from_secs(known.paid_s)) } else { least };
    let (forward, back) = checker.wall.set_between(answered, Mono(u64::MAX));
    let (least, most) =
        if known.rebooted { (least.saturating_sub(back), most.saturating_add(forward)) } else { (least, most) };
    let talk = Duration::from_millis(cdr.talk_ms);
    if talk < least || talk > most {
        return Err(format!("{talk:?} recorded, {least:?} to {most:?} seen"));
    }
    // A call that we cut is billed at most its grant, however late its BYE left.
    let by_us = cdr.call.hangup.as_ref().is_some_and(|hangup| hangup.side == HangupSide::Service);
    let least = if by_us { least.min(Duration::from_secs(known.paid_s)) } else { least };
    let terms = terms(&cdr.call).ok_or("it has no rate")?;
    if price < charge_of(&terms, least) || price > charge_of(&terms, most) {
        return Err(format!("{price} charged for {least:?} to {most:?}"));
    }
    if cdr.loss.is_positive() && known.crashes.is_empty() {
        return Err(format!("{} was lost without a crash", cdr.loss));
    }
    Ok(())
}

/// No call that has money is ended by us (I9), in a world where nothing goes wrong but on the network.
fn goes_on(checker: &Checker, cdr: &Cdr) -> Result<(), String> {
    let (Some(seen), Some(known)) = (checker.seen(cdr.call.id), checker.known.get(&cdr.call.id)) else { return Ok(()) };
    let Some((leg, answered)) = answered_leg(cdr, seen, &checker.wall).and_then(|leg| Some((leg, leg.answered?)))
    else {
        return Ok(());
    };
    if checker.disturbed {
        return Ok(());
    }
    let number = cdr.call.dialled.as_ref().map_or("", |dialled| dialled.expose());
    let misbehaves = checker.misbehaving.contains(number);
    if (is_lost(cdr) || is_by(cdr, HangupCause::ServiceFailure)) && !misbehaves {
        return Err(format!("it ended by {:?}", cdr.call.hangup));
    }
    let alive = seen.a_alive.unwrap_or(answered);
    if is_lost(cdr) && Duration::from_millis(cdr.talk_ms) < alive.since(answered) {
        return Err(format!("{} ms are billed, its caller was there until {alive:?}", cdr.talk_ms));
    }
    if is_by(cdr, HangupCause::FundsExhausted) {
        let paid = Duration::from_secs(known.paid_s);
        if Duration::from_millis(cdr.talk_ms) + CUTOFF_LEAD < paid {
            return Err(format!("it was cut after {} ms, {paid:?} were paid", cdr.talk_ms));
        }
        let cut = leg.bye.unwrap_or_default();
        if let Some(since) = known.affords_since.filter(|since| *since + HEARD < cut) {
            return Err(format!("it was cut at {cut:?}, and could pay a further step since {since:?}"));
        }
    }
    Ok(())
}

/// A carrier that answers across the caller's CANCEL charges for it: nothing for the customer, and its cost is recorded.
fn late_answer(checker: &Checker, cdr: &Cdr) -> Result<(), String> {
    let Some(seen) = checker.seen(cdr.call.id) else { return Ok(()) };
    let (Some(leg), Some(cancelled)) = (seen.b_legs.last(), seen.cancelled) else { return Ok(()) };
    // Over a connection it had given up with the connection: a CANCEL behind that, over another one, finds no call.
    let cancelled = seen.deserted.map_or(cancelled, |deserted| deserted.min(cancelled));
    // Nor does one of a call that ended before, of which its phone has not heard.
    if checker.needless.was_over(cdr.call.id, cancelled) {
        return Ok(());
    }
    // Nor is an attempt whose connection ended before anything was heard of it still under way (D39).
    if leg.lost.is_some_and(|lost| lost <= cancelled) {
        return Ok(());
    }
    let in_time = |answered: Mono| answered < cancelled + (WITHDRAW_TIMEOUT - NEARLY);
    // What was heard in a process that ended, or told to an actor that failed, may be lost.
    let undisturbed = checker.crashes.is_empty() && !checker.panicked.contains(&cdr.call.id);
    if leg.answered.is_some_and(in_time) && undisturbed && cdr.carrier_cost.is_none() {
        return Err(format!("carrier {} answered, and its charge is not recorded", leg.carrier));
    }
    Ok(())
}

/// A process knows only of calls that were live when the one before it died: of a 200 that was not acknowledged before it was
/// given up, and of the second BYE of a call that was settled just then, nobody knows any more (D23).
fn both_legs_ended(checker: &mut Checker, call: CallId, seen: &Observed) {
    let known = checker.known.get(&call);
    let is_unheard = seen.acknowledged.is_none();
    let forgotten = |since: Option<Mono>, is_unheard| {
        known.zip(since).is_some_and(|(known, since)| known.is_forgotten(since, is_unheard))
    };
    let b_end = seen.b_legs.iter().filter_map(|leg| leg.bye).min();
    let caller_left = (seen.over_tcp && checker.has_lost_connection(seen.accepted))
        || forgotten(b_end, is_unheard)
        || (is_unheard && forgotten(seen.accepted, true));
    // A 200 that nobody acknowledged is repeated for 64·T1, whoever is there then, knows all calls, and can be reached.
    let repeated_in_vain = |carrier: usize, answered: Mono| {
        let heard_since =
            |known: Mono| repetitions(answered).filter(|at| *at >= known && !checker.was_silent(carrier, *at)).count();
        checker.needless.recoveries().any(|known| known >= answered && heard_since(known) <= LOST_MAX)
    };
    let unheard =
        |leg: &BLeg| leg.acknowledged.is_none() && leg.answered.is_some_and(|at| repeated_in_vain(leg.carrier, at));
    let died_within = |from: Mono| checker.crashes.iter().any(|at| (from..=from + NO_ACK).contains(at));
    // What comes before all dialogs are known again is left to its repetition, and a test fork says it once.
    let is_excused = |at: Mono| died_within(at) || checker.needless.was_recovering(at);
    // It may be the first that was heard.
    let is_lost_fork = |leg: &BLeg| {
        leg.tag.as_deref() == Some(FORK) && leg.acknowledged.is_none() && leg.answered.is_some_and(is_excused)
    };
    let carrier_left = |leg: &BLeg| forgotten(seen.a_end(), false) || unheard(leg) || is_lost_fork(leg);
    let one_goes_on = seen.b_legs.iter().any(|leg| leg.answered.is_some() && leg.bye.is_none() && !carrier_left(leg));
    let is_left = |fork: &Fork| !(fork.acknowledged && fork.ended || is_excused(fork.answered));
    let fork_goes_on = seen.b_legs.iter().flat_map(|leg| leg.forks.values()).any(is_left);
    if seen.accepted.is_some() && seen.a_bye.is_none() && !caller_left {
        checker.broken(format!("C4: the caller's leg of {call} never ended"));
    }
    if one_goes_on {
        checker.broken(format!("C4: a carrier answered {call}, and its leg never ended"));
    }
    if fork_goes_on {
        checker.broken(format!("C4: a fork of {call} answered, and was not ended"));
    }
}

/// When a 200 is said again (RFC 3261 §13.3.1.4).
fn repetitions(answered: Mono) -> impl Iterator<Item = Mono> {
    let ms = [500, 1_500, 3_500].into_iter().chain((7_500..32_000).step_by(4_000));
    ms.map(move |ms| answered + Duration::from_millis(ms))
}

/// L4, and that charges and records say the same.
fn money(checker: &mut Checker, account: AccountKey, records: &Records) {
    let of = |kind| records.transfers.iter().filter(move |posted| posted.transfer.kind == kind);
    let charges: Micros = of(LedgerKind::CallCharge).map(|posted| posted.transfer.amount).sum();
    let recorded: Micros = records.cdrs.iter().map(|cdr| cdr.charged).sum();
    let credits: Micros = of(LedgerKind::TopUp).map(|posted| posted.transfer.amount).sum();
    if charges != recorded || charges > credits {
        checker.broken(format!(
            "C3: account {} has credits of {credits}, charges of {charges} and records of {recorded}",
            account.0
        ));
    }
    let keyed = |key: &str| {
        of(LedgerKind::TopUp).filter(move |posted| posted.transfer.key.as_ref().is_some_and(|k| k.key == key)).collect()
    };
    let mut wrong = Vec::new();
    for ((_, key), payment) in checker.payments.iter().filter(|((owner, _), _)| *owner == account) {
        let posted: Vec<_> = keyed(key);
        let right = posted.iter().all(|posted| posted.transfer.amount == payment.amount);
        if posted.len() > 1 || !right || (payment.acknowledged && posted.is_empty()) {
            wrong.push(format!("L4: {key} of account {} was posted {} times", account.0, posted.len()));
        }
        if payment.refused == payment.asked && !posted.is_empty() {
            wrong.push(format!("I3: {key} of account {} was refused each time, and is posted", account.0));
        }
    }
    wrong.into_iter().for_each(|what| checker.broken(what));
}
