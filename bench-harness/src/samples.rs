//! What a run was like from moment to moment: a thread of its own reads the load's meter and the broker's process every
//! 250 ms, keeps the measured phase as a time series, and shows where the run is.
//!
//! Invariant: the load's thread is never waited for and never waits. The sampler's looks cost it about a tenth of a
//! millisecond of a CPU four times a second.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::load::Phase;
use crate::meter::{Meter, Reading};
use crate::process::{Process, Used};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_millis(250);
/// A short phase has this many samples, so that its series still has a shape.
const SAMPLES_MIN: u32 = 10;
/// Below this the ticks of 10 ms in which CPU is told would be all that is seen.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// One sample: what happened in an interval, and what was used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds since the phase began, at the interval's end.
    pub at_s: f64,
    /// Answers a second.
    pub requests_per_s: f64,
    /// Records written a second.
    pub produced_records_per_s: f64,
    /// 10⁶ bytes of batches written a second.
    pub produced_mb_per_s: f64,
    /// Records read a second.
    pub consumed_records_per_s: f64,
    /// 10⁶ bytes of batches read a second.
    pub consumed_mb_per_s: f64,
    /// Median latency of the interval's answers, in microseconds; none without an answer.
    pub p50_us: Option<f64>,
    /// 99 %.
    pub p99_us: Option<f64>,
    /// 99.9 %.
    pub p999_us: Option<f64>,
    /// The longest.
    pub max_us: Option<f64>,
    /// Median latency of the batches that readers at the log's end had in the interval, in microseconds.
    pub end_to_end_p50_us: Option<f64>,
    /// 99 %.
    pub end_to_end_p99_us: Option<f64>,
    /// 99.9 %.
    pub end_to_end_p999_us: Option<f64>,
    /// Records that consumers have yet to read.
    pub lag_records: Option<f64>,
    /// The broker's CPU as a number of cores; none where its process is not known.
    pub broker_cores: Option<f64>,
    /// The broker's resident memory in 10⁶ bytes.
    pub resident_mb: Option<f64>,
    /// Cores that neither the broker nor the harness used, but somebody else on the machine.
    pub others_cores: Option<f64>,
    /// The share of the interval in which each shard's thread was on a CPU.
    pub shards_busy: Vec<f64>,
    /// Answers with an error code.
    pub errors: u64,
}

/// The samples of a measured phase, a column for each figure. A column that could not be measured is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// See [`Sample::at_s`].
    pub at_s: Vec<f64>,
    /// See [`Sample::requests_per_s`].
    pub requests_per_s: Vec<f64>,
    /// See [`Sample::produced_records_per_s`].
    pub produced_records_per_s: Vec<f64>,
    /// See [`Sample::produced_mb_per_s`].
    pub produced_mb_per_s: Vec<f64>,
    /// See [`Sample::consumed_records_per_s`].
    pub consumed_records_per_s: Vec<f64>,
    /// See [`Sample::consumed_mb_per_s`].
    pub consumed_mb_per_s: Vec<f64>,
    /// See [`Sample::p50_us`].
    pub p50_us: Vec<Option<f64>>,
    /// See [`Sample::p99_us`].
    pub p99_us: Vec<Option<f64>>,
    /// See [`Sample::p999_us`].
    pub p999_us: Vec<Option<f64>>,
    /// See [`Sample::max_us`].
    pub max_us: Vec<Option<f64>>,
    /// See [`Sample::end_to_end_p50_us`]; empty where nobody reads at the log's end.
    #[serde(default)]
    pub end_to_end_p50_us: Vec<Option<f64>>,
    /// See [`Sample::end_to_end_p99_us`].
    #[serde(default)]
    pub end_to_end_p99_us: Vec<Option<f64>>,
    /// See [`Sample::end_to_end_p999_us`].
    #[serde(default)]
    pub end_to_end_p999_us: Vec<Option<f64>>,
    /// See [`Sample::lag_records`].
    pub lag_records: Vec<f64>,
    /// See [`Sample::broker_cores`].
    pub broker_cores: Vec<f64>,
    /// See [`Sample::resident_mb`].
    pub resident_mb: Vec<f64>,
    /// See [`Sample::others_cores`].
    pub others_cores: Vec<f64>,
    /// The shards' threads.
    pub shards: Vec<ShardSeries>,
}

