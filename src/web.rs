//! The pages: what an admin, an owner or a user looks at. Rendered on the server, without JavaScript, from the audit database; what a slot keeps and how old checkpoints are, from the metrics of the process.
//!
//! | path | shows |
//! | --- | --- |
//! | `/` | numbers now or on any past date, history, what happened last |
//! | `/events`, `/events/UUID` | events by filter, page by page; one event with all that is known of it |
//! | `/events/export?q=…&format=…` | the events of a filter as a file |
//! | `/users/NAME`, `/organizations/NAME`, `/projects/NAME`, `/experiments/PROJECT/NAME` | one subject's history |
//! | `/facilities`, `/facilities/NAME`, `.atom`, `.json` | states on a map and as a table, now or at any time; one facility; feeds of changes |
//! | `/api/v1/…` | the same as JSON |
//! | `/pipeline` | each source: how far it is, what its slot keeps, its gaps, what it does not cover; how old the checkpoints are |
//!
//! # Who sees what
//! The pages read with one role, `portal_audit_web`, and say for whom at the begin of each transaction; the row policies of the audit database decide the rest. Nothing here filters by user.
//!
//! Who asks is known by one of four ways ([`crate::config::Access`]): the machine itself, a token of ours, a proxy's header, or a token that the portal's identity server signed. Another site may lead somebody here, and nothing else.
//!
//! # What is recorded
//! Each export is an event `log_exported`, written before its first byte leaves. Looking at a search, an event or a subject is an event `log_read`, of visitors with a name and once an hour for the same thing.
//!
//! # What one visitor cannot do to others
//! Pages have four sessions of the audit database and exports two of their own; who finds none within five seconds is told to come back (503). A page's statement ends after ten seconds, a visitor begins six exports a minute, and long addresses, heads and forms are refused. An address tries twenty different wrong tokens a minute; feeds are made once in half a minute for each viewer. The sidecar that writes has its own sessions.

mod access;
mod api;
mod assets;
mod chart;
mod events;
mod export;
mod facilities;
mod find;
mod jwt;
mod login;
mod numbers;
mod overview;
mod own;
mod page;
mod panes;
mod pipeline;
mod proof;
mod reader;
mod reads;
mod subject;
mod unchanged;

use crate::{config::Pages, metrics::Metrics};
use access::{Gate, Visitor};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use reader::Sessions;
use std::{net::IpAddr, sync::Arc};
use tower_http::compression::CompressionLayer;

/// The address that a connection came from; the listener sets it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// What all pages share.
#[derive(Debug)]
pub(crate) struct Web {
    sessions: Sessions,
    exports: Sessions,
    begun: export::Begun,
    reads: reads::Reads,
    numbers: numbers::Kept,
    feeds: unchanged::Feeds,
    gate: Gate,
    /// What the process knows of its sources besides.
    metrics: Arc<Metrics>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("There is no such page.")]
    Missing,
    #[error("This is for those who see all.")]
    NotYours,
    #[error("{0}")]
    Asked(String),
    #[error(
        "The audit database cannot be reached. The sidecar tries again at the next page; nothing is lost."
    )]
    Away,
    #[error("Too many ask at the same time. Try again in a few seconds.")]
    Busy,
    #[error("That is many exports in a minute. Wait a minute, or use `portal-audit export`.")]
    Often,
    #[error(
        "This took longer than {} s. Ask for a shorter time or fewer types.",
        reader::STATEMENT_SECONDS_MAX
    )]
    Long,
    #[error("The audit database refused to answer (SQLSTATE {0}). `portal-audit check` says more.")]
    Refused(String),
    #[error("This page could not be drawn.")]
    Template(#[from] askama::Error),
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::Missing => StatusCode::NOT_FOUND,
            Self::NotYours => StatusCode::FORBIDDEN,
            Self::Asked(_) => StatusCode::BAD_REQUEST,
            Self::Away | Self::Busy | Self::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Often => StatusCode::TOO_MANY_REQUESTS,
            Self::Long => StatusCode::GATEWAY_TIMEOUT,
            Self::Template(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = page::fault(self.status(), &self.to_string());
        let wait = match self {
            Self::Busy => Some("5"),
            Self::Often => Some("60"),
            _ => None,
        };
        if let Some(wait) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(wait));
        }
        response
    }
}

/// The routes of the pages, which read as `pages` says; `metrics` are those of the process.
pub fn routes(pages: &Pages, metrics: &Arc<Metrics>) -> Router {
    let web = Arc::new(Web {
        sessions: Sessions::new(pages.conninfo.clone(), reader::SESSIONS_MAX),
        exports: Sessions::new(pages.conninfo.clone(), reader::EXPORTS_MAX),
        begun: export::Begun::default(),
        reads: reads::Reads::default(),
        numbers: numbers::Kept::default(),
        feeds: unchanged::Feeds::default(),
        gate: Gate::new(pages),
        metrics: Arc::clone(metrics),
    });
    let inside = Router::new()
        .route("/", get(overview::overview))
        .route("/events", get(events::list))
        .route(EXPORT, get(export::export))
        .route("/events/{id}", get(events::detail))
        .route("/{kind}/{name}", get(subject::of_kind))
        .route("/experiments/{project}/{name}", get(subject::experiment))
        .route("/facilities", get(facilities::list))
        .route("/facilities/{name}", get(facilities::detail))
        .route("/facilities.atom", get(facilities::atom))
        .route("/facilities.json", get(facilities::json_feed))
        .route("/pipeline", get(pipeline::pipeline))
        .nest("/api/v1", api::routes())
        .fallback(async || Fault::Missing)
        .layer(middleware::from_fn_with_state(Arc::clone(&web), access::admit))
        .with_state(Arc::clone(&web));
    let outside = Router::new()
        .route("/login", get(login::login_page))
        .route("/login", post(login::login))
        .route("/logout", post(login::logout))
        .route("/assets/{file}", get(assets::asset))
        .with_state(web);
    outside
        .merge(inside)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn(guard))
        .layer(CompressionLayer::new())
}

/// The only form that is sent holds a token.
const FORM_BYTES_MAX: usize = 4_096;
/// A longer address is refused unread.
const URI_BYTES_MAX: usize = 8_192;

/// Where files begin.
const EXPORT: &str = "/events/export";

/// What a browser may do with what it gets: nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Why a request of another site is refused. Another site may lead somebody to a page of ours, and nothing else: it may send no form, start no file, and put nothing of ours into its own pages. The browser says who asks (W3C Fetch Metadata).
fn foreign(request: &Request) -> Option<&'static str> {
    let said = |name: &str| request.headers().get(name).and_then(|said| said.to_str().ok());
    let site = said("sec-fetch-site");
    if !request.method().is_safe() && !matches!(site, Some("same-origin" | "none")) {
        return Some("This form came from another site.");
    }
    let is_led = said("sec-fetch-dest") == Some("document") && request.uri().path() != EXPORT;
    (site == Some("cross-site") && !is_led).then_some("Another site asked for this.")
}

/// Refuses what is foreign or too long, and sets the headers of every answer.
async fn guard(request: Request, next: Next) -> Response {
    let foreign = foreign(&request);
    let mut response = if let Some(why) = foreign {
        page::fault(StatusCode::FORBIDDEN, why)
    } else if request.uri().to_string().len() > URI_BYTES_MAX {
        page::fault(StatusCode::URI_TOO_LONG, "This address is too long.")
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
