//! When a source is tried again after its session ended, and when it is not.

use super::Fault;
use crate::{translate::TranslateError, wire::WireError};
use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// The first wait before a source is tried again; it doubles.
const WAIT_FIRST: Duration = Duration::from_millis(200);
/// The wait of who stands by for the sidecar that reads the slot: it takes over within this time and a start.
const WAIT_STANDBY: Duration = Duration::from_secs(2);
/// The first wait after a refused login, because servers and directories count those.
const WAIT_FIRST_LOGIN: Duration = Duration::from_secs(2);
/// So many sessions in a row may end by unreadable bytes.
const UNREADABLE_MAX: u32 = 5;
/// So many logins in a row may be refused after one that was not: about 90 s.
const REFUSED_LOGINS_MAX: u32 = 6;

/// What is remembered from session to session.
#[derive(Debug)]
pub(super) struct Retry {
    next: Duration,
    longest: Duration,
    /// Sessions in a row that ended by what may pass or may not.
    doubts: u32,
    has_streamed: bool,
}

impl Retry {
    pub(super) fn new(longest: Duration) -> Self {
        Self { next: WAIT_FIRST, longest, doubts: 0, has_streamed: false }
    }

    /// The stream has begun: the logins are good.
    pub(super) fn streams(&mut self) {
        self.has_streamed = true;
    }

    /// The session has moved progress, so it was a good one, however it ended.
    pub(super) fn moved(&mut self) {
        (self.next, self.doubts) = (WAIT_FIRST, 0);
    }

    /// How long to wait before the next session; `None`: waiting cannot help, so that a human must.
    ///
    /// # Why
    /// Two kinds of faults look definite and may pass. Bytes that cannot be read may have been damaged by whoever sits in between, and the next session gets them anew: only if they come again and again is it the server, or us. And a password that was good and is refused is being changed: its file may be a moment behind the server.
    pub(super) fn after(&mut self, fault: &Fault) -> Option<Duration> {
        if fault.is_slot_in_use() {
            return Some(spread(WAIT_STANDBY.min(self.longest)));
        }
        let mut first = WAIT_FIRST;
        if fault.is_definite() {
            let most = if fault.is_unreadable() {
                UNREADABLE_MAX
            } else if fault.is_refused_login() && self.has_streamed {
                first = WAIT_FIRST_LOGIN;
                REFUSED_LOGINS_MAX
            } else {
                0
            };
            if self.doubts >= most {
                return None;
            }
            self.doubts += 1;
        }
        let wait = self.next.max(first).min(self.longest);
        self.next = (wait * 2).min(self.longest);
        Some(spread(wait))
    }
}

/// Between a half and all of it, by chance, so that many sidecars do not come back at once.
fn spread(wait: Duration) -> Duration {
    // The standard library's only source of chance: the seed of its hash maps.
    let chance = RandomState::new().hash_one(0_u8) >> 40;
    let half = wait / 2;
    half + half * u32::try_from(chance & 0xFF).unwrap_or(0) / 0xFF
}

impl Fault {
    /// Whether the stream's bytes make no sense.
    fn is_unreadable(&self) -> bool {
        match self {
            Self::Wire(WireError::Protocol(_)) => true,
            Self::Transaction(_) | Self::Translate(TranslateError::Transaction { .. }) => {
                self.is_definite()
            }
            Self::Translate(TranslateError::UnknownRelation { .. }) => true,
            _ => false,
        }
    }

    /// Whether the source does not let us in at all.
    pub(super) fn is_not_let_in(&self) -> bool {
        matches!(self, Self::Source(_)) || self.is_refused_login()
    }

    /// Whether passwords or certificates are in the way, which may be in the midst of being changed: the server refused the login (manual, appendix A, class 28), there was no password to try, or TLS failed.
    fn is_refused_login(&self) -> bool {
        match self {
            Self::Wire(WireError::Connect(error)) | Self::Source(error) | Self::Audit(error) => {
                error.is_of_secrets()
            }
            Self::Wire(error) => error.sqlstate().is_some_and(|code| code.starts_with("28")),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, REFUSED_LOGINS_MAX, Retry, UNREADABLE_MAX, spread};
    use crate::wire::WireError;
    use std::time::Duration;

    fn server(sqlstate: &str) -> Fault {
        Fault::Wire(WireError::Server {
            during: String::new(),
            sqlstate: sqlstate.to_owned(),
            message: String::new(),
            associated_lsn: None,
        })
    }

    #[test]
    fn waits_longer_each_time_up_to_a_limit_until_progress_moves() {
        let mut retry = Retry::new(Duration::from_secs(3));
        let lost = Fault::Wire(WireError::Ended);
        for longest in [200, 400, 800, 1_600, 3_000, 3_000] {
            let wait = retry.after(&lost).unwrap().as_millis();
            assert!((longest / 2..=longest).contains(&wait), "{wait} of {longest} ms");
        }
        retry.streams();
        assert!(retry.after(&lost).unwrap() >= Duration::from_millis(1_500));
        retry.moved();
        assert!(retry.after(&lost).unwrap() <= Duration::from_millis(200));
    }

    #[test]
    fn waits_differ() {
        let waits: std::collections::HashSet<Duration> =
            (0..50).map(|_| spread(Duration::from_secs(1))).collect();
        assert!(waits.len() > 5, "{waits:?}");
    }

    #[test]
    fn what_looks_definite_may_pass_a_few_times() {
        let unreadable = Fault::Wire(WireError::Protocol(String::new()));
        let mut retry = Retry::new(Duration::from_secs(30));
        for _ in 0..UNREADABLE_MAX {
            assert!(retry.after(&unreadable).is_some());
        }
        assert!(retry.after(&unreadable).is_none());
        retry.moved();
        assert!(retry.after(&unreadable).is_some());

        // At the first start a wrong password is one; later it is being changed.
        for code in ["28P01", "28000"] {
            let mut retry = Retry::new(Duration::from_secs(30));
            assert!(retry.after(&server(code)).is_none());
            retry.streams();
            for _ in 0..REFUSED_LOGINS_MAX {
                assert!(retry.after(&server(code)).unwrap() >= Duration::from_secs(1));
            }
            assert!(retry.after(&server(code)).is_none());
        }
        let mut retry = Retry::new(Duration::from_secs(30));
        retry.streams();
        assert!(retry.after(&server("42501")).is_none());
    }
}
