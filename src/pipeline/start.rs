//! Everything before the first frame: connect, compare, create the slot and its snapshot if this is the first start, request the stream.

use super::{
    Fault,
    first::First,
    keeper::{Owner, Standing},
};
use crate::{
    budget,
    catalog::{self, Catalog, Slot},
    config::{Limits, Settings, Source},
    connect::{self, Session},
    continuity::{
        self, Acceptance, ContinuityError, Decision, Here, History, Loss, Plan, Refusal, Way,
    },
    event::Origin,
    lsn::Lsn,
    metrics::SourceMetrics,
    translate::{
        self, Translator,
        attempt::Teller,
        gap::{Place, Reason},
        picture::{self, Covered},
    },
    wire::{Connection, FrameReader, StatusWriter, System, WireError, quote_identifier},
    write::{self, KeptType, Progress, WriteError, Writer},
};
use std::time::Duration;
use tokio::sync::watch;

/// What a session streams with.
pub(super) struct Started {
    pub(super) frames: FrameReader,
    pub(super) status: StatusWriter,
    pub(super) translator: Translator,
    pub(super) writer: Writer,
    pub(super) teller: Teller,
    pub(super) system: System,
    pub(super) looked: Looked,
}

/// What the start knows of what is covered.
pub(super) struct Looked {
    pub(super) origin: Origin,
    pub(super) version_num: u32,
    /// As of the last look.
    pub(super) covered: Option<Covered>,
}

/// Declares the event types of the mapping, and says which stay otherwise than it says.
async fn declare_types(audit: &Session, source: &Source, timeout: Duration) -> Result<(), Fault> {
    let kept = write::store_event_types(audit, &source.mapping, timeout).await;
    for KeptType { event_type, fix } in kept.map_err(Fault::Write)? {
        tracing::warn!(
            source = source.name,
            event_type,
            fix,
            "the mapping says another class or other readers than the audit database, which stays as it is until an admin runs the fix there"
        );
    }
    Ok(())
}

/// Brings a source to where its stream begins.
pub(super) async fn start(
    settings: &Settings,
    source: &Source,
    accepted: &mut Acceptance,
    standing: &watch::Sender<Standing>,
    metrics: &SourceMetrics,
) -> Result<Started, Fault> {
    let timeout = settings.limits.audit_timeout();
    // The audit database first: while it is away the source must not see a client that confirms nothing.
    let audit = open_audit(settings, source).await?;
    write::prepare(&audit, timeout).await.map_err(Fault::Write)?;
    declare_types(&audit, source, timeout).await?;

    let session = connect::connect(&source.conninfo, &source.name).await.map_err(Fault::Source)?;
    tell_certificate(metrics, "source", &session);
    let silence = settings.limits.source_timeout();
    let (catalog, slot) = look_at_source(&session, source, silence).await?;
    // After the slot: another sidecar may be moving both, and progress moves first.
    let progress =
        write::load_progress(&audit, &source.name, timeout).await.map_err(Fault::Write)?;
    let is_streamed = progress.as_ref().is_some_and(|progress| !progress.creating);
    let is_alone = is_streamed && slot.as_ref().is_some_and(|slot| slot.active_pid.is_none());
    sign_in(&audit, source, is_alone, timeout, metrics).await?;
    let covered = covered(&audit, source, &catalog, progress.as_ref(), timeout).await?;

    // An SQL_ASCII database may hold any bytes: converting them would stop the stream for good, so they come raw.
    let encoding = if catalog.server_encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
    let mut replication =
        Connection::connect(&source.conninfo, encoding).await.map_err(Fault::Wire)?;
    let identified = identify(&session, &catalog, progress.as_ref(), &mut replication);
    let (system, here) = answered(silence, identified).await??;
    let origin =
        Origin { system_identifier: system.system_identifier, database_oid: catalog.database_oid };
    let Decision { crossing, plan } =
        continuity::decide(&source.slot, progress.as_ref(), slot.as_ref(), &here);
    tell_owner(standing, &plan, &system);
    let is_released = standing.borrow().is_released
        || budget::is_released(&session, &source.slot).await.map_err(Fault::Budget)?;
    let plan = pass(source, accepted, plan, is_released, slot.as_ref());

    check_for_snapshot(&plan, &catalog, source)?;
    let mapping = std::sync::Arc::clone(&source.mapping);
    let limits = translate_limits(&settings.limits);
    let teller = Teller::new(origin, &source.name, &mapping).on_timeline(system.timeline);
    let mut translator = Translator::new(origin, &source.name, mapping, limits);
    translator.set_identifier_key(source.identifier_key.clone());
    translator.set_timeline(system.timeline);
    translator.restore_known(covered.as_ref().map(Covered::known).unwrap_or_default());
    let looked = Looked { origin, version_num: catalog.version_num, covered };
    let place = Place { origin, timeline: system.timeline };
    let first = First { settings, source, session, catalog: &catalog, place };
    let (writer, from) = match plan {
        Ok(Plan::Create { drop_first }) => {
            Box::pin(first.create(audit, &mut replication, drop_first, &mut translator)).await?
        }
        Ok(Plan::Resume { from }) => {
            let (audit, _) = first.cross(audit, progress, crossing).await?;
            (first.resume(audit, from, is_released, &mut translator).await?, from)
        }
        Err(passed) => {
            let loss = passed.map_err(Fault::Continuity)?;
            let (audit, progress) = first.cross(audit, progress, crossing).await?;
            first.go_on(audit, &mut replication, loss, progress.as_ref(), &mut translator).await?
        }
    };
    let (frames, status) = stream(settings, source, replication, from).await?;
    standing.send_modify(|standing| standing.is_released = false);
    Ok(Started { frames, status, translator, writer, teller, system, looked })
}

