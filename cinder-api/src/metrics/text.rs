//! What is counted, and what the records say, as Prometheus text. docs/operations/metrics.md lists it, and a test compares.

use std::collections::BTreeMap;
use std::sync::Arc;

use admin_api::figures::RequestFigures;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use telemetry::prometheus::{Family, Text, counter, gauge, histogram, labels};
use tracing::warn;

use super::{BEGAN, Counted, counted};
use crate::records::job;
use crate::service::Service;
use crate::work;

const UPTIME: Family = gauge("uptime_seconds", "For how long this cinder-api runs.");
const PROCESSES: Family = gauge(
    "processes",
    "Processes of cinder-api that work on the same records.",
);
const CONNECTIONS: Family = gauge("connections", "Connections that are open.");
const CONNECTIONS_MAX: Family = gauge("connections_max", "Connections that may be open at once.");
const RUNNING: Family = gauge("requests_running", "Requests that are worked at.");
const REQUESTS: Family = counter("requests_total", "Requests answered.");
const SECONDS: Family = histogram("request_seconds", "From the end of the headers to the answer.");
const RECORDS: Family = gauge("records", "Records in memory.");
const REVISION: Family = gauge(
    "records_revision",
    "The newest revision of the store that was seen.",
);
const REVISION_AGE: Family = gauge(
    "records_revision_age_seconds",
    "How long ago that revision was seen.",
);
const JOBS: Family = gauge("jobs", "Jobs that are not done.");
const JOBS_ENDED: Family = counter("jobs_total", "Attempts at jobs by this process that ended.");
const CALLS: Family = counter("calls_total", "Questions to others.");
const CALL_ERRORS: Family = counter(
    "call_errors_total",
    "Questions that nobody answered as he should.",
);
const CALL_SECONDS: Family = histogram("call_seconds", "From the question to the answer.");

/// What answers `GET /v1/metrics`.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/metrics", get(answer))
        .with_state(service)
}

async fn answer(State(service): State<Arc<Service>>) -> Response {
    let processes = match work::processes(&service).await {
        Ok(processes) => Some(processes),
        Err(error) => {
            warn!(%error, "how many processes there are is left out of the metrics");
            None
        }
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text(&service, processes)).into_response()
}

fn text(service: &Service, processes: Option<usize>) -> String {
    let mut text = Text::new("cinder_api");
    text.figure(&UPTIME, BEGAN.elapsed().as_secs_f64());
    text.family(&PROCESSES, processes.map(|processes| (String::new(), processes)));
    text.figure(&CONNECTIONS_MAX, service.settings.limits.connections);
    let jobs = records(&mut text, service);
    let counted = counted();
    text.figure(&CONNECTIONS, counted.connections);
    text.figure(&RUNNING, counted.running);
    requests(&mut text, &counted);
    calls(&mut text, &counted);
    let running = counted.jobs_running.iter().map(|(kind, running)| {
        let labels = labels(&[("kind", kind), ("state", "running")]);
        (labels, *running)
    });
    let waiting = jobs.iter().map(|(kind, all)| {
        let running = counted.jobs_running.get(kind).copied().unwrap_or(0);
        let labels = labels(&[("kind", kind), ("state", "waiting")]);
        (labels, all.saturating_sub(running))
    });
    text.family(&JOBS, running.chain(waiting));
    let ended = counted.jobs.iter().map(|((kind, outcome), count)| {
        let labels = labels(&[("kind", kind), ("outcome", outcome.name())]);
        (labels, *count)
    });
    text.family(&JOBS_ENDED, ended);
    text.finish()
}

/// What the records say; gives how many jobs of each kind there are.
fn records(text: &mut Text, service: &Service) -> BTreeMap<String, usize> {
    let (revision, age) = service.records.newest();
    text.figure(&REVISION, revision.0);
    text.figure(&REVISION_AGE, age.as_secs_f64());
    let tables = service.records.tables();
    let counts = tables.counts();
    let shown = counts
        .iter()
        .map(|(kind, count)| (labels(&[("kind", kind)]), *count));
    text.family(&RECORDS, shown);
    let mut jobs: BTreeMap<String, usize> = BTreeMap::new();
    for job in tables.jobs.iter() {
        *jobs.entry(job::kind(&job.task)).or_default() += 1;
    }
    jobs
}

fn requests(text: &mut Text, counted: &Counted) {
    let answered = counted.statuses.iter().map(|(((route, method), status), count)| {
        let status = status.to_string();
        let labels = labels(&[("method", method), ("route", route), ("status", &status)]);
        (labels, *count)
    });
    text.family(&REQUESTS, answered);
    let mut times: Vec<(String, RequestFigures)> = counted
        .requests
        .iter()
        .map(|((route, method), figures)| {
            let labels = labels(&[("method", method), ("route", route)]);
            (labels, figures.summary(""))
        })
        .collect();
    times.sort_by(|one, other| one.0.cmp(&other.0));
    let times = times.iter().map(|(labels, figures)| (labels.clone(), figures));
    text.histogram(&SECONDS, times);
}

fn calls(text: &mut Text, counted: &Counted) {
    let calls: Vec<(String, RequestFigures)> = counted
        .calls
        .iter()
        .map(|(whom, figures)| (labels(&[("to", whom.name())]), figures.summary("")))
        .collect();
    let all = calls
        .iter()
        .map(|(labels, figures)| (labels.clone(), figures.requests));
    text.family(&CALLS, all);
    let failed = calls
        .iter()
        .map(|(labels, figures)| (labels.clone(), figures.errors));
    text.family(&CALL_ERRORS, failed);
    let times = calls.iter().map(|(labels, figures)| (labels.clone(), figures));
    text.histogram(&CALL_SECONDS, times);
}
