//! Tests of results and their files, and a small result for the tests of tables and pages.

use super::*;
use crate::load::Flow;
use crate::samples::{Series, ShardSeries};
use crate::trial::{Latency, Rest, Restart, Share};

fn run(workload: &str, contender: &str, us_per_request: f64) -> Measurement {
    let columns = vec![1.0, 2.0, 3.0];
    Measurement {
        workload: workload.to_owned(),
        contender: contender.to_owned(),
        layout: Layout::Split,
        rate_asked: None,
        seconds: 2.0,
        requests: 1000,
        records: 100_000,
        bytes: 10_000_000,
        errors: 0,
        latency_us: Some(Latency { p50: 50.0, p90: Some(60.0), p99: 90.0, p999: 200.0, max: 1234.5 }),
        end_to_end_us: None,
        read: Flow::default(),
        records_deleted: 0,
        broker: Some(Share {
            user_s: 0.5,
            system_s: 0.25,
            us_per_request,
            us_per_record: us_per_request / 100.0,
            s_per_gb: us_per_request / 10.0,
            resident_bytes: 20_000_000,
            resident_peak_bytes: 30_000_000,
        }),
        batches_checked: 12,
        rest: None,
        series: Series {
            at_s: vec![0.25, 0.5, 0.75],
            requests_per_s: columns.clone(),
            p99_us: vec![Some(90.0), None, Some(80.0)],
            broker_cores: columns.clone(),
            others_cores: vec![0.5, 0.1, 0.3],
            shards: vec![ShardSeries { name: "shard-0".to_owned(), busy: columns }],
            ..Series::default()
        },
        histogram: vec![(49.151, 500), (90.111, 490), (1245.183, 10)],
        end_to_end_histogram: Vec::new(),
    }
}

fn contender(name: &str) -> Contender {
    Contender {
        name: name.to_owned(),
        version: "4.3.1".to_owned(),
        command: format!("{name} --a <b> & \"c\""),
        settings: vec!["x=<y>".to_owned()],
        start_up_s: vec![0.04, 0.05, 0.06],
        resident_at_start_bytes: vec![15_000_000],
    }
}

/// Kafka, the floor and Tidemill on two workloads, two turns.
pub fn small() -> Report {
    let workloads = ["produce-small", "fetch-1mb"].map(|name| Workload::named(name).unwrap());
    let settings = Settings {
        layout: Layout::Split,
        seconds: 2.0,
        warmup_seconds: 1.0,
        bytes_max: 1 << 30,
        rate: None,
        turns: 2,
        warmup_turns: 0,
    };
    let names = ["kafka", "floor", "tidemill"];
    let machine = Machine {
        processor: "Some <processor> & more".to_owned(),
        cpus: 2,
        memory_gib: 23.5,
        kernel: "6.18".to_owned(),
        file_system: "ext4".to_owned(),
        java: String::new(),
        date: "2026-11-21 15:00 UTC".to_owned(),
        command: "cargo run -- compare kafka </script><b>".to_owned(),
    };
    let limit = Limit {
        name: "loopback".to_owned(),
        title: "loopback TCP".to_owned(),
        value: 4000.0,
        unit: "MB/s".to_owned(),
        cpu_s_per_gb: Some(0.2),
    };
    let mut report = Report::of(machine, settings, &workloads, &names);
    report.limits.push(limit);
    report.contenders = names.map(contender).into();
    for (kafka, tidemill) in [(30.0, 5.0), (50.0, 5.0)] {
        for row in ["produce-small", "fetch-1mb"] {
            report.runs.push(run(row, "kafka", kafka));
            report.runs.push(run(row, "floor", 4.0));
            report.runs.push(run(row, "tidemill", tidemill));
        }
    }
    report
}

/// Tidemill walked over connections, two turns, with looks at the broker at rest.
pub fn walked() -> Report {
    let mut report = small();
    report.contenders.retain(|one| one.name == "tidemill");
    (report.runs, report.goals) = (Vec::new(), None);
    let workload = Workload::named("many-connections").unwrap();
    let point = |value: &str| Row::point(&workload, vec![("connections".to_owned(), value.to_owned())]);
    report.workloads = ["64", "1024", "10000"].map(point).into();
    for cost in [8.0, 9.0] {
        for row in &report.workloads {
            let rest =
                Rest { seconds: 1.0, connections: 64, resident_connected_bytes: 99_000, ..Rest::default() };
            report.runs.push(Measurement { rest: Some(rest), ..run(&row.name, "tidemill", cost) });
        }
    }
    report
}

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("bench-report-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_spread_has_the_middle_of_odd_and_even_counts() {
    assert_eq!(Spread::of(vec![]), None);
    assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
    assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
}

