//! A broker starts with next to nothing, stops cleanly, and comes back with what it had.

use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::tempdir;

use crate::process::{Broker, Home};
use crate::wire::{append, connect, create, read_all};

#[test]
fn without_configuration_it_starts_beside_its_working_directory() {
    let directory = tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.current_dir(directory.path());
    command.args(["start", "--override", "listeners=PLAINTEXT://127.0.0.1:0"]);
    let broker = Broker::start(command);
    let line = broker.wait_for_line("ready on");
    let cpus = std::thread::available_parallelism().unwrap().get();
    let shards = if cpus == 1 { "1 shard,".to_owned() } else { format!("{cpus} shards,") };
    assert!(line.contains(&shards) && line.contains("data in ./tidemill-data"), "{line}");
    assert!(directory.path().join("tidemill-data/meta.properties").exists());
    let mut connection = connect(&broker);
    create(&mut connection, "first", 3, &[]);
    assert_eq!(append(&mut connection, "first", 2, &[b"hello"]), 0);
    assert_eq!(read_all(&mut connection, "first", 2), [(0, b"hello".to_vec())]);
}

#[test]
fn a_clean_stop_leaves_its_marker_and_a_restart_serves_the_same() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let home = Home::new(&[]);
        let broker = home.start();
        assert!(!home.data().join(".kafka_cleanshutdown").exists(), "no marker while it runs");
        let mut connection = connect(&broker);
        create(&mut connection, "kept", 4, &[]);
        for partition in 0..4 {
            for round in 0..3 {
                assert_eq!(append(&mut connection, "kept", partition, &[b"a", b"b"]), round * 2);
            }
        }
        broker.signal(signal);
        broker.wait_for_line("stopped");
        assert_eq!(broker.ended(), Some(0));
        assert!(home.data().join(".kafka_cleanshutdown").exists(), "{signal}");

        let broker = home.start();
        let mut connection = connect(&broker);
        for partition in 0..4 {
            let offsets: Vec<i64> =
                read_all(&mut connection, "kept", partition).into_iter().map(|(offset, _)| offset).collect();
            assert_eq!(offsets, [0, 1, 2, 3, 4, 5]);
            assert_eq!(append(&mut connection, "kept", partition, &[b"c"]), 6);
        }
    }
}

#[test]
fn a_stop_ends_although_clients_stay_connected_and_wait() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "waited", 1, &[]);
    let request = crate::wire::fetch_request("waited", &[(0, 0)]).with_max_wait_ms(600_000);
    let ticket = connection.send(&request, crate::wire::FETCH_VERSION).unwrap();
    let idle = connect(&broker);
    assert_eq!(broker.stop(), Some(0));
    drop((ticket, idle));
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let home = Home::new(&[]);
    let broker = home.start();
    let (code, said) = home.refused(&[]);
    assert_eq!(code, Some(1));
    assert!(said.contains(".lock") && said.contains("tidemill-data") && said.contains("log.dirs"), "{said}");
    create(&mut connect(&broker), "unharmed", 1, &[]);
    drop(broker);
    home.start();
}

#[test]
fn a_port_in_use_is_said_and_nothing_is_left_locked() {
    let home = Home::new(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut busy = Home::new(&[]);
    busy.overrides.push(format!("listeners=PLAINTEXT://127.0.0.1:{port}"));
    let (code, said) = busy.refused(&[]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("cannot listen"), "{said}");
    drop(taken);
    home.start();
}
