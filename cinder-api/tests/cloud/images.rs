//! Images of a real Glance: volumes from them, and they from volumes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use test_openstack::http::{Method, Question};
use test_openstack::{Glance, Keystone};

use crate::cloud::{Api, Cloud, User, own_keystone};

const MIB: u64 = 1 << 20;

/// A disk of 100 MiB with something at 3 MiB, in a format.
fn disk(folder: &Path, format: &str) -> PathBuf {
    let raw = folder.join("disk.raw");
    let mut bytes = vec![0; 100 << 20];
    bytes[3 << 20..4 << 20].fill(7);
    std::fs::write(&raw, &bytes).unwrap();
    let made = folder.join(format!("disk.{format}"));
    if format != "raw" {
        let mut command = Command::new("qemu-img");
        command
            .args(["convert", "-f", "raw", "-O", format])
            .arg(&raw)
            .arg(&made);
        assert!(command.status().unwrap().success());
    }
    made
}

/// The Glance of all these tests, and the Keystone that has it in its catalogue. Their folder is left to the system.
fn services() -> &'static (Arc<Keystone>, Glance) {
    static OF_ALL: LazyLock<(Arc<Keystone>, Glance)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let keystone = own_keystone(&folder);
        let place = folder.join("glance");
        std::fs::create_dir(&place).unwrap();
        let glance = Glance::start(&place, &keystone).unwrap();
        (keystone, glance)
    });
    &OF_ALL
}

/// A cloud with so many API processes, and that Glance.
fn cloud_with_images(apis: usize) -> (Cloud, &'static Glance) {
    let (keystone, glance) = services();
    (Cloud::start_at(apis, keystone), glance)
}

fn ask_for(user: &User, api: &Api, image: &str) -> String {
    let wanted = json!({"volume": {"size": 1, "imageRef": image}});
    let answer = user.send(api, Method::POST, "/volumes", wanted);
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.body["volume"]["id"].as_str().unwrap().to_owned()
}

fn copies(cloud: &Cloud) -> usize {
    let list = cloud.node.storagectl(&["volume", "list"]).unwrap();
    list.lines().filter(|line| line.starts_with("image-")).count()
}

/// What several tests send at once must not make one of them fail.
#[test]
fn the_glance_of_these_tests_takes_all_images_that_many_upload_at_once() {
    let (keystone, glance) = services();
    let token = keystone.token("alpha-member", "alpha").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image");
    std::fs::write(&file, [7; 512]).unwrap();
    let upload = || glance.upload(&token, "many", "raw", &file);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| [upload(), upload()])).collect();
        for thread in threads {
            let _identities = thread.join().unwrap().map(Result::unwrap);
        }
    });
}

#[test]
fn volumes_of_one_image_at_two_processes_are_clones_of_one_copy() {
    let (cloud, glance) = cloud_with_images(2);
    // The catalogue that a token brings is that of the moment when it was made.
    let user = cloud.user("alpha-member", "alpha");
    let file = disk(cloud.folder(), "qcow2");
    let image = glance.upload(&user.token, "disk", "qcow2", &file).unwrap();
    let made: Vec<String> = (0..4)
        .map(|number| ask_for(&user, &cloud.apis[number % 2], &image))
        .collect();
    for volume in &made {
        user.wait(&cloud.apis[0], volume, "available");
        assert_eq!(cloud.read(volume, 3 * MIB, MIB), vec![7; 1 << 20]);
        assert_eq!(cloud.read(volume, 4 * MIB, MIB), vec![0; 1 << 20]);
    }
    assert_eq!(copies(&cloud), 1);
    let path = "/manageable_volumes?host=storaged%40storaged%23main";
    let manageable = cloud
        .user("alpha-admin", "alpha")
        .ask(&cloud.apis[0], Method::GET, path);
    assert_eq!(manageable.status, 200, "{}", manageable.text);
    assert!(
        !manageable.text.contains("image-"),
        "the copy is nobody's: {}",
        manageable.text
    );
    let path = format!("/volumes/{}", made[0]);
    let shown = user.ask(&cloud.apis[1], Method::GET, &path).body["volume"].clone();
    assert_eq!(shown["bootable"], "true");
    let about: &Value = &shown["volume_image_metadata"];
    assert_eq!(
        (&about["image_id"], &about["disk_format"]),
        (&json!(image), &json!("qcow2"))
    );
    let limits = user.ask(&cloud.apis[0], Method::GET, "/limits");
    assert_eq!(limits.body["limits"]["absolute"]["totalVolumesUsed"], 4);
}

