//! Verifies the server's certificate as libpq does with OpenSSL (manual, section 34.19.1).

use super::certificate::{Names, is_its_own_ca, validity};
use chrono::DateTime;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::sync::Arc;

/// Verifies the chain, the name, or neither; never less than that the server has the certificate's key.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// `None`: whoever answers is taken.
    pub(super) chain: Option<Chain>,
    /// The host as it was named, where its name is verified.
    pub(super) host: Option<String>,
}

/// By what a chain of certificates is verified.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) webpki: Arc<WebPkiServerVerifier>,
    /// Root certificates of the file, each of which may be the server's own too.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// The file's other certificates, by which a chain may lead to a root.
    pub(super) between: Vec<CertificateDer<'static>>,
}

impl Chain {
    /// # Why
    /// The certificate that the manual has one make for a first server (18.9.5) is its own CA, and webpki knows no such thing; OpenSSL trusts what is in the root file. And webpki looks at no common name, which is the only name in that certificate. So the name is looked at apart, by libpq's rule, and webpki's verdict on it, its last, is not asked.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.roots.iter().any(|root| root == certificate) {
            return is_valid_now(certificate, now);
        }
        // webpki's word for this is that a CA's certificate is no server's.
        if is_its_own_ca(certificate) {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let between: Vec<CertificateDer<'_>> =
            intermediates.iter().chain(&self.between).cloned().collect();
        match self.webpki.verify_server_cert(certificate, &between, name, &[], now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// # Errors
/// It is not, or cannot be read.
pub(super) fn is_valid_now(certificate: &CertificateDer<'_>, time: UnixTime) -> Result<(), Error> {
    let wrong = |error| Err(Error::InvalidCertificate(error));
    let Some((from, to)) = validity(certificate) else {
        return wrong(CertificateError::BadEncoding);
    };
    let now = i64::try_from(time.as_secs()).ok().and_then(|now| DateTime::from_timestamp(now, 0));
    let Some(now) = now else { return wrong(CertificateError::Expired) };
    let unix = |at: DateTime<chrono::Utc>| {
        let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    match () {
        () if now > to => wrong(CertificateError::ExpiredContext { time, not_after: unix(to) }),
        () if now < from => {
            wrong(CertificateError::NotValidYetContext { time, not_before: unix(from) })
        }
        () => Ok(()),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify(certificate, intermediates, name, now)?;
        }
        if let Some(host) = &self.host {
            let names = Names::read(certificate);
            if !names.fit(host) {
                let (expected, presented) = (name.to_owned(), vec![names.shown()]);
                let error = CertificateError::NotValidForNameContext { expected, presented };
                return Err(Error::InvalidCertificate(error));
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
