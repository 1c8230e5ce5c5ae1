//! A network for the nodes of a broker on one machine: a namespace for each node and one for the load, all on a bridge
//! in a namespace of its own.
//!
//! A node is cut off at its port of the bridge, which takes and gives nothing from then on. Nobody is told: no device
//! loses its carrier, and no address of the hardware is asked for, since all are entered for good beforehand.
//!
//! The namespaces have no names. They last as long as the processes in them and this one, and so nothing outlives the
//! harness, killed or not; and whatever their addresses are, they are nobody else's.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::broker::done;

/// The first three bytes of every address: those that are reserved for examples.
const PREFIX: [u8; 3] = [192, 0, 2];
/// A port of a bridge that takes and gives nothing, and one that does.
const DISABLED: &str = "0";
const FORWARDING: &str = "3";

/// The network. The thread that makes it is in the namespace of the load until it is dropped.
#[derive(Debug)]
pub struct Network {
    /// Where the thread came from.
    outside: File,
    switch: File,
    /// The load's, then those of the nodes by their ids, from 1 on.
    hosts: Vec<File>,
}

impl Network {
    /// Makes it for so many nodes, and moves this thread into the namespace of the load.
    pub fn new(nodes: usize) -> Result<Network> {
        let outside = here()?;
        let made = Network::make(outside.try_clone()?, nodes);
        if made.is_err() {
            enter(&outside)?;
        }
        made.context("namespaces of the network cannot be made, which takes root and the tool `ip`")
    }

    fn make(outside: File, nodes: usize) -> Result<Network> {
        let hosts = (0..=nodes).map(|_| namespace()).collect::<Result<Vec<File>>>()?;
        let network = Network { outside, switch: namespace()?, hosts };
        // This thread is in the switch's.
        ip("link add bridge0 type bridge")?;
        ip("link set bridge0 up")?;
        for (number, host) in network.hosts.iter().enumerate() {
            let (port, own) = (port(number), hardware(number));
            let there = format!("/proc/{}/fd/{}", std::process::id(), host.as_raw_fd());
            ip(&format!("link add {port} type veth peer name eth0 address {own} netns {there}"))?;
            ip(&format!("link set {port} master bridge0 up"))?;
        }
        for (number, host) in network.hosts.iter().enumerate() {
            enter(host)?;
            ip("link set lo up")?;
            ip("link set eth0 up")?;
            ip(&format!("addr add {}/24 dev eth0", address(number)))?;
            for other in (0..=nodes).filter(|other| *other != number) {
                let (address, hardware) = (address(other), hardware(other));
                ip(&format!("neigh replace {address} lladdr {hardware} dev eth0 nud permanent"))?;
            }
        }
        network.enter_load()?;
        Ok(network)
    }

    /// The address of a node, by its id from 1 on.
    pub fn address(&self, node: usize) -> IpAddr {
        address(node)
    }

    /// Moves this thread to where the load is.
    pub fn enter_load(&self) -> Result<()> {
        enter(self.hosts.first().context("the load has a namespace")?)
    }

    /// Moves this thread to where a node is, for the moment in which it starts the node: a child inherits it.
    pub fn enter_node(&self, node: usize) -> Result<()> {
        enter(self.hosts.get(node).with_context(|| format!("the network has no node {node}"))?)
    }

    /// From now on all is lost that a node sends and that is sent to it, in silence.
    pub fn cut(&self, node: usize) -> Result<()> {
        self.set_port(node, DISABLED)
    }

    /// It arrives again.
    pub fn heal(&self, node: usize) -> Result<()> {
        self.set_port(node, FORWARDING)
    }

    fn set_port(&self, node: usize, state: &str) -> Result<()> {
        enter(&self.switch)?;
        let set = run("bridge", &format!("link set dev {} state {state}", port(node)));
        self.enter_load()?;
        set
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = enter(&self.outside) {
            eprintln!("could not leave the network: {error:#}");
        }
    }
}

/// The namespace of this thread.
fn here() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("opening this thread's network")
}

/// A new namespace, into which this thread moves.
fn namespace() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("a new namespace")?;
    here()
}

fn enter(namespace: &File) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a namespace")
}

fn address(number: usize) -> IpAddr {
    let [a, b, c] = PREFIX;
    // The load is behind every node that there can be.
    Ipv4Addr::new(a, b, c, if number == 0 { 254 } else { number as u8 }).into()
}

fn hardware(number: usize) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn port(number: usize) -> String {
    format!("port{number}")
}

fn ip(words: &str) -> Result<()> {
    run("ip", words)
}

fn run(program: &str, words: &str) -> Result<()> {
    done(Command::new(program).args(words.split(' ')), &format!("{program} {words}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cut_is_silent_and_what_was_sent_meanwhile_arrives_after_it() {
        let outside = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let network = match Network::new(2) {
            Ok(network) => network,
            Err(error) => return eprintln!("skipped: {error:#}"),
        };
        network.enter_node(1).unwrap();
        let listener = TcpListener::bind((network.address(1), 0)).unwrap();
        let at = listener.local_addr().unwrap();
        network.enter_load().unwrap();
        let from_load = TcpStream::connect(at).unwrap();
        network.enter_node(2).unwrap();
        let from_node = TcpStream::connect(at).unwrap();
        network.enter_load().unwrap();
        let accepted = [(); 2].map(|()| listener.accept().unwrap().0);

        network.cut(1).unwrap();
        let briefly = Some(Duration::from_millis(300));
        for mut stream in [&from_load, &from_node] {
            stream.set_read_timeout(briefly).unwrap();
            stream.write_all(b"in the cut").unwrap();
        }
        for mut stream in accepted.iter().chain([&from_load, &from_node]) {
            stream.set_read_timeout(briefly).unwrap();
            assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        let refused = TcpStream::connect_timeout(&at, Duration::from_millis(300)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut, "nobody says that it is not there");

        network.heal(1).unwrap();
        for mut stream in &accepted {
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut came = [0; 10];
            stream.read_exact(&mut came).unwrap();
            assert_eq!(&came, b"in the cut");
        }
        drop(network);
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), outside);
    }
}
