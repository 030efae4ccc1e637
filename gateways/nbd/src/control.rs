//! The control socket: what an operator may ask of a running gateway, over HTTP on a unix socket: its figures, and that
//! clients of an export connect anew.
//!
//! Volumes count on their own threads and hand over what they have counted; sense is made of it here, on the
//! thread that negotiates.

use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Instant;

use admin_api::figures::{FrontEndFigures, RequestFigures, VolumeFigures};
use admin_api::{ErrorBody, ErrorKind};
use axum::extract::{Json, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use client::throttle::Throttled;
use client::volume::Volume;
use serde::Serialize;
use telemetry::Figures;
use telemetry::prometheus::{Family, Text, counter, gauge, labels};
use telemetry::traffic::{Kind, Traffic};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::export::ExportName;
use crate::registry::Registry;
use crate::source::OpenExport;

/// What is asked of the registry. Answered by [`answer`].
pub enum Question {
    /// What was counted?
    Count(oneshot::Sender<Vec<Counted>>),
    /// End the connections of an export: how many are there? None if nobody has it open.
    Disconnect(ExportName, oneshot::Sender<Option<usize>>),
}

/// Volumes that Prometheus is told of, the first by name: each takes about 200 lines, most of them histograms, so this
/// is 5 MB of text. `storagectl top` is told of all.
const VOLUMES_SHOWN_MAX: usize = 256;

type Ask = State<mpsc::Sender<Question>>;

/// What a volume has counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The export's name.
    pub name: String,
    size: u64,
    generation: u64,
    clients: usize,
    in_flight: u64,
    waiting: Vec<String>,
    direct_reads: u64,
    shared_writes: u64,
    throttled: Throttled,
    figures: Vec<(Kind, Figures)>,
}

impl Counted {
    /// What an export that is open on this thread has counted.
    pub fn of(open: &OpenExport, clients: usize, traffic: &Traffic) -> Self {
        let info = open.device.info();
        let volume = open.volume();
        let volume = volume.as_deref();
        Self {
            name: info.name,
            size: info.size,
            generation: volume.map_or(0, |volume| volume.generation().0),
            clients,
            in_flight: traffic.in_flight(),
            waiting: open.waiting(),
            direct_reads: volume.map_or(0, Volume::direct_reads),
            shared_writes: volume.map_or(0, Volume::shared_writes),
            throttled: volume.map(Volume::throttled).unwrap_or_default(),
            figures: traffic.figures(),
        }
    }

    fn into_figures(self) -> VolumeFigures {
        let kinds = self.figures.iter();
        let requests: Vec<RequestFigures> = kinds
            .map(|(kind, figures)| figures.summary(kind.name()))
            .collect();
        VolumeFigures {
            volume: self.name,
            size: self.size,
            generation: self.generation,
            clients: self.clients as u64,
            in_flight: self.in_flight,
            waiting: self.waiting,
            direct_reads: self.direct_reads,
            shared_writes: self.shared_writes,
            throttled_requests: self.throttled.requests,
            throttled_ms: self.throttled.waited_ms,
            requests,
        }
    }
}

/// What came of ending the connections of an export.
#[derive(Debug, Serialize, ToSchema)]
struct Disconnected {
    /// Those that end.
    connections: usize,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "storaged-nbd control socket",
        description = "Figures of the volumes that a gateway has open, and the end of connections to one.",
        license(name = "Apache-2.0 OR MIT")
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// When this process began to serve.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Answers questions with what the registry's volumes have counted, for ever.
pub async fn answer(registry: Rc<Registry>, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        // Whoever asked may have left.
        match question {
            Question::Count(answer) => drop(answer.send(registry.count().await)),
            Question::Disconnect(export, answer) => drop(answer.send(registry.disconnect(&export).await)),
        }
    }
}

/// Serves the socket, for ever. Questions go to `ask`.
pub async fn serve(listener: UnixListener, ask: mpsc::Sender<Question>) {
    LazyLock::force(&BEGAN);
    let (router, _) = routes().split_for_parts();
    let router = router.fallback(no_such_path).with_state(ask);
    if let Err(cause) = axum::serve(listener, router).await {
        warn!(%cause, "the control socket is not served any more");
    }
}

fn routes() -> OpenApiRouter<mpsc::Sender<Question>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(figures))
        .routes(routes!(disconnect))
        .routes(routes!(prometheus))
        .routes(routes!(openapi))
}

/// What is counted, in the words of all front ends.
#[utoipa::path(get, path = "/v1/figures", responses((status = 200, body = FrontEndFigures)))]
async fn figures(State(ask): Ask) -> Result<Json<FrontEndFigures>, Failure> {
    count(&ask).await.map(Json)
}

/// Ends the connections of an export, so that its clients connect anew and learn its size: a client of NBD is told of the
/// size once. What they have asked for is answered first.
#[utoipa::path(post, path = "/v1/exports/{export}/disconnect",
    params(("export" = String, Path, description = "VOLUME or VOLUME@SNAPSHOT")),
    responses((status = 200, body = Disconnected), (status = 404, body = ErrorBody)))]
async fn disconnect(State(ask): Ask, Path(name): Path<String>) -> Result<Json<Disconnected>, Failure> {
    let closed = || {
        Failure(ErrorBody::new(
            ErrorKind::NotFound,
            format!("nobody has {name:?} open here"),
        ))
    };
    let export = ExportName::parse(&name).ok_or_else(closed)?;
    let connections = question(&ask, |answer| Question::Disconnect(export, answer)).await?;
    connections
        .map(|connections| Json(Disconnected { connections }))
        .ok_or_else(closed)
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/v1/metrics",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
async fn prometheus(State(ask): Ask) -> Result<String, Failure> {
    count(&ask).await.map(|figures| render(&figures))
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json",
    responses((status = 200, description = "The OpenAPI document", content_type = "application/json")))]
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(routes().into_openapi())
}