#[test]
fn ratios_are_taken_within_a_turn() {
    let report = small();
    let row = report.workloads.first().unwrap();
    assert_eq!(report.ratio(row, "tidemill"), Some(Spread { median: 8.0, min: 6.0, max: 10.0 }));
    assert_eq!(report.ratio(row, "nobody"), None);
    assert_eq!(report.latencies("produce-small", "kafka").total(), 2000);
    assert!((report.others_cores().unwrap() - 0.3).abs() < 1e-9);
}

#[test]
fn only_tidemill_beside_kafka_has_goals() {
    let report = small();
    let settings = || report.settings.clone();
    let row = [Workload::named("produce-small").unwrap()];
    let judged = Report::of(report.machine.clone(), settings(), &row, &["kafka", "tidemill"]);
    assert_eq!(judged.workloads.first().unwrap().goal, Some(6.5));
    for others in [["kafka", "floor"], ["old", "new"]] {
        let report = Report::of(report.machine.clone(), settings(), &row, &others);
        assert!(report.goals.is_none() && report.workloads.first().unwrap().goal.is_none());
    }
}

#[test]
fn a_stored_result_reads_back_as_it_was() {
    let (folder, report) = (Folder::new("round"), small());
    report.save(&folder.0, "a-b").unwrap();
    assert_eq!(Report::load(&folder.0.join("a-b.json")).unwrap(), report);
    let text = fs::read_to_string(folder.0.join("a-b.json")).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"histogram\"")).count(), report.runs.len());
    for kind in ["md", "html"] {
        assert!(folder.0.join(format!("a-b.{kind}")).exists(), "{kind}");
    }
    let empty = Report { runs: Vec::new(), ..report };
    empty.save(&folder.0, "empty").unwrap();
    assert_eq!(Report::load(&folder.0.join("empty.json")).unwrap(), empty);
}

#[test]
fn a_walk_is_stored_and_shown_like_any_result() {
    let (folder, mut report) = (Folder::new("walk"), walked());
    report.knee = Some(Knee { p99_bound_ms: 5.0, rate: Some(1024.0), rate_above: None });
    report.save(&folder.0, "walk").unwrap();
    assert_eq!(Report::load(&folder.0.join("walk.json")).unwrap(), report);
    let text = fs::read_to_string(folder.0.join("walk.md")).unwrap();
    assert!(text.contains("many-connections on tidemill: p99 within 5 ms up to 1024 requests/s"), "{text}");
    assert!(text.contains("| connections | requests/s |") && text.contains("| 10000 | 500 |"), "{text}");
    assert!(text.contains("(8.00–9.00)") && !text.contains("kill -9"), "{text}");
}

#[test]
fn another_format_or_a_later_version_is_refused() {
    let folder = Folder::new("other");
    fs::create_dir_all(&folder.0).unwrap();
    let (report, path) = (small(), folder.0.join("x.json"));
    let said = |text: &str| {
        fs::write(&path, text).unwrap();
        format!("{:#}", Report::load(&path).unwrap_err())
    };
    assert!(said("{}").contains("is not a result"));
    let later = Report { version: VERSION + 1, ..report.clone() };
    assert!(said(&later.json().unwrap()).contains("version 2"));
    let other = Report { format: "x".to_owned(), ..report };
    assert!(said(&other.json().unwrap()).contains("of format x"));
}

/// Every name in an object, and in the objects below it.
fn names(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                found.insert(name.clone());
                names(value, found);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_file_is_in_the_documents() {
    let mut found = std::collections::BTreeSet::new();
    names(&serde_json::to_value(small()).unwrap(), &mut found);
    let mut walked = walked();
    walked.knee = Some(Knee { p99_bound_ms: 5.0, rate: None, rate_above: None });
    let rest = walked.runs.first_mut().unwrap().rest.as_mut().unwrap();
    rest.restart = Some(Restart::default());
    names(&serde_json::to_value(walked).unwrap(), &mut found);
    let document = include_str!("../../docs/BENCHMARKS.md");
    let (_, section) = document.split_once("## The result file").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let missing: Vec<&String> = found.iter().filter(|name| !section.contains(&format!("`{name}`"))).collect();
    assert!(found.len() > 50 && missing.is_empty(), "{missing:?}");
}
