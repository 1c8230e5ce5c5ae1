//! What is shown while a run goes on: one line that is refreshed on a terminal, a plain line a second
//! elsewhere. It goes to standard error, results go to standard output. It also reads the broker's CPU where
//! the measured phase begins and ends.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::host::Usage;
use crate::load::{Observer, Phase, Tally};

/// Plain lines come this often.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// The view of one run.
pub struct Live {
    label: String,
    pid: Option<u32>,
    terminal: bool,
    shown: Option<Shown>,
    plain_due: Duration,
    first: Option<Usage>,
    /// The broker's use at the measured phase's ends.
    pub began: Option<Usage>,
    /// See `began`.
    pub ended: Option<Usage>,
}

/// What the last line was computed from.
struct Shown {
    phase: Phase,
    at: Instant,
    requests: u64,
    bytes: u64,
    cpu: Duration,
}

impl Live {
    /// A view named `label` of the broker with that process.
    pub fn new(label: String, pid: Option<u32>) -> Live {
        let terminal = std::io::stderr().is_terminal();
        let first = pid.and_then(|pid| Usage::of(pid).ok());
        Live { label, pid, terminal, shown: None, plain_due: PLAIN_EVERY, first, began: None, ended: None }
    }

    fn usage(&self) -> Option<Usage> {
        self.pid.and_then(|pid| Usage::of(pid).ok())
    }

    /// The broker's CPU when a phase began; the warm-up begins with the view.
    fn cpu_before(&self, phase: Phase) -> Duration {
        let measuring = self.began.filter(|_| phase == Phase::Measure);
        measuring.or(self.first).map_or(Duration::ZERO, |usage| usage.cpu())
    }

    fn line(&mut self, phase: Phase, so_far: &Tally, elapsed: Duration) -> String {
        let (now, usage) = (Instant::now(), self.usage().unwrap_or_default());
        let fresh = Shown { phase, at: now, requests: 0, bytes: 0, cpu: usage.cpu() };
        let last = self.shown.take().filter(|shown| shown.phase == phase);
        let (requests, bytes, cpu, seconds) = match &last {
            Some(last) => (last.requests, last.bytes, last.cpu, (now - last.at).as_secs_f64()),
            None => (0, 0, self.cpu_before(phase), elapsed.as_secs_f64()),
        };
        self.shown = Some(Shown { requests: so_far.requests, bytes: so_far.bytes, ..fresh });
        let seconds = seconds.max(1e-3);
        let micros = |quantile| so_far.latency.value_at_quantile(quantile) as f64 / 1e3;
        let broker = match self.pid {
            None => String::new(),
            Some(_) => {
                let share = (usage.cpu().saturating_sub(cpu)).as_secs_f64() / seconds * 100.0;
                format!("  broker {share:.0} % CPU, {} MB", usage.resident_bytes / 1_000_000)
            }
        };
        format!(
            "{} {} {:.1} s  {:.1} k/s  {:.1} MB/s  p50 {:.0} p99 {:.0} max {:.0} µs{broker}  errors {}",
            self.label,
            if phase == Phase::WarmUp { "warm-up" } else { "measure" },
            elapsed.as_secs_f64(),
            (so_far.requests - requests) as f64 / seconds / 1e3,
            (so_far.bytes - bytes) as f64 / seconds / 1e6,
            micros(0.5),
            micros(0.99),
            so_far.latency.max() as f64 / 1e3,
            so_far.error_count(),
        )
    }
}

impl Observer for Live {
    fn begin(&mut self) {
        self.began = self.usage();
        self.plain_due = PLAIN_EVERY;
    }

    fn end(&mut self) {
        self.ended = self.usage();
    }

    fn tick(&mut self, phase: Phase, so_far: &Tally, elapsed: Duration) {
        if self.terminal {
            eprint!("\r\x1b[2K{}", self.line(phase, so_far, elapsed));
            // A closed terminal is no reason to stop measuring.
            let _ = std::io::stderr().flush();
        } else if elapsed >= self.plain_due {
            self.plain_due += PLAIN_EVERY;
            eprintln!("{}", self.line(phase, so_far, elapsed));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}
