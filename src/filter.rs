//! Which events are meant: one filter for every verb and page that reads `events`, as flags, as the words of a search box, and as SQL.
//!
//! Values are always bound parameters, never part of the SQL. The table is called `e` there.

mod words;

pub use words::WordsError;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// What an event must be to be meant. Different conditions must all hold; of one that is given several times, any.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize)]
pub struct Filter {
    /// Event type, or its beginning: org_*. Can be given several times
    #[arg(long = "type", value_name = "TYPE")]
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    pub event_type: Vec<String>,
    /// Who did it; "" for those that nobody is known of
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caller: Vec<String>,
    /// What it was done to
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject: Vec<String>,
    /// What the subject is: user, organization, project, experiment, realization …
    #[arg(long, value_name = "TYPE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_type: Vec<String>,
    /// Whom or what else it was about
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target: Vec<String>,
    /// This name as caller, subject or target
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<String>,
    /// Only what succeeded, or only what failed
    #[arg(long, value_name = "true|false")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// From then on: 2026-04-23, 2026-04-23T20:50:00Z, or 2h, 7d ago. UTC where no zone is said
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
    /// Until before then; a date means until its end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// A value in the payload, or one of a list there: role=maintainer, resources=m1, _audit.source=portal. Of several, all must hold
    #[arg(long, value_name = "KEY=VALUE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payload: Vec<PayloadValue>,
}

/// A point in time as people say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    At(DateTime<Utc>),
    /// A day in UTC: as a beginning its first instant, as an end the instant after its last.
    Day(NaiveDate),
    /// So long before the audit database's clock says it is now.
    Ago(TimeDelta),
}

/// Text that names no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a time. Say 2026-04-23, 2026-04-23T20:50:00Z, or 90s, 30m, 2h, 7d, 4w for so long ago"
)]
pub struct MomentError;

impl Moment {
    /// As a beginning.
    ///
    /// # Errors
    /// It is said as so long ago, which only a clock can tell.
    pub fn begin(self) -> Result<DateTime<Utc>, TimeDelta> {
        match self {
            Self::At(at) => Ok(at),
            Self::Day(day) => Ok(day.and_time(NaiveTime::MIN).and_utc()),
            Self::Ago(ago) => Err(ago),
        }
    }

    /// As an end, which itself is no more meant.
    ///
    /// # Errors
    /// As for [`Moment::begin`].
    pub fn end(self) -> Result<DateTime<Utc>, TimeDelta> {
        match self {
            Self::Day(day) => Self::Day(day.checked_add_days(Days::new(1)).unwrap_or(day)).begin(),
            other => other.begin(),
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        if let Ok(day) = text.parse() {
            return Ok(Self::Day(day));
        }
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(at.to_utc()));
        }
        for format in
            ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        {
            if let Ok(at) = NaiveDateTime::parse_from_str(text, format) {
                return Ok(Self::At(at.and_utc()));
            }
        }
        ago(text).map(Self::Ago).ok_or(MomentError)
    }
}

/// A count and its unit, as in `7d`.
fn ago(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().next_back()?;
    let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    TimeDelta::try_seconds(i64::from(count) * seconds)
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => {
                formatter.write_str(&at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
            }
            Self::Day(day) => day.fmt(formatter),
            Self::Ago(ago) => write!(formatter, "{}s", ago.num_seconds()),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A key of the payload, with dots for what lies deeper, and the text that its value must be or hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadValue {
    pub key: String,
    pub value: String,
}

/// Text that is no key with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not KEY=VALUE, as in role=maintainer")]
pub struct PayloadValueError;

impl FromStr for PayloadValue {
    type Err = PayloadValueError;

    fn from_str(text: &str) -> Result<Self, PayloadValueError> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(PayloadValueError),
        }
    }
}

impl Serialize for PayloadValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}={}", self.key, self.value))
    }
}

/// A condition as SQL and the values that it is bound to, `$1` first.
#[derive(Debug)]
pub struct Where {
    sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Default for Where {
    fn default() -> Self {
        Self { sql: "true".to_owned(), values: Vec::new() }
    }
}

impl Where {
    /// Binds a value; gives what stands for it in SQL.
    pub fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    /// Adds a condition, which must hold as well.
    pub fn and(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    /// The condition, to stand after WHERE.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The values, in the form that tokio-postgres takes.
    #[must_use]
    pub fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }

