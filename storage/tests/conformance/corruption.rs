//! Rows spoilt behind the program's back: the audit names each broken invariant.

use crate::samples::*;
use rusqlite::Connection;
use schema::id::AccountKey;
use std::path::Path;
use storage::audit::{AuditReport, Invariant, audit};
use storage::*;

/// Two accounts, each with a settled call (1), a live call (2) and a top-up.
async fn world(folder: &Path) -> Store {
    let store = crate::sqlite(folder).await;
    let mut world = World::new(store.clone(), 8).await;
    let journal = Journal::start(&store, JournalOptions::default());
    for name in ["ann", "bob"] {
        let key = world.account(name, 1_000).await;
        let mut actor = world.actor(key).await;
        let (mut call, start) = actor.start(&mut world, 100);
        let answer = actor.renew(&mut world, &mut call, 10);
        let settle = actor.settle(&mut world, &call, 50);
        let (_, live) = actor.start(&mut world, 200);
        let (_, credit) = actor.credit(&mut world, 500, "pay", [1; 32]);
        let outcomes = submit(&journal, vec![start, answer, settle, live, credit]).await;
        assert!(outcomes.iter().all(Result::is_ok));
    }
    store
}

#[tokio::test]
async fn progress_is_told_range_by_range() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    let mut world = World::new(store.clone(), 9).await;
    for n in 0..40 {
        world.account(&format!("a{n}"), 1).await;
    }
    let mut told = Vec::new();
    let report = audit(&store, |progress| told.push((progress.done, progress.of))).await.expect("it can be read");
    assert_eq!((report.accounts, told.last()), (40, Some(&(40, 40))));
    assert!(told.len() > 1 && told.is_sorted() && told.iter().all(|(_, of)| *of == 40), "{told:?}");
    assert!(told[0].0 < 40, "{told:?}");
}

/// Takes a row's transfer out of it.
const NO_CHARGE: &str = "update entries set call_no = null, amount = null, transfer = null, kind = null, debit = null, credit = null, \
     cost_trunk = null, cost_micros = null, cost_currency = null, loss = null, description = null";

/// Removes entries with their events.
fn without(entries: &str) -> String {
    format!(
        "delete from events where id in (select id from entries where {entries}); delete from entries where {entries}"
    )
}

/// Inserts rows of an account again, for another account or at another position. A condition may follow.
fn again(account: &str, position: &str, of: &str) -> String {
    format!(
        "insert into entries (account_key, seq, position, at, status, total, held, receivable, last_call, event_count, call_no, amount, leg, \
         step, transfer, kind, debit, credit, cost_trunk, cost_micros, cost_currency, loss, balance_after, description) \
         select {account}, seq, {position}, at, status, total, held, receivable, last_call, event_count, call_no, amount, leg, step, \
         case when transfer is null then null else randomblob(16) end, kind, debit, credit, cost_trunk, cost_micros, cost_currency, loss, \
         balance_after, description from entries where account_key = {of}"
    )
}

/// Runs statements with triggers, checks and unique indexes out of the way, then audits.
async fn spoilt(statements: &str) -> AuditReport {
    let folder = tempfile::tempdir().expect("a folder");
    let store = world(folder.path()).await;
    crate::audited(&store).await;
    let raw = Connection::open(folder.path().join("data.db")).expect("opens");
    let mut triggers = raw.prepare("select name from sqlite_master where type = 'trigger'").expect("listed");
    let names: Vec<String> = triggers.query_map([], |row| row.get(0)).expect("listed").flatten().collect();
    drop(triggers);
    let drops: String = names.iter().map(|name| format!("drop trigger {name};")).collect();
    raw.execute_batch(&format!(
        "{drops} drop index l4_transfer_keys; \
         pragma ignore_check_constraints = 1; pragma foreign_keys = 0; {statements}"
    ))
    .expect("spoilt");
    let report = audit(&store, |_| {}).await.expect("the audit can read");
    store.close().await;
    report
}

async fn names(statements: &str, invariant: Invariant, account: i64) {
    let report = spoilt(statements).await;
    let named = report.told.iter().any(|b| b.invariant == invariant && b.account == AccountKey(account));
    assert!(named, "{statements}: {report}");
    assert!(report.told.iter().all(|b| b.account == AccountKey(account)), "the other account is clean: {report}");
}

