//! The control socket, asked over HTTP while a guest works.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that it did not expect"
)]

#[path = "program/driver.rs"]
mod driver;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use admin_api::figures::RequestFigures;
use admin_api::vhost::{self, Announced, DeviceStatus, Hold, Resumed};
use admin_api::{ErrorBody, ErrorKind};
use driver::{Driver, PATIENCE, SIZE, Server, pattern};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

/// Who asks.
struct Operator {
    client: Client,
}

impl Operator {
    fn new(control: &Path) -> Self {
        let client = Client::builder().unix_socket(control).no_proxy().build().unwrap();
        Self { client }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://vhost-blk{path}"))
    }

    async fn stats(&self) -> DeviceStatus {
        let answer = self.request(Method::GET, vhost::STATS).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Waits until no hypervisor is connected: the probe that finds out whether the server listens counts as one
    /// until the server has seen it leave.
    async fn until_alone(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.stats().await.connected {
            assert!(Instant::now() < deadline, "a connection that ended still counts");
        }
    }

    async fn drain(&self, limit_ms: u64) -> Result<Hold, ErrorBody> {
        let request = self
            .request(Method::POST, vhost::DRAIN)
            .json(&json!({ "limit_ms": limit_ms }));
        read(request).await
    }

    async fn resume(&self, hold: Option<u64>) -> Result<Resumed, ErrorBody> {
        let body = hold.map_or_else(|| json!({}), |hold| json!({ "hold": hold }));
        read(self.request(Method::POST, vhost::RESUME).json(&body)).await
    }
}

async fn read<T: serde::de::DeserializeOwned>(request: RequestBuilder) -> Result<T, ErrorBody> {
    let answer = request.send().await.unwrap();
    let good = answer.status().is_success();
    let status = answer.status().as_u16();
    let bytes = answer.bytes().await.unwrap();
    if good {
        return Ok(serde_json::from_slice(&bytes).unwrap());
    }
    let error: ErrorBody = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(error.kind.status(), status);
    Err(error)
}

fn figures<'a>(status: &'a DeviceStatus, kind: &str) -> &'a RequestFigures {
    status
        .requests
        .iter()
        .find(|figures| figures.kind == kind)
        .unwrap()
}