/// One shard's column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardSeries {
    /// The thread's name.
    pub name: String,
    /// The share of each interval in which it was on a CPU.
    pub busy: Vec<f64>,
}

/// Four significant digits: files stay small, and no figure here is better than that.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let shift = 10f64.powi(digits.abs());
    if digits >= 0 { (value * shift).round() / shift } else { (value / shift).round() * shift }
}

impl Series {
    fn new(shards: &[String]) -> Series {
        let shards = shards.iter().map(|name| ShardSeries { name: name.clone(), busy: Vec::new() });
        Series { shards: shards.collect(), ..Series::default() }
    }

    fn push(&mut self, sample: &Sample) {
        self.at_s.push((sample.at_s * 1e3).round() / 1e3);
        self.requests_per_s.push(rounded(sample.requests_per_s));
        self.produced_records_per_s.push(rounded(sample.produced_records_per_s));
        self.produced_mb_per_s.push(rounded(sample.produced_mb_per_s));
        self.consumed_records_per_s.push(rounded(sample.consumed_records_per_s));
        self.consumed_mb_per_s.push(rounded(sample.consumed_mb_per_s));
        self.p50_us.push(sample.p50_us.map(rounded));
        self.p99_us.push(sample.p99_us.map(rounded));
        self.p999_us.push(sample.p999_us.map(rounded));
        self.max_us.push(sample.max_us.map(rounded));
        // Readers at the log's end are those that have a lag.
        if sample.lag_records.is_some() {
            self.end_to_end_p50_us.push(sample.end_to_end_p50_us.map(rounded));
            self.end_to_end_p99_us.push(sample.end_to_end_p99_us.map(rounded));
            self.end_to_end_p999_us.push(sample.end_to_end_p999_us.map(rounded));
        }
        self.lag_records.extend(sample.lag_records);
        self.broker_cores.extend(sample.broker_cores.map(rounded));
        self.resident_mb.extend(sample.resident_mb.map(rounded));
        self.others_cores.extend(sample.others_cores.map(rounded));
        for (shard, busy) in self.shards.iter_mut().zip(&sample.shards_busy) {
            shard.busy.push(rounded(*busy));
        }
    }
}

/// Where a run is, for whoever shows it.
pub struct Moment<'a> {
    /// Warm-up or measured.
    pub phase: Phase,
    /// The names of the broker's shards.
    pub shards: &'a [String],
    /// The last window.
    pub sample: &'a Sample,
}

/// Is told where a run is, on the sampler's thread.
pub trait Viewer: Send {
    /// How much time it wants to see at once; at least a sample.
    fn window(&self) -> Duration;
    /// What happened in the last window.
    fn show(&mut self, moment: &Moment<'_>);
    /// There will be no more.
    fn close(&mut self);
}

/// A moment that the next sample is compared with.
#[derive(Clone)]
struct Before {
    began: Instant,
    at: Instant,
    reading: Reading,
    used: Option<Used>,
}

/// What samples are made of.
struct Source {
    meter: Arc<Meter>,
    process: Option<Process>,
    shards: Vec<String>,
}

impl Source {
    fn begin(&self) -> Before {
        let began = Instant::now();
        Before { began, at: began, reading: self.meter.read(), used: self.look() }
    }

    fn look(&self) -> Option<Used> {
        self.process.as_ref().and_then(Process::look)
    }

