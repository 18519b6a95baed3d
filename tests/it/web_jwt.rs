//! The pages by signed tokens: who is let in, and what each known attack on such tokens comes to.

use crate::{
    support::sample,
    web::{Answer, Site, world},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use portal_audit::config::{Access, AdminClaim, Jwt};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use serde_json::{Value, json};
use std::path::PathBuf;

const ISSUER: &str = "https://id.example/";
const AUDIENCE: &str = "portal-audit";
const COOKIE: &str = "portal_session";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An identity server: three keys, and the file of their public parts.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    folder: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        // ring makes no keys of RSA; nothing but these tests has seen this one.
        let rsa = include_str!("../jwt/rs256.txt").replace('\n', "");
        let rsa = RsaKeyPair::from_pkcs8(&STANDARD.decode(rsa).unwrap()).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random);
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let issuer = Self {
            rsa,
            ec: ec.unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        issuer.publish(&issuer.keys());
        issuer
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    fn publish(&self, keys: &Value) {
        std::fs::write(self.file(), json!({ "keys": keys }).to_string()).unwrap();
    }

    fn modulus(&self) -> Vec<u8> {
        PublicKeyComponents::<Vec<u8>>::from(self.rsa.public()).n
    }

    fn keys(&self) -> Value {
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        json!([
            { "kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": b64(self.modulus()), "e": "AQAB" },
            { "kty": "EC", "kid": "e", "crv": "P-256", "x": b64(x), "y": b64(y) },
            { "kty": "OKP", "kid": "d", "crv": "Ed25519", "x": b64(self.ed.public_key()) },
            { "kty": "RSA", "kid": "x", "use": "enc", "alg": "RSA-OAEP", "n": b64(self.modulus()), "e": "AQAB" },
        ])
    }

    fn sign_rsa(&self, with: &'static dyn RsaEncoding, message: &str) -> Vec<u8> {
        let mut signed = vec![0; self.rsa.public().modulus_len()];
        self.rsa.sign(with, &SystemRandom::new(), message.as_bytes(), &mut signed).unwrap();
        signed
    }

    /// Signed by the key of that kid, whatever the header says.
    fn sign(&self, by: &str, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signed = match by {
            "r" => self.sign_rsa(&RSA_PKCS1_SHA256, &message),
            "e" => {
                let signed = self.ec.sign(&SystemRandom::new(), message.as_bytes());
                signed.unwrap().as_ref().to_vec()
            }
            _ => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", b64(signed))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign("e", &json!({ "alg": "ES256", "kid": "e" }), claims)
    }

    fn settings(&self) -> Jwt {
        Jwt {
            jwks_file: self.file(),
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            name: "$.sub".parse().unwrap(),
            cookie: Some(COOKIE.to_owned()),
            admin: None,
        }
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}

fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap()
}

/// A token's claims as they should be, but for those that are changed.
fn claims(changed: Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "bo", "exp": now() + 600, "nbf": now() - 5, "iat": now() - 5 });
    for (name, value) in changed.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

