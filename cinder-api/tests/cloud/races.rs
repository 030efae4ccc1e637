//! Two requests at once, at two processes: one of them is first, and the other one sees that.

use std::thread;

use serde_json::{Value, json};
use test_openstack::http::Method;

use crate::cloud::{Cloud, User};

/// How many volumes a project may have unless somebody says otherwise.
const VOLUMES_ALLOWED: usize = 10;

#[test]
fn what_one_process_made_the_other_one_knows_at_once() {
    let cloud = Cloud::start(2);
    let user = cloud.user("alpha-member", "alpha");
    for _ in 0..10 {
        let made = user.send(
            &cloud.apis[0],
            Method::POST,
            "/volumes",
            json!({"volume": {"size": 1}}),
        );
        assert_eq!(made.status, 202, "{}", made.text);
        let id = made.body["volume"]["id"].as_str().unwrap();
        let shown = user.ask(&cloud.apis[1], Method::GET, &format!("/volumes/{id}"));
        assert_eq!(shown.status, 200, "{}", shown.text);
    }
}

#[test]
fn of_many_volumes_at_once_the_quota_lets_through_what_it_says() {
    let cloud = Cloud::start(2);
    let user = cloud.user("alpha-member", "alpha");
    let create = |number: usize| {
        let api = &cloud.apis[number % 2];
        user.send(api, Method::POST, "/volumes", json!({"volume": {"size": 1}}))
            .status
    };
    let statuses: Vec<u16> = thread::scope(|scope| {
        let asking: Vec<_> = (0..40)
            .map(|number| scope.spawn(move || create(number)))
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!(
        (count(202), count(413)),
        (VOLUMES_ALLOWED, 40 - VOLUMES_ALLOWED),
        "{statuses:?}"
    );
    let limits = user.ask(&cloud.apis[0], Method::GET, "/limits");
    assert_eq!(
        limits.body["limits"]["absolute"]["totalVolumesUsed"], VOLUMES_ALLOWED,
        "{}",
        limits.text
    );
    // And all of it comes back.
    let listed = user.ask(&cloud.apis[1], Method::GET, "/volumes");
    for volume in listed.body["volumes"].as_array().unwrap() {
        let id = volume["id"].as_str().unwrap();
        user.wait(&cloud.apis[1], id, "available");
        assert_eq!(
            user.ask(&cloud.apis[0], Method::DELETE, &format!("/volumes/{id}"))
                .status,
            202
        );
        user.wait_until_gone(&cloud.apis[0], id);
    }
    let limits = user.ask(&cloud.apis[1], Method::GET, "/limits");
    assert_eq!(
        limits.body["limits"]["absolute"]["totalVolumesUsed"], 0,
        "{}",
        limits.text
    );
    assert_eq!(
        limits.body["limits"]["absolute"]["totalGigabytesUsed"], 0,
        "{}",
        limits.text
    );
}

#[test]
fn a_volume_is_attached_or_deleted_and_never_both() {
    let cloud = Cloud::start(2);
    let user = cloud.user("alpha-member", "alpha");
    let mut attached = 0;
    for round in 0..12 {
        let id = user.volume(&cloud.apis[0]);
        let server = "11111111-2222-4333-8444-555555555555";
        let attach = json!({"attachment": {"volume_uuid": id, "instance_uuid": server}});
        let (first, second) = (&cloud.apis[round % 2], &cloud.apis[(round + 1) % 2]);
        let (reserved, deleted) = thread::scope(|scope| {
            let reserving = scope.spawn(|| user.send(first, Method::POST, "/attachments", attach));
            let deleted = user.ask(second, Method::DELETE, &format!("/volumes/{id}"));
            (reserving.join().unwrap(), deleted)
        });
        match (reserved.status, deleted.status) {
            (200, 400) => {
                attached += 1;
                user.wait(first, &id, "reserved");
                let attachment = reserved.body["attachment"]["id"].as_str().unwrap();
                assert_eq!(
                    user.ask(first, Method::DELETE, &format!("/attachments/{attachment}"))
                        .status,
                    200
                );
                assert_eq!(
                    user.ask(first, Method::DELETE, &format!("/volumes/{id}")).status,
                    202
                );
            }
            (400 | 404, 202) => {}
            _ => panic!(
                "{} {}, {} {}",
                reserved.status, reserved.text, deleted.status, deleted.text
            ),
        }
        user.wait_until_gone(second, &id);
    }
    println!("{attached} of 12 volumes were attached first");
}

#[test]
fn one_of_two_snapshots_at_once_with_a_deletion_is_refused_or_the_deletion_is() {
    let cloud = Cloud::start(2);
    let user = cloud.user("alpha-member", "alpha");
    for round in 0..8 {
        let id = user.volume(&cloud.apis[0]);
        let (first, second) = (&cloud.apis[round % 2], &cloud.apis[(round + 1) % 2]);
        let snapshot = json!({"snapshot": {"volume_id": id, "force": true}});
        let (taken, deleted) = thread::scope(|scope| {
            let taking = scope.spawn(|| user.send(first, Method::POST, "/snapshots", snapshot));
            let deleted = user.ask(second, Method::DELETE, &format!("/volumes/{id}"));
            (taking.join().unwrap(), deleted)
        });
        match (taken.status, deleted.status) {
            (202, 400) => cascade(&cloud, &user, &id, &taken.body),
            (400 | 404, 202) => {}
            _ => panic!(
                "{} {}, {} {}",
                taken.status, taken.text, deleted.status, deleted.text
            ),
        }
        user.wait_until_gone(second, &id);
    }
}

/// Deletes a volume with its snapshot, when that is there.
fn cascade(cloud: &Cloud, user: &User, id: &str, taken: &Value) {
    let api = &cloud.apis[0];
    let snapshot = taken["snapshot"]["id"].as_str().unwrap();
    user.wait_for(api, &format!("/snapshots/{snapshot}"), "snapshot", "available");
    assert_eq!(
        user.ask(api, Method::DELETE, &format!("/volumes/{id}?cascade=true"))
            .status,
        202
    );
}
