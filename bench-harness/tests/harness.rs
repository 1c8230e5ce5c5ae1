//! The whole instrument, briefly: it starts a broker, loads it, checks what came out, and writes its results. Nothing
//! here depends on how fast anything is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A folder for results that goes when the test ends.
struct Results(PathBuf);

impl Results {
    fn new(name: &str) -> Results {
        let path = std::env::temp_dir().join(format!("bench-harness-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Results(path)
    }

    fn read(&self, file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.0.join(file)).unwrap()).unwrap()
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn harness(out: &Path, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-harness"));
    command.args(arguments).args(["--layout", "shared", "--warmup", "0.1", "--out"]).arg(out);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}\n{}", String::from_utf8_lossy(&output.stdout));
}

fn count(run: &Value, field: &str) -> u64 {
    run[field].as_u64().unwrap_or_else(|| panic!("{field} in {run}"))
}

#[test]
fn every_shape_of_workload_runs_and_its_records_come_back() {
    let names = ["produce-keyed", "produce-idempotent", "produce-lz4", "produce-8mb", "fan-out", "retention"];
    let out = Results::new("shapes");
    let mut arguments = vec!["--seconds", "0.5"];
    names.iter().for_each(|name| arguments.extend(["--workload", name]));
    harness(&out.0, &arguments);
    let report = out.read("tidemill.json");
    let runs = report["runs"].as_array().unwrap();
    let ran: Vec<&str> = runs.iter().map(|run| run["workload"].as_str().unwrap()).collect();
    assert_eq!(ran, names);
    for run in runs {
        assert_eq!(count(run, "errors"), 0);
        assert!(
            count(run, "requests") > 0 && count(run, "records") > 0 && count(run, "batches_checked") > 0,
            "{run}"
        );
        assert!(run["broker"]["resident_bytes"].as_u64().unwrap() > 0);
    }
    for run in runs.iter().rev().take(2) {
        assert!(run["end_to_end_us"]["p99"].as_f64().unwrap() > 0.0);
        assert!(count(&run["read"], "records") > 0);
    }
}

#[test]
fn every_way_of_appending_gives_back_what_was_written() {
    let engines = ["vectored", "gathered", "direct", "journal"];
    for more in [None, Some("--flush")] {
        let out = Results::new("engines");
        let engines_named = engines.join(",");
        let mut arguments =
            vec!["floor", "--append", &engines_named, "--seconds", "0.2", "--max-megabytes", "50"];
        // Large batches lie over several blocks; of small ones many wait for one round.
        for name in ["produce-large", "produce-keyed", "tail-and-backlog-apart"] {
            arguments.extend(["--workload", name]);
        }
        arguments.extend(more);
        harness(&out.0, &arguments);
        let report = out.read(&format!("{}.json", engines.join("-")));
        let runs = report["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 3 * engines.len());
        for run in runs {
            assert!(count(run, "requests") > 0 && count(run, "batches_checked") > 0, "{run}");
        }
    }
}

#[test]
fn a_sweep_measures_every_point_on_a_broker_with_its_settings() {
    let out = Results::new("sweep");
    harness(&out.0, &["sweep", "shards=1,2", "acks=0,1,all", "--seconds", "0.2"]);
    let sweep = out.read("sweep-produce-small-tidemill.json");
    assert_eq!(sweep["format"].as_str(), Some("tidemill-bench"));
    let rows = sweep["workloads"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[3]["parameters"].to_string(), r#"[["shards","2"],["acks","0"]]"#);
    let runs = sweep["runs"].as_array().unwrap();
    for (row, run) in rows.iter().zip(runs) {
        assert_eq!(row["name"], run["workload"]);
        assert!(count(run, "requests") > 0);
    }
    assert_eq!(runs.len(), rows.len());
    assert!(
        std::fs::read_to_string(out.0.join("sweep-produce-small-tidemill.md"))
            .unwrap()
            .contains("| shards | acks |")
    );
}

#[test]
fn a_bound_that_no_broker_can_keep_is_left_by_the_first_rate() {
    let out = Results::new("knee");
    let bound = ["--p99-bound-ms", "0.0001", "--attempts", "1", "--from", "100"];
    harness(&out.0, &[&["knee", "--seconds", "0.3"], &bound[..]].concat());
    let knee = out.read("knee-produce-small-tidemill.json");
    assert!(knee["knee"]["rate"].is_null());
    assert_eq!(knee["knee"]["rate_above"].as_f64(), Some(100.0));
    assert_eq!(knee["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_walk_over_partitions_looks_at_the_broker_at_rest_and_starts_it_again() {
    let out = Results::new("scale");
    let walk = ["sweep", "partitions=64,128", "--workload", "many-partitions", "--rest", "0.1", "--restart"];
    harness(&out.0, &[&walk[..], &["--seconds", "0.2"]].concat());
    let result = out.read("sweep-many-partitions-tidemill.json");
    let runs = result["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for (run, partitions) in runs.iter().zip([64, 128]) {
        let rest = &run["rest"];
        assert_eq!((count(rest, "partitions"), count(rest, "connections")), (partitions, 64));
        assert!(count(rest, "resident_after_bytes") > 0 && rest["created_s"].as_f64().unwrap() > 0.0);
        let restart = &rest["restart"];
        for (answer, served) in [("clean_answer_s", "clean_served_s"), ("killed_answer_s", "killed_served_s")]
        {
            let (answer, served) = (restart[answer].as_f64().unwrap(), restart[served].as_f64().unwrap());
            assert!(0.0 < answer && answer <= served, "{restart}");
        }
    }
    let page = std::fs::read_to_string(out.0.join("sweep-many-partitions-tidemill.html")).unwrap();
    assert!(page.contains("id=\"walk\"") && page.contains("after kill -9"));
}

#[test]
fn connections_that_take_turns_are_all_heard() {
    let out = Results::new("turns");
    let walk = ["sweep", "connections=100", "--workload", "many-connections", "--seconds", "0.2"];
    harness(&out.0, &walk);
    let result = out.read("sweep-many-connections-tidemill.json");
    // Before the clock runs every connection has had its turn; the check compares what each of them wrote.
    assert!(count(&result["runs"][0], "requests") > 0 && count(&result["runs"][0], "batches_checked") > 0);
}

fn value(finding: &Value, name: &str) -> f64 {
    let figures = finding["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.unwrap_or_else(|| panic!("{name} in {finding}"))["value"].as_f64().unwrap()
}

fn cluster(name: &str, arguments: &[&str]) -> Value {
    let out = Results::new(name);
    let task = [&["cluster", name, "--contender", "tidemill"], arguments].concat();
    harness(&out.0, &task);
    let outcome = out.read(&format!("cluster-{name}.json"));
    assert_eq!(outcome["format"].as_str(), Some("tidemill-bench-cluster"));
    assert!(
        std::fs::read_to_string(out.0.join(format!("cluster-{name}.md"))).unwrap().contains("| tidemill |")
    );
    outcome["findings"][0].clone()
}

#[test]
fn a_producer_goes_on_after_its_leader_is_killed_and_nothing_is_lost() {
    let found = cluster("failover", &["--kills", "3", "--settle", "0.2"]);
    assert_eq!(value(&found, "kills"), 3.0);
    assert!(value(&found, "until the next write, max") > 0.0);
    assert!(value(&found, "acknowledged records") > 3.0);
    assert_eq!(value(&found, "acknowledged records missing"), 0.0);
    assert_eq!(value(&found, "errors that are not retriable"), 0.0);
    assert_eq!(found["series"]["failover_ms"].as_array().unwrap().len(), 3);
}

#[test]
fn a_producer_goes_on_after_its_leader_is_cut_off_in_silence_and_nothing_is_lost() {
    // A thread of its own, because it is in another network for a while.
    let made = std::thread::spawn(|| bench_harness::network::Network::new(3).map(drop));
    if let Err(error) = made.join().unwrap() {
        return eprintln!("skipped: {error:#}");
    }
    let short = ["--cuts", "2", "--follower-cuts", "1", "--session-ms", "1800", "--settle", "0.2"];
    let found = cluster("cut", &short);
    assert_eq!((value(&found, "cuts"), value(&found, "cuts of a follower")), (2.0, 1.0));
    // The first is not the active controller, the second is; where an election has come between, both are alike.
    assert!(value(&found, "until the next write, max") > 0.0);
    assert!(value(&found, "until the next write, a follower, max") > 0.0);
    assert_eq!(value(&found, "acknowledged records missing"), 0.0);
    assert_eq!(value(&found, "errors that are not retriable"), 0.0);
    assert_eq!(found["series"]["failover_ms"].as_array().unwrap().len(), 2);
}

#[test]
fn producers_go_on_while_one_node_after_the_other_is_restarted() {
    let short = ["--rounds", "1", "--writers", "3", "--writes", "60", "--settle", "0.3", "--steady", "0.5"];
    let found = cluster("rolling", &short);
    assert_eq!(value(&found, "restarts"), 3.0);
    assert!(value(&found, "writes, rolling restart") > 0.0);
    assert_eq!(value(&found, "acknowledged records missing"), 0.0);
    assert_eq!(value(&found, "errors that are not retriable"), 0.0);
}

#[test]
fn another_controller_serves_and_a_node_gets_its_partitions_back() {
    let found = cluster(
        "partitions",
        &["--partitions", "100", "--kills", "1", "--rest", "0.2", "--rest-below", "200"],
    );
    assert_eq!(value(&found, "partitions"), 100.0);
    assert!(value(&found, "until a topic is made through another node, max") > 0.0);
    assert!(value(&found, "from the restart until every copy is complete, max") > 0.0);
    assert!(value(&found, "node 3 at rest") >= 0.0);
    assert!(value(&found, "from the topics to rest") > 0.0);
}

#[test]
fn the_load_of_a_cluster_is_that_of_all_its_nodes() {
    let out = Results::new("cluster-load");
    let one = ["cluster", "load", "--contender", "tidemill", "--workload", "cluster-small"];
    harness(
        &out.0,
        &[&one[..], &["--turns", "1", "--warmup-turns", "0", "--seconds", "0.5", "--rate", "100"]].concat(),
    );
    let report = out.read("cluster-tidemill.json");
    let run = &report["runs"][0];
    assert_eq!(count(run, "errors"), 0);
    assert!(count(run, "requests") > 0 && count(run, "batches_checked") > 0);
    assert!(run["broker"]["resident_bytes"].as_u64().unwrap() > 0);
}
