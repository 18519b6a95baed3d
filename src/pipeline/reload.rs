//! Whether other settings may take over from those that run.

use super::Fault;
use crate::{
    catalog::{Catalog, CatalogError},
    chain::chain,
    config::{Settings, Source},
    connect,
    metrics::State,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// How long each database has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Tries the new settings of everything that works now: of the audit database and of each source whose log is being streamed. One that is away is not asked, because no settings bring it back.
///
/// # Errors
/// What does not answer or does not fit, as a sentence that names it.
pub async fn try_settings(
    settings: &Settings,
    states: &BTreeMap<String, State>,
) -> Result<(), String> {
    let is_streamed = |name: &str| states.get(name) == Some(&State::Streaming);
    if states.keys().any(|name| is_streamed(name)) {
        let audit = async {
            connect::connect(&settings.audit, "reload").await.map(drop).map_err(Fault::Audit)
        };
        told("the audit database", timeout(ANSWER_MAX, audit).await)?;
    }
    for source in settings.sources.iter().filter(|source| is_streamed(&source.name)) {
        let what = format!("source {}", source.name);
        told(&what, timeout(ANSWER_MAX, Box::pin(fits(source))).await)?;
    }
    Ok(())
}

fn told<E>(what: &str, tried: Result<Result<(), Fault>, E>) -> Result<(), String> {
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => Err(format!("{what}: {}", chain(&fault))),
        Err(_elapsed) => Err(format!("{what} did not answer within {} s", ANSWER_MAX.as_secs())),
    }
}

async fn fits(source: &Source) -> Result<(), Fault> {
    let session = connect::connect(&source.conninfo, "reload").await.map_err(Fault::Source)?;
    let catalog = Catalog::load_any(&session, &source.publication, &source.mapping).await;
    let checked = catalog.and_then(|catalog: Catalog| catalog.check(&source.mapping));
    checked.map_err(|error: CatalogError| Fault::Catalog(error))
}
