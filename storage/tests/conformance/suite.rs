//! What is true on every store.

use crate::samples::*;
use schema::account::*;
use schema::call::*;
use schema::carrier::{Trunk, TrunkLogin};
use schema::edge::Binding;
use schema::event::{EventBody, EventCursor};
use schema::id::*;
use schema::journal::{Change, Rejection};
use schema::ledger::*;
use schema::leg::{Checkpoint, Dialogs};
use schema::money::*;
use schema::pii::Pii;
use schema::time::*;
use std::sync::Arc;
use storage::*;

fn journal(store: &Store) -> Journal {
    Journal::start(store, JournalOptions::default())
}

pub async fn accounts_are_created_whole_and_found(store: Store) {
    let mut world = World::new(store.clone(), 1).await;
    let new = world.new_account("ann", 10_000_000);
    let (mut calls, bare) = (Vec::new(), world.new_account("bare", 0));
    let made = store.create_accounts(&[new.clone(), bare], |done| calls.push(done)).await.expect("created");
    assert_eq!(calls, [2]);
    let key = made[0].key;
    assert_eq!(store.account_key(new.id).await.expect("readable"), Some(key));
    let loaded = store.account(key).await.expect("readable").expect("there");
    assert_eq!((loaded.profile.id, loaded.profile.currency, loaded.profile.limits), (new.id, eur(), Limits::default()));
    assert_eq!(Some(&loaded.profile), store.account_profile(key).await.expect("readable").as_ref());
    assert_eq!((loaded.figures.seq, loaded.figures.total), (Seq(1), Micros(10_000_000)));
    assert_eq!((&loaded.caller_ids, loaded.callback_phones.len()), (&new.caller_ids, 1));
    assert!(loaded.callback_phones[0].number == new.callback_phones[0].number);
    assert_eq!(loaded.last_event, EventCursor { seq: Seq(1), index: 0 });
    let ledger = store.ledger_page(key, None, 10).await.expect("readable");
    assert_eq!(Some(&ledger[0].transfer), new.opening.as_ref());
    let bare = store.account(made[1].key).await.expect("readable").expect("there");
    assert_eq!((bare.figures.seq, bare.last_event), (Seq(0), EventCursor::default()));
    assert!(store.account(AccountKey(99)).await.expect("readable").is_none());
    let page = store.accounts_page(Some(key), 10).await.expect("readable");
    assert_eq!(page.iter().map(|a| a.profile.key).collect::<Vec<_>>(), [made[1].key]);
}

pub async fn creating_again_creates_only_what_is_missing(store: Store) {
    let mut world = World::new(store.clone(), 2).await;
    let (ann, bob) = (world.new_account("ann", 5), world.new_account("bob", 0));
    let first = store.create_accounts(std::slice::from_ref(&ann), |_| {}).await.expect("created");
    let again = world.new_account("ann", 7);
    let both = store.create_accounts(&[again, bob], |_| {}).await.expect("created");
    assert_eq!((both[0].key, both[0].existed, both[1].existed), (first[0].key, true, false));
    assert_eq!(world.actor(first[0].key).await.figures.total, Micros(5));
    let mut other = world.new_account("carol", 0);
    other.currency = Currency::parse("USD").expect("a currency");
    let refused = store.create_accounts(&[other], |_| {}).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    let mut other = world.new_account("carol", 0);
    other.deck = DeckId(uuid(9));
    assert!(matches!(store.create_accounts(&[other], |_| {}).await, Err(StoreError::NotFound("deck"))));
    let mut other = world.new_account("carol", 0);
    other.id = ann.id;
    assert!(matches!(store.create_accounts(&[other], |_| {}).await, Err(StoreError::Taken("account id"))));
    assert!(store.credential("carol").await.expect("readable").is_none());
}

fn uuid(byte: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([byte; 16])
}

pub async fn credentials_are_found_rotated_and_revoked(store: Store) {
    let mut world = World::new(store.clone(), 3).await;
    let key = world.account("ann", 0).await;
    let found = store.credential("ann").await.expect("readable").expect("there");
    assert_eq!((found.account, &*found.username, &found.secret.expose().md5), (key, "ann", b"canary-hash.md5."));
    assert!(store.credential("Ann").await.expect("readable").is_none());
    let second = SipCredential {
        id: CredentialId::generate(&mut world.entropy, START),
        username: "ann2".into(),
        created_at: world.now(),
        ..found.clone()
    };
    store.create_credential(&second).await.expect("created");
    assert!(matches!(store.create_credential(&second).await, Err(StoreError::Taken("username"))));
    let orphan = SipCredential { account: AccountKey(77), username: "x".into(), ..second.clone() };
    assert!(matches!(store.create_credential(&orphan).await, Err(StoreError::NotFound("account"))));
    assert_eq!(store.credentials(key).await.expect("readable"), [found.clone(), second.clone()]);
    let secret = Pii::new(Ha1 { md5: [1; 16], sha256: [2; 32] });
    store.rotate_credential(second.id, &secret).await.expect("rotated");
    assert_eq!(store.credential("ann2").await.expect("readable").map(|c| c.secret), Some(secret));
    assert!(store.revoke_credential(second.id).await.expect("revoked"));
    assert!(!store.revoke_credential(second.id).await.expect("nothing to revoke"));
    assert!(matches!(store.rotate_credential(second.id, &secret).await, Err(StoreError::NotFound("credential"))));
}

