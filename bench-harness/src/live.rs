//! What is shown while a run goes on: a small board that is redrawn in place on a terminal, a plain line a second
//! elsewhere. It goes to standard error, results go to standard output. It is drawn on the sampler's thread; on the
//! load's thread only the broker's CPU is read, where the measured phase begins and ends.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::host::Usage;
use crate::load::{Observer, Phase};
use crate::meter::Meter;
use crate::process::Process;
use crate::samples::{self, Moment, Sample, Sampler, Series, Viewer};

/// The time between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// So many samples of the past are drawn.
const PAST: usize = 24;
/// Characters of a shard's bar.
const BAR: usize = 10;
/// Shards that have a line of their own part; of more, the busiest are shown.
const SHARDS_SHOWN: usize = 8;

/// What is seen of one run: the sampler, and the broker's use at the measured phase's ends.
pub struct Live {
    pids: Vec<u32>,
    sampler: Sampler,
    /// The broker's use at the measured phase's ends.
    pub began: Option<Usage>,
    /// See `began`.
    pub ended: Option<Usage>,
    /// The measured phase from moment to moment, after `finish`.
    pub series: Series,
}

impl Live {
    /// A view named `label` of a load with that meter on the broker with those processes.
    pub fn new(label: String, pids: Vec<u32>, meter: Arc<Meter>, measure: Duration) -> Live {
        let viewer: Box<dyn Viewer> = match std::io::stderr().is_terminal() {
            true => Box::new(Board { label, past: VecDeque::new(), drawn: 0 }),
            false => Box::new(Lines { label }),
        };
        let process = (!pids.is_empty()).then(|| Process::new(&pids));
        let sampler = Sampler::start(meter, process, samples::interval(measure), viewer);
        Live { pids, sampler, began: None, ended: None, series: Series::default() }
    }

    /// Takes what was sampled, when the load has ended.
    pub fn finish(&mut self) {
        self.series = self.sampler.finish();
    }

    fn usage(&self) -> Option<Usage> {
        Usage::of_all(&self.pids).ok().flatten()
    }
}

impl Observer for Live {
    fn begin(&mut self) {
        self.began = self.usage();
        self.sampler.begin();
    }

    fn end(&mut self) {
        self.ended = self.usage();
        self.sampler.end();
    }
}

