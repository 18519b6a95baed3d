//! The login: trust, SCRAM-SHA-256 bound to the TLS connection or not, and what was allowed besides (manual, 55.3).

use crate::connect::{Refusal, Terms};
use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::frontend,
};

/// The login as a machine without a socket: a request of the server in, our reply out.
pub(super) struct Login<'a> {
    user: &'a str,
    terms: &'a Terms,
    step: Step,
}

enum Step {
    /// Nothing but a request or, if the server trusts us, the end.
    Asked,
    First(ScramSha256),
    Final(ScramSha256),
    /// The password was sent as was allowed, or the server proved that it knows it: now it may say that all is well.
    Proven,
    Done,
}

/// Why a login ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoginError {
    /// We go no further.
    Refused(Refusal),
    /// The server speaks badly.
    Broken(String),
}

impl<'a> Login<'a> {
    pub(super) fn new(user: &'a str, terms: &'a Terms) -> Self {
        Self { user, terms, step: Step::Asked }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Takes the body of one `Authentication…` message; gives the reply to send, if any.
    ///
    /// # Why
    /// With SCRAM both sides prove that they know the password, and an end before the server's proof is a forgery.
    pub(super) fn answer(&mut self, body: &[u8]) -> Result<Option<BytesMut>, LoginError> {
        let broken = |error: std::io::Error| LoginError::Broken(error.to_string());
        let unexpected = || LoginError::Broken("unexpected step of the login".to_owned());
        let (code, data) = body.split_first_chunk::<4>().ok_or_else(unexpected)?;
        let code = u32::from_be_bytes(*code);
        let mut out = BytesMut::new();
        let step = std::mem::replace(&mut self.step, Step::Asked);
        if matches!(step, Step::Asked) && ![11, 12].contains(&code) || (2..=9).contains(&code) {
            self.terms.judge(code, data).map_err(LoginError::Refused)?;
        }
        let password = self.terms.password().unwrap_or_default().as_bytes();
        self.step = match (code, step) {
            (0, Step::Asked | Step::Proven) => Step::Done,
            (3, Step::Asked) => {
                frontend::password_message(password, &mut out).map_err(broken)?;
                Step::Proven
            }
            (5, Step::Asked) => {
                let salt = data.first_chunk().ok_or_else(unexpected)?;
                let hash = md5_hash(self.user.as_bytes(), password, *salt);
                frontend::password_message(hash.as_bytes(), &mut out).map_err(broken)?;
                Step::Proven
            }
            (10, Step::Asked) => {
                let (mechanism, binding) = self.mechanism(data)?;
                let scram = ScramSha256::new(password, binding);
                frontend::sasl_initial_response(mechanism, scram.message(), &mut out)
                    .map_err(broken)?;
                Step::First(scram)
            }
            (11, Step::First(mut scram)) => {
                scram.update(data).map_err(broken)?;
                frontend::sasl_response(scram.message(), &mut out).map_err(broken)?;
                Step::Final(scram)
            }
            (12, Step::Final(mut scram)) => {
                scram.finish(data).map_err(|_forged| LoginError::Refused(Refusal::Unproven))?;
                Step::Proven
            }
            _ => return Err(unexpected()),
        };
        Ok((!out.is_empty()).then_some(out))
    }

    /// The strongest mechanism that both sides know. Where we could bind the login and the server says that it could not, we tell it so: if somebody in between took the word away, it notices (RFC 5802, section 6).
    fn mechanism(&self, data: &[u8]) -> Result<(&'static str, ChannelBinding), LoginError> {
        let offers =
            |wanted: &str| data.split(|byte| *byte == 0).any(|own| own == wanted.as_bytes());
        match (self.terms.end_point(), offers(SCRAM_SHA_256_PLUS), offers(SCRAM_SHA_256)) {
            (Some(hash), true, _) => {
                let binding = ChannelBinding::tls_server_end_point(hash.to_vec());
                Ok((SCRAM_SHA_256_PLUS, binding))
            }
            (Some(_), false, true) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
            (None, _, true) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
            (_, _, false) => {
                Err(LoginError::Refused(Refusal::GivesAway("an unknown SASL mechanism")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Login, LoginError};
    use crate::connect::{Refusal, guard_terms as terms};
    use proptest::prelude::*;

    fn body(code: u32, data: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], data].concat()
    }

    const SASL: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

    #[test]
    fn refuses_to_give_the_password_away() {
        for (code, data, method) in [
            (3, &b""[..], "cleartext"),
            (5, b"salt", "MD5"),
            (7, b"", "a Kerberos, GSSAPI or SSPI credential"),
            (10, b"PLAIN\0\0", "an unknown SASL mechanism"),
        ] {
            let terms = terms("", false, true);
            let error = Login::new("u", &terms).answer(&body(code, data)).unwrap_err();
            assert_eq!(error, LoginError::Refused(Refusal::GivesAway(method)));
        }
    }

    #[test]
    fn sends_what_was_allowed() {
        let clear = terms("require_auth=password", true, true);
        let reply = Login::new("u", &clear).answer(&body(3, b"")).unwrap().unwrap();
        assert_eq!(&reply[..], b"p\0\0\0\x13not to be sent\0");
        let hash = terms("require_auth=md5", false, true);
        let reply = Login::new("u", &hash).answer(&body(5, b"salt")).unwrap().unwrap();
        assert!(reply.starts_with(b"p\0\0\0\x28md5") && reply.len() == 41);
    }

    #[test]
    fn binds_the_login_where_it_can() {
        let first = |terms, offered: &[u8]| {
            let mut login = Login::new("u", terms);
            let reply = login.answer(&body(10, offered)).unwrap().unwrap();
            String::from_utf8_lossy(&reply[5..]).into_owned()
        };
        let (bound, unbound) = (terms("", true, true), terms("", false, true));
        assert!(first(&bound, SASL).contains("SCRAM-SHA-256-PLUS\0"));
        assert!(first(&bound, SASL).contains("p=tls-server-end-point,,n="));
        assert!(first(&bound, b"SCRAM-SHA-256\0\0").contains("y,,n="));
        assert!(first(&unbound, SASL).starts_with("SCRAM-SHA-256\0"));
        assert!(first(&unbound, SASL).contains("n,,n="));
    }

    #[test]
    fn takes_no_end_before_the_servers_proof() {
        let terms = terms("", false, true);
        let mut login = Login::new("u", &terms);
        let reply = login.answer(&body(10, SASL)).unwrap().unwrap();
        assert!(
            reply.starts_with(b"p") && !String::from_utf8_lossy(&reply).contains("not to be sent")
        );
        assert!(login.answer(&body(0, b"")).is_err() && !login.is_done());

        let mut login = Login::new("u", &terms);
        login.answer(&body(10, SASL)).unwrap();
        let forged = login.answer(&body(11, b"r=other,s=AAAA,i=4096")).unwrap_err();
        assert!(matches!(forged, LoginError::Broken(_)), "{forged:?}");

        // Nor one that asks for the password after all.
        let mut login = Login::new("u", &terms);
        login.answer(&body(10, SASL)).unwrap();
        let error = login.answer(&body(5, b"salt")).unwrap_err();
        assert_eq!(error, LoginError::Refused(Refusal::GivesAway("MD5")));
    }

    #[test]
    fn needs_a_password_only_if_the_server_asks() {
        let terms = terms("", false, false);
        let mut login = Login::new("u", &terms);
        assert!(login.answer(&body(0, b"")).unwrap().is_none() && login.is_done());
        let error = Login::new("u", &terms).answer(&body(10, SASL)).unwrap_err();
        assert_eq!(error, LoginError::Refused(Refusal::NoPassword));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(code in 0u32..16, one: Vec<u8>, two: Vec<u8>) {
            let terms = terms("require_auth=password,md5,scram-sha-256,none", true, true);
            let mut login = Login::new("u", &terms);
            for message in [body(10, SASL), body(code, &one), body(11, &two), one, two] {
                drop(login.answer(&message));
            }
        }
    }
}
