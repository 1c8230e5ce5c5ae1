//! `docs/CONFIG.md`, written from the tables so that it cannot differ from them.

use std::fmt::Write;

use super::dynamic::takes_effect;
use super::keys::{
    Check, GROUP_KEYS, Key, Kind, METRICS_KEYS, ResourceKey, TOPIC_KEYS, Tier, UpdateMode, groups,
};

const INTRODUCTION: &str = "# Configuration

<!-- Written from the tables in src/config/keys/ by `UPDATE_DOCS=1 cargo test --test config_doc`; do not edit. -->

`tidemill start FILE.properties --override key=value …` reads a Kafka `server.properties`, puts further files over it where there are some, and the overrides over all;
without a file every key has its default. Names, types, defaults and ranges are those of Apache Kafka 4.3.

What becomes of a value:

| word | meaning |
|---|---|
| honoured | it has its effect |
| planned | what it configures is not built yet: a warning at start |
| ignored | it has no meaning here, for the reason given: a warning at start |
| refused | the node does not start with it, for the reason given; a value that asks for nothing is accepted |

Unknown keys get a warning, as in Kafka. Values that are out of range stop the start, and all of them are reported at once.
[OPERATING.md](OPERATING.md) says how to run a broker with them.

When a new value counts:

| update | meaning |
|---|---|
| read-only | it stands in the node's file, and counts after a restart |
| cluster-wide | at once, altered for all brokers or for one: `tidemill configs --alter --broker-defaults`, `--broker ID` |
| per-broker | at once, altered for one broker |
| after a restart | Kafka changes it while it runs; here it counts after a restart, from the node's file |

Keys of topics, groups and client-metrics subscriptions are altered while the broker runs and count at once.

Keys of the form `listener.name.NAME.KEY` are known; values for a single listener have no effect yet.
A listener whose protocol is SSL or SASL_* stops the start until those are built.
";

/// The whole document.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (title, keys) in groups() {
        let _ = write!(text, "\n## {title}\n\n{BROKER_HEAD}");
        keys.iter().for_each(|key| broker_row(&mut text, key));
    }
    text.push_str("\n## Keys of a topic\n\nA topic without a value of its own has the first broker key that is set, or the default.\n\n");
    text.push_str("| key | type | default | allowed | unit | broker keys | effect | meaning |\n|---|---|---|---|---|---|---|---|\n");
    for key in TOPIC_KEYS {
        let broker_keys: Vec<String> = key.synonyms.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {} | {} |",
            key.name,
            key.kind.name(),
            default(key.default),
            allowed(key.kind, key.check),
            key.unit(),
            broker_keys.join(", "),
            effect(key.tier),
            key.doc,
        );
    }
    text.push_str(GROUP_HEAD);
    GROUP_KEYS.iter().for_each(|key| resource_row(&mut text, key));
    text.push_str(METRICS_HEAD);
    METRICS_KEYS.iter().for_each(|key| resource_row(&mut text, key));
    text
}

const GROUP_HEAD: &str = "
## Keys of a group

A group without a value of its own has the broker key's. Values are checked against the broker's bounds and kept with the
cluster's metadata; they count for groups of the protocol that they name, once that protocol is served.

| key | type | default | allowed | unit | broker key | least | greatest | meaning |
|---|---|---|---|---|---|---|---|---|
";

const METRICS_HEAD: &str = "
## Keys of a client-metrics subscription

Kept and told, as Kafka does without a plug-in that receives metrics: no client is asked for any.

| key | type | default | allowed | unit | broker key | least | greatest | meaning |
|---|---|---|---|---|---|---|---|---|
";

fn resource_row(text: &mut String, key: &ResourceKey) {
    let broker = |name: Option<&str>| name.map(|name| format!("`{name}`")).unwrap_or_default();
    let _ = writeln!(
        text,
        "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} |",
        key.name,
        key.kind.name(),
        default(Some(key.default)),
        allowed(key.kind, key.check),
        key.unit(),
        broker(key.synonym),
        broker(key.least),
        broker(key.most),
        key.doc,
    );
}

const BROKER_HEAD: &str = "| key | type | default | allowed | unit | topic key | update | effect | meaning |\n|---|---|---|---|---|---|---|---|---|\n";

fn broker_row(text: &mut String, key: &Key) {
    let topic = key.topic_synonym().map(|name| format!("`{name}`")).unwrap_or_default();
    let _ = writeln!(
        text,
        "| `{}` | {} | {} | {} | {} | {topic} | {} | {} | {} |",
        key.name,
        key.kind.name(),
        default(key.default),
        allowed(key.kind, key.check),
        key.unit(),
        mode(key),
        effect(key.tier),
        key.doc,
    );
}

/// When a new value counts; a value of a key that Kafka changes at run time and this broker does not is refused or
/// kept without effect.
fn mode(key: &Key) -> &'static str {
    match key.mode {
        UpdateMode::ReadOnly => "read-only",
        mode if takes_effect(key) => mode.name(),
        _ if key.tier == Tier::Honoured => "after a restart",
        mode => mode.name(),
    }
}

fn default(value: Option<&str>) -> String {
    match value {
        None => "–".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
    }
}

fn allowed(kind: Kind, check: Check) -> String {
    match check {
        Check::Any if kind == Kind::Boolean => "true, false".to_owned(),
        Check::Any => String::new(),
        Check::Min(least) => format!("≥ {least}"),
        Check::Range(least, most) => format!("{least} … {most}"),
        Check::RangeOr(least, i64::MAX, or) => format!("≥ {least}, or {or}"),
        Check::RangeOr(least, most, or) => format!("{least} … {most}, or {or}"),
        Check::Share(least, most) => format!("{least} … {most}"),
        Check::OneOf(values) => values.join(", "),
        Check::OneOfAnyCase(values) => values.join(", ").to_lowercase(),
        Check::NonEmpty => "not empty".to_owned(),
        Check::ShareReset => "earliest, latest, by_duration:PnDTnHnMn.nS".to_owned(),
        Check::ThrottledReplicas => "`*`, or partition:broker pairs".to_owned(),
    }
}

fn effect(tier: Tier) -> String {
    match tier {
        Tier::Honoured | Tier::Planned => tier.name().to_owned(),
        Tier::Ignored(reason) => format!("{}: {reason}", tier.name()),
        Tier::Refused { why, .. } => format!("{}: {why}", tier.name()),
    }
}
