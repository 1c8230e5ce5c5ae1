//! The clients of a run: who they are, where they are connected, and what they want done.

use crate::admin::Admin;
use crate::client::{Action, Client, Stage};
use crate::consumer::Consumer;
use crate::consumer_member::ConsumerMember;
use crate::eraser::Eraser;
use crate::history::Kind;
use crate::hostile::Hostile;
use crate::machine::WALL_START_MS;
use crate::member::Member;
use crate::producer::{Producer, Work};
use crate::tuner::Tuner;
use crate::world::{Event, Phase, World};

/// A client of a cluster.
pub struct Seat {
    pub client: Box<dyn Client>,
    /// Which cluster it speaks to.
    pub cluster: usize,
    /// Its connection, and the machine that is at the other end.
    pub connection: Option<(u64, usize)>,
}

/// A topic: its partitions, whether it is synced before it acknowledges, whether it is deleted now and then.
pub type Topic = (i32, bool, bool);

impl World {
    /// Everyone who works with a cluster until the end.
    pub fn seat_clients(&mut self, cluster: usize, topics: &[Topic]) {
        if self.plan.linked {
            return self.seat_linked();
        }
        let plan = self.plan.clone();
        self.seat(cluster, Box::new(Admin::new(topics, plan.quick_churn, plan.more_partitions)));
        let all: Vec<(usize, i32)> = (0..topics.len())
            .flat_map(|topic| {
                let more = if topics[topic].2 { 0 } else { plan.more_partitions };
                (0..topics[topic].0 + more).map(move |partition| (topic, partition))
            })
            .collect();
        self.seat_producers(cluster, topics, &all);
        let lasting = (0..topics.len()).filter(|at| !topics[*at].2);
        if plan.tunes || plan.shortens.retains() {
            let tuned: Vec<String> = lasting.clone().map(|at| self.names[at].clone()).collect();
            self.seat(cluster, Box::new(Tuner::new(&tuned, &plan)));
        }
        if plan.shortens.by_request {
            self.seat(cluster, Box::new(Eraser::new(lasting.collect())));
        }
        for number in 0..plan.hostile {
            self.seat(cluster, Box::new(Hostile::new(number)));
        }
        self.seat_members(cluster);
        for number in 0..plan.consumers {
            let targets = self.some_of(&all);
            let consumer = self.with_stage(cluster, |stage| Consumer::new(number, targets, stage));
            self.seat(cluster, Box::new(consumer));
        }
    }

    /// Members of groups, by both protocols.
    pub fn seat_members(&mut self, cluster: usize) {
        let plan = self.plan.clone();
        let partitions = plan.topics[0].0;
        for number in 0..plan.members.0 {
            let group = format!("group-{}", number % plan.members.1);
            let member = self.with_stage(cluster, |stage| Member::new(number, group, partitions, stage));
            self.seat(cluster, Box::new(member));
        }
        let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x848_848);
        for number in 0..plan.consumer_members.0 {
            let group = format!("consumers-{}", number % plan.consumer_members.1);
            let member = ConsumerMember::new(number, group, partitions, &mut random);
            self.seat(cluster, Box::new(member));
        }
    }

    fn seat_producers(&mut self, cluster: usize, topics: &[Topic], all: &[(usize, i32)]) {
        let plan = self.plan.clone();
        let stable: Vec<(usize, i32)> = all.iter().copied().filter(|(topic, _)| !topics[*topic].2).collect();
        let kinds = [
            (Kind::Idempotent, plan.idempotent),
            (Kind::LeaderAcks, plan.leader_acks),
            (Kind::NoAcks, plan.no_acks),
        ];
        for (kind, count) in kinds {
            for _ in 0..count {
                let only_stable = kind == Kind::Idempotent && !plan.idempotent_churn;
                let targets = self.some_of(if only_stable { &stable } else { all });
                let work = Work {
                    records: plan.records,
                    pace: plan.pace,
                    give_up_us: plan.expiration_ms.map_or(u64::MAX, |ms| ms * 1000 / 3),
                };
                let producer = self.with_stage(cluster, |stage| Producer::new(kind, targets, work, stage));
                self.seat(cluster, Box::new(producer));
            }
        }
    }

    fn some_of(&mut self, from: &[(usize, i32)]) -> Vec<(usize, i32)> {
        let random = &mut self.random.clients;
        let mut chosen: Vec<_> = from.iter().copied().filter(|_| random.u8(0..3) > 0).collect();
        if chosen.is_empty() {
            chosen.push(*random.choice(from).expect("a topic has a partition"));
        }
        chosen
    }

    /// A client of a cluster takes its place.
    pub fn seat(&mut self, cluster: usize, client: Box<dyn Client>) {
        let number = self.seats.len();
        self.seats.push(Seat { client, cluster, connection: None });
        self.after(0, Event::Wake { client: number });
    }

    pub fn with_stage<T>(&mut self, cluster: usize, step: impl FnOnce(&mut Stage) -> T) -> T {
        let mut actions = Vec::new();
        let (mut stage, _) = self.stage(cluster, &mut actions);
        step(&mut stage)
    }

    /// What the clients of a cluster see now, and the clients.
    fn stage<'a>(
        &'a mut self,
        cluster: usize,
        actions: &'a mut Vec<Action>,
    ) -> (Stage<'a>, &'a mut Vec<Seat>) {
        let of_cluster = self.machines.iter().filter(|machine| machine.cluster == cluster);
        let brokers = of_cluster.clone().count();
        // What is synced before it is acknowledged survives on the others too.
        let power_was_cut = !self.plan.linked && of_cluster.clone().any(|machine| machine.power_was_cut);
        let stage = Stage {
            now_us: self.now_us,
            wall_ms: WALL_START_MS + (self.now_us / 1000) as i64,
            random: &mut self.random.clients,
            history: &mut self.histories[cluster],
            actions,
            names: &self.names,
            flushed: &self.flushed,
            lasting: self.plan.topics.len(),
            power_was_cut,
            calm: self.phase != Phase::Faulty,
            brokers,
            linked: self.plan.linked,
            disks: &self.disk_ids,
        };
        (stage, &mut self.seats)
    }

    /// Steps a client and carries out what it wants.
    pub fn step(&mut self, client: usize, step: impl FnOnce(&mut dyn Client, &mut Stage)) {
        let Some(cluster) = self.seats.get(client).map(|seat| seat.cluster) else { return };
        let mut actions = Vec::new();
        let (mut stage, seats) = self.stage(cluster, &mut actions);
        step(seats[client].client.as_mut(), &mut stage);
        for action in actions {
            self.act(client, action);
        }
    }

    fn act(&mut self, client: usize, action: Action) {
        match action {
            Action::Open => self.open(client),
            Action::OpenAt(node_id) => self.open_at(client, self.plan.machine_of(node_id)),
            Action::Send(bytes) => {
                let Some((id, _)) = self.seats[client].connection else { return };
                self.send_to_server(id, bytes);
            }
            Action::Close => {
                let Some((id, _)) = self.seats[client].connection.take() else { return };
                self.end_to_server(id, true);
            }
            Action::CutPower { after_us } if self.plan.power_cuts > 0.0 && !self.is_calm() => {
                let Some((_, machine)) = self.seats[client].connection else { return };
                let incarnation = self.machines[machine].incarnation;
                self.after(after_us, Event::Crash { machine, incarnation, power: true });
            }
            Action::CutPower { .. } => {}
            Action::Overthrow => self.overthrow(),
            Action::Hit(fault) => self.hits.count(fault),
            Action::WakeAt(at_us) => self.at(at_us, Event::Wake { client }),
        }
    }
}
