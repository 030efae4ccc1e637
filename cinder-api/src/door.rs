//! Where requests come in: what is answered to anybody, and who asks for the rest, in which version, for which project.
//!
//! A path is `/v3/REST` or `/v3/PROJECT/REST`; behind the door there is only `REST`. Every answer of version 3 leaves with the
//! headers that clients look for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::field::Empty;
use tracing::{Instrument, Span, info, info_span, warn};

use crate::fault::Fault;
use crate::identity::keystone::Refusal;
use crate::limits::BODY_BYTES_MAX;
use crate::rates::ProjectRates;
use crate::request::{Context, Version, version};
use crate::service::Service;
use crate::{metrics, openapi};

/// When the newest version was made, as discovery tells it.
const UPDATED: &str = "2023-08-31T00:00:00Z";
/// The longest project in a path; longer ones are none.
const PROJECT_BYTES_MAX: usize = 64;
/// The longest name of a request that a client may give for the log.
const GLOBAL_ID_BYTES_MAX: usize = 64;

/// What anybody may see, without a token.
pub const OPEN: &[&str] = &["/", "/healthcheck", "/openapi.json", "/v3"];

/// Everything behind one address.
#[derive(Clone)]
pub struct Door {
    service: Arc<Service>,
    /// What answers what is let through.
    inside: Router,
    /// A place for each request that may be worked at. Work goes on when whoever asked has left: what has begun is not left
    /// half done, and who leaves and comes again all the time cannot pile it up.
    places: Arc<Semaphore>,
    rates: Arc<ProjectRates>,
}

impl Door {
    /// `inside` answers what the door lets through.
    pub fn new(service: Arc<Service>, inside: Router) -> Self {
        Self {
            places: Arc::new(Semaphore::new(service.settings.limits.connections)),
            rates: Arc::new(ProjectRates::new(service.settings.limits.project)),
            service,
            inside,
        }
    }

    /// What answers requests.
    pub fn router(&self) -> Router {
        Router::new().fallback(enter).with_state(self.clone())
    }

    /// Waits for work that goes on though nobody waits for its answer any more; not longer than so long.
    pub async fn rest(&self, limit: Duration) {
        let all = u32::try_from(self.service.settings.limits.connections).unwrap_or(u32::MAX);
        let rested = tokio::time::timeout(limit, self.places.acquire_many(all)).await;
        if rested.is_err() {
            warn!("requests are broken off: they take longer than limits.shutdown_seconds");
        }
    }
}

async fn enter(State(door): State<Door>, request: Request) -> Response {
    let began = Instant::now();
    let _running = metrics::request();
    let method = request.method().clone();
    let open = OPEN.iter().find(|path| is_at(path, request.uri().path()));
    let response = match open {
        Some(path) => show_open(&door, path, &request),
        None => match request.uri().path().strip_prefix("/v3/").map(str::to_owned) {
            Some(rest) => third(&door, &rest, request).await,
            None => no_such_path().await.into_response(),
        },
    };
    let route = response
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str)
        .or(open.copied());
    metrics::answered(route, &method, response.status().as_u16(), began.elapsed());
    response
}

/// Whether a path is one of those that anybody may see; a slash at the end changes nothing.
fn is_at(open: &str, path: &str) -> bool {
    path == open || path.strip_suffix('/').is_some_and(|path| path == open)
}

/// The answer to anybody.
fn show_open(door: &Door, path: &str, request: &Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allowed = [(header::ALLOW, "GET,HEAD")];
        let refusal = Fault::bad_method("The method is not allowed for the requested URL.");
        return (allowed, refusal).into_response();
    }
    let base = base(&door.service, request.headers());
    match path {
        "/" => (StatusCode::MULTIPLE_CHOICES, axum::Json(versions(&base))).into_response(),
        "/healthcheck" => "OK".into_response(),
        "/openapi.json" => openapi::answer(request.uri().query()),
        _ => axum::Json(versions(&base)).into_response(),
    }
}

