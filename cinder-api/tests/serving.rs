//! Connections on real sockets: how many there are at once, how long silent and slow peers keep one, and how they end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cinder_api::limits::Limits;
use cinder_api::serving::Serving;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits at most for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// A limit that no test waits for.
const LONG: Duration = Duration::from_hours(1);
/// A limit that tests wait for.
const SHORT: Duration = Duration::from_millis(200);
/// More than the system keeps for a peer that reads nothing.
const LARGE: usize = 64 << 20;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";

/// Limits that nobody meets.
const LIMITS: Limits = Limits {
    connections: 100,
    header: LONG,
    body: LONG,
    request: LONG,
    answer: LONG,
    shutdown: LONG,
    project: None,
};

/// A server, and how to end it.
struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    /// What `/slow` waits for.
    go_on: Arc<Notify>,
    /// `/slow` was asked for.
    asked: Arc<Notify>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (was_asked, may_go_on) = (asked.clone(), go_on.clone());
        let slow = move || async move {
            was_asked.notify_one();
            may_go_on.notified().await;
            "done"
        };
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/large", get(|| async { vec![b'x'; LARGE] }))
            .route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(Serving::new(router, limits).run(listener, stopping));
        Self {
            address,
            stop,
            running,
            go_on,
            asked,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ended(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

/// Asks on a connection, and reads until the answer holds a text.
async fn ask(stream: &mut TcpStream, request: &[u8], wanted: &str) -> String {
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains(wanted) {
        let read = timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "it was closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

/// Reads until the other side closes or cuts off; gives how much came.
async fn rest(stream: &mut TcpStream) -> usize {
    let mut all = 0;
    let mut bytes = vec![0; 1 << 20];
    loop {
        match timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap() {
            Ok(0) | Err(_) => return all,
            Ok(read) => all += read,
        }
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_a_header_is_closed() {
    let server = Server::start(Limits {
        header: SHORT,
        ..LIMITS
    })
    .await;
    let mut silent = server.connect().await;
    assert_eq!(rest(&mut silent).await, 0);
    let mut half = server.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    rest(&mut half).await;
    let mut idle = server.connect().await;
    ask(&mut idle, REQUEST, "here").await;
    assert_eq!(rest(&mut idle).await, 0, "after an answer it is the same");
    server.ended().await;
}

#[tokio::test]
async fn headers_that_drip_or_never_end_are_cut_off() {
    let server = Server::start(Limits {
        header: SHORT,
        ..LIMITS
    })
    .await;
    let (mut reads, mut writes) = server.connect().await.into_split();
    writes.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let dripping = tokio::spawn(async move {
        while writes.write_all(b"A: b\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let mut bytes = Vec::new();
    // Cut off or closed: both are an end.
    let _ = timeout(PATIENCE, reads.read_to_end(&mut bytes)).await.unwrap();
    drop(reads);
    timeout(PATIENCE, dripping).await.unwrap().unwrap();
    let server_of_long = Server::start(LIMITS).await;
    let mut endless = server_of_long.connect().await;
    let line = format!(
        "GET / HTTP/1.1\r\nHost: here\r\nA: {}\r\n\r\n",
        "a".repeat(200_000)
    );
    // It may be refused before all of it is sent.
    let _ = endless.write_all(line.as_bytes()).await;
    let mut answer = vec![0; 12];
    let told = timeout(PATIENCE, endless.read_exact(&mut answer)).await.unwrap();
    assert!(told.is_err() || answer == b"HTTP/1.1 431", "{answer:?}");
    server.ended().await;
    server_of_long.ended().await;
}

#[tokio::test]
async fn more_connections_than_there_may_be_wait_until_one_is_closed() {
    let server = Server::start(Limits {
        connections: 2,
        ..LIMITS
    })
    .await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for stream in [&mut first, &mut second] {
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    }
    let mut third = server.connect().await;
    third.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    assert!(
        timeout(SHORT, third.read(&mut byte)).await.is_err(),
        "there is no place for it"
    );
    drop(first);
    ask(&mut third, b"", "here").await;
    drop(second);
    drop(third);
    server.ended().await;
}

#[tokio::test]
async fn with_few_places_left_a_connection_ends_with_its_answer() {
    let server = Server::start(Limits {
        connections: 1,
        ..LIMITS
    })
    .await;
    let mut only = server.connect().await;
    let text = ask(&mut only, REQUEST, "here").await;
    // One place of one is taken: none is a part of one, so nobody is sent away.
    assert!(!text.contains("connection: close"), "{text}");
    drop(only);
    server.ended().await;
    let server = Server::start(Limits {
        connections: 8,
        ..LIMITS
    })
    .await;
    let mut others = Vec::new();
    // One more place is kept for whoever comes next.
    for _ in 0..5 {
        let mut stream = server.connect().await;
        let text = ask(&mut stream, REQUEST, "here").await;
        assert!(!text.contains("connection: close"), "{text}");
        others.push(stream);
    }
    let mut last = server.connect().await;
    let text = ask(&mut last, REQUEST, "here").await;
    assert!(text.contains("connection: close"), "{text}");
    assert_eq!(rest(&mut last).await, 0);
    drop(others);
    server.ended().await;
}

#[tokio::test]
async fn a_peer_that_does_not_take_its_answer_loses_the_connection_and_one_that_does_gets_all_of_it() {
    let server = Server::start(Limits {
        answer: SHORT,
        connections: 1,
        ..LIMITS
    })
    .await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
        .await
        .unwrap();
    // The only place is free again when the peer is given up: then somebody else is answered.
    let mut other = server.connect().await;
    ask(&mut other, REQUEST, "here").await;
    drop(other);
    assert!(rest(&mut deaf).await < LARGE, "it was given up");
    let mut good = server.connect().await;
    good.write_all(b"GET /large HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut good).await > LARGE);
    server.ended().await;
}

#[tokio::test]
async fn at_the_end_what_is_asked_is_answered_and_idle_connections_are_closed() {
    let server = Server::start(LIMITS).await;
    let mut idle = server.connect().await;
    ask(&mut idle, REQUEST, "here").await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        .await
        .unwrap();
    timeout(PATIENCE, server.asked.notified()).await.unwrap();
    server.stop.send_replace(true);
    assert_eq!(rest(&mut idle).await, 0);
    assert!(!server.running.is_finished(), "somebody waits for an answer");
    server.go_on.notify_one();
    ask(&mut busy, b"", "done").await;
    timeout(PATIENCE, server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_takes_too_long_does_not_keep_the_process_from_ending() {
    let server = Server::start(Limits {
        shutdown: SHORT,
        ..LIMITS
    })
    .await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        .await
        .unwrap();
    timeout(PATIENCE, server.asked.notified()).await.unwrap();
    server.ended().await;
}
