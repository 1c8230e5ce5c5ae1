//! One node after the other is killed, or cut off in silence, while a producer writes to a partition: how long until
//! the next write is acknowledged by a node that is left, and how long until every copy is complete again afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::outcome::{Finding, Percentiles};
use super::watch::{Wait, Watch};
use super::writer::{ReadBack, Trouble, Writer};
use super::{node_mut, topic};
use crate::admin::Admin;
use crate::broker::{Broker, Node, Stop};

/// What is done to nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// kill -9, and a start.
    Kill,
    /// The network takes and brings nothing any more, until it is healed.
    Cut,
}

/// What a node is to the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It has a copy.
    Follower,
}

/// Which node is harmed, and when.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    role: Role,
    /// Whether it is the active controller too: it gets a new partition that is led so. None: the partition that there
    /// is, as it comes.
    is_controller: Option<bool>,
    /// Whether a request is on its way at that moment.
    in_flight: bool,
}

/// Who is harmed, and what lies between.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is done to them.
    pub harm: Harm,
    /// One after the other.
    pub aims: Vec<Aim>,
    /// Writes a second between them.
    pub rate: f64,
    /// How long it writes with every copy complete before the next.
    pub settle: Duration,
}

/// Seconds that one took.
struct Strike {
    role: Role,
    /// The longest write before it, with every copy complete.
    settled_s: f64,
    /// Until the next acknowledgement.
    failover_s: f64,
    /// From its restart, or the heal, until every copy was complete.
    complete_s: f64,
    /// Whether the node was the active controller too.
    was_controller: bool,
    /// Elections of an active controller until then.
    elections: i32,
}

struct Failover<'a> {
    broker: &'a mut Broker,
    plan: &'a Plan,
    watch: Watch,
    writer: Writer,
    /// Those of partitions of before.
    done: Vec<Writer>,
}

/// Every leader of one partition, `count` times, every other time while a request is on its way.
pub fn leaders(count: usize) -> Vec<Aim> {
    let aim =
        |number: usize| Aim { role: Role::Leader, is_controller: None, in_flight: !number.is_multiple_of(2) };
    (0..count).map(aim).collect()
}

/// Leaders and then followers, every other one the active controller too; of the leaders, two of four while a request
/// is on its way.
pub fn told_apart(leaders: usize, followers: usize) -> Vec<Aim> {
    let of = |role| {
        move |number: usize| Aim {
            role,
            is_controller: Some(!number.is_multiple_of(2)),
            in_flight: role == Role::Leader && !(number / 2).is_multiple_of(2),
        }
    };
    (0..leaders).map(of(Role::Leader)).chain((0..followers).map(of(Role::Follower))).collect()
}

/// Harms nodes one after the other.
pub fn run(broker: &mut Broker, plan: &Plan) -> Result<Finding> {
    let topic = topic("failover");
    let mut admin = Admin::connect(broker.address()?)?;
    admin.create_topic(&topic, 1, broker.replicas(), &[])?;
    let watch = Watch::new(broker, vec![topic.clone()]);
    let writer = Writer::new(&topic, 0, watch.nodes().clone())?;
    let mut failover = Failover { broker, plan, watch, writer, done: Vec::new() };
    let mut strikes = Vec::new();
    for (aim, number) in plan.aims.iter().zip(0..) {
        let strike = failover.strike(aim, number)?;
        eprintln!(
            "{} {} of {}: a {}{}, {:.0} ms, {} elections of a controller, complete {:.1} s after the {}",
            plan.harm.name(),
            number + 1,
            plan.aims.len(),
            strike.role.name(),
            if strike.was_controller { ", the active controller too" } else { "" },
            strike.failover_s * 1e3,
            strike.elections,
            strike.complete_s,
            plan.harm.mended(),
        );
        strikes.push(strike);
    }
    failover.done.push(failover.writer);
    let (mut read, mut trouble) = (ReadBack::default(), Trouble::default());
    for writer in &failover.done {
        read.add(writer.read_back(&mut failover.watch.other_than(None)?)?);
        trouble.add(&writer.trouble);
    }
    let mut found = Finding::new(failover.broker.name);
    figures(&mut found, plan.harm, &strikes);
    found.read_back(read);
    found.trouble(&trouble);
    Ok(found)
}

impl Harm {
    fn name(self) -> &'static str {
        match self {
            Harm::Kill => "kill",
            Harm::Cut => "cut",
        }
    }

    /// What ends it.
    fn mended(self) -> &'static str {
        match self {
            Harm::Kill => "restart",
            Harm::Cut => "heal",
        }
    }

    fn strike(self, node: &mut Node) -> Result<()> {
        match self {
            Harm::Kill => node.kill(),
            Harm::Cut => node.cut(),
        }
    }

    fn mend(self, node: &mut Node) -> Result<()> {
        match self {
            Harm::Kill => {
                node.stop(Stop::Clean)?;
                node.launch()
            }
            Harm::Cut => node.heal(),
        }
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
        }
    }
}