pub async fn c3_a_call_is_granted_answered_and_settled_in_three_entries(store: Store) {
    let mut world = World::new(store.clone(), 4).await;
    let key = world.account("ann", 10_000_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let (mut call, start) = actor.start(&mut world, 300_000);
    assert_eq!(submit(&journal, vec![start]).await, [Ok(())]);
    let loaded = store.account(key).await.expect("readable").expect("there");
    assert_eq!((loaded.figures, &loaded.live_calls), (actor.figures, &vec![call.clone()]));
    assert_eq!(store.live_call(call.call.id).await.expect("readable"), Some((key, call.clone())));
    assert_eq!(store.call(call.call.id).await.expect("readable"), None);
    let renewed = actor.renew(&mut world, &mut call, 200_000);
    assert_eq!(submit(&journal, vec![renewed]).await, [Ok(())]);
    assert_eq!(store.live_calls(None, 10).await.expect("readable"), [(key, call.clone())]);
    let holds = store.holds(key, call.no).await.expect("readable");
    assert_eq!(holds.iter().map(|h| (h.step, h.amount.0)).collect::<Vec<_>>(), [(0, 300_000), (1, 200_000)]);
    let settled = actor.settle(&mut world, &call, 123_456);
    let cdr =
        settled.changes.iter().find_map(|c| if let Change::CallEnded(cdr) = c { Some((**cdr).clone()) } else { None });
    assert_eq!(submit(&journal, vec![settled]).await, [Ok(())]);
    let loaded = store.account(key).await.expect("readable").expect("there");
    assert_eq!((loaded.figures.total, loaded.figures.held), (Micros(9_876_544), Micros(0)));
    assert!(loaded.live_calls.is_empty());
    assert_eq!(store.live_call(call.call.id).await.expect("readable"), None);
    assert_eq!(store.call(call.call.id).await.expect("readable"), cdr.clone().map(|cdr| (key, cdr)));
    assert_eq!(store.cdr(key, call.no).await.expect("readable"), cdr);
    let ledger = store.ledger_page(key, None, 1).await.expect("readable");
    assert_eq!((ledger[0].transfer.call, ledger[0].transfer.balance_after), (Some(call.no), Micros(9_876_544)));
    assert_eq!(store.transfer(ledger[0].transfer.id).await.expect("readable"), Some((key, ledger[0].clone())));
    crate::audited(&store).await;
}

pub async fn dialogs_are_written_when_they_change_and_go_with_their_call(store: Store) {
    let mut world = World::new(store.clone(), 53).await;
    let key = world.account("ann", 10_000_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let stored = async || {
        let rows = store.live_calls_with_dialogs(None, 10).await.expect("readable");
        let whole = |row: StoredCall| (row.account, row.call.expect("opens"), row.dialogs.expect("open"));
        rows.into_iter().map(whole).collect::<Vec<_>>()
    };
    let changed = |call, dialogs: &Dialogs| Change::DialogsChanged(call, Box::new(dialogs.clone()));
    let (mut call, start) = actor.start(&mut world, 300_000);
    let whole = dialogs();
    let of_a = Dialogs::of(LegSide::A, whole.a_leg.clone().expect("there"));
    assert_eq!(submit(&journal, vec![start]).await, [Ok(())]);
    assert_eq!(stored().await, [(key, call.clone(), of_a)]);
    let mut answer = actor.renew(&mut world, &mut call, 10);
    answer.changes.push(changed(call.no, &Dialogs { a_leg: None, ..whole.clone() }));
    assert_eq!((answer.row_writes(), submit(&journal, vec![answer]).await), (3, vec![Ok(())]));
    assert_eq!(stored().await, [(key, call.clone(), whole.clone())]);
    let newer = |text: &str| Checkpoint { state: Pii::new(text.into()) };
    let other = Dialogs::of(LegSide::B, newer("another session"));
    let session = actor.entry(START, vec![changed(call.no, &other)]);
    let renewed = actor.renew(&mut world, &mut call, 20);
    assert_eq!((session.row_writes(), submit(&journal, vec![session, renewed]).await), (3, vec![Ok(()), Ok(())]));
    let now = Dialogs { b_leg: other.b_leg.clone(), ..whole };
    assert_eq!(stored().await, [(key, call.clone(), now.clone())]);
    // All of a call in one batch, its dialogs changed before, with and after its state.
    let (mut second, start) = actor.start(&mut world, 100);
    let mut batch = vec![start, actor.entry(START, vec![changed(second.no, &other)])];
    batch.push(actor.renew(&mut world, &mut second, 10));
    let a_leg = Dialogs::of(LegSide::A, newer("a third"));
    batch.push(actor.entry(START, vec![changed(second.no, &a_leg)]));
    let third = Dialogs { a_leg: a_leg.a_leg, b_leg: other.b_leg.clone(), answer_sdp: None };
    assert_eq!(submit(&journal, batch).await, [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(stored().await, [(key, call.clone(), now), (key, second, third)]);
    let mut twice = actor.clone();
    let entry = twice.entry(START, vec![changed(call.no, &other), changed(call.no, &other)]);
    assert_eq!(submit(&journal, vec![entry]).await, [Err(Rejection::Failed)], "once in an entry");
    let mut after = actor.clone();
    let settled = actor.settle(&mut world, &call, 5);
    assert_eq!(submit(&journal, vec![settled]).await, [Ok(())]);
    after.figures = actor.figures;
    let gone = after.entry(START, vec![changed(call.no, &other)]);
    assert_eq!(submit(&journal, vec![gone]).await, [Err(Rejection::Failed)], "the call is over");
    assert_eq!(stored().await.len(), 1);
    crate::audited(&store).await;
}

pub async fn a_renewal_writes_nothing_but_what_it_changes(store: Store) {
    let mut world = World::new(store.clone(), 55).await;
    let key = world.account("ann", 10_000_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let (call, start) = actor.start(&mut world, 100);
    assert_eq!(submit(&journal, vec![start]).await, [Ok(())]);
    let mut kept = call.clone();
    let mut renewal = |actor: &mut Actor, kept: &mut LiveCall, second: i64| {
        let mut entry = actor.renew(&mut world, kept, 10);
        kept.paid_s += 30;
        let boot = BootId(u128::MAX - 5);
        kept.proof_of_life = Some(ClockReading { wall: Timestamp(second), mono: Mono(second.unsigned_abs()), boot });
        // Its row keeps the state as it is, whatever the renewal says.
        entry.changes[0] = Change::CallRenewed(Arc::new(kept.clone()));
        assert_eq!(entry.row_writes(), 3);
        entry
    };
    let first = renewal(&mut actor, &mut kept, 1_000_000);
    assert_eq!(submit(&journal, vec![first]).await, [Ok(())]);
    let stored = async || store.live_call(call.call.id).await.expect("readable").expect("there").1;
    let renewed = |kept: &LiveCall| LiveCall { call: call.call.clone(), ..kept.clone() };
    assert_ne!(kept.call, call.call);
    assert_eq!(stored().await, renewed(&kept));
    let batch = vec![renewal(&mut actor, &mut kept, 2_000_000), renewal(&mut actor, &mut kept, 3_000_000)];
    assert_eq!(submit(&journal, batch).await, [Ok(()), Ok(())]);
    assert_eq!(stored().await, renewed(&kept));
    let mut behind = kept.clone();
    behind.hold_step -= 1;
    let again = renewal(&mut actor.clone(), &mut behind, 4_000_000);
    assert_eq!(submit(&journal, vec![again]).await, [Err(Rejection::Failed)], "l3: that step was held for");
    crate::audited(&store).await;
}

pub async fn l3_a_call_ends_once(store: Store) {
    let mut world = World::new(store.clone(), 5).await;
    let key = world.account("ann", 10_000_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let (call, start) = actor.start(&mut world, 300_000);
    let settle = actor.settle(&mut world, &call, 100_000);
    assert_eq!(submit(&journal, vec![start, settle]).await, [Ok(()), Ok(())], "begun and over in one batch");
    let mut twice = actor.clone();
    twice.figures.held += call.held;
    assert_eq!(submit(&journal, vec![twice.settle(&mut world, &call, 100_000)]).await, [Err(Rejection::Failed)]);
    let mut again = actor.clone();
    let held = Hold { call: call.no, leg: LegSide::B, step: 0, amount: Micros(1) };
    assert_eq!(
        submit(&journal, vec![again.entry(START, vec![Change::HoldPlaced(held)])]).await,
        [Err(Rejection::Failed)]
    );
    let mut unknown = actor.clone();
    let update = unknown.entry(START, vec![Change::CallUpdated(Arc::new(call.clone()))]);
    assert_eq!(submit(&journal, vec![update]).await, [Err(Rejection::Failed)]);
    let mut charged = actor.clone();
    let cdr = Actor::cdr(&mut world, &call, 5);
    let transfer = charged.charge(&mut world, &cdr);
    assert_eq!(
        submit(&journal, vec![charged.entry(START, vec![Change::Posted(Box::new(transfer))])]).await,
        [Err(Rejection::Failed)]
    );
    let mut began = actor.clone();
    let starts = vec![Change::CallStarted(Arc::new(call.clone())), Change::HoldPlaced(first_hold(&call))];
    let same_number = began.entry(START, starts);
    assert_eq!(submit(&journal, vec![same_number]).await, [Err(Rejection::Failed)], "a call's number is used once");
    let (_, mut unheld) = actor.clone().start(&mut world, 0);
    unheld.changes.retain(|change| !matches!(change, Change::HoldPlaced(_)));
    assert_eq!(submit(&journal, vec![unheld]).await, [Err(Rejection::Failed)], "c1: a call begins with a hold");
    assert_eq!(world.actor(key).await.figures, actor.figures, "nothing of a failed entry is written");
    crate::audited(&store).await;
}

/// A step is held for once: the call's row says which is the newest.
pub async fn l3_a_step_is_held_for_once(store: Store) {
    let mut world = World::new(store.clone(), 51).await;
    let key = world.account("ann", 10_000_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let (mut call, start) = actor.start(&mut world, 100);
    assert_eq!(submit(&journal, vec![start]).await, [Ok(())]);
    let (before, first) = (actor.clone(), call.clone());
    let renewals = vec![actor.renew(&mut world, &mut call, 10), actor.renew(&mut world, &mut call, 20)];
    assert_eq!(submit(&journal, renewals).await, [Ok(()), Ok(())], "two in one batch");
    let mut stale =
        Actor { figures: schema::account::AccountFigures { seq: actor.figures.seq, ..before.figures }, ..before };
    let again = stale.renew(&mut world, &mut first.clone(), 10);
    assert_eq!(submit(&journal, vec![again]).await, [Err(Rejection::Failed)], "step 1 was held for");
    let mut ahead = actor.clone();
    let mut skipped = call.clone();
    skipped.hold_step += 1;
    let skips = ahead.renew(&mut world, &mut skipped, 10);
    assert_eq!(submit(&journal, vec![skips]).await, [Err(Rejection::Failed)], "step 4 comes after step 3");
    let steps: Vec<_> = store.holds(key, call.no).await.expect("readable").iter().map(|hold| hold.step).collect();
    assert_eq!((steps, store.open_holds().await.expect("readable")), (vec![0, 1, 2], 3));
    crate::audited(&store).await;
}

pub async fn an_entry_may_move_several_things(store: Store) {
    let mut world = World::new(store.clone(), 52).await;
    let key = world.account("ann", 1_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let (mut call, start) = actor.start(&mut world, 100);
    // A renewal and two credits; then an end without a charge and a credit.
    let mut first = actor.renew(&mut world, &mut call, 50);
    let mut figures = first.figures;
    for (key, amount) in [("a", 5), ("b", 7)] {
        figures.total += Micros(amount);
        let mut credited = Actor {
            key: actor.key,
            figures: schema::account::AccountFigures { total: figures.total - Micros(amount), ..figures },
        };
        first.changes.extend(credited.credit(&mut world, amount, key, [1; 32]).1.changes);
    }
    first.figures = figures;
    actor.figures = figures;
    let mut cdr = Actor::cdr(&mut world, &call, 0);
    cdr.carrier_cost = None;
    cdr.call.answered_at = None;
    actor.figures.held -= call.held;
    let (_, mut second) = actor.credit(&mut world, 11, "c", [1; 32]);
    second.changes.push(Change::CallEnded(Box::new(cdr)));
    assert_eq!(submit(&journal, vec![start, first, second]).await, [Ok(()), Ok(()), Ok(())]);
    let ledger = store.ledger_page(key, None, 3).await.expect("readable");
    let rows: Vec<_> = ledger.iter().map(|p| (p.cursor.seq.0, p.cursor.position, p.transfer.balance_after.0)).collect();
    assert_eq!(rows, [(4, 0, 1_023), (3, 2, 1_012), (3, 1, 1_005)]);
    let older = store.ledger_page(key, Some(ledger[1].cursor), 1).await.expect("readable");
    assert_eq!(older, ledger[2..]);
    assert_eq!(store.transfer_by_key(key, "b").await.expect("readable").as_ref(), Some(&ledger[1]));
    assert_eq!(store.holds(key, call.no).await.expect("readable").len(), 2);
    let loaded = store.account(key).await.expect("readable").expect("there");
    assert_eq!((loaded.figures, loaded.last_event), (actor.figures, EventCursor { seq: Seq(4), index: 1 }));
    let events = store.events_after(key, EventCursor { seq: Seq(2), index: 1 }, 10).await.expect("readable");
    let places: Vec<_> = events.iter().map(|e| (e.cursor.seq.0, e.cursor.index)).collect();
    assert_eq!(places, [(3, 0), (3, 1), (4, 0), (4, 1)]);
    crate::audited(&store).await;
}

/// Two journals, as two programs would have them: of two entries with one number one is written.
pub async fn two_writers_of_an_account_are_fenced(store: Store) {
    let mut world = World::new(store.clone(), 53).await;
    let (ann, bob) = (world.account("ann", 1_000).await, world.account("bob", 1_000).await);
    let (one, other) = (journal(&store), journal(&store));
    let mut won = 0;
    for round in 0..30 {
        let (mut a, mut b) = (world.actor(ann).await, world.actor(bob).await);
        let mut bystander = world.actor(bob).await;
        let mine = a.clone().credit(&mut world, 1, &format!("one {round}"), [0; 32]).1;
        let theirs = a.credit(&mut world, 1, &format!("other {round}"), [0; 32]).1;
        let (beside, clash) = (b.refuse(&mut world), bystander.credit(&mut world, 1, &format!("c {round}"), [0; 32]).1);
        let (first, second) = tokio::join!(submit(&one, vec![mine, beside]), submit(&other, vec![theirs, clash]));
        for outcomes in first.iter().zip(&second) {
            let fenced = Err(Rejection::Fenced);
            assert!([(&Ok(()), &fenced), (&fenced, &Ok(()))].contains(&outcomes), "{round}: {outcomes:?}");
        }
        won += usize::from(first[0].is_ok());
    }
    println!("the first of two writers won {won} of 30");
    assert_eq!(world.actor(ann).await.figures.total, Micros(1_030));
    assert_eq!(world.actor(bob).await.figures.seq, Seq(31));
    // What one remembers of an account is behind what the other wrote: the key tells, and whoever is beside it is not touched.
    let (mut a, mut b) = (world.actor(ann).await, world.actor(bob).await);
    let known = a.credit(&mut world, 1, "known", [0; 32]).1;
    assert_eq!(submit(&one, vec![known]).await, [Ok(())]);
    let mut late = a.clone();
    let newer = a.credit(&mut world, 1, "newer", [0; 32]).1;
    assert_eq!(submit(&other, vec![newer]).await, [Ok(())]);
    let (behind, beside) = (late.credit(&mut world, 1, "late", [0; 32]).1, b.credit(&mut world, 1, "b", [0; 32]).1);
    assert_eq!(submit(&one, vec![behind, beside]).await, [Err(Rejection::Fenced), Ok(())]);
    let mut loaded = world.actor(ann).await;
    assert_eq!(loaded.figures, a.figures);
    assert_eq!(submit(&one, vec![loaded.credit(&mut world, 1, "again", [0; 32]).1]).await, [Ok(())]);
    crate::audited(&store).await;
}

/// The clock said ten years too much for a moment: that keeps no events for ten years.
pub async fn an_entry_of_a_time_to_come_keeps_no_events(store: Store) {
    const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);
    let mut world = World::new(store.clone(), 55).await;
    let key = world.account("ann", 0).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let years = Timestamp(START.0 + 10 * 365 * 86_400_000_000);
    let entries = [START, years, START + HOUR, START + HOUR * 20].map(|at| actor.entry(at, Vec::new()));
    assert!(submit(&journal, entries.into()).await.iter().all(Result::is_ok));
    let purge = async |now: Timestamp| {
        store.purge_events(now - HOUR * 24, now, 100).await.expect("purged");
        store.oldest_event(key).await.expect("readable").map(|cursor| cursor.seq)
    };
    assert_eq!(purge(START + HOUR * 26).await, Some(Seq(4)));
    assert_eq!(purge(START + HOUR * 50).await, None);
    crate::audited(&store).await;
}

/// More than are purged in one transaction, of accounts that have little and much.
pub async fn many_events_are_purged_once(store: Store) {
    let mut world = World::new(store.clone(), 54).await;
    let (ann, bob) = (world.account("ann", 0).await, world.account("bob", 1_000).await);
    let journal = journal(&store);
    let mut actor = world.actor(ann).await;
    let mut entry = || {
        let mut entry = actor.entry(START, Vec::new());
        entry.events.truncate(1);
        entry
    };
    let entries = (0..2_300).map(|_| entry()).collect();
    assert!(submit(&journal, entries).await.iter().all(Result::is_ok));
    let old = Timestamp(START.0 - 1);
    assert_eq!(store.purge_events(old, START, 100).await.expect("purged"), 2_200);
    assert_eq!(store.purge_events(old, START, 100).await.expect("purged"), 0);
    assert_eq!(store.oldest_event(ann).await.expect("readable").map(|c| c.seq), Some(Seq(2_201)));
    assert_eq!(store.oldest_event(bob).await.expect("readable").map(|c| c.seq), Some(Seq(1)));
    assert_eq!(store.events_after(ann, EventCursor::default(), 1_000).await.expect("readable").len(), 100);
    crate::audited(&store).await;
    assert_eq!(store.purge_events(Timestamp(i64::MAX), Timestamp(i64::MAX), 100).await.expect("purged"), 101);
    crate::audited(&store).await;
}

pub async fn l1_money_below_zero_is_never_written(store: Store) {
    let mut world = World::new(store.clone(), 6).await;
    let key = world.account("ann", 100).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let (_, start) = actor.start(&mut world, 101);
    assert_eq!(submit(&journal, vec![start]).await, [Err(Rejection::Failed)]);
    assert_eq!(world.actor(key).await.figures.held, Micros(0));
    assert!(store.live_calls(None, 10).await.expect("readable").is_empty());
}

pub async fn an_entry_out_of_order_is_fenced_with_all_that_follow(store: Store) {
    let mut world = World::new(store.clone(), 7).await;
    let (ann, bob) = (world.account("ann", 1_000).await, world.account("bob", 1_000).await);
    let journal = journal(&store);
    let (mut a, mut b) = (world.actor(ann).await, world.actor(bob).await);
    let mut stale = a.clone();
    let (_, one) = a.start(&mut world, 10);
    let (_, other) = stale.credit(&mut world, 5, "k", [1; 32]);
    let (_, follows) = stale.credit(&mut world, 5, "l", [1; 32]);
    let (_, bystander) = b.start(&mut world, 10);
    let ahead = {
        b.figures.seq = b.figures.seq.next();
        b.credit(&mut world, 5, "k", [1; 32]).1
    };
    let mut nobody = Actor { key: AccountKey(4_242), figures: a.figures };
    let (_, unknown) = nobody.credit(&mut world, 5, "k", [1; 32]);
    let fenced = Err(Rejection::Fenced);
    let outcomes = submit(&journal, vec![one, other, bystander, follows, ahead, unknown]).await;
    // `follows` would fit after `one`, but it was decided on the state that `other` never made.
    assert_eq!(outcomes, [Ok(()), fenced.clone(), Ok(()), fenced.clone(), fenced.clone(), fenced]);
    assert!(store.transfer_by_key(ann, "k").await.expect("readable").is_none());
    assert!(store.transfer_by_key(bob, "k").await.expect("readable").is_none());
}

pub async fn a_rejected_entry_takes_its_accounts_later_ones_with_it(store: Store) {
    let mut world = World::new(store.clone(), 8).await;
    let (ann, bob) = (world.account("ann", 1_000).await, world.account("bob", 1_000).await);
    let journal = journal(&store);
    let (mut a, mut b) = (world.actor(ann).await, world.actor(bob).await);
    let ghost = world.call(CallNo(9), 0);
    let good = a.credit(&mut world, 1, "k1", [1; 32]).1;
    let bad = a.entry(START, vec![Change::CallUpdated(Arc::new(ghost))]);
    let later = a.credit(&mut world, 1, "k2", [1; 32]).1;
    let others: Vec<_> = (0..5).map(|n| b.credit(&mut world, 1, &format!("b{n}"), [1; 32]).1).collect();
    let mut entries = vec![good, bad, later];
    entries.extend(others);
    let outcomes = submit(&journal, entries).await;
    assert_eq!(outcomes[..3], [Ok(()), Err(Rejection::Failed), Err(Rejection::Fenced)]);
    assert!(outcomes[3..].iter().all(Result::is_ok), "another account's entries are not concerned");
    assert_eq!(world.actor(ann).await.figures.total, Micros(1_001));
    assert_eq!(world.actor(bob).await.figures.total, Micros(1_005));
    crate::audited(&store).await;
}

/// With one or a few entries a batch, those after a rejection are in the batches behind it, encoded before it was known.
pub async fn a_rejection_reaches_the_batches_in_flight_behind_it(store: Store) {
    let mut world = World::new(store.clone(), 81).await;
    let (ann, bob) = (world.account("ann", 1_000).await, world.account("bob", 1_000).await);
    for batch in [1, 2, 5] {
        let journal = Journal::start(&store, JournalOptions { queue: 1_000, batch, ..Default::default() });
        let (mut a, mut b) = (world.actor(ann).await, world.actor(bob).await);
        let (mut entries, mut expected) = (Vec::new(), Vec::new());
        // The first acknowledgement waits until all are handed over, so that no rejection is told before.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = b.credit(&mut world, 1, &format!("{batch}.first"), [1; 32]).1;
        journal.submit(first, Box::new(move |_| held.recv().expect("released"))).expect("room");
        for n in 0..10 {
            entries.push(a.credit(&mut world, 1, &format!("{batch}.{n}"), [1; 32]).1);
            entries.push(b.credit(&mut world, 1, &format!("{batch}.{n}"), [1; 32]).1);
            expected.extend([Ok(()), Ok(())]);
        }
        let (good, other) = (a.clone(), b.figures);
        let ghost = world.call(CallNo(9), 0);
        entries.push(a.entry(START, vec![Change::CallUpdated(Arc::new(ghost))]));
        expected.push(Err(Rejection::Failed));
        // One that would follow the stored seq again, had nobody noticed that it was decided on the rejected one.
        let mut stale = good.clone();
        for n in 10..20 {
            let from = if n % 2 == 0 { &mut stale } else { &mut a };
            entries.push(from.credit(&mut world, 1, &format!("{batch}.{n}"), [1; 32]).1);
            entries.push(b.credit(&mut world, 1, &format!("{batch}.{n}"), [1; 32]).1);
            expected.extend([Err(Rejection::Fenced), Ok(())]);
        }
        let told = hand_over(&journal, entries);
        release.send(()).expect("it waits");
        assert_eq!(outcomes(&journal, &told, expected.len()).await, expected, "{batch} entries a batch");
        assert_eq!(world.actor(ann).await.figures, good.figures);
        assert_eq!(world.actor(bob).await.figures.total, other.total + Micros(10));
        let again = world.actor(ann).await.credit(&mut world, 1, &format!("{batch}.again"), [1; 32]).1;
        assert_eq!(submit(&journal, vec![again]).await, [Ok(())], "once it was told, the account goes on");
    }
    crate::audited(&store).await;
}

pub async fn l4_a_key_posts_once_for_ever(store: Store) {
    let mut world = World::new(store.clone(), 9).await;
    let (ann, bob) = (world.account("ann", 0).await, world.account("bob", 0).await);
    let journal = journal(&store);
    let (mut a, mut b) = (world.actor(ann).await, world.actor(bob).await);
    let (id, first) = a.credit(&mut world, 10, "pay-1", [1; 32]);
    let before = a.clone();
    let (_, same_batch) = a.credit(&mut world, 10, "pay-1", [1; 32]);
    let (_, theirs) = b.credit(&mut world, 10, "pay-1", [1; 32]);
    let outcomes = submit(&journal, vec![first, same_batch, theirs]).await;
    let duplicate = |same_request| Err(Rejection::DuplicateKey { transfer: id, same_request });
    assert_eq!(outcomes, [Ok(()), duplicate(true), Ok(())], "a key is unique within its account");
    let mut a = before;
    let (_, later) = a.clone().credit(&mut world, 10, "pay-1", [1; 32]);
    let (_, other) = a.credit(&mut world, 99, "pay-1", [2; 32]);
    assert_eq!(submit(&journal, vec![later]).await, [duplicate(true)]);
    assert_eq!(submit(&journal, vec![other]).await, [duplicate(false)]);
    let stored = store.transfer_by_key(ann, "pay-1").await.expect("readable").expect("there");
    assert_eq!((stored.transfer.id, stored.transfer.amount), (id, Micros(10)));
    assert_eq!(world.actor(ann).await.figures.total, Micros(10));
    crate::audited(&store).await;
}

pub async fn many_entries_of_a_hot_account_share_batches(store: Store) {
    let mut world = World::new(store.clone(), 10).await;
    let (hot, cold) = (world.account("hot", 1_000_000).await, world.account("cold", 1_000_000).await);
    let journal = Journal::start(&store, JournalOptions { queue: 2_000, batch: 64, ..Default::default() });
    let (mut h, mut c) = (world.actor(hot).await, world.actor(cold).await);
    let mut entries = Vec::new();
    for n in 0..100 {
        let (mut call, start) = h.start(&mut world, 100);
        entries.push(start);
        if n % 3 == 0 {
            entries.push(h.renew(&mut world, &mut call, 50));
        }
        entries.push(h.settle(&mut world, &call, 7));
        if n % 10 == 0 {
            entries.push(c.credit(&mut world, 1, &format!("c{n}"), [0; 32]).1);
        }
    }
    let count = entries.len();
    // What waits goes into one transaction; how much waits is a matter of luck.
    let outcomes = submit(&journal, entries).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let (batches, written) = journal.written();
    assert_eq!(written, count as u64);
    let least = (count as u64).div_ceil(64);
    assert!((least..=count as u64 / 5).contains(&batches), "{count} entries in {batches} batches of at most 64");
    let loaded = store.account(hot).await.expect("readable").expect("there");
    assert_eq!(loaded.figures, h.figures);
    assert_eq!(loaded.figures.total, Micros(1_000_000 - 700));
    crate::audited(&store).await;
}

/// Of a call that is over the stores keep one copy, in its record.
pub async fn what_was_told_of_a_call_that_ended_is_read_as_it_was_told(store: Store) {
    let mut world = World::new(store.clone(), 54).await;
    let key = world.account("ann", 10_000_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let (mut told, mut submitted) = (Vec::new(), Vec::new());
    // Charged and told of first; ended free of charge and told of last; a credit in the entry's first row; told of as it was.
    for way in 0..4 {
        let (call, start) = actor.start(&mut world, 100);
        submitted.push(start);
        let mut entry = actor.settle(&mut world, &call, if way == 1 { 0 } else { 10 });
        let Some(Change::CallEnded(cdr)) = entry.changes.first() else { panic!("it ends") };
        let mut ended = EventBody::CallChanged(Box::new(cdr.call.clone()));
        match way {
            1 => entry.changes.truncate(1),
            2 => {
                entry.changes.splice(0..0, actor.clone().credit(&mut world, 5, "paid", [1; 32]).1.changes);
                for change in &mut entry.changes {
                    if let Change::Posted(transfer) = change {
                        transfer.balance_after += Micros(if transfer.kind == LedgerKind::TopUp { 10 } else { 5 });
                    }
                }
                actor.figures.total += Micros(5);
                entry.figures.total += Micros(5);
            }
            3 => ended = EventBody::CallChanged(Box::new(call.call.clone())),
            _ => {}
        }
        entry.events.insert(if way == 1 { entry.events.len() } else { 0 }, ended);
        told.extend(entry.events.clone());
        submitted.push(entry);
    }
    let from = EventCursor { seq: Seq(1), index: u16::MAX };
    assert!(submit(&journal, submitted).await.iter().all(Result::is_ok));
    let events = store.events_after(key, from, 1_000).await.expect("readable");
    let of_ends = events.into_iter().filter(|event| event.cursor.seq.0 % 2 == 1).map(|event| event.body);
    assert_eq!(of_ends.collect::<Vec<_>>(), told);
    crate::audited(&store).await;
}

pub async fn events_are_read_in_order_and_purged(store: Store) {
    let mut world = World::new(store.clone(), 11).await;
    let key = world.account("ann", 1_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let mut entries: Vec<_> = (0..5).map(|n| actor.credit(&mut world, 1, &format!("k{n}"), [0; 32]).1).collect();
    entries[2].events.clear();
    let silent = entries[2].seq();
    submit(&journal, entries).await.into_iter().for_each(|o| o.expect("written"));
    let all = store.events_after(key, EventCursor::default(), 100).await.expect("readable");
    let places: Vec<_> = all.iter().map(|e| (e.cursor.seq.0, e.cursor.index)).collect();
    assert_eq!(places, [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (5, 0), (5, 1), (6, 0), (6, 1)]);
    assert!(matches!(&all[3].body, EventBody::BalanceChanged(b) if b.total == Micros(1_002)));
    let after = store.events_after(key, all[1].cursor, 3).await.expect("readable");
    assert_eq!(after, all[2..5]);
    let after = store.events_after(key, EventCursor { seq: silent, index: 0 }, 100).await.expect("readable");
    assert_eq!(after, all[5..]);
    assert_eq!(store.oldest_event(key).await.expect("readable").map(|c| c.seq), Some(Seq(1)));
    assert_eq!(store.purge_events(Timestamp(0), Timestamp(i64::MAX), 4).await.expect("purged"), 2);
    assert_eq!(store.oldest_event(key).await.expect("readable").map(|c| c.seq), Some(Seq(3)));
    crate::audited(&store).await;
    assert_eq!(store.purge_events(Timestamp(i64::MAX), Timestamp(i64::MAX), 10_000).await.expect("purged"), 4);
    assert_eq!(store.oldest_event(key).await.expect("readable"), None);
    let loaded = store.account(key).await.expect("readable").expect("there");
    assert_eq!(loaded.last_event, EventCursor { seq: Seq(6), index: 1 }, "whoever has seen it has missed nothing");
    assert_eq!(
        store.purge_events(Timestamp(i64::MAX), Timestamp(i64::MAX), 10_000).await.expect("purged"),
        0,
        "each is purged once"
    );
    crate::audited(&store).await;
}

pub async fn histories_are_read_by_pages_and_filters(store: Store) {
    let mut world = World::new(store.clone(), 12).await;
    let key = world.account("ann", 1_000_000).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let mut entries = Vec::new();
    for n in 0..6_u8 {
        let (mut call, start) = actor.start(&mut world, 100);
        entries.push(start);
        let attempt = AttemptRecord {
            call: call.no,
            number: 1,
            trunk: TrunkId(uuid(n)),
            started_at: START,
            ended_at: Timestamp(START.0 + 1),
            sip_code: 503,
        };
        entries
            .push(actor.entry(START, vec![Change::AttemptEnded(attempt), Change::CallUpdated(Arc::new(call.clone()))]));
        if n % 2 == 0 {
            call.call.destination = Some(number("+15551234567"));
        }
        entries.push(actor.settle(&mut world, &call, 7));
    }
    entries.push(actor.refuse(&mut world));
    submit(&journal, entries).await.into_iter().for_each(|o| o.expect("written"));
    let numbers = |calls: &[Cdr]| calls.iter().map(|c| c.no.0).collect::<Vec<_>>();
    let all = CallFilter::default();
    let page = store.calls_page(key, None, 3, &all).await.expect("readable");
    assert_eq!(numbers(&page), [7, 6, 5]);
    let page = store.calls_page(key, Some(CallNo(5)), 100, &all).await.expect("readable");
    assert_eq!(numbers(&page), [4, 3, 2, 1]);
    let refused = CallFilter { state: Some(CallState::Refused), ..all.clone() };
    assert_eq!(numbers(&store.calls_page(key, None, 9, &refused).await.expect("readable")), [7]);
    let american = CallFilter { destination_prefix: Some(Pii::new("+1555".to_owned())), ..all.clone() };
    assert_eq!(numbers(&store.calls_page(key, None, 2, &american).await.expect("readable")), [5, 3]);
    let begun = store.cdr(key, CallNo(3)).await.expect("readable").expect("there").call.started_at;
    let range = CallFilter { from: Some(begun), to: Some(Timestamp(begun.0 + 1)), ..all };
    assert_eq!(numbers(&store.calls_page(key, None, 9, &range).await.expect("readable")), [3]);
    let attempts = store.attempts(key, CallNo(2)).await.expect("readable");
    assert_eq!((attempts.len(), attempts[0].trunk, attempts[0].sip_code), (1, TrunkId(uuid(1)), 503));
    let newest = store.ledger_page(key, None, 2).await.expect("readable");
    let rest = store.ledger_page(key, Some(newest[1].cursor), 100).await.expect("readable");
    assert_eq!((newest.len(), rest.len()), (2, 5));
    assert!(newest[1].cursor > rest[0].cursor);
    crate::audited(&store).await;
}

pub async fn live_calls_are_read_by_pages_over_all_accounts(store: Store) {
    let mut world = World::new(store.clone(), 13).await;
    let journal = journal(&store);
    let mut expected = Vec::new();
    for name in ["ann", "bob", "carol"] {
        let key = world.account(name, 1_000).await;
        let mut actor = world.actor(key).await;
        for _ in 0..3 {
            let (call, start) = actor.start(&mut world, 10);
            assert_eq!(submit(&journal, vec![start]).await, [Ok(())]);
            expected.push((key, call.no));
        }
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.live_calls(after, 2).await.expect("readable");
        let Some((key, call)) = page.last() else { break };
        after = Some((*key, call.no));
        found.extend(page.iter().map(|(key, call)| (*key, call.no)));
    }
    assert_eq!(found, expected);
    crate::audited(&store).await;
}

pub async fn caller_ids_change_through_the_journal(store: Store) {
    let mut world = World::new(store.clone(), 14).await;
    let key = world.account("ann", 0).await;
    let journal = journal(&store);
    let mut actor = world.actor(key).await;
    let mut second = world.caller_id("+15551234567");
    second.is_default = false;
    second.label = None;
    let add = actor.entry(START, vec![Change::CallerIdChanged(Box::new(second.clone()))]);
    second.status = CallerIdStatus::Revoked;
    let revoke = actor.entry(START, vec![Change::CallerIdChanged(Box::new(second.clone()))]);
    assert_eq!(submit(&journal, vec![add, revoke]).await, [Ok(()), Ok(())]);
    let loaded = store.account(key).await.expect("readable").expect("there");
    assert_eq!((loaded.caller_ids.len(), &loaded.caller_ids[1]), (2, &second));
    let taken = world.caller_id("+447700900123");
    let refused = actor.entry(START, vec![Change::CallerIdChanged(Box::new(taken))]);
    assert_eq!(submit(&journal, vec![refused]).await, [Err(Rejection::Failed)], "a number stands once in an account");
    crate::audited(&store).await;
}

pub async fn decks_have_versions_and_trunks_change(store: Store) {
    let mut world = World::new(store.clone(), 15).await;
    let deck = world.deck.clone();
    assert_eq!(store.decks().await.expect("readable"), std::slice::from_ref(&deck));
    let same = Deck { version: DeckVersionId(uuid(1)), ..deck.clone() };
    assert_eq!(
        store.put_deck(&same, START).await.expect("stored"),
        deck.version,
        "the same lines are the same version"
    );
    let mut next = Deck { version: DeckVersionId(uuid(2)), ..deck.clone() };
    next.rates = (0..500).map(|n| rate(&(1_000 + n).to_string(), n)).collect();
    assert_eq!(store.put_deck(&next, START).await.expect("stored"), next.version);
    assert_eq!(store.decks().await.expect("readable"), std::slice::from_ref(&next));
    // An import that is cut off changes nothing, and the next one is whole.
    let rates: Vec<_> = (0..7_000).map(|n| rate(&(10_000 + n).to_string(), n)).collect();
    let mut in_force = next.clone();
    for n in 5..10_u8 {
        let large = Deck { version: DeckVersionId(uuid(n)), rates: rates[usize::from(n)..].to_vec(), ..deck.clone() };
        let cut_off = std::time::Duration::from_millis(1 << (n - 5));
        if tokio::time::timeout(cut_off, store.put_deck(&large, START)).await.is_ok() {
            in_force = large;
        }
        assert_eq!(store.decks().await.expect("readable"), std::slice::from_ref(&in_force));
    }
    let large = Deck { version: DeckVersionId(uuid(10)), rates, ..deck.clone() };
    assert_eq!(store.put_deck(&large, START).await.expect("stored"), large.version);
    assert_eq!(store.decks().await.expect("readable"), std::slice::from_ref(&large));
    // Also of a deck that there was not before: it may come again as another one.
    for (n, currency) in [(11_u8, "EUR"), (12, "USD")] {
        let currency = Currency::parse(currency).expect("a currency");
        let id = DeckId(uuid(n));
        let new = Deck { id, name: "new".to_owned(), currency, version: DeckVersionId(uuid(n)), ..large.clone() };
        let put = store.put_deck(&new, START);
        if n == 12 {
            assert_eq!(put.await.expect("stored"), new.version);
        } else if tokio::time::timeout(std::time::Duration::from_millis(3), put).await.is_ok() {
            break;
        }
    }
    let clash = Deck { id: DeckId(uuid(3)), version: DeckVersionId(uuid(3)), ..deck.clone() };
    assert!(matches!(store.put_deck(&clash, START).await, Err(StoreError::Taken("deck name"))));
    let other =
        Deck { currency: Currency::parse("USD").expect("a currency"), version: DeckVersionId(uuid(4)), ..deck.clone() };
    assert!(matches!(store.put_deck(&other, START).await, Err(StoreError::Refused(_))));
    let mut trunk = Trunk {
        id: TrunkId::generate(&mut world.entropy, START),
        name: "carrier".to_owned(),
        gateway: "tls:sip.example.com".parse().expect("a name"),
        currency: eur(),
        deck: deck.id,
        max_channels: 10,
        max_cps: 5,
        priority: -1,
        large_over_tcp: false,
        trusted: false,
    };
    store.put_trunk(&trunk).await.expect("stored");
    trunk.trusted = true;
    store.put_trunk(&trunk).await.expect("changed");
    assert_eq!(store.trunks().await.expect("readable"), std::slice::from_ref(&trunk));
    let clash = Trunk { id: TrunkId(uuid(5)), ..trunk };
    assert!(matches!(store.put_trunk(&clash).await, Err(StoreError::Taken("trunk name"))));
    let id = trunk.id;
    assert!(store.trunk_logins().await.expect("readable").is_empty());
    for (password, realm, register_s) in [("one", None, Some(3_600)), ("two", Some("carrier.example".to_owned()), None)]
    {
        let password = Pii::new(password.to_owned());
        let login = TrunkLogin { username: "us".to_owned(), password, realm, register_s };
        store.put_trunk_login(id, Some(&login)).await.expect("stored");
        assert_eq!(store.trunk_logins().await.expect("readable"), [(id, login.clone())].into());
        let stranger = store.put_trunk_login(TrunkId(uuid(77)), Some(&login)).await;
        assert!(matches!(stranger, Err(StoreError::NotFound("trunk"))));
    }
    store.put_trunk_login(id, None).await.expect("removed");
    assert!(store.trunk_logins().await.expect("readable").is_empty());
}

fn user(world: &mut World, email: &str) -> User {
    let created_at = world.now();
    User {
        id: UserId::generate(&mut world.entropy, created_at),
        brand: world.brand.id,
        email: Pii::new(email.to_owned()),
        username: Pii::new("canary.name".to_owned()),
        password: None,
        created_at,
    }
}

pub async fn people_sign_in_and_belong_to_accounts(store: Store) {
    let mut world = World::new(store.clone(), 16).await;
    assert_eq!(store.brand().await.expect("readable"), Some(world.brand.clone()));
    let key = world.account("ann", 0).await;
    let ann = user(&mut world, "Canary@Example.org");
    store.create_user(&ann, &[(key, MemberRole::Owner)], &[OperatorRole::Support]).await.expect("created");
    assert_eq!(store.user(ann.id).await.expect("readable"), Some(ann.clone()));
    assert_eq!(store.user_by_email(" canary@example.ORG").await.expect("readable"), Some(ann.clone()));
    assert_eq!(store.user_by_email("other@example.org").await.expect("readable"), None);
    let again = user(&mut world, "canary@example.org");
    assert!(matches!(store.create_user(&again, &[], &[]).await, Err(StoreError::Taken("e-mail address"))));
    let stray = user(&mut world, "stray@example.org");
    let refused = store.create_user(&stray, &[(AccountKey(99), MemberRole::Owner)], &[]).await;
    assert!(matches!(refused, Err(StoreError::NotFound("account"))), "{refused:?}");
    assert_eq!(store.user(stray.id).await.expect("readable"), None, "all or nothing");
    let hash = Some(Pii::new("$argon2id$canary-hash".to_owned()));
    store.set_password(ann.id, hash.clone()).await.expect("set");
    assert_eq!(store.user(ann.id).await.expect("readable").expect("there").password, hash);
    assert!(matches!(store.set_password(stray.id, hash).await, Err(StoreError::NotFound("user"))));
    assert!(store.has_member(key).await.expect("readable"));
    assert!(!store.has_member(AccountKey(i64::MAX)).await.expect("readable"));
    let memberships = store.memberships(ann.id).await.expect("readable");
    assert_eq!((memberships.len(), memberships[0].account, memberships[0].role), (1, key, MemberRole::Owner));
    store.put_membership(ann.id, key, MemberRole::Member).await.expect("changed");
    assert_eq!(store.memberships(ann.id).await.expect("readable")[0].role, MemberRole::Member);
    assert!(matches!(store.put_membership(stray.id, key, MemberRole::Member).await, Err(StoreError::NotFound(_))));
    assert_eq!(store.operator_roles(ann.id).await.expect("readable"), [OperatorRole::Support]);
    store.set_operator_roles(ann.id, &[OperatorRole::Finance, OperatorRole::Admin]).await.expect("set");
    assert_eq!(store.operator_roles(ann.id).await.expect("readable"), [OperatorRole::Admin, OperatorRole::Finance]);
    assert!(matches!(store.set_operator_roles(stray.id, &[]).await, Err(StoreError::NotFound("user"))));
}

pub async fn sessions_and_device_tokens_live_until_revoked(store: Store) {
    let mut world = World::new(store.clone(), 17).await;
    let ann = user(&mut world, "canary@example.org");
    store.create_user(&ann, &[], &[]).await.expect("created");
    let at = world.now();
    let session = Session {
        id: SessionId::generate(&mut world.entropy, at),
        user: ann.id,
        token_sha256: [5; 32],
        created_at: at,
        last_used_at: at,
        expires_at: Timestamp(at.0 + 1_000),
    };
    store.create_session(&session).await.expect("created");
    let other = Session { id: SessionId(uuid(1)), token_sha256: [6; 32], created_at: world.now(), ..session };
    store.create_session(&other).await.expect("created");
    let stray = Session { id: SessionId(uuid(2)), token_sha256: [7; 32], user: UserId(uuid(2)), ..session };
    assert!(matches!(store.create_session(&stray).await, Err(StoreError::NotFound("user"))));
    store.touch_session(session.id, Timestamp(at.0 + 5)).await.expect("touched");
    let found = store.session(&[5; 32]).await.expect("readable").expect("there");
    assert_eq!(found, Session { last_used_at: Timestamp(at.0 + 5), ..session });
    assert_eq!(store.sessions(ann.id).await.expect("readable"), [found, other]);
    assert!(store.revoke_session(session.id).await.expect("revoked"));
    assert!(!store.revoke_session(session.id).await.expect("gone before"));
    assert_eq!(store.session(&[5; 32]).await.expect("readable"), None);
    assert_eq!(store.purge_sessions(Timestamp(at.0 + 1_001)).await.expect("purged"), 1);
    let token = DeviceToken {
        id: DeviceTokenId::generate(&mut world.entropy, at),
        user: ann.id,
        label: Pii::new("canary-device".to_owned()),
        scopes: vec![TokenScope::Read, TokenScope::Manage],
        token_sha256: [8; 32],
        created_at: at,
        last_used_at: None,
    };
    store.create_device_token(&token).await.expect("created");
    let stray = DeviceToken { user: UserId(uuid(2)), ..token.clone() };
    assert!(matches!(store.create_device_token(&stray).await, Err(StoreError::NotFound("user"))));
    store.touch_device_token(token.id, at).await.expect("touched");
    let used = DeviceToken { last_used_at: Some(at), ..token.clone() };
    assert_eq!(store.device_token(&[8; 32]).await.expect("readable"), Some(used.clone()));
    assert_eq!(store.device_tokens(ann.id).await.expect("readable"), [used]);
    assert!(!store.revoke_device_token(UserId(uuid(2)), token.id).await.expect("not theirs"));
    assert!(store.revoke_device_token(ann.id, token.id).await.expect("revoked"));
    assert_eq!(store.device_token(&[8; 32]).await.expect("readable"), None);
}

pub async fn bindings_survive_and_end(store: Store) {
    let mut world = World::new(store.clone(), 18).await;
    let key = world.account("ann", 0).await;
    let credential = store.credential("ann").await.expect("readable").expect("there").id;
    let binding = Binding {
        credential,
        account: key,
        contact: Pii::new("sip:ann@192.0.2.77:5060".to_owned()),
        instance: Some(Pii::new("canary-instance".to_owned())),
        reg_id: None,
        path: vec![Pii::new("<sip:edge@192.0.2.77;lr>".to_owned())],
        source: Pii::new("udp 192.0.2.77:5060".to_owned()),
        registered_at: START,
        expires_at: Timestamp(START.0 + 100),
    };
    let moved = Binding { contact: Pii::new("sip:ann@192.0.2.78".to_owned()), ..binding.clone() };
    let second = Binding { instance: None, expires_at: Timestamp(START.0 + 50), ..binding.clone() };
    let other_flow = Binding { reg_id: Some(2), expires_at: Timestamp(START.0 + 200), ..binding.clone() };
    let stray = Binding { credential: CredentialId(uuid(1)), ..binding.clone() };
    let put = |b: &Binding| BindingWrite::Put(b.clone());
    let writes = [put(&binding), put(&second), put(&moved), put(&stray), put(&other_flow)];
    store.write_bindings(&writes, START).await.expect("written");
    let bindings = async || {
        let rows = store.bindings(START).await.expect("readable");
        assert!(rows.iter().all(|row| &*row.username == "ann"));
        rows.into_iter().map(|row| row.binding.expect("opens")).collect::<Vec<_>>()
    };
    let mut found = bindings().await;
    found.sort_by_key(|b| b.expires_at);
    assert_eq!(found, [second.clone(), moved.clone(), other_flow.clone()], "one for each phone, and each of its flows");
    store.write_bindings(&[BindingWrite::Remove(other_flow)], START).await.expect("written");
    let registrations = store.registrations(key, Timestamp(START.0 + 60)).await.expect("readable");
    assert_eq!(registrations, [Registration { credential, bindings: 1, last_registered_at: Some(START) }]);
    store.write_bindings(&[BindingWrite::Remove(moved)], START).await.expect("written");
    assert_eq!(bindings().await, [second]);
    assert_eq!(store.purge_bindings(Timestamp(START.0 + 51)).await.expect("purged"), 1);
    store.write_bindings(&[put(&binding)], START).await.expect("written");
    assert!(store.revoke_credential(credential).await.expect("revoked"));
    assert!(bindings().await.is_empty(), "a credential takes its bindings with it");
}

pub async fn p4_what_a_destroyed_key_sealed_cannot_be_read(store: Store) {
    let mut world = World::new(store.clone(), 19).await;
    let (ann, bob) = (world.account("ann", 1_000).await, world.account("bob", 1_000).await);
    let journal = journal(&store);
    for key in [ann, bob] {
        let mut actor = world.actor(key).await;
        let (mut call, start) = actor.start(&mut world, 100);
        let answer = actor.renew(&mut world, &mut call, 1);
        let settle = actor.settle(&mut world, &call, 7);
        submit(&journal, vec![start, answer, settle]).await.into_iter().for_each(|o| o.expect("written"));
    }
    let before = store.cdr(ann, CallNo(1)).await.expect("readable").expect("there");
    let mut actor = world.actor(ann).await;
    let (live, start) = actor.start(&mut world, 1);
    assert_eq!(submit(&journal, vec![start]).await, [Ok(())]);
    let refused = store.destroy_key(Subject::Account(ann), Class::Calls).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    let end = actor.settle(&mut world, &live, 0);
    assert_eq!(submit(&journal, vec![end]).await, [Ok(())]);
    store.destroy_key(Subject::Account(ann), Class::Calls).await.expect("destroyed");
    store.destroy_key(Subject::Account(ann), Class::Identity).await.expect("destroyed");
    let after = store.cdr(ann, CallNo(1)).await.expect("readable").expect("billing keeps the row");
    assert_eq!((&after.call.dialled, &after.call.destination, &after.call.presented_number), (&None, &None, &None));
    assert!(after.call.legs.is_empty() && after.call.explanation == Explanation::default());
    assert_eq!(
        (after.charged, after.talk_ms, after.carrier_cost),
        (before.charged, before.talk_ms, before.carrier_cost)
    );
    assert_eq!((after.call.cost, after.call.billed_seconds), (before.charged, before.call.billed_seconds));
    assert_eq!((after.call.answered_at, after.call.ended_at), (before.call.answered_at, before.call.ended_at));
    assert!(store.events_after(ann, EventCursor::default(), 10).await.expect("readable").is_empty());
    let loaded = store.account(ann).await.expect("readable").expect("there");
    assert!(loaded.caller_ids.is_empty() && loaded.callback_phones.is_empty());
    assert!(store.credential("ann").await.expect("readable").is_none());
    let mut actor = world.actor(ann).await;
    let more = actor.credit(&mut world, 1, "late", [0; 32]).1;
    assert_eq!(submit(&journal, vec![more]).await, [Err(Rejection::Failed)], "nothing more can be sealed");
    let theirs = store.cdr(bob, CallNo(1)).await.expect("readable").expect("there");
    assert!(theirs.call.destination.is_some(), "another account's data is not concerned");
    assert!(store.credential("bob").await.expect("readable").is_some());
    let carol = user(&mut world, "canary@example.org");
    store.create_user(&carol, &[(bob, MemberRole::Owner)], &[]).await.expect("created");
    store.destroy_key(Subject::User(carol.id), Class::Identity).await.expect("destroyed");
    assert_eq!(store.user(carol.id).await.expect("readable"), None);
    assert_eq!(store.user_by_email("canary@example.org").await.expect("readable"), None);
    let again = user(&mut world, "canary@example.org");
    store.create_user(&again, &[], &[]).await.expect("the address is free again");
}