/// What the source publishes, and the slot there. A standby has neither for us.
async fn look_at_source(
    session: &Session,
    source: &Source,
    silence: Duration,
) -> Result<(Catalog, Option<Slot>), Fault> {
    let catalog = Catalog::load_any(session, &source.publication, &source.mapping);
    let catalog = answered(silence, catalog).await?.map_err(Fault::Catalog)?;
    if catalog.is_in_recovery {
        return Err(Fault::Continuity(ContinuityError::Standby.into()));
    }
    let slot = catalog::load_slot(session, catalog.version_num, &source.slot);
    let slot = answered(silence, slot).await?.map_err(Fault::Catalog)?;
    Ok((catalog, slot))
}

/// Requests the stream.
async fn stream(
    settings: &Settings,
    source: &Source,
    replication: Connection,
    from: Lsn,
) -> Result<(FrameReader, StatusWriter), Fault> {
    let options = options(source, &settings.limits);
    let streaming = replication.start_replication(&source.slot, from, &options);
    match answered(settings.limits.source_timeout(), streaming).await? {
        Ok(streaming) => Ok(streaming),
        Err(error) => Err(explained(source, error).await),
    }
}

/// What a snapshot reads must be there.
fn check_for_snapshot<E>(
    plan: &Result<Plan, Result<Loss, E>>,
    catalog: &Catalog,
    source: &Source,
) -> Result<(), Fault> {
    match plan {
        Ok(Plan::Resume { .. }) | Err(Ok(Loss { way: Way::Skip { .. }, .. }) | Err(_)) => Ok(()),
        _ => catalog.check(&source.mapping).map_err(Fault::Catalog),
    }
}

/// What is stored of the last look. Refuses a source whose mapping does not fit, unless it is followed all the same.
async fn covered(
    audit: &Session,
    source: &Source,
    catalog: &Catalog,
    progress: Option<&Progress>,
    timeout: Duration,
) -> Result<Option<Covered>, Fault> {
    let covered = write::load_covered(audit, &source.name, timeout).await;
    let covered = covered.map_err(Fault::Write)?;
    if !may_go_on(source, catalog, progress, covered.as_ref()) {
        catalog.check(&source.mapping).map_err(Fault::Catalog)?;
    }
    Ok(covered)
}

/// Whether a source is followed though its mapping does not fit now. At a first start nothing is lost by waiting, and with settings that are new it is they that are wrong. But what changed of a source that was followed no stop can repair: the log says what it says, and it is kept for us as long as we wait.
fn may_go_on(
    source: &Source,
    catalog: &Catalog,
    progress: Option<&Progress>,
    covered: Option<&Covered>,
) -> bool {
    let Some(covered) = covered.filter(|_| progress.is_some_and(|progress| !progress.creating))
    else {
        return false;
    };
    let is_known = |hole: &picture::Hole| {
        let mut known = covered.holes.iter();
        known.any(|known| known.object == hole.object && known.reason == hole.reason)
    };
    covered.fingerprint == picture::fingerprint(&source.mapping, &source.publication)
        || catalog::holes(catalog, &source.mapping, &covered.picture).iter().all(is_known)
}

/// The plan, or a loss that was accepted, or why it is refused.
fn pass(
    source: &Source,
    accepted: &mut Acceptance,
    plan: Result<Plan, ContinuityError>,
    is_released: bool,
    slot: Option<&Slot>,
) -> Result<Plan, Result<Loss, Refusal>> {
    match plan {
        Ok(plan) => {
            accepted.spend();
            Ok(plan)
        }
        // The settings accepted it beforehand.
        Err(ContinuityError::SlotLost { .. }) if is_released => {
            let way = Way::Anew { drop_first: false };
            Err(Ok(Loss { reason: Reason::WalBudget, way }))
        }
        Err(finding) => Err(accepted.pass(&source.name, finding, slot)),
    }
}

/// Ends what a session before this one left behind; not before that is `events` asked, which that one may hold.
async fn sign_in(
    audit: &Session,
    source: &Source,
    is_alone: bool,
    timeout: Duration,
    metrics: &SourceMetrics,
) -> Result<(), Fault> {
    write::sign_in(audit, &source.name, is_alone, timeout).await.map_err(Fault::Write)?;
    let gaps = write::count_gaps(audit, &source.name, timeout).await;
    metrics.gaps(gaps.map_err(Fault::Write)?);
    tell_certificate(metrics, "audit", audit);
    Ok(())
}

