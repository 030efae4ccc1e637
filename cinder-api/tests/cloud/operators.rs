//! What operators and two projects do at once, at two processes: types go, volumes change hands, volumes of the storage are
//! taken over. One of two requests is first, and nothing is counted twice or lost.

use std::thread;

use serde_json::{Value, json};
use test_openstack::http::{Answer, Method};

use crate::cloud::{Api, Cloud, User};

/// What the storage is called as a host, unless somebody says otherwise.
const HOST: &str = "storaged@storaged";

fn id(answer: &Answer, name: &str) -> String {
    let id = answer.body[name]["id"].as_str();
    id.unwrap_or_else(|| panic!("{} {}", answer.status, answer.text))
        .to_owned()
}

/// How much a project has of something.
fn used(cloud: &Cloud, admin: &User, project: &str, resource: &str) -> i64 {
    let project = cloud.keystone.project_id(project).unwrap();
    let path = format!("/os-quota-sets/{project}?usage=true");
    let shown = admin.ask(&cloud.apis[0], Method::GET, &path);
    let used = shown.body["quota_set"][resource]["in_use"].as_i64();
    used.unwrap_or_else(|| panic!("{}", shown.text))
}

#[test]
fn a_type_goes_or_a_volume_gets_it_and_never_both() {
    let cloud = Cloud::start(2);
    let admin = cloud.user("alpha-admin", "alpha");
    let mut made = 0;
    for round in 0..12 {
        let (first, second) = (&cloud.apis[round % 2], &cloud.apis[(round + 1) % 2]);
        let kind = json!({"volume_type": {"name": format!("type-{round}")}});
        let kind = id(&admin.send(first, Method::POST, "/types", kind), "volume_type");
        let volume = json!({"volume": {"size": 1, "volume_type": kind}});
        let (volume, gone) = thread::scope(|scope| {
            let making = scope.spawn(|| admin.send(first, Method::POST, "/volumes", volume));
            let gone = admin.ask(second, Method::DELETE, &format!("/types/{kind}"));
            (making.join().unwrap(), gone)
        });
        match (volume.status, gone.status) {
            (202, 400) => {
                made += 1;
                let volume = id(&volume, "volume");
                admin.wait(second, &volume, "available");
                let path = format!("/volumes/{volume}");
                assert_eq!(admin.ask(first, Method::DELETE, &path).status, 202);
                admin.wait_until_gone(second, &volume);
                // Refused once, it is as good as before; and without volumes it goes.
                let path = format!("/types/{kind}");
                assert_eq!(admin.ask(first, Method::GET, &path).status, 200);
                assert_eq!(admin.ask(first, Method::DELETE, &path).status, 202);
            }
            (404, 202) => {}
            _ => panic!("{} {}, {} {}", volume.status, volume.text, gone.status, gone.text),
        }
    }
    println!("{made} of 12 types got a volume first");
}

#[test]
fn what_a_host_has_that_is_not_there_is_not_found_and_nothing_can_be_taken_over_from_it() {
    let cloud = Cloud::start(1);
    let (api, admin) = (&cloud.apis[0], cloud.user("alpha-admin", "alpha"));
    for kind in ["manageable_volumes", "manageable_snapshots"] {
        for path in [
            format!("/{kind}?host=other@one"),
            format!("/{kind}/detail?host=other@one"),
        ] {
            let listed = admin.ask(api, Method::GET, &path);
            assert_eq!(listed.status, 404, "{path}: {}", listed.text);
        }
    }
    let body = json!({"volume": {"host": "other@one", "ref": {"source-name": "x"}}});
    let taken = admin.send(api, Method::POST, "/manageable_volumes", body);
    assert_eq!(taken.status, 503, "{}", taken.text);
}