#[tokio::test]
async fn l1_money_below_zero_is_named() {
    names("update entries set held = 9999999 where account_key = 1 and seq = 6", Invariant::L1, 1).await;
}

#[tokio::test]
async fn l2_a_transfer_that_does_not_balance_is_named() {
    names("update entries set debit = credit where account_key = 2 and kind = 'TOP_UP' and seq = 6", Invariant::L2, 2)
        .await;
    names("update entries set cost_currency = null where account_key = 2 and kind = 'CALL_CHARGE'", Invariant::L2, 2)
        .await;
    names("update entries set credit = 'nowhere' where account_key = 1 and kind = 'CALL_CHARGE'", Invariant::L2, 1)
        .await;
}

#[tokio::test]
async fn l3_holds_that_end_twice_or_never_are_named() {
    names("delete from calls where account_key = 1", Invariant::L3, 1).await;
    names(
        "insert into calls (account_key, no, id, held, hold_step, paid_s, state) values (2, 1, randomblob(16), 110, 1, 0, x'00')",
        Invariant::L3,
        2,
    )
    .await;
    names("delete from cdrs where account_key = 2", Invariant::L3, 2).await;
    names("update cdrs set state = 'REFUSED' where account_key = 2", Invariant::L3, 2).await;
    names("update entries set step = 0 where account_key = 1 and step = 1", Invariant::L3, 1).await;
    names("update calls set hold_step = 1 where account_key = 1", Invariant::L3, 1).await;
}

#[tokio::test]
async fn a_status_that_is_none_or_differs_within_an_entry_is_named() {
    names("update entries set status = 'ASLEEP' where account_key = 1 and seq = 2", Invariant::Events, 1).await;
}

#[tokio::test]
async fn c1_a_call_that_ended_without_ever_a_hold_is_named() {
    let none = "update entries set call_no = null, amount = null, leg = null, step = null";
    names(&format!("{none} where account_key = 1 and call_no = 1 and step is not null"), Invariant::C1, 1).await;
}

#[tokio::test]
async fn c3_a_call_of_which_nothing_is_left_is_named() {
    names("delete from cdrs where account_key = 1", Invariant::C3, 1).await;
    names("update entries set last_call = 9 where account_key = 2 and seq = 6", Invariant::C3, 2).await;
}

#[tokio::test]
async fn c3_a_cost_that_is_owed_to_another_carrier_or_in_another_currency_is_named() {
    names("update cdrs set cost_trunk = randomblob(16) where account_key = 1", Invariant::C3, 1).await;
    names("update cdrs set cost_currency = 'SEK' where account_key = 2", Invariant::C3, 2).await;
}

#[tokio::test]
async fn l4_a_key_used_twice_is_named() {
    names("update entries set key = 'opening' where account_key = 1 and key = 'pay'", Invariant::L4, 1).await;
}

#[tokio::test]
async fn c3_an_answered_call_without_its_one_charge_is_named() {
    names(&format!("{NO_CHARGE} where account_key = 1 and kind = 'CALL_CHARGE'"), Invariant::C3, 1).await;
    names("update cdrs set charged = 51 where account_key = 2", Invariant::C3, 2).await;
    names("update cdrs set loss = 1 where account_key = 2", Invariant::C3, 2).await;
    names("update entries set cost_micros = 26 where account_key = 2 and kind = 'CALL_CHARGE'", Invariant::C3, 2).await;
    names(
        "delete from cdrs where account_key = 1; \
         update entries set leg = null, step = null, amount = null, call_no = null where account_key = 1 and step is not null and call_no = 1",
        Invariant::C3,
        1,
    )
    .await;
    names("update entries set call_no = null where account_key = 1 and kind = 'CALL_CHARGE'", Invariant::C3, 1).await;
    names(&format!("{} and kind = 'CALL_CHARGE'", again("account_key", "1", "2")), Invariant::C3, 2).await;
}

/// What goes with a charge that nobody owes: the account's figures say the same, so only the call tells.
fn charged(account: i64, amount: i64) -> String {
    format!(
        "update entries set total = total - {amount}, balance_after = balance_after - {amount} where account_key = {account} and seq >= 4; \
         update entries set amount = amount + {amount} where account_key = {account} and kind = 'CALL_CHARGE'; \
         update cdrs set charged = charged + {amount} where account_key = {account}"
    )
}

