//! A seeded random walk over everything that is asked of the controller of a cluster, with what must always be true
//! checked on every Image: of one Image, and of one after another.
//!
//! `has` follows for every partition who has all that may have been committed: the ISR whenever it is large enough
//! to commit, and who was in it since. Who is elected cleanly is one of them. `WALKS` sets how many walks there are.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::super::request::{ConfigChanges, ConfigOp, FeatureUpdate, MorePartitions, TopicRef};
use super::*;

/// Node ids of brokers; 0 is in the controller's process.
const BROKERS: i32 = 5;
const STEPS: usize = 160;

fn directory(broker: i32, number: u32) -> Uuid {
    Uuid::from_u128(0x1_0000 * (broker as u128 + 1) + u128::from(number))
}

struct Walk {
    node: Node,
    rng: fastrand::Rng,
    life: u128,
    seen: Arc<Image>,
    has: BTreeMap<(Uuid, i32), BTreeSet<i32>>,
    /// A broker that has just registered without having stopped in order.
    lost: Option<i32>,
    steps: Vec<String>,
}

#[test]
fn a_walk_over_all_requests_breaks_no_invariant() {
    let walks = std::env::var("WALKS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    for seed in 0..walks {
        let walked = std::panic::catch_unwind(|| {
            let mut walk = Walk::begin(seed);
            for _ in 0..STEPS {
                walk.step();
            }
        });
        assert!(walked.is_ok(), "seed {seed}");
    }
}

impl Walk {
    fn begin(seed: u64) -> Self {
        let mut node = Node::start(Disk::default(), seed);
        node.peers = true;
        node.run(1000);
        let seen = Arc::clone(&node.image);
        let rng = fastrand::Rng::with_seed(seed);
        let mut walk = Self { node, rng, life: 1, seen, has: BTreeMap::new(), lost: None, steps: Vec::new() };
        if walk.rng.bool() {
            walk.eligible();
        }
        for broker in 0..BROKERS {
            walk.register(broker, false);
            walk.beat(broker, true);
        }
        walk
    }

    fn step(&mut self) {
        let broker = self.rng.i32(0..BROKERS);
        let (in_order, serves) = (self.rng.bool(), self.rng.u32(0..8) > 0);
        match self.rng.u32(0..100) {
            0..12 => self.register(broker, in_order),
            12..36 => self.beat(broker, serves),
            36..40 => self.gone(broker),
            40..44 => self.assign(),
            44..50 => self.pass(),
            50..56 => self.make_topic(),
            56..58 => self.remove_topic(),
            58..78 => self.alter_isr(),
            78..82 => self.elect(),
            82..90 => self.reassign(),
            90..94 => self.configure(),
            94..96 => self.eligible(),
            96..98 => self.more_partitions(),
            98 => self.restart(),
            _ => {
                self.ask("unregister", ControllerRequest::UnregisterBroker { node_id: broker });
            }
        }
    }

    fn ask(&mut self, what: &str, request: ControllerRequest) -> ControllerAnswer {
        self.steps.push(format!("{what}: {request:?}"));
        let answer = self.node.call(request);
        self.look();
        answer
    }

    /// Looks at every Image that was published since the last look.
    fn look(&mut self) {
        for image in std::mem::take(&mut self.node.images) {
            let before = std::mem::replace(&mut self.seen, Arc::clone(&image));
            self.check(&before, &image);
        }
        self.lost = None;
    }