/// A request of version 3.
async fn third(door: &Door, rest: &str, request: Request) -> Response {
    let request_id = format!("req-{}", uuid::Uuid::new_v4());
    let global = request
        .headers()
        .get("x-openstack-request-id")
        .and_then(|value| value.to_str().ok());
    let global = global.filter(|global| global.len() <= GLOBAL_ID_BYTES_MAX);
    // Who asks is known later. Auditors go by these fields (docs/operations/logs.md).
    let span = info_span!("request", id = request_id, global, method = %request.method(), path = request.uri().path(),
        user = Empty, project = Empty, admin = Empty);
    let asked = Version::asked(request.headers());
    let used = *asked.as_ref().unwrap_or(&Version(0));
    let answered = async {
        let began = Instant::now();
        let inner = async {
            let version = asked?;
            let request = identified(door, rest, version, &request_id, request).await?;
            let request = whole(request, door.service.settings.limits.body).await?;
            Ok::<_, Response>(inside(door, request).await)
        };
        let response: Response = inner.await.unwrap_or_else(|response| response);
        info!(
            status = response.status().as_u16(),
            ms = began.elapsed().as_millis(),
            "answered"
        );
        response
    };
    let mut response = answered.instrument(span).await;
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(version::HEADER, &version::header_of(used));
    set("vary", "OpenStack-API-Version");
    set("x-openstack-request-id", &request_id);
    set("x-compute-request-id", &request_id);
    response
}

/// The request with all of its body: nobody inside waits for a peer.
async fn whole(request: Request, limit: Duration) -> Result<Request, Fault> {
    let (parts, body) = request.into_parts();
    let read = Limited::new(body, BODY_BYTES_MAX).collect();
    let read = tokio::time::timeout(limit, read).await;
    let late = |_| Fault::timed_out(format!("The body did not come within {} s.", limit.as_secs()));
    let body = read.map_err(late)?.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Fault::over_limit("Request is too large.")
        } else {
            Fault::bad_request("The body broke off.")
        }
    })?;
    Ok(Request::from_parts(parts, Body::from(body.to_bytes())))
}

/// The answer from inside. What is done for it is done to its end, even if it takes too long or nobody waits any more.
async fn inside(door: &Door, request: Request) -> Response {
    let Ok(place) = door.places.clone().try_acquire_owned() else {
        return Fault::unavailable("Too many requests are worked at. Try again.").into_response();
    };
    let answer = door.inside.clone().oneshot(request);
    let work = async move {
        let answer = answer.await;
        drop(place);
        answer
    };
    let limit = door.service.settings.limits.request;
    let worked = tokio::time::timeout(limit, tokio::spawn(work.in_current_span())).await;
    match worked {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(panic)) => Fault::internal(&panic).into_response(),
        Err(_) => {
            let message = format!(
                "This takes longer than {} s, and goes on: look later whether it was done.",
                limit.as_secs()
            );
            Fault::unavailable(message).into_response()
        }
    }
}

impl From<Fault> for Response {
    fn from(fault: Fault) -> Self {
        fault.into_response()
    }
}