    /// Only what stands on one side of an event in the order of time: a page begins where the last ended, however many rows came in between.
    pub fn beyond(&mut self, order: Order, key: Key) {
        let (at, event_uuid) = (self.bind(key.timestamp), self.bind(key.event_uuid));
        let sign = if order == Order::OldestFirst { '>' } else { '<' };
        self.and(&format!(
            "(e.timestamp, e.event_uuid) {sign} ({at}::timestamptz, {event_uuid}::uuid)"
        ));
    }
}

/// The place of an event in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub timestamp: DateTime<Utc>,
    /// Tells apart what happened at the same instant.
    pub event_uuid: Uuid,
}

/// In which direction pages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

impl Order {
    /// What stands after ORDER BY. The index on `timestamp` serves it: only events of the same instant are sorted.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::OldestFirst => "e.timestamp, e.event_uuid",
            Self::NewestFirst => "e.timestamp DESC, e.event_uuid DESC",
        }
    }
}

impl Filter {
    /// Reads the words of a search box, such as `actor:glawler type:org_* success:false since:7d`.
    ///
    /// # Errors
    /// A word that is not understood.
    pub fn from_words(text: &str) -> Result<Self, WordsError> {
        words::parse(text)
    }

    /// Makes instants of what is said as so long ago, so that all pages of one reading mean the same. `now` is the audit database's.
    pub fn pin(&mut self, now: DateTime<Utc>) {
        for moment in [&mut self.since, &mut self.until].into_iter().flatten() {
            if let Moment::Ago(ago) = *moment {
                *moment = Moment::At(now.checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH));
            }
        }
    }

    /// The condition as SQL on `public.events e`.
    #[must_use]
    pub fn condition(&self) -> Where {
        let mut to = Where::default();
        self.matter(&mut to);
        self.span(&mut to);
        to
    }

    /// The part of the condition that is not about time.
    pub fn matter(&self, to: &mut Where) {
        self.names(to);
        self.facts(to);
    }

    /// What an index of the given table finds: types and names.
    pub fn names(&self, to: &mut Where) {
        for any in self.indexed(to) {
            to.and(&format!("({})", any.join(" OR ")));
        }
    }

    /// How many events the index that finds fewest would lead to, counted up to `most` in each: SQL of a number, which indexes answer without the table. `None`: none serves.
    #[must_use]
    pub fn fewest(&self, to: &mut Where, most: i64) -> Option<String> {
        let count = |one: &String| {
            format!(
                "(SELECT count(*) FROM (SELECT FROM public.events e WHERE {one} LIMIT {most}) e)"
            )
        };
        let counts = self.indexed(to).into_iter();
        let counts = counts.map(|any| any.iter().map(count).collect::<Vec<_>>().join(" + "));
        let counts: Vec<String> = counts.collect();
        (!counts.is_empty()).then(|| format!("least({})", counts.join(", ")))
    }

    /// Conditions that must all hold: of each, any of several, which an index answers each.
    fn indexed(&self, to: &mut Where) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        if !self.event_type.is_empty() {
            all.push(self.types(to));
        }
        for (column, wanted) in [("caller", &self.caller), ("target", &self.target)] {
            if !wanted.is_empty() {
                all.push(vec![is_any(column, &to.bind(wanted.clone()))]);
            }
        }
        let kinds = match self.subject_type.as_slice() {
            [] => any_subject_type(),
            kinds => is_any("subject_type", &to.bind(kinds.to_vec())),
        };
        if !self.subject.is_empty() {
            let subject = is_any("subject", &to.bind(self.subject.clone()));
            all.push(vec![format!("{kinds} AND {subject}")]);
        } else if !self.subject_type.is_empty() {
            all.push(vec![kinds]);
        }
        if !self.user.is_empty() {
            let names = to.bind(self.user.clone());
            let subject = format!("({} AND {})", any_subject_type(), is_any("subject", &names));
            all.push(vec![is_any("caller", &names), subject, is_any("target", &names)]);
        }
        all
    }

    /// What only the row itself tells: the outcome and the payload.
    pub fn facts(&self, to: &mut Where) {
        if let Some(success) = self.success {
            to.and(if success { "e.success" } else { "NOT e.success" });
        }
        for PayloadValue { key, value } in &self.payload {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            // Most events have no such key, which is quickly seen.
            let first = to.bind(path.first().cloned());
            let (path, value) = (to.bind(path), to.bind(value.clone()));
            to.and(&format!(
                "e.payload ? {first}::text AND (e.payload #>> {path}::text[] = {value}::text OR e.payload #> {path}::text[] @> to_jsonb({value}::text))"
            ));
        }
    }

    /// The part of the condition that is about time.
    pub fn span(&self, to: &mut Where) {
        if let Some(since) = self.since {
            let since = instant(to, since, false);
            to.and(&format!("e.timestamp >= {since}"));
        }
        if let Some(until) = self.until {
            let until = instant(to, until, true);
            to.and(&format!("e.timestamp < {until}"));
        }
    }

    fn types(&self, to: &mut Where) -> Vec<String> {
        let (beginnings, whole): (Vec<&String>, Vec<&String>) =
            self.event_type.iter().partition(|event_type| event_type.ends_with('*'));
        let mut any = Vec::new();
        if !whole.is_empty() {
            let whole: Vec<String> = whole.into_iter().cloned().collect();
            any.push(is_any("event_type", &to.bind(whole)));
        }
        for beginning in beginnings {
            let beginning = to.bind(beginning.trim_end_matches('*').to_owned());
            let condition = format!("starts_with(there, {beginning}::text)");
            let list = there_are("event_type", &condition);
            any.push(format!("e.event_type = ANY ({list})"));
        }
        any
    }
}

