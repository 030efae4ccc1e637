//! Nova's own code does with volumes what Nova does, over iSCSI gateways that are there; and our driver for it, among its classes.

use std::path::Path;

use serde_json::json;
use test_openstack::Environment;
use test_openstack::accounts::{NOVA, PASSWORD};
use test_openstack::http::Method;

use crate::cloud::Cloud;

/// Attach, live migration, detach, and all else that Nova asks of Cinder.
const PROGRAM: &str = include_str!("nova.py");

#[test]
fn nova_attaches_migrates_and_detaches() {
    let cloud = Cloud::start_alone(2);
    let _gateway = cloud.gateway();
    let api = &cloud.apis[0];
    cloud
        .keystone
        .register(&format!("{}/v3", cloud.apis[1].url))
        .unwrap();
    let admin = cloud.user("alpha-admin", "alpha");
    let shared = json!({"volume_type": {"name": "shared", "extra_specs": {"multiattach": "<is> True"}}});
    assert_eq!(admin.send(api, Method::POST, "/types", shared).status, 200);
    let user = cloud.user("alpha-member", "alpha");
    let volume = user.volume(api);
    let wanted = json!({"volume": {"size": 1, "volume_type": "shared"}});
    let shared = user.send(api, Method::POST, "/volumes", wanted);
    let shared = shared.body["volume"]["id"].as_str().unwrap().to_owned();
    user.wait(api, &shared, "available");
    let keystone = cloud.keystone.url();
    let arguments = [
        "-W",
        "ignore",
        "-c",
        PROGRAM,
        &keystone,
        "alpha-member",
        PASSWORD,
        "alpha",
        NOVA,
        &volume,
        &shared,
    ];
    let said = Environment::of("nova")
        .unwrap()
        .run("python", arguments, cloud.node.folder())
        .unwrap();
    assert!(said.contains("as Nova wants it"), "{said}");
}

#[test]
fn the_driver_for_nova_passes_its_own_tests() {
    let driver = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/nova"));
    // Compiled files are not left in the sources.
    let arguments = [
        "-B", "-W", "ignore", "-m", "unittest", "discover", "-s", "tests", "-t", ".",
    ];
    Environment::of("nova")
        .unwrap()
        .run("python", arguments, driver)
        .unwrap();
}
