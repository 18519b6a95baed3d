//! The binary: parse, start logging, run one verb, exit by its code.

use clap::Parser as _;
use portal_audit::cli::{self, Cli, LogFormat, Verb};
use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The demo's own output is what one looks at there.
    let level = if matches!(cli.verb, Verb::Demo(_)) { "warn" } else { "info" };
    start_logging(cli.log_format, level);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            ExitCode::FAILURE
        }
    }
}

/// To stderr; `PORTAL_AUDIT_LOG` chooses levels, as in `portal_audit=debug`.
fn start_logging(format: LogFormat, level: &str) {
    let filter =
        EnvFilter::try_from_env("PORTAL_AUDIT_LOG").unwrap_or_else(|_unset| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            log.with_target(false).with_ansi(io::stderr().is_terminal()).init();
        }
        LogFormat::Json => log.json().init(),
    }
}
