//! `POST /graphql`: what is refused before the schema sees it, and what an answer may be.

use crate::app::{App, Identity};
use crate::error::{ApiError, ErrorCode, code_of, complete};
use crate::graph::Graph;
use crate::limits::{self, Transport};
use crate::origin::client_address;
use crate::session::Credential;
use crate::sign_in::Source;
use async_graphql::parser::types::OperationType;
use async_graphql::{Request as GraphqlRequest, Response as GraphqlResponse, Variables};
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

pub(crate) use axum::http::header::SET_COOKIE;

/// For reading, executing and answering together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// GraphQL over HTTP's own media type.
const GRAPHQL_JSON: HeaderValue = HeaderValue::from_static("application/graphql-response+json; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The body of a request. A list of them is no such object: there is no batching.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Operation {
    query: String,
    #[serde(default)]
    operation_name: Option<String>,
    #[serde(default)]
    variables: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, rename = "extensions")]
    _extensions: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A refusal of the transport: a status beside the error.
struct Refused(StatusCode, ApiError);

impl Refused {
    fn invalid(status: StatusCode, message: &'static str) -> Self {
        Self(status, ApiError::new(ErrorCode::InvalidInput, message))
    }
}

/// The handler.
pub(crate) async fn graphql(
    State(app): State<Arc<App>>,
    Extension(graph): Extension<Graph>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let media = match negotiate(&parts.headers) {
        Ok(media) => media,
        Err(refused) => return answer_refused(refused, JSON),
    };
    let answered = timeout(TIMEOUT, handle(&app, &graph, &parts, body)).await.unwrap_or_else(|_| {
        let error = ApiError::new(ErrorCode::Unavailable, "not done within 5 s; what became of it is unknown");
        Err(Refused(StatusCode::SERVICE_UNAVAILABLE, error))
    });
    metrics::histogram!("ringfence_graphql_seconds").record(started.elapsed().as_secs_f64());
    match answered {
        Ok(response) => answer(response, media),
        Err(refused) => answer_refused(refused, media),
    }
}

async fn handle(app: &Arc<App>, graph: &Graph, parts: &Parts, body: Body) -> Result<GraphqlResponse, Refused> {
    check_content_type(&parts.headers)?;
    let bytes = to_bytes(body, limits::BODY_BYTES)
        .await
        .map_err(|_| Refused::invalid(StatusCode::PAYLOAD_TOO_LARGE, "body: at most 65536 bytes, sent in time"))?;
    let body: Operation = serde_json::from_slice(&bytes).map_err(|_| {
        let message = "body: must be one JSON object with query, and operationName, variables, extensions if needed";
        Refused::invalid(StatusCode::BAD_REQUEST, message)
    })?;
    let (document, kind) = match limits::parse(&body.query, Transport::Http) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(GraphqlResponse::from_errors(vec![error.into_server_error()])),
    };
    let credential = app.sessions.credential(&parts.headers);
    if kind == OperationType::Mutation {
        check_page(app, &parts.headers, credential.as_ref())?;
    }
    let access = app.sessions.access(credential.as_ref()).await.map_err(|error| {
        let known = error.code == ErrorCode::Unauthenticated;
        Refused(if known { StatusCode::UNAUTHORIZED } else { StatusCode::SERVICE_UNAVAILABLE }, error)
    })?;
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let source = Source(client_address(peer, &parts.headers, &app.config.trusted_proxies));
    let variables = serde_json::Value::Object(body.variables.unwrap_or_default());
    let mut request = GraphqlRequest::new(body.query)
        .variables(Variables::from_json(variables))
        .data(Identity::new(access))
        .data(source);
    request.operation_name = body.operation_name;
    request.set_parsed_query(document);
    let response = graph.0.execute(request).await;
    count(kind, &response);
    Ok(response)
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refused> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut parts = value.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if is_json && is_utf8 {
        Ok(())
    } else {
        Err(Refused::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type: must be application/json, in UTF-8"))
    }
}