#[tokio::test]
async fn every_request_of_the_guest_is_counted_once_with_its_time() {
    let server = Server::start_controlled(&["--queues", "2"]);
    let operator = Operator::new(&server.control());
    operator.until_alone().await;
    let mut driver = Driver::connect(&server.socket, 2);
    for round in 0..3 {
        assert_eq!(driver.write(0, round * 8192, &pattern(round, 8192)), 0);
    }
    driver.read(1, 0, 4096);
    assert_ne!(driver.read(1, SIZE, 4096).0, 0, "beyond the end");
    driver.queues[0].discard(0, 65536, 0).unwrap();
    assert_eq!(driver.one(0), 0);

    let status = operator.stats().await;
    let counted = |kind| {
        let figures = figures(&status, kind);
        (figures.requests, figures.bytes, figures.errors)
    };
    assert_eq!(counted("write"), (3, 3 * 8192, 0));
    assert_eq!(counted("read"), (2, 4096, 1));
    assert_eq!(counted("discard"), (1, 65536, 0));
    assert_eq!(counted("flush"), (0, 0, 0));
    let latency = &figures(&status, "write").latency;
    assert!(
        latency.p50_us > 0.0 && latency.p50_us <= latency.max_us,
        "{latency:?}"
    );
    assert_eq!(latency.buckets.last().unwrap().count, 3);
    assert!(status.connected);
    assert_eq!(
        status.rings.iter().map(|ring| ring.index).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!((status.in_flight, status.size, status.queues), (0, SIZE, 2));
    assert_eq!(status.seccomp, "enforce");

    let text = operator
        .request(Method::GET, vhost::METRICS)
        .send()
        .await
        .unwrap();
    let text = text.text().await.unwrap();
    for line in [
        r#"vhost_blk_requests_total{volume="memory",kind="write"} 3"#,
        r#"vhost_blk_request_errors_total{volume="memory",kind="read"} 1"#,
        r#"vhost_blk_request_seconds_count{volume="memory",kind="read"} 2"#,
        r#"vhost_blk_connected{volume="memory"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

/// How often one looks whether something happens that must not: each look is a round through the data
/// thread, which would have taken a request meanwhile.
const LOOKS: u32 = 20;

async fn nothing_is_taken(operator: &Operator, driver: &mut Driver, writes: u64) {
    for _ in 0..LOOKS {
        let status = operator.stats().await;
        assert_eq!(figures(&status, "write").requests, writes);
        assert_eq!(status.in_flight, 0);
    }
    assert_eq!(driver.queues[0].completions().count(), 0);
}

#[tokio::test]
async fn a_drained_guest_waits_until_the_rest_is_ended_and_loses_nothing() {
    let server = Server::start_controlled(&[]);
    let operator = Operator::new(&server.control());
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 4096)), 0);
    let hold = operator.drain(60_000).await.unwrap();
    assert!(hold.left_ms > 0);
    driver.fill(8192, &pattern(2, 4096));
    driver.queue_write(0, 4096, 8192, 4096);
    driver.kick(0);
    nothing_is_taken(&operator, &mut driver, 1).await;
    assert_eq!(operator.stats().await.holds[0].hold, hold.hold);

    let resumed = operator.resume(Some(hold.hold)).await.unwrap();
    assert_eq!((resumed.ended, resumed.left), (vec![hold.hold], vec![]));
    assert_eq!(driver.answers(0, 1)[0].1, 0);
    assert!(driver.read(0, 4096, 4096) == (0, pattern(2, 4096)));
}

#[tokio::test]
async fn requests_rest_until_the_last_of_two_askers_has_ended_his_rest() {
    let server = Server::start_controlled(&[]);
    let operator = Operator::new(&server.control());
    let mut driver = Driver::connect(&server.socket, 1);
    let one = operator.drain(60_000).await.unwrap();
    let other = operator.drain(60_000).await.unwrap();
    driver.queue_write(0, 0, 0, 4096);
    driver.kick(0);
    let resumed = operator.resume(Some(one.hold)).await.unwrap();
    assert_eq!(resumed.left, [other.hold]);
    nothing_is_taken(&operator, &mut driver, 0).await;
    assert_eq!(operator.resume(None).await.unwrap().ended, [other.hold]);
    assert_eq!(driver.answers(0, 1)[0].1, 0);
}

#[tokio::test]
async fn a_rest_that_nobody_ends_ends_by_itself_and_its_owner_learns_it() {
    let server = Server::start_controlled(&[]);
    let operator = Operator::new(&server.control());
    let mut driver = Driver::connect(&server.socket, 1);
    let hold = operator.drain(50).await.unwrap();
    driver.queue_write(0, 0, 0, 4096);
    driver.kick(0);
    assert_eq!(driver.answers(0, 1)[0].1, 0);
    let late = operator.resume(Some(hold.hold)).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::NotFound);
    assert!(
        late.message.contains("does not hold one instant"),
        "{}",
        late.message
    );
}

