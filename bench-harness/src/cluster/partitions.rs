//! Many partitions: the brokers' CPU while nobody asks anything, the active controller killed again and again until
//! another one serves a change of the metadata, and how long a node that comes back needs to have all of its copies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::outcome::{Finding, Percentiles};
use super::stillness::Stillness;
use super::watch::{Wait, Watch};
use super::{node_mut, topic};
use crate::admin::{Admin, TOPIC_ALREADY_EXISTS};
use crate::broker::{Broker, Stop};
use crate::host;

/// Partitions of a topic: Kafka's controller makes so many in one request.
const EACH_TOPIC: usize = 1000;
/// A survivor is asked again after this pause.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A controller that does not serve within this time has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Partitions of all topics together.
    pub partitions: usize,
    /// How many controllers are killed.
    pub kills: usize,
    /// How long the nodes are looked at while nobody asks anything, once they are at rest.
    pub rest: Duration,
    /// When they are.
    pub stillness: Stillness,
}

/// Seconds that one kill took.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// Until a topic was made through another node.
    served_s: f64,
    /// Until another node saw every partition led elsewhere.
    left_s: f64,
    /// From the restart until every copy of every partition was complete.
    complete_s: f64,
}

/// Makes the topics, looks at the nodes at rest, and kills controllers.
pub fn run(broker: &mut Broker, plan: Plan) -> Result<Finding> {
    let (name, replicas) = (topic("partitions"), broker.replicas());
    let mut sizes = vec![EACH_TOPIC; plan.partitions / EACH_TOPIC];
    sizes.extend(Some(plan.partitions % EACH_TOPIC).filter(|rest| *rest > 0));
    let began = Instant::now();
    let mut topics = Vec::new();
    for (count, number) in sizes.iter().zip(0..) {
        let topic = format!("{name}-{number}");
        Admin::connect(broker.address()?)?.create_topic(&topic, *count, replicas, &[])?;
        topics.push(topic);
    }
    let watch = Watch::new(broker, topics);
    let mut found = Finding::new(broker.name);
    found.count("partitions", plan.partitions as u64);
    found.figure("topics made in", began.elapsed().as_secs_f64(), "s");
    rest(broker, &plan, &mut found)?;
    let mut kills = Vec::new();
    for number in 0..plan.kills {
        let kill = kill(broker, &watch, &format!("{name}-after-{number}"))?;
        eprintln!("controller {} of {}: {kill:?}", number + 1, plan.kills);
        kills.push(kill);
    }
    let of = |value: fn(&Kill) -> f64| kills.iter().map(value).collect::<Vec<f64>>();
    found.count("kills of the active controller", plan.kills as u64);
    let served = of(|kill| kill.served_s);
    found.percentiles("until a topic is made through another node", &Percentiles::of(served.clone()), "s");
    found.percentiles("until all is led elsewhere", &Percentiles::of(of(|kill| kill.left_s)), "s");
    let complete = of(|kill| kill.complete_s);
    found.percentiles(
        "from the restart until every copy is complete",
        &Percentiles::of(complete.clone()),
        "s",
    );
    found.series("served_s", served);
    found.series("complete_s", complete);
    Ok(found)
}

/// The CPU and the memory of each node while nobody asks anything.
fn rest(broker: &Broker, plan: &Plan, found: &mut Finding) -> Result<()> {
    let rested = plan.stillness.wait(broker)?;
    eprintln!("at rest {:.0} s after the topics were there", rested.as_secs_f64());
    found.figure("from the topics to rest", rested.as_secs_f64(), "s");
    let began = Instant::now();
    let mut before = Vec::new();
    for node in &broker.nodes {
        let pid = node.pid().context("the node runs")?;
        before.push((node.id, pid, host::cpu_time(pid)?));
    }
    std::thread::sleep(plan.rest);
    for (id, pid, before) in before {
        let used = host::cpu_time(pid)?.saturating_sub(before).as_secs_f64();
        let share = used / began.elapsed().as_secs_f64() * 100.0;
        found.figure(&format!("node {id} at rest"), share, "% of a core");
    }
    found.figure("resident, all nodes", broker.resident_bytes() as f64 / 1e6, "MB");
    Ok(())
}

fn kill(broker: &mut Broker, watch: &Watch, topic: &str) -> Result<Kill> {
    let victim = watch.controller(None)?.id;
    let replicas = broker.replicas().min(broker.nodes.len() - 1);
    let killed = Instant::now();
    node_mut(broker, victim)?.kill()?;
    let served_s = loop {
        let asked =
            watch.other_than(Some(victim)).and_then(|mut admin| admin.try_create(topic, 1, replicas, &[]));
        match asked {
            Ok(0 | TOPIC_ALREADY_EXISTS) => break killed.elapsed().as_secs_f64(),
            Ok(error) => ensure!(killed.elapsed() < PATIENCE, "CreateTopics answers with error {error}"),
            Err(error) => ensure!(killed.elapsed() < PATIENCE, "nobody makes a topic: {error:#}"),
        }
        ensure!(!host::interrupted(), "interrupted");
        std::thread::sleep(RETRY_PAUSE);
    };
    eprintln!("node {victim} killed, a topic made {served_s:.2} s later");
    Wait::new().until("the dead node to leave", || watch.has_left(victim))?;
    let left_s = killed.elapsed().as_secs_f64();
    let node = node_mut(broker, victim)?;
    node.stop(Stop::Clean)?;
    node.launch()?;
    let complete = Wait::new().until("every copy to be complete", || watch.is_full(victim));
    broker.check_alive()?;
    Ok(Kill { served_s, left_s, complete_s: complete?.as_secs_f64() })
}
