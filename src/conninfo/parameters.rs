//! Which of libpq's parameters are honoured, and why the others are not (manual, sections 34.1.2 and 34.15).

/// The parameters that we honour, each with the environment variable that is its default.
pub(super) const HONOURED: [(&str, &str); 24] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslcrl", "PGSSLCRL"),
    ("sslsni", "PGSSLSNI"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("require_auth", "PGREQUIREAUTH"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("application_name", "PGAPPNAME"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("options", "PGOPTIONS"),
];

/// A parameter of libpq's that we do not honour. To accept one and do nothing could weaken what its author asked for.
#[derive(Debug)]
pub(super) struct NotHonoured {
    pub(super) name: &'static str,
    /// The environment variable, if it could choose another server or ask for more safety than we give.
    variable: Option<&'static str>,
    /// Values that ask for no more than what we do anyway.
    harmless: &'static [&'static str],
    /// A sentence.
    pub(super) why: &'static str,
}

const fn no(
    name: &'static str,
    variable: &'static str,
    harmless: &'static [&'static str],
    why: &'static str,
) -> NotHonoured {
    let variable = if variable.is_empty() { None } else { Some(variable) };
    NotHonoured { name, variable, harmless, why }
}

const NO_GSS: &str = "There is no GSSAPI here: use a password or a client certificate.";
const NO_OAUTH: &str = "There is no OAuth here: use a password or a client certificate.";
const KEEPALIVES: &str = "A line that is dead is noticed after 45 s, always.";
const PROTOCOL: &str = "Protocol 3.0 is spoken, always.";

#[rustfmt::skip]
const NOT_HONOURED: [NotHonoured; 30] = [
    no("client_encoding", "", &["auto", "UTF8", "utf8", "UTF-8"], "The program sets it as it must."),
    no("fallback_application_name", "", &[], "Use application_name."),
    no("gssdelegation", "", &["0"], NO_GSS),
    no("gssencmode", "PGGSSENCMODE", &["disable", "prefer"], NO_GSS),
    no("gsslib", "", &[], NO_GSS),
    no("keepalives", "", &["1"], KEEPALIVES),
    no("keepalives_count", "", &[], KEEPALIVES),
    no("keepalives_idle", "", &[], KEEPALIVES),
    no("keepalives_interval", "", &[], KEEPALIVES),
    no("krbsrvname", "", &[], NO_GSS),
    no("load_balance_hosts", "PGLOADBALANCEHOSTS", &["disable"], "Hosts are tried in their order, so that it is known which one is followed."),
    no("max_protocol_version", "", &["3.0"], PROTOCOL),
    no("min_protocol_version", "PGMINPROTOCOLVERSION", &["3.0"], PROTOCOL),
    no("oauth_ca_file", "", &[], NO_OAUTH),
    no("oauth_client_id", "", &[], NO_OAUTH),
    no("oauth_client_secret", "", &[], NO_OAUTH),
    no("oauth_issuer", "", &[], NO_OAUTH),
    no("oauth_scope", "", &[], NO_OAUTH),
    no("replication", "", &[], "The program opens the connections for replication that it needs."),
    no("requirepeer", "PGREQUIREPEER", &[], "Use a socket in a folder that only the server's user can write to."),
    no("requiressl", "PGREQUIRESSL", &["0"], "Use sslmode=require, or better verify-full."),
    no("scram_client_key", "", &[], "Name a passfile."),
    no("scram_server_key", "", &[], "Name a passfile."),
    no("sslcompression", "", &["0"], "Compression weakens TLS."),
    no("sslcrldir", "PGSSLCRLDIR", &[], "Name one file with all lists in sslcrl."),
    no("sslkeylogfile", "", &[], "It would write the keys of each connection to a file."),
    no("sslnegotiation", "PGSSLNEGOTIATION", &["postgres"], "TLS is asked for before it begins, always."),
    no("sslpassword", "", &[], "Decrypt the key (openssl pkey -in … -out …), and let only the sidecar's user read it."),
    no("tcp_user_timeout", "", &[], KEEPALIVES),
    no("ssl_renegotiation_limit", "", &["0"], "TLS is not negotiated anew."),
];

/// The parameter of this name that we do not honour.
pub(super) fn not_honoured(name: &str) -> Option<&'static NotHonoured> {
    NOT_HONOURED.iter().find(|own| own.name == name)
}

/// The first variable of the environment that asks for what we do not honour, with its reason.
pub(super) fn not_honoured_variable(
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<(&'static str, &'static str)> {
    NOT_HONOURED.iter().find_map(|own| {
        let variable = own.variable?;
        let value = env(variable)?;
        (!own.is_harmless(&value)).then_some((variable, own.why))
    })
}

impl NotHonoured {
    /// Whether this value asks for no more than what we do anyway.
    pub(super) fn is_harmless(&self, value: &str) -> bool {
        value.is_empty() || self.harmless.contains(&value)
    }
}
