//! cinder-api beside the real Cinder: the same requests in turns, with as many volumes in both.
//!
//! Both ask the same Keystone. What cinder-api takes includes etcd; what Cinder takes is its one process with its database
//! in a file, which is more than fair to it: no message bus, no database server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cinder_api::records::volume::{AttachStatus, VolumeStatus};
use cinder_api::records::{Instant as Moment, Records, RecordsError, Volume};
use comfy_table::{Table, presets};
use coordination::etcd::Options as EtcdOptions;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use test_node::{Etcd, Node, Process};
use test_openstack::accounts::{CINDER, PASSWORD};
use test_openstack::{Environment, Keystone, Port, Reference};

use crate::machine;
use crate::process::cpu_seconds;

/// Volumes in one transaction: each is a condition and a change.
const VOLUMES_A_TRANSACTION: usize = 100;
/// Volumes of the project that asks; the others have what is left.
const OWN_VOLUMES: usize = 2000;
/// Requests at once, where many are.
const AT_ONCE: usize = 200;

/// The real one takes many times as long: this part of the requests is enough for its figures, and so many at least.
const CINDER_PART: usize = 50;
/// See [`CINDER_PART`].
const CINDER_LEAST: usize = 20;

/// How `openstack` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where everything keeps its files. Emptied by the end.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Volumes that there are.
    #[arg(long, default_value_t = 100_000)]
    volumes: usize,
    /// Projects that they belong to.
    #[arg(long, default_value_t = 1000)]
    projects: usize,
    /// How often each pattern is taken of each service; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests of a pattern in a round.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Leave the real Cinder out.
    #[arg(long)]
    alone: bool,
}

/// A service that is asked.
struct Service {
    name: &'static str,
    url: String,
    processes: Vec<u32>,
    /// A volume of the project that asks.
    volume: String,
}

/// What is asked.
struct Pattern {
    name: &'static str,
    path: String,
    depth: usize,
}

/// What a round took.
#[derive(Clone, Copy, Default)]
struct Figures {
    median_ms: f64,
    p99_ms: f64,
    per_second: f64,
    cpu_us: f64,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = machine::stage(&options.directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(directory.path(), options))
}

async fn measure(directory: &Path, options: &Options) -> Result<()> {
    let keystone_folder = directory.join("keystone");
    std::fs::create_dir(&keystone_folder)?;
    let keystone = Keystone::start(&keystone_folder)?;
    let project = keystone.project_id("alpha")?;
    let token = keystone.token("alpha-admin", "alpha")?;
    let etcd = Etcd::start(1)?;
    let node = Node::start(3)?;
    node.storagectl(&["pool", "create", "main", "--copies", "3"])?;
    let mut api = start_api(directory, &keystone, &etcd, &node)?;
    let began = Instant::now();
    let volume = fill(&etcd, &project, options).await?;
    println!(
        "{} volumes of {} projects written in {:.1} s",
        options.volumes,
        options.projects,
        began.elapsed().as_secs_f64()
    );
    drop(api);
    let began = Instant::now();
    api = start_api(directory, &keystone, &etcd, &node)?;
    println!(
        "cinder-api starts with them in {:.2} s and has {} MiB",
        began.elapsed().as_secs_f64(),
        resident_mib(api.process.id())?
    );
    let mut services = vec![Service {
        name: "cinder-api",
        url: api.url.clone(),
        processes: [vec![api.process.id()], etcd.ids()].concat(),
        volume,
    }];
    let reference;
    if !options.alone {
        let folder = directory.join("reference");
        reference = Reference::start(&folder, &keystone)?;
        let volume = fill_reference(&folder, &reference, &token, &project, options).await?;
        services.push(Service {
            name: "Cinder",
            url: reference.url().to_owned(),
            processes: vec![reference.id()],
            volume,
        });
    }
    let rows = rounds(&services, &token, options).await?;
    print(&services, &rows);
    println!(
        "cinder-api has {} MiB at the end",
        resident_mib(api.process.id())?
    );
    println!("load at the end: {}", machine::load());
    Ok(())
}

struct Api {
    process: Process,
    url: String,
}

