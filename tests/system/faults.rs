//! Disks and databases that fail under a running server: it refuses what it cannot pay for, keeps what it has promised, and
//! goes on by itself where it can.

use ringfence::admin::{Client, Reply, Request};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::phone::TestPhone;
use tests::place::Place;
use tests::postgres::Cluster;
use tests::site::{Accounts, END, POOR, Site};
use tests::verdict::{Credited, judge};
use tests::wire::Side;
use tokio::time::{Instant, sleep};

const ACCOUNTS: [Accounts; 2] =
    [Accounts { word: "u", count: 10, credit: "100.00" }, Accounts { word: POOR, count: 1, credit: "0.08" }];
/// After a fault has healed new calls succeed within this (I10).
const HEALED: Duration = Duration::from_secs(30);
/// How much longer each sync of a slow disk takes.
const STALL: Duration = Duration::from_millis(300);
/// A new call is refused within this.
const REFUSED: Duration = Duration::from_secs(15);

/// Numbers that are dialled once, of a callee who answers at once.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("1555{:05}00", self.0)
    }
}

/// A new call is refused with 503 and a time to come back.
async fn refused(site: &Site, phone: &mut TestPhone, numbers: &mut Numbers) {
    let number = numbers.next();
    let call = phone.dial(&number).await;
    let outcome = tokio::time::timeout(REFUSED, phone.outcome(call)).await.expect("refused in time");
    assert_eq!(outcome, Err(503));
    let refusal = site.wire.talks(Side::Caller)[&number];
    assert!(refusal.retry_after_s.is_some_and(|seconds| (1..=60).contains(&seconds)), "{refusal:?}");
}

