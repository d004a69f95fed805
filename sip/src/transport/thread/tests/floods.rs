//! What many send at once, and who does not wait for it.

use super::*;

fn invite(number: usize) -> Vec<u8> {
    format!(
        "INVITE sip:+447700900100@ringfence.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;rport;branch=z9hG4bK{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@ringfence.example>;tag=a\r\nTo: <sip:+447700900100@ringfence.example>\r\n\
         Call-ID: {number}\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@127.0.0.1>\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// What a socket is sent until nothing comes any more, with when it came. Who waits for the first is told.
async fn heard(socket: &UdpSocket, mut first: Option<oneshot::Sender<()>>) -> Vec<(tokio::time::Instant, Vec<u8>)> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4_096]);
    let silence = Duration::from_secs(1);
    while let Ok(received) = tokio::time::timeout(silence, socket.recv(&mut buffer)).await {
        all.push((tokio::time::Instant::now(), buffer[..received.expect("open")].to_vec()));
        if let Some(first) = first.take() {
            let _ = first.send(());
        }
    }
    all
}

/// A thousand requests wait to be handled, and a phone looks whether its flow is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_are_looked_at_while_requests_wait() {
    const SOON: Duration = Duration::from_millis(8);
    let (clock, bound) = (clock(), bound());
    let server = bound.udp_address().expect("bound");
    let flood = UdpSocket::bind(any_port()).await.expect("a port");
    let phone = Arc::new(UdpSocket::bind(any_port()).await.expect("a port"));
    // Before anybody reads: they are taken in one turn, as many as the kernel has room for.
    for number in 0..2_000 {
        flood.send_to(&invite(number), server).await.expect("sent");
    }
    let (first, begun) = oneshot::channel();
    let flooded = tokio::spawn(async move { heard(&flood, Some(first)).await });
    let (thread, _) = start_with(bound, everybody(), any_port(), &clock);
    begun.await.expect("the first is answered: all are taken");
    let listening = tokio::spawn({
        let phone = phone.clone();
        async move { heard(&phone, None).await }
    });
    let ping = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], b"transaction1"].concat();
    let mut asked = Vec::new();
    while !flooded.is_finished() && asked.len() < 100 {
        asked.push(tokio::time::Instant::now());
        phone.send_to(&ping, server).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (answers, pongs) = (flooded.await.expect("no panic"), listening.await.expect("no panic"));
    let (last, _) = answers.last().expect("answers");
    // Where the kernel kept few, or this test had to wait for its turn, nothing can be said.
    let had_time = asked.iter().any(|asked| *asked + SOON < *last);
    let is_answered = pongs.iter().any(|(pong, _)| pong < last);
    assert!(is_answered || !had_time, "asked {:?} before the last of {}", *last - asked[0], answers.len());
    thread.stop().expect("no panic");
}

/// Nobody has shown who it is: what breaks a rule is no way around the limit of requests.
#[tokio::test]
async fn broken_messages_of_strangers_are_answered_no_more_often_than_good_ones() {
    let bound = bound();
    let server = bound.udp_address().expect("bound");
    let socket = UdpSocket::bind(any_port()).await.expect("a port");
    for number in 0..100 {
        let text = String::from_utf8(invite(number)).expect("text").replace("INVITE", "OPTIONS");
        let broken = text.replace("1 OPTIONS", "1 BYE");
        socket.send_to(broken.as_bytes(), server).await.expect("sent");
    }
    let (thread, _) = start_with(bound, GuardLimits::default(), any_port(), &clock());
    let answers = heard(&socket, None).await;
    assert!(answers.iter().all(|(_, answer)| answer.starts_with(b"SIP/2.0 400 ")));
    // Twenty a second, twice as many at once; the time it takes lets one more through, or two.
    assert!((40..=44).contains(&answers.len()), "{} answers", answers.len());
    thread.stop().expect("no panic");
}
