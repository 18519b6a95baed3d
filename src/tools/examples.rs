//! `mapping test`: the examples of a mapping's blocks, run through the stages that a row of the log goes through.

mod stream;

use super::{Failure, Output, settings_failure};
use crate::{
    chain::chain,
    config,
    event::{Event, Origin},
    show::{ShownEvent, visible},
    transaction::Assembler,
    translate::{
        Batch, Limits, Step, Translator,
        example::{ExampleSpec, GivesSpec},
        mapping::{Mapping, RuleSpec},
    },
};
use comfy_table::{Table, presets};
use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

/// An example is a few rows: these are never reached.
const LIMITS: Limits = Limits {
    names: NonZeroUsize::MIN.saturating_add(1_000),
    value_bytes: 64 << 10,
    batch_events: usize::MAX,
    batch_bytes: usize::MAX,
};
const MEMORY_BYTES: usize = 64 << 20;

/// The one source that there is here.
const ORIGIN: Origin = Origin { system_identifier: 0, database_oid: 0 };

/// What one example came to.
struct Outcome {
    event_type: String,
    block: usize,
    line: usize,
    /// Each difference as a sentence; none if it is as expected.
    differences: Vec<String>,
}

pub(super) fn run(name: &str) -> Result<Output, Failure> {
    let mapping = config::mapping(name).map_err(|error| settings_failure(&error))?;
    let mut outcomes = Vec::new();
    for rule in &mapping.rules {
        for example in &rule.example.0 {
            let block = mapping.block_span(rule);
            let place = example.place().unwrap_or(block.clone());
            let differences = match try_example(&mapping, rule, example) {
                Ok(differences) => differences,
                Err(why) => vec![why],
            };
            outcomes.push(Outcome {
                event_type: rule.event_type.get_ref().clone(),
                block: mapping.line(block),
                line: mapping.line(place),
                differences,
            });
        }
    }
    let is_well = outcomes.iter().all(|outcome| outcome.differences.is_empty());
    Ok(Output { text: report(&mapping, &outcomes), is_well })
}

fn report(mapping: &Mapping, outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["BLOCK", "LINE", "EXAMPLE", "RESULT"]);
    let mut details = String::new();
    for Outcome { event_type, block, line, differences } in outcomes {
        let result = if differences.is_empty() { "ok" } else { "differs" };
        table.add_row([event_type, &block.to_string(), &format!("line {line}"), result]);
        for difference in differences {
            details.push_str(&format!("\n{}:{line}: {event_type}: {difference}", mapping.file()));
        }
    }
    let lines: Vec<String> =
        table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    let differ = outcomes.iter().filter(|outcome| !outcome.differences.is_empty()).count();
    let without = mapping.rules.iter().filter(|rule| rule.example.0.is_empty()).count();
    let sum = format!(
        "{} examples: {} ok, {differ} differ; {without} of {} blocks have none",
        outcomes.len(),
        outcomes.len() - differ,
        mapping.rules.len()
    );
    let rows = if outcomes.is_empty() { String::new() } else { lines.join("\n") + "\n" };
    format!("{rows}{details}{}{sum}", if details.is_empty() { "" } else { "\n\n" })
}

/// Runs one example; gives what is different.
fn try_example(
    mapping: &Mapping,
    rule: &RuleSpec,
    example: &ExampleSpec,
) -> Result<Vec<String>, String> {
    let alone = Arc::new(mapping.only(rule));
    let messages = stream::messages(&alone, rule, example)?;
    let mut assembler = Assembler::new(MEMORY_BYTES, PathBuf::new());
    let mut translator = Translator::new(ORIGIN, "example", Arc::clone(&alone), LIMITS).strict();
    let mut batch = Batch::default();
    for (lsn, message) in &messages {
        let pushed = assembler.push(*lsn, message).map_err(|error| chain(&error))?;
        let Some(transaction) = pushed else { continue };
        let mut translation = translator.begin(&transaction);
        loop {
            let step = translator.advance(&transaction, &mut translation, &mut batch);
            match step.map_err(|error| chain(&error))? {
                Step::Done => break,
                Step::Full => return Err("the example is too large".into()),
                Step::Names(keys) => {
                    for key in keys {
                        let names = alone.names.get(key.names).map(|(names, _)| names);
                        let known = names.and_then(|names| example.names.get(names));
                        let name = known.and_then(|names| names.get(&key.key));
                        translator.put_name(&key, name.map(String::as_str));
                    }
                }
            }
        }
    }
    let events: Vec<Event<'_>> = batch.events.iter().collect();
    Ok(compare(rule, &events, &example.gives))
}

fn compare(rule: &RuleSpec, events: &[Event<'_>], wanted: &[GivesSpec]) -> Vec<String> {
    if events.len() != wanted.len() {
        let count = |count: usize| match count {
            0 => "nothing".to_owned(),
            1 => "one event".to_owned(),
            count => format!("{count} events"),
        };
        let subjects: Vec<String> =
            events.iter().map(|event| visible(event.subject).into_owned()).collect();
        let about = if subjects.is_empty() {
            String::new()
        } else {
            format!(" (about {})", subjects.join(", "))
        };
        return vec![format!(
            "it gives {}{about}, and the example says {}",
            count(events.len()),
            count(wanted.len())
        )];
    }
    let pairs = events.iter().zip(wanted);
    pairs.flat_map(|(event, wanted)| compare_event(rule, event, wanted)).collect()
}

fn compare_event(rule: &RuleSpec, event: &Event<'_>, wanted: &GivesSpec) -> Vec<String> {
    let payload: serde_json::Value = serde_json::from_str(event.payload).unwrap_or_default();
    let says = shown(event, &payload).sentence(rule.describe.get_ref());
    let mut differences = Vec::new();
    let mut texts = |key: &str, found: Option<&str>, wanted: &Option<String>| {
        if let Some(wanted) = wanted
            && found.unwrap_or_default() != wanted
        {
            let found = found.map_or("nothing".to_owned(), |found| format!("{found:?}"));
            differences.push(format!("{key} is {found}, and the example says {wanted:?}"));
        }
    };
    texts("subject", Some(event.subject), &wanted.subject);
    texts("target", event.target, &wanted.target);
    texts("caller", Some(event.caller), &wanted.caller);
    texts("error_message", event.error_message, &wanted.error_message);
    texts("the sentence", Some(&says), &wanted.says);
    if let Some(success) = wanted.success.filter(|success| *success != event.success) {
        differences.push(format!("success is {}, and the example says {success}", event.success));
    }
    for (key, value) in &wanted.payload {
        let found = match payload.get(key) {
            Some(found) if found == value => continue,
            Some(found) => found.to_string(),
            None => "not there".to_owned(),
        };
        differences.push(format!("payload.{key} is {found}, and the example says {value}"));
    }
    differences
}

fn shown(event: &Event<'_>, payload: &serde_json::Value) -> ShownEvent {
    ShownEvent {
        event_uuid: event.event_uuid,
        timestamp: event.timestamp.to_utc(),
        event_type: event.event_type.to_owned(),
        caller: event.caller.to_owned(),
        subject: event.subject.to_owned(),
        subject_type: event.subject_type.to_owned(),
        target: event.target.map(str::to_owned),
        success: event.success,
        error_message: event.error_message.map(str::to_owned),
        payload: payload.clone(),
    }
}