/// New calls are answered again, and can be hung up.
async fn serves_again(phone: &mut TestPhone, numbers: &mut Numbers) {
    let deadline = Instant::now() + HEALED;
    loop {
        let call = phone.dial(&numbers.next()).await;
        match phone.outcome(call).await {
            Ok(()) => return phone.hang_up(call).await,
            Err(status) => {
                assert!(status == 503 && Instant::now() < deadline, "I10: {status} after the fault has healed")
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// All calls are over: what was seen outside is what was written, and what was credited is there.
async fn right(site: &Site, credits: &[Credited]) {
    site.audited().await.expect("clean");
    judge(site, &ACCOUNTS, credits).await.unwrap_or_else(|findings| panic!("{findings}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_process_and_the_next_one_knows_all_that_was_acknowledged() {
    let site = Site::make(&ACCOUNTS, "").await;
    let mut server =
        site.launch_traced(&["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=8+"]);
    Site::ready(&mut server).await;
    let (mut phone, mut numbers) = (site.phone("u", 0).await, Numbers(0));
    let mut up = Vec::new();
    while !server.has_ended() {
        let call = phone.dial(&numbers.next()).await;
        match tokio::time::timeout(Duration::from_secs(2), phone.outcome(call)).await {
            Ok(Ok(())) => up.push(call),
            Ok(Err(_)) => {}
            Err(_) => phone.give_up(call).await,
        }
    }
    let ended = server.ended(END).await;
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("cannot be written"), "{}", ended.stderr);
    assert!(!up.is_empty(), "no call was answered before");

    let server = site.serve().await;
    serves_again(&mut phone, &mut numbers).await;
    for call in up {
        phone.hang_up(call).await;
    }
    site.settled().await.expect("nothing is left");
    site.stop(server).await;
    right(&site, &[]).await;
}

/// A small file system in memory, for the data folder.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir(at).expect("a folder");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"]).arg(at).output();
        let mount = mount.expect("mount runs");
        let said = String::from_utf8_lossy(&mount.stderr);
        assert!(mount.status.success(), "this test mounts a small tmpfs: run it as root where that is allowed: {said}");
        Self(at.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let zeros = std::fs::File::open("/dev/zero").expect("zeros");
        let mut filler = std::fs::File::create(self.filler()).expect("a file");
        let filled = std::io::copy(&mut std::io::Read::take(zeros, 1 << 30), &mut filler);
        assert_eq!(filled.expect_err("it is full").kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A site whose data lies on one, which is unmounted before the site's folder goes.
struct OnSmallDisk {
    disk: SmallDisk,
    site: Site,
}

/// The database goes away with calls up, and comes back.
async fn without_a_database(site: &Site, away: impl FnOnce(), back: impl FnOnce()) {
    let server = site.serve().await;
    let (mut phone, mut poor, mut numbers) = (site.phone("u", 0).await, site.phone(POOR, 0).await, Numbers(0));
    let (short, long) = (phone.talk(&numbers.next()).await, phone.talk(&numbers.next()).await);
    let poors = numbers.next();
    let cut = poor.talk(&poors).await;
    let mut credits = vec![credited(site, "top-before").await.expect("credited")];
    away();
    refused(site, &mut phone, &mut numbers).await;
    // What is up is answered as ever: hung up, or cut when its money ends.
    phone.hang_up(short).await;
    assert!(!poor.ended(cut).await, "C2: the server cuts it");
    refused(site, &mut phone, &mut numbers).await;
    credits.extend(credited(site, "top-meanwhile").await);
    assert!(phone.is_up(long));
    // Its renewal was due meanwhile, and it had eight seconds.
    let callee = site.wire.talks(Side::Callee)[&poors];
    let talked = callee.bye_received.expect("cut").since(callee.answered.expect("answered"));
    assert!((Duration::from_millis(7_500)..Duration::from_millis(9_000)).contains(&talked), "{talked:?}");

    back();
    serves_again(&mut phone, &mut numbers).await;
    credits.extend([credited(site, "top-afterwards").await.expect("credited")]);
    // I10: as before, each of them.
    for _ in 0..50 {
        let call = phone.talk(&numbers.next()).await;
        phone.hang_up(call).await;
    }
    assert_eq!(site.metric("ringfence_actors_resting ").await, 0);
    phone.hang_up(long).await;
    site.settled().await.expect("nothing is left");
    site.stop(server).await;
    right(site, &credits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_calls_and_service_returns_with_room() {
    let place = Place::default();
    let disk = SmallDisk::mount(&place.folder.path().join("data"));
    let on = OnSmallDisk { disk, site: Site::make_in(place, &ACCOUNTS, "").await };
    without_a_database(&on.site, || on.disk.fill(), || on.disk.free()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_on_a_full_disk_is_in_nobodys_way_when_there_is_room() {
    let place = Place::default();
    let disk = SmallDisk::mount(&place.folder.path().join("data"));
    place.write("world.toml", "");
    disk.fill();
    // The master key is the first that a command writes; the certificate that a server does.
    for (arguments, file) in [(&["provision", "world.toml"][..], "master.key"), (&[], "tls/key.pem")] {
        let said = place.fail(arguments, 1).await;
        assert!(said.contains(file) && said.contains("No space left"), "{said}");
    }
    disk.free();
    let server = place.serve().await;
    server.terminate();
    assert_eq!(server.ended(END).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_ends_nothing_and_its_lines_are_counted() {
    let site = Site::make(&ACCOUNTS, "").await;
    let server = site.place.start(site.place.unheard(&["serve", "--config", "config.toml"]));
    let deadline = Instant::now() + HEALED;
    while tokio::net::TcpStream::connect(site.metrics).await.is_err() {
        assert!(Instant::now() < deadline, "the server does not start");
        sleep(Duration::from_millis(50)).await;
    }
    let (mut phone, mut numbers) = (site.phone("u", 0).await, Numbers(0));
    serves_again(&mut phone, &mut numbers).await;
    let call = phone.talk(&numbers.next()).await;
    phone.hang_up(call).await;
    site.settled().await.expect("nothing is left");
    // Its warnings, its screen and its calls' ends.
    let lost = site.metric("ringfence_log_lines_lost ").await;
    assert!(lost >= 3, "{lost} lines are counted");
    site.stop(server).await;
    right(&site, &[]).await;

    // A command that cannot say why it failed fails as ever.
    let command =
        site.place.unheard(&["credit", "nobody", "1.00", "--key", "k", "--reason", "r", "--config", "config.toml"]);
    assert_eq!(site.place.start(command).ended(END).await.code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stalls_makes_calls_slow_and_nothing_worse() {
    let site = Site::make(&ACCOUNTS, "").await;
    let mut server = site.launch_traced(&[
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        &format!("inject=fsync,fdatasync:delay_enter={}ms", STALL.as_millis()),
    ]);
    Site::ready(&mut server).await;
    let mut numbers = Numbers(0);
    let mut phones = Vec::new();
    for n in 0..10 {
        phones.push((site.phone("u", n).await, Vec::new()));
    }
    for _ in 0..10 {
        for (phone, calls) in &mut phones {
            calls.push(phone.dial(&numbers.next()).await);
        }
        sleep(Duration::from_millis(100)).await;
    }
    let mut answered = 0;
    for (phone, calls) in &mut phones {
        for call in calls {
            match phone.outcome(*call).await {
                Ok(()) => {
                    answered += 1;
                    phone.hang_up(*call).await;
                }
                Err(status) => assert_eq!(status, 503),
            }
        }
    }
    // A set-up that takes longer than half a second for a while is overload: what comes then is refused.
    assert!(answered >= 20, "only {answered} of 100 were answered");
    // Nothing has piled up: a new call waits for its own commits only.
    let began = Instant::now();
    let (phone, _) = &mut phones[0];
    let call = phone.talk(&numbers.next()).await;
    let waited = began.elapsed();
    // Two of them at least, before its INVITE and before its answer is passed on; else nothing has stalled.
    assert!((2 * STALL..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    phone.hang_up(call).await;
    site.settled().await.expect("nothing is left");
    site.stop(server).await;
    right(&site, &[]).await;
}

/// Posts a credit and waits for the answer.
async fn credit(site: &Site, key: &str) -> Option<Reply> {
    let (account, key, amount, reason) = ("u0".to_owned(), key.to_owned(), "1.00".to_owned(), "a top-up".to_owned());
    let mut client = Client::connect(&site.data_dir()).await.expect("a socket").expect("a server");
    client.send(&Request::Credit { account, amount, key, reason }).await.expect("sent");
    client.reply().await.expect("readable")
}

/// A credit that was acknowledged, if it was.
async fn credited(site: &Site, key: &str) -> Option<Credited> {
    let acknowledged = matches!(credit(site, key).await, Some(Reply::Credited { .. }));
    acknowledged.then(|| Credited { account: "u0".to_owned(), key: key.to_owned(), amount: "1.00" })
}

/// Posts a credit. Returns whether its key had been used, and when the answer came.
async fn credited_at(site: &Site, key: &str) -> (bool, Instant) {
    match credit(site, key).await {
        Some(Reply::Credited { repeated, .. }) => (repeated, Instant::now()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_that_is_asked_for_twice_is_confirmed_to_nobody_before_the_disk_has_it() {
    let site = Site::make(&ACCOUNTS, "").await;
    let slow = "inject=fsync,fdatasync:delay_enter=700ms";
    let mut server = site.launch_traced(&["-e", "trace=fsync,fdatasync", "-e", slow]);
    Site::ready(&mut server).await;
    // From now on its account is at hand.
    assert!(!credited_at(&site, "first").await.0);
    let begun = Instant::now();
    let again = async {
        sleep(Duration::from_millis(100)).await;
        credited_at(&site, "second").await
    };
    let ((repeated, told), (repeated_again, told_again)) = tokio::join!(credited_at(&site, "second"), again);
    assert_eq!((repeated, repeated_again), (false, true));
    for told in [told, told_again] {
        assert!(told - begun >= Duration::from_millis(600), "told after {:?}", told - begun);
    }
    site.stop(server).await;
    site.audited().await.expect("clean");
}

/// PostgreSQL goes away with calls up, and comes back.
async fn without_postgres(away: impl FnOnce(&mut Cluster), back: impl FnOnce(&mut Cluster)) {
    let cluster = Cluster::start().await;
    cluster.create_database("ringfence").await;
    let site = Site::make(&ACCOUNTS, &format!("database.url = \"{}\"", cluster.url("ringfence"))).await;
    let cluster = std::cell::RefCell::new(cluster);
    without_a_database(&site, || away(&mut cluster.borrow_mut()), || back(&mut cluster.borrow_mut())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_hangs_refuses_new_calls_and_service_returns_with_it() {
    without_postgres(|cluster| cluster.signal("STOP"), |cluster| cluster.signal("CONT")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_ends_when_it_is_told_to_although_postgres_hangs() {
    let cluster = Cluster::start().await;
    cluster.create_database("ringfence").await;
    let site = Site::make(&ACCOUNTS, &format!("database.url = \"{}\"", cluster.url("ringfence"))).await;
    let server = site.serve().await;
    let (mut phone, mut numbers) = (site.phone("u", 0).await, Numbers(0));
    // Of an account that is not loaded yet: the look-up is under way when the connections are closed.
    let mut other = site.phone("u", 1).await;
    let up = phone.talk(&numbers.next()).await;
    cluster.signal("STOP");
    let number = numbers.next();
    let being_set_up = other.dial(&number).await;
    site.is_tried(&number).await;
    server.terminate();
    let ended = server.ended(Duration::from_secs(6)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    // Told a second time it waits for nothing.
    cluster.signal("CONT");
    let mut server = site.serve().await;
    serves_again(&mut phone, &mut numbers).await;
    cluster.signal("STOP");
    let number = numbers.next();
    let being_set_up_too = phone.dial(&number).await;
    site.is_tried(&number).await;
    server.terminate();
    server.until_stderr("draining", |said| said.contains("no more calls are let in")).await;
    server.signal("INT");
    let ended = server.ended(Duration::from_secs(2)).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);

    // Told before it has started it does not start.
    let mut server = site.launch();
    server.until_stderr("starting", |said| said.contains("http.allow_plain")).await;
    server.terminate();
    let ended = server.ended(Duration::from_secs(2)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    cluster.signal("CONT");
    let server = site.serve().await;
    phone.hang_up(up).await;
    other.give_up(being_set_up).await;
    phone.give_up(being_set_up_too).await;
    site.settled().await.expect("nothing is left");
    site.stop(server).await;
    right(&site, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_crashes_refuses_new_calls_and_service_returns_with_it() {
    without_postgres(Cluster::stop, Cluster::launch).await;
}