#[tokio::test]
async fn c3_a_call_that_was_not_answered_and_is_charged_is_named() {
    names("update cdrs set answered_at = null where account_key = 1", Invariant::C3, 1).await;
    // The charge alone taken away, a loss stands.
    let loss = format!(
        "{}; update cdrs set answered_at = null, loss = 3 where account_key = 1; \
         update entries set loss = 3 where account_key = 1 and kind = 'CALL_CHARGE'",
        charged(1, -50)
    );
    names(&loss, Invariant::C3, 1).await;
    // Refused, never granted: no hold was ever placed, and the figures agree with that.
    let refused = "update cdrs set state = 'REFUSED', answered_at = null where account_key = 2; \
        update entries set call_no = null, amount = null, leg = null, step = null where account_key = 2 and call_no = 1 and leg is not null; \
        update entries set held = held - 100 where account_key = 2 and seq = 2; \
        update entries set held = held - 110 where account_key = 2 and seq = 3";
    names(refused, Invariant::C3, 2).await;
    // What a carrier charges for an answer that came too late is ours to pay.
    let late = format!("{}; update cdrs set answered_at = null where account_key = 1", charged(1, -50));
    let report = spoilt(&late).await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn l2_money_moves_between_the_ends_of_its_kind() {
    let ends = |kind: &str, debit: &str, credit: &str| {
        format!("update entries set debit = '{debit}', credit = '{credit}' where account_key = 1 and kind = '{kind}'")
    };
    names(&ends("CALL_CHARGE", "revenue", "customer"), Invariant::L2, 1).await;
    names(&ends("CALL_CHARGE", "customer", "promotion"), Invariant::L2, 1).await;
    names(&ends("TOP_UP", "revenue", "customer"), Invariant::L2, 1).await;
    names(&ends("TOP_UP", "customer", "payment_clearing"), Invariant::L2, 1).await;
    for kind in ["REFUND", "PROMOTION", "CHARGEBACK", "SUBSCRIPTION"] {
        let text = format!("update entries set kind = '{kind}' where account_key = 1 and kind = 'TOP_UP'");
        names(&text, Invariant::L2, 1).await;
    }
    names("update entries set loss = 1 where account_key = 1 and kind = 'TOP_UP'", Invariant::L2, 1).await;
    names("update entries set call_no = 1 where account_key = 1 and kind = 'TOP_UP'", Invariant::C3, 1).await;
    // An operator's corrections, in both directions.
    let given = "update entries set kind = 'ADJUSTMENT', debit = 'revenue' where account_key = 1 and key = 'pay'";
    assert!(spoilt(given).await.is_clean());
    let taken = "update entries set kind = 'ADJUSTMENT', debit = 'customer', credit = 'revenue', total = total - 1000, \
        balance_after = balance_after - 1000 where account_key = 1 and seq = 6";
    assert!(spoilt(taken).await.is_clean());
}

#[tokio::test]
async fn stored_figures_that_the_rows_do_not_give_are_named() {
    names("update entries set total = total + 1 where account_key = 1 and seq = 6", Invariant::Total, 1).await;
    names("update entries set receivable = 7 where account_key = 1 and seq = 6", Invariant::Receivable, 1).await;
    names("update entries set held = held - 1 where account_key = 2 and seq = 6", Invariant::Held, 2).await;
    names("update entries set held = held - 1 where account_key = 2 and seq = 3", Invariant::Held, 2).await;
    names(
        "update entries set amount = amount + 1 where account_key = 1 and step is not null and call_no = 2",
        Invariant::Held,
        1,
    )
    .await;
    names("update calls set held = held + 1 where account_key = 1", Invariant::Held, 1).await;
    names("update entries set balance_after = total + 1 where account_key = 2 and seq = 4", Invariant::Chain, 2).await;
    names("update entries set amount = amount + 1 where account_key = 2 and kind = 'TOP_UP'", Invariant::Chain, 2)
        .await;
}

#[tokio::test]
async fn a_gap_in_the_events_is_named() {
    for seq in [3, 6] {
        let text =
            format!("delete from events where id in (select id from entries where account_key = 1 and seq = {seq})");
        names(&text, Invariant::Events, 1).await;
    }
    names("update accounts set events_from = 3 where key = 1", Invariant::Events, 1).await;
    names(&without("account_key = 1 and seq = 3"), Invariant::Events, 1).await;
    names("update entries set position = 1 where account_key = 1 and seq = 3", Invariant::Events, 1).await;
    names(&without("account_key = 1"), Invariant::Events, 1).await;
}

#[tokio::test]
async fn orphans_and_negative_amounts_are_named() {
    names(&format!("{} and seq = 1", again("77", "0", "2")), Invariant::Orphan, 77).await;
    names("update entries set last_call = 1 where account_key = 1 and seq = 6", Invariant::Orphan, 1).await;
    names(&without("account_key = 2 and seq > 4"), Invariant::Orphan, 2).await;
    names("insert into attempts values (1, 55, 1, randomblob(16), 0, 1, 503)", Invariant::Orphan, 1).await;
    names("update entries set amount = -1 where account_key = 1 and step = 1", Invariant::Negative, 1).await;
    names("update entries set loss = -1 where account_key = 2 and seq = 4", Invariant::Negative, 2).await;
    names("insert into events values (9999, x'00')", Invariant::Orphan, 0).await;
    names(&format!("{} and step = 1", again("99", "0", "2")), Invariant::Orphan, 99).await;
}

/// What is owed after a chargeback is derived as `total` is: nothing is wrong with it when the figure says the same.
#[tokio::test]
async fn a_receivable_that_the_transfers_give_is_clean() {
    let owed = "insert into entries (account_key, seq, position, at, status, total, held, receivable, last_call, event_count, transfer, kind, \
         debit, credit, amount, loss, description) \
         select 1, 7, 0, at, status, total, held, 40, last_call, 0, randomblob(16), 'CHARGEBACK', 'receivable', 'payment_clearing', 40, 0, '' \
         from entries where account_key = 1 and seq = 6 \
         union all select 1, 8, 0, at, status, total, held, 30, last_call, 0, randomblob(16), 'TOP_UP', 'payment_clearing', 'receivable', 10, 0, '' \
         from entries where account_key = 1 and seq = 6";
    let report = spoilt(owed).await;
    assert!(report.is_clean(), "{report}");
}

/// The same rules read the other engine's rows.
pub async fn on_postgres(cluster: &crate::postgres::Cluster) {
    use sqlx::{Connection, PgConnection};
    let store = crate::postgres(cluster, "corruption").await;
    let mut world = World::new(store.clone(), 8).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let mut keys = Vec::new();
    for name in ["ann", "bob"] {
        let key = world.account(name, 1_000).await;
        let mut actor = world.actor(key).await;
        let (mut call, start) = actor.start(&mut world, 100);
        let answer = actor.renew(&mut world, &mut call, 10);
        let settle = actor.settle(&mut world, &call, 50);
        submit(&journal, vec![start, answer, settle]).await.into_iter().for_each(|o| o.expect("written"));
        keys.push(key);
    }
    crate::audited(&store).await;
    let mut raw = PgConnection::connect(&cluster.url("corruption")).await.expect("connects");
    for refused in [
        "delete from entries",
        "update entries set amount = 0",
        "update cdrs set charged = 0",
        "truncate entries",
        "truncate cdrs cascade",
    ] {
        let error = sqlx::raw_sql(refused).execute(&mut raw).await.expect_err(refused).to_string();
        assert!(error.contains("append-only"), "{refused}: {error}");
    }
    sqlx::raw_sql("update cdrs set destination_index = null")
        .execute(&mut raw)
        .await
        .expect("a blind index may be erased");
    let spoil = format!(
        "alter table entries disable trigger all; {NO_CHARGE} where account_key = 1 and kind = 'CALL_CHARGE'; \
         delete from events where id in (select id from entries where account_key = 2 and seq = 3); {} and step = 1; \
         insert into events values (9999, '')",
        again("99", "0", "2").replace("randomblob(16)", "gen_random_uuid()")
    );
    let spoil = sqlx::AssertSqlSafe(spoil);
    sqlx::raw_sql(spoil).execute(&mut raw).await.expect("spoilt");
    let report = audit(&store, |_| {}).await.expect("the audit can read");
    let found: Vec<_> = report.told.iter().map(|b| (b.account.0, b.invariant)).collect();
    for expected in [
        (1, Invariant::C3),
        (1, Invariant::Total),
        (2, Invariant::Events),
        (99, Invariant::L3),
        (99, Invariant::Orphan),
        (0, Invariant::Orphan),
    ] {
        assert!(found.contains(&expected), "{expected:?}: {report}");
    }
    raw.close().await.expect("closed");
    store.close().await;
}