fn tell_certificate(metrics: &SourceMetrics, side: &'static str, session: &Session) {
    let Some(encryption) = &session.encryption else { return };
    let both = [encryption.server_not_after, encryption.client_not_after];
    if let Some(until) = both.into_iter().flatten().min() {
        metrics.certificate_expiry(side, until.into());
    }
}

/// A session in the audit database, if that answers in time.
async fn open_audit(settings: &Settings, source: &Source) -> Result<Session, Fault> {
    let timeout = settings.limits.audit_timeout();
    let opened = tokio::time::timeout(timeout, connect::connect(&settings.audit, &source.name));
    match opened.await {
        Ok(opened) => opened.map_err(Fault::Audit),
        Err(_elapsed) => Err(Fault::Write(WriteError::Silent { seconds: timeout.as_secs() })),
    }
}

/// Who or what is in the way, where the server's own words do not name it.
pub(super) async fn explained(source: &Source, error: WireError) -> Fault {
    let slot = &source.slot;
    let asked = async {
        let session = connect::connect(&source.conninfo, &source.name).await.ok()?;
        match error.sqlstate()? {
            "55006" => {
                let reader = catalog::reader(&session, slot).await.ok()??;
                Some(format!("slot \"{slot}\" is read by {reader}; it is waited for"))
            }
            "55P03" => {
                let writer = catalog::oldest_writer(&session).await.ok()??;
                Some(format!(
                    "slot \"{slot}\" cannot be made while a transaction is open that began before: {writer} has the oldest. End it, or wait; it is tried again"
                ))
            }
            "53400" => {
                let used = catalog::slots_used(&session).await.ok()??;
                Some(format!(
                    "there is no room for slot \"{slot}\": {used} replication slots are in use. Raise max_replication_slots, or drop a slot that nobody uses; it is tried again"
                ))
            }
            _ => None,
        }
    };
    match asked.await {
        Some(what) => Fault::InTheWay { what, source: Box::new(error) },
        None => Fault::Wire(error),
    }
}

/// Tells the keeper whose slot it is.
fn tell_owner(
    standing: &watch::Sender<Standing>,
    plan: &Result<Plan, ContinuityError>,
    system: &System,
) {
    let ours =
        Owner::Ours { system_identifier: system.system_identifier, timeline: system.timeline };
    let owner = match plan {
        Ok(_)
        | Err(
            ContinuityError::SlotLost { .. }
            | ContinuityError::SlotAhead { .. }
            | ContinuityError::SlotInvalid { .. },
        ) => ours,
        Err(_) => Owner::NotOurs,
    };
    standing.send_modify(|standing| {
        (standing.owner, standing.is_in_session) = (owner, true);
    });
}

/// What the source answers, within the time that it may be silent.
async fn answered<T>(silence: Duration, answer: impl Future<Output = T>) -> Result<T, Fault> {
    let answer = tokio::time::timeout(silence, answer).await;
    answer.map_err(|_elapsed| Fault::Silent { seconds: silence.as_secs() })
}

/// Which server the stream would come from, and whether the session leads there too.
///
/// # Errors
/// The source does not answer, or two servers do.
pub async fn identify(
    session: &Session,
    catalog: &Catalog,
    progress: Option<&Progress>,
    replication: &mut Connection,
) -> Result<(System, Here), Fault> {
    let system = replication.identify_system().await.map_err(Fault::Wire)?;
    let is_server = catalog::is_server(session, system.system_identifier, system.timeline).await;
    if !is_server.map_err(Fault::Catalog)? {
        return Err(Fault::Continuity(ContinuityError::TwoServers.into()));
    }
    let is_asked = system.timeline > 1
        && progress.is_some_and(|progress| progress.timeline != system.timeline);
    let history = if is_asked {
        let text = replication.timeline_history(system.timeline).await.map_err(Fault::Wire)?;
        let history = History::parse(&text).map_err(ContinuityError::from);
        history.map_err(|finding| Fault::Continuity(finding.into()))?
    } else {
        History::default()
    };
    let here = Here {
        system_identifier: system.system_identifier,
        timeline: system.timeline,
        history,
        log_end: system.xlog_position,
        database: catalog.database.clone(),
        database_oid: catalog.database_oid,
    };
    Ok((system, here))
}

pub(super) fn translate_limits(limits: &Limits) -> translate::Limits {
    translate::Limits {
        names: limits.names_in_memory,
        value_bytes: limits.value_bytes,
        batch_events: limits.batch_events,
        batch_bytes: limits.batch_bytes,
    }
}

/// Options of pgoutput (manual, section 55.5). Protocol 2 is the first with streaming, and every supported server has it.
fn options(source: &Source, limits: &Limits) -> Vec<(&'static str, String)> {
    let mut options = vec![
        ("proto_version", if limits.streaming { "2" } else { "1" }.to_owned()),
        ("publication_names", quote_identifier(&source.publication)),
        ("messages", "true".to_owned()),
    ];
    if limits.streaming {
        options.push(("streaming", "true".to_owned()));
    }
    options
}
