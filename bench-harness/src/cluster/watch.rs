//! What the nodes say of the topics of a run: who leads, and which copies are complete.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::admin::Admin;
use crate::broker::Broker;
use crate::host;
use crate::wire::{ActiveController, PartitionView};

/// A cluster that does not come to what is waited for within this time has failed.
const PATIENCE: Duration = Duration::from_secs(180);
/// The pause between two looks; with many partitions a look is followed by nine times as long a rest, up to the second.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// See [`LOOK_EVERY`].
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// Topics, and the nodes that are asked about them.
pub struct Watch {
    topics: Vec<String>,
    nodes: BTreeMap<i32, SocketAddr>,
}

/// A wait that goes on while something else is done between looks.
pub struct Wait {
    began: Instant,
    next: Instant,
    done: Option<Duration>,
}

impl Wait {
    /// Begins now.
    pub fn new() -> Wait {
        Wait { began: Instant::now(), next: Instant::now(), done: None }
    }

    /// Looks, if it is time for it. Returns how long it took until what is waited for was so.
    pub fn look(&mut self, what: &str, mut is_so: impl FnMut() -> bool) -> Result<Option<Duration>> {
        let now = Instant::now();
        if self.done.is_none() && now >= self.next {
            self.done = is_so().then(|| self.began.elapsed());
            self.next = Instant::now() + LOOK_EVERY.max(now.elapsed() * 9).min(LOOK_EVERY_MAX);
        }
        ensure!(self.done.is_some() || self.began.elapsed() < PATIENCE, "waited too long for {what}");
        ensure!(!host::interrupted(), "interrupted");
        Ok(self.done)
    }

    /// Looks until it is so.
    pub fn until(mut self, what: &str, mut is_so: impl FnMut() -> bool) -> Result<Duration> {
        loop {
            if let Some(took) = self.look(what, &mut is_so)? {
                return Ok(took);
            }
            std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        }
    }
}

impl Default for Wait {
    fn default() -> Wait {
        Wait::new()
    }
}

impl Watch {
    /// Watches these topics of a cluster.
    pub fn new(broker: &Broker, topics: Vec<String>) -> Watch {
        Watch { topics, nodes: broker.nodes.iter().map(|node| (node.id, node.address)).collect() }
    }

    /// Where every node listens, by id.
    pub fn nodes(&self) -> &BTreeMap<i32, SocketAddr> {
        &self.nodes
    }

    /// A connection to a node other than that one.
    pub fn other_than(&self, node: Option<i32>) -> Result<Admin> {
        let others = self.nodes.iter().filter(|(id, _)| Some(**id) != node);
        let found = others.map(|(_, address)| Admin::connect(*address)).find(Result::is_ok);
        found.context("there is another node")?
    }

    fn seen_by(&self, mut admin: Admin) -> Result<Vec<PartitionView>> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        Ok(admin.metadata(&topics)?.partitions)
    }

    /// Whether others see the node neither lead nor follow closely any more.
    pub fn has_left(&self, node: i32) -> bool {
        let seen = self.other_than(Some(node)).and_then(|admin| self.seen_by(admin));
        let gone = |one: &PartitionView| one.is_led() && one.leader != node && !one.in_sync.contains(&node);
        seen.is_ok_and(|all| !all.is_empty() && all.iter().all(gone))
    }

    /// Whether the node and another one see every copy of every partition complete.
    pub fn is_full(&self, node: i32) -> bool {
        let own = self.nodes.get(&node).context("a node").and_then(|address| Admin::connect(*address));
        let other = self.other_than(Some(node));
        [own, other].into_iter().all(|admin| {
            let seen = admin.and_then(|admin| self.seen_by(admin));
            seen.is_ok_and(|all| !all.is_empty() && all.iter().all(PartitionView::is_full))
        })
    }

    /// The active controller, once a node other than that one knows one other than that one.
    pub fn controller(&self, besides: Option<i32>) -> Result<ActiveController> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.other_than(besides).and_then(|mut admin| admin.controller());
            match found {
                Ok(Some(found)) if Some(found.id) != besides => return Ok(found),
                Ok(_) => {}
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
            if Instant::now() > deadline {
                bail!("no node knows the active controller");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
