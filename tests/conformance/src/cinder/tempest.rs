//! Tempest with Cinder's plugin: configured for a cloud, run, and read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use test_openstack::Environment;
use test_openstack::accounts::{ADMIN, DOMAIN, PASSWORD, REGION};

use super::cloud::Cloud;
use super::outcome::{self, Fate, Outcome};

/// What makes lines of a stream of subunit.
const OUTCOMES: &str = include_str!("outcomes.py");
/// Tests at a time. They mostly wait.
const CONCURRENCY: &str = "2";
/// The tests of volumes.
const ALL: &str = r"tempest\.api\.volume\.|cinder_tempest_plugin\.";
/// Fewer of all tests than this, and something is wrong with how they are found.
const TESTS_MIN: usize = 300;
/// What a cloud of disks and images alone has, beside where it is and who may use it.
const CONFIGURATION: &str = "\
[service_available]
cinder = true
nova = false
glance = true
neutron = false
swift = false
[volume]
catalog_type = block-storage
build_interval = 1
build_timeout = 60
min_microversion = 3.0
max_microversion = 3.71
vendor_name = storaged
storage_protocol = iSCSI
[volume-feature-enabled]
backup = true
snapshot = true
clone = true
multi_backend = false
manage_volume = true
manage_snapshot = true
extend_attached_volume = true
extend_volume_with_snapshot = true
volume_revert = true
concurrency_tests = true
consistency_group = false
[enforce_scope]
cinder = true
keystone = true
";

/// Runs the tests whose names fit, and shows each as it ends, if that is wanted. Every test that was found has one outcome.
pub(super) fn run(cloud: &Cloud, only: Option<&str>, show: bool) -> Result<Vec<Outcome>> {
    let environment = Environment::of("tempest")?;
    let folder = cloud.folder.join("tempest");
    prepare(&folder, cloud, &environment)?;
    let pattern = format!("^(?={ALL})(?=.*(?:{}))", only.unwrap_or(""));
    let listed = command(&environment, &folder, &["--list-tests", "--regex", &pattern]).output()?;
    ensure!(
        listed.status.success(),
        "Tempest finds no tests: {}{}",
        String::from_utf8_lossy(&listed.stdout),
        String::from_utf8_lossy(&listed.stderr)
    );
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let tests: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains('.'))
        .map(outcome::name)
        .collect();
    ensure!(
        only.is_some() || tests.len() >= TESTS_MIN,
        "Tempest finds only {} tests",
        tests.len()
    );
    ensure!(!tests.is_empty(), "no test's name fits {only:?}");
    let said = follow(&environment, &folder, &pattern, show)?;
    Ok(tests.iter().map(|test| fate_of(test, &said)).collect())
}

/// What is said of a test, or else of its class: a class that cannot be set up is told of once for all its tests.
fn fate_of(test: &str, said: &BTreeMap<String, Outcome>) -> Outcome {
    if let Some(outcome) = said.get(test) {
        return outcome.clone();
    }
    let class = test.rsplit_once('.').map_or("", |(class, _)| class);
    let (fate, reason) = match said.get(class) {
        Some(before) if before.fate != Fate::Passed => (before.fate, before.reason.clone()),
        _ => (Fate::Failed, "it did not run".to_owned()),
    };
    Outcome {
        test: test.to_owned(),
        fate,
        reason,
    }
}

/// Runs tests; gives what became of each by its name, and of what came before classes by the name of the class.
fn follow(
    environment: &Environment,
    folder: &Path,
    pattern: &str,
    show: bool,
) -> Result<BTreeMap<String, Outcome>> {
    let arguments = ["--subunit", "--concurrency", CONCURRENCY, "--regex", pattern];
    let log = fs::File::create(folder.join("run.log"))?;
    let mut tests = command(environment, folder, &arguments)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("start Tempest")?;
    let stream = tests.stdout.take().context("no output to read")?;
    let mut reader = Command::new(environment.program("python"))
        .args(["-c", OUTCOMES])
        .stdin(stream)
        .stdout(Stdio::piped())
        .spawn()
        .context("start what reads subunit")?;
    let lines = reader.stdout.take().context("no output to read")?;
    let mut said = BTreeMap::new();
    for line in BufReader::new(lines).lines() {
        let outcome = Outcome::read(&line?)?;
        let class = outcome::class_before(&outcome.test).map(str::to_owned);
        if show {
            println!("{} ... {}", outcome.test, outcome.fate.word());
        }
        said.insert(class.unwrap_or_else(|| outcome.test.clone()), outcome);
    }
    let status = reader.wait()?;
    ensure!(status.success(), "what reads subunit ended with {status}");
    // Its status says only whether all tests passed.
    tests.wait()?;
    Ok(said)
}

/// `tempest run`, in its folder, which is its home.
fn command(environment: &Environment, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(environment.program("tempest"));
    command.arg("run").args(arguments);
    command
        .current_dir(folder)
        .env("HOME", folder)
        .env("TEMPEST_CONFIG_DIR", folder)
        .env("PYTHONWARNINGS", "ignore")
        .stdin(Stdio::null());
    command
}

fn prepare(folder: &Path, cloud: &Cloud, environment: &Environment) -> Result<()> {
    fs::create_dir_all(folder)?;
    let root = environment.packages()?;
    let tests = root.join("tempest/test_discover");
    fs::write(
        folder.join(".stestr.conf"),
        format!(
            "[DEFAULT]\ntest_path={}\ntop_dir={}\ngroup_regex=([^\\.]*\\.)*\n",
            tests.display(),
            root.display()
        ),
    )?;
    // Where its runs are kept. A folder that is used again has it.
    if !folder.join(".stestr").exists() {
        environment.run("stestr", ["init"], folder)?;
    }
    let text = format!(
        "[DEFAULT]\nlog_file = tempest.log\nlog_dir = {0}\n\
         [oslo_concurrency]\nlock_path = {0}/locks\n\
         [auth]\nuse_dynamic_credentials = true\nadmin_username = {ADMIN}\nadmin_password = {PASSWORD}\n\
         admin_project_name = {ADMIN}\nadmin_domain_name = {DOMAIN}\n\
         [identity]\nauth_version = v3\nuri_v3 = {1}\nregion = {REGION}\n\
         [compute]\nimage_ref = {2}\nimage_ref_alt = {2}\n\
         {CONFIGURATION}",
        folder.display(),
        cloud.keystone.url(),
        cloud.image,
    );
    fs::write(folder.join("tempest.conf"), text).context("write Tempest's configuration")
}
