//! The columns of every table that shows all figures of a run: heads, values, and how they are written. The page, the
//! walk and the search for the knee show these, and so the same ones.

use crate::markdown::{scaled, short};
use crate::report::Spread;
use crate::trial::{Measurement, Rest, Restart};

/// One column: its head, its value, and how that is written.
pub struct Column {
    /// What stands above it.
    pub head: &'static str,
    /// Its value in a run that has one.
    pub of: fn(&Measurement) -> Option<f64>,
    /// The value as text.
    pub write: fn(f64) -> String,
}

const fn column(head: &'static str, of: fn(&Measurement) -> Option<f64>, write: fn(f64) -> String) -> Column {
    Column { head, of, write }
}

/// What every run has.
pub const LOAD: [Column; 11] = [
    column("requests/s", |run| Some(run.request_rate()), scaled),
    column("records/s", |run| Some(run.record_rate()), scaled),
    column("MB/s", |run| Some(run.megabytes_a_second()), short),
    column("p50", |run| Some(run.latency()?.p50), time),
    column("p99", |run| Some(run.latency()?.p99), time),
    column("p99.9", |run| Some(run.latency()?.p999), time),
    column("longest", |run| Some(run.latency()?.max), time),
    column("CPU µs/request", |run| Some(run.broker.as_ref()?.us_per_request), short),
    column("CPU s/GB", |run| Some(run.broker.as_ref()?.s_per_gb), short),
    column("of it kernel", kernel_share, percent),
    column("resident MB", |run| Some(run.broker.as_ref()?.resident_peak_bytes as f64 / 1e6), short),
];

/// What a run has where the broker was looked at without load.
pub const REST: [Column; 9] = [
    column("idle, % of a core", |run| Some(run.rest.as_ref()?.cores_before * 100.0), short),
    column("idle after the load", |run| Some(run.rest.as_ref()?.cores_after * 100.0), short),
    column("topics made in", |run| Some(run.rest.as_ref()?.created_s * 1e6), time),
    column("kB a partition", |run| Some(run.rest.as_ref()?.bytes_a_partition() / 1e3), short),
    column("kB a new connection", |run| Some(run.rest.as_ref()?.bytes_a_new_connection() / 1e3), short),
    column("MB after the load", |run| Some(run.rest.as_ref()?.resident_after_bytes as f64 / 1e6), short),
    column("stop", |run| Some(restart(run)?.stop_s * 1e6), time),
    column("start until all is served", |run| Some(restart(run)?.clean_served_s * 1e6), time),
    column("after kill -9", |run| Some(restart(run)?.killed_served_s * 1e6), time),
];

/// All columns, in their order.
pub fn all() -> impl Iterator<Item = &'static Column> {
    LOAD.iter().chain(&REST)
}

impl Column {
    /// The middle of some runs, as text; a dash where none has a value.
    pub fn median<'a>(&self, runs: impl Iterator<Item = &'a Measurement>) -> String {
        let spread = Spread::of(runs.filter_map(self.of).collect());
        spread.map_or("–".to_owned(), |spread| (self.write)(spread.median))
    }
}

fn kernel_share(run: &Measurement) -> Option<f64> {
    let broker = run.broker.as_ref()?;
    Some(broker.system_s / (broker.user_s + broker.system_s).max(1e-9))
}

fn restart(run: &Measurement) -> Option<&Restart> {
    run.rest.as_ref().and_then(|rest: &Rest| rest.restart.as_ref())
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Microseconds in the unit that suits them.
pub fn time(us: f64) -> String {
    match us {
        us if us >= 999_500.0 => short(us / 1e6) + " s",
        us if us >= 999.5 => short(us / 1e3) + " ms",
        us => short(us) + " µs",
    }
}
