//! What the owners asked for, and how much of it the live configuration tells: yes, partly or no, on what that rests, and what would improve it.
//!
//! The asks are data (`deploy/asks.toml`), so that no event type stands in Rust; the mappings say which rules answer them; the live databases decide whether those rules can work: a table that is not published, an old value that is not carried and a caller that nobody names are told as such.

mod ask;
mod live;
mod show;

pub use ask::{Ask, Asks, AsksError, Judge};
pub use live::{Live, literal, load};
pub use show::{markdown, text};

use crate::translate::mapping::{Mapping, RuleSpec};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, ops::Range};

/// The asks that are built in.
pub const ASKS: &str = include_str!("../deploy/asks.toml");
/// More tables than these get one step for all.
const LISTED_MAX: usize = 3;
/// Written before the first attachment of a trigger, where its function is not there yet.
const ATTEMPT_FIRST: &str = "portal-audit sql attempt | psql -d";
const CONTEXT_FIRST: &str = "portal-audit sql context | psql -d";

/// How far an ask is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Yes,
    Partly,
    No,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::Partly => "partly",
            Self::No => "no",
        })
    }
}

/// A block of a mapping on which an answer rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    pub event_type: String,
    /// The source whose mapping it is.
    pub source: String,
    /// `file:line`.
    pub place: String,
    pub table: String,
    /// Each fact that was asked for, and the column it rests on.
    pub facts: BTreeMap<String, String>,
}

/// The judgement of one ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub about: String,
    pub ask: String,
    pub status: Status,
    pub rules: Vec<RuleRef>,
    /// Why not more; a condition, if the answer is yes.
    pub reason: Option<String>,
    /// Steps that would improve it: SQL, a command, or an edit of the mapping.
    pub improve: Vec<String>,
}

/// One source: its mapping, and its database as far as it could be asked.
#[derive(Debug)]
pub struct View<'a> {
    pub name: &'a str,
    pub mapping: &'a Mapping,
    pub publication: &'a str,
    /// Why the database could not be asked, if so.
    pub live: Result<Live, String>,
}

