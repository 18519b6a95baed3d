//! The login: trust or SCRAM-SHA-256, and no way that gives the password away (manual, 55.3).

use super::WireError;
use bytes::BytesMut;
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    message::frontend,
};

/// The login as a machine without a socket: a request of the server in, our reply out.
pub(super) struct Login<'a> {
    user: &'a str,
    /// Asked only once the server asks, so that a login without password needs no passfile.
    password: &'a (dyn Fn() -> Result<Option<String>, WireError> + Sync),
    step: Step,
}

enum Step {
    /// Nothing but a request or, if the server trusts us, the end.
    Asked,
    First(ScramSha256),
    Final(ScramSha256),
    /// The server proved that it knows the password: now it may say that all is well.
    Proven,
    Done,
}

impl<'a> Login<'a> {
    pub(super) fn new(
        user: &'a str,
        password: &'a (dyn Fn() -> Result<Option<String>, WireError> + Sync),
    ) -> Self {
        Self { user, password, step: Step::Asked }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Takes the body of one `Authentication…` message; gives the reply to send, if any.
    ///
    /// # Why
    /// Without TLS anybody in between can ask for the password in clear or as MD5, which is as good
    /// as the password, so these are refused, as libpq does with `require_auth=scram-sha-256`. With
    /// SCRAM both sides prove that they know it, and an end before the server's proof is a forgery.
    pub(super) fn answer(&mut self, body: &[u8]) -> Result<Option<BytesMut>, WireError> {
        let unexpected = || WireError::protocol("unexpected step of the login");
        let (code, data) = body.split_first_chunk::<4>().ok_or_else(unexpected)?;
        let refuse = |method| Err(WireError::PasswordRefused { method });
        let mut out = BytesMut::new();
        let step = std::mem::replace(&mut self.step, Step::Asked);
        self.step = match (u32::from_be_bytes(*code), step) {
            (0, Step::Asked | Step::Proven) => Step::Done,
            (3, _) => return refuse("cleartext"),
            (5, _) => return refuse("MD5"),
            (2 | 6 | 7 | 8 | 9, _) => return refuse("a Kerberos, GSSAPI or SSPI credential"),
            (10, Step::Asked) => {
                let mut mechanisms = data.split(|byte| *byte == 0);
                if !mechanisms.any(|name| name == SCRAM_SHA_256.as_bytes()) {
                    return refuse("an unknown SASL mechanism");
                }
                let missing = || WireError::NoPassword { user: self.user.to_owned() };
                let password = (self.password)()?.ok_or_else(missing)?;
                // There is no channel to bind to before there is TLS.
                let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)
                    .map_err(WireError::Scram)?;
                Step::First(scram)
            }
            (11, Step::First(mut scram)) => {
                scram.update(data).map_err(WireError::Scram)?;
                frontend::sasl_response(scram.message(), &mut out).map_err(WireError::Scram)?;
                Step::Final(scram)
            }
            (12, Step::Final(mut scram)) => {
                scram.finish(data).map_err(WireError::Scram)?;
                Step::Proven
            }
            _ => return Err(unexpected()),
        };
        Ok((!out.is_empty()).then_some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::{Login, WireError};
    use proptest::prelude::*;

    fn body(code: u32, data: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], data].concat()
    }

    const SASL: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

    #[test]
    fn refuses_to_give_the_password_away() {
        let password = || -> Result<_, WireError> { panic!("asked for the password") };
        for (code, data, method) in
            [(3, &b""[..], "cleartext"), (5, b"salt", "MD5"), (10, b"PLAIN\0\0", "an unknown SASL")]
        {
            let error = Login::new("u", &password).answer(&body(code, data)).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("refused to send the password as {method}"))
            );
        }
    }

    #[test]
    fn takes_no_end_before_the_servers_proof() {
        // Longer than what a random nonce would hold by chance.
        let password = || Ok(Some("not to be sent".to_owned()));
        let mut login = Login::new("u", &password);
        let reply = login.answer(&body(10, SASL)).unwrap().unwrap();
        assert!(
            reply.starts_with(b"p") && !String::from_utf8_lossy(&reply).contains("not to be sent")
        );
        assert!(login.answer(&body(0, b"")).is_err() && !login.is_done());

        let mut login = Login::new("u", &password);
        login.answer(&body(10, SASL)).unwrap();
        let forged = login.answer(&body(11, b"r=other,s=AAAA,i=4096")).unwrap_err();
        assert!(matches!(forged, WireError::Scram(_)));
    }

    #[test]
    fn asks_for_a_password_only_if_the_server_does() {
        let none = || Ok(None);
        let mut login = Login::new("u", &none);
        assert!(login.answer(&body(0, b"")).unwrap().is_none() && login.is_done());
        let error = Login::new("u", &none).answer(&body(10, SASL)).unwrap_err();
        assert!(matches!(error, WireError::NoPassword { user } if user == "u"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(code in 0u32..16, one: Vec<u8>, two: Vec<u8>) {
            let password = || Ok(Some("x".to_owned()));
            let mut login = Login::new("u", &password);
            for message in [body(10, SASL), body(code, &one), body(11, &two), one, two] {
                drop(login.answer(&message));
            }
        }
    }
}
