//! Nonsense of every kind is refused with a sentence, and nothing of it is a fault of ours; secrets are told to nobody.

use serde_json::{Value, json};
use test_node::{talkative, tells};
use test_openstack::accounts::PASSWORD;
use test_openstack::http::Method;

use crate::cloud::{Cloud, User};

/// Where bodies go, under which name, with which fields: a line each, METHOD PATH NAME FIELD...
const BODIES: &str = "\
POST /volumes volume size name description volume_type metadata snapshot_id source_volid availability_zone multiattach group_id x
PUT /volumes/{volume} volume name description metadata x
POST /snapshots snapshot volume_id name description metadata force x
POST /attachments attachment volume_uuid instance_uuid connector mode x
POST /groups group name description group_type volume_types availability_zone x
POST /group_snapshots group_snapshot group_id name description x
POST /groups/action create-from-src group_snapshot_id source_group_id name x
POST /consistencygroups consistencygroup name description volume_types availability_zone x
POST /consistencygroups/create_from_src consistencygroup-from-src cgsnapshot_id source_cgid name x
POST /cgsnapshots cgsnapshot consistencygroup_id name description x
POST /backups backup volume_id snapshot_id name container incremental force metadata x
POST /group_types group_type name description is_public group_specs x
POST /types volume_type name description os-volume-type-access:is_public extra_specs x
PUT /types/{type} volume_type name description is_public x
POST /types/{type}/extra_specs extra_specs a x
POST /types/{type}/encryption encryption provider control_location cipher key_size x
POST /types/{type}/action addProjectAccess project x
POST /qos-specs qos_specs name consumer x
PUT /os-quota-sets/{project} quota_set volumes gigabytes snapshots per_volume_gigabytes x
PUT /os-quota-class-sets/default quota_class_set volumes gigabytes x
PUT /default-types/{project} default_type volume_type x
POST /volume-transfers transfer volume_id name no_snapshots x
POST /os-volume-transfer transfer volume_id name x
POST /manageable_volumes volume host ref name description volume_type availability_zone bootable metadata x
POST /manageable_snapshots snapshot volume_id ref name description metadata x
POST /volumes/{volume}/action os-extend new_size
POST /volumes/{volume}/action os-attach mountpoint instance_uuid host_name mode
POST /volumes/{volume}/action os-detach attachment_id
POST /volumes/{volume}/action os-retype new_type migration_policy
POST /volumes/{volume}/action os-reset_status status attach_status migration_status
POST /volumes/{volume}/action os-set_bootable bootable
POST /volumes/{volume}/action os-update_readonly_flag readonly
POST /volumes/{volume}/action os-initialize_connection connector
POST /volumes/{volume}/action os-set_image_metadata metadata
POST /volumes/{volume}/action os-unset_image_metadata key
POST /volumes/{volume}/action os-migrate_volume host force_host_copy lock_volume
POST /volumes/{volume}/action revert snapshot_id
POST /volumes/{volume}/metadata metadata a x
PUT /volumes/{volume}/metadata/a meta a b
";

/// Values that no field takes, each for another reason; and some that one or another does.
fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(1.5),
        json!(1e300),
        json!(true),
        json!(""),
        json!("  "),
        json!("x".repeat(256)),
        json!("\u{0}\u{1f4a9}"),
        json!("../../etc/passwd"),
        json!("00000000-0000-0000-0000-000000000000"),
        json!([]),
        json!([{}, [null]]),
        json!({}),
        json!({"": ""}),
        json!({"a": 1}),
        json!({"k".repeat(256): "v"}),
        json!({"a": {"b": {"c": []}}}),
    ]
}

#[test]
fn no_field_of_any_body_makes_the_service_fail() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let admin = cloud.user("alpha-admin", "alpha");
    let volume = admin.volume(api);
    let kind = admin.ask(api, Method::GET, "/types/default");
    let kind = kind.body["volume_type"]["id"].as_str().unwrap();
    let project = cloud.keystone.project_id("beta").unwrap();
    let mut asked = 0;
    for line in BODIES.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (method, path, name, fields) = (words[0], words[1], words[2], &words[3..]);
        let path = path
            .replace("{volume}", &volume)
            .replace("{type}", kind)
            .replace("{project}", &project);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let bodies = fields
            .iter()
            .flat_map(|field| values().into_iter().map(move |value| json!({*field: value})));
        let odd = [json!(null), json!([]), json!("text"), json!(7), json!({})];
        for inside in bodies.chain(odd) {
            let body = json!({name: inside});
            let answer = admin.send(api, method.clone(), &path, body.clone());
            assert!(
                answer.status < 500 || answer.status == 501 || answer.status == 503,
                "{method} {path} {body}: {}",
                answer.text
            );
            if answer.status >= 400 {
                assert_is_fault(&answer.body, answer.status, &format!("{method} {path} {body}"));
            }
            asked += 1;
        }
        for body in [
            json!(null),
            json!([]),
            json!({}),
            json!({"other": {}}),
            json!({name: {}, "more": {}}),
        ] {
            let answer = admin.send(api, method.clone(), &path, body.clone());
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path} {body}: {} {}",
                answer.status,
                answer.text
            );
        }
    }
    println!("{asked} bodies");
}

