//! The reference is the real Cinder, and works: volumes become available, and go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::time::{Duration, Instant};

use serde_json::json;
use test_openstack::http::{Method, Question};
use test_openstack::{Keystone, Reference};

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn a_volume_of_the_real_cinder_becomes_available() {
    let folder = tempfile::tempdir().unwrap();
    let keystone = Keystone::start(&folder.path().join("keystone")).unwrap();
    let cinder = Reference::start(&folder.path().join("cinder"), &keystone).unwrap();
    keystone
        .register(&format!("{}/v3/%(project_id)s", cinder.url()))
        .unwrap();
    let token = keystone.token("alpha-member", "alpha").unwrap();
    let volumes = format!("{}/v3/volumes", cinder.url());
    let question = Question::new(Method::POST, &volumes).token(&token);
    let made = question.body(json!({"volume": {"size": 1}})).expect(202).unwrap();
    let path = format!("{volumes}/{}", made.body["volume"]["id"].as_str().unwrap());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let volume = Question::get(&path).token(&token).expect(200).unwrap();
        match volume.body["volume"]["status"].as_str().unwrap() {
            "available" => break,
            "creating" => assert!(Instant::now() < deadline, "{}", volume.text),
            other => panic!("the volume is {other}: {}", volume.text),
        }
    }
    Question::new(Method::DELETE, &path)
        .token(&token)
        .expect(202)
        .unwrap();
}
