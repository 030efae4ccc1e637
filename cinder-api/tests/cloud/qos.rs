//! Quality of service that the storage keeps to: volumes have the limits that their type says, whatever becomes of the
//! volume, of the type, or of the process that was to set them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_openstack::http::Method;

use crate::cloud::{Api, Cloud, User};

/// How long limits may take that follow a change of specifications.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Makes specifications, and gives their identity.
fn qos(admin: &User, api: &Api, name: &str, specs: &Value) -> String {
    let mut body = specs.clone();
    body["name"] = json!(name);
    let made = admin.send(api, Method::POST, "/qos-specs", json!({"qos_specs": body}));
    let id = made.body["qos_specs"]["id"].as_str();
    id.unwrap_or_else(|| panic!("{} {}", made.status, made.text))
        .to_owned()
}

/// Makes a type that has them, and gives its identity.
fn kind(admin: &User, api: &Api, name: &str, qos: &str) -> String {
    let made = admin.send(
        api,
        Method::POST,
        "/types",
        json!({"volume_type": {"name": name}}),
    );
    let id = made.body["volume_type"]["id"].as_str().unwrap().to_owned();
    associate(admin, api, ("associate", qos), &id);
    id
}

fn associate(admin: &User, api: &Api, (what, qos): (&str, &str), kind: &str) {
    let path = format!("/qos-specs/{qos}/{what}?vol_type_id={kind}");
    assert_eq!(admin.ask(api, Method::GET, &path).status, 202);
}

/// Makes a volume, and waits until it is there.
fn volume(admin: &User, api: &Api, wanted: &Value) -> String {
    let made = admin.send(api, Method::POST, "/volumes", json!({"volume": wanted}));
    let id = made.body["volume"]["id"].as_str();
    let id = id
        .unwrap_or_else(|| panic!("{} {}", made.status, made.text))
        .to_owned();
    admin.wait(api, &id, "available");
    id
}

fn act(admin: &User, api: &Api, volume: &str, action: &Value) {
    let done = admin.send(
        api,
        Method::POST,
        &format!("/volumes/{volume}/action"),
        action.clone(),
    );
    assert_eq!(done.status, 202, "{}", done.text);
    admin.wait(api, volume, "available");
}

/// The limits that the storage keeps to.
fn limits(cloud: &Cloud, volume: &str) -> Value {
    let name = format!("volume-{volume}");
    let told = cloud
        .node
        .storagectl(&["--json", "volume", "info", &name])
        .unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    told["limits"].clone()
}

fn wait_for_limits(cloud: &Cloud, volume: &str, wanted: &Value) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = limits(cloud, volume);
        if found == *wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{found} and not {wanted}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[test]
fn volumes_have_the_limits_that_their_type_says() {
    let cloud = Cloud::start(2);
    let (first, second) = (&cloud.apis[0], &cloud.apis[1]);
    let admin = cloud.user("alpha-admin", "alpha");
    let fixed =
        json!({"consumer": "both", "total_iops_sec": "500", "total_iops_sec_max": "900", "vendor:x": "y"});
    let fixed = qos(&admin, first, "fixed", &fixed);
    let by_size =
        json!({"consumer": "back-end", "write_iops_sec_per_gb": "100", "write_iops_sec_per_gb_min": "150"});
    let by_size = qos(&admin, first, "by-size", &by_size);
    let for_others = qos(
        &admin,
        first,
        "others",
        &json!({"consumer": "front-end", "read_iops_sec": "7"}),
    );
    let gold = kind(&admin, first, "gold", &fixed);
    let grows = kind(&admin, first, "grows", &by_size);
    let free = kind(&admin, first, "free", &for_others);

    let made = volume(&admin, second, &json!({"size": 1, "volume_type": gold}));
    let of_gold = json!({"total_iops_sec": 500, "total_iops_sec_max": 900});
    assert_eq!(limits(&cloud, &made), of_gold);
    let clone = volume(&admin, first, &json!({"size": 1, "source_volid": made}));
    assert_eq!(limits(&cloud, &clone), of_gold);

    act(
        &admin,
        first,
        &made,
        &json!({"os-retype": {"new_type": grows, "migration_policy": "never"}}),
    );
    assert_eq!(limits(&cloud, &made), json!({"write_iops_sec": 150}));
    act(&admin, second, &made, &json!({"os-extend": {"new_size": 3}}));
    assert_eq!(limits(&cloud, &made), json!({"write_iops_sec": 300}));
    act(
        &admin,
        first,
        &made,
        &json!({"os-retype": {"new_type": free, "migration_policy": "never"}}),
    );
    assert_eq!(limits(&cloud, &made), Value::Null);

    // What is said of a type holds for the volumes that are there, too.
    let path = format!("/qos-specs/{fixed}");
    let other = json!({"qos_specs": {"total_iops_sec": "600", "read_bytes_sec": "1000000"}});
    assert_eq!(admin.send(second, Method::PUT, &path, other).status, 200);
    let of_gold = json!({"total_iops_sec": 600, "total_iops_sec_max": 900, "read_bytes_sec": 1_000_000});
    wait_for_limits(&cloud, &clone, &of_gold);
    associate(&admin, first, ("disassociate", &fixed), &gold);
    wait_for_limits(&cloud, &clone, &Value::Null);
    associate(&admin, first, ("associate", &by_size), &gold);
    wait_for_limits(&cloud, &clone, &json!({"write_iops_sec": 150}));

    // What could not be kept to is refused, unless it is the hypervisor's business.
    for (consumer, status) in [("back-end", 400), ("both", 400), ("front-end", 200)] {
        for (number, specs) in [
            json!({"total_iops_sec": "many"}),
            json!({"read_bytes_sec_per_gb": "-1"}),
            json!({"write_iops_sec": "10", "write_iops_sec_max": "9"}),
        ]
        .iter()
        .enumerate()
        {
            let mut body = specs.clone();
            body["name"] = json!(format!("{consumer}-{number}"));
            body["consumer"] = json!(consumer);
            let answer = admin.send(first, Method::POST, "/qos-specs", json!({"qos_specs": body}));
            assert_eq!(answer.status, status, "{}", answer.text);
        }
    }
}

#[test]
fn limits_that_a_process_promised_before_it_was_killed_another_one_sets() {
    let mut cloud = Cloud::start(2);
    let admin = cloud.user("alpha-admin", "alpha");
    let specs = json!({"consumer": "back-end", "total_iops_sec": "500"});
    let specs = qos(&admin, &cloud.apis[0], "slow", &specs);
    let kind = kind(&admin, &cloud.apis[0], "slow", &specs);
    let volumes: Vec<String> = (0..3)
        .map(|_| volume(&admin, &cloud.apis[0], &json!({"size": 1, "volume_type": kind})))
        .collect();
    // The storage stands still, so that nothing is set before the kill.
    cloud.node.storaged().freeze().unwrap();
    let path = format!("/qos-specs/{specs}");
    let other = json!({"qos_specs": {"total_iops_sec": "50"}});
    assert_eq!(admin.send(&cloud.apis[0], Method::PUT, &path, other).status, 200);
    cloud.apis[0].process.kill().unwrap();
    cloud.node.storaged().thaw().unwrap();
    for volume in &volumes {
        wait_for_limits(&cloud, volume, &json!({"total_iops_sec": 50}));
    }
}
