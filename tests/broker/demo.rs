//! `tidemill demo-cluster`: three nodes in one command, which come and go with it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tidemill::client::{Connection, ConnectionConfig};

use crate::nodes::free_port;
use crate::process::{PATIENCE, until};
use crate::wire::describe;

/// The command, and what it prints.
struct Demo {
    child: Child,
    printed: BufReader<ChildStdout>,
    addresses: Vec<String>,
}

impl Demo {
    /// Starts it and waits until it says where the cluster is.
    fn start(folder: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("demo-cluster").arg("--dir").arg(folder).args(more);
        // What the nodes say is for people.
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let mut demo = Self { child, printed, addresses: Vec::new() };
        let line = demo.line("bootstrap servers: ");
        demo.addresses = line.split(',').map(str::to_owned).collect();
        demo
    }

    /// What follows on the next line that begins with this.
    fn line(&mut self, begins: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.printed.read_line(&mut line).unwrap();
            assert!(read > 0, "it never said {begins:?}");
            if let Some(rest) = line.trim_end().strip_prefix(begins) {
                return rest.to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn ended(&mut self) -> Option<i32> {
        until("the demo ends", || self.child.try_wait().unwrap().ok_or("it still runs")).code()
    }

    /// The processes of its nodes.
    fn nodes(&self) -> Vec<i32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        children.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    fn connect(&self, index: usize) -> Connection {
        let config = ConnectionConfig { response_timeout: PATIENCE, ..ConnectionConfig::default() };
        Connection::open(&self.addresses[index], &config).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gone(nodes: &[i32]) {
    until("no node outlives the command", || {
        let left: Vec<_> = nodes.iter().filter(|id| Path::new(&format!("/proc/{id}")).exists()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// Six free ports in a row, as far as anybody can tell.
fn base_port() -> String {
    let in_a_row = |first: u16| (1..6).all(|offset| free_port() == first + offset);
    until("six free ports in a row", || {
        let first = free_port();
        if in_a_row(first) { Ok(first) } else { Err(first) }
    })
    .to_string()
}

#[test]
fn a_demo_cluster_serves_stops_with_a_signal_and_starts_again_with_what_it_had() {
    let folder = TempDir::new().unwrap();
    let mut demo = Demo::start(folder.path(), &["--base-port", &base_port()]);
    assert_eq!((demo.addresses.len(), demo.nodes().len()), (3, 3));
    let first = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["topics", "--create", "--topic", "words", "--partitions", "6", "--replication-factor", "3"])
        .args(["--bootstrap-server", &demo.addresses.join(",")])
        .output()
        .unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let nodes = demo.nodes();
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.ended(), Some(0));
    gone(&nodes);

    let demo = Demo::start(folder.path(), &[]);
    for index in 0..3 {
        let told = describe(&mut demo.connect(index), &["words"]).topics[0].clone();
        assert_eq!((told.error_code, told.partitions.len()), (0, 6), "node {}", index + 1);
    }
}

#[test]
fn a_node_of_a_demo_cluster_that_dies_is_told_and_none_outlives_the_command() {
    let folder = TempDir::new().unwrap();
    let mut demo = Demo::start(folder.path(), &["--base-port", &base_port()]);
    let nodes = demo.nodes();
    kill(Pid::from_raw(nodes[1]), Signal::SIGKILL).unwrap();
    let told = demo.line("node ");
    assert!(
        told.contains("has ended (signal: 9 (SIGKILL)), 2 go on") && told.contains("start it again"),
        "{told}"
    );
    demo.child.kill().unwrap();
    gone(&nodes);
}

#[test]
fn a_demo_cluster_is_not_made_on_ports_in_use_or_over_another() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let done = command.arg("demo-cluster").arg("--dir").arg(folder.path()).args(more).output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    assert!(refused(&["--base-port", &port]).contains("are free"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
    std::fs::create_dir_all(folder.path().join("node-1")).unwrap();
    std::fs::write(folder.path().join("node-1/server.properties"), "").unwrap();
    assert!(refused(&["--nodes", "5"]).contains("holds a cluster already"));
}
