//! Signing in by a token of ours: a form, the cookie that it is exchanged for, and a limit for those who guess.

use super::{
    Fault, Peer, Web,
    access::{OFTEN, Stranger},
    page,
};
use crate::config::{Access, token_lines};
use axum::{
    Extension, Form,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use lru::LruCache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Longer tokens are refused unread.
const TOKEN_BYTES_MAX: usize = 512;
/// The prefix makes browsers take it from this very host, by HTTPS, alone (RFC 6265bis, section 4.1.3.2): no other host of the domain can leave one.
pub(super) const COOKIE: &str = "__Host-portal_audit_token";
const COOKIE_SECONDS: u32 = 8 * 3_600;

/// Different wrong tokens that an address may try within [`SPAN`].
const WRONG_MAX: usize = 20;
const SPAN: Duration = Duration::from_secs(60);
/// Addresses, and tokens that were right, which are remembered.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("4096 is not 0");

type Hash = [u8; 32];

/// Who tried wrong tokens. The same one again is no guess but a program that was not told, and what was right once goes on to be looked up: many can share an address.
#[derive(Debug)]
pub(super) struct Attempts(Mutex<Tried>);

#[derive(Debug)]
struct Tried {
    wrong: LruCache<IpAddr, Vec<(Instant, Hash)>>,
    right: LruCache<Hash, ()>,
}

impl Default for Attempts {
    fn default() -> Self {
        let (wrong, right) = (LruCache::new(REMEMBERED_MAX), LruCache::new(REMEMBERED_MAX));
        Self(Mutex::new(Tried { wrong, right }))
    }
}

impl Attempts {
    /// Whether a token may be looked up for an address.
    fn may(&self, from: IpAddr, token: &Hash, now: Instant) -> bool {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.right.get(token).is_some() {
            return true;
        }
        let Some(wrong) = tried.wrong.get_mut(&from) else { return true };
        wrong.retain(|(at, _)| now.duration_since(*at) < SPAN);
        wrong.len() < WRONG_MAX
    }

    fn tell(&self, from: IpAddr, token: Hash, is_right: bool, now: Instant) {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_right {
            tried.right.put(token, ());
            return;
        }
        let wrong = tried.wrong.get_or_insert_mut(from, Vec::new);
        if !wrong.iter().any(|(_, known)| *known == token) {
            wrong.push((now, token));
        }
    }
}

/// Who has one address of version 6 has the 2⁶⁴ of its network.
fn network(peer: Option<IpAddr>) -> IpAddr {
    match peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        Some(address) => address,
        None => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// The name beside a token's hash. All lines are compared, whichever fits.
pub(super) fn named(
    file: &Path,
    token: &str,
    attempts: &Attempts,
    peer: Option<IpAddr>,
) -> Result<String, Stranger> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(Stranger::Unknown);
    }
    let (from, hash, now) = (network(peer), Hash::from(Sha256::digest(token)), Instant::now());
    if !attempts.may(from, &hash, now) {
        return Err(Stranger::Often);
    }
    let text = std::fs::read_to_string(file).map_err(|error| {
        let path = file.display();
        tracing::warn!(%path, %error, "cannot read the tokens of the pages");
        Stranger::Unknown
    })?;
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name = None;
    for (known, whose) in token_lines(&text).filter_map(|(_, named)| named) {
        if is_same(known.as_bytes(), hex.as_bytes()) {
            name = Some(whose.to_owned());
        }
    }
    attempts.tell(from, hash, name.is_some(), now);
    name.ok_or(Stranger::Unknown)
}

/// Takes as long for any two hashes.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differing == 0
}

/// The form that takes a token, where tokens of ours are taken.
pub(super) async fn login_page(State(web): State<Arc<Web>>) -> Result<Response, Fault> {
    let Access::Token { .. } = web.gate.access else { return Err(Fault::Missing) };
    page::login(StatusCode::OK, "")
}

#[derive(Deserialize)]
pub(super) struct Login {
    token: String,
}

/// A token is exchanged for a cookie that holds it, which scripts cannot read and other sites cannot use.
pub(super) async fn login(
    State(web): State<Arc<Web>>,
    peer: Option<Extension<Peer>>,
    Form(login): Form<Login>,
) -> Result<Response, Fault> {
    let Access::Token { file } = &web.gate.access else { return Err(Fault::Missing) };
    let token = login.token.trim();
    let is_plain = token
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'"' | b'\\'));
    let peer = peer.map(|Extension(Peer(address))| address);
    match named(file, token, &web.gate.attempts, peer) {
        Ok(_) if is_plain => Ok(leave_cookie(token, COOKIE_SECONDS)),
        Err(Stranger::Often) => page::login(StatusCode::TOO_MANY_REQUESTS, OFTEN),
        _ => page::login(StatusCode::UNAUTHORIZED, "Nobody has this token."),
    }
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

    #[test]
    fn guesses_are_few_and_shut_nobody_out_who_was_right() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let (here, there) = (network(None), IpAddr::from([192, 0, 2, 7]));
        let hash = |n: usize| Hash::from(Sha256::digest(n.to_string()));
        attempts.tell(here, hash(1_000), true, now);
        for _ in 0..10 * WRONG_MAX {
            assert!(attempts.may(here, &hash(0), now));
            attempts.tell(here, hash(0), false, now);
        }
        for n in 1..WRONG_MAX {
            assert!(attempts.may(here, &hash(n), now), "{n}");
            attempts.tell(here, hash(n), false, now);
        }
        assert!(!attempts.may(here, &hash(WRONG_MAX), now));
        assert!(attempts.may(here, &hash(1_000), now));
        assert!(attempts.may(there, &hash(WRONG_MAX), now));
        assert!(attempts.may(here, &hash(WRONG_MAX), now + SPAN));
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let of = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::7"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::7"), of("2001:db8:1:3::7"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
    }
}
