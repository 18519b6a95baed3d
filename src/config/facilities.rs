//! Facilities in the settings: where they are, and whether somebody looks if their address answers.

use serde::Deserialize;
use std::{collections::HashSet, time::Duration};

/// `[facilities]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FacilitiesFile {
    probe_interval_seconds: u64,
    probe_timeout_seconds: u64,
}

impl Default for FacilitiesFile {
    fn default() -> Self {
        Self { probe_interval_seconds: 0, probe_timeout_seconds: 5 }
    }
}

/// `[[facility]]`: what the portal does not know of a facility.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facility {
    /// Its name in the portal.
    pub name: String,
    /// Degrees; north is positive.
    pub latitude: f64,
    /// Degrees; east is positive.
    pub longitude: f64,
    /// Moves its name on the map to the right, in units of the map's 960 of width.
    #[serde(default)]
    pub label_dx: f64,
    /// Moves its name down.
    #[serde(default)]
    pub label_dy: f64,
    /// Who runs it.
    pub organization: Option<String>,
    /// Its own page.
    pub url: Option<String>,
    /// `host:port` that should take a TCP connection. Only settings give an address: a row of the portal must not make the sidecar connect anywhere.
    pub probe: Option<String>,
}

/// Facilities of the settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Facilities {
    pub facilities: Vec<Facility>,
    /// How often addresses are tried; `None`: never.
    pub probe_interval: Option<Duration>,
    /// How long one may take.
    pub probe_timeout: Duration,
}

/// Most facilities that the settings may hold.
const FACILITIES_MAX: usize = 1_000;

/// An answer counts for 15 minutes (`probe_stale_minutes` of `portal_audit.facility_rules`): two tries must fit into them.
const PROBE_INTERVAL_MAX_SECONDS: u64 = 400;

impl FacilitiesFile {
    pub(super) fn check(self, facilities: Vec<Facility>) -> Result<Facilities, String> {
        if facilities.len() > FACILITIES_MAX {
            return Err(format!("there are more than {FACILITIES_MAX} [[facility]]"));
        }
        if self.probe_timeout_seconds == 0 {
            return Err("facilities.probe_timeout_seconds must be at least 1".into());
        }
        if self.probe_interval_seconds > PROBE_INTERVAL_MAX_SECONDS {
            return Err(format!(
                "facilities.probe_interval_seconds must be at most {PROBE_INTERVAL_MAX_SECONDS}: an older answer is taken for none"
            ));
        }
        let mut names = HashSet::new();
        for facility in &facilities {
            let name = &facility.name;
            if !names.insert(name) {
                return Err(format!("two facilities are named {name:?}"));
            }
            check(facility).map_err(|fault| format!("facility {name:?}: {fault}"))?;
        }
        let interval = Duration::from_secs(self.probe_interval_seconds);
        Ok(Facilities {
            facilities,
            probe_interval: Some(interval).filter(|interval| !interval.is_zero()),
            probe_timeout: Duration::from_secs(self.probe_timeout_seconds),
        })
    }
}

fn check(facility: &Facility) -> Result<(), &'static str> {
    if !(-90.0..=90.0).contains(&facility.latitude) {
        return Err("latitude must be from -90 to 90");
    }
    if !(-180.0..=180.0).contains(&facility.longitude) {
        return Err("longitude must be from -180 to 180");
    }
    if !facility.label_dx.is_finite() || !facility.label_dy.is_finite() {
        return Err("label_dx and label_dy must be numbers");
    }
    let is_link = |url: &String| url.starts_with("https://") || url.starts_with("http://");
    if facility.url.as_ref().is_some_and(|url| !is_link(url)) {
        return Err("url must begin with https:// or http://");
    }
    let has_port = |address: &String| {
        let parts = address.rsplit_once(':');
        parts.is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    if facility.probe.as_ref().is_some_and(|address| !has_port(address)) {
        return Err("probe must be host:port");
    }
    Ok(())
}