    /// What happened since `before`, which becomes now.
    fn sample(&self, before: &mut Before, now: Instant) -> Sample {
        let then = std::mem::replace(
            before,
            Before { began: before.began, at: now, reading: self.meter.read(), used: self.look() },
        );
        before.since(&then)
    }
}

impl Before {
    /// What happened between an earlier moment and this one.
    fn since(&self, then: &Before) -> Sample {
        let seconds = (self.at - then.at).as_secs_f64().max(1e-6);
        let between = self.reading.since(&then.reading);
        let sample = sample(&between, then.used.as_ref(), self.used.as_ref(), seconds);
        Sample { at_s: (self.at - self.began).as_secs_f64(), ..sample }
    }
}

/// What a viewer sees at once: it may be longer than a sample.
struct Window {
    began: Before,
    /// The longest latency of its samples, as each reading only tells that since the one before.
    longest_ns: u64,
}

impl Window {
    fn new(began: &Before) -> Window {
        Window { began: began.clone(), longest_ns: 0 }
    }

    /// Adds a sample that ended at that moment, and shows the window when it is full.
    fn pass(&mut self, at: &Before, phase: Phase, shards: &[String], viewer: &mut dyn Viewer) {
        self.longest_ns = self.longest_ns.max(at.reading.longest_ns);
        // A look may come a little early.
        if (at.at - self.began.at) * 50 < viewer.window() * 49 {
            return;
        }
        let mut whole = at.clone();
        whole.reading.longest_ns = self.longest_ns;
        viewer.show(&Moment { phase, shards, sample: &whole.since(&self.began) });
        *self = Window::new(at);
    }
}

fn sample(between: &Reading, before: Option<&Used>, used: Option<&Used>, seconds: f64) -> Sample {
    let rate = |count: u64| count as f64 / seconds;
    // A bucket ends a little above what fell into it: no percentile is above the longest.
    let longest = between.longest_ns.max(1);
    let micros = |share| between.latencies.quantile(share).map(|ns| ns.min(longest) as f64 / 1e3);
    let end_to_end = |share| between.end_to_end.quantile(share).map(|ns| ns as f64 / 1e3);
    let cores = |now: f64, then: f64| (now - then).max(0.0) / seconds;
    let both = before.zip(used);
    Sample {
        at_s: 0.0,
        requests_per_s: rate(between.requests),
        produced_records_per_s: rate(between.produced_records),
        produced_mb_per_s: rate(between.produced_bytes) / 1e6,
        consumed_records_per_s: rate(between.consumed_records),
        consumed_mb_per_s: rate(between.consumed_bytes) / 1e6,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        max_us: (between.requests > 0).then_some(longest as f64 / 1e3),
        end_to_end_p50_us: end_to_end(0.5),
        end_to_end_p99_us: end_to_end(0.99),
        end_to_end_p999_us: end_to_end(0.999),
        lag_records: between.lag_records.map(|lag| lag.max(0) as f64),
        broker_cores: both.map(|(then, now)| cores(now.cpu_s, then.cpu_s)),
        resident_mb: used.map(|now| now.resident_bytes as f64 / 1e6),
        others_cores: both.map(|(then, now)| {
            cores(now.machine_s - now.cpu_s - now.own_s, then.machine_s - then.cpu_s - then.own_s)
        }),
        shards_busy: both.map_or(Vec::new(), |(then, now)| {
            now.shards_s.iter().zip(&then.shards_s).map(|(now, then)| cores(*now, *then).min(1.0)).collect()
        }),
        errors: between.errors,
    }
}

/// The time between the samples of a phase of that length.
pub fn interval(phase: Duration) -> Duration {
    (phase / SAMPLES_MIN).clamp(INTERVAL_MIN, INTERVAL)
}

/// The measured phase's ends, as the load's thread saw them: a sampler that gets no CPU for a while is late, but not
/// wrong.
enum Order {
    /// The measured phase has begun.
    Begin(Box<Before>),
    /// It has ended.
    End(Box<Before>),
}

/// The thread that samples. It begins with the warm-up and ends with the measured phase.
pub struct Sampler {
    source: Arc<Source>,
    orders: Sender<Order>,
    thread: Option<JoinHandle<Series>>,
}

impl Sampler {
    /// Starts sampling; `process` is the broker's, where it is known.
    pub fn start(
        meter: Arc<Meter>,
        process: Option<Process>,
        interval: Duration,
        viewer: Box<dyn Viewer>,
    ) -> Sampler {
        let (orders, inbox) = channel();
        let shards = process.as_ref().map(Process::shards).unwrap_or_default();
        let source = Arc::new(Source { meter, process, shards });
        let theirs = Arc::clone(&source);
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || run(&theirs, &inbox, interval, viewer))
            .ok();
        Sampler { source, orders, thread }
    }