#[test]
fn a_volume_becomes_an_image_of_which_the_same_volume_is_made() {
    let (cloud, glance) = cloud_with_images(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(api);
    cloud.write(&volume, 9 * MIB, vec![3; 65_536]);
    let action = format!("/volumes/{volume}/action");
    let wanted = json!({"os-volume_upload_image": {"image_name": "mine", "disk_format": "qcow2"}});
    let answer = user.send(api, Method::POST, &action, wanted);
    assert_eq!(answer.status, 202, "{}", answer.text);
    let image = answer.body["os-volume_upload_image"]["image_id"]
        .as_str()
        .unwrap();
    user.wait(api, &volume, "available");
    let path = format!("{}/v2/images/{image}", glance.url());
    let about = Question::get(path).token(&user.token).expect(200).unwrap();
    assert_eq!(about.body["status"], "active", "{}", about.text);
    let again = ask_for(&user, api, image);
    user.wait(api, &again, "available");
    assert_eq!(cloud.read(&again, 9 * MIB, 65_536), vec![3; 65_536]);
    // And over another one.
    let other = user.volume(api);
    cloud.write(&other, 0, vec![5; 65_536]);
    let wanted = json!({"os-reimage": {"image_id": image}});
    let answer = user.send(api, Method::POST, &format!("/volumes/{other}/action"), wanted);
    assert_eq!(answer.status, 202, "{}", answer.text);
    user.wait(api, &other, "available");
    assert_eq!(cloud.read(&other, 9 * MIB, 65_536), vec![3; 65_536]);
    assert_eq!(cloud.read(&other, 0, 65_536), vec![0; 65_536]);
}

#[test]
fn an_image_that_is_damaged_or_lies_becomes_no_volume() {
    let (cloud, glance) = cloud_with_images(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let file = disk(cloud.folder(), "qcow2");
    let damaged = glance.upload(&user.token, "damaged", "qcow2", &file).unwrap();
    let mut bytes = std::fs::read(glance.file(&damaged)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(glance.file(&damaged), &bytes).unwrap();
    let lies = glance.upload(&user.token, "lies", "raw", &file).unwrap();
    for image in [&damaged, &lies] {
        let volume = ask_for(&user, api, image);
        user.wait(api, &volume, "error");
        let path = format!("/messages?resource_uuid={volume}");
        let messages = user.ask(api, Method::GET, &path);
        let said = messages.body["messages"][0]["user_message"].as_str();
        assert_eq!(
            said,
            Some("copy image to volume:Failed to copy image to volume."),
            "{}",
            messages.text
        );
    }
    assert_eq!(copies(&cloud), 0);
    let unknown = json!({"volume": {"size": 1, "imageRef": "11111111-2222-4333-8444-555555555555"}});
    assert_eq!(user.send(api, Method::POST, "/volumes", unknown).status, 400);
}

#[test]
fn a_copy_that_a_process_began_before_it_was_killed_another_one_makes() {
    let (mut cloud, glance) = cloud_with_images(2);
    let user = cloud.user("alpha-member", "alpha");
    let file = disk(cloud.folder(), "qcow2");
    let image = glance.upload(&user.token, "disk", "qcow2", &file).unwrap();
    // The storage stands still, so that no copy is whole before the kill.
    cloud.node.storaged().freeze().unwrap();
    let volume = ask_for(&user, &cloud.apis[0], &image);
    cloud.apis[0].process.kill().unwrap();
    cloud.node.storaged().thaw().unwrap();
    let api = &cloud.apis[1];
    user.wait(api, &volume, "available");
    assert_eq!(cloud.read(&volume, 3 * MIB, MIB), vec![7; 1 << 20]);
    assert_eq!(copies(&cloud), 1);
}
