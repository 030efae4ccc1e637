//! Backups of real volumes in a real directory, made and brought back by whichever process lives.

use serde_json::{Value, json};
use test_openstack::http::Method;

use crate::cloud::{Api, Cloud, User};

const MIB: u64 = 1 << 20;

pub(crate) fn pattern(byte: u8) -> Vec<u8> {
    vec![byte; 65_536]
}

pub(crate) fn ask_for(user: &User, api: &Api, backup: &Value) -> String {
    let answer = user.send(api, Method::POST, "/backups", json!({"backup": backup}));
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.body["backup"]["id"].as_str().unwrap().to_owned()
}

pub(crate) fn back_up(user: &User, api: &Api, backup: &Value) -> String {
    let id = ask_for(user, api, backup);
    user.wait_for(api, &format!("/backups/{id}"), "backup", "available");
    id
}

pub(crate) fn restore(user: &User, api: &Api, backup: &str, to: &Value) -> String {
    let path = format!("/backups/{backup}/restore");
    let answer = user.send(api, Method::POST, &path, json!({"restore": to}));
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.body["restore"]["volume_id"].as_str().unwrap().to_owned()
}

fn objects(user: &User, api: &Api, backup: &str) -> u64 {
    let shown = user.ask(api, Method::GET, &format!("/backups/{backup}"));
    shown.body["backup"]["object_count"].as_u64().unwrap()
}

#[test]
fn a_chain_of_backups_gives_each_moment_back_and_goes_from_its_end() {
    let cloud = Cloud::start(2);
    let (one, other) = (&cloud.apis[0], &cloud.apis[1]);
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(one);
    cloud.write(&volume, 0, pattern(1));
    cloud.write(&volume, 100 * MIB, pattern(2));
    let full = back_up(&user, one, &json!({"volume_id": volume}));
    user.wait(other, &volume, "available");
    cloud.write(&volume, 100 * MIB, pattern(3));
    let wanted = json!({"volume_id": volume, "incremental": true});
    let increment = back_up(&user, other, &wanted);
    assert_eq!(
        (objects(&user, one, &full), objects(&user, one, &increment)),
        (2, 1)
    );
    let restored = restore(&user, other, &full, &json!({"name": "first"}));
    user.wait(one, &restored, "available");
    assert_eq!(cloud.read(&restored, 0, 65_536), pattern(1));
    assert_eq!(cloud.read(&restored, 100 * MIB, 65_536), pattern(2));
    cloud.write(&restored, 500 * MIB, pattern(9));
    restore(&user, one, &increment, &json!({"volume_id": restored}));
    user.wait(other, &restored, "available");
    assert_eq!(cloud.read(&restored, 100 * MIB, 65_536), pattern(3));
    assert_eq!(cloud.read(&restored, 500 * MIB, 65_536), pattern(0));
    let delete = |id: &str| user.ask(one, Method::DELETE, &format!("/backups/{id}")).status;
    user.wait_for(one, &format!("/backups/{increment}"), "backup", "available");
    assert_eq!(delete(&full), 400, "the increment needs it");
    assert_eq!(delete(&increment), 202);
    user.wait_for_status(one, &format!("/backups/{increment}"), 404);
    assert_eq!(delete(&full), 202);
    user.wait_for_status(one, &format!("/backups/{full}"), 404);
    let left: Vec<_> = std::fs::read_dir(cloud.backups()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let limits = user.ask(one, Method::GET, "/limits");
    assert_eq!(limits.body["limits"]["absolute"]["totalBackupsUsed"], 0);
}

#[test]
fn a_backup_that_a_process_began_before_it_was_killed_another_one_makes() {
    let mut cloud = Cloud::start(2);
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(&cloud.apis[0]);
    cloud.write(&volume, 7 * MIB, pattern(5));
    cloud.node.storaged().freeze().unwrap();
    let backup = ask_for(&user, &cloud.apis[0], &json!({"volume_id": volume}));
    cloud.apis[0].process.kill().unwrap();
    cloud.node.storaged().thaw().unwrap();
    let api = &cloud.apis[1];
    user.wait_for(api, &format!("/backups/{backup}"), "backup", "available");
    user.wait(api, &volume, "available");
    let restored = restore(&user, api, &backup, &json!({}));
    user.wait(api, &restored, "available");
    assert_eq!(cloud.read(&restored, 7 * MIB, 65_536), pattern(5));
    let there = cloud
        .node
        .storagectl(&["snapshot", "list", &format!("volume-{volume}")])
        .unwrap();
    assert!(!there.contains("backup-"), "{there}");
}

#[test]
fn a_damaged_backup_is_not_taken_for_a_good_one() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(api);
    cloud.write(&volume, 0, pattern(5));
    let backup = back_up(&user, api, &json!({"volume_id": volume}));
    let object = cloud.backups().join(&backup).join("000000/000");
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[1] ^= 1;
    std::fs::write(&object, &bytes).unwrap();
    let restored = restore(&user, api, &backup, &json!({}));
    user.wait(api, &restored, "error_restoring");
    let shown = user.ask(api, Method::GET, &format!("/backups/{backup}"));
    assert_eq!(shown.body["backup"]["status"], "available", "{}", shown.text);
    let reason = shown.body["backup"]["fail_reason"].as_str().unwrap();
    assert!(reason.contains("damaged"), "{reason}");
    // Without its manifest it is none at all.
    std::fs::remove_file(cloud.backups().join(&backup).join("manifest")).unwrap();
    let restored = restore(&user, api, &backup, &json!({}));
    user.wait(api, &restored, "error_restoring");
}
