//! The series of the process itself, which every Prometheus client has, from `/proc` (proc(5)).

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};
use std::{fmt, fs, sync::atomic::AtomicU64};

/// Clock ticks of `/proc/self/stat` in a second: `USER_HZ`, 100 on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process {
    registry: Registry,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge<f64, AtomicU64>,
    open_files: Gauge<f64, AtomicU64>,
}

impl Process {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("process");
        let cpu = Counter::default();
        let (resident, open_files) = (Gauge::default(), Gauge::default());
        let start: Gauge<f64, AtomicU64> = Gauge::default();
        start.set(super::seconds(super::now()));
        let help = "User and system CPU time";
        registry.register_with_unit("cpu", help, Unit::Seconds, cpu.clone());
        let help = "Resident memory";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, resident.clone());
        registry.register("open_fds", "Open file descriptors", open_files.clone());
        let help = "When the process started; Unix time";
        registry.register_with_unit("start_time", help, Unit::Seconds, start);
        Self { registry, cpu, resident, open_files }
    }

    /// What cannot be read keeps its last value.
    pub(super) fn encode(&self, text: &mut String) -> fmt::Result {
        if let Some(ticks) = cpu_ticks() {
            self.cpu
                .inner()
                .store((ticks / TICKS_PER_SECOND).to_bits(), std::sync::atomic::Ordering::Relaxed);
        }
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.open_files.set(f64::from(u32::try_from(files.count()).unwrap_or(u32::MAX)));
        }
        text::encode_registry(text, &self.registry)
    }
}

/// Fields 14 and 15; the second field is a name in parentheses, which may hold anything.
fn cpu_ticks() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11).map(str::parse::<f64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib = kib.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()?;
    Some(kib * 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn tells_of_itself() {
        let mut text = String::new();
        Process::new().encode(&mut text).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6, "{text}");
        assert!(value("process_open_fds ") >= 3.0, "{text}");
        assert!(value("process_cpu_seconds_total ") >= 0.0, "{text}");
        assert!(value("process_start_time_seconds ") > 1.7e9, "{text}");
    }
}
