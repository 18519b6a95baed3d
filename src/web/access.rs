//! Who asks. What they may see, the audit database decides.

use super::{
    Peer, Web,
    jwt::{self, Refused},
    login::{self, Attempts},
    page,
};
use crate::{
    chain::chain,
    config::{Access, Pages},
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use std::{net::IpAddr, sync::Arc};

/// Longer names are refused.
const NAME_BYTES_MAX: usize = 512;

/// Whoever asks for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visitor {
    /// As the portal names them.
    pub(super) name: String,
    pub(super) sees_all: bool,
    /// Whether there is a session to end.
    pub(super) may_leave: bool,
}

/// Why somebody is nobody that we know.
#[derive(Debug)]
pub(super) enum Stranger {
    /// They say nothing that could be believed.
    Unknown,
    /// Their signed token is not taken.
    Refused(Refused),
    /// Many wrong tokens came from there.
    Often,
}

/// Decides who somebody is.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) access: Access,
    pub(super) attempts: Attempts,
    admins: Vec<String>,
}

impl Gate {
    pub(super) fn new(pages: &Pages) -> Self {
        let (access, admins) = (pages.access.clone(), pages.admins.clone());
        Self { access, admins, attempts: Attempts::default() }
    }

    fn visitor(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Visitor, Stranger> {
        let (name, is_admin) = match &self.access {
            Access::Loopback => {
                let is_near = peer.is_some_and(|peer| peer.to_canonical().is_loopback())
                    && is_own_name(headers);
                let visitor = Visitor { name: String::new(), sees_all: true, may_leave: false };
                return is_near.then_some(visitor).ok_or(Stranger::Unknown);
            }
            Access::Token { file } => {
                let token = credential(headers, Some(login::COOKIE)).ok_or(Stranger::Unknown)?;
                (login::named(file, token, &self.attempts, peer)?, false)
            }
            Access::Proxy { header, peers } => {
                // From anybody else the header is only a claim.
                let is_proxy = peer.is_some_and(|peer| peers.contains(&peer.to_canonical()));
                let name = one(headers, header).filter(|_| is_proxy);
                (name.ok_or(Stranger::Unknown)?.to_owned(), false)
            }
            Access::Jwt(settings) => {
                let token = credential(headers, settings.cookie.as_deref());
                let token = token.ok_or(Stranger::Unknown)?;
                let named = jwt::named(settings, token).map_err(Stranger::Refused)?;
                (named.name, named.is_admin)
            }
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Stranger::Unknown);
        }
        let sees_all = is_admin || self.admins.contains(&name);
        let may_leave = matches!(self.access, Access::Token { .. });
        Ok(Visitor { name, sees_all, may_leave })
    }
}

/// Whether the request names this machine. A page of elsewhere whose name was made to lead here (DNS rebinding) is asked for by that name.
fn is_own_name(headers: &HeaderMap) -> bool {
    let Some(authority) = one(headers, "host").and_then(|host| host.parse::<Authority>().ok())
    else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The only value of a header: where it stands twice, somebody has added one.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// The bearer's token, or else the one in that cookie. Of two there is none: one of them is somebody else's.
fn credential<'a>(headers: &'a HeaderMap, cookie: Option<&str>) -> Option<&'a str> {
    if headers.contains_key(header::AUTHORIZATION) {
        let (scheme, token) = one(headers, "authorization")?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then_some(token);
    }
    let cookie = cookie?;
    let pairs = one(headers, "cookie")?.split(';');
    let mut found = pairs.filter_map(|pair| pair.trim().strip_prefix(cookie)?.strip_prefix('='));
    let value = found.next()?;
    found.next().is_none().then_some(value)
}

/// Lets a request through with its visitor, or asks who it is.
pub(super) async fn admit(
    State(web): State<Arc<Web>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let stranger = match web.gate.visitor(request.headers(), peer) {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            return next.run(request).await;
        }
        Err(stranger) => stranger,
    };
    let wants_page =
        one(request.headers(), "accept").is_some_and(|kinds| kinds.contains("text/html"));
    match (&web.gate.access, stranger) {
        (_, Stranger::Often) => often(),
        (_, Stranger::Refused(refused)) => refuse(&refused),
        (Access::Token { .. }, _) if wants_page => Redirect::to("/login").into_response(),
        (Access::Token { .. }, _) => unauthorized("A token is needed.", "Bearer"),
        (Access::Jwt(_), _) => {
            unauthorized("Sign in to the portal, then open this page again.", "Bearer")
        }
        (Access::Proxy { .. }, _) => page::fault(
            StatusCode::FORBIDDEN,
            "These pages are reached through the proxy that signs you in.",
        ),
        (Access::Loopback, _) => page::fault(
            StatusCode::FORBIDDEN,
            "These pages are for this machine: open them as http://localhost or http://127.0.0.1 there.",
        ),
    }
}

