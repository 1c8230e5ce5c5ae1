//! What a `server.properties` may say, and what is said about it.

use crate::process::{Broker, Home};
use crate::wire::{append, connect, create, describe};

fn write(home: &Home, text: &str) -> String {
    let file = home.path().join("server.properties");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn every_unusable_value_is_named_at_once_and_nothing_is_made() {
    let home = Home::new(&[]);
    let file = write(
        &home,
        "num.partitions=none\nshard.count=-3\nauthorizer.class.name=org.example.Own\n\
         ssl.client.auth=required\nlog.segment.bytes=1\nmessage.max.bytes=many\n",
    );
    // The override of shard.count would hide the file's.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.current_dir(home.path()).args(["start", &file]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for key in
        ["num.partitions", "shard.count", "authorizer.class.name", "ssl.client.auth", "message.max.bytes"]
    {
        assert!(said.contains(key), "{key} is named in:\n{said}");
    }
    assert!(!home.data().exists(), "no data directory is made");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let home = Home::new(&[]);
    let (code, said) = home.refused(&["missing.properties"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("missing.properties"), "{said}");
}

#[test]
fn unknown_and_unused_keys_are_warnings() {
    let home = Home::new(&["no.such.key=1"]);
    let file = write(&home, "num.partitions=7\nnum.io.threads=8\nanother.unknown.key = x\n");
    let broker = Broker::start(home.command(&[&file]));
    for key in ["no.such.key", "another.unknown.key", "num.io.threads"] {
        assert!(broker.wait_for_line(key).contains("warning"), "{key}");
    }
    let mut connection = connect(&broker);
    create(&mut connection, "counted", -1, &[]);
    assert_eq!(describe(&mut connection, &["counted"]).topics[0].partitions.len(), 7);
}

#[test]
fn several_log_directories_share_the_partitions_and_survive_a_restart() {
    let home = Home::new(&["log.dirs=one,two"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "spread", 4, &[]);
    for partition in 0..4 {
        append(&mut connection, "spread", partition, &[b"x"]);
    }
    let holds = |directory: &str| {
        let listed = std::fs::read_dir(home.path().join(directory)).unwrap();
        listed
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("spread-"))
            .count()
    };
    assert_eq!((holds("one"), holds("two")), (2, 2));
    assert_eq!(broker.stop(), Some(0));
    let broker = home.start();
    let mut connection = connect(&broker);
    for partition in 0..4 {
        assert_eq!(append(&mut connection, "spread", partition, &[b"y"]), 1);
    }
}