/// Judges every ask by every source.
#[must_use]
pub fn judge(asks: &Asks, views: &[View<'_>]) -> Vec<Answer> {
    let has_several = views.len() > 1;
    let judge = |ask| Judgement { has_several, ..Judgement::default() }.finish(ask, views);
    asks.ask.iter().map(judge).collect()
}

/// What is gathered for one ask.
#[derive(Default)]
struct Judgement {
    /// Whether a step must say in which source.
    has_several: bool,
    rules: Vec<RuleRef>,
    /// Parts of the ask that are told, and all of them.
    told: usize,
    parts: usize,
    reasons: Vec<String>,
    /// Event types without a block, and those whose caller no row names.
    no_block: Vec<String>,
    no_caller: Vec<String>,
    /// A condition under which a yes holds.
    conditions: Vec<String>,
    improve: Vec<String>,
}

fn add(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}

impl Judgement {
    fn finish(mut self, ask: &Ask, views: &[View<'_>]) -> Answer {
        match (&ask.never, ask.judge) {
            (Some(never), _) => add(&mut self.reasons, never.clone()),
            (None, Some(Judge::Caller)) => self.callers(views),
            (None, Some(Judge::Attempts)) => self.attempts(views),
            (None, None) => {
                for event_type in &ask.types {
                    self.event_type(ask, event_type, views);
                }
            }
        }
        self.gather();
        let is_whole = self.reasons.is_empty() && ask.limit.is_none();
        let status = match self.told {
            0 => Status::No,
            told if told == self.parts && is_whole => Status::Yes,
            _ => Status::Partly,
        };
        if status != Status::No || self.reasons.is_empty() {
            self.reasons.extend(ask.limit.clone());
        }
        if let Some(help) = ask.help.as_ref().filter(|_| status == Status::No) {
            // The ask knows better than "write a block".
            self.improve = vec![help.clone()];
        }
        self.reasons.append(&mut self.conditions);
        let reason = Some(self.reasons.join(" ")).filter(|reason| !reason.is_empty());
        let (about, text) = (ask.about.clone(), ask.ask.clone());
        Answer { about, ask: text, status, rules: self.rules, reason, improve: self.improve }
    }

    /// One part of an ask: an event type, or one of several that serve.
    fn event_type(&mut self, ask: &Ask, spelled: &str, views: &[View<'_>]) {
        self.parts += 1;
        let mut is_told = false;
        let mut is_known = false;
        for event_type in spelled.split('|') {
            for view in views {
                let rules = view.mapping.rules.iter();
                for rule in rules.filter(|rule| rule.event_type.get_ref() == event_type) {
                    is_known = true;
                    is_told |= self.rule(ask, rule, view);
                }
                if let Some(place) = view.mapping.by_hand(event_type) {
                    is_known = true;
                    is_told |= self.translator(event_type, place, view);
                }
            }
        }
        self.told += usize::from(is_told);
        if !is_known {
            let event_type = spelled.split('|').next().unwrap_or(spelled);
            self.no_rule(event_type, views);
        }
    }

    /// A type that a translator in Rust gives: what it tells needs no judging, its database does.
    fn translator(&mut self, event_type: &str, place: Range<usize>, view: &View<'_>) -> bool {
        if self.live(view).is_none() {
            return false;
        }
        self.rules.push(RuleRef {
            event_type: event_type.to_owned(),
            source: view.name.to_owned(),
            place: view.mapping.place(place),
            table: String::new(),
            facts: BTreeMap::new(),
        });
        true
    }

    /// A type that no mapping has. The table that could give it is offered, if one bears its name.
    fn no_rule(&mut self, event_type: &str, views: &[View<'_>]) {
        add(&mut self.no_block, event_type.to_owned());
        let entity = event_type.rsplit_once('_').map_or(event_type, |(entity, _)| entity);
        let stem = entity.strip_suffix('y').unwrap_or(entity);
        let tables = views.iter().filter_map(|view| view.live.as_ref().ok());
        let tables = tables.flat_map(|live| live.catalog.all_tables().iter());
        let bears = |table: &&String| {
            let name = table.rsplit('.').next().unwrap_or(table);
            name.starts_with(stem) || name.split('_').any(|word| word.starts_with(stem))
        };
        let mut named: Vec<&String> = tables.filter(bears).collect();
        named.sort_by_key(|table| table.len());
        let table = named.first().map_or("TABLE", |table| table.as_str());
        add(&mut self.improve, format!("portal-audit mapping scaffold {table} --config FILE"));
    }

    /// Says once what is missing for several event types.
    fn gather(&mut self) {
        for (types, say) in
            [(&self.no_block, "No block gives"), (&self.no_caller, "No row names the caller of")]
        {
            if !types.is_empty() {
                self.reasons.push(format!("{say} {}.", types.join(", ")));
            }
        }
    }

    /// Whether the rule works; notes what of the facts it lacks.
    fn rule(&mut self, ask: &Ask, rule: &RuleSpec, view: &View<'_>) -> bool {
        let Some(live) = self.live(view) else { return false };
        let faults = live.faults_of(view.mapping, rule);
        let mut reference = RuleRef {
            event_type: rule.event_type.get_ref().clone(),
            source: view.name.to_owned(),
            place: view.mapping.place(view.mapping.block_span(rule)),
            table: rule.table.get_ref().clone(),
            facts: BTreeMap::new(),
        };
        for fault in &faults {
            let place = format!("{}:{}", fault.file, fault.line);
            add(&mut self.reasons, format!("{} ({place}).", sentence(&fault.message)));
            if let Some(hint) = &fault.hint {
                add(&mut self.improve, hint.clone());
            }
        }
        for fact in &ask.facts {
            match ask::origin_of(fact, view.mapping, rule) {
                Some((key, origin)) => {
                    reference.facts.insert(key, origin);
                }
                None if fact == "caller" => self.caller(rule, live, view, &mut reference),
                None => self.missing(fact, rule, live, &reference),
            }
        }
        if !self.rules.contains(&reference) {
            self.rules.push(reference);
        }
        faults.is_empty()
    }

    /// The database of a source, or the reason why there is none.
    fn live<'v>(&mut self, view: &'v View<'_>) -> Option<&'v Live> {
        match &view.live {
            Ok(live) => Some(live),
            Err(why) => {
                add(&mut self.reasons, format!("Source {} cannot be followed: {why}.", view.name));
                None
            }
        }
    }

    /// A caller that no column names: the context trigger may.
    fn caller(&mut self, rule: &RuleSpec, live: &Live, view: &View<'_>, reference: &mut RuleRef) {
        let table = rule.table.get_ref();
        if live.has_context(table) {
            reference.facts.insert("caller".into(), format!("the context trigger on {table}"));
            let condition = "The context names the caller if the portal says SET LOCAL portal.caller once a request.";
            add(&mut self.conditions, condition.into());
        } else {
            let event_type = rule.event_type.get_ref();
            add(&mut self.no_caller, event_type.clone());
            self.attach(table, live, view);
        }
    }

    fn attach(&mut self, table: &str, live: &Live, view: &View<'_>) {
        if !live.has_context_function {
            add(&mut self.improve, format!("{CONTEXT_FIRST} {}", live.catalog.database));
        }
        let table = live::literal(table);
        self.step_in(format!("CALL portal_audit.attach('{table}');"), view);
    }

    /// A trigger on every published table, which harms none that has it.
    fn attach_all(&mut self, procedure: &str, first: &str, live: &Live, view: &View<'_>) {
        add(&mut self.improve, format!("{first} {}", live.catalog.database));
        let publication = view.publication.replace('\'', "''");
        let step = format!(
            "SELECT format('CALL portal_audit.{procedure}(%L)', format('%I.%I', schemaname, tablename)) FROM pg_publication_tables WHERE pubname = '{publication}' \\gexec"
        );
        // Behind \\gexec a comment would be its argument.
        let place = if self.has_several {
            format!("/* in source {} */ ", view.name)
        } else {
            String::new()
        };
        add(&mut self.improve, place + &step);
    }

    /// A step that is taken in the database of a source.
    fn step_in(&mut self, step: String, view: &View<'_>) {
        let step =
            if self.has_several { format!("{step} -- in source {}", view.name) } else { step };
        add(&mut self.improve, step);
    }

    /// A fact that the block leaves out, and whether its table could tell.
    fn missing(&mut self, fact: &str, rule: &RuleSpec, live: &Live, reference: &RuleRef) {
        let RuleRef { event_type, place, table, .. } = reference;
        let keys = fact.split('|').map(|fact| fact.trim_start_matches("payload."));
        let keys: Vec<&str> = keys.collect();
        let words = keys.join(" or ").replace('_', " ");
        add(&mut self.reasons, format!("{event_type} does not tell {words}."));
        let source_table = live.catalog.table(rule.table.get_ref());
        let column =
            keys.iter().find(|key| source_table.is_some_and(|table| table.has_column(key)));
        if let Some(column) = column {
            let step = format!(
                "In the block at {place}: payload = {{ {column} = \"{column}\" }}, for {table} has that column."
            );
            add(&mut self.improve, step);
        }
    }

    /// Whether each block names a caller, by a row or by the trigger.
    fn callers(&mut self, views: &[View<'_>]) {
        for view in views {
            let Some(live) = self.live(view) else { continue };
            let mut without: BTreeMap<&str, usize> = BTreeMap::new();
            for rule in &view.mapping.rules {
                self.parts += 1;
                if rule.caller.is_some() || live.has_context(rule.table.get_ref()) {
                    self.told += 1;
                } else {
                    *without.entry(rule.table.get_ref()).or_default() += 1;
                }
            }
            if let Some(count) = Some(without.values().sum::<usize>()).filter(|count| *count > 0) {
                let blocks = view.mapping.rules.len();
                let reason = format!(
                    "In source {} {count} of {blocks} blocks have neither a row that names the caller nor a context trigger.",
                    view.name
                );
                add(&mut self.reasons, reason);
            }
            if without.len() > LISTED_MAX {
                self.attach_all("attach", CONTEXT_FIRST, live, view);
            } else {
                for table in without.keys() {
                    self.attach(table, live, view);
                }
            }
        }
        if self.told > 0 {
            let condition =
                "A context is evidence, not proof: any client of the database can set it.";
            add(&mut self.conditions, condition.into());
        }
    }

    /// Whether the tables of the mappings have the attempt trigger.
    fn attempts(&mut self, views: &[View<'_>]) {
        for view in views {
            let Some(live) = self.live(view) else { continue };
            let tables = attempt_tables(view.mapping);
            let without: Vec<&str> =
                tables.iter().copied().filter(|table| !live.has_attempt(table)).collect();
            self.parts += tables.len();
            self.told += tables.len() - without.len();
            if without.is_empty() {
                continue;
            }
            let reason = format!(
                "In source {} {} of {} tables have no attempt trigger.",
                view.name,
                without.len(),
                tables.len()
            );
            add(&mut self.reasons, reason);
            if without.len() > LISTED_MAX {
                self.attach_all("attach_attempt", ATTEMPT_FIRST, live, view);
                continue;
            }
            add(&mut self.improve, format!("{ATTEMPT_FIRST} {}", live.catalog.database));
            for table in without {
                let table = live::literal(table);
                self.step_in(format!("CALL portal_audit.attach_attempt('{table}');"), view);
            }
        }
    }
}

/// The tables whose failed attempts a mapping wants told.
fn attempt_tables(mapping: &Mapping) -> Vec<&str> {
    mapping.attempts.keys().map(|table| table.get_ref().as_str()).collect()
}

/// A fault's message as the beginning of a sentence.
fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