#[tokio::test]
async fn there_is_a_limit_to_how_many_rests_and_how_long() {
    let server = Server::start_controlled(&[]);
    let operator = Operator::new(&server.control());
    for wrong in [0, vhost::HOLD_MS_MAX + 1] {
        assert_eq!(
            operator.drain(wrong).await.unwrap_err().kind,
            ErrorKind::InvalidRequest
        );
    }
    for _ in 0..vhost::HOLDS_MAX {
        operator.drain(60_000).await.unwrap();
    }
    assert_eq!(
        operator.drain(60_000).await.unwrap_err().kind,
        ErrorKind::Conflict
    );
    assert_eq!(operator.resume(None).await.unwrap().ended.len(), vhost::HOLDS_MAX);
    operator.drain(60_000).await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_told_to_end_ends_in_spite_of_a_rest() {
    let mut server = Server::start_controlled(&[]);
    let operator = Operator::new(&server.control());
    let mut driver = Driver::connect(&server.socket, 1);
    operator.drain(60_000).await.unwrap();
    driver.queue_write(0, 0, 0, 4096);
    driver.kick(0);
    assert!(server.terminate().success());
    assert_eq!(
        driver.queues[0].completions().count(),
        0,
        "it stays with the guest"
    );
}

#[tokio::test]
async fn a_front_end_can_leave_and_come_back_during_a_rest() {
    let server = Server::start_controlled(&[]);
    let operator = Operator::new(&server.control());
    drop(Driver::connect(&server.socket, 1));
    operator.drain(60_000).await.unwrap();
    let mut driver = Driver::connect(&server.socket, 1);
    driver.queue_write(0, 0, 0, 4096);
    driver.kick(0);
    nothing_is_taken(&operator, &mut driver, 0).await;
    operator.resume(None).await.unwrap();
    assert_eq!(driver.answers(0, 1)[0].1, 0);
}

#[tokio::test]
async fn the_size_is_told_anew_on_demand() {
    let server = Server::start_controlled(&[]);
    let operator = Operator::new(&server.control());
    let announced: Announced = read(operator.request(Method::POST, vhost::RESIZE)).await.unwrap();
    assert_eq!(
        (announced.size, announced.told),
        (SIZE, false),
        "nobody is there to be told"
    );
}

#[tokio::test]
async fn only_the_own_user_may_speak_to_the_socket_and_nonsense_is_answered_in_sentences() {
    let server = Server::start_controlled(&[]);
    let mode = std::fs::metadata(server.control()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let operator = Operator::new(&server.control());
    for (method, path, body, kind) in [
        (Method::GET, "/v1/nothing", "", ErrorKind::NotFound),
        (Method::GET, "/v1/drain", "", ErrorKind::MethodNotAllowed),
        (Method::POST, "/v1/drain", "{", ErrorKind::InvalidRequest),
        (Method::POST, "/v1/drain", "", ErrorKind::InvalidRequest),
        (
            Method::POST,
            "/v1/drain",
            r#"{"limit_ms":1,"limit":2}"#,
            ErrorKind::InvalidRequest,
        ),
    ] {
        let request = operator.request(method, path).body(body);
        let error = read::<serde_json::Value>(request).await.unwrap_err();
        assert_eq!(error.kind, kind, "{path} {body}: {}", error.message);
    }
    let document = operator
        .request(Method::GET, vhost::OPENAPI)
        .send()
        .await
        .unwrap();
    let document: serde_json::Value = document.json().await.unwrap();
    for path in [
        vhost::STATS,
        vhost::METRICS,
        vhost::DRAIN,
        vhost::RESUME,
        vhost::RESIZE,
    ] {
        assert!(document["paths"][path].is_object(), "{path} is not described");
    }
}

#[tokio::test]
async fn questions_are_answered_while_the_guest_is_busy() {
    let server = Server::start_controlled(&["--queues", "2"]);
    let operator = Operator::new(&server.control());
    let mut driver = Driver::connect(&server.socket, 2);
    let deadline = Instant::now() + PATIENCE;
    let mut last = 0;
    for round in 0..50 {
        for number in 0..16 {
            driver.queue_write(0, number * 65536, number * 65536, 65536);
        }
        driver.kick(0);
        let status = operator.stats().await;
        let counted = figures(&status, "write").requests + status.in_flight;
        assert!(
            (last..=(round + 1) * 16).contains(&counted),
            "{counted} after {last}"
        );
        last = counted;
        assert!(driver.answers(0, 16).iter().all(|(_, status)| *status == 0));
        assert!(Instant::now() < deadline + Duration::from_secs(1));
    }
    assert_eq!(figures(&operator.stats().await, "write").requests, 800);
}
