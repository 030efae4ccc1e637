//! The Keystone of tests is a real one: tokens are what they should be to the service that asks about them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::LazyLock;

use serde_json::Value;
use test_openstack::http::Question;
use test_openstack::{AccessRule, Keystone};

/// One for all tests: it takes seconds to start. Its folder is left to the system.
static KEYSTONE: LazyLock<Keystone> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    Keystone::start(&folder.keep()).unwrap()
});

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap();
    let mut names: Vec<_> = list.iter().map(|item| item["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_service_learns_who_a_token_is_for() {
    let token = KEYSTONE.token("alpha-member", "alpha").unwrap();
    let answer = KEYSTONE.validate(&token).unwrap();
    assert_eq!(answer.status, 200);
    let said = &answer.body["token"];
    assert_eq!(said["user"]["name"], "alpha-member");
    assert_eq!(said["project"]["id"], KEYSTONE.project_id("alpha").unwrap());
    assert_eq!(names(&said["roles"]), ["member", "reader"]);
    let service = KEYSTONE.validate(&KEYSTONE.service_token().unwrap()).unwrap();
    assert!(names(&service.body["token"]["roles"]).contains(&"service"));
    assert!(KEYSTONE.token("alpha-member", "beta").is_err());
}

#[test]
fn the_service_is_in_the_catalogue_where_it_was_registered_last() {
    KEYSTONE.register("http://127.0.0.1:1/v3").unwrap();
    KEYSTONE.register("http://127.0.0.1:2/v3/%(project_id)s").unwrap();
    let token = KEYSTONE.token("beta-reader", "beta").unwrap();
    let project = KEYSTONE.project_id("beta").unwrap();
    let answer = KEYSTONE.validate(&token).unwrap();
    let catalogue = answer.body["token"]["catalog"].as_array().unwrap();
    for kind in ["block-storage", "volumev3"] {
        let services: Vec<_> = catalogue
            .iter()
            .filter(|service| service["type"] == kind)
            .collect();
        assert_eq!(services.len(), 1, "{kind}");
        let endpoints = services[0]["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 3, "{kind}");
        for endpoint in endpoints {
            assert_eq!(endpoint["url"], format!("http://127.0.0.1:2/v3/{project}"));
        }
    }
    let own = catalogue
        .iter()
        .find(|service| service["type"] == "identity")
        .unwrap();
    assert_eq!(own["endpoints"][0]["url"], KEYSTONE.url());
}

#[test]
fn a_revoked_token_is_worth_nothing() {
    let token = KEYSTONE.token("alpha-reader", "alpha").unwrap();
    assert_eq!(KEYSTONE.validate(&token).unwrap().status, 200);
    KEYSTONE.revoke(&token).unwrap();
    assert_eq!(KEYSTONE.validate(&token).unwrap().status, 404);
}

#[test]
fn an_unscoped_token_is_for_no_project() {
    let token = KEYSTONE.unscoped_token("alpha-admin").unwrap();
    let answer = KEYSTONE.validate(&token).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body["token"].get("project").is_none());
    assert!(answer.body["token"].get("catalog").is_none());
}

#[test]
fn an_application_credential_tells_its_rules() {
    let rule = AccessRule {
        service: "block-storage",
        method: "GET",
        path: "/v3/*/volumes",
    };
    let limited = KEYSTONE
        .application_credential("beta-member", "beta", &[rule])
        .unwrap();
    let said = KEYSTONE.validate(&KEYSTONE.token_of(&limited).unwrap()).unwrap();
    let rules = &said.body["token"]["application_credential"]["access_rules"];
    assert_eq!(rules[0]["path"], "/v3/*/volumes", "{}", said.text);
    let free = KEYSTONE
        .application_credential("beta-member", "beta", &[])
        .unwrap();
    let said = KEYSTONE.validate(&KEYSTONE.token_of(&free).unwrap()).unwrap();
    assert!(
        said.body["token"]["application_credential"]
            .get("access_rules")
            .is_none()
    );
}

#[tokio::test]
async fn an_asynchronous_test_may_ask_too() {
    let answer = Question::get(KEYSTONE.url()).ask().unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["version"]["status"], "stable");
}
