//! Which class and activity of OCSF an event type is: by its name alone, so that a type that nobody knows yet has one too.

/// OCSF's classes that are used, by their `class_uid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 3001 Account Change.
    Account,
    /// 3002 Authentication.
    Authentication,
    /// 3004 Entity Management.
    Entity,
    /// 3006 Group Management.
    Group,
    /// 6008 Application Error: what the audit itself could not tell.
    ApplicationError,
}

/// Activities of [`Class::Entity`] and others that rules name; each class has its own numbers.
const CREATE: u32 = 1;
const READ: u32 = 2;
const UPDATE: u32 = 3;
const DELETE: u32 = 4;
const ACTIVATE: u32 = 10;
const DEACTIVATE: u32 = 11;
const SUSPEND: u32 = 12;
/// In every class.
pub(super) const OTHER: u32 = 99;

impl Class {
    /// `class_uid`; its thousands are the category.
    #[must_use]
    pub fn uid(self) -> u32 {
        match self {
            Self::Account => 3001,
            Self::Authentication => 3002,
            Self::Entity => 3004,
            Self::Group => 3006,
            Self::ApplicationError => 6008,
        }
    }

    /// The schema's caption.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "Account Change",
            Self::Authentication => "Authentication",
            Self::Entity => "Entity Management",
            Self::Group => "Group Management",
            Self::ApplicationError => "Application Error",
        }
    }

    /// The caption of an activity; `None` for Other.
    pub(super) fn activity(self, activity: u32) -> Option<&'static str> {
        Some(match (self, activity) {
            (Self::Account | Self::Entity, CREATE) => "Create",
            (Self::Account, 2) => "Enable",
            (Self::Account, 3) => "Password Change",
            (Self::Account, 5) => "Disable",
            (Self::Account, 6) => "Delete",
            (Self::Authentication, 1) => "Logon",
            (Self::Authentication, 2) => "Logoff",
            (Self::Entity, READ) => "Read",
            (Self::Entity, UPDATE) => "Update",
            (Self::Entity, DELETE) => "Delete",
            (Self::Entity, ACTIVATE) => "Activate",
            (Self::Entity, DEACTIVATE) => "Deactivate",
            (Self::Entity, SUSPEND) => "Suspend",
            (Self::Group, 3) => "Add User",
            (Self::Group, 4) => "Remove User",
            (Self::Group, 5) => "Delete",
            (Self::Group, 6) => "Create",
            (Self::ApplicationError, 1) => "General Error",
            (Self::ApplicationError, 2) => "Translation Error",
            _ => return None,
        })
    }
}

/// What OCSF's entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// The event's subject, with its type.
    Subject,
    /// The event's target, which is such a thing; its subject is the holder.
    Target(&'static str),
}

/// What the events of some types are.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Event types; one with a `*` stands for all that begin or end so.
    pub types: &'static [&'static str],
    pub class: Class,
    pub activity: u32,
    pub thing: Thing,
}

const fn row(types: &'static [&'static str], class: Class, activity: u32) -> Rule {
    Rule { types, class, activity, thing: Thing::Subject }
}

const fn held(types: &'static [&'static str], activity: u32, noun: &'static str) -> Rule {
    Rule { types, class: Class::Entity, activity, thing: Thing::Target(noun) }
}

/// The first row that names a type decides.
pub(super) const RULES: &[Rule] = &[
    // People and their logins.
    row(&["user_created", "user_registered", "identity_registered"], Class::Account, 1),
    row(&["user_activated", "user_unfrozen", "identity_activated"], Class::Account, 2),
    row(&["password_changed"], Class::Account, 3),
    row(&["user_frozen", "user_declined", "identity_deactivated"], Class::Account, 5),
    row(&["user_deleted", "identity_deleted"], Class::Account, 6),
    row(&["login_succeeded", "login_failed"], Class::Authentication, 1),
    row(&["logout"], Class::Authentication, 2),
    row(&["login_*"], Class::Authentication, OTHER),
    // Organizations and projects, and who is in them.
    row(&["org_created", "organization_created", "project_created"], Class::Group, 6),
    row(&["org_deleted", "organization_deleted", "project_deleted"], Class::Group, 5),
    row(&["*_member_added"], Class::Group, 3),
    row(&["*_member_deleted"], Class::Group, 4),
    row(&["*_member_updated", "*_member_requested", "*_member_state_changed"], Class::Group, OTHER),
    // What the audit tells of itself.
    row(&["log_read", "log_exported"], Class::Entity, READ),
    row(&["retention_applied", "table_truncated"], Class::Entity, DELETE),
    row(&["coverage_changed", "schema_changed"], Class::Entity, UPDATE),
    row(&["audit_gap", "audit_diverged"], Class::ApplicationError, 1),
    row(&["undeliverable", "change_unmapped"], Class::ApplicationError, 2),
    // What was tried and rolled back is no change of what it was tried on.
    row(&["*_failed"], Class::Entity, OTHER),
    // What people hold.
    held(&["public_key_added"], CREATE, "public_key"),
    held(&["public_key_deleted"], DELETE, "public_key"),
    held(&["token_created"], CREATE, "token"),
    held(&["token_deleted"], DELETE, "token"),
    held(&["token_revoked"], DEACTIVATE, "token"),
    held(&["public_key_*"], OTHER, "public_key"),
    held(&["token_*"], OTHER, "token"),
    row(&["user_*", "identity_*", "account_*", "credentials_*"], Class::Account, OTHER),
    // Everything else, by its last word.
    row(&["*_created", "*_registered"], Class::Entity, CREATE),
    row(&["*_updated", "*_renamed", "*_extended", "*_state_changed"], Class::Entity, UPDATE),
    row(&["*_deleted"], Class::Entity, DELETE),
    row(&["*_activated", "*_unfrozen"], Class::Entity, ACTIVATE),
    row(&["*_deactivated", "*_declined"], Class::Entity, DEACTIVATE),
    row(&["*_frozen"], Class::Entity, SUSPEND),
    row(&["*"], Class::Entity, OTHER),
];

impl Rule {
    fn is_of(&self, event_type: &str) -> bool {
        self.types.iter().any(|pattern| {
            if let Some(end) = pattern.strip_prefix('*') {
                event_type.ends_with(end)
            } else if let Some(begin) = pattern.strip_suffix('*') {
                event_type.starts_with(begin)
            } else {
                event_type == *pattern
            }
        })
    }
}

/// The rule of an event type.
#[must_use]
pub fn rule(event_type: &str) -> Rule {
    let found = RULES.iter().find(|rule| rule.is_of(event_type));
    found.copied().unwrap_or(row(&["*"], Class::Entity, OTHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_decides_and_nothing_is_without_one() {
        let of = |event_type| (rule(event_type).class, rule(event_type).activity);
        assert_eq!(of("org_member_added"), (Class::Group, 3));
        assert_eq!(of("user_renamed"), (Class::Account, OTHER));
        assert_eq!(of("user_insert_failed"), (Class::Entity, OTHER));
        assert_eq!(of("experiment_created"), (Class::Entity, CREATE));
        assert_eq!(of("facility_resources_deactivated"), (Class::Entity, DEACTIVATE));
        assert_eq!(of(""), (Class::Entity, OTHER));
    }

    #[test]
    fn each_activity_that_a_rule_names_has_its_caption() {
        for rule in RULES.iter().filter(|rule| rule.activity != OTHER) {
            assert!(rule.class.activity(rule.activity).is_some(), "{rule:?}");
        }
    }
}
