//! The HTTP listener: `/livez`, `/readyz` and `/metrics`, from [`Metrics`] alone. It asks no database, so a probe cannot harm one.
//!
//! | path | answer |
//! | --- | --- |
//! | `/livez` | 200 as long as the process answers |
//! | `/readyz` | 200 once every source has begun to stream or is tried again; 503 while one is starting, or has stopped and needs a human. `?verbose` names each |
//! | `/metrics` | OpenMetrics 1.0 text |
//!
//! An outage of a source is no reason to be unready: it is what the metrics are for, and they must stay in reach.

use crate::{
    metrics::{Metrics, State},
    web::Peer,
};
use axum::{
    Extension, Router, extract,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections at a time; the next one waits.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// A longer head of a request is refused (431).
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
/// How long a connection is kept, whatever its client does with it.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// A wait where accepting fails, as it does while no file descriptor is free.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves these and the `pages`, if there are any, until it is dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, pages: Router) -> Infallible {
    let routes = pages.merge(routes(metrics));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let routes = routes.clone().layer(Extension(Peer(peer.ip())));
                connections.spawn(async move {
                    let _permit = permit;
                    // Whoever breaks off, or is too slow, is nobody to tell of.
                    drop(timeout(CONNECTION_MAX, answer(stream, routes)).await);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_WAIT).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(stream: TcpStream, routes: Router) -> Result<(), hyper::Error> {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    server.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await
}

fn routes(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(async || plain(StatusCode::OK, "ok\n".to_owned())))
        .route("/readyz", get(readyz))
        .route("/metrics", get(all))
        .with_state(metrics)
}

/// What is not for a cache, nor to be taken for something else.
fn answer_of(status: StatusCode, kind: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (status, headers, text).into_response()
}

fn plain(status: StatusCode, text: String) -> Response {
    answer_of(status, "text/plain; charset=utf-8", text)
}

async fn all(extract::State(metrics): extract::State<Arc<Metrics>>) -> Response {
    match metrics.encode() {
        Ok(text) => answer_of(StatusCode::OK, OPENMETRICS, text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn readyz(
    extract::State(metrics): extract::State<Arc<Metrics>>,
    extract::RawQuery(query): extract::RawQuery,
) -> Response {
    let states = metrics.states().borrow().clone();
    let is_verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    let (is_ready, text) = readiness(&states, is_verbose);
    plain(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

/// Whether all is ready, and the text that says so.
fn readiness(states: &BTreeMap<String, State>, is_verbose: bool) -> (bool, String) {
    let well = |state: State| matches!(state, State::Streaming | State::Waiting);
    let is_ready = states.values().all(|state| well(*state));
    let told = states.iter().filter(|(_, state)| is_verbose || !well(**state));
    let mut text: String = told
        .map(|(source, state)| {
            let sign = if well(*state) { '+' } else { '-' };
            format!("[{sign}]source-{source} {state}\n")
        })
        .collect();
    text.push_str(if is_ready { "ready\n" } else { "not ready\n" });
    (is_ready, text)
}

#[cfg(test)]
mod tests {
    use super::readiness;
    use crate::metrics::State;
    use std::collections::BTreeMap;

    #[test]
    fn who_starts_or_has_stopped_is_not_ready() {
        let of = |states: &[(&str, State)]| -> BTreeMap<String, State> {
            states.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect()
        };
        let well = of(&[("kratos", State::Waiting), ("portal", State::Streaming)]);
        assert_eq!(readiness(&well, false), (true, "ready\n".to_owned()));
        let verbose = "[+]source-kratos waiting\n[+]source-portal streaming\nready\n";
        assert_eq!(readiness(&well, true), (true, verbose.to_owned()));
        for state in [State::Starting, State::Stopped] {
            let (is_ready, text) =
                readiness(&of(&[("kratos", state), ("portal", State::Streaming)]), false);
            assert!(!is_ready);
            assert_eq!(text, format!("[-]source-kratos {state}\nnot ready\n"));
        }
    }
}