    fn check(&mut self, before: &Image, now: &Image) {
        let eligible = now.feature(features::ELIGIBLE_LEADER_REPLICAS_VERSION) > 0;
        if let Some(lost) = self.lost.filter(|lost| eligible && !now.is_active(*lost)) {
            self.has.values_mut().for_each(|has| has.retain(|node| *node != lost));
        }
        self.has.retain(|(topic, index), _| now.partition(*topic, *index).is_some());
        let least = |topic| {
            let name = &now.topic_by_id(topic).unwrap().name;
            let key = "min.insync.replicas";
            let own = now.config(ResourceType::Topic, name, key);
            let least = own.or_else(|| now.config(ResourceType::Broker, "", key));
            least.map_or(1, |text| text.parse::<usize>().unwrap())
        };
        for (topic, index, one) in now.partitions() {
            let steps = self.steps.len().saturating_sub(12);
            let said = || format!("{index}: {one:?}\n{}", self.steps[steps..].join("\n"));
            one.check(topic, index).unwrap();
            let in_order = |ids: &[i32]| ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
            let lists = [&one.replicas, &one.isr, &one.elr, &one.adding, &one.removing];
            assert!(lists.iter().all(|ids| in_order(ids)), "{}", said());
            let may_lead = |node: i32| now.may_lead(node, one.directory_of(node));
            assert!(one.leader == -1 || may_lead(one.leader), "led by who may not lead: {}", said());
            let could = |node: &&i32| may_lead(**node);
            let idle = one.isr.iter().chain(&one.elr).find(could);
            assert!(one.leader != -1 || idle.is_none(), "nobody leads but somebody could: {}", said());
            // One that is in sync may go again only when the move by which it came is done.
            let comes = |node: &&i32| one.adding.contains(node);
            let own = one.replicas.iter().filter(|node| !comes(node)).count();
            assert!(own > 0, "a cancelled move leaves nobody: {}", said());
            let goes = |node: &i32| one.removing.contains(node);
            let holders = |nodes: &[i32]| {
                nodes.iter().filter(|node| one.isr.contains(node) || one.elr.contains(node)).count()
            };
            let stay: Vec<i32> = one.replicas.iter().copied().filter(|node| !goes(node)).collect();
            let needed = least(topic).min(stay.len()).min(holders(&one.replicas));
            let waits = one.isr.iter().all(goes)
                || one.adding.iter().any(|node| !goes(node) && !one.isr.contains(node))
                || holders(&stay) < needed;
            // A leader that was elected from outside the ISR is alone in it, and an ISR that was given back to a
            // partition without a leader is not looked at: the next change completes the move.
            let is_later = one.isr.len() == 1 || one.leader == -1;
            assert!(!one.is_reassigning() || waits || is_later, "it has moved: {}", said());
            if let Some(then) = before.partition(topic, index) {
                let is_led_anew = one.leader != then.leader;
                assert_eq!(one == then, one.partition_epoch == then.partition_epoch, "{}", said());
                assert!(one.leader_epoch >= then.leader_epoch + i32::from(is_led_anew), "{}", said());
            }
            let has = self.has.entry((topic, index)).or_insert_with(|| one.isr.iter().copied().collect());
            let is_new =
                before.partition(topic, index).is_none_or(|then| then.leader_epoch != one.leader_epoch);
            if is_new && one.leader != -1 {
                if one.recovery == LeaderRecovery::Recovering {
                    *has = BTreeSet::from([one.leader]);
                }
                assert!(has.contains(&one.leader), "elected without what was committed: {has:?} {}", said());
            }
            if one.leader != -1 && one.isr.len() >= least(topic).min(one.replicas.len()) {
                has.clear();
            }
            has.extend(&one.isr);
        }
    }

    fn register(&mut self, broker: i32, in_order: bool) {
        self.life += 1;
        let known = self.node.image.broker(broker).map_or(-1, |known| known.epoch);
        let mut request = registration(broker, self.life);
        if let ControllerRequest::RegisterBroker { previous_epoch, directories, rack, .. } = &mut request {
            *previous_epoch = if in_order { known } else { -1 };
            *directories = vec![directory(broker, 0), directory(broker, 1)];
            // One may be missing; both may be others than before.
            match self.rng.u32(0..6) {
                0 => drop(directories.pop()),
                1 => drop(directories.remove(0)),
                2 => directories.push(Uuid::from_u128(self.life << 32)),
                _ => {}
            }
            *rack = Some(["a", "b"][broker as usize % 2].into());
        }
        self.steps.push(format!("a broker registers: {request:?}"));
        let is_taken = matches!(self.node.call(request), ControllerAnswer::Registered { .. });
        self.lost = Some(broker).filter(|_| is_taken && (!in_order || known == -1));
        self.look();
    }

