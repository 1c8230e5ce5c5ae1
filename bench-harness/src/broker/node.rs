//! One node of a broker: a process with a directory of its own, which can be stopped, killed and started again.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Member, Place, Scratch, Stop, tie_to_this_process};
use crate::admin::Admin;
use crate::host;
use crate::network::Network;

/// A broker that does not answer within this time has failed to start.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a broker may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// One node.
pub struct Node {
    /// Its id in the cluster.
    pub id: i32,
    /// Where it listens.
    pub address: SocketAddr,
    /// None for one that was there before.
    home: Option<Home>,
    /// The process of one that was there before, when known.
    foreign: Option<u32>,
}

/// The process is stopped before its directory goes: fields are dropped in order.
struct Home {
    process: Option<Process>,
    scratch: Scratch,
    command: Command,
    place: Place,
    launched: Instant,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Process {
    /// Asks it to end, and kills it where it does not.
    fn stop(&mut self) {
        let pid = Pid::from_raw(self.0.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    /// A node that has not been started.
    pub(super) fn new(member: &Member, mut command: Command, scratch: Scratch, place: Place) -> Node {
        tie_to_this_process(&mut command);
        let home = Home { process: None, scratch, command, place, launched: Instant::now() };
        Node { id: member.id as i32, address: member.address, home: Some(home), foreign: None }
    }

    /// A node that somebody else has started.
    pub(super) fn foreign(address: SocketAddr, pid: Option<u32>) -> Node {
        Node { id: 0, address, home: None, foreign: pid }
    }

    /// What is asked of its command and its directory; none of one that was there before.
    pub(super) fn command<T>(&self, ask: impl FnOnce(&Command, &Path) -> T) -> Option<T> {
        self.home.as_ref().map(|home| ask(&home.command, home.scratch.path()))
    }

    /// Its process, while it runs and is known.
    pub fn pid(&self) -> Option<u32> {
        let own = self.home.as_ref().and_then(|home| home.process.as_ref());
        own.map(|process| process.0.id()).or(self.foreign)
    }

    fn home(&mut self) -> Result<&mut Home> {
        self.home.as_mut().context("a broker that was there before is neither stopped nor started")
    }

    /// Starts the process on the broker's CPUs, and does not wait for it.
    pub fn launch(&mut self) -> Result<()> {
        let id = self.id as usize;
        let home = self.home()?;
        let output =
            File::options().create(true).append(true).open(home.scratch.path().join("output.txt"))?;
        home.command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        home.place.enter_node(id)?;
        home.launched = Instant::now();
        let spawned = home.command.spawn();
        home.place.enter_load()?;
        let child = spawned.with_context(|| format!("starting {:?}", home.command.get_program()))?;
        home.process = Some(Process(child));
        Ok(())
    }

    /// Waits until it answers. Returns how long that took from its start.
    pub fn await_answer(&mut self) -> Result<Duration> {
        let address = self.address;
        let launched = self.home()?.launched;
        loop {
            if Admin::connect(address).and_then(|mut admin| admin.answers()).is_ok() {
                return Ok(launched.elapsed());
            }
            self.check_alive()?;
            if launched.elapsed() > START_PATIENCE || host::interrupted() {
                bail!("the broker did not answer; it said:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The last lines of its output.
    pub fn last_words(&self) -> String {
        let read = |_: &Command, scratch: &Path| fs::read_to_string(scratch.join("output.txt"));
        let said = self.command(read).and_then(Result::ok).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(15).collect();
        last.into_iter().rev().collect::<Vec<&str>>().join("\n")
    }

    /// Stops it, and waits until it is gone.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        if how == Stop::Kill {
            self.kill()?;
        }
        self.home()?.process = None;
        Ok(())
    }

    /// Kills it, and does not wait.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.home()?.process.as_mut().context("the node runs")?;
        Ok(process.0.kill()?)
    }

    /// Cuts it off from every other node and from the load, in silence.
    pub fn cut(&mut self) -> Result<()> {
        let id = self.id as usize;
        self.network()?.cut(id)
    }

    /// Joins it with them again.
    pub fn heal(&mut self) -> Result<()> {
        let id = self.id as usize;
        self.network()?.heal(id)
    }

    fn network(&mut self) -> Result<&Network> {
        self.home()?.place.network.as_deref().context("the nodes have no network of their own")
    }

    /// Fails when the process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        let id = self.id;
        let Some(process) = self.home.as_mut().and_then(|home| home.process.as_mut()) else { return Ok(()) };
        let Some(status) = process.0.try_wait()? else { return Ok(()) };
        bail!("node {id} ended by itself: {status}; it said:\n{}", self.last_words())
    }
}
