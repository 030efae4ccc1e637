//! The transmission phase on devices that answer late, out of order, wrongly, or not at all.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use client::device::{BlockDevice, Continuation, DeviceError, DeviceInfo, Listener, Operation, Outcome};
use client::memory::MemoryDevice;
use storaged_nbd::connection::{self, ConnectionError, Terms};
use storaged_nbd::socket::{Socket, Stream};
use storaged_nbd::wire::reply::ReplyFormat;
use telemetry::traffic::{Kind, Traffic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

const SIMPLE: Terms = Terms {
    format: ReplyFormat::Simple,
    allocation: false,
};
const STRUCTURED: Terms = Terms {
    format: ReplyFormat::Structured,
    allocation: true,
};

struct Connection {
    client: UnixStream,
    leave: watch::Sender<bool>,
    served: JoinHandle<Result<(), ConnectionError>>,
}

fn connect(terms: Terms, device: Rc<dyn BlockDevice>) -> Connection {
    let (server, client) = UnixStream::pair().unwrap();
    let (leave, leaving) = watch::channel(false);
    let stream = Stream::Plain(Socket::Unix(server));
    let served = spawn_local(async move {
        // Nobody takes the volume away here.
        let (_nobody, stopped) = watch::channel(false);
        let dismissed = stopped.clone();
        let traffic = Rc::new(Traffic::new(&Kind::ALL));
        connection::serve(stream, terms, device, traffic, [leaving, stopped, dismissed]).await
    });
    Connection {
        client,
        leave,
        served,
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let magic = 0x2560_9513_u32.to_be_bytes();
    let head = [magic.as_slice(), &flags.to_be_bytes(), &command.to_be_bytes()].concat();
    [
        head.as_slice(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &length.to_be_bytes(),
    ]
    .concat()
}

impl Connection {
    async fn say(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.client.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// The cookie and the error of a simple reply without data.
    async fn simple(&mut self) -> (u8, u8) {
        let reply = self.take(16).await;
        assert_eq!(reply[..4], [0x67, 0x44, 0x66, 0x98]);
        (reply[15], reply[7])
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn answers_go_out_in_the_order_in_which_they_come() {
    run(async {
        let device = Rc::new(MemoryDevice::held(1 << 20));
        let mut connection = connect(SIMPLE, device.clone());
        for cookie in 1..=3 {
            let mut write = request(1, 0, cookie, cookie << 12, 4096);
            write.resize(write.len() + 4096, 1);
            connection.say(&write).await;
        }
        until(|| device.waiting() == 3).await;
        assert!(device.release(2) && device.release(0));
        assert_eq!(
            [connection.simple().await, connection.simple().await],
            [(3, 0), (1, 0)]
        );
        assert!(device.release(0));
        assert_eq!(connection.simple().await, (2, 0));
    });
}

#[test]
fn a_server_that_leaves_waits_for_what_the_disks_still_owe() {
    run(async {
        let device = Rc::new(MemoryDevice::held(1 << 20));
        let mut connection = connect(SIMPLE, device.clone());
        connection.say(&request(3, 0, 9, 0, 0)).await;
        until(|| device.waiting() == 1).await;
        connection.leave.send_replace(true);
        tokio::task::yield_now().await;
        assert!(!connection.served.is_finished(), "an answer is outstanding");
        device.release(0);
        assert_eq!(connection.simple().await, (9, 0));
        connection.served.await.unwrap().unwrap();
    });
}

#[test]
fn a_server_that_leaves_in_the_middle_of_a_request_still_answers_the_others() {
    run(async {
        let device = Rc::new(MemoryDevice::held(1 << 20));
        let mut connection = connect(SIMPLE, device.clone());
        connection.say(&request(3, 0, 9, 0, 0)).await;
        connection.say(&request(1, 0, 10, 0, 4096)).await;
        connection.say(&[1; 100]).await;
        until(|| device.waiting() == 1).await;
        connection.leave.send_replace(true);
        tokio::task::yield_now().await;
        device.release(0);
        assert_eq!(connection.simple().await, (9, 0));
        connection.served.await.unwrap().unwrap();
        assert_eq!(device.waiting(), 0, "half a write is no write");
    });
}

#[test]
fn requests_wait_in_the_socket_when_too_many_are_unanswered() {
    // A slow disk must push back on the client, not fill this process's memory.
    run(async {
        let device = Rc::new(MemoryDevice::held(1 << 20));
        let mut connection = connect(SIMPLE, device.clone());
        for cookie in 0..300 {
            connection.say(&request(3, 0, cookie, 0, 0)).await;
        }
        until(|| device.waiting() >= 256).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(device.waiting(), 256, "the rest is in the socket");
        let mut answered = 0;
        while answered < 300 {
            until(|| device.waiting() > 0).await;
            assert!(device.release(0));
            assert_eq!(connection.simple().await.1, 0);
            answered += 1;
        }
    });
}

/// Answers every operation as it was told to.
struct Scripted(RefCell<Option<Result<Outcome, DeviceError>>>);

impl BlockDevice for Scripted {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: "scripted".into(),
            serial: String::new(),
            size: 1 << 20,
            read_only: false,
            alignment: 4096,
        }
    }

    fn submit(&self, _operation: Operation, done: Continuation) {
        match self.0.borrow().clone() {
            Some(answer) => done(answer),
            None => drop(done),
        }
    }

    fn listen(&self, _listener: Listener) {}
}

fn scripted(answer: Result<Outcome, DeviceError>) -> Rc<Scripted> {
    Rc::new(Scripted(RefCell::new(Some(answer))))
}

#[test]
fn each_failure_has_its_number_and_its_sentence() {
    run(async {
        let failures = [
            (DeviceError::Damaged { offset: 8192 }, 5, Some(8192u64)),
            (DeviceError::Full, 28, None),
            (DeviceError::ReadOnly, 1, None),
            (DeviceError::Lost, 108, None),
            (DeviceError::Closed, 108, None),
            (DeviceError::Invalid { size: 1 << 20 }, 22, None),
        ];
        for (failure, number, place) in failures {
            let sentence = failure.to_string();
            let mut connection = connect(STRUCTURED, scripted(Err(failure)));
            connection.say(&request(0, 0, 1, 0, 16384)).await;
            let head = connection.take(20).await;
            assert_eq!(
                head[4..8],
                if place.is_some() {
                    [0, 1, 0x80, 2]
                } else {
                    [0, 1, 0x80, 1]
                }
            );
            let length = u32::from_be_bytes(head[16..].try_into().unwrap());
            let body = connection.take(length.try_into().unwrap()).await;
            assert_eq!(body[..4], u32::to_be_bytes(number), "{sentence}");
            assert_eq!(&body[6..6 + sentence.len()], sentence.as_bytes());
            assert_eq!(
                body[6 + sentence.len()..],
                place.map_or(vec![], |place| place.to_be_bytes().to_vec())
            );
        }
    });
}

#[test]
fn a_device_that_gives_too_little_is_not_believed() {
    // A short answer would shift all that follows in the stream, or leak another request's bytes.
    run(async {
        let mut connection = connect(
            SIMPLE,
            scripted(Ok(Outcome::Data(vec![Bytes::from_static(b"abc")]))),
        );
        connection.say(&request(0, 0, 4, 0, 4096)).await;
        assert_eq!(connection.simple().await, (4, 5));
    });
}

#[test]
fn a_device_that_ends_without_an_answer_ends_the_connection() {
    run(async {
        let mut connection = connect(SIMPLE, Rc::new(Scripted(RefCell::new(None))));
        connection.say(&request(0, 0, 1, 0, 4096)).await;
        let ended = connection.served.await.unwrap();
        assert!(matches!(ended, Err(ConnectionError::Abandoned)), "{ended:?}");
    });
}

#[test]
fn a_read_that_must_not_be_fragmented_is_one_chunk() {
    run(async {
        let device = Rc::new(MemoryDevice::new(1 << 20));
        let mut connection = connect(STRUCTURED, device);
        let mut write = request(1, 0, 1, 4096, 4096);
        write.resize(write.len() + 4096, 7);
        connection.say(&write).await;
        assert_eq!(connection.simple().await, (1, 0));
        connection.say(&request(0, 1 << 2, 2, 0, 12288)).await;
        let chunk = connection.take(20).await;
        assert_eq!(
            (&chunk[4..8], &chunk[16..]),
            (&[0, 1, 0, 1][..], &12296u32.to_be_bytes()[..])
        );
        let data = connection.take(12296).await;
        assert_eq!(data[8..], [[0u8; 4096], [7; 4096], [0; 4096]].concat());
        connection.say(&request(0, 0, 3, 0, 12288)).await;
        let kinds = [(2u8, 12usize), (1, 8 + 4096), (2, 12)];
        for (kind, length) in kinds {
            assert_eq!(connection.take(20).await[7], kind);
            connection.take(length).await;
        }
    });
}
