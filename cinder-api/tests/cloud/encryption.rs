//! Volumes of encrypted types, with their keys in a real Barbican.

use std::sync::Mutex;

use serde_json::{Value, json};
use test_node::{talkative, tells};
use test_openstack::http::{Answer, Method, Question};
use test_openstack::{Barbican, Keystone};

use crate::backups::{back_up, restore};
use crate::cloud::{Api, Cloud, User, await_that, in_directory};

/// A cloud with a Barbican, and a type whose volumes are encrypted.
struct Locked {
    cloud: Cloud,
    barbican: Barbican,
    admin: User,
    user: User,
}

fn encrypted_type(admin: &User, api: &Api, name: &str) {
    let made = admin.send(
        api,
        Method::POST,
        "/types",
        json!({"volume_type": {"name": name}}),
    );
    assert_eq!(made.status, 200, "{}", made.text);
    let id = made.body["volume_type"]["id"].as_str().unwrap();
    let encryption = json!({"encryption": {
        "provider": "luks", "control_location": "front-end", "cipher": "aes-xts-plain64", "key_size": 256,
    }});
    let said = admin.send(api, Method::POST, &format!("/types/{id}/encryption"), encryption);
    assert_eq!(said.status, 200, "{}", said.text);
}

impl Locked {
    fn start(apis: usize) -> Self {
        let started = Mutex::new(None);
        let cloud = Cloud::start_with(apis, |keystone: &Keystone, folder| {
            let barbican = Barbican::start(&folder.join("barbican"), keystone).unwrap();
            *started.lock().unwrap() = Some(barbican);
            format!("{}[keys]\nmanager = \"barbican\"\n", in_directory(folder))
        });
        let barbican = started.into_inner().unwrap().unwrap();
        let admin = cloud.user("admin", "admin");
        encrypted_type(&admin, &cloud.apis[0], "locked");
        let user = cloud.user("alpha-member", "alpha");
        Self {
            cloud,
            barbican,
            admin,
            user,
        }
    }

    fn api(&self) -> &Api {
        &self.cloud.apis[0]
    }

    fn send(&self, path: &str, body: Value) -> Answer {
        self.user.send(self.api(), Method::POST, path, body)
    }

    /// Makes a volume, and waits for it.
    fn volume(&self, wanted: &Value) -> String {
        let made = self.send("/volumes", json!({"volume": wanted}));
        assert_eq!(made.status, 202, "{}", made.text);
        let id = made.body["volume"]["id"].as_str().unwrap().to_owned();
        self.user.wait(self.api(), &id, "available");
        id
    }

    /// The key of something, which its project can use.
    fn key(&self, user: &User, path: &str, name: &str) -> String {
        let shown = user.ask(self.api(), Method::GET, path);
        let key = shown.body[name]["encryption_key_id"].as_str();
        let key = key.unwrap_or_else(|| panic!("no key: {}", shown.text)).to_owned();
        assert!(self.barbican.key(&user.token, &key).unwrap().is_some());
        key
    }

    fn key_of(&self, volume: &str) -> String {
        self.key(&self.user, &format!("/volumes/{volume}"), "volume")
    }

    fn count(&self) -> u64 {
        self.barbican.count(&self.user.token).unwrap()
    }

    fn delete(&self, path: &str) {
        let answer = self.user.ask(self.api(), Method::DELETE, path);
        assert_eq!(answer.status, 202, "{}", answer.text);
        self.user.wait_for_status(self.api(), path, 404);
    }
}

