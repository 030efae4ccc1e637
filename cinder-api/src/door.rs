//! Where requests come in: what is answered to anybody, and who asks for the rest, in which version, for which project.
//!
//! A path is `/v3/REST` or `/v3/PROJECT/REST`; behind the door there is only `REST`. Every answer of version 3 leaves with the
//! headers that clients look for.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tower::ServiceExt;
use tracing::{Instrument, info, info_span};

use crate::fault::Fault;
use crate::identity::keystone::Refusal;
use crate::request::{Context, Version, version};
use crate::service::Service;

/// When the newest version was made, as discovery tells it.
const UPDATED: &str = "2023-08-31T00:00:00Z";
/// The longest project in a path; longer ones are none.
const PROJECT_BYTES_MAX: usize = 64;
/// The longest name of a request that a client may give for the log.
const GLOBAL_ID_BYTES_MAX: usize = 64;

/// Everything behind one address. `inside` answers what the door lets through.
pub fn router(service: Arc<Service>, inside: Router) -> Router {
    Router::new().fallback(enter).with_state((service, inside))
}

async fn enter(State((service, inside)): State<(Arc<Service>, Router)>, request: Request) -> Response {
    let path = request.uri().path();
    let base = base(&service, request.headers());
    match path {
        "/" => (StatusCode::MULTIPLE_CHOICES, axum::Json(versions(&base))).into_response(),
        "/healthcheck" => "OK".into_response(),
        "/v3" | "/v3/" => axum::Json(versions(&base)).into_response(),
        _ => match path.strip_prefix("/v3/").map(str::to_owned) {
            Some(rest) => third(&service, inside, &rest, base, request).await,
            None => Fault::not_found("The resource could not be found.").into_response(),
        },
    }
}

/// A request of version 3.
async fn third(service: &Service, inside: Router, rest: &str, base: String, request: Request) -> Response {
    let request_id = format!("req-{}", uuid::Uuid::new_v4());
    let global = request
        .headers()
        .get("x-openstack-request-id")
        .and_then(|value| value.to_str().ok());
    let global = global.filter(|global| global.len() <= GLOBAL_ID_BYTES_MAX);
    let span = info_span!("request", id = request_id, global, method = %request.method(), path = request.uri().path());
    let asked = Version::asked(request.headers());
    let used = *asked.as_ref().unwrap_or(&Version(0));
    let answered = async {
        let began = Instant::now();
        let inner = async {
            let version = asked?;
            let request = identified(service, rest, base, version, &request_id, request).await?;
            Ok::<_, Response>(match inside.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            })
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
    set(version::HEADER, &format!("volume 3.{}", used.0));
    set("vary", "OpenStack-API-Version");
    set("x-openstack-request-id", &request_id);
    set("x-compute-request-id", &request_id);
    response
}

impl From<Fault> for Response {
    fn from(fault: Fault) -> Self {
        fault.into_response()
    }
}

/// The request as it goes on inside: with its context, and a path without version and project.
async fn identified(
    service: &Service,
    rest: &str,
    base: String,
    version: Version,
    request_id: &str,
    mut request: Request,
) -> Result<Request, Response> {
    let path = request.uri().path();
    let known = service
        .keystone
        .caller(request.headers(), request.method(), path)
        .await;
    let mut caller = known.map_err(|refusal| refuse(service, refusal))?;
    caller.is_admin = service
        .policy
        .allows("context_is_admin", &caller, caller.project_id.as_deref());
    let (project, rest) = split_project(rest);
    if let Some(project) = project
        && caller.project_id.as_deref() != Some(project)
    {
        return Err(Fault::bad_request("Malformed request url").into_response());
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
