//! Backups in a real Swift, in its own language and in that of S3: made, brought back, deleted, and what becomes of them when
//! it is away.

use std::path::Path;
use std::sync::Mutex;

use serde_json::json;
use test_openstack::accounts::PASSWORD;
use test_openstack::http::Method;
use test_openstack::{Keystone, S3_ACCESS_KEY, Swift, SwiftAccount};

use crate::backups::{ask_for, back_up, pattern, restore};
use crate::cloud::{Api, Cloud, User, await_that};

const MIB: u64 = 1 << 20;
/// The bucket, which an operator has made.
const BUCKET: &str = "of-the-operator";

/// A cloud whose backups are in a Swift.
struct Kept {
    cloud: Cloud,
    swift: Swift,
}

impl Kept {
    fn start(apis: usize, section: impl FnOnce(&Swift, &Path) -> String) -> Self {
        let started = Mutex::new(None);
        let cloud = Cloud::start_with(apis, |keystone: &Keystone, folder| {
            let swift = Swift::start(&folder.join("swift"), keystone).unwrap();
            let text = section(&swift, folder);
            *started.lock().unwrap() = Some(swift);
            text
        });
        let swift = started.into_inner().unwrap().unwrap();
        Self { cloud, swift }
    }

    fn in_swift(apis: usize) -> Self {
        Self::start(apis, |_, _| {
            "[backups]\nstore = \"swift\"\npatience_seconds = 1\n".to_owned()
        })
    }

    fn in_s3(apis: usize) -> Self {
        Self::start(apis, |swift, folder| {
            swift.of_s3().unwrap().make(BUCKET).unwrap();
            let secret = folder.join("secret-key");
            std::fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
            format!(
                "[backups]\nstore = \"s3\"\npatience_seconds = 1\n[backups.s3]\nendpoint = \"{}\"\nbucket = \"{BUCKET}\"\n\
                 access_key = \"{S3_ACCESS_KEY}\"\nsecret_key_file = \"{}\"\n",
                swift.url(),
                secret.display()
            )
        })
    }

    fn of_service(&self) -> SwiftAccount {
        self.swift.of_service(&self.cloud.keystone).unwrap()
    }

    /// What is told of a backup.
    fn reason(user: &User, api: &Api, backup: &str) -> String {
        let shown = user.ask(api, Method::GET, &format!("/backups/{backup}"));
        let reason = shown.body["backup"]["fail_reason"].as_str();
        reason
            .unwrap_or_else(|| panic!("no reason: {}", shown.text))
            .to_owned()
    }
}

/// A full backup, an increment, both brought back, and both gone; `objects` says what is stored.
fn a_chain(kept: &Kept, container: &str, objects: impl Fn() -> Vec<String>) {
    let cloud = &kept.cloud;
    let (one, other) = (&cloud.apis[0], &cloud.apis[1]);
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(one);
    cloud.write(&volume, 0, pattern(1));
    cloud.write(&volume, 100 * MIB, pattern(2));
    let full = back_up(&user, one, &json!({"volume_id": volume, "container": container}));
    user.wait(other, &volume, "available");
    assert_eq!(objects().len(), 3, "two chunks and a manifest: {:?}", objects());
    cloud.write(&volume, 100 * MIB, pattern(3));
    let elsewhere = json!({"volume_id": volume, "incremental": true, "container": "elsewhere"});
    let refused = user.send(other, Method::POST, "/backups", json!({"backup": elsewhere}));
    assert_eq!(refused.status, 400, "{}", refused.text);
    let increment = back_up(&user, other, &json!({"volume_id": volume, "incremental": true}));
    assert_eq!(
        objects().len(),
        5,
        "one chunk and a manifest more: {:?}",
        objects()
    );
    let shown = user.ask(one, Method::GET, &format!("/backups/{increment}"));
    assert_eq!(shown.body["backup"]["container"], container, "{}", shown.text);
    let restored = restore(&user, other, &full, &json!({"name": "first"}));
    user.wait(one, &restored, "available");
    assert_eq!(cloud.read(&restored, 0, 65_536), pattern(1));
    assert_eq!(cloud.read(&restored, 100 * MIB, 65_536), pattern(2));
    restore(&user, one, &increment, &json!({"volume_id": restored}));
    user.wait(other, &restored, "available");
    assert_eq!(cloud.read(&restored, 100 * MIB, 65_536), pattern(3));
    for backup in [increment, full] {
        let path = format!("/backups/{backup}");
        user.wait_for(one, &path, "backup", "available");
        assert_eq!(user.ask(one, Method::DELETE, &path).status, 202);
        user.wait_for_status(one, &path, 404);
    }
    assert!(objects().is_empty(), "{:?}", objects());
}