#[test]
fn a_volume_has_a_key_of_its_own_and_takes_it_with_it() {
    if !talkative("encryption::a_volume_has_a_key_of_its_own_and_takes_it_with_it").unwrap() {
        return;
    }
    let locked = Locked::start(2);
    let api = locked.api();
    let volume = locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    let key = locked.key_of(&volume);
    let about = locked.barbican.key(&locked.user.token, &key).unwrap().unwrap();
    assert_eq!(
        (&about["algorithm"], &about["bit_length"]),
        (&json!("aes"), &json!(256))
    );
    let encryption = locked
        .user
        .ask(api, Method::GET, &format!("/volumes/{volume}/encryption"));
    let wanted = json!({
        "encryption_key_id": key, "provider": "luks", "control_location": "front-end", "cipher": "aes-xts-plain64",
        "key_size": 256,
    });
    assert_eq!(encryption.body, wanted);
    let clone = locked.volume(&json!({"source_volid": volume}));
    let made = locked.send("/snapshots", json!({"snapshot": {"volume_id": volume}}));
    let snapshot = made.body["snapshot"]["id"].as_str().unwrap().to_owned();
    let snapshot_path = format!("/snapshots/{snapshot}");
    locked.user.wait_for(api, &snapshot_path, "snapshot", "available");
    let of_snapshot = locked.volume(&json!({"snapshot_id": snapshot}));
    let bytes = |key: &str| locked.barbican.bytes(&locked.user.token, key).unwrap();
    for copy in [&clone, &of_snapshot] {
        let other = locked.key_of(copy);
        assert_ne!(other, key);
        assert_eq!(bytes(&other), bytes(&key));
    }
    for wanted in [
        json!({"source_volid": volume, "volume_type": "__DEFAULT__"}),
        json!({"size": 1, "volume_type": "locked", "imageRef": "11111111-2222-4333-8444-555555555555"}),
    ] {
        let refused = locked.send("/volumes", json!({"volume": wanted}));
        assert!(matches!(refused.status, 400 | 503), "{}", refused.text);
    }
    assert_eq!(locked.count(), 3);
    let secret = bytes(&key);
    locked.delete(&snapshot_path);
    for volume in [volume, clone, of_snapshot] {
        locked.delete(&format!("/volumes/{volume}"));
    }
    assert_eq!(locked.count(), 0);
    for api in &locked.cloud.apis {
        let log = api.log();
        assert!(log.contains("TRACE"), "the log says little");
        assert!(!log.contains(&locked.user.token), "a token is logged");
        assert!(!tells(&log, &secret), "a key is logged");
    }
}

#[test]
fn a_host_is_told_to_encrypt_and_images_and_other_types_are_refused() {
    let locked = Locked::start(1);
    let _gateway = locked.cloud.gateway();
    let api = locked.api();
    let volume = locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    let attachment = json!({"attachment": {
        "volume_uuid": volume,
        "instance_uuid": "11111111-2222-4333-8444-555555555555",
        "connector": {"host": "compute", "ip": "127.0.0.1", "initiator": "iqn.2026-01.test:compute", "multipath": false},
    }});
    let attached = locked.send("/attachments", attachment);
    assert_eq!(attached.status, 200, "{}", attached.text);
    let info = &attached.body["attachment"]["connection_info"];
    assert_eq!(info["encrypted"], true, "{}", attached.text);
    let plain = locked.volume(&json!({"size": 1}));
    let action = |volume: &str, body: Value| locked.send(&format!("/volumes/{volume}/action"), body);
    let encrypted = locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    for (volume, body) in [
        (&encrypted, json!({"os-volume_upload_image": {"image_name": "x"}})),
        (
            &encrypted,
            json!({"os-reimage": {"image_id": "11111111-2222-4333-8444-555555555555"}}),
        ),
        (
            &encrypted,
            json!({"os-retype": {"new_type": "__DEFAULT__", "migration_policy": "never"}}),
        ),
        (
            &plain,
            json!({"os-retype": {"new_type": "locked", "migration_policy": "never"}}),
        ),
    ] {
        let refused = action(volume, body.clone());
        assert_eq!(refused.status, 400, "{body}: {}", refused.text);
    }
    // Encrypted in the same way under another name: nothing has to be encrypted anew.
    encrypted_type(&locked.admin, api, "locked-too");
    let retyped = action(
        &encrypted,
        json!({"os-retype": {"new_type": "locked-too", "migration_policy": "never"}}),
    );
    assert_eq!(retyped.status, 202, "{}", retyped.text);
    locked.user.wait(api, &encrypted, "available");
    locked.key_of(&encrypted);
}

