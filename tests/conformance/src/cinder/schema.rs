//! What is asked for by whoever has read nothing but the document of the API: schemathesis makes requests from its schemas, good
//! ones and bad ones, and compares the answers with it. It does not know what the API is for.
//!
//! A request may find something: there are a volume, a snapshot and more, made before, whose identities are put into paths.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_openstack::Environment;
use test_openstack::accounts::PROJECTS;
use test_openstack::http::{Method, Question};

use super::cloud::{Cloud, Server};
use crate::suite::Tally;
use crate::tool::bounded_by;

/// Who asks.
const ROLES: [&str; 2] = ["member", "admin"];
/// The versions whose documents are gone by: the newest, the oldest, and those in which clients and Nova ask.
const VERSIONS: [&str; 4] = ["3.71", "3.0", "3.27", "3.44"];
/// Requests for each path and method: in a brief run, and else.
const EXAMPLES: [u32; 2] = [4, 15];
/// No run takes longer than this, in seconds.
const SECONDS_MAX: u32 = 1800;
/// How long an answer may take, in seconds: longer than `cinder-api` may.
const ANSWER_SECONDS_MAX: u32 = 190;
/// What must hold of each answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance";
/// What must hold beside these in the newest version. In older ones a method that came later is answered with 404, as by Cinder,
/// and not as one that the path has not.
const CHECK_OF_THE_NEWEST: &str = ",unsupported_method";
/// Actions whose answers have something in them only in some cases, and no type of content in the others.
const SOMETIMES_EMPTY: [&str; 2] = ["/v3/volumes/{id}/action", "/v3/os-services/{action}"];
/// Where a status from 500 up is what Cinder answers to what is not there.
const UNAVAILABLE: [&str; 2] = ["/v3/os-volume-manage", "/v3/manageable_volumes"];
/// How long something may take to be there that is asked for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What to run.
pub struct Wanted {
    /// Who serves the API.
    pub server: Server,
    /// Where configurations and logs are left.
    pub keep: Option<PathBuf>,
    /// Little of it.
    pub brief: bool,
    /// What the examples begin from.
    pub seed: u32,
}

/// Asks as each role, by the document of each version.
pub fn run(wanted: &Wanted) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = perform(wanted, &mut tally) {
        tally.fail("schemathesis", &error);
    }
    tally
}

fn perform(wanted: &Wanted, tally: &mut Tally) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let environment = Environment::of("schemathesis")?;
    let cloud = Cloud::start(wanted.keep.as_deref().unwrap_or(temporary.path()), &wanted.server)?;
    let versions = if wanted.brief {
        &VERSIONS[..1]
    } else {
        &VERSIONS[..]
    };
    for version in versions {
        for role in ROLES {
            let name = format!("schemathesis, version {version}, as {role}");
            match follow(&environment, &cloud, wanted, (version, role)) {
                Ok(told) => {
                    println!("{name} ... ok ({told})");
                    tally.passed += 1;
                }
                Err(error) => tally.fail(&name, &error),
            }
        }
    }
    Ok(())
}

