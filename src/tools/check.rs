//! `mapping check`: every fault of a mapping, in itself and against the live database.

use super::{CheckArguments, Failure, Output, chosen, faults, settings, settings_failure};
use crate::{
    catalog::{Catalog, CatalogError},
    chain::chain,
    config::{self, Source},
    connect,
    translate::mapping::Mapping,
};
use std::collections::BTreeSet;

pub(super) async fn run(arguments: CheckArguments) -> Result<Output, Failure> {
    let CheckArguments { mapping, live } = arguments;
    let named = mapping.map(|name| config::mapping(&name)).transpose();
    let named = named.map_err(|error| settings_failure(&error))?;
    let Some(path) = live.config else {
        // clap asks for one of the two.
        let mapping = named.ok_or_else(|| Failure::Settings("name a mapping".into()))?;
        let text = format!("{}: sound: {}", mapping.file(), summary(&mapping));
        return Ok(Output { text, is_well: true });
    };
    let settings = settings(&path)?;
    let source = chosen(&settings, live.source.as_deref())?;
    let mapping = named.as_ref().unwrap_or(&source.mapping);
    check_live(source, mapping).await?;
    let text =
        format!("{}: sound, and fits source {}: {}", mapping.file(), source.name, summary(mapping));
    Ok(Output { text, is_well: true })
}

/// What the start does before it creates a slot.
async fn check_live(source: &Source, mapping: &Mapping) -> Result<(), Failure> {
    let failed = |text: String| Failure::Fault(format!("source {}: {text}", source.name));
    let session = connect::connect(&source.conninfo, "mapping check").await;
    let session = session.map_err(|error| failed(chain(&error)))?;
    let catalog = Catalog::load(&session, &source.publication, mapping).await;
    let catalog = catalog.map_err(|error| failed(chain(&error)))?;
    catalog.check(mapping).map_err(|error| match error {
        CatalogError::Mapping(errors) => failed(faults(&errors.0)),
        other => failed(chain(&other)),
    })
}

/// How large a mapping is, on one line.
fn summary(mapping: &Mapping) -> String {
    let types: BTreeSet<&str> =
        mapping.declared().map(|(event_type, ..)| event_type.get_ref().as_str()).collect();
    let count =
        |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    [
        count(mapping.rules.len(), "block"),
        count(types.len(), "event type"),
        count(mapping.tables().len(), "table"),
    ]
    .join(", ")
}
