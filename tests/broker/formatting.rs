//! Log directories that were formatted before their broker's first start.

use std::process::{Command, Output};

use crate::process::Home;

const CLUSTER: &str = "I7rxdXZqRmy5B4yDWBDDkw";
const TWO: &str = "1@127.0.0.1:9093:JEXY6aqzQY-32P5TStzaFg,2@127.0.0.1:9094:MvDxzVmcRsaTz33bUuRU6A";

/// Runs the binary in the broker's directory.
fn run(home: &Home, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.current_dir(home.path()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_broker_starts_in_the_cluster_that_its_directory_was_formatted_for() {
    let home = Home::new(&[]);
    let formatted = run(&home, &["format", "--cluster-id", CLUSTER, "--standalone"]);
    assert_eq!(formatted.status.code(), Some(0), "{}", said(&formatted));
    let line = "Formatting dynamic metadata voter directory ./tidemill-data with metadata.version";
    assert!(said(&formatted).starts_with(line), "{}", said(&formatted));
    for _ in 0..2 {
        let broker = home.start();
        let told = run(&home, &["cluster", "cluster-id", "--bootstrap-server", &broker.address]);
        assert_eq!(said(&told), format!("Cluster ID: {CLUSTER}\n"));
        assert_eq!(broker.stop(), Some(0));
    }
    let again = run(&home, &["storage", "format", "-t", CLUSTER, "-s"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("already formatted"), "{}", said(&again));
    let info = run(&home, &["storage", "info"]);
    assert_eq!(info.status.code(), Some(0));
    assert!(said(&info).contains(&format!("MetaProperties(version=1, clusterId={CLUSTER}, nodeId=1")));
}

#[test]
fn a_controller_of_several_that_nobody_can_reach_does_not_start() {
    let home = Home::new(&[]);
    let formatted = run(&home, &["format", "-t", CLUSTER, "--initial-controllers", TWO]);
    assert_eq!(formatted.status.code(), Some(0), "{}", said(&formatted));
    let (code, why) = home.refused(&[]);
    assert_eq!(code, Some(1));
    assert!(why.contains("quorum.properties") && why.contains("2@127.0.0.1:9094"), "{why}");
    assert!(why.contains("controller.listener.names"), "{why}");
    assert!(home.data().join("meta.properties").exists());
    let random = run(&home, &["storage", "random-uuid"]);
    assert_eq!(said(&random).trim().len(), 22);
}
