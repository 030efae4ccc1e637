//! What `cinder-api` tells Prometheus: what the document lists, and what has happened.

use serde_json::json;
use test_node::metrics::{documented, served};
use test_openstack::http::{Method, Question};

use crate::cloud::{Api, Cloud, until};

/// A sample's value; nothing if there is no such sample.
fn sample(api: &Api, name: &str) -> Option<f64> {
    let text = api.metrics();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

#[test]
fn metrics_are_those_of_the_document_and_count_what_happens() {
    let cloud = Cloud::start(2);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    // Whichever process has the job counts it.
    let volume = user.volume(api);
    for _ in 0..3 {
        assert_eq!(
            user.ask(api, Method::GET, &format!("/volumes/{volume}")).status,
            200
        );
    }
    assert_eq!(user.ask(api, Method::GET, "/volumes/none").status, 404);
    assert_eq!(user.ask(api, Method::GET, "/no/such/path").status, 404);
    let admin = cloud.user("alpha-admin", "alpha");
    assert_eq!(
        admin.ask(api, Method::GET, "/scheduler-stats/get_pools").status,
        200
    );
    let expected = documented("cinder-api");
    assert!(expected.len() > 10, "the table was not found");
    let made: f64 = cloud
        .apis
        .iter()
        .filter_map(|api| {
            sample(
                api,
                r#"cinder_api_jobs_total{kind="create_volume",outcome="done"}"#,
            )
        })
        .sum();
    assert!((made - 1.0).abs() < 0.1, "{made} volumes were made");
    let doer = cloud
        .apis
        .iter()
        .find(|api| api.metrics().contains("create_volume"));
    for (name, meaning) in served(&doer.unwrap().metrics()) {
        // A process that was asked nothing has no samples of some, and so no labels.
        let (kind, labels, help) = &expected[&name];
        assert_eq!((kind, help), (&meaning.0, &meaning.2), "{name}");
        assert!(meaning.1.is_subset(labels), "{name}: {:?}", meaning.1);
    }
    let text = api.metrics();
    for line in [
        r#"cinder_api_requests_total{method="GET",route="/volumes/{id}",status="404"} 1"#.to_owned(),
        r#"cinder_api_requests_total{method="GET",route="none",status="404"} 1"#.to_owned(),
        r#"cinder_api_requests_total{method="POST",route="/volumes",status="202"} 1"#.to_owned(),
        r#"cinder_api_records{kind="volume"} 1"#.to_owned(),
        "cinder_api_processes 2".to_owned(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert_eq!(
        served(&text).keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    let shown = sample(
        api,
        r#"cinder_api_request_seconds_count{method="GET",route="/volumes/{id}"}"#,
    );
    assert!(shown.unwrap() >= 4.0, "{shown:?}");
    assert!(sample(api, r#"cinder_api_calls_total{to="keystone"}"#).unwrap() >= 2.0);
    assert!(sample(api, r#"cinder_api_calls_total{to="records"}"#).unwrap() >= 2.0);
}

#[test]
fn questions_that_nobody_answers_are_counted_and_a_process_that_died_is_not() {
    let mut cloud = Cloud::start(2);
    let admin = cloud.user("alpha-admin", "alpha");
    let failed = r#"cinder_api_call_errors_total{to="storage"}"#;
    assert_eq!(
        admin
            .ask(&cloud.apis[0], Method::GET, "/scheduler-stats/get_pools")
            .status,
        200
    );
    assert_eq!(sample(&cloud.apis[0], failed), Some(0.0));
    cloud.node.kill().unwrap();
    let away = admin.ask(&cloud.apis[0], Method::GET, "/scheduler-stats/get_pools");
    assert_eq!(away.status, 503, "{}", away.text);
    assert_eq!(sample(&cloud.apis[0], failed), Some(1.0));
    let kept = admin.send(
        &cloud.apis[0],
        Method::POST,
        "/volumes",
        json!({"volume": {"size": 1}}),
    );
    assert_eq!(kept.status, 202, "{}", kept.text);
    cloud.apis[1].process.kill().unwrap();
    until("the dead process is counted no more", || {
        sample(&cloud.apis[0], "cinder_api_processes") == Some(1.0)
    });
    let waiting = |state: &str| {
        let name = format!("cinder_api_jobs{{kind=\"create_volume\",state=\"{state}\"}}");
        sample(&cloud.apis[0], &name).unwrap_or(0.0)
    };
    until("the job that waits for the storage is there", || {
        waiting("running") > 0.5
    });
}

#[test]
fn the_document_and_the_health_are_for_anybody_and_metrics_have_a_place_of_their_own() {
    let cloud = Cloud::start(1);
    let url = &cloud.apis[0].url;
    let document = Question::get(format!("{url}/openapi.json")).expect(200).unwrap();
    assert_eq!(document.body["openapi"], "3.1.0");
    assert_eq!(document.body["info"]["version"], "3.71");
    let older = Question::get(format!("{url}/openapi.json?version=3.11"))
        .expect(200)
        .unwrap();
    assert_eq!(older.body["paths"]["/v3/groups"], json!(null));
    assert!(older.body["paths"]["/v3/group_types"].is_object());
    Question::get(format!("{url}/openapi.json?version=3.72"))
        .expect(400)
        .unwrap();
    Question::get(format!("{url}/healthcheck")).expect(200).unwrap();
    Question::get(format!("{url}/v1/metrics")).expect(404).unwrap();
    Question::new(Method::POST, format!("{url}/healthcheck"))
        .expect(405)
        .unwrap();
}
