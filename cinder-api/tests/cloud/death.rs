//! What was accepted is done, whoever dies.

use serde_json::json;
use test_openstack::http::Method;

use crate::cloud::Cloud;

#[test]
fn what_a_process_promised_before_it_was_killed_another_one_does() {
    let mut cloud = Cloud::start(2);
    let user = cloud.user("alpha-member", "alpha");
    let doomed = user.volume(&cloud.apis[0]);
    // The storage stands still, so that no work comes to its end before the kill.
    cloud.node.storaged().freeze().unwrap();
    let made = user.send(
        &cloud.apis[0],
        Method::POST,
        "/volumes",
        json!({"volume": {"size": 1, "name": "orphan"}}),
    );
    assert_eq!(made.status, 202, "{}", made.text);
    let deleted = user.ask(&cloud.apis[0], Method::DELETE, &format!("/volumes/{doomed}"));
    assert_eq!(deleted.status, 202, "{}", deleted.text);
    cloud.apis[0].process.kill().unwrap();
    cloud.node.storaged().thaw().unwrap();
    let id = made.body["volume"]["id"].as_str().unwrap();
    user.wait(&cloud.apis[1], id, "available");
    user.wait_until_gone(&cloud.apis[1], &doomed);
    let there = cloud.node.storagectl(&["volume", "list"]).unwrap();
    assert!(
        there.contains(&format!("volume-{id}")) && !there.contains(&doomed),
        "{there}"
    );
}

#[test]
fn a_volume_of_a_storage_that_is_away_is_made_when_it_is_back() {
    let mut cloud = Cloud::start(1);
    let user = cloud.user("alpha-member", "alpha");
    cloud.node.kill().unwrap();
    let made = user.send(
        &cloud.apis[0],
        Method::POST,
        "/volumes",
        json!({"volume": {"size": 1}}),
    );
    assert_eq!(made.status, 202, "{}", made.text);
    let id = made.body["volume"]["id"].as_str().unwrap();
    let shown = user.ask(&cloud.apis[0], Method::GET, &format!("/volumes/{id}"));
    assert_eq!(shown.body["volume"]["status"], "creating", "{}", shown.text);
    cloud.node.start_again().unwrap();
    user.wait(&cloud.apis[0], id, "available");
}