fn start_api(directory: &Path, keystone: &Keystone, etcd: &Etcd, node: &Node) -> Result<Api> {
    let address = Port::find()?.leave();
    let configuration = format!(
        "listen = [\"{address}\"]\n\
         [keystone]\nauth_url = \"{}\"\nusername = \"{CINDER}\"\npassword = \"{PASSWORD}\"\n\
         [records]\netcd = {:?}\n[storage]\nadmin_socket = \"{}\"\n",
        keystone.url(),
        etcd.endpoints(),
        node.admin_socket().display(),
    );
    let path = directory.join("cinder-api.toml");
    std::fs::write(&path, configuration)?;
    let path = path.display().to_string();
    let mut process = Process::start(
        "cinder-api",
        ["--config", &path],
        &directory.join("cinder-api.log"),
    )?;
    let url = format!("http://{address}");
    let healthy = test_openstack::http::Question::get(format!("{url}/healthcheck"));
    process.wait_for("cinder-api to answer", || healthy.expect(200).ok())?;
    Ok(Api { process, url })
}

/// Writes records as cinder-api does. Gives a volume of the project.
async fn fill(etcd: &Etcd, project: &str, options: &Options) -> Result<String> {
    let mut access = EtcdOptions::plain(etcd.endpoints());
    "/openstack".clone_into(&mut access.prefix);
    let store = Arc::new(coordination::Etcd::connect(&access).await?);
    let records = Records::start(store).await?;
    let type_id = {
        let tables = records.tables();
        let kind = tables
            .types
            .iter()
            .next()
            .context("cinder-api has made no type")?;
        kind.id.clone()
    };
    let mut first = None;
    let numbers: Vec<usize> = (0..options.volumes).collect();
    for batch in numbers.chunks(VOLUMES_A_TRANSACTION) {
        let volumes: Vec<Volume> = batch
            .iter()
            .map(|number| volume(*number, project, &type_id, options.projects))
            .collect();
        first.get_or_insert_with(|| volumes[0].id.clone());
        let written = records.edit(|edit| {
            for volume in &volumes {
                edit.insert(volume);
            }
            Ok::<_, RecordsError>(())
        });
        written.await?;
    }
    first.context("no volumes")
}

fn volume(number: usize, project: &str, type_id: &str, projects: usize) -> Volume {
    let id = uuid(number);
    Volume {
        project_id: project_of(number, project, projects),
        user_id: "0123456789abcdef0123456789abcdef".to_owned(),
        name: Some(format!("volume number {number}")),
        description: None,
        size: 10,
        status: VolumeStatus::Available,
        previous_status: None,
        attach_status: AttachStatus::Detached,
        migration_status: None,
        availability_zone: "nova".to_owned(),
        created_at: Moment(1_700_000_000_000_000 + i64::try_from(number).unwrap_or(0) * 1_000_000),
        updated_at: None,
        type_id: type_id.to_owned(),
        snapshot_id: None,
        source_id: None,
        metadata: BTreeMap::from([("purpose".to_owned(), "measure".to_owned())]),
        image_metadata: BTreeMap::new(),
        read_only: None,
        bootable: false,
        multiattach: false,
        group_id: None,
        encryption_key_id: None,
        consumes_quota: true,
        pool: Some("main".to_owned()),
        storage_name: format!("volume-{id}"),
        chap: None,
        id,
    }
}

