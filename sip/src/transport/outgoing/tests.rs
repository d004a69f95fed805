//! Whether each peer gets what was sent to it, and whether datagrams leave together where they can.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

/// Two sockets of peers, and ours.
async fn peers() -> (Sockets<UdpSocket>, [UdpSocket; 2]) {
    let any = || UdpSocket::bind("127.0.0.1:0");
    let (ours, first, second) = tokio::join!(any(), any(), any());
    let ours = ours.expect("a port");
    ours.writable().await.expect("open");
    (Sockets { first: Some(ours), v6: None }, [first.expect("a port"), second.expect("a port")])
}

/// What a peer got, in order.
async fn got(peer: &UdpSocket, wanted: usize) -> Vec<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4_096]);
    while all.len() < wanted {
        let length = tokio::time::timeout(Duration::from_secs(5), peer.recv(&mut buffer)).await.expect("in time");
        all.push(buffer[..length.expect("received")].to_vec());
    }
    assert!(peer.try_recv(&mut buffer).is_err(), "one too many");
    all
}

fn datagram(number: usize, length: usize) -> Bytes {
    let mut bytes = vec![b'.'; length.max(4)];
    bytes[..4].copy_from_slice(format!("{number:04}").as_bytes());
    bytes.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each peer gets what it would get if all were sent one by one.
    #[test]
    fn each_peer_gets_each_datagram_once_and_in_order(
        sent in proptest::collection::vec((0_usize..2, prop::sample::select(vec![4, 350, 351, 1_300, 1_301, 3_000])), 1..150)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (sockets, peers) = peers().await;
            let (mut outgoing, counts) = (Outgoing::default(), TransportCounts::default());
            for (number, (peer, length)) in sent.iter().enumerate() {
                let to = peers[*peer].local_addr().expect("bound");
                if outgoing.push(to, datagram(number, *length)) {
                    outgoing.leave(&sockets, &counts);
                }
            }
            outgoing.leave(&sockets, &counts);
            assert_eq!(counts.unsent.load(Relaxed), 0);
            for (index, peer) in peers.iter().enumerate() {
                let numbered = sent.iter().enumerate().filter(|(_, (to, _))| *to == index);
                let wanted: Vec<_> = numbered.map(|(number, (_, length))| datagram(number, *length).to_vec()).collect();
                assert_eq!(got(peer, wanted.len()).await, wanted);
            }
        });
    }
}

#[test]
fn a_part_is_of_one_length_and_may_end_with_a_shorter_one() {
    let [first, second] = [5_060, 5_061].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let lengths = [350, 350, 300, 350, 351, 350, 1_301, 300, 300];
    let mut datagrams: Vec<_> = lengths.iter().map(|length| (first, datagram(0, *length))).collect();
    datagrams.push((second, datagram(0, 200)));
    let lengths: Vec<Vec<_>> =
        parts(&datagrams).map(|part| part.iter().map(|(_, bytes)| bytes.len()).collect()).collect();
    assert_eq!(lengths, [vec![350, 350, 300], vec![350], vec![351, 350], vec![1_301], vec![300, 300], vec![200]]);
}

/// One call of the kernel carries them: this fails where the kernel does not know `UDP_SEGMENT`, or something is wrong about how
/// it is asked.
#[tokio::test]
async fn datagrams_of_one_length_leave_together() {
    let (sockets, [peer, _]) = peers().await;
    let to = peer.local_addr().expect("bound");
    let part: Vec<_> = (0..WAITING).map(|number| (to, datagram(number, 350))).collect();
    let socket = sockets.first.as_ref().expect("bound");
    assert_eq!(together(socket, to, &part).expect("sent"), 350 * WAITING);
    let wanted: Vec<_> = part.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    assert_eq!(got(&peer, WAITING).await, wanted);
    let ended = [(to, datagram(0, 350)), (to, datagram(1, 349))];
    assert_eq!(together(socket, to, &ended).expect("sent"), 699);
    assert_eq!(got(&peer, 2).await, ended.map(|(_, bytes)| bytes.to_vec()));
}

/// A way that cannot do it gets them one by one.
#[tokio::test]
async fn what_cannot_leave_together_leaves_one_by_one() {
    let (sockets, [peer, _]) = peers().await;
    let to = peer.local_addr().expect("bound");
    let socket = sockets.first.as_ref().expect("bound");
    // More than the kernel takes.
    let part: Vec<_> = (0..60).map(|number| (to, datagram(number, 1_300))).collect();
    assert!(together(socket, to, &part).is_err());
    assert_eq!(send(socket, to, &part), Sent { gone: 60, unsent: 0 });
    assert_eq!(got(&peer, 60).await.len(), 60);
}