async fn bearing(site: &Site, token: &str) -> Answer {
    site.ask("GET /api/v1/events", &[&format!("Authorization: Bearer {token}")], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_shows_what_its_subject_may_see() {
    let portal = sample("jwt_seen").await;
    world(&portal).await;
    let issuer = Issuer::new();
    let site = Site::of(&portal, Access::Jwt(issuer.settings()), &["root"]).await;
    // Each algorithm by its key, in the header and in the portal's cookie.
    for (kid, alg) in [("r", "RS256"), ("e", "ES256"), ("d", "EdDSA")] {
        let token = issuer.sign(kid, &json!({ "alg": alg, "kid": kid }), &claims(json!({})));
        for header in [
            format!("Authorization: Bearer {token}"),
            format!("Authorization: bearer {token}"),
            format!("Cookie: theme=dark; {COOKIE}={token}"),
        ] {
            let seen = site.json("/events?q=type:project_*%20type:token_*", &[&header]).await;
            let subjects: Vec<&str> = seen["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event["subject"].as_str().unwrap())
                .collect();
            assert!(
                !subjects.is_empty() && subjects.iter().all(|subject| *subject == "maple"),
                "{alg}: {subjects:?}"
            );
            let page = site.ask("GET /", &[&header], "").await;
            assert_eq!(page.status, 200);
            // Their session is the portal's: it is not ended here.
            assert!(
                page.body.contains("<p class=\"who\">bo</p>") && !page.body.contains("Sign out")
            );
        }
    }
    // One who is in the list of admins, an audience among several, and a clock that is a little late.
    let root = issuer
        .token(&claims(json!({ "sub": "root", "aud": ["other", AUDIENCE], "exp": now() - 10 })));
    let answer = bearing(&site, &root).await;
    assert!(answer.status == 200 && answer.body.contains("deploy-key"), "{}", answer.body);
    // Nobody in particular, by a browser too; and no form asks for a token.
    let answer = site.get("/").await;
    assert!(
        answer.status == 401 && answer.body.contains("Sign in to the portal"),
        "{}",
        answer.body
    );
    assert_eq!(site.get("/login").await.status, 404);
}

/// What an attack is, and its token.
type Attack = (&'static str, String);

fn root() -> Value {
    claims(json!({ "sub": "root" }))
}

/// Tokens that are not signed, or not what was signed.
fn broken(issuer: &Issuer) -> Vec<Attack> {
    let good = issuer.token(&claims(json!({})));
    let (head, rest) = good.split_once('.').unwrap();
    let (body, sign) = rest.split_once('.').unwrap();
    let mut attacks = vec![
        ("its signature is another's", format!("{head}.{}.{sign}", b64(root().to_string()))),
        ("no signature", format!("{head}.{body}.")),
        ("half a signature", format!("{head}.{body}.{}", &sign[..sign.len() / 2])),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{good}.{sign}")),
        ("not base64url", format!("{head}.{body}.{sign}=")),
        ("nothing", String::new()),
        ("not JSON", format!("{}.{body}.{sign}", b64("{"))),
    ];
    for alg in ["none", "None", "NONE", ""] {
        let message = message(&json!({ "alg": alg, "kid": "e" }), &root());
        attacks.push(("alg none", format!("{message}.")));
        attacks.push(("alg none, signed", format!("{message}.{sign}")));
    }
    attacks
}

/// Tokens that are signed, by another key or in another way than the issuer's.
fn forged(issuer: &Issuer) -> Vec<Attack> {
    let hmac = |secret: &[u8]| {
        let message = message(&json!({ "alg": "HS256", "kid": "r" }), &root());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", b64(tag))
    };
    let rsa = |alg: &str, with: &'static dyn RsaEncoding| {
        let message = message(&json!({ "alg": alg, "kid": "r" }), &root());
        format!("{message}.{}", b64(issuer.sign_rsa(with, &message)))
    };
    let by = |key: &str, header: Value| issuer.sign(key, &header, &root());
    let own = Issuer::new();
    let by_own = |header: Value| own.sign("e", &header, &root());
    let (jwk, jku) = (own.keys()[1].clone(), "http://127.0.0.1:9/keys");
    let crit = json!({ "alg": "ES256", "kid": "e", "crit": ["b64"], "b64": false });
    vec![
        ("HMAC by the modulus", hmac(&issuer.modulus())),
        ("HMAC by the modulus as it is written", hmac(b64(issuer.modulus()).as_bytes())),
        ("HMAC by the file of keys", hmac(&std::fs::read(issuer.file()).unwrap())),
        ("HMAC by nothing", hmac(b"")),
        ("the key of another algorithm", by("r", json!({ "alg": "ES256", "kid": "e" }))),
        ("another key of the set", by("d", json!({ "alg": "EdDSA", "kid": "e" }))),
        ("an algorithm that the key is not for", rsa("PS256", &RSA_PSS_SHA256)),
        ("a longer hash than the key is for", rsa("RS512", &RSA_PKCS1_SHA512)),
        ("a key for encryption", by("r", json!({ "alg": "RS256", "kid": "x" }))),
        ("unknown kid", by("e", json!({ "alg": "ES256", "kid": "../e" }))),
        ("no kid", by("e", json!({ "alg": "ES256" }))),
        ("an extension that must be understood", by("e", crit)),
        ("a key of its own", by_own(json!({ "alg": "ES256", "kid": "e" }))),
        ("a key that it brings", by_own(json!({ "alg": "ES256", "kid": "e", "jwk": jwk }))),
        ("a key elsewhere", by_own(json!({ "alg": "ES256", "kid": "e", "jku": jku }))),
    ]
}

/// Tokens of the issuer that are not for now, not for us, or name nobody.
fn unfit(issuer: &Issuer) -> Vec<Attack> {
    let signed = |name: &str, value: Value| {
        let mut claims = root();
        claims[name] = value;
        issuer.token(&claims)
    };
    let without = |name: &str| {
        let mut claims = root();
        claims.as_object_mut().unwrap().remove(name);
        issuer.token(&claims)
    };
    vec![
        ("expired", signed("exp", json!(now() - 120))),
        ("no end", without("exp")),
        ("an end in words", signed("exp", json!("9999999999"))),
        ("an end before the epoch", signed("exp", json!(-1))),
        ("not yet", signed("nbf", json!(now() + 120))),
        ("another issuer", signed("iss", json!("https://id.example"))),
        ("no issuer", without("iss")),
        ("another audience", signed("aud", json!(["portal", "portal-audit-2"]))),
        ("no audience", without("aud")),
        ("no name", without("sub")),
        ("an empty name", signed("sub", json!(""))),
        ("a number for a name", signed("sub", json!(7))),
        ("names", signed("sub", json!(["bo", "root"]))),
        ("a name with a control character", signed("sub", json!("root\u{0}"))),
        ("a long name", signed("sub", json!("x".repeat(513)))),
        ("a huge token", signed("pad", json!("x".repeat(9_000)))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_lets_in_whom_its_issuer_did_not_name() {
    let portal = sample("jwt_attacks").await;
    world(&portal).await;
    let issuer = Issuer::new();
    let site = Site::of(&portal, Access::Jwt(issuer.settings()), &["root"]).await;
    // They are refused for what is wrong with them, and for nothing else.
    assert_eq!(bearing(&site, &issuer.token(&root())).await.status, 200);
    let mut taken = Vec::new();
    for (what, token) in [broken(&issuer), forged(&issuer), unfit(&issuer)].concat() {
        for header in
            [format!("Authorization: Bearer {token}"), format!("Cookie: {COOKIE}={token}")]
        {
            let answer = site.ask("GET /api/v1/events", &[&header], "").await;
            if answer.status != 401 {
                taken.push(what);
            }
            for said in ["maple", "root", "deploy-key", &token[token.len() / 2..]] {
                assert!(said.is_empty() || !answer.body.contains(said), "{what} says {said}");
            }
        }
    }
    assert!(taken.is_empty(), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_credentials_there_is_none_and_no_claim_widens_one() {
    let portal = sample("jwt_two").await;
    world(&portal).await;
    let issuer = Issuer::new();
    let site = Site::of(&portal, Access::Jwt(issuer.settings()), &["root"]).await;
    let good = issuer.token(&claims(json!({})));
    let bearer = format!("Authorization: Bearer {good}");
    let cookie = format!("Cookie: {COOKIE}={good}");
    for headers in [
        vec![bearer.as_str(), &bearer],
        vec![&cookie, &cookie],
        vec![&cookie, "Authorization: Basic cm9vdDo="],
        vec![&cookie, "Authorization: Bearer x.y.z"],
        vec!["Cookie: portal_session=x", &cookie],
    ] {
        assert_eq!(site.ask("GET /api/v1/events", &headers, "").await.status, 401, "{headers:?}");
    }
    // The row policies know bo by name alone.
    let wide = issuer.token(&claims(
        json!({ "role": "admin", "groups": ["root"], "admin": true, "preferred_username": "root" }),
    ));
    let answer = bearing(&site, &wide).await;
    assert!(answer.status == 200 && !answer.body.contains("deploy-key"), "{}", answer.body);
    let wide = format!("Authorization: Bearer {wide}");
    assert_eq!(site.ask("GET /pipeline", &[&wide], "").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_makes_an_admin_if_the_settings_say_which() {
    let portal = sample("jwt_admin").await;
    world(&portal).await;
    let issuer = Issuer::new();
    let mut settings = issuer.settings();
    settings.name = "$.username".parse().unwrap();
    let path = "$.realm_access.roles".parse().unwrap();
    settings.admin = Some(AdminClaim { path, value: "auditor".to_owned() });
    let site = Site::of(&portal, Access::Jwt(settings), &[]).await;
    for (roles, sees_all) in [
        (json!(["user", "auditor"]), true),
        (json!("auditor"), true),
        (json!(["user"]), false),
        (json!("not auditor"), false),
        (json!({ "auditor": true }), false),
        (json!([["auditor"]]), false),
        (json!(null), false),
    ] {
        let token = issuer.token(&claims(
            json!({ "username": "cy", "realm_access": { "roles": roles }, "roles": "auditor" }),
        ));
        let answer = bearing(&site, &token).await;
        assert_eq!(answer.status, 200, "{roles}");
        assert_eq!(answer.body.contains("deploy-key"), sees_all, "{roles}");
    }
    // `sub` is not the name here.
    assert_eq!(bearing(&site, &issuer.token(&claims(json!({ "sub": "ada" })))).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_a_restart() {
    let portal = sample("jwt_keys").await;
    let (issuer, next) = (Issuer::new(), Issuer::new());
    let site = Site::of(&portal, Access::Jwt(issuer.settings()), &[]).await;
    let (old, new) = (issuer.token(&claims(json!({}))), next.token(&claims(json!({}))));
    let status = async |token: &str| bearing(&site, token).await.status;
    assert_eq!((status(&old).await, status(&new).await), (200, 401));
    issuer.publish(&next.keys());
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
    // Without keys that can be trusted nobody is let in, and the page says who can mend it.
    let secret = json!([{ "kty": "oct", "kid": "h", "k": "c2VjcmV0LWNhbmFyeQ" }]);
    for keys in [json!([]), json!("canary"), secret] {
        issuer.publish(&keys);
        let answer = bearing(&site, &new).await;
        assert!(
            answer.status == 503 && answer.body.contains("log of portal-audit"),
            "{keys}: {}",
            answer.body
        );
    }
    std::fs::remove_file(issuer.file()).unwrap();
    assert_eq!(status(&new).await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_may_lead_here_and_nothing_else() {
    let portal = sample("jwt_sites").await;
    let issuer = Issuer::new();
    let site = Site::of(&portal, Access::Jwt(issuer.settings()), &[]).await;
    let cookie = format!("Cookie: {COOKIE}={}", issuer.token(&claims(json!({}))));
    let file = "/events/export?q=&format=csv";
    for (path, from, into, status) in [
        ("/events", "cross-site", "document", 200),
        ("/events", "cross-site", "iframe", 403),
        ("/events", "cross-site", "image", 403),
        ("/api/v1/events", "cross-site", "empty", 403),
        ("/api/v1/events", "same-site", "empty", 200),
        (file, "cross-site", "document", 403),
        (file, "same-origin", "document", 200),
        (file, "none", "document", 200),
    ] {
        let (from, into) = (format!("Sec-Fetch-Site: {from}"), format!("Sec-Fetch-Dest: {into}"));
        let answer = site.ask(&format!("GET {path}"), &[&cookie, &from, &into], "").await;
        assert_eq!(answer.status, status, "{path} {from} {into}: {}", answer.body);
    }
    // A form needs the browser's word for where it comes from, whatever cookie is with it.
    for from in ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "X: y"] {
        assert_eq!(site.ask("POST /logout", &[&cookie, from], "").await.status, 403, "{from}");
    }
}