/// The request as it goes on inside: with its context, and a path without version and project.
async fn identified(
    door: &Door,
    rest: &str,
    version: Version,
    request_id: &str,
    mut request: Request,
) -> Result<Request, Response> {
    let service = &door.service;
    let base = base(service, request.headers());
    let path = request.uri().path();
    let known = service
        .keystone
        .caller(request.headers(), request.method(), path)
        .await;
    let mut caller = known.map_err(|refusal| refuse(service, refusal))?;
    caller.is_admin = service
        .policy
        .allows("context_is_admin", &caller, caller.project_id.as_deref());
    Span::current()
        .record("user", &caller.user_id)
        .record("project", &caller.project_id)
        .record("admin", caller.is_admin);
    // A token for no project is one for the user alone.
    let who = caller.project_id.as_ref().unwrap_or(&caller.user_id);
    if !caller.is_admin && !caller.is_service && !door.rates.admits(who, client::clock::now()) {
        let message = "This project asks more often than an operator lets it. Wait a second.";
        return Err(Fault::too_many_requests(message).into_response());
    }
    let (project, rest) = split_project(rest);
    if let Some(project) = project
        && caller.project_id.as_deref() != Some(project)
    {
        return Err(Fault::bad_request("Malformed request url").into_response());
    }
    if percent_decode_str(rest).decode_utf8().is_err() {
        return Err(no_such_path().await.into_response());
    }
    let path_project = project.map(str::to_owned);
    let inside = match request.uri().query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    let inside = PathAndQuery::try_from(inside).map(Uri::from);
    *request.uri_mut() = inside.map_err(|_| Fault::bad_request("Malformed request url").into_response())?;
    request.extensions_mut().insert(Context {
        caller,
        version,
        request_id: request_id.to_owned(),
        base,
        path_project,
    });
    Ok(request)
}

/// A project at the start of a path, and the rest. A project is hexadecimal digits and dashes, and nothing that this API has
/// is called so.
fn split_project(rest: &str) -> (Option<&str>, &str) {
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    let is_project = !first.is_empty()
        && first.len() <= PROJECT_BYTES_MAX
        && first.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_project {
        (Some(first), after)
    } else {
        (None, rest)
    }
}

fn refuse(service: &Service, refusal: Refusal) -> Response {
    match refusal {
        Refusal::Unauthorized => {
            let body = json!({"error": {
                "code": 401,
                "title": "Unauthorized",
                "message": "The request you have made requires authentication.",
            }});
            let mut response = (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
            let told = format!("Keystone uri=\"{}\"", service.keystone.public_url());
            if let Ok(value) = HeaderValue::from_str(&told) {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            }
            response
        }
        Refusal::Unavailable(why) => {
            let message = format!("Keystone cannot be asked who you are: {why}. Try again.");
            Fault::unavailable(message).into_response()
        }
    }
}

fn versions(base: &str) -> Value {
    json!({"versions": [{
        "id": "v3.0",
        "status": "CURRENT",
        "version": format!("3.{}", Version::MAX.0),
        "min_version": "3.0",
        "updated": UPDATED,
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": format!("{base}/v3/")},
        ],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.volume+json;version=3",
        }],
    }]})
}

/// Where the API is for whoever asks: as configured, or as he has addressed it.
fn base(service: &Service, headers: &HeaderMap) -> String {
    if let Some(public) = &service.settings.public_endpoint {
        return public.clone();
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let mut scheme = "http";
    let mut host = text("host");
    if service.settings.trust_proxy_headers {
        scheme = text("x-forwarded-proto")
            .filter(|proto| *proto == "https")
            .unwrap_or(scheme);
        host = text("x-forwarded-host").or(host);
    }
    format!("{scheme}://{}", host.unwrap_or("localhost"))
}

/// The answer where there is nothing.
pub async fn no_such_path() -> Fault {
    Fault::not_found("The resource could not be found.")
}

/// The answer where there is something else.
pub async fn no_such_method() -> Fault {
    Fault::bad_method("The method is not allowed for the requested URL.")
}

/// An answer with nothing in it, as Cinder gives it after changes.
pub fn accepted() -> Response {
    empty(StatusCode::ACCEPTED)
}

/// An answer with a status and nothing else.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    //! Which part of a path is a project.
    use super::*;

    #[test]
    fn a_project_is_hexadecimal_and_everything_else_is_not() {
        let id = "0123456789abcdef0123456789abcdef";
        let path = format!("{id}/volumes/x");
        assert_eq!(split_project(&path), (Some(id), "volumes/x"));
        assert_eq!(split_project("volumes/detail"), (None, "volumes/detail"));
        assert_eq!(split_project("backups"), (None, "backups"));
        assert_eq!(split_project(id), (Some(id), ""));
    }
}
