//! Who asks. What they may see, the audit database decides.

use super::{Fault, Peer, Web, page};
use crate::config::{Access, Pages};
use axum::{
    Form,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{net::IpAddr, path::Path, sync::Arc};

/// Longer tokens and names are refused unread.
const TOKEN_BYTES_MAX: usize = 512;
const COOKIE: &str = "portal_audit_token";

/// Whoever asks for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visitor {
    /// As the portal names them.
    pub(super) name: String,
    pub(super) sees_all: bool,
    /// Whether there is a session to end.
    pub(super) may_leave: bool,
}

/// Decides who somebody is.
#[derive(Debug)]
pub(super) struct Gate {
    access: Access,
    admins: Vec<String>,
}

impl Gate {
    pub(super) fn new(pages: &Pages) -> Self {
        Self { access: pages.access.clone(), admins: pages.admins.clone() }
    }

    /// `None`: nobody that we know.
    fn visitor(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Visitor> {
        let name = match &self.access {
            Access::Loopback => {
                let is_near = peer.is_some_and(|peer| peer.to_canonical().is_loopback())
                    && is_own_name(headers);
                let visitor = Visitor { name: String::new(), sees_all: true, may_leave: false };
                return is_near.then_some(visitor);
            }
            Access::Token { file } => named_by(file, token(headers)?)?,
            Access::Proxy { header, peers } => {
                // From anybody else the header is only a claim.
                if !peers.contains(&peer?.to_canonical()) {
                    return None;
                }
                one(headers, header)?.to_owned()
            }
        };
        let is_name = !name.is_empty() && name.len() <= TOKEN_BYTES_MAX;
        let sees_all = self.admins.contains(&name);
        let may_leave = matches!(self.access, Access::Token { .. });
        is_name.then_some(Visitor { name, sees_all, may_leave })
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

fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = one(headers, "authorization") {
        return value.strip_prefix("Bearer ");
    }
    let cookies = one(headers, "cookie")?.split(';');
    let mut found =
        cookies.filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    found.next()
}

/// The name beside the token's hash. All lines are compared, whichever fits.
fn named_by(file: &Path, token: &str) -> Option<String> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let path = file.display();
            tracing::warn!(%path, %error, "cannot read the tokens of the pages");
            return None;
        }
    };
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(token) {
        hash.push_str(&format!("{byte:02x}"));
    }
    let mut name = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Some((known, whose)) = line.trim().split_once(char::is_whitespace) else { continue };
        if is_same(known.as_bytes(), hash.as_bytes()) {
            name = Some(whose.trim().to_owned());
        }
    }
    name
}

/// Takes as long for any two hashes.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differing == 0
}

/// Lets a request through with its visitor, or asks who it is.
pub(super) async fn admit(
    State(web): State<Arc<Web>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    if let Some(visitor) = web.gate.visitor(request.headers(), peer) {
        request.extensions_mut().insert(visitor);
        return next.run(request).await;
    }
    let wants_page =
        one(request.headers(), "accept").is_some_and(|kinds| kinds.contains("text/html"));
    match web.gate.access {
        Access::Token { .. } if wants_page => Redirect::to("/login").into_response(),
        Access::Token { .. } => {
            let mut response = page::fault(StatusCode::UNAUTHORIZED, "A token is needed.");
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            response
        }
        Access::Proxy { .. } => page::fault(
            StatusCode::FORBIDDEN,
            "These pages are reached through the proxy that signs you in.",
        ),
        Access::Loopback => page::fault(
            StatusCode::FORBIDDEN,
            "These pages are for this machine: open them as http://localhost or http://127.0.0.1 there.",
        ),
    }
}

/// The form that takes a token.
pub(super) async fn login_page() -> Result<Response, Fault> {
    page::login(StatusCode::OK, false)
}

#[derive(Deserialize)]
pub(super) struct Login {
    token: String,
}

/// A token is exchanged for a cookie that holds it, which scripts cannot read and other sites cannot use.
pub(super) async fn login(
    State(web): State<Arc<Web>>,
    Form(login): Form<Login>,
) -> Result<Response, Fault> {
    let Access::Token { file } = &web.gate.access else { return Err(Fault::Missing) };
    let token = login.token.trim();
    let is_plain = token
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'"' | b'\\'));
    if !is_plain || named_by(file, token).is_none() {
        return page::login(StatusCode::UNAUTHORIZED, true);
    }
    Ok(leave_cookie(token, 8 * 3_600))
}

pub(super) async fn logout() -> Response {
    leave_cookie("", 0)
}

fn leave_cookie(token: &str, seconds: u32) -> Response {
    let cookie =
        format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
    let mut response = Redirect::to("/").into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const NEAR: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const FAR: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)));

    #[test]
    fn a_proxy_is_believed_from_its_address_only() {
        let access = Access::Proxy { header: "x-user".into(), peers: vec![FAR.unwrap()] };
        let gate = Gate { access, admins: vec!["root".into()] };
        let ada = headers(&[("x-user", "ada")]);
        assert_eq!(gate.visitor(&ada, NEAR), None);
        assert_eq!(gate.visitor(&ada, None), None);
        let visitor = gate.visitor(&ada, FAR).unwrap();
        assert_eq!((visitor.name.as_str(), visitor.sees_all), ("ada", false));
        assert!(gate.visitor(&headers(&[("x-user", "root")]), FAR).unwrap().sees_all);
        // Somebody's own header beside the proxy's, or an empty one.
        assert_eq!(gate.visitor(&headers(&[("x-user", "ada"), ("x-user", "root")]), FAR), None);
        assert_eq!(gate.visitor(&headers(&[("x-user", "")]), FAR), None);
    }

    #[test]
    fn a_token_is_known_by_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("tokens");
        let hash: String =
            Sha256::digest("secret-1").iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(&file, format!("# whose\n{hash}  ada\nshort x\n")).unwrap();
        let gate = Gate { access: Access::Token { file }, admins: Vec::new() };
        let with = |name, value| gate.visitor(&headers(&[(name, value)]), FAR);
        assert_eq!(with("authorization", "Bearer secret-1").unwrap().name, "ada");
        assert_eq!(with("cookie", "a=b; portal_audit_token=secret-1").unwrap().name, "ada");
        for wrong in ["Bearer secret-2", "Bearer ", "Basic secret-1", "secret-1"] {
            assert_eq!(with("authorization", wrong), None, "{wrong}");
        }
        assert_eq!(gate.visitor(&HeaderMap::new(), NEAR), None);
    }

    #[test]
    fn loopback_is_for_this_machine() {
        let gate = Gate { access: Access::Loopback, admins: Vec::new() };
        for own in ["localhost:8484", "LOCALHOST", "127.0.0.1:8484", "127.1.2.3", "[::1]:8484"] {
            let headers = headers(&[("host", own)]);
            assert!(gate.visitor(&headers, NEAR).unwrap().sees_all, "{own}");
            assert_eq!(gate.visitor(&headers, FAR), None);
        }
        // A name of somebody else's that leads to this machine.
        for other in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "a@evil", ""]
        {
            assert_eq!(gate.visitor(&headers(&[("host", other)]), NEAR), None, "{other}");
        }
        assert_eq!(gate.visitor(&HeaderMap::new(), NEAR), None);
        assert_eq!(gate.visitor(&headers(&[("host", "localhost"), ("host", "evil")]), NEAR), None);
    }
}