#[test]
fn a_group_is_copied_with_a_key_for_each_volume() {
    let locked = Locked::start(1);
    let api = locked.api();
    let group = json!({"consistencygroup": {"name": "together", "volume_types": "locked,__DEFAULT__"}});
    let group = locked.send("/consistencygroups", group);
    assert_eq!(group.status, 202, "{}", group.text);
    let group = group.body["consistencygroup"]["id"].as_str().unwrap();
    locked.volume(&json!({"size": 1, "volume_type": "locked", "consistencygroup_id": group}));
    locked.volume(&json!({"size": 1, "consistencygroup_id": group}));
    let copy = json!({"consistencygroup-from-src": {"source_cgid": group}});
    let copy = locked.send("/consistencygroups/create_from_src", copy);
    assert_eq!(copy.status, 202, "{}", copy.text);
    let copy = copy.body["consistencygroup"]["id"].as_str().unwrap();
    let path = format!("/consistencygroups/{copy}");
    locked.user.wait_for(api, &path, "consistencygroup", "available");
    assert_eq!(locked.count(), 2);
    for group in [copy, group] {
        let path = format!("/consistencygroups/{group}");
        let gone = locked.send(
            &format!("{path}/delete"),
            json!({"consistencygroup": {"force": true}}),
        );
        assert_eq!(gone.status, 202, "{}", gone.text);
        locked.user.wait_for_status(api, &path, 404);
    }
    assert_eq!(locked.count(), 0);
}

#[test]
fn what_is_not_promised_leaves_no_key_and_who_has_no_manager_gets_a_sentence() {
    let locked = Locked::start(1);
    let project = locked.cloud.keystone.project_id("alpha").unwrap();
    let limit = json!({"quota_set": {"volumes": 1}});
    let path = format!("/os-quota-sets/{project}");
    let limited = locked.admin.send(locked.api(), Method::PUT, &path, limit);
    assert_eq!(limited.status, 200, "{}", limited.text);
    locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    let refused = locked.send(
        "/volumes",
        json!({"volume": {"size": 1, "volume_type": "locked"}}),
    );
    assert_eq!(refused.status, 413, "{}", refused.text);
    assert_eq!(locked.count(), 1);
    drop(locked);
    let plain = Cloud::start(1);
    encrypted_type(&plain.user("admin", "admin"), &plain.apis[0], "locked");
    let wanted = json!({"volume": {"size": 1, "volume_type": "locked"}});
    let user = plain.user("alpha-member", "alpha");
    let refused = user.send(&plain.apis[0], Method::POST, "/volumes", wanted);
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(
        refused.text.contains("no key manager is known"),
        "{}",
        refused.text
    );
}

#[test]
fn a_backup_has_a_key_of_its_own_with_which_its_bytes_come_back() {
    let locked = Locked::start(1);
    let (api, user) = (locked.api(), &locked.user);
    let volume = locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    let bytes = locked
        .barbican
        .bytes(&user.token, &locked.key_of(&volume))
        .unwrap();
    let plain = user.volume(api);
    let plain_backup = back_up(user, api, &json!({"volume_id": plain}));
    let backup = back_up(user, api, &json!({"volume_id": volume}));
    let path = format!("/backups/{backup}");
    assert_ne!(locked.key(user, &path, "backup"), locked.key_of(&volume));
    locked.delete(&format!("/volumes/{volume}"));
    let restored = restore(user, api, &backup, &json!({}));
    user.wait(api, &restored, "available");
    let key = locked.key_of(&restored);
    assert_eq!(locked.barbican.bytes(&user.token, &key).unwrap(), bytes);
    user.wait_for(api, &path, "backup", "available");
    // Over another one of the type: its own key goes, for nothing is encrypted with it any more.
    let other = locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    let before = locked.key_of(&other);
    restore(user, api, &backup, &json!({"volume_id": other}));
    user.wait(api, &other, "available");
    assert_eq!(
        locked
            .barbican
            .bytes(&user.token, &locked.key_of(&other))
            .unwrap(),
        bytes
    );
    assert!(locked.barbican.key(&user.token, &before).unwrap().is_none());
    user.wait_for(api, &path, "backup", "available");
    for (backup, volume) in [(&backup, &plain), (&plain_backup, &other)] {
        let wanted = json!({"restore": {"volume_id": volume}});
        let refused = locked.send(&format!("/backups/{backup}/restore"), wanted);
        assert_eq!(refused.status, 400, "{}", refused.text);
    }
    locked.delete(&path);
    locked.delete(&format!("/volumes/{restored}"));
    locked.delete(&format!("/volumes/{other}"));
    assert_eq!(locked.count(), 0);
}

