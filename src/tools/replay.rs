//! `replay`: records a stream, and compares what two mappings make of it.

use super::{Failure, Output, ReplayArguments, chosen, json, settings, settings_failure};
use crate::{
    chain::chain,
    config, pipeline,
    replay::{self, Reader},
    show::{OutputFormat, count},
    translate::mapping::Mapping,
};
use std::{path::Path, sync::Arc, time::Duration};

pub(super) async fn run(arguments: ReplayArguments) -> Result<Output, Failure> {
    match (&arguments.record, &arguments.dry_run) {
        (Some(file), _) => record(file, &arguments).await,
        (None, Some(file)) => dry_run(file, &arguments),
        // clap asks for one of the two.
        (None, None) => Err(Failure::Settings("say --record or --dry-run".into())),
    }
}

async fn record(file: &Path, arguments: &ReplayArguments) -> Result<Output, Failure> {
    let config = arguments.config.as_deref().unwrap_or(Path::new("portal-audit.toml"));
    let settings = settings(config)?;
    let source = chosen(&settings, arguments.source.as_deref())?;
    let stop = async {
        match arguments.seconds {
            None => pipeline::asked_to_stop().await,
            Some(seconds) => tokio::select! {
                () = pipeline::asked_to_stop() => {}
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            },
        }
    };
    let started = || {
        tracing::info!(source = source.name, file = %file.display(), "recording; Ctrl-C ends it");
    };
    let messages = Box::pin(replay::record(source, file, started, stop)).await;
    let messages = messages
        .map_err(|error| Failure::Fault(format!("source {}: {}", source.name, chain(&error))))?;
    let text = format!(
        "recorded {} messages of source {} in {}; it holds row data",
        count(messages),
        source.name,
        file.display()
    );
    Ok(Output { text, is_well: true })
}

fn dry_run(file: &Path, arguments: &ReplayArguments) -> Result<Output, Failure> {
    let recording = Reader::open(file).map_err(|error| Failure::Fault(chain(&error)))?;
    let read = |name: &str| config::mapping(name).map_err(|error| settings_failure(&error));
    let after = read(arguments.mapping.as_deref().unwrap_or_default())?;
    let before = match &arguments.against {
        Some(name) => read(name)?,
        None => {
            let header = recording.header();
            let file = format!("{} as recorded", header.mapping_file);
            Mapping::parse(&file, &header.mapping_text)
                .map_err(|errors| Failure::Fault(super::faults(&errors.0)))?
        }
    };
    let comparison = replay::compare(recording, &Arc::new(before), &Arc::new(after));
    let comparison = comparison.map_err(|error| Failure::Fault(chain(&error)))?;
    let is_well = comparison.is_same();
    let text = match arguments.format {
        OutputFormat::Text => replay::text(&comparison),
        OutputFormat::Json => json(&comparison)?,
    };
    Ok(Output { text, is_well })
}
