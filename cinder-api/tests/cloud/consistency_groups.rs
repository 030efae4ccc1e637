//! Groups by their older name: asked for, filled, snapshotted at one instant, copied, and gone, as clients of 3.0 do it.

use serde_json::{Value, json};
use test_openstack::http::{Answer, Method, Question};

use crate::backups::pattern;
use crate::cloud::{Api, Cloud, User};

/// A question in a version, without one of the newest's own.
fn ask(user: &User, api: &Api, version: &str, method: Method, (path, body): (&str, Value)) -> Answer {
    let question = Question::new(method, format!("{}/v3{path}", api.url)).token(&user.token);
    let question = question.header("OpenStack-API-Version", format!("volume {version}"));
    let question = if body.is_null() {
        question
    } else {
        question.body(body)
    };
    question.ask().unwrap()
}

fn oldest(user: &User, api: &Api, method: Method, path: &str, body: Value) -> Answer {
    ask(user, api, "3.0", method, (path, body))
}

fn id(answer: &Answer, name: &str) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.body[name]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_consistency_group_lives_as_it_did_before_groups() {
    let cloud = Cloud::start(2);
    let (one, other) = (&cloud.apis[0], &cloud.apis[1]);
    let user = cloud.user("alpha-member", "alpha");
    let wanted = json!({"consistencygroup": {"name": "together", "volume_types": "__DEFAULT__,"}});
    let group = id(
        &oldest(&user, one, Method::POST, "/consistencygroups", wanted),
        "consistencygroup",
    );
    let path = format!("/consistencygroups/{group}");
    let volumes = ["first", "second"].map(|name| {
        let wanted = json!({"volume": {"size": 1, "name": name, "consistencygroup_id": group}});
        let volume = oldest(&user, other, Method::POST, "/volumes", wanted);
        let volume = id(&volume, "volume");
        user.wait(one, &volume, "available");
        volume
    });
    cloud.write(&volumes[0], 0, pattern(1));
    let shown = oldest(
        &user,
        one,
        Method::GET,
        &format!("/volumes/{}", volumes[0]),
        Value::Null,
    );
    assert_eq!(
        shown.body["volume"]["consistencygroup_id"], group,
        "{}",
        shown.text
    );
    let wanted = json!({"cgsnapshot": {"name": "moment", "consistencygroup_id": group}});
    let snapshot = id(
        &oldest(&user, one, Method::POST, "/cgsnapshots", wanted),
        "cgsnapshot",
    );
    let snapshot_path = format!("/cgsnapshots/{snapshot}");
    user.wait_for(other, &snapshot_path, "cgsnapshot", "available");
    cloud.write(&volumes[0], 0, pattern(2));
    let shown = oldest(&user, one, Method::GET, &snapshot_path, Value::Null);
    assert_eq!(
        shown.body["cgsnapshot"]["consistencygroup_id"], group,
        "{}",
        shown.text
    );
    let listed = oldest(&user, one, Method::GET, "/cgsnapshots/detail", Value::Null);
    assert_eq!(
        listed.body["cgsnapshots"].as_array().unwrap().len(),
        1,
        "{}",
        listed.text
    );
    let wanted = json!({"consistencygroup-from-src": {"name": "copy", "cgsnapshot_id": snapshot}});
    let copy = oldest(
        &user,
        other,
        Method::POST,
        "/consistencygroups/create_from_src",
        wanted,
    );
    let copy = id(&copy, "consistencygroup");
    let copy_path = format!("/consistencygroups/{copy}");
    user.wait_for(one, &copy_path, "consistencygroup", "available");
    let all = oldest(&user, one, Method::GET, "/volumes/detail", Value::Null);
    let all = all.body["volumes"].as_array().unwrap();
    let of_copy = all.iter().filter(|volume| volume["consistencygroup_id"] == copy);
    let first = of_copy.clone().find(|volume| volume["name"] == "first").unwrap();
    assert_eq!(of_copy.count(), 2);
    assert_eq!(cloud.read(first["id"].as_str().unwrap(), 0, 65_536), pattern(1));
    let listed = oldest(&user, one, Method::GET, "/consistencygroups?limit=1", Value::Null);
    assert!(
        listed.body["consistencygroup_links"].is_array(),
        "{}",
        listed.text
    );
    let detailed = oldest(&user, one, Method::GET, "/consistencygroups/detail", Value::Null);
    assert_eq!(
        detailed.body["consistencygroups"].as_array().unwrap().len(),
        2,
        "{}",
        detailed.text
    );
    let emptied = json!({"consistencygroup": {"remove_volumes": volumes[1]}});
    let updated = oldest(&user, one, Method::PUT, &format!("{path}/update"), emptied);
    assert_eq!(updated.status, 202, "{}", updated.text);
    let delete = |path: &str, body: Value| oldest(&user, one, Method::POST, &format!("{path}/delete"), body);
    let kept = delete(&path, json!({"consistencygroup": {"force": true}}));
    assert_eq!(kept.status, 400, "it has a snapshot: {}", kept.text);
    let gone = oldest(&user, other, Method::DELETE, &snapshot_path, Value::Null);
    assert_eq!(gone.status, 202, "{}", gone.text);
    user.wait_for_status(one, &snapshot_path, 404);
    assert_eq!(delete(&path, json!({})).status, 400, "it has a volume");
    for path in [path, copy_path] {
        let gone = delete(&path, json!({"consistencygroup": {"force": true}}));
        assert_eq!(gone.status, 202, "{}", gone.text);
        user.wait_for_status(one, &path, 404);
    }
}

