//! Who is slow, silent, or asks for too much holds nothing of the service for ever, and everybody else is served meanwhile.
//! Connections by themselves are tested in `tests/serving.rs`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use test_openstack::http::{Method, Question};

use crate::cloud::{Api, Cloud, User, until};

/// For a read that ends when the other side closes: how long a test waits at most for that.
const PATIENCE: Duration = Duration::from_mins(1);
/// Connections that silent peers open.
const SILENT: usize = 12;

/// A connection to a process.
fn connect(api: &Api) -> TcpStream {
    let stream = TcpStream::connect(api.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The beginning of a request with a body, of which so much is said to follow.
fn head(user: &User, length: usize) -> String {
    format!(
        "POST /v3/volumes HTTP/1.1\r\nHost: here\r\nX-Auth-Token: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n",
        user.token
    )
}

/// What comes until the other side closes.
fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A connection that is cut off is at its end, too.
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn a_body_that_does_not_come_or_is_too_long_is_refused() {
    let mut cloud = Cloud::start(0);
    cloud.add_with("\n\n[limits]\nbody_seconds = 1\nheader_seconds = 1");
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let mut late = connect(api);
    late.write_all(head(&user, 100).as_bytes()).unwrap();
    late.write_all(b"{\"volume\": ").unwrap();
    let told = rest(late);
    assert!(
        told.starts_with("HTTP/1.1 408") && told.contains("requestTimeout"),
        "{told}"
    );
    let mut dripping = connect(api);
    dripping.write_all(head(&user, 100_000).as_bytes()).unwrap();
    // Bytes that come now and then do not put the end off.
    let told = thread::scope(|scope| {
        let mut drops = dripping.try_clone().unwrap();
        scope.spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            while drops.write_all(b" ").is_ok() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(100));
            }
        });
        rest(dripping)
    });
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    let name = "n".repeat(120_000);
    let long = user.send(
        api,
        Method::POST,
        "/volumes",
        json!({"volume": {"size": 1, "name": name}}),
    );
    assert_eq!(long.status, 413, "{}", long.text);
}

#[test]
fn silent_and_slow_peers_keep_nobody_else_out() {
    let mut cloud = Cloud::start(0);
    cloud.add_with("\n\n[limits]\nconnections = 4\nheader_seconds = 1\nbody_seconds = 1");
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let silent: Vec<TcpStream> = (0..SILENT).map(|_| connect(api)).collect();
    let mut dripping = connect(api);
    dripping.write_all(b"GET /v3/volumes HTTP/1.1\r\nX-A").unwrap();
    let listed = user.ask(api, Method::GET, "/volumes");
    assert_eq!(listed.status, 200, "{}", listed.text);
    for stream in silent.into_iter().chain([dripping]) {
        let told = rest(stream);
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 408"), "{told}");
    }
}

#[test]
fn what_takes_too_long_is_answered_and_goes_on() {
    let mut cloud = Cloud::start(0);
    cloud.add_with("\n\n[limits]\nrequest_seconds = 1");
    let user = cloud.user("alpha-admin", "alpha");
    let volume = user.volume(&cloud.apis[0]);
    cloud.node.storaged().freeze().unwrap();
    let slow = user.ask(&cloud.apis[0], Method::GET, "/scheduler-stats/get_pools");
    assert_eq!(slow.status, 503, "{}", slow.text);
    assert!(slow.text.contains("goes on"), "{}", slow.text);
    let shown = user.ask(&cloud.apis[0], Method::GET, &format!("/volumes/{volume}"));
    assert_eq!(shown.status, 200, "{}", shown.text);
    cloud.node.storaged().thaw().unwrap();
}

#[test]
fn what_is_asked_is_answered_though_the_process_is_told_to_end() {
    let mut cloud = Cloud::start(1);
    let user = cloud.user("alpha-admin", "alpha");
    let idle = connect(&cloud.apis[0]);
    cloud.node.storaged().freeze().unwrap();
    let question = user.question(&cloud.apis[0], Method::GET, "/scheduler-stats/get_pools");
    let asking = thread::spawn(move || question.ask().unwrap());
    until("the question is worked at", || {
        let text = cloud.apis[0].metrics();
        text.lines().any(|line| line == "cinder_api_requests_running 1")
    });
    let healthy = Question::get(format!("{}/healthcheck", cloud.apis[0].url));
    let (process, node) = (&mut cloud.apis[0].process, &cloud.node);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| process.stop().unwrap());
        assert_eq!(rest(idle), "", "an idle connection is closed");
        node.storaged().thaw().unwrap();
        let answer = asking.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        stopping.join().unwrap();
    });
    assert!(healthy.ask().is_err(), "nobody answers any more");
}

#[test]
fn a_project_that_asks_too_fast_is_refused_and_nobody_else_is() {
    let mut cloud = Cloud::start(0);
    cloud.add_with("\n\n[limits]\nproject_requests_per_second = 1\nproject_requests_burst = 3");
    let api = &cloud.apis[0];
    let [busy, other, admin] = [
        ("alpha-member", "alpha"),
        ("beta-member", "beta"),
        ("alpha-admin", "alpha"),
    ]
    .map(|(name, project)| cloud.user(name, project));
    // However slow this machine is, so many do not come in the time that they would take at their rate.
    let refused = (0..1_000).find_map(|_| {
        let answer = busy.ask(api, Method::GET, "/volumes");
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert_eq!(refused.body["overLimit"]["retryAfter"], "1");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for user in [&other, &admin] {
        let answer = user.ask(api, Method::GET, "/volumes");
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    until("a second has brought another request", || {
        busy.ask(api, Method::GET, "/volumes").status == 200
    });
}