#[test]
fn backups_are_a_service_of_their_own_that_can_be_switched_off() {
    let cloud = Cloud::start(1);
    let (api, admin) = (&cloud.apis[0], cloud.user("alpha-admin", "alpha"));
    let state = || {
        let shown = admin.ask(api, Method::GET, "/os-services?binary=cinder-backup");
        let all = shown.body["services"].as_array().unwrap().clone();
        assert_eq!(all.len(), 1, "{}", shown.text);
        (all[0]["status"].clone(), all[0]["host"].clone())
    };
    assert_eq!(state(), (json!("enabled"), json!("storaged")));
    let volume = admin.volume(api);
    let backup = || {
        let body = json!({"backup": {"volume_id": volume}});
        admin.send(api, Method::POST, "/backups", body)
    };
    let switch = |action: &str, more: &Value| {
        let mut body = json!({"host": "storaged", "binary": "cinder-backup"});
        if !more.is_null() {
            body["disabled_reason"] = more.clone();
        }
        let switched = admin.send(api, Method::PUT, &format!("/os-services/{action}"), body);
        assert_eq!(switched.status, 200, "{}", switched.text);
    };
    switch("disable-log-reason", &json!("the tape is full"));
    assert_eq!(state().0, json!("disabled"));
    assert_eq!(backup().status, 503);
    let shown = admin.ask(api, Method::GET, &format!("/volumes/{volume}"));
    assert_eq!(shown.body["volume"]["status"], "available", "{}", shown.text);
    switch("enable", &Value::Null);
    let made = backup();
    assert_eq!(made.status, 202, "{}", made.text);
    let path = format!("/backups/{}", id(&made, "backup"));
    admin.wait_for(api, &path, "backup", "available");
}