fn uuid(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn project_of(number: usize, own: &str, projects: usize) -> String {
    if number < OWN_VOLUMES {
        return own.to_owned();
    }
    format!("{:032x}", 1 + number % projects.max(1))
}

/// One volume made as users do, and the others as copies of its row in the database.
async fn fill_reference(
    folder: &Path,
    reference: &Reference,
    token: &str,
    project: &str,
    options: &Options,
) -> Result<String> {
    const COPY: &str = include_str!("openstack/copy_volumes.py");
    let client = Client::new();
    let made = ask(
        &client,
        Method::POST,
        &format!("{}/v3/volumes", reference.url()),
        token,
        Some(json!({"volume": {"size": 1}})),
    )
    .await?;
    let id = made["volume"]["id"]
        .as_str()
        .context("Cinder made no volume")?
        .to_owned();
    let database = folder.join("cinder.db").display().to_string();
    let arguments = [
        "-c".to_owned(),
        COPY.to_owned(),
        database,
        id.clone(),
        project.to_owned(),
        options.volumes.to_string(),
        options.projects.to_string(),
        OWN_VOLUMES.to_string(),
    ];
    Environment::of("cinder")?.run("python", arguments, folder)?;
    Ok(id)
}

async fn ask(client: &Client, method: Method, url: &str, token: &str, body: Option<Value>) -> Result<Value> {
    let mut request = client
        .request(method, url)
        .header("X-Auth-Token", token)
        .header("OpenStack-API-Version", "volume 3.70");
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{url}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

fn patterns(service: &Service) -> Vec<Pattern> {
    let pattern = |name, path: &str, depth| Pattern {
        name,
        path: path.to_owned(),
        depth,
    };
    let show = format!("/volumes/{}", service.volume);
    vec![
        pattern("show a volume", &show, 1),
        pattern("show a volume, 200 at once", &show, AT_ONCE),
        pattern("list 50 in full", "/volumes/detail?limit=50", 1),
        pattern(
            "list 50 in full, 200 at once",
            "/volumes/detail?limit=50",
            AT_ONCE,
        ),
        pattern("list 1000 in full", "/volumes/detail?limit=1000", 1),
        pattern(
            "find by name among the project's",
            "/volumes/detail?name=volume%20number%201234",
            1,
        ),
        pattern(
            "find by name among all",
            "/volumes/detail?all_tenants=1&name=volume%20number%2054321",
            1,
        ),
        pattern(
            "50 of all by size",
            "/volumes?all_tenants=1&limit=50&sort=size:asc",
            1,
        ),
    ]
}

async fn rounds(services: &[Service], token: &str, options: &Options) -> Result<Vec<(String, Vec<Figures>)>> {
    let count = patterns(services.first().context("no services")?).len();
    let mut rows = Vec::new();
    for at in 0..count {
        let mut taken: Vec<Vec<Figures>> = vec![Vec::new(); services.len()];
        let mut name = "";
        for _ in 0..options.rounds {
            for (service, taken) in services.iter().zip(&mut taken) {
                let pattern = patterns(service).swap_remove(at);
                let requests = if service.name == "Cinder" {
                    (options.requests / CINDER_PART).max(pattern.depth.max(CINDER_LEAST))
                } else {
                    options.requests
                };
                taken.push(round(service, &pattern, token, requests).await?);
                name = pattern.name;
            }
        }
        eprintln!("{name}: done");
        rows.push((name.to_owned(), taken.iter().map(|taken| median(taken)).collect()));
    }
    Ok(rows)
}

async fn round(service: &Service, pattern: &Pattern, token: &str, requests: usize) -> Result<Figures> {
    let client = Client::new();
    let url = format!("{}/v3{}", service.url, pattern.path);
    ask(&client, Method::GET, &url, token, None).await?;
    let cpu = || {
        service
            .processes
            .iter()
            .map(|process| cpu_seconds(*process))
            .sum::<f64>()
    };
    let (before, began) = (cpu(), Instant::now());
    let mut times = Vec::new();
    let mut left = requests;
    while left > 0 {
        let now = left.min(pattern.depth);
        let asked = (0..now).map(|_| async {
            let began = Instant::now();
            ask(&client, Method::GET, &url, token, None).await?;
            Ok::<Duration, anyhow::Error>(began.elapsed())
        });
        for time in futures_util::future::join_all(asked).await {
            times.push(time?.as_secs_f64() * 1000.0);
        }
        left -= now;
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu() - before);
    times.sort_by(f64::total_cmp);
    let quantile = |part: usize| {
        times
            .get((times.len() * part / 100).min(times.len() - 1))
            .copied()
            .unwrap_or(0.0)
    };
    Ok(Figures {
        median_ms: quantile(50),
        p99_ms: quantile(99),
        per_second: times.len() as f64 / seconds,
        cpu_us: cpu * 1e6 / times.len() as f64,
    })
}

fn median(taken: &[Figures]) -> Figures {
    let of = |field: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = taken.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    Figures {
        median_ms: of(|figures| figures.median_ms),
        p99_ms: of(|figures| figures.p99_ms),
        per_second: of(|figures| figures.per_second),
        cpu_us: of(|figures| figures.cpu_us),
    }
}

fn print(services: &[Service], rows: &[(String, Vec<Figures>)]) {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "requests",
        "service",
        "median ms",
        "p99 ms",
        "a second",
        "CPU us",
        "requests per CPU second, ratio",
    ]);
    for (name, figures) in rows {
        let other = figures.get(1).map_or(0.0, |figures| figures.cpu_us);
        for (at, (service, figures)) in services.iter().zip(figures).enumerate() {
            let ratio = if at == 0 && other > 0.0 {
                format!("{:.1}", other / figures.cpu_us)
            } else {
                String::new()
            };
            table.add_row([
                name.clone(),
                service.name.to_owned(),
                format!("{:.2}", figures.median_ms),
                format!("{:.2}", figures.p99_ms),
                format!("{:.0}", figures.per_second),
                format!("{:.0}", figures.cpu_us),
                ratio,
            ]);
        }
    }
    println!("{table}");
}

/// What a process has in memory.
fn resident_mib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("a process without memory")?;
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .context("a process without memory")?
        .parse()?;
    Ok(kib / 1024)
}