/// Every refusal has a name, its code and a sentence.
fn assert_is_fault(body: &Value, status: u16, asked: &str) {
    let inside = body
        .as_object()
        .and_then(|body| body.values().next())
        .unwrap_or(&Value::Null);
    assert_eq!(inside["code"], status, "{asked}: {body}");
    assert!(
        inside["message"]
            .as_str()
            .is_some_and(|message| message.len() > 5),
        "{asked}: {body}"
    );
}

#[test]
fn queries_that_make_no_sense_are_refused() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let refused = |path: &str, status: u16| {
        let answer = user.ask(api, Method::GET, path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert_is_fault(&answer.body, status, path);
    };
    for collection in [
        "volumes",
        "volumes/detail",
        "snapshots",
        "attachments",
        "groups",
        "group_snapshots",
    ] {
        for query in [
            "limit=-1",
            "limit=x",
            "limit=99999999999",
            "offset=-1",
            "offset=1.5",
            "sort=nonsense",
            "sort=id:up",
            "sort=id&sort_key=id",
            "sort_dir=up",
            "unheard_of=1",
        ] {
            refused(&format!("/{collection}?{query}"), 400);
        }
        refused(&format!("/{collection}?marker=none"), 404);
    }
    refused("/volumes?bootable=maybe", 400);
    refused("/volumes?created_at=soon", 400);
    refused("/volumes/not-a-uuid", 404);
    refused("/unheard-of", 404);
    assert_eq!(user.ask(api, Method::PATCH, "/volumes").status, 405);
    let form = user
        .question(api, Method::POST, "/volumes")
        .header("content-type", "text/plain");
    assert!([400, 415].contains(&form.body(json!({"volume": {}})).ask().unwrap().status));
}

#[test]
fn a_host_whose_initiator_has_no_name_that_is_one_is_refused() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(api);
    for initiator in ["cl", "iqn.2026-13.example:a", "iqn.2026-11.\u{e9}:a", "eui.1"] {
        let connector = json!({"host": "h", "initiator": initiator});
        let body = json!({"attachment": {"volume_uuid": volume, "connector": connector}});
        let made = user.send(api, Method::POST, "/attachments", body);
        assert_eq!(made.status, 400, "{initiator}: {}", made.text);
        user.wait(api, &volume, "available");
        let body = json!({"os-initialize_connection": {"connector": connector}});
        let opened = user.send(api, Method::POST, &format!("/volumes/{volume}/action"), body);
        assert_eq!(opened.status, 400, "{initiator}: {}", opened.text);
    }
}

#[test]
fn a_volume_that_nobody_would_encrypt_is_not_made() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let admin = cloud.user("alpha-admin", "alpha");
    let made = admin.send(
        api,
        Method::POST,
        "/types",
        json!({"volume_type": {"name": "secret"}}),
    );
    let id = made.body["volume_type"]["id"].as_str().unwrap();
    let how = json!({"encryption": {"provider": "luks", "control_location": "front-end", "cipher": "aes-xts-plain64"}});
    let told = admin.send(api, Method::POST, &format!("/types/{id}/encryption"), how);
    assert_eq!(told.status, 200, "{}", told.text);
    let volume = json!({"volume": {"size": 1, "volume_type": "secret"}});
    let refused = admin.send(api, Method::POST, "/volumes", volume);
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_is_fault(&refused.body, 400, "an encrypted volume");
}

#[test]
fn no_log_has_a_secret_in_it() {
    if !talkative("bad_input::no_log_has_a_secret_in_it").unwrap() {
        return;
    }
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user: User = cloud.user("alpha-member", "alpha");
    let volume = user.volume(api);
    let transfer = json!({"transfer": {"volume_id": volume}});
    let offered = user.send(api, Method::POST, "/volume-transfers", transfer);
    let key = offered.body["transfer"]["auth_key"].as_str().map(str::to_owned);
    user.send(api, Method::POST, "/volumes", json!({"volume": {"size": -1}}));
    user.ask(api, Method::GET, "/nonsense");
    let stranger = User {
        token: "canary-of-a-token-that-is-none".to_owned(),
    };
    assert_eq!(stranger.ask(api, Method::GET, "/volumes").status, 401);
    let log = api.log();
    assert!(log.contains("TRACE"), "the log says little");
    let mut secrets = vec![PASSWORD.to_owned(), user.token.clone(), stranger.token];
    secrets.extend(key);
    for secret in secrets {
        assert!(!tells(&log, secret.as_bytes()), "the log has a secret in it");
    }
}