    fn beat(&mut self, broker: i32, serves: bool) {
        let epoch = self.node.image.broker(broker).map_or(5, |known| known.epoch);
        let request = ControllerRequest::Heartbeat {
            node_id: broker,
            epoch: epoch - i64::from(self.rng.u32(0..20) == 0),
            applied_version: if self.rng.u32(0..5) > 0 { self.node.image.version() } else { 1 },
            wants_fence: !serves && self.rng.bool(),
            wants_shutdown: !serves && self.rng.bool(),
            offline_directories: (0..2)
                .filter(|_| self.rng.u32(0..12) == 0)
                .map(|number| directory(broker, number))
                .collect(),
        };
        self.ask("a heartbeat", request);
    }

    fn assign(&mut self) {
        let Some((name, index)) = self.some_partition() else { return };
        let image = Arc::clone(&self.node.image);
        let topic = image.topic(&name).unwrap();
        let replicas = &topic.partitions[index as usize].replicas;
        let broker = replicas[self.rng.usize(..replicas.len())];
        let number = self.rng.u32(0..8);
        let id = if number == 7 { directories::LOST } else { directory(broker, number % 2) };
        let request = ControllerRequest::AssignReplicas {
            node_id: broker,
            epoch: image.broker(broker).map_or(5, |known| known.epoch),
            assignments: vec![(topic.id, index, id)],
        };
        self.ask("a directory", request);
    }

    fn gone(&mut self, broker: i32) {
        let Some(known) = self.node.image.broker(broker) else { return };
        let incarnation = known.incarnation;
        self.steps.push(format!("broker {broker} is gone"));
        self.node.give(Input::BrokerGone { node_id: broker, incarnation });
        self.node.run(1000);
        self.look();
    }

    fn pass(&mut self) {
        self.steps.push("time passes".into());
        for _ in 0..self.rng.u32(1..8) {
            self.node.now_ms += 1000;
            self.node.give(Input::Tick);
            self.node.run(1000);
        }
        if self.rng.u32(0..4) == 0 {
            self.node.now_ms += 300_000;
            self.node.give(Input::Tick);
            self.node.run(1000);
            let could_lead = |one: &PartitionImage| {
                let first = one.preferred_leader();
                let may_lead = self.node.image.may_lead(first, one.directory_of(first));
                one.leader != -1 && one.isr.contains(&first) && may_lead
            };
            for (topic, index, one) in self.node.image.partitions().filter(|(_, _, one)| could_lead(one)) {
                assert_eq!(
                    one.leader,
                    one.preferred_leader(),
                    "leads again after the interval: {topic} {index}"
                );
            }
        }
        self.look();
    }

    fn make_topic(&mut self) {
        if self.node.image.topic_count() < 6 {
            let name = format!("t{}", self.rng.u32(0..9));
            let (partitions, factor) = (self.rng.i32(1..4), self.rng.i16(1..4));
            self.ask("a topic", create(vec![new_topic(&name, partitions, factor)]));
        }
    }

    fn remove_topic(&mut self) {
        let Some((name, _)) = self.some_partition() else { return };
        let topics = vec![TopicRef { name: Some(name), ..TopicRef::default() }];
        self.ask("a topic goes", ControllerRequest::DeleteTopics { topics });
    }

    fn more_partitions(&mut self) {
        let Some((name, _)) = self.some_partition() else { return };
        let count = self.node.image.topic(&name).unwrap().partitions.len() as i32 + 1;
        let topics = vec![MorePartitions { name, count, assignments: None }];
        self.ask("more", ControllerRequest::CreatePartitions { topics, validate_only: false });
    }

    fn some_partition(&mut self) -> Option<(String, i32)> {
        let image = Arc::clone(&self.node.image);
        let all: Vec<_> = image.partitions().collect();
        let (topic, index, _) = all.get(self.rng.usize(..all.len().max(1)))?;
        Some((image.topic_by_id(*topic)?.name.to_string(), *index))
    }