fn unauthorized(message: &str, challenge: &'static str) -> Response {
    let mut response = page::fault(StatusCode::UNAUTHORIZED, message);
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// What is said of a signed token that is not taken (RFC 6750, section 3.1).
fn refuse(refused: &Refused) -> Response {
    if let Refused::Keys(error) = refused {
        tracing::warn!(error = chain(error), "cannot verify the tokens of the pages");
        let message =
            "The keys that verify tokens cannot be used. The log of portal-audit says why.";
        return page::fault(StatusCode::SERVICE_UNAVAILABLE, message);
    }
    tracing::debug!(error = %refused, "a token was refused");
    let message = format!("Your token was refused: {refused}.");
    unauthorized(&message, "Bearer error=\"invalid_token\"")
}

pub(super) const OFTEN: &str =
    "Many different wrong tokens came from your address. Wait a minute, then try again.";

fn often() -> Response {
    let mut response = page::fault(StatusCode::TOO_MANY_REQUESTS, OFTEN);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};
    use std::path::PathBuf;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn gate(access: Access, admins: &[&str]) -> Gate {
        let admins = admins.iter().map(|name| (*name).to_owned()).collect();
        Gate { access, admins, attempts: Attempts::default() }
    }

    impl Gate {
        fn of(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Visitor> {
            self.visitor(headers, peer).ok()
        }
    }

    const NEAR: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const FAR: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)));

    #[test]
    fn a_proxy_is_believed_from_its_address_only() {
        let access = Access::Proxy { header: "x-user".into(), peers: vec![FAR.unwrap()] };
        let gate = gate(access, &["root"]);
        let ada = headers(&[("x-user", "ada")]);
        assert_eq!(gate.of(&ada, NEAR), None);
        assert_eq!(gate.of(&ada, None), None);
        let visitor = gate.of(&ada, FAR).unwrap();
        assert_eq!((visitor.name.as_str(), visitor.sees_all), ("ada", false));
        assert!(gate.of(&headers(&[("x-user", "root")]), FAR).unwrap().sees_all);
        // Somebody's own header beside the proxy's, or an empty one.
        assert_eq!(gate.of(&headers(&[("x-user", "ada"), ("x-user", "root")]), FAR), None);
        assert_eq!(gate.of(&headers(&[("x-user", "")]), FAR), None);
    }

    #[test]
    fn a_token_is_known_by_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("tokens");
        let hash: String =
            Sha256::digest("secret-1").iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(&file, format!("# whose\n{hash}  ada\nshort x\n")).unwrap();
        let gate = gate(Access::Token { file }, &[]);
        let with = |name, value| gate.of(&headers(&[(name, value)]), FAR);
        assert_eq!(with("authorization", "Bearer secret-1").unwrap().name, "ada");
        assert_eq!(with("cookie", "a=b; __Host-portal_audit_token=secret-1").unwrap().name, "ada");
        for wrong in ["Bearer secret-2", "Bearer ", "Basic secret-1", "secret-1"] {
            assert_eq!(with("authorization", wrong), None, "{wrong}");
        }
        assert_eq!(gate.of(&HeaderMap::new(), NEAR), None);
        // Two of them, of which somebody has added one; and a cookie does not stand in for a header that is wrong.
        let cookie = ("cookie", "__Host-portal_audit_token=secret-1");
        for added in [
            [("authorization", "Bearer secret-1"), ("authorization", "Bearer secret-1")],
            [("authorization", "Bearer secret-2"), cookie],
            [("authorization", ""), cookie],
            [cookie, cookie],
        ] {
            assert_eq!(gate.of(&headers(&added), FAR), None, "{added:?}");
        }
        let twice = "__Host-portal_audit_token=secret-2; __Host-portal_audit_token=secret-1";
        assert_eq!(with("cookie", twice), None);
    }

    #[test]
    fn loopback_is_for_this_machine() {
        let gate = gate(Access::Loopback, &[]);
        for own in ["localhost:8484", "LOCALHOST", "127.0.0.1:8484", "127.1.2.3", "[::1]:8484"] {
            let headers = headers(&[("host", own)]);
            assert!(gate.of(&headers, NEAR).unwrap().sees_all, "{own}");
            assert_eq!(gate.of(&headers, FAR), None);
        }
        // A name of somebody else's that leads to this machine.
        for other in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "a@evil", ""]
        {
            assert_eq!(gate.of(&headers(&[("host", other)]), NEAR), None, "{other}");
        }
        assert_eq!(gate.of(&HeaderMap::new(), NEAR), None);
        assert_eq!(gate.of(&headers(&[("host", "localhost"), ("host", "evil")]), NEAR), None);
    }
}
