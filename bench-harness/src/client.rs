//! Foreign clients as the load: Kafka's own perf tools and librdkafka, each in a process of its own on the CPUs of the
//! load, with the client's default settings. They tell their own rates and latencies; the broker's CPU is read here,
//! from before the client starts until it has ended.
//!
//! Bytes are those of values, as the clients count them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::broker::{Scratch, tie_to_this_process};
use crate::host::{self, Usage};
use crate::kafka;
use crate::load::Flow;
use crate::samples::Series;
use crate::trial::{Checked, Conditions, Latency, Measurement, Share, Stage};
use crate::workload::{Client, Tool};

/// librdkafka comes within this package.
const CONFLUENT: &str = "confluent-kafka==2.16.1";
const SCRIPT: &str = include_str!("client/librdkafka.py");
/// A client that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(300);
/// So much is read back from each of two places of the first partitions.
const CHECK_BYTES: usize = 4 << 20;

/// Where clients come from, and how much they do.
#[derive(Clone, Debug)]
pub struct Home {
    /// Where downloads are kept.
    pub cache: PathBuf,
    /// Records that a client writes. A client that reads, reads all that there is.
    pub records: u64,
}

/// What a client said of its run.
#[derive(Debug, PartialEq, Deserialize)]
struct Told {
    records: u64,
    bytes: u64,
    seconds: f64,
    latency_us: Option<Latency>,
}

/// Runs a client once on the stage's topic.
pub fn run(stage: &mut Stage, client: Client, conditions: &Conditions) -> Result<Measurement> {
    let home = &conditions.clients;
    let records = if client.reads { stage.stored_records() } else { home.records };
    let scratch = Scratch::new(&std::env::temp_dir(), "client")?;
    let mut command = command(stage, client, records, home, scratch.path())?;
    eprintln!("{} on {}: {records} records", stage.workload.name, stage.contender);
    let began = Usage::of_all(&stage.pids)?;
    let said = complete(&mut command, scratch.path())?;
    let ended = Usage::of_all(&stage.pids)?;
    let told = match client.tool {
        Tool::Librdkafka => serde_json::from_str(said.trim()).context("what the client said")?,
        Tool::Java if client.reads => consumed(&said)?,
        Tool::Java => produced(&said, client.record_bytes)?,
    };
    ensure!(told.records == records, "{} of {records} records were counted", told.records);
    let checked = check(stage, client, records)?;
    let flow = Flow { requests: 0, records, bytes: told.bytes };
    Ok(Measurement {
        workload: stage.workload.name.to_owned(),
        contender: stage.contender.to_owned(),
        layout: conditions.layout,
        rate_asked: None,
        seconds: told.seconds.max(1e-3),
        requests: flow.requests,
        records: flow.records,
        bytes: flow.bytes,
        errors: 0,
        latency_us: told.latency_us,
        end_to_end_us: None,
        read: Flow::default(),
        records_deleted: 0,
        broker: began
            .zip(ended)
            .map(|(began, ended)| Share::between(&began, &ended, (flow.requests, flow.records, flow.bytes))),
        batches_checked: checked.batches,
        rest: None,
        series: Series::default(),
        histogram: Vec::new(),
        end_to_end_histogram: Vec::new(),
    })
}

/// After a writer the partitions hold all records between them; their batches carry good CRCs.
fn check(stage: &mut Stage, client: Client, records: u64) -> Result<Checked> {
    let (topic, partitions) = (stage.topic.clone(), stage.workload.partitions);
    let ends: Vec<i64> =
        (0..partitions).map(|partition| stage.admin.log_end(&topic, partition)).collect::<Result<_>>()?;
    let found: i64 = ends.iter().sum();
    ensure!(found as u64 == records, "the topic holds {found} records where {records} are due");
    if client.reads {
        return Ok(Checked::default());
    }
    // The bytes that a client makes are its own: the CRC has to do.
    stage.check_ends(&ends, false, CHECK_BYTES, None)
}

fn command(stage: &Stage, client: Client, records: u64, home: &Home, scratch: &Path) -> Result<Command> {
    let (address, count) = (stage.address.to_string(), records.to_string());
    let topic = stage.topic.as_str();
    match client.tool {
        Tool::Librdkafka => {
            let script = scratch.join("librdkafka.py");
            fs::write(&script, SCRIPT)?;
            let mut command = Command::new("python3");
            command.env("PYTHONPATH", packages(&home.cache)?).arg(script);
            command.arg(if client.reads { "read" } else { "write" }).args([&address, topic, &count]);
            if !client.reads {
                command.arg(client.record_bytes.to_string());
            }
            Ok(command)
        }
        Tool::Java => {
            let jars = fs::canonicalize(kafka::tools_jars(&home.cache)?)?;
            let tool = if client.reads { "ConsumerPerformance" } else { "ProducerPerformance" };
            let mut command = Command::new("java");
            // The heap of Kafka's own scripts for tools.
            command.arg("-Xmx512M").arg("-cp").arg(format!("{}/*", jars.display()));
            command.arg(format!("org.apache.kafka.tools.{tool}"));
            command.args(["--bootstrap-server", &address, "--topic", topic, "--num-records", &count]);
            if client.reads {
                command.args(["--hide-header", "--timeout", "60000"]);
            } else {
                command.args(["--throughput", "-1", "--record-size", &client.record_bytes.to_string()]);
            }
            Ok(command)
        }
    }
}