/// Asks in one role by the document of one version. Gives what was asked, in words.
fn follow(
    environment: &Environment,
    cloud: &Cloud,
    wanted: &Wanted,
    (version, role): (&str, &str),
) -> Result<String> {
    let folder = cloud.folder.join(format!("schema-{version}-{role}"));
    fs::create_dir_all(&folder)?;
    let project = PROJECTS[0];
    let token = cloud.keystone.token(&format!("{project}-{role}"), project)?;
    let things = Things::make(cloud, project)?;
    fs::write(folder.join("schemathesis.toml"), things.configuration())?;
    let report = folder.join("report.xml");
    let [few, many] = EXAMPLES;
    let is_newest = version == VERSIONS[0];
    let checks = format!("{CHECKS}{}", if is_newest { CHECK_OF_THE_NEWEST } else { "" });
    let mut command: Command = bounded_by(SECONDS_MAX, environment.program("schemathesis"));
    command
        .args(["--config-file", "schemathesis.toml", "run"])
        .arg(format!("{}/openapi.json?version={version}", cloud.url))
        .args(["--header", &format!("X-Auth-Token: {token}")])
        // Without it a request is one of version 3.0, whatever the document is of.
        .args(["--header", &format!("OpenStack-API-Version: volume {version}")])
        .args(["--checks", &checks])
        .args([
            "--seed",
            &wanted.seed.to_string(),
            "--generation-database",
            "none",
        ])
        .args(["--no-color", "--warnings", "off"])
        .args(["--request-timeout", &ANSWER_SECONDS_MAX.to_string()])
        .args([
            "--phases",
            if wanted.brief {
                "fuzzing"
            } else {
                "coverage,fuzzing"
            },
        ])
        .args([
            "--max-examples",
            &(if wanted.brief { few } else { many }).to_string(),
        ])
        .arg("--continue-on-failure")
        .arg("--report-junit-path")
        .arg(&report)
        .current_dir(&folder)
        .env("HOME", &folder)
        .stdin(Stdio::null());
    let output = command.output().context("start schemathesis")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    fs::write(folder.join("said.txt"), &said)?;
    ensure!(
        output.status.success(),
        "{}: {said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    summary(&said)
}

/// How much was asked, from what schemathesis says at its end; a run that asked nothing is an error.
fn summary(said: &str) -> Result<String> {
    let line = said.lines().rev().find(|line| line.contains("generated"));
    let line = line.with_context(|| format!("it does not say what it asked: {said}"))?;
    Ok(line.trim().to_owned())
}

/// What requests find.
struct Things {
    volumes: Vec<String>,
    snapshot: String,
    kind: String,
    group_kind: String,
    project: String,
}

impl Things {
    fn make(cloud: &Cloud, project: &str) -> Result<Self> {
        let token = cloud.keystone.token(&format!("{project}-admin"), project)?;
        let make = Maker { cloud, token };
        let project = cloud.keystone.project_id(project)?;
        let unlimited = json!({"quota_set": {"volumes": -1, "gigabytes": -1, "snapshots": -1, "groups": -1}});
        make.ask(Method::PUT, &format!("/os-quota-sets/{project}"), unlimited)?;
        let mut volumes = Vec::new();
        for name in ["one", "two"] {
            let volume = make.make("/volumes", "volume", &json!({"size": 1, "name": name}))?;
            make.wait(&format!("/volumes/{volume}"), "volume")?;
            volumes.push(volume);
        }
        let snapshot = make.make("/snapshots", "snapshot", &json!({"volume_id": volumes[0]}))?;
        make.wait(&format!("/snapshots/{snapshot}"), "snapshot")?;
        let unique = &volumes[0];
        Ok(Self {
            kind: make.make(
                "/types",
                "volume_type",
                &json!({"name": format!("type-{unique}")}),
            )?,
            group_kind: make.make(
                "/group_types",
                "group_type",
                &json!({"name": format!("group-{unique}")}),
            )?,
            volumes,
            snapshot,
            project,
        })
    }

    /// What schemathesis puts into paths, and where it does not look at the type of content.
    fn configuration(&self) -> String {
        let mut text = String::new();
        let of = |path: &str, parameter: &str, ids: &[&String]| {
            format!(
                "[[operations]]\ninclude-path-regex = \"^/v3/{path}/\"\nparameters = {{ {parameter} = {ids:?} }}\n"
            )
        };
        let volumes: Vec<&String> = self.volumes.iter().collect();
        text.push_str(&of("volumes", "id", &volumes));
        text.push_str(&of("snapshots", "id", &[&self.snapshot]));
        text.push_str(&of("types", "id", &[&self.kind]));
        text.push_str(&of("group_types", "id", &[&self.group_kind]));
        text.push_str(&of("os-quota-sets", "project", &[&self.project]));
        text.push_str(&of("default-types", "project", &[&self.project]));
        let quiet = SOMETIMES_EMPTY.map(|path| {
            format!(
                "[[operations]]\ninclude-path = \"{path}\"\nchecks.content_type_conformance.enabled = false\n\
                 checks.response_schema_conformance.enabled = false\n"
            )
        });
        let unavailable = UNAVAILABLE.map(|path| {
            format!(
                "[[operations]]\ninclude-path = \"{path}\"\ninclude-method = \"POST\"\n\
                 checks.not_a_server_error.expected-statuses = [\"2xx\", \"4xx\", 503]\n"
            )
        });
        text.extend(quiet);
        text.extend(unavailable);
        text
    }
}

/// Makes what requests find.
struct Maker<'a> {
    cloud: &'a Cloud,
    token: String,
}

impl Maker<'_> {
    fn question(&self, method: Method, path: &str) -> Question {
        let question = Question::new(method, format!("{}/v3{path}", self.cloud.url)).token(&self.token);
        question.header("OpenStack-API-Version", "volume 3.71")
    }

    fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let answer = self.question(method, path).body(body).ask()?;
        ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.text);
        Ok(answer.body)
    }

    fn make(&self, path: &str, name: &str, fields: &Value) -> Result<String> {
        let made = self.ask(Method::POST, path, json!({name: fields}))?;
        let id = made[name]["id"].as_str();
        Ok(id.with_context(|| format!("{path} gave {made}"))?.to_owned())
    }

    /// Waits until something is available.
    fn wait(&self, path: &str, name: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.question(Method::GET, path).expect(200)?;
            if shown.body[name]["status"] == "available" {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{path} does not become available: {}",
                shown.text
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}