fn is_any(column: &str, names: &str) -> String {
    format!("e.{column} = ANY ({names}::text[])")
}

/// The index of subjects begins with their type: a subject whose type nobody said is looked for in each type that there is.
fn any_subject_type() -> String {
    format!("e.subject_type = ANY ({})", there_are("subject_type", "true"))
}

/// The values of a column of which there are few, found by a step in its index for each.
fn there_are(column: &str, condition: &str) -> String {
    format!(
        "ARRAY(WITH RECURSIVE steps (there) AS ((SELECT min({column}) FROM public.events) UNION ALL \
         SELECT (SELECT min({column}) FROM public.events WHERE {column} > there) FROM steps WHERE there IS NOT NULL) \
         SELECT there FROM steps WHERE there IS NOT NULL AND {condition})"
    )
}

/// SQL of an instant.
fn instant(to: &mut Where, moment: Moment, is_end: bool) -> String {
    let at = if is_end { moment.end() } else { moment.begin() };
    match at {
        Ok(at) => format!("{}::timestamptz", to.bind(at)),
        Err(ago) => {
            format!("(now() - {}::bigint * interval '1 second')", to.bind(ago.num_seconds()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ever_stands_in_the_sql() {
        let evil = "x'; DROP TABLE events; --".to_owned();
        let filter = Filter {
            event_type: vec![evil.clone(), format!("{evil}*")],
            caller: vec![evil.clone()],
            user: vec![evil.clone()],
            payload: vec![PayloadValue { key: evil.clone(), value: evil }],
            success: Some(false),
            since: Some(Moment::Ago(TimeDelta::hours(2))),
            ..Filter::default()
        };
        let to = filter.condition();
        assert!(!to.sql().contains("DROP"), "{}", to.sql());
        assert_eq!(to.values().len(), 8);
        for part in ["NOT e.success", "e.timestamp >= (now() - $8::bigint * interval '1 second')"] {
            assert!(to.sql().contains(part), "{}", to.sql());
        }
        assert_eq!(Filter::default().condition().sql(), "true");
    }

    #[test]
    fn a_date_as_an_end_holds_its_whole_day() {
        let day: Moment = "2026-04-23".parse().unwrap();
        let filter = Filter { since: Some(day), until: Some(day), ..Filter::default() };
        let to = filter.condition();
        let shown = format!("{:?}", to.values());
        assert!(
            shown.contains("2026-04-23T00:00:00Z") && shown.contains("2026-04-24T00:00:00Z"),
            "{shown}"
        );
    }

    #[test]
    fn times_are_read_as_people_say_them() {
        let at = |text: &str| match text.parse().unwrap() {
            Moment::At(at) => at.to_rfc3339(),
            other => panic!("{other}"),
        };
        assert_eq!(at("2026-04-23T22:50:23+02:00"), "2026-04-23T20:50:23+00:00");
        assert_eq!(at("2026-04-23 20:50"), "2026-04-23T20:50:00+00:00");
        assert_eq!("7d".parse(), Ok(Moment::Ago(TimeDelta::days(7))));
        for text in ["", "d", "7", "7y", "-7d", "2026-13-01", "99999999999d", "7é"] {
            assert_eq!(text.parse::<Moment>(), Err(MomentError), "{text}");
        }
        let mut filter =
            Filter { since: Some(Moment::Ago(TimeDelta::days(1))), ..Filter::default() };
        filter.pin(DateTime::UNIX_EPOCH + TimeDelta::days(3));
        assert_eq!(serde_json::to_string(&filter).unwrap(), r#"{"since":"1970-01-03T00:00:00Z"}"#);
    }
}