async fn no_such_path(uri: Uri) -> Failure {
    let message = format!(
        "there is nothing at {}: see /v1/openapi.json for what there is",
        uri.path()
    );
    Failure(ErrorBody::new(ErrorKind::NotFound, message))
}

async fn question<T>(
    ask: &mpsc::Sender<Question>,
    what: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, Failure> {
    let gone = || Failure(ErrorBody::new(ErrorKind::Unavailable, "this gateway is ending"));
    let (answer, answered) = oneshot::channel();
    ask.send(what(answer)).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())
}

async fn count(ask: &mpsc::Sender<Question>) -> Result<FrontEndFigures, Failure> {
    let volumes = question(ask, Question::Count).await?;
    Ok(FrontEndFigures {
        program: "nbd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: BEGAN.elapsed().as_secs(),
        volumes: volumes.into_iter().map(Counted::into_figures).collect(),
    })
}

/// An answer that is not a success.
#[derive(Debug)]
struct Failure(ErrorBody);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

const UPTIME: Family = gauge("uptime_seconds", "For how long this storaged-nbd runs.");
const VOLUMES: Family = gauge("volumes_open", "Volumes and snapshots that are open.");
const LEFT_OUT: Family = gauge(
    "volumes_left_out",
    "Open volumes whose figures are not here, because there are too many.",
);
const SIZE: Family = gauge("size_bytes", "The volume's size.");
const GENERATION: Family = gauge("generation", "The generation that the volume is owned with.");
const CLIENTS: Family = gauge("clients", "Clients that are connected.");
const IN_FLIGHT: Family = gauge("in_flight", "Requests taken and not answered.");
const WAITING: Family = gauge("waiting", "Things that requests wait for.");
const DIRECT_READS: Family = counter(
    "direct_reads_total",
    "Reads of disks' files done by this process itself.",
);
const SHARED_WRITES: Family = counter(
    "shared_writes_total",
    "Writes to disks whose data was in shared memory.",
);
const THROTTLED: Family = counter(
    "throttled_requests_total",
    "Requests that waited for their turn by the volume's limits.",
);
const THROTTLED_MS: Family = counter(
    "throttled_milliseconds_total",
    "How long these waited, all together.",
);

/// One of a volume's figures.
type Amount = fn(&VolumeFigures) -> u64;

fn render(front_end: &FrontEndFigures) -> String {
    let mut text = Text::new("storaged_nbd");
    text.figure(&UPTIME, front_end.uptime_s);
    text.figure(&VOLUMES, front_end.volumes.len());
    let mut shown: Vec<&VolumeFigures> = front_end.volumes.iter().collect();
    shown.sort_by(|a, b| a.volume.cmp(&b.volume));
    text.figure(&LEFT_OUT, shown.len().saturating_sub(VOLUMES_SHOWN_MAX));
    shown.truncate(VOLUMES_SHOWN_MAX);
    let amounts: [(Family, Amount); 9] = [
        (SIZE, |volume| volume.size),
        (GENERATION, |volume| volume.generation),
        (CLIENTS, |volume| volume.clients),
        (IN_FLIGHT, |volume| volume.in_flight),
        (WAITING, |volume| volume.waiting.len() as u64),
        (DIRECT_READS, |volume| volume.direct_reads),
        (SHARED_WRITES, |volume| volume.shared_writes),
        (THROTTLED, |volume| volume.throttled_requests),
        (THROTTLED_MS, |volume| volume.throttled_ms),
    ];
    for (family, amount) in amounts {
        let volumes = shown.iter().copied();
        let sample = |volume: &VolumeFigures| (labels(&[("volume", &volume.volume)]), amount(volume));
        text.family(&family, volumes.map(sample));
    }
    let requests: Vec<(&str, &[RequestFigures])> = shown
        .iter()
        .map(|volume| (volume.volume.as_str(), volume.requests.as_slice()))
        .collect();
    text.requests(&requests);
    text.finish()
}

#[cfg(test)]
mod tests {
    //! However many volumes are open, what Prometheus is told has an end.
    use super::*;

    #[test]
    fn of_too_many_volumes_the_first_by_name_are_shown_and_the_others_counted() {
        let volume = |number: usize| VolumeFigures {
            volume: format!("v{number:04}"),
            size: 4096,
            generation: 1,
            clients: 1,
            in_flight: 0,
            waiting: Vec::new(),
            direct_reads: 0,
            shared_writes: 0,
            throttled_requests: 0,
            throttled_ms: 0,
            requests: Vec::new(),
        };
        let text = render(&FrontEndFigures {
            program: "nbd".to_owned(),
            version: String::new(),
            pid: 1,
            uptime_s: 1,
            volumes: (0..VOLUMES_SHOWN_MAX + 3).rev().map(volume).collect(),
        });
        assert_eq!(
            text.matches("storaged_nbd_size_bytes{").count(),
            VOLUMES_SHOWN_MAX
        );
        assert!(text.contains("v0000") && !text.contains("v0256"), "{text}");
        assert!(text.contains("\nstoraged_nbd_volumes_left_out 3\n"), "{text}");
    }
}