/// The kernel takes nothing of a socket before it said that there is room, as when its buffer is full.
#[tokio::test]
async fn what_finds_no_room_leaves_when_there_is_some() {
    let mut sockets = Sockets { first: Some(UdpSocket::bind("127.0.0.1:0").await.expect("a port")), v6: None };
    let (peer, (mut outgoing, counts)) =
        (UdpSocket::bind("127.0.0.1:0").await.expect("a port"), (Outgoing::default(), TransportCounts::default()));
    let to = peer.local_addr().expect("bound");
    for number in 0..100 {
        if outgoing.push(to, datagram(number, 4 + number % 3)) {
            outgoing.leave(&sockets, &counts);
        }
    }
    outgoing.leave(&sockets, &counts);
    assert_eq!((outgoing.held(), counts.unsent.load(Relaxed)), ([true, false], 0));
    let first = sockets.first.take().expect("bound");
    first.writable().await.expect("open");
    sockets.first = Some(first);
    assert!(!outgoing.push(to, datagram(100, 4)));
    outgoing.leave(&sockets, &counts);
    let wanted: Vec<_> = (0..100).map(|n| datagram(n, 4 + n % 3).to_vec()).chain([datagram(100, 4).to_vec()]).collect();
    assert_eq!(got(&peer, 101).await, wanted);
    assert_eq!((outgoing.held(), counts.unsent.load(Relaxed)), ([false; 2], 0));
}

/// A kernel with room for so many at a time.
fn takes(room: usize, taken: &mut Vec<Datagram>) -> impl FnMut(bool, SocketAddr, &[Datagram]) -> Sent {
    let mut left = room;
    move |_, _, part| {
        let gone = part.len().min(left);
        left -= gone;
        taken.extend_from_slice(&part[..gone]);
        Sent { gone, unsent: 0 }
    }
}

#[test]
fn what_is_held_keeps_its_order_and_its_bounds_and_is_no_obstacle_to_the_other_socket() {
    let [one, six] = ["127.0.0.1:1", "[::1]:1"].map(|text| text.parse::<SocketAddr>().expect("an address"));
    let (mut outgoing, mut taken) = (Outgoing::default(), Vec::new());
    for number in 0..10 {
        outgoing.push(one, datagram(number, 4));
    }
    assert_eq!(outgoing.leave_by(true, takes(3, &mut taken)), 0);
    outgoing.push(one, datagram(10, 4));
    assert_eq!(outgoing.leave_by(true, takes(2, &mut taken)), 0);
    assert_eq!(taken, (0..5).map(|number| (one, datagram(number, 4))).collect::<Vec<_>>());
    outgoing.push(six, datagram(11, 4));
    let mut to_six = Vec::new();
    let unsent = outgoing
        .leave_by(true, |is_v6, to, part| if is_v6 { takes(9, &mut to_six)(true, to, part) } else { Sent::default() });
    assert_eq!((unsent, to_six.len(), outgoing.held()), (0, 1, [true, false]));
    assert_eq!(outgoing.leave_by(true, takes(9, &mut taken)), 0);
    assert_eq!(taken, (0..11).map(|number| (one, datagram(number, 4))).collect::<Vec<_>>());
    // Longer than what leaves together.
    outgoing.push(one, datagram(11, TOGETHER_BYTES + 1));
    assert_eq!(outgoing.leave_by(true, takes(9, &mut taken)), 0);
    assert_eq!(taken.len(), 12);
    taken.clear();
    // The newest are lost, by number or by bytes.
    for (length, fit) in [(4, HELD_MAX), (8_192, HELD_BYTES_MAX / 8_192)] {
        for number in 0..fit + 5 {
            outgoing.push(one, datagram(number, length));
        }
        assert_eq!(outgoing.leave_by(true, takes(0, &mut taken)), 5);
        taken.clear();
        assert_eq!(outgoing.leave_by(true, takes(usize::MAX, &mut taken)), 0);
        assert_eq!((taken.len(), &taken[fit - 1].1), (fit, &datagram(fit - 1, length)));
        assert_eq!((outgoing.held[0].bytes, outgoing.held()), (0, [false; 2]));
    }
}

#[test]
fn what_needs_no_order_is_put_so_that_much_leaves_together() {
    let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut all: Vec<_> = (0..40).map(|n| (if n % 3 == 0 { one } else { other }, datagram(n, 350 + n % 2))).collect();
    group(&mut all);
    assert_eq!(all.chunk_by(alike).count(), 4);
}