/// The folder of the Python packages, fetched when it is not there.
fn packages(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join(CONFLUENT.replace("==", "-"));
    let done = folder.join("complete");
    if !done.exists() {
        eprintln!("fetching {CONFLUENT} into {}", folder.display());
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", CONFLUENT, "--target"])
            .arg(&folder);
        let status = pip.stdin(Stdio::null()).status().context("running pip: Python 3 with pip is needed")?;
        ensure!(status.success(), "pip failed: {status}");
        fs::write(done, "")?;
    }
    Ok(fs::canonicalize(folder)?)
}

/// Runs a client to its end and returns what it wrote to standard output.
fn complete(command: &mut Command, scratch: &Path) -> Result<String> {
    let (out, err) = (scratch.join("out.txt"), scratch.join("err.txt"));
    command.current_dir(scratch).stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    command.env_remove("CLASSPATH");
    tie_to_this_process(command);
    let mut child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE || host::interrupted() {
            child.kill()?;
            child.wait()?;
            bail!("the client did not end within {} s, or was interrupted", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = fs::read_to_string(out)?;
    if !status.success() {
        let complaint = fs::read_to_string(err)?;
        let last: String = complaint.lines().chain(said.lines()).take(15).collect::<Vec<_>>().join("\n");
        bail!("the client ended with {status}:\n{last}");
    }
    Ok(said)
}

/// The number before a word of a line.
fn number_before(line: &str, word: &str) -> Option<f64> {
    let (before, _) = line.split_once(word)?;
    before.trim_end().rsplit([' ', ',', '(']).next()?.parse().ok()
}

/// The closing line of kafka-producer-perf-test: records, rate and percentiles in milliseconds.
fn produced(said: &str, record_bytes: usize) -> Result<Told> {
    let line = said.lines().rev().find(|line| line.contains("99.9th")).context("no closing line")?;
    let number =
        |word| number_before(line, word).with_context(|| format!("no number before {word} in {line}"));
    let (records, rate) = (number("records sent")?, number("records/sec")?);
    ensure!(rate > 0.0, "a rate of {rate}");
    let latency = Latency {
        p50: number("ms 50th")? * 1e3,
        p90: None,
        p99: number("ms 99th")? * 1e3,
        p999: number("ms 99.9th")? * 1e3,
        max: number("ms max latency")? * 1e3,
    };
    let bytes = records as u64 * record_bytes as u64;
    Ok(Told { records: records as u64, bytes, seconds: records / rate, latency_us: Some(latency) })
}

/// The line of kafka-consumer-perf-test: start, end, MiB, MiB/s, records, records/s, time of joining and of fetching in
/// milliseconds, and the rates of fetching.
fn consumed(said: &str) -> Result<Told> {
    let fields = |line: &str| line.split(',').map(|field| field.trim().to_owned()).collect::<Vec<_>>();
    let line =
        said.lines().rev().map(fields).find(|fields| fields.len() == 10).context("no line of results")?;
    let number =
        |at: usize| line.get(at).and_then(|field| field.parse::<f64>().ok()).context("a number is due");
    let bytes = (number(2)? * f64::from(1 << 20)).round() as u64;
    Ok(Told { records: number(4)? as u64, bytes, seconds: number(7)? / 1e3, latency_us: None })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_the_producer_tool_is_read() {
        let said = "49 records sent, 9.8 records/sec (0.01 MB/sec), 3.1 ms avg latency, 300.0 ms max latency.\n\
                    2000 records sent, 500.000000 records/sec (0.48 MB/sec), 2.98 ms avg latency, 236.00 ms max \
                    latency, 2 ms 50th, 5 ms 95th, 18 ms 99th, 230 ms 99.9th.\n";
        let told = produced(said, 1000).unwrap();
        assert_eq!((told.records, told.bytes, told.seconds), (2000, 2_000_000, 4.0));
        let latency = told.latency_us.unwrap();
        assert_eq!((latency.p50, latency.p99, latency.p999, latency.max), (2e3, 18e3, 230e3, 236e3));
        assert!(produced("200 records sent, 9.8 records/sec", 1).is_err());
    }

    #[test]
    fn the_line_of_the_consumer_tool_is_read() {
        let said = "WARN, whatever\n\
                    2026-11-21 15:00:00:000, 2026-11-21 15:00:04:000, 2.0000, 0.5, 4000, 1000.0, 3500, 500, 4.0, 8000.0\n";
        let told = consumed(said).unwrap();
        assert_eq!((told.records, told.bytes, told.seconds), (4000, 2 << 20, 0.5));
        assert!(consumed("nothing").is_err());
    }
}