    /// The measured phase begins.
    pub fn begin(&self) {
        // A sampler that is gone leaves an empty series, which is no reason to stop measuring.
        let _ = self.orders.send(Order::Begin(Box::new(self.source.begin())));
    }

    /// The measured phase has ended.
    pub fn end(&self) {
        let _ = self.orders.send(Order::End(Box::new(self.source.begin())));
    }

    /// Waits for the sampler and hands back the series.
    pub fn finish(&mut self) -> Series {
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // A run that failed in between has not told the end.
            self.end();
            self.finish();
        }
    }
}

fn run(source: &Source, orders: &Receiver<Order>, interval: Duration, mut viewer: Box<dyn Viewer>) -> Series {
    let (mut phase, mut before, mut series) = (Phase::WarmUp, source.begin(), Series::new(&source.shards));
    let (mut due, mut window) = (before.began + interval, Window::new(&before));
    loop {
        let order = orders.recv_timeout(due.saturating_duration_since(Instant::now()));
        match order {
            Ok(Order::Begin(began)) => {
                (phase, before) = (Phase::Measure, *began);
                (due, window) = (before.began + interval, Window::new(&before));
                continue;
            }
            Ok(Order::End(mut ended)) => {
                // The last interval is seldom whole; half of one is enough for a rate.
                let enough = ended.at >= before.at + interval / 2 || series.at_s.is_empty();
                if phase == Phase::Measure && enough {
                    ended.began = before.began;
                    series.push(&ended.since(&before));
                }
                viewer.close();
                return series;
            }
            Err(RecvTimeoutError::Disconnected) => {
                viewer.close();
                return series;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        let sample = source.sample(&mut before, now);
        // A look that came late is not made up for by short ones.
        due = (due + interval).max(now + interval / 2);
        if phase == Phase::Measure {
            series.push(&sample);
        }
        window.pass(&before, phase, &source.shards, viewer.as_mut());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::meter::Answer;
    use crate::process::FakeProcess;

    fn answers(meter: &Meter, count: u64, us: u64, consumed: bool) {
        for _ in 0..count {
            let after = Some(Duration::from_micros(us));
            meter.count(Answer { after, consumed, records: 10, bytes: 1_000_000, refused: false });
        }
    }

    #[test]
    fn a_sample_is_what_came_between_two_looks_at_a_process() {
        let fake = FakeProcess::new("sample", &["main", "shard-0", "shard-1"]);
        let meter = Meter::new();
        let process = fake.process();
        let source = Source { meter: Arc::clone(&meter), shards: process.shards(), process: Some(process) };
        fake.uses(100, 1000, &[0, 60, 40], 500);
        answers(&meter, 5, 9_000, false);
        let mut before = source.begin();
        fake.uses(150, 2000, &[0, 100, 50], 580);
        answers(&meter, 100, 100, false);
        answers(&meter, 10, 1_000, true);
        meter.lag_changed(42);
        let half_a_second = before.began + Duration::from_millis(500);
        let sample = source.sample(&mut before, half_a_second);
        assert_eq!(sample.at_s, 0.5);
        assert_eq!((sample.requests_per_s, sample.produced_records_per_s), (220.0, 2000.0));
        assert_eq!((sample.produced_mb_per_s, sample.consumed_mb_per_s), (200.0, 20.0));
        assert_eq!((sample.max_us, sample.lag_records), (Some(1000.0), Some(42.0)));
        assert!((100.0..104.0).contains(&sample.p50_us.unwrap()), "9 ms came before: {:?}", sample.p50_us);
        assert_eq!(sample.p99_us, Some(1000.0));
        // 50 of 80 ticks were the broker's; what is left was somebody else's.
        assert_eq!((sample.broker_cores, sample.resident_mb), (Some(1.0), Some(8.192)));
        assert!((sample.others_cores.unwrap() - 0.6).abs() < 1e-9);
        assert!((sample.shards_busy.first().unwrap() - 0.8).abs() < 1e-9);
        assert!((sample.shards_busy.get(1).unwrap() - 0.2).abs() < 1e-9);
        let later = source.sample(&mut before, half_a_second + Duration::from_millis(100));
        assert_eq!((later.requests_per_s, later.p50_us, later.max_us), (0.0, None, None));
    }

    struct Second(Vec<Sample>);

    impl Viewer for Second {
        fn window(&self) -> Duration {
            Duration::from_secs(1)
        }

        fn show(&mut self, moment: &Moment<'_>) {
            self.0.push(moment.sample.clone());
        }

        fn close(&mut self) {}
    }

    #[test]
    fn a_viewer_sees_as_much_at_once_as_it_asks_for() {
        let meter = Meter::new();
        let source = Source { meter: Arc::clone(&meter), process: None, shards: Vec::new() };
        let mut before = source.begin();
        let (mut window, mut viewer, began) = (Window::new(&before), Second(Vec::new()), before.began);
        for (at_ms, us) in [(250, 100), (500, 7_000), (750, 100), (995, 100), (1245, 300)] {
            answers(&meter, 10, us, false);
            source.sample(&mut before, began + Duration::from_millis(at_ms));
            window.pass(&before, Phase::Measure, &[], &mut viewer);
        }
        let [second] = viewer.0.as_slice() else { panic!("{:?}", viewer.0) };
        assert_eq!((second.at_s, second.requests_per_s.round(), second.max_us), (0.995, 40.0, Some(7_000.0)));
    }

    /// Hands each phase it is shown to a test.
    struct Told(mpsc::Sender<Option<Phase>>);

    impl Viewer for Told {
        fn window(&self) -> Duration {
            Duration::ZERO
        }

        fn show(&mut self, moment: &Moment<'_>) {
            let _ = self.0.send(Some(moment.phase));
        }

        fn close(&mut self) {
            let _ = self.0.send(None);
        }
    }

    #[test]
    fn only_the_measured_phase_is_kept_and_both_are_shown() {
        let fake = FakeProcess::new("phases", &["shard-0"]);
        let (meter, (tell, told)) = (Meter::new(), mpsc::channel());
        let (step, viewer) = (Duration::from_millis(1), Box::new(Told(tell)));
        let mut sampler = Sampler::start(Arc::clone(&meter), Some(fake.process()), step, viewer);
        assert_eq!(told.recv().unwrap(), Some(Phase::WarmUp));
        answers(&meter, 50, 100, false);
        sampler.begin();
        answers(&meter, 7, 100, false);
        while told.recv().unwrap() != Some(Phase::Measure) {}
        while told.recv().unwrap() != Some(Phase::Measure) {}
        sampler.end();
        let series = sampler.finish();
        assert!(series.at_s.len() >= 2);
        assert_eq!(series.broker_cores.len(), series.at_s.len());
        assert_eq!(series.shards.first().unwrap().busy.len(), series.at_s.len());
        assert!(series.lag_records.is_empty(), "nobody consumes");
        assert_eq!(told.iter().last(), Some(None), "the view is closed");
        let text = serde_json::to_string(&series).unwrap();
        assert_eq!(serde_json::from_str::<Series>(&text).unwrap(), series);
    }

    #[test]
    fn a_short_phase_is_sampled_ten_times() {
        assert_eq!(interval(Duration::from_secs(60)), INTERVAL);
        assert_eq!(interval(Duration::from_secs(1)), Duration::from_millis(100));
        assert_eq!(interval(Duration::ZERO), INTERVAL_MIN);
    }

    #[test]
    fn figures_keep_four_digits() {
        assert_eq!(
            [rounded(123_456.0), rounded(1.234_56), rounded(0.0), rounded(0.001_234_56)],
            [123_500.0, 1.235, 0.0, 0.001_235]
        );
    }
}