    fn alter_isr(&mut self) {
        let Some((name, index)) = self.some_partition() else { return };
        let image = Arc::clone(&self.node.image);
        let topic = image.topic(&name).unwrap();
        let one = &topic.partitions[index as usize];
        let Some(leader) = image.broker(one.leader) else { return };
        let wild = self.rng.u32(0..10) == 0;
        let in_sync = |walk: &mut Self, node: &i32| {
            *node == one.leader || walk.rng.u32(0..3) > 0 && (wild || image.is_active(*node))
        };
        let isr: Vec<i32> = one.replicas.iter().copied().filter(|node| in_sync(self, node)).collect();
        let change = IsrChange {
            leader_epoch: one.leader_epoch,
            partition_epoch: one.partition_epoch - i32::from(self.rng.u32(0..20) == 0),
            isr: isr
                .iter()
                .map(|node| (*node, image.broker(*node).map_or(-1, |known| known.epoch)))
                .collect(),
            recovery: if wild { one.recovery } else { LeaderRecovery::Recovered },
        };
        let changes = vec![(topic.id, index, change)];
        let request = ControllerRequest::AlterPartition { node_id: one.leader, epoch: leader.epoch, changes };
        self.steps.push(format!("another ISR: {request:?}"));
        let answer = self.node.call(request);
        let is_done = |code: Option<&ErrorCode>| code.is_none_or(|code| *code == ErrorCode::NewLeaderElected);
        if let ControllerAnswer::Isr(Ok(told)) = answer
            && told.iter().all(|(_, _, result)| is_done(result.as_ref().err()))
            && let Some(has) = self.has.get_mut(&(topic.id, index))
        {
            // The leader has seen them catch up, also if the change has another leader at once.
            has.extend(isr);
        }
        self.look();
    }

    fn elect(&mut self) {
        let kind = if self.rng.u32(0..4) > 0 { ElectionKind::Preferred } else { ElectionKind::Unclean };
        let partitions = if self.rng.bool() { self.some_partition().map(|one| vec![one]) } else { None };
        self.ask("an election", ControllerRequest::ElectLeaders { partitions, kind });
    }

    fn reassign(&mut self) {
        let Some((name, index)) = self.some_partition() else { return };
        let mut brokers: Vec<i32> = (0..BROKERS).collect();
        self.rng.shuffle(&mut brokers);
        brokers.truncate(self.rng.usize(1..4));
        let replicas = (self.rng.u32(0..3) > 0).then_some(brokers);
        let request = ControllerRequest::AlterReassignments {
            changes: vec![(name, index, replicas)],
            allow_replication_factor_change: self.rng.u32(0..4) > 0,
        };
        self.ask("a move", request);
    }

    fn configure(&mut self) {
        let Some((name, _)) = self.some_partition() else { return };
        let (key, value) = match self.rng.u32(0..4) {
            0 => ("unclean.leader.election.enable", "true"),
            1 => ("unclean.leader.election.enable", "false"),
            2 => ("min.insync.replicas", "1"),
            _ => ("min.insync.replicas", "2"),
        };
        let (resource_type, name) =
            if self.rng.bool() { (ResourceType::Topic, name) } else { (ResourceType::Broker, String::new()) };
        let changes = vec![(key.to_string(), ConfigOp::Set(value.into()))];
        let resources = vec![ConfigChanges { resource_type, name, changes, replace: false }];
        self.ask("a configuration", ControllerRequest::AlterConfigs { resources, validate_only: false });
    }

    fn eligible(&mut self) {
        let name = features::ELIGIBLE_LEADER_REPLICAS_VERSION.to_string();
        let level = self.rng.i16(0..2);
        let updates = vec![FeatureUpdate { name, level, upgrade_type: 3 }];
        self.ask("a feature", ControllerRequest::UpdateFeatures { updates, validate_only: false });
    }

    fn restart(&mut self) {
        self.steps.push("the controller starts again".into());
        let mut disk = std::mem::take(&mut self.node.disk);
        disk.crash(0);
        let now_ms = self.node.now_ms;
        self.node = Node::start(disk, self.rng.u64(..));
        (self.node.peers, self.node.now_ms) = (true, now_ms);
        self.node.run(1000);
        // What it publishes first is what was, one entry after another.
        self.node.images.clear();
        assert_eq!(self.node.image.to_records(), self.seen.to_records());
    }
}