impl Failover<'_> {
    fn strike(&mut self, aim: &Aim, number: usize) -> Result<Strike> {
        let harm = self.plan.harm;
        let chosen = match aim.is_controller {
            Some(is_controller) => Some(self.place(aim.role, is_controller, number)?),
            None => None,
        };
        let settled = Instant::now() + self.plan.settle;
        let mut longest = Duration::ZERO;
        while Instant::now() < settled {
            longest = longest.max(self.write()?);
        }
        longest = longest.max(self.write()?);
        let victim = chosen.or(self.writer.leader()).context("somebody leads")?;
        let controller = self.watch.controller(None)?;
        self.writer.avoid(Some(victim).filter(|_| harm == Harm::Cut));
        let mut struck_at = None;
        let node = node_mut(self.broker, victim)?;
        let mut strike = || {
            struck_at = Some(Instant::now());
            harm.strike(node)
        };
        let answered_by = if aim.in_flight {
            self.writer.write_and(strike)?
        } else {
            strike()?;
            self.writer.write()?
        };
        // A node that dies may still have answered.
        if answered_by == victim {
            while self.writer.write()? == victim {}
        }
        let failover_s = struck_at.context("it was struck")?.elapsed().as_secs_f64();
        let elections = self.watch.controller(Some(victim))?.epoch - controller.epoch;
        let was_controller = controller.id == victim;
        let mut left = Wait::new();
        while left.look("the node to leave", || self.watch.has_left(victim))?.is_none() {
            self.write()?;
        }
        harm.mend(node_mut(self.broker, victim)?)?;
        self.writer.avoid(None);
        let mut full = Wait::new();
        let complete = loop {
            if let Some(took) = full.look("every copy to be complete", || self.watch.is_full(victim))? {
                break took;
            }
            node_mut(self.broker, victim)?.check_alive()?;
            self.write()?;
        };
        let (settled_s, complete_s) = (longest.as_secs_f64(), complete.as_secs_f64());
        Ok(Strike { role: aim.role, settled_s, failover_s, complete_s, was_controller, elections })
    }

    /// Goes on with a new partition, in which a node that is the active controller, or is not, has that role. Returns
    /// the node.
    fn place(&mut self, role: Role, is_controller: bool, number: usize) -> Result<i32> {
        let controller = self.watch.controller(None)?.id;
        let mut others: Vec<i32> =
            self.watch.nodes().keys().copied().filter(|id| *id != controller).collect();
        // Each of them in its turn.
        let turn = number / 2 % others.len().max(1);
        others.rotate_left(turn);
        let other = *others.first().context("a cluster has several nodes")?;
        let victim = if is_controller { controller } else { other };
        let leader = match role {
            Role::Leader => victim,
            Role::Follower if is_controller => other,
            Role::Follower => controller,
        };
        let mut replicas = vec![leader];
        replicas.extend(self.watch.nodes().keys().copied().filter(|id| *id != leader));
        replicas.truncate(self.broker.replicas());
        if !replicas.contains(&victim) {
            replicas.pop();
            replicas.push(victim);
        }
        let topic = topic("failover");
        Admin::connect(self.broker.address()?)?.create_topic_on(&topic, &replicas)?;
        self.watch = Watch::new(self.broker, vec![topic.clone()]);
        let writer = Writer::new(&topic, 0, self.watch.nodes().clone())?;
        self.done.push(std::mem::replace(&mut self.writer, writer));
        Ok(victim)
    }

    /// A write, and the rest of its interval. Returns how long the write took.
    fn write(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.writer.write()?;
        let took = began.elapsed();
        std::thread::sleep(Duration::from_secs_f64(1.0 / self.plan.rate).saturating_sub(took));
        Ok(took)
    }
}

fn figures(found: &mut Finding, harm: Harm, strikes: &[Strike]) {
    let name = harm.name();
    for role in [Role::Leader, Role::Follower] {
        let of = |filter: fn(&Strike) -> bool| -> Vec<f64> {
            let those = strikes.iter().filter(|strike| strike.role == role && filter(strike));
            those.map(|strike| strike.failover_s * 1e3).collect()
        };
        let (all, of_controllers) = (of(|_| true), of(|strike| strike.was_controller));
        if all.is_empty() {
            continue;
        }
        let whose = if role == Role::Leader { "" } else { " of a follower" };
        let after = if role == Role::Leader { "" } else { ", a follower" };
        found.count(&format!("{name}s{whose}"), all.len() as u64);
        found.percentiles(&format!("until the next write{after}"), &Percentiles::of(all.clone()), "ms");
        found.count(&format!("{name}s{whose} of the active controller too"), of_controllers.len() as u64);
        found.percentiles(&format!("of those{after}"), &Percentiles::of(of_controllers), "ms");
        let of_others = of(|strike| !strike.was_controller);
        found.percentiles(&format!("of the others{after}"), &Percentiles::of(of_others), "ms");
        let series = if role == Role::Leader { "failover_ms" } else { "follower_failover_ms" };
        found.series(series, all);
    }
    let complete: Vec<f64> = strikes.iter().map(|strike| strike.complete_s).collect();
    let from = format!("from the {} until every copy is complete", harm.mended());
    found.percentiles(&from, &Percentiles::of(complete), "s");
    let settled = strikes.iter().map(|strike| strike.settled_s * 1e3).collect();
    found.percentiles(
        "longest write of each time before, every copy complete",
        &Percentiles::of(settled),
        "ms",
    );
}