/// A mutation that a browser's page sends must come from a page of ours, by a script: `X-CSRF` cannot be set by a form, and
/// a foreign script is stopped by the preflight. What carries neither cookie nor origin is no page, and has no authority of
/// its own that could be abused.
fn check_page(app: &App, headers: &HeaderMap, credential: Option<&Credential>) -> Result<(), Refused> {
    let page = app.origins.admit(headers);
    let is_ours = page == Some(true) && headers.get("x-csrf").is_some_and(|value| value == "1");
    let needs_none = match credential {
        Some(Credential::Bearer(_)) => page != Some(false),
        Some(Credential::Cookie(_)) => false,
        None => page.is_none(),
    };
    if is_ours || needs_none {
        return Ok(());
    }
    let message = "a mutation from a page needs our own Origin and the header X-CSRF: 1";
    Err(Refused(StatusCode::FORBIDDEN, ApiError::forbidden(message)))
}

/// The media type of the answer.
fn negotiate(headers: &HeaderMap) -> Result<HeaderValue, Refused> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let accepted: Vec<&str> =
        lines.flat_map(|line| line.split(',')).map(|range| range.split(';').next().unwrap_or("").trim()).collect();
    let accepts = |media: &str| accepted.iter().any(|range| range.eq_ignore_ascii_case(media));
    if accepted.is_empty() || accepts("application/graphql-response+json") || accepts("*/*") || accepts("application/*")
    {
        Ok(GRAPHQL_JSON)
    } else if accepts("application/json") {
        Ok(JSON)
    } else {
        let message = "accept: must allow application/graphql-response+json or application/json";
        Err(Refused::invalid(StatusCode::NOT_ACCEPTABLE, message))
    }
}

fn answer_refused(Refused(status, error): Refused, media: HeaderValue) -> Response {
    let is_unauthorized = status == StatusCode::UNAUTHORIZED;
    let mut response = answer(GraphqlResponse::from_errors(vec![error.into_server_error()]), media);
    *response.status_mut() = status;
    if is_unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn answer(mut response: GraphqlResponse, media: HeaderValue) -> Response {
    complete(&mut response.errors);
    for error in &response.errors {
        let code = code_of(error).unwrap_or("INTERNAL").to_owned();
        metrics::counter!("ringfence_graphql_errors_total", "code" => code).increment(1);
    }
    let is_request_error = response.is_err() && response.errors.iter().all(|error| error.path.is_empty());
    let headers = std::mem::take(&mut response.http_headers);
    let Some(bytes) = encode(&response) else {
        let error = ApiError::new(ErrorCode::QueryTooCostly, "query: the answer would be larger than 1 MiB");
        return answer(GraphqlResponse::from_errors(vec![error.into_server_error()]), media);
    };
    let status = if is_request_error && media == GRAPHQL_JSON { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let mut answer = (status, [(header::CONTENT_TYPE, media)], bytes).into_response();
    answer.headers_mut().extend(headers);
    answer
}

/// The answer as JSON; `None` when it is too large. A request that was refused whole has no `data`.
fn encode(response: &GraphqlResponse) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct RequestError<'a> {
        errors: &'a [async_graphql::ServerError],
    }
    let mut out = Bounded(Vec::new());
    let is_request_error = response.is_err() && response.errors.iter().all(|error| error.path.is_empty());
    let written = if is_request_error {
        serde_json::to_writer(&mut out, &RequestError { errors: &response.errors })
    } else {
        serde_json::to_writer(&mut out, response)
    };
    written.ok().map(|()| out.0)
}

/// Takes at most [`limits::ANSWER_BYTES`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > limits::ANSWER_BYTES {
            return Err(io::Error::other("too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn count(kind: OperationType, response: &GraphqlResponse) {
    let kind = if kind == OperationType::Mutation { "mutation" } else { "query" };
    let outcome = if response.is_ok() { "ok" } else { "error" };
    metrics::counter!("ringfence_graphql_operations_total", "kind" => kind, "outcome" => outcome).increment(1);
}

/// What is said when a handler panicked: nothing of why.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request handler panicked");
    let error = ApiError::new(ErrorCode::Internal, "something went wrong on our side");
    answer_refused(Refused(StatusCode::INTERNAL_SERVER_ERROR, error), JSON)
}