#[test]
fn consistency_groups_and_groups_know_whose_turn_it_is() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    for body in [
        json!({"consistencygroup": {"name": "x"}}),
        json!({"consistencygroup": {"volume_types": ","}}),
        json!({"consistencygroup": {"volume_types": ["__DEFAULT__"]}}),
        json!({"group": {"volume_types": "__DEFAULT__"}}),
    ] {
        let refused = oldest(&user, api, Method::POST, "/consistencygroups", body.clone());
        assert_eq!(refused.status, 400, "{body}: {}", refused.text);
    }
    for (body, status) in [
        (json!({}), 400),
        (json!({"cgsnapshot_id": "x", "source_cgid": "y"}), 400),
        (
            json!({"source_cgid": "11111111-2222-4333-8444-555555555555"}),
            404,
        ),
    ] {
        let body = json!({"consistencygroup-from-src": body});
        let refused = oldest(
            &user,
            api,
            Method::POST,
            "/consistencygroups/create_from_src",
            body.clone(),
        );
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
    }
    let wanted = json!({"consistencygroup": {"name": "old", "volume_types": "__DEFAULT__"}});
    let group = id(
        &oldest(&user, api, Method::POST, "/consistencygroups", wanted),
        "consistencygroup",
    );
    let shown = user.ask(api, Method::GET, &format!("/groups/{group}"));
    assert_eq!(shown.status, 400, "{}", shown.text);
    assert!(
        shown.text.contains("reserved for migrating CGs"),
        "{}",
        shown.text
    );
    let listed = user.ask(api, Method::GET, "/groups");
    assert_eq!(listed.body["groups"], json!([]), "{}", listed.text);
    let newer = json!({"group": {"group_type": "default_cgsnapshot_type", "volume_types": ["__DEFAULT__"]}});
    let refused = user.send(api, Method::POST, "/groups", newer);
    assert_eq!(refused.status, 400, "{}", refused.text);
    let path = format!("/consistencygroups/{group}/update");
    let empty = json!({"consistencygroup": {"name": ""}});
    for (version, status) in [("3.0", 400), ("3.6", 202)] {
        let updated = ask(&user, api, version, Method::PUT, (&path, empty.clone()));
        assert_eq!(updated.status, status, "{version}: {}", updated.text);
    }
    let others = cloud.user("beta-member", "beta");
    let shown = oldest(
        &others,
        api,
        Method::GET,
        &format!("/consistencygroups/{group}"),
        Value::Null,
    );
    assert_eq!(shown.status, 404, "{}", shown.text);
    let reader = cloud.user("alpha-reader", "alpha");
    let wanted = json!({"consistencygroup": {"volume_types": "__DEFAULT__"}});
    let refused = oldest(&reader, api, Method::POST, "/consistencygroups", wanted);
    assert_eq!(refused.status, 403, "{}", refused.text);
    let empty = json!({"cgsnapshot": {"consistencygroup_id": group}});
    let refused = oldest(&user, api, Method::POST, "/cgsnapshots", empty);
    assert_eq!(
        refused.status, 400,
        "nothing to take a snapshot of: {}",
        refused.text
    );
}