#[test]
fn one_of_two_types_of_one_name_at_once_is_made() {
    let cloud = Cloud::start(2);
    let admin = cloud.user("alpha-admin", "alpha");
    for round in 0..8 {
        let make = |api: &Api| {
            let kind = json!({"volume_type": {"name": format!("name-{round}")}});
            admin.send(api, Method::POST, "/types", kind).status
        };
        let mut statuses = thread::scope(|scope| {
            let one = scope.spawn(|| make(&cloud.apis[0]));
            let other = make(&cloud.apis[1]);
            [one.join().unwrap(), other]
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }
}

#[test]
fn a_volume_changes_hands_once_with_its_snapshots_and_what_they_take() {
    let cloud = Cloud::start(2);
    let (first, second) = (&cloud.apis[0], &cloud.apis[1]);
    let admin = cloud.user("alpha-admin", "alpha");
    let giver = cloud.user("alpha-member", "alpha");
    let taker = cloud.user("beta-member", "beta");
    let volume = giver.volume(first);
    let body = json!({"snapshot": {"volume_id": volume}});
    let snapshot = id(&giver.send(first, Method::POST, "/snapshots", body), "snapshot");
    giver.wait_for(second, &format!("/snapshots/{snapshot}"), "snapshot", "available");
    let offer = json!({"transfer": {"volume_id": volume}});
    let offer = giver.send(first, Method::POST, "/volume-transfers", offer);
    let path = format!("/volume-transfers/{}", id(&offer, "transfer"));
    let key = &offer.body["transfer"]["auth_key"];
    assert_eq!(taker.ask(second, Method::GET, &path).status, 404);
    let shown = giver.ask(second, Method::GET, &path);
    assert_eq!(shown.body["transfer"]["auth_key"], Value::Null, "{}", shown.text);
    let accept = |api: &Api, key: &Value| {
        let body = json!({"accept": {"auth_key": key}});
        taker.send(api, Method::POST, &format!("{path}/accept"), body)
    };
    let wrong = accept(first, &json!("0123"));
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    let mut statuses = thread::scope(|scope| {
        let one = scope.spawn(|| accept(first, key).status);
        let other = accept(second, key).status;
        [one.join().unwrap(), other]
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 404]);
    for path in [format!("/volumes/{volume}"), format!("/snapshots/{snapshot}")] {
        assert_eq!(giver.ask(first, Method::GET, &path).status, 404, "{path}");
        assert_eq!(taker.ask(first, Method::GET, &path).status, 200, "{path}");
    }
    for (resource, amount) in [("volumes", 1), ("snapshots", 1), ("gigabytes", 2)] {
        assert_eq!(used(&cloud, &admin, "alpha", resource), 0, "{resource}");
        assert_eq!(used(&cloud, &admin, "beta", resource), amount, "{resource}");
    }
}

#[test]
fn an_offer_that_the_quota_does_not_let_through_stays() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let admin = cloud.user("alpha-admin", "alpha");
    let giver = cloud.user("alpha-member", "alpha");
    let taker = cloud.user("beta-member", "beta");
    let project = cloud.keystone.project_id("beta").unwrap();
    let path = format!("/os-quota-sets/{project}");
    let limit = |volumes: i64| {
        let body = json!({"quota_set": {"volumes": volumes}});
        assert_eq!(admin.send(api, Method::PUT, &path, body).status, 200);
    };
    limit(0);
    let volume = giver.volume(api);
    let offer = json!({"transfer": {"volume_id": volume}});
    let offer = giver.send(api, Method::POST, "/volume-transfers", offer);
    let accepting = format!("/volume-transfers/{}/accept", id(&offer, "transfer"));
    let body = json!({"accept": {"auth_key": offer.body["transfer"]["auth_key"]}});
    let refused = taker.send(api, Method::POST, &accepting, body.clone());
    assert_eq!(refused.status, 413, "{}", refused.text);
    giver.wait(api, &volume, "awaiting-transfer");
    assert_eq!(used(&cloud, &admin, "alpha", "volumes"), 1);
    limit(1);
    assert_eq!(taker.send(api, Method::POST, &accepting, body).status, 202);
    taker.wait(api, &volume, "available");
}

#[test]
fn a_volume_of_the_storage_is_taken_over_once_and_given_up_again() {
    let cloud = Cloud::start(2);
    let admin = cloud.user("alpha-admin", "alpha");
    let (first, second) = (&cloud.apis[0], &cloud.apis[1]);
    // Not of whole GiB: it grows.
    cloud
        .node
        .storagectl(&["volume", "create", "before", "1500M", "--pool", "main"])
        .unwrap();
    cloud
        .node
        .storagectl(&["snapshot", "create", "early", "before"])
        .unwrap();
    let take = |api: &Api| {
        let body = json!({"volume": {"host": HOST, "ref": {"source-name": "before"}}});
        admin.send(api, Method::POST, "/manageable_volumes", body)
    };
    let answers = thread::scope(|scope| {
        let one = scope.spawn(|| take(first));
        let other = take(second);
        [one.join().unwrap(), other]
    });
    let taken: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert_eq!(taken.len(), 1, "{} {}", answers[0].text, answers[1].text);
    let volume = id(taken[0], "volume");
    admin.wait(second, &volume, "available");
    let path = format!("/volumes/{volume}");
    assert_eq!(
        admin.ask(first, Method::GET, &path).body["volume"]["size"],
        2,
        "sizes are whole GiB, rounded up"
    );
    let body = json!({"snapshot": {"volume_id": volume, "ref": {"source-name": "early"}}});
    let snapshot = admin.send(first, Method::POST, "/manageable_snapshots", body.clone());
    assert_eq!(snapshot.status, 202, "{}", snapshot.text);
    let again = admin.send(second, Method::POST, "/manageable_snapshots", body);
    assert_eq!(again.status, 400, "{}", again.text);
    let give_up = |path: &str| {
        let body = json!({"os-unmanage": null});
        admin.send(first, Method::POST, &format!("{path}/action"), body)
    };
    assert_eq!(give_up(&path).status, 400, "it has a snapshot");
    let snapshot = format!("/snapshots/{}", id(&snapshot, "snapshot"));
    assert_eq!(give_up(&snapshot).status, 202);
    assert_eq!(give_up(&path).status, 202);
    assert_eq!(used(&cloud, &admin, "alpha", "gigabytes"), 0);
    let listed = cloud.node.storagectl(&["volume", "list"]).unwrap();
    assert!(listed.contains("before"), "{listed}");
    // And once more: nothing of the first time is left.
    assert_eq!(take(second).status, 202);
}

#[test]
fn a_volume_that_no_pool_was_found_for_is_gone_as_soon_as_it_is_deleted() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let admin = cloud.user("alpha-admin", "alpha");
    let kind = json!({"volume_type": {"name": "elsewhere", "extra_specs": {"vendor_name": "other"}}});
    let kind = id(&admin.send(api, Method::POST, "/types", kind), "volume_type");
    let volume = json!({"volume": {"size": 1, "volume_type": kind}});
    let volume = id(&admin.send(api, Method::POST, "/volumes", volume), "volume");
    admin.wait(api, &volume, "error");
    let messages = admin.ask(api, Method::GET, &format!("/messages?resource_uuid={volume}"));
    assert_eq!(
        messages.body["messages"][0]["event_id"], "VOLUME_VOLUME_001_003",
        "{}",
        messages.text
    );
    assert_eq!(
        admin
            .ask(api, Method::DELETE, &format!("/volumes/{volume}"))
            .status,
        202
    );
    let gone = admin.ask(api, Method::DELETE, &format!("/types/{kind}"));
    assert_eq!(gone.status, 202, "{}", gone.text);
    assert_eq!(used(&cloud, &admin, "alpha", "volumes"), 0);
}
