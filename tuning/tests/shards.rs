//! `tidemill-tune shards` from the command to a broker that runs by its plan.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TUNE: &str = env!("CARGO_BIN_EXE_tidemill-tune");

/// Ends a broker whatever becomes of the test.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shards(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(TUNE);
    command.args(["shards", "--counts", "1,2", "--seconds", "0.2", "--warmup", "0.1", "--data"]).arg(folder);
    command.args(["--out"]).arg(folder.join("plan.properties")).args(arguments);
    command.output().unwrap()
}

fn settings(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("plan.properties")).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Starts a node by a file of its own and the plan over it, and returns the line that says that it is ready.
fn start(folder: &Path) -> String {
    let own = folder.join("server.properties");
    let data = folder.join("data");
    let lines = format!("listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs={}\nshard.count=7\n", data.display());
    std::fs::write(&own, lines).unwrap();
    let mut command = Command::new(TUNE);
    command.arg("start").arg(&own).arg(folder.join("plan.properties"));
    let mut broker = Broker(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let (mut said, deadline) = (String::new(), Instant::now() + Duration::from_secs(60));
    let mut lines = BufReader::new(broker.0.stderr.take().unwrap());
    while Instant::now() < deadline {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap() == 0 || line.contains("ready on") {
            return line;
        }
        said.push_str(&line);
    }
    panic!("the broker is not ready: {said}");
}

#[test]
fn a_plan_is_found_and_a_broker_runs_by_it() {
    let folder = tempfile::tempdir().unwrap();
    // A goal that any machine keeps at the rate that is asked for.
    let goal = ["--workload", "produce-small", "--rate", "200", "--p99-ms", "5000", "--output", "json"];
    let output = shards(folder.path(), &goal);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((told["format"].as_str(), told["version"].as_u64()), (Some("tidemill-tune-shards"), Some(1)));
    assert_eq!((told["reached"].as_bool(), told["aim"].as_str()), (Some(true), Some("cost")));
    let candidates = told["candidates"].as_array().unwrap();
    let mut counts: Vec<u64> = candidates.iter().map(|one| one["shards"].as_u64().unwrap()).collect();
    let best = counts[0];
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
    let settings = settings(folder.path());
    assert_eq!(settings[0], format!("shard.count={best}"));
    assert!(settings[1].starts_with("shard.cpus="), "{settings:?}");
    let ready = start(folder.path());
    let shards = if best == 1 { "with 1 shard,".to_owned() } else { format!("with {best} shards,") };
    assert!(ready.contains(&shards), "{ready}");
}

#[test]
fn a_goal_that_nobody_reaches_gives_the_best_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let goal = ["--workload", "produce-small", "--p99-ms", "0.0001", "--from", "200", "--attempts", "1"];
    let output = shards(folder.path(), &goal);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("No candidate reached the goal"), "{shown}");
    assert_eq!(settings(folder.path()).len(), 2);
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refused: [(&[&str], &str); 4] = [
        (&["--workload", "no-such", "--p99-ms", "5"], "there is no workload no-such"),
        (
            &["--workload", "produce-small", "--p99-ms", "5", "--cpus", "4000"],
            "--cpus: CPUs 4000 may not be used",
        ),
        (&["--workload", "produce-small", "--p99-ms", "0"], "--p99-ms must be above zero"),
        (&["--workload", "produce-small", "--p99-ms", "5", "--broker", "/no/such"], "/no/such is not there"),
    ];
    for (arguments, reason) in refused {
        let output = shards(folder.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(reason), "{arguments:?}: {said}");
    }
    assert!(!folder.path().join("plan.properties").exists());
}