#[test]
fn a_key_goes_with_its_volume_to_another_project_and_back() {
    let locked = Locked::start(1);
    let api = locked.api();
    let volume = locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    let bytes = locked
        .barbican
        .bytes(&locked.user.token, &locked.key_of(&volume))
        .unwrap();
    let offer = json!({"transfer": {"volume_id": volume}});
    let older = Question::new(Method::POST, format!("{}/v3/volume-transfers", api.url))
        .token(&locked.user.token)
        .header("OpenStack-API-Version", "volume 3.69")
        .body(offer.clone());
    assert_eq!(older.ask().unwrap().status, 400);
    let offered = locked.send("/volume-transfers", offer.clone());
    assert_eq!(offered.status, 202, "{}", offered.text);
    assert_eq!(locked.count(), 0, "the key is the service's meanwhile");
    let id = offered.body["transfer"]["id"].as_str().unwrap();
    let path = format!("/volume-transfers/{id}");
    let taken_back = locked.user.ask(api, Method::DELETE, &path);
    assert_eq!(taken_back.status, 202, "{}", taken_back.text);
    assert_eq!(
        locked
            .barbican
            .bytes(&locked.user.token, &locked.key_of(&volume))
            .unwrap(),
        bytes
    );
    let offered = locked.send("/volume-transfers", offer);
    let transfer = &offered.body["transfer"];
    let path = format!("/volume-transfers/{}/accept", transfer["id"].as_str().unwrap());
    let other = locked.cloud.user("beta-member", "beta");
    let accept = json!({"accept": {"auth_key": transfer["auth_key"]}});
    let accepted = other.send(api, Method::POST, &path, accept);
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let key = locked.key(&other, &format!("/volumes/{volume}"), "volume");
    assert_eq!(locked.barbican.bytes(&other.token, &key).unwrap(), bytes);
    assert_eq!(locked.count(), 0);
    let service = locked.cloud.keystone.service_token().unwrap();
    assert_eq!(locked.barbican.count(&service).unwrap(), 0);
}

#[test]
fn a_key_ends_although_the_manager_stands_still_and_the_process_is_killed() {
    let mut locked = Locked::start(2);
    let volume = locked.volume(&json!({"size": 1, "volume_type": "locked"}));
    locked.barbican.freeze().unwrap();
    let path = format!("/volumes/{volume}");
    let answer = locked.user.ask(locked.api(), Method::DELETE, &path);
    assert_eq!(answer.status, 202, "{}", answer.text);
    let name = format!("volume-{volume}");
    await_that("the storage has no such volume", || {
        !locked
            .cloud
            .node
            .storagectl(&["volume", "list"])
            .unwrap()
            .contains(&name)
    });
    locked.cloud.apis[0].process.kill().unwrap();
    locked.barbican.thaw().unwrap();
    locked.user.wait_for_status(&locked.cloud.apis[1], &path, 404);
    assert_eq!(locked.count(), 0);
}