/// A count with k or M, in at most five characters.
fn count(value: f64) -> String {
    match value {
        value if value >= 9.995e5 => format!("{:.2}M", value / 1e6),
        value if value >= 9_995.0 => format!("{:.1}k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// Microseconds, from a millisecond on in milliseconds.
fn time(us: Option<f64>) -> String {
    match us {
        None => "–".to_owned(),
        Some(us) if us >= 1e6 => format!("{:.2} s", us / 1e6),
        Some(us) if us >= 1e4 => format!("{:.1} ms", us / 1e3),
        Some(us) if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        Some(us) => format!("{us:.0} µs"),
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::WarmUp => "warm-up",
        Phase::Measure => "measure",
    }
}

/// Eight heights between zero and the highest; what was not measured leaves a gap.
fn sparkline(values: impl Iterator<Item = Option<f64>>) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values: Vec<Option<f64>> = values.collect();
    let highest = values.iter().flatten().copied().fold(0.0, f64::max);
    let height = |value: f64| {
        let step = if highest > 0.0 { (value / highest * 7.0).round() as usize } else { 0 };
        HEIGHTS.get(step).copied().unwrap_or('█')
    };
    values.into_iter().map(|value| value.map_or(' ', height)).collect()
}

fn bar(share: f64) -> String {
    let full = ((share * BAR as f64).round() as usize).min(BAR);
    "█".repeat(full) + &"░".repeat(BAR - full)
}

/// The shards worth showing, `0 ███░░ 32 %` each: all in their order, or of many the busiest.
fn shards(names: &[String], busy: &[f64]) -> Vec<String> {
    let mut all: Vec<(&str, f64)> = names.iter().map(String::as_str).zip(busy.iter().copied()).collect();
    if all.len() > SHARDS_SHOWN {
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(SHARDS_SHOWN);
    }
    let number = |name: &str| name.rsplit('-').next().unwrap_or(name).to_owned();
    all.iter().map(|(name, busy)| format!("{} {} {:.0} %", number(name), bar(*busy), busy * 100.0)).collect()
}

/// One plain line.
fn line(label: &str, phase: Phase, shard_names: &[String], sample: &Sample) -> String {
    let mut text = format!(
        "{label} {} {:.1} s  {} requests/s",
        phase_name(phase),
        sample.at_s,
        count(sample.requests_per_s)
    );
    if sample.produced_records_per_s > 0.0 || sample.consumed_records_per_s == 0.0 {
        let _ = write!(text, "  in {:.1} MB/s", sample.produced_mb_per_s);
    }
    if sample.consumed_records_per_s > 0.0 {
        let _ = write!(text, "  out {:.1} MB/s", sample.consumed_mb_per_s);
    }
    let _ = write!(
        text,
        "  p50 {} p99 {} p99.9 {} max {}",
        time(sample.p50_us),
        time(sample.p99_us),
        time(sample.p999_us),
        time(sample.max_us),
    );
    if let Some(lag) = sample.lag_records {
        let (p50, p99) = (time(sample.end_to_end_p50_us), time(sample.end_to_end_p99_us));
        let _ = write!(text, "  end to end p50 {p50} p99 {p99}  lag {}", count(lag));
    }
    if let (Some(cores), Some(megabytes)) = (sample.broker_cores, sample.resident_mb) {
        let _ = write!(text, "  broker {:.0} % CPU, {megabytes:.0} MB", cores * 100.0);
    }
    for (name, busy) in shard_names.iter().zip(&sample.shards_busy) {
        let _ = write!(text, "  {name} {:.0} %", busy * 100.0);
    }
    let _ = write!(text, "  errors {}", sample.errors);
    text
}

/// Plain lines, once a second.
struct Lines {
    label: String,
}

impl Viewer for Lines {
    fn window(&self) -> Duration {
        PLAIN_EVERY
    }

    fn show(&mut self, moment: &Moment<'_>) {
        eprintln!("{}", line(&self.label, moment.phase, moment.shards, moment.sample));
    }

    fn close(&mut self) {}
}

/// The board on a terminal.
struct Board {
    label: String,
    past: VecDeque<Sample>,
    /// Lines on the screen that the next drawing goes over.
    drawn: usize,
}

impl Board {
    fn trend(&self, figure: impl Fn(&Sample) -> Option<f64>) -> String {
        sparkline(self.past.iter().map(figure))
    }

    /// The lines of the board. Each is a whole picture without its neighbours: nothing is aligned by counting.
    fn lines(&self, phase: Phase, shard_names: &[String]) -> Vec<String> {
        let Some(sample) = self.past.back() else { return Vec::new() };
        let head = format!("{}  {} {:.1} s", self.label.trim_end(), phase_name(phase), sample.at_s);
        let mut lines = vec![head];
        let mut row = |name: &str, figures: String, trend: String| {
            lines.push(format!("  {name:<10} {figures:<54} {trend}"));
        };
        let rate = format!("{} /s   errors {}", count(sample.requests_per_s), sample.errors);
        row("requests", rate, self.trend(|one| Some(one.requests_per_s)));
        let flow = |records: f64, mb: f64| format!("{} records/s   {mb:.1} MB/s", count(records));
        if self.past.iter().any(|one| one.produced_records_per_s > 0.0) {
            let written = flow(sample.produced_records_per_s, sample.produced_mb_per_s);
            row("in", written, self.trend(|one| Some(one.produced_mb_per_s)));
        }
        if self.past.iter().any(|one| one.consumed_records_per_s > 0.0) {
            let read = flow(sample.consumed_records_per_s, sample.consumed_mb_per_s);
            row("out", read, self.trend(|one| Some(one.consumed_mb_per_s)));
        }
        let latency = format!(
            "p50 {}  p99 {}  p99.9 {}  max {}",
            time(sample.p50_us),
            time(sample.p99_us),
            time(sample.p999_us),
            time(sample.max_us),
        );
        row("latency", latency, self.trend(|one| one.p99_us) + " p99");
        if let Some(lag) = sample.lag_records {
            let latency = format!(
                "p50 {}  p99 {}  p99.9 {}",
                time(sample.end_to_end_p50_us),
                time(sample.end_to_end_p99_us),
                time(sample.end_to_end_p999_us),
            );
            row("end to end", latency, self.trend(|one| one.end_to_end_p99_us) + " p99");
            row("lag", format!("{} records", count(lag)), self.trend(|one| one.lag_records));
        }
        if let (Some(cores), Some(others)) = (sample.broker_cores, sample.others_cores) {
            let cpu = format!("{:.0} % of a core   others {:.0} %", cores * 100.0, others * 100.0);
            row("broker", cpu, self.trend(|one| one.broker_cores));
        }
        if let Some(megabytes) = sample.resident_mb {
            row("memory", format!("{megabytes:.1} MB"), self.trend(|one| one.resident_mb));
        }
        let shards = shards(shard_names, &sample.shards_busy);
        for (at, some) in shards.chunks(2).enumerate() {
            let name = if at == 0 { "shards" } else { "" };
            lines.push(format!("  {name:<10} {}", some.join("   ")));
        }
        lines
    }

    /// Goes back to the first line of what was drawn and clears from there on.
    fn erase(&mut self, out: &mut String) {
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A\r\x1b[J", self.drawn);
        }
        self.drawn = 0;
    }
}

impl Viewer for Board {
    fn window(&self) -> Duration {
        Duration::ZERO
    }

    fn show(&mut self, moment: &Moment<'_>) {
        self.past.push_back(moment.sample.clone());
        if self.past.len() > PAST {
            self.past.pop_front();
        }
        let lines = self.lines(moment.phase, moment.shards);
        let mut out = String::new();
        self.erase(&mut out);
        self.drawn = lines.len();
        // Without wrapping each line stays one row, however narrow the terminal is.
        let _ = write!(out, "\x1b[?7l{}\n\x1b[?7h", lines.join("\n"));
        eprint!("{out}");
        // A closed terminal is no reason to stop measuring.
        let _ = std::io::stderr().flush();
    }

    fn close(&mut self) {
        let mut out = String::new();
        self.erase(&mut out);
        eprint!("{out}");
        let _ = std::io::stderr().flush();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some_sample() -> Sample {
        Sample {
            at_s: 1.25,
            requests_per_s: 92_600.0,
            produced_records_per_s: 92_600.0,
            produced_mb_per_s: 11.2,
            p50_us: Some(210.0),
            p99_us: Some(1_500.0),
            p999_us: Some(12_000.0),
            max_us: Some(2_000_000.0),
            broker_cores: Some(0.98),
            resident_mb: Some(38.2),
            others_cores: Some(0.1),
            shards_busy: vec![0.8, 0.0],
            ..Sample::default()
        }
    }

    #[test]
    fn a_plain_line_has_every_figure_that_was_measured() {
        let names = ["shard-0".to_owned(), "shard-1".to_owned()];
        let text = line("small", Phase::Measure, &names, &some_sample());
        assert_eq!(
            text,
            "small measure 1.2 s  92.6k requests/s  in 11.2 MB/s  p50 210 µs p99 1.50 ms p99.9 12.0 ms max 2.00 s  \
             broker 98 % CPU, 38 MB  shard-0 80 %  shard-1 0 %  errors 0"
        );
        let unknown = Sample { lag_records: Some(7.0), consumed_records_per_s: 1.0, ..Sample::default() };
        let text = line("x", Phase::WarmUp, &[], &unknown);
        assert!(
            text.contains("out 0.0 MB/s") && text.contains("lag 7") && !text.contains("broker"),
            "{text}"
        );
    }

    #[test]
    fn the_board_shows_trends_and_only_what_there_is() {
        let mut board = Board { label: "small".to_owned(), past: VecDeque::new(), drawn: 0 };
        board.past.push_back(Sample { requests_per_s: 10.0, ..some_sample() });
        board.past.push_back(some_sample());
        let text = board.lines(Phase::Measure, &["shard-0".to_owned(), "shard-1".to_owned()]).join("\n");
        for part in ["▁█", "p99.9 12.0 ms", "0 ████████░░ 80 %   1 ░░░░░░░░░░ 0 %", "38.2 MB"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("lag") && !text.contains("out"), "{text}");
    }

    #[test]
    fn a_sparkline_leaves_gaps_and_bears_zeros() {
        assert_eq!(sparkline([Some(0.0), None, Some(7.0), Some(3.5)].into_iter()), "▁ █▅");
        assert_eq!(sparkline([Some(0.0)].into_iter()), "▁");
    }

    #[test]
    fn of_many_shards_the_busiest_are_shown() {
        let names: Vec<String> = (0..20).map(|shard| format!("shard-{shard}")).collect();
        let busy: Vec<f64> = (0..20).map(|shard| f64::from(shard) / 20.0).collect();
        let shown = shards(&names, &busy);
        assert_eq!(shown.len(), SHARDS_SHOWN);
        assert!(shown.first().unwrap().starts_with("19 "));
    }
}