/// What is damaged where it is kept is not written to a volume.
fn a_damaged_one(kept: &Kept, container: &str, account: &SwiftAccount) {
    let (cloud, api) = (&kept.cloud, &kept.cloud.apis[0]);
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(api);
    cloud.write(&volume, 0, pattern(5));
    let backup = back_up(&user, api, &json!({"volume_id": volume}));
    let objects = account.objects(container).unwrap().unwrap();
    let chunk = objects
        .iter()
        .find(|name| name.ends_with(&format!("{backup}/000000/000")));
    let path = format!("{container}/{}", chunk.unwrap());
    let mut bytes = vec![0; 4 << 20];
    bytes[..65_535].fill(5);
    account.overwrite(&path, bytes).unwrap();
    let restored = restore(&user, api, &backup, &json!({}));
    user.wait(api, &restored, "error_restoring");
    let reason = Kept::reason(&user, api, &backup);
    assert!(reason.contains("damaged"), "{reason}");
    account.overwrite(&path, b"short".to_vec()).unwrap();
    let restored = restore(&user, api, &backup, &json!({}));
    user.wait(api, &restored, "error_restoring");
}

#[test]
fn a_chain_of_backups_lives_in_swift_and_leaves_nothing() {
    let kept = Kept::in_swift(2);
    let account = kept.of_service();
    a_chain(&kept, "of-alpha", || {
        account.objects("of-alpha").unwrap().unwrap_or_default()
    });
    a_damaged_one(&kept, "volumebackups", &account);
}

#[test]
fn a_chain_of_backups_lives_in_s3_and_leaves_nothing() {
    let kept = Kept::in_s3(2);
    let account = kept.swift.of_s3().unwrap();
    a_chain(&kept, "of-alpha", || account.objects(BUCKET).unwrap().unwrap());
    a_damaged_one(&kept, BUCKET, &account);
    for api in &kept.cloud.apis {
        let log = api.log();
        assert!(
            !log.contains(PASSWORD) && !log.contains("X-Amz-"),
            "a secret is logged: {log}"
        );
    }
}

#[test]
fn a_backup_whose_swift_goes_away_says_so_and_leaves_nothing_when_it_is_deleted() {
    let mut kept = Kept::in_swift(1);
    let user = kept.cloud.user("alpha-member", "alpha");
    let volume = user.volume(&kept.cloud.apis[0]);
    for chunk in 0..16 {
        kept.cloud.write(&volume, chunk * 4 * MIB, pattern(7));
    }
    let first = back_up(&user, &kept.cloud.apis[0], &json!({"volume_id": volume}));
    kept.swift.kill().unwrap();
    let api = &kept.cloud.apis[0];
    let backup = ask_for(&user, api, &json!({"volume_id": volume}));
    user.wait_for(api, &format!("/backups/{backup}"), "backup", "error");
    let reason = Kept::reason(&user, api, &backup);
    assert!(reason.contains("cannot be written"), "{reason}");
    user.wait(api, &volume, "available");
    // What is there cannot be read now, and can be again.
    let restored = restore(&user, api, &first, &json!({}));
    user.wait(api, &restored, "error_restoring");
    let path = format!("/backups/{first}");
    assert_eq!(user.ask(api, Method::DELETE, &path).status, 202);
    user.wait_for(api, &path, "backup", "error_deleting");
    kept.swift.start_again().unwrap();
    let api = &kept.cloud.apis[0];
    for backup in [first, backup] {
        let path = format!("/backups/{backup}");
        assert_eq!(user.ask(api, Method::DELETE, &path).status, 202);
        user.wait_for_status(api, &path, 404);
    }
    let left = kept.of_service().objects("volumebackups").unwrap().unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_backup_whose_swift_goes_away_in_the_middle_fails_and_its_objects_go_with_it() {
    let mut kept = Kept::in_swift(1);
    let user = kept.cloud.user("alpha-member", "alpha");
    let volume = user.volume(&kept.cloud.apis[0]);
    for chunk in 0..64 {
        kept.cloud.write(&volume, chunk * 4 * MIB, pattern(7));
    }
    kept.of_service().make("volumebackups").unwrap();
    let backup = ask_for(&user, &kept.cloud.apis[0], &json!({"volume_id": volume}));
    let account = kept.of_service();
    await_that("something is stored", || {
        !account.objects("volumebackups").unwrap().unwrap().is_empty()
    });
    kept.swift.kill().unwrap();
    let api = &kept.cloud.apis[0];
    user.wait_for(api, &format!("/backups/{backup}"), "backup", "error");
    kept.swift.start_again().unwrap();
    let account = kept.of_service();
    let left = account.objects("volumebackups").unwrap().unwrap();
    assert!(!left.is_empty(), "nothing was left to be removed");
    let api = &kept.cloud.apis[0];
    let path = format!("/backups/{backup}");
    assert_eq!(user.ask(api, Method::DELETE, &path).status, 202);
    user.wait_for_status(api, &path, 404);
    let left = account.objects("volumebackups").unwrap().unwrap();
    assert!(left.is_empty(), "{left:?}");
}
