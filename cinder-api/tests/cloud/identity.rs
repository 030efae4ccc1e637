//! Who asks, and what is answered to whom.

use std::sync::Arc;

use serde_json::json;
use test_openstack::AccessRule;
use test_openstack::http::{Method, Question};

use crate::cloud::{Cloud, User};

#[test]
fn tokens_count_as_long_as_keystone_vouches_for_them() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let volumes = format!("{}/v3/volumes", api.url);
    let refused = Question::get(&volumes).expect(401).unwrap();
    assert_eq!(refused.body["error"]["title"], "Unauthorized");
    let told = refused.header("www-authenticate").unwrap();
    assert!(told.contains(&cloud.keystone.url()), "{told}");
    Question::get(&volumes).token("nonsense").expect(401).unwrap();
    let user = cloud.user("alpha-reader", "alpha");
    assert_eq!(user.ask(api, Method::GET, "/volumes").status, 200);
    cloud.keystone.revoke(&user.token).unwrap();
    // The answer about a token is believed for a second here.
    user.wait_for_status(api, "/volumes", 401);
}

#[test]
fn a_token_without_a_project_has_nothing_to_do_here() {
    let cloud = Cloud::start(1);
    let token = cloud.keystone.unscoped_token("alpha-member").unwrap();
    let user = User { token };
    assert_eq!(user.ask(&cloud.apis[0], Method::GET, "/volumes").status, 403);
}

#[test]
fn projects_do_not_see_each_other_and_readers_change_nothing() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let alpha = cloud.user("alpha-member", "alpha");
    let id = alpha.volume(api);
    let path = format!("/volumes/{id}");
    let beta = cloud.user("beta-member", "beta");
    assert_eq!(beta.ask(api, Method::GET, &path).status, 404);
    assert_eq!(beta.ask(api, Method::DELETE, &path).status, 404);
    let listed = beta.ask(api, Method::GET, "/volumes?all_tenants=1");
    assert_eq!(listed.body["volumes"], json!([]));
    let reader = cloud.user("alpha-reader", "alpha");
    assert_eq!(reader.ask(api, Method::GET, &path).status, 200);
    let refused = reader.ask(api, Method::DELETE, &path);
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.body["forbidden"]["message"],
        "Policy doesn't allow volume:delete to be performed."
    );
    let refused = reader.send(api, Method::POST, "/volumes", json!({"volume": {"size": 1}}));
    assert_eq!(refused.status, 403, "{}", refused.text);
    let admin = cloud.user("beta-admin", "beta");
    assert_eq!(admin.ask(api, Method::GET, &path).status, 200);
    // The path's project is the token's, for administrators too.
    let own = cloud.keystone.project_id("alpha").unwrap();
    assert_eq!(
        alpha.ask(api, Method::GET, &format!("/{own}/volumes")).status,
        200
    );
    assert_eq!(
        admin.ask(api, Method::GET, &format!("/{own}/volumes")).status,
        400
    );
}

#[test]
fn the_log_says_who_has_changed_what_and_whether_it_was_done() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let project = cloud.keystone.project_id("alpha").unwrap();
    for (name, wanted) in [("alpha-member", 202), ("alpha-reader", 403)] {
        let user = cloud.user(name, "alpha");
        let answer = user.send(api, Method::POST, "/volumes", json!({"volume": {"size": 1}}));
        assert_eq!(answer.status, wanted, "{}", answer.text);
        let user = cloud.keystone.user_id(name).unwrap();
        let words = [
            "method=POST".to_owned(),
            format!("user=\"{user}\""),
            format!("project=\"{project}\""),
            "admin=false".to_owned(),
            format!("status={wanted}"),
        ];
        let log = api.log();
        let told = log
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        assert!(told, "{words:?} is not in one line of {log}");
    }
}

#[test]
fn an_application_credential_opens_what_its_rules_say() {
    let cloud = Cloud::start(1);
    let rules = [AccessRule {
        service: "block-storage",
        method: "GET",
        path: "/v3/volumes/detail",
    }];
    let credential = cloud
        .keystone
        .application_credential("alpha-member", "alpha", &rules)
        .unwrap();
    let user = User {
        token: cloud.keystone.token_of(&credential).unwrap(),
    };
    assert_eq!(
        user.ask(&cloud.apis[0], Method::GET, "/volumes/detail").status,
        200
    );
    assert_eq!(user.ask(&cloud.apis[0], Method::GET, "/volumes").status, 401);
}

#[test]
fn discovery_and_versions() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let found = Question::get(format!("{}/", api.url)).expect(300).unwrap();
    assert_eq!(found.body["versions"][0]["version"], "3.71");
    assert_eq!(
        found.body["versions"][0]["links"][1]["href"],
        format!("{}/v3/", api.url)
    );
    let user = cloud.user("alpha-member", "alpha");
    let ask = |version: &str| {
        let question = Question::get(format!("{}/v3/volumes", api.url)).token(&user.token);
        question.header("OpenStack-API-Version", version).ask().unwrap()
    };
    let answer = ask("volume 3.42");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("openstack-api-version"), Some("volume 3.42"));
    assert_eq!(answer.header("vary"), Some("OpenStack-API-Version"));
    assert_eq!(
        answer.header("x-openstack-request-id"),
        answer.header("x-compute-request-id")
    );
    assert!(
        answer
            .header("x-openstack-request-id")
            .unwrap()
            .starts_with("req-")
    );
    assert_eq!(ask("volume 3.99").status, 406);
    assert_eq!(ask("volume 3.99").body["computeFault"]["code"], 406);
    assert_eq!(ask("volume three").status, 400);
}

#[test]
fn without_keystone_nobody_is_let_in_and_with_it_everybody_again() {
    let mut cloud = Cloud::start_alone(1);
    let user = cloud.user("alpha-member", "alpha");
    assert_eq!(user.ask(&cloud.apis[0], Method::GET, "/volumes").status, 200);
    let keystone = Arc::get_mut(&mut cloud.keystone).unwrap();
    keystone.kill().unwrap();
    let stranger = User {
        token: "another-token".to_owned(),
    };
    let refused = stranger.ask(&cloud.apis[0], Method::GET, "/volumes");
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.body["serviceUnavailable"]["code"], 503);
    let keystone = Arc::get_mut(&mut cloud.keystone).unwrap();
    keystone.start_again().unwrap();
    assert_eq!(user.ask(&cloud.apis[0], Method::GET, "/volumes").status, 200);
    assert_eq!(stranger.ask(&cloud.apis[0], Method::GET, "/volumes").status, 401);
}
