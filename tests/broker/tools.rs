//! The tools of the command line against a broker process: what they print, and how they end.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::process::{Broker, Home};

/// Runs a tool: its exit code, standard output and standard error.
fn tool(broker: &Broker, line: &str, stdin: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(line.split_whitespace())
        .env("TIDEMILL_BOOTSTRAP_SERVER", &broker.address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A tool that fails early need not read its input.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    let done = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// The standard output of a tool that has to end well.
fn out(broker: &Broker, line: &str) -> String {
    let (code, out, err) = tool(broker, line, "");
    assert_eq!(code, Some(0), "{line}: {out}{err}");
    out
}

/// The standard error of a tool that has to fail.
fn failure(broker: &Broker, line: &str) -> String {
    let (code, out, err) = tool(broker, line, "");
    assert_eq!(code, Some(1), "{line}: {out}{err}");
    err
}

#[test]
fn topics_are_made_listed_described_extended_and_deleted() {
    let home = Home::new(&[]);
    let broker = home.start();
    let made = out(&broker, "topics --create --topic orders --partitions 2 --config retention.ms=86400000");
    assert_eq!(made, "Created topic orders.\n");
    out(&broker, "topics --create --topic audit");
    let exists = "tidemill: Error while executing topic command : Topic 'orders' already exists.\n";
    assert_eq!(failure(&broker, "topics --create --topic orders"), exists);
    assert_eq!(out(&broker, "topics --create --topic orders --if-not-exists"), "");
    assert_eq!(out(&broker, "topics --list"), "audit\norders\n");
    assert_eq!(out(&broker, "topics --list --topic or.*"), "orders\n");
    assert_eq!(out(&broker, "topics --alter --topic orders --partitions 3"), "");
    let described = out(&broker, "topics --describe --topic orders");
    let lines: Vec<&str> = described.lines().collect();
    assert_eq!(lines.len(), 4, "{described}");
    assert!(lines[0].starts_with("Topic: orders\tTopicId: "), "{described}");
    assert!(lines[0].contains("\tPartitionCount: 3\tReplicationFactor: 1\tConfigs: "), "{described}");
    assert!(lines[0].contains("retention.ms=86400000"), "{described}");
    for (number, line) in lines[1..].iter().enumerate() {
        let wanted = format!("\tTopic: orders\tPartition: {number}\tLeader: 1\tReplicas: 1\tIsr: 1\tElr: ");
        assert!(line.starts_with(&wanted), "{described}");
    }
    assert_eq!(out(&broker, "topics --describe --under-replicated-partitions"), "");
    assert_eq!(out(&broker, "topics --delete --topic orders"), "");
    let missing =
        "tidemill: Error while executing topic command : Topic 'orders' does not exist as expected\n";
    assert_eq!(failure(&broker, "topics --delete --topic orders"), missing);
    assert_eq!(out(&broker, "topics --delete --topic orders --if-exists"), "");
    assert_eq!(out(&broker, "topics --list --output json"), "[\n  \"audit\"\n]\n");
}

#[test]
fn lines_go_in_and_come_out_and_offsets_agree() {
    let home = Home::new(&[]);
    let broker = home.start();
    out(&broker, "topics --create --topic pairs --partitions 1");
    let producer =
        "console-producer --topic pairs --reader-property parse.key=true --reader-property key.separator=:";
    let (code, _, err) = tool(&broker, producer, "a:1\nb:2\nc:3\n");
    assert_eq!(code, Some(0), "{err}");
    let consumer = "console-consumer --topic pairs --from-beginning --max-messages 2 --formatter-property print.key=true \
                    --formatter-property print.offset=true";
    assert_eq!(out(&broker, consumer), "Offset:0\ta\t1\nOffset:1\tb\t2\n");
    assert_eq!(
        out(&broker, "console-consumer --topic pairs --partition 0 --offset 2 --max-messages 1"),
        "3\n"
    );
    assert_eq!(
        out(&broker, "console-consumer --include pa.r. --from-beginning --max-messages 3"),
        "1\n2\n3\n"
    );
    assert_eq!(out(&broker, "get-offsets --topic pairs"), "pairs:0:3\n");
    assert_eq!(out(&broker, "get-offsets --topic-partitions p.*:0 --time earliest"), "pairs:0:0\n");
    assert_eq!(out(&broker, "get-offsets --topic pairs --time 99999999999999"), "");
    let none = "tidemill: Error occurred: Could not match any topic-partitions with the specified filters\n";
    assert_eq!(failure(&broker, "get-offsets --topic nowhere"), none);
    let wrong = failure(&broker, "console-consumer --topic pairs --include x");
    assert!(wrong.contains("cannot be used with"), "{wrong}");
}

#[test]
fn configurations_and_the_cluster_are_shown() {
    let home = Home::new(&[]);
    let broker = home.start();
    out(&broker, "topics --create --topic t --config retention.ms=5");
    let shown = out(&broker, "configs --describe --topic t");
    assert!(shown.starts_with("Dynamic configs for topic t are:\n  retention.ms=5 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=5"), "{shown}");
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(out(&broker, "configs --describe --topic t --all").lines().count() > 20);
    let nowhere = "The topic 'nowhere' doesn't exist and doesn't have dynamic config.\n";
    assert_eq!(out(&broker, "configs --describe --topic nowhere"), nowhere);
    let endpoints = out(&broker, "cluster list-endpoints");
    let port = broker.address.rsplit(':').next().unwrap();
    assert!(endpoints.lines().nth(1).unwrap().contains(port), "{endpoints}");
    let id = out(&broker, "cluster cluster-id");
    assert_eq!(id.trim_end().len(), "Cluster ID: ".len() + 22, "{id}");
    assert_eq!(out(&broker, "metadata ls /brokers/topics/t/partitions"), "0\n");
    let state = out(&broker, "metadata get /brokers/topics/t/partitions/0/state");
    assert!(state.contains("\"isr\":[") && state.contains("\"leaderEpoch\":0"), "{state}");
    assert!(out(&broker, "metadata get /config/topics/t").contains("\"retention.ms\":\"5\""));
    assert!(failure(&broker, "metadata ls /zookeeper").contains("Node does not exist: /zookeeper"));
}

#[test]
fn a_producer_is_measured() {
    let home = Home::new(&[]);
    let broker = home.start();
    let said = out(
        &broker,
        "producer-perf-test --topic perf --num-records 2000 --record-size 100 --throughput -1 --command-property acks=1",
    );
    let line = said.lines().last().unwrap();
    assert!(line.starts_with("2000 records sent, ") && line.ends_with(" ms 99.9th."), "{said}");
    assert_eq!(out(&broker, "get-offsets --topic perf"), "perf:0:2000\n");
}

#[test]
fn wrong_command_lines_end_with_1_and_say_what_is_wrong() {
    let home = Home::new(&[]);
    let broker = home.start();
    for line in [
        "topics",
        "topics --list --describe",
        "topics --create",
        "consumer-groups",
        "configs --describe",
        "get-offsets --time",
        "nothing",
    ] {
        assert!(failure(&broker, line).starts_with("error: "), "{line}");
    }
    assert!(out(&broker, "topics --help").contains("Examples:"));
    assert!(out(&broker, "completion bash").contains("consumer-groups"));
}

#[test]
fn scripts_under_kafkas_names_start_a_broker_use_it_and_stop_it() {
    let home = Home::new(&[]);
    let bin = home.path().join("bin");
    let written = Command::new(env!("CARGO_BIN_EXE_tidemill")).arg("scripts").arg(&bin).output().unwrap();
    assert!(written.status.success(), "{written:?}");
    let broker = home.start();
    let script = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(bin.join(name));
        command.args(arguments).env("TIDEMILL_BOOTSTRAP_SERVER", &broker.address);
        command.output().unwrap()
    };
    let made = script("kafka-topics.sh", &["--create", "--topic", "t"]);
    assert_eq!(String::from_utf8(made.stdout).unwrap(), "Created topic t.\n");
    let second = Home::new(&[]);
    let mut starting = Command::new(bin.join("kafka-server-start.sh"));
    starting.current_dir(second.path());
    for one in &second.overrides {
        starting.args(["--override", one]);
    }
    let second_broker = Broker::start(starting);
    let stopped = script("kafka-server-stop.sh", &[]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(second_broker.ended(), Some(0));
    let nothing = script("kafka-server-stop.sh", &[]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn records_are_deleted_up_to_an_offset() {
    let home = Home::new(&[]);
    let broker = home.start();
    out(&broker, "topics --create --topic t");
    assert_eq!(tool(&broker, "console-producer --topic t", "a\nb\nc\n").0, Some(0));
    let file = home.path().join("offsets.json");
    let text = r#"{"partitions": [{"topic": "t", "partition": 0, "offset": 2}, {"topic": "nowhere", "partition": 0, "offset": 1}]}"#;
    std::fs::write(&file, text).unwrap();
    let said = out(&broker, &format!("delete-records --offset-json-file {}", file.display()));
    let lines: Vec<&str> = said.lines().skip(2).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("partition: nowhere-0\terror: "), "{said}");
    assert_eq!(lines[1], "partition: t-0\tlow_watermark: 2");
    assert_eq!(out(&broker, "console-consumer --topic t --from-beginning --max-messages 1"), "c\n");
}
