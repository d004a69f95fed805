//! What subscribers and watchers see.

use super::MOBILE;
use super::world::{Carrier, World};
use crate::hub::EventItem;
use futures_util::StreamExt;
use schema::event::{EventBody, EventCursor};
use schema::id::Seq;
use schema::money::Micros;
use std::time::Duration;
use storage::memory::MemFaults;

#[tokio::test(start_paused = true)]
async fn a_watch_shows_the_money_falling_each_second() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    let mut watch = world.actors.watch(world.account).await.expect("an account");
    assert_eq!(watch.borrow_and_update().balance.remaining, Micros(10_000_000));
    world.invite(1, MOBILE);
    let mut seen = Vec::new();
    for _ in 0..8 {
        tokio::time::timeout(Duration::from_secs(2), watch.changed()).await.expect("in time").expect("watched");
        seen.push(watch.borrow_and_update().balance.remaining.0);
    }
    assert!(seen.windows(2).all(|pair| pair[1] <= pair[0]), "{seen:?}");
    assert!(seen[7] <= 10_000_000 - 50_000, "{seen:?}");
    drop(watch);
    world.bye_from_caller(1);
    world.pass(5_000).await;
    assert_eq!(world.actors.counts().watches, 0, "nobody watches, nothing is computed");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn subscribers_see_every_event_once_in_order() {
    let world = World::start(100_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(5_000).await;
    // From the beginning; then up to date; then slower than the ring, which holds 256.
    let mut events = Box::pin(world.actors.events(world.account, Some(EventCursor::default())));
    let mut seen = Vec::new();
    for round in 0..3 {
        for call in 2..100 {
            world.invite(100 * round + call, MOBILE);
            world.pass(200).await;
            world.bye_from_caller(100 * round + call);
            world.pass(6_500).await;
        }
        while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(100), events.next()).await {
            match item {
                EventItem::Event(event) => seen.push(event.cursor),
                EventItem::SnapshotRequired(_) => panic!("everything is kept"),
            }
        }
        world.credit(1, &round.to_string()).await.expect("posted");
        let Some(EventItem::Event(event)) = events.next().await else { panic!("told at once") };
        seen.push(event.cursor);
    }
    let stored = world.all_events().await;
    assert!(stored.len() > 600);
    assert_eq!(seen, stored, "no gap, nothing twice");
    drop(events);
    assert_eq!(world.actors.counts().event_hubs, 0);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_is_no_longer_kept_needs_a_snapshot() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    for n in 0..10 {
        world.credit(1_000, &n.to_string()).await.expect("posted");
    }
    world.store.purge_events(schema::time::Timestamp(0), schema::time::Timestamp(i64::MAX), 3).await.expect("purged");
    let cursor = world.view().await.cursor;
    let mut events = Box::pin(world.actors.events(world.account, Some(EventCursor { seq: Seq(2), index: 0 })));
    assert_eq!(events.next().await, Some(EventItem::SnapshotRequired(cursor)));
    world.credit(1_000, "later").await.expect("posted");
    let Some(EventItem::Event(event)) = events.next().await else { panic!("a live event follows") };
    assert!(event.cursor > cursor && matches!(event.body, EventBody::BalanceChanged(_)));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_a_purge_overtook_is_told_so() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    let present = world.view().await.cursor;
    let mut events = Box::pin(world.actors.events(world.account, Some(present)));
    world.credit(1_000, "first").await.expect("posted");
    let Some(EventItem::Event(first)) = events.next().await else { panic!("told at once") };
    // More than the ring holds, while the subscriber reads nothing; of them storage keeps ten.
    for n in 0..300 {
        world.credit(1_000, &n.to_string()).await.expect("posted");
    }
    world.store.purge_events(schema::time::Timestamp(0), schema::time::Timestamp(i64::MAX), 10).await.expect("purged");
    let Some(EventItem::SnapshotRequired(from)) = events.next().await else { panic!("a gap without a word") };
    assert!(from > first.cursor, "{from:?}");
    let kept: Vec<_> = world.all_events().await.into_iter().filter(|cursor| *cursor > from).collect();
    assert!(kept.len() >= 10);
    for cursor in kept {
        assert!(matches!(events.next().await, Some(EventItem::Event(event)) if event.cursor == cursor));
    }
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_leaves_no_gap() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    for n in 0..250 {
        world.credit(1_000, &n.to_string()).await.expect("posted");
    }
    let stored = world.all_events().await;
    let mut events = Box::pin(world.actors.events(world.account, Some(EventCursor::default())));
    let mut seen = Vec::new();
    while seen.len() < stored.len() {
        let Some(EventItem::Event(event)) = events.next().await else { panic!("everything is kept") };
        seen.push(event.cursor);
        if seen.len() == 200 {
            world.disk.set_faults(MemFaults { failing_calls: 1, ..MemFaults::default() });
        }
    }
    assert_eq!(seen, stored);
}
