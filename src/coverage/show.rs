//! The answers as people read them.

use super::{Answer, RuleRef, Status};
use std::collections::HashMap;

/// How many answers have each status.
fn tally(answers: &[Answer]) -> String {
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    format!(
        "{} yes, {} partly, {} no",
        count(Status::Yes),
        count(Status::Partly),
        count(Status::No)
    )
}

/// The event types of an answer, each once, in their order.
fn types(answer: &Answer) -> Vec<&str> {
    let mut types: Vec<&str> = Vec::new();
    for rule in &answer.rules {
        if !types.contains(&rule.event_type.as_str()) {
            types.push(&rule.event_type);
        }
    }
    types
}

/// The answers for a terminal: by heading, with the blocks they rest on, and at the end the steps, the most useful first.
#[must_use]
pub fn text(answers: &[Answer]) -> String {
    let mut out = format!("Of {} asks: {}\n", answers.len(), tally(answers));
    let mut about = "";
    for answer in answers {
        if answer.about != about {
            about = &answer.about;
            out.push_str(&format!("\n{}\n", about.to_uppercase()));
        }
        out.push_str(&format!(" {:<6}  {}\n", answer.status, answer.ask));
        for rule in &answer.rules {
            let RuleRef { event_type, place, table, .. } = rule;
            out.push_str(format!("           {event_type}  {place}  {table}").trim_end());
            out.push('\n');
            for (fact, origin) in &rule.facts {
                out.push_str(&format!("             {fact} from {origin}\n"));
            }
        }
        if let Some(reason) = &answer.reason {
            let word = if answer.status == Status::Yes { "note" } else { "why " };
            out.push_str(&format!("           {word}  {reason}\n"));
        }
    }
    let mut steps: Vec<(&str, usize)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for step in answers.iter().flat_map(|answer| &answer.improve) {
        let place = *places.entry(step).or_insert_with(|| {
            steps.push((step, 0));
            steps.len() - 1
        });
        if let Some((_, asks)) = steps.get_mut(place) {
            *asks += 1;
        }
    }
    steps.sort_by_key(|(_, asks)| std::cmp::Reverse(*asks));
    if !steps.is_empty() {
        out.push_str("\nWHAT WOULD IMPROVE IT, and how many asks\n");
        for (step, asks) in steps {
            out.push_str(&format!(" {asks:>6}  {step}\n"));
        }
    }
    out
}

/// The answers as a table of Markdown, for a document: without places, which move with every edit of a mapping.
#[must_use]
pub fn markdown(answers: &[Answer]) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut out = format!("Of {} asks: {}.\n\n", answers.len(), tally(answers));
    out.push_str("| what was asked for | | event types | why not more, and what would help |\n|---|---|---|---|\n");
    let mut about = "";
    for answer in answers {
        if answer.about != about {
            about = &answer.about;
            out.push_str(&format!("| **{}** | | | |\n", cell(about)));
        }
        let types: Vec<String> =
            types(answer).iter().map(|event_type| format!("`{event_type}`")).collect();
        let reason = answer.reason.iter().map(|reason| cell(reason));
        let is_block = |step: &&String| !step.contains(".toml:");
        let steps = answer.improve.iter().filter(is_block).map(|step| as_code(&cell(step)));
        let why: Vec<String> = reason.chain(steps).collect();
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            cell(&answer.ask),
            answer.status,
            types.join(" "),
            why.join(" ")
        ));
    }
    out
}

/// SQL and commands in backquotes.
fn as_code(step: &str) -> String {
    let starts = ["CALL ", "SELECT ", "portal-audit ", "/* in source "];
    let is_code = starts.iter().any(|start| step.starts_with(start));
    if is_code { format!("`{step}`") } else { step.to_owned() }
}
