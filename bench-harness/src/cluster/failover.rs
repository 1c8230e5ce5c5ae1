//! The leader of a partition is killed again and again while a producer writes to it: how long until the next write is
//! acknowledged, by another node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::outcome::{Finding, Percentiles};
use super::watch::{Wait, Watch};
use super::writer::{ReadBack, Writer};
use super::{node_mut, topic};
use crate::broker::Broker;

/// How often, and what lies between.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many leaders are killed.
    pub kills: usize,
    /// Writes a second between the kills.
    pub rate: f64,
    /// How long it writes with every copy complete before the next kill.
    pub settle: Duration,
}

/// Seconds that one kill took.
struct Kill {
    /// Until the next acknowledgement.
    failover_s: f64,
    /// From its restart until every copy was complete.
    complete_s: f64,
    /// Whether the leader was the active controller too.
    was_controller: bool,
}

struct Failover<'a> {
    broker: &'a mut Broker,
    plan: Plan,
    watch: Watch,
    writer: Writer,
}

/// Kills leaders one after the other.
pub fn run(broker: &mut Broker, plan: Plan) -> Result<Finding> {
    let topic = topic("failover");
    let mut admin = crate::admin::Admin::connect(broker.address()?)?;
    admin.create_topic(&topic, 1, broker.replicas(), &[])?;
    let watch = Watch::new(broker, vec![topic.clone()]);
    let writer = Writer::new(&topic, 0, watch.nodes().clone())?;
    let mut failover = Failover { broker, plan, watch, writer };
    let mut kills = Vec::new();
    for number in 0..plan.kills {
        let kill = failover.kill(number)?;
        eprintln!(
            "kill {} of {}: {:.0} ms{}, complete {:.1} s after the restart",
            number + 1,
            plan.kills,
            kill.failover_s * 1e3,
            if kill.was_controller { " (the active controller too)" } else { "" },
            kill.complete_s,
        );
        kills.push(kill);
    }
    let read = failover.writer.read_back(&mut failover.watch.other_than(None)?)?;
    Ok(finding(failover.broker.name, &kills, &failover.writer, read))
}

impl Failover<'_> {
    fn kill(&mut self, number: usize) -> Result<Kill> {
        let settled = Instant::now() + self.plan.settle;
        while Instant::now() < settled {
            self.write()?;
        }
        self.writer.write()?;
        let victim = self.writer.leader().context("somebody leads")?;
        let was_controller = self.watch.controller(None)? == victim;
        let mut killed_at = None;
        let node = node_mut(self.broker, victim)?;
        let mut kill = || {
            killed_at = Some(Instant::now());
            node.kill()
        };
        // Every other time a request is on its way.
        let answered_by = if number.is_multiple_of(2) {
            kill()?;
            self.writer.write()?
        } else {
            self.writer.write_and(kill)?
        };
        // A node that dies may still have answered.
        if answered_by == victim {
            while self.writer.write()? == victim {}
        }
        let failover_s = killed_at.context("it was killed")?.elapsed().as_secs_f64();
        let mut left = Wait::new();
        while left.look("the dead node to leave", || self.watch.has_left(victim))?.is_none() {
            self.write()?;
        }
        let node = node_mut(self.broker, victim)?;
        node.stop(crate::broker::Stop::Clean)?;
        node.launch()?;
        let mut full = Wait::new();
        let complete = loop {
            if let Some(took) = full.look("every copy to be complete", || self.watch.is_full(victim))? {
                break took;
            }
            node_mut(self.broker, victim)?.check_alive()?;
            self.write()?;
        };
        Ok(Kill { failover_s, complete_s: complete.as_secs_f64(), was_controller })
    }

    /// A write, and the rest of its interval.
    fn write(&mut self) -> Result<()> {
        let due = Instant::now() + Duration::from_secs_f64(1.0 / self.plan.rate);
        self.writer.write()?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

fn finding(contender: &str, kills: &[Kill], writer: &Writer, read: ReadBack) -> Finding {
    let mut found = Finding::new(contender);
    let of = |filter: &dyn Fn(&Kill) -> bool| {
        kills.iter().filter(|kill| filter(kill)).map(|kill| kill.failover_s * 1e3).collect::<Vec<f64>>()
    };
    found.count("kills", kills.len() as u64);
    found.percentiles("until the next write", &Percentiles::of(of(&|_| true)), "ms");
    found.count("kills of the active controller too", of(&|kill| kill.was_controller).len() as u64);
    found.percentiles("of those", &Percentiles::of(of(&|kill| kill.was_controller)), "ms");
    found.percentiles("of the others", &Percentiles::of(of(&|kill| !kill.was_controller)), "ms");
    let complete = kills.iter().map(|kill| kill.complete_s).collect();
    found.percentiles("from the restart until every copy is complete", &Percentiles::of(complete), "s");
    found.read_back(read);
    found.trouble(&writer.trouble);
    found.series("failover_ms", of(&|_| true));
    found
}
