//! What goes wrong and when: crashes, power cuts, full devices, jumping clocks, pauses, cuts of the network. Each fault
//! counts what it hit: one that never does proves nothing.

use std::collections::BTreeMap;
use std::fmt;

use crate::connections::Caller;
use crate::history::Place;
use crate::world::{Due, Event, Phase, World, draw};

/// What can go wrong, by what it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process died.
    Crash,
    /// A process died inside its start.
    CrashInStart,
    /// The power failed under unsynced bytes.
    PowerCut,
    /// A process was stopped cleanly in the middle of everything.
    CleanStop,
    /// An operation found the device full.
    Full,
    /// An operation failed with EIO.
    Eio,
    /// An append was written in part.
    ShortAppend,
    /// A client did not read its answers for a while.
    SlowReader,
    /// A connection broke, and what was on its way was lost.
    ResetBefore,
    /// A connection broke behind everything that was on its way.
    ResetAfter,
    /// A wall clock jumped under a running process.
    ClockJump,
    /// A turn waited because its process was paused.
    Pause,
    /// Something met a cut of every way to and from a machine.
    Isolation,
    /// Something met a cut of the ways from a machine.
    CutOutward,
    /// Something met a cut of the ways to a machine.
    CutInward,
    /// Something met a cut between two sites, one way or both.
    CutPair,
    /// Something met a cut between two halves.
    Split,
    /// Something met a cut between clients and machines.
    CutClients,
    /// Something took many times longer.
    SlowWay,
    /// A machine dialed another one where nobody listened.
    RefusedDial,
    /// A machine came back with empty disks.
    LostDisk,
    /// Leaders were elected because somebody asked for it.
    Election,
    /// Replicas were to be elsewhere, or a move was taken back.
    Reassignment,
    /// Records were deleted in a cluster.
    Deletion,
    /// A consumer read from another replica than the leader.
    NearerRead,
    /// The rate of a broker's replication was limited.
    Throttle,
    /// Power failed where nothing is synced before it is acknowledged.
    UnsyncedPowerCut,
    /// A process began whose clocks run too fast or too slow.
    Drift,
    /// Another disk votes in the metadata quorum.
    VoterAdded,
    /// A disk does not vote in the metadata quorum any more.
    VoterRemoved,
    /// A leader died soon after it was elected, and the one before it had heard nothing of it.
    Overthrow,
    /// A topic got more partitions.
    MorePartitions,
    /// A topic of a cluster was deleted.
    TopicDeleted,
    /// A broker was forgotten that was not gone.
    Unregistration,
    /// A replica leads that was not in sync.
    UncleanElection,
}

impl Fault {
    /// Those that hit brokers which do not know each other: whose disk is lost has nobody who would know what it held.
    pub const OF_STRANGERS: [Self; 20] = [
        Self::Crash,
        Self::CrashInStart,
        Self::PowerCut,
        Self::CleanStop,
        Self::Full,
        Self::Eio,
        Self::ShortAppend,
        Self::SlowReader,
        Self::ResetBefore,
        Self::ResetAfter,
        Self::ClockJump,
        Self::Pause,
        Self::Isolation,
        Self::CutOutward,
        Self::CutInward,
        Self::CutPair,
        Self::Split,
        Self::CutClients,
        Self::SlowWay,
        Self::RefusedDial,
    ];

    /// What only brokers have that are one cluster.
    pub const OF_LINKED: [Self; 15] = [
        Self::LostDisk,
        Self::Election,
        Self::Reassignment,
        Self::Deletion,
        Self::NearerRead,
        Self::Throttle,
        Self::UnsyncedPowerCut,
        Self::Drift,
        Self::VoterAdded,
        Self::VoterRemoved,
        Self::Overthrow,
        Self::MorePartitions,
        Self::TopicDeleted,
        Self::Unregistration,
        Self::UncleanElection,
    ];
}

/// How often each fault hit something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    counts: BTreeMap<Fault, u64>,
}

impl Hits {
    /// A fault hit something.
    pub fn count(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
    }

    /// How often it did.
    pub fn of(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.counts {
            *self.counts.entry(*fault).or_default() += count;
        }
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            self.counts.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}

impl World {
    /// Draws when each fault comes for the first time.
    pub fn plan_faults(&mut self) {
        let all = [Due::Crash, Due::Drop, Due::Full, Due::Jump, Due::Cut, Due::Slow, Due::Pause, Due::Reset];
        all.into_iter().for_each(|due| self.fault_later(due));
    }

    fn fault_later(&mut self, due: Due) {
        let plan = &self.plan;
        let every_ms = match due {
            Due::Crash => plan.crash_every_ms,
            Due::Drop => plan.drop_every_ms,
            Due::Full => plan.full_every_ms,
            Due::Jump if plan.clock_jumps => 2000,
            Due::Jump => 0,
            Due::Cut => plan.cut_every_ms,
            Due::Slow => plan.slow_every_ms,
            Due::Pause => plan.pause_every_ms,
            Due::Reset => plan.reset_every_ms,
        };
        if every_ms > 0 {
            let us = draw(every_ms * 1000, &mut self.random.faults);
            self.after(us, Event::Due(due));
        }
    }

    /// It is time for a fault, and for drawing when the next one comes. A fault that is to be left out changes nothing
    /// but the number of the next one.
    pub fn fault_due(&mut self, due: Due) {
        self.faults_made += 1;
        if !self.plan.skipped.contains(&self.faults_made) {
            match due {
                Due::Crash => self.crash_or_stop(),
                Due::Drop => self.drop_connection(),
                Due::Full => self.fill_device(),
                Due::Jump => self.jump(),
                Due::Cut => self.cut_ways(),
                Due::Slow => self.slow_ways(),
                Due::Pause => self.pause(),
                Due::Reset => self.reset_link(),
            }
        }
        self.fault_later(due);
    }

    /// A machine for a fault.
    fn victim(&mut self) -> usize {
        match self.machines.len() {
            1 => 0,
            several => self.random.faults.usize(0..several),
        }
    }

    /// Faults are over: what still lasts ends.
    pub fn end_faults(&mut self) {
        for machine in &mut self.machines {
            machine.full_until_us.fill(0);
            machine.paused_until_us = 0;
        }
        self.network.heal();
    }

    fn fill_device(&mut self) {
        let machine = self.victim();
        let directory = self.random.faults.usize(0..self.plan.directories);
        let until_us = self.now_us + self.random.faults.u64(1_000..1_500_000);
        self.machines[machine].full_until_us[directory] = until_us;
        self.note(machine, 20, [until_us, directory as u64], || {
            format!("device {directory} is full until {until_us} us")
        });
    }

    fn jump(&mut self) {
        let machine = self.victim();
        let ms = self.random.faults.i64(-3_000..3_000);
        let at = &mut self.machines[machine];
        at.clock.wall_offset_ms += ms;
        if at.node.is_some() {
            self.hits.count(Fault::ClockJump);
        }
    }

    fn cut_ways(&mut self) {
        let until_us = self.until_us(self.plan.cut_ms);
        let fault = self.network.cut_some(until_us, &mut self.random.faults);
        self.trace
            .note(self.now_us, 30, [until_us, fault as u64], || format!("{fault:?} until {until_us} us"));
        // Some of those who wait lose patience; the other end does not hear of it before the cut has healed.
        for client in 0..self.seats.len() {
            let Some((id, machine)) = self.seats[client].connection else { continue };
            let here = self.network.site_of_client(client);
            let cut = self.network.cut_until(here, machine, self.now_us).is_some()
                || self.network.cut_until(machine, here, self.now_us).is_some();
            if cut && self.random.faults.u8(0..3) == 0 {
                let us = self.random.faults.u64(100_000..1_500_000);
                let caller = Caller::Client(client);
                self.after(us, Event::ToClient { connection: id, caller, bytes: None });
            }
        }
    }

    fn slow_ways(&mut self) {
        let machine = self.victim();
        let until_us = self.until_us(self.plan.cut_ms);
        let factor = self.random.faults.u64(2..30);
        self.network.slow(machine, factor, until_us);
        self.note(machine, 31, [until_us, factor], || format!("{factor} times as far until {until_us} us"));
    }

    fn pause(&mut self) {
        let machine = self.victim();
        let until_us = self.until_us(self.plan.pause_ms);
        self.machines[machine].paused_until_us = until_us;
        self.note(machine, 32, [until_us, 0], || format!("paused until {until_us} us"));
    }

    /// Preferred leaders are about to be elected. One that leads now hears nothing of the one who comes next, or is not
    /// heard by him, and he dies: both have records of their own, in an epoch each, and the first may lead again.
    pub fn overthrow(&mut self) {
        if self.is_calm() {
            return;
        }
        self.faults_made += 1;
        if self.plan.skipped.contains(&self.faults_made) {
            return;
        }
        let Some(image) = self.newest_image() else { return };
        let changes = image.partitions().map(|(topic, index, partition)| {
            ((topic, index), partition.leader, partition.preferred_leader(), partition.isr.as_slice())
        });
        let due =
            |(_, now, next, isr): &(Place, i32, i32, &[i32])| *now >= 0 && now != next && isr.contains(next);
        let due: Vec<(Place, i32, i32)> =
            changes.filter(due).map(|(place, now, next, _)| (place, now, next)).collect();
        let Some((place, now, next)) = self.random.faults.choice(&due).copied() else { return };
        let (now, next) = (self.plan.machine_of(now), self.plan.machine_of(next));
        let until_us = self.until_us(3_000);
        let pair = if self.random.faults.bool() { (now, next) } else { (next, now) };
        self.network.cut_pair(pair, self.random.faults.bool(), until_us);
        self.note(now, 34, [until_us, next as u64], || {
            format!("nothing of {next} until {until_us} us: {place:?}")
        });
        let us = self.random.faults.u64(20_000..1_500_000);
        let incarnation = self.machines[next].incarnation;
        self.after(us, Event::Overthrow { machine: next, incarnation, place });
    }

    /// A process dies if it leads this partition.
    pub fn end_reign(&mut self, machine: usize, (topic, index): Place) {
        let node_id = self.plan.node_id_of(machine);
        let partition = self.newest_image().and_then(|image| image.partition(topic, index));
        if partition.is_none_or(|partition| partition.leader != node_id) {
            return;
        }
        let power = self.random.faults.f64() < self.plan.power_cuts;
        let before = self.crashes;
        self.crash(machine, power);
        if self.crashes > before {
            self.hits.count(Fault::Overthrow);
        }
    }

    /// Until when something lasts that begins now and lasts that long at most; not beyond the end of the faults.
    fn until_us(&mut self, ms_max: u64) -> u64 {
        let us = self.random.faults.u64(1_000..=ms_max.max(1) * 1_000);
        (self.now_us + us).min(self.plan.faulty_ms * 1000)
    }

    /// Everything not synced is at stake. `durable` says what the replicas claimed.
    pub fn cut_power(&mut self, machine: usize, durable: &[(Place, i64)]) {
        let cut = self.plan.cut;
        let at = &mut self.machines[machine];
        for disk in &mut at.disks {
            disk.cut_power(cut, &mut self.random.disk);
        }
        let cluster = at.cluster;
        at.power_was_cut = true;
        at.is_dark = true;
        at.boot_number += 1;
        let boot_number = at.boot_number;
        self.hits.count(Fault::PowerCut);
        self.lost_something(machine);
        // A cluster syncs before it acknowledges, or loses one machine at a time: nothing may be gone there.
        if !self.plan.linked {
            self.forget_unsynced(machine);
            self.histories[cluster].crashed(durable, true);
        }
        self.note(machine, 24, [boot_number, 0], || "the power is cut".into());
    }

    fn crash_or_stop(&mut self) {
        let machine = self.victim();
        if self.machines[machine].node.is_none() {
            return;
        }
        if self.random.faults.f64() < self.plan.clean_stops {
            self.hits.count(Fault::CleanStop);
            self.begin_stop(machine);
        } else {
            let power = self.random.faults.f64() < self.plan.power_cuts;
            self.crash(machine, power);
        }
    }

    /// The process dies, perhaps because the power does.
    pub fn crash(&mut self, machine: usize, power: bool) {
        if !self.may_crash(machine) {
            return;
        }
        let power = power && self.may_lose(machine);
        let Some(mut node) = self.machines[machine].node.take() else { return };
        self.crashes += 1;
        self.hits.count(Fault::Crash);
        self.note(machine, 25, [u64::from(power), 0], || "the process dies".into());
        let durable = node.durable();
        self.abandon_operations(&mut node);
        self.machines[machine].is_dark = power;
        self.machines[machine].paused_until_us = 0;
        self.drop_links(machine, node.incarnation);
        self.close_all(machine);
        if power {
            self.cut_power(machine, &durable);
            if self.plan.lost_disks > 0.0 && self.random.faults.f64() < self.plan.lost_disks {
                self.lose_disk(machine);
            }
        } else if !self.plan.linked {
            let cluster = self.machines[machine].cluster;
            self.histories[cluster].crashed(&durable, false);
        }
        let mut us = self.random.faults.u64(1_000..300_000);
        if self.plan.linked && !self.is_calm() && self.random.faults.u8(0..3) == 0 {
            us = self.random.faults.u64(1_000..=self.plan.cluster.away_ms * 1000);
        }
        self.after(us, Event::Boot { machine });
    }

    /// The node has stopped. If it could do so cleanly, everything is durable whatever happens to the power now.
    pub fn stopped(&mut self, machine: usize, cleanly: bool) {
        // A device that is full at the wrong moment gets no marker: what was not synced is at stake.
        let marked = self.machines[machine].disks.iter().all(|disk| disk.has(".kafka_cleanshutdown"));
        let fails = !marked && !self.is_calm() && self.random.faults.f64() < self.plan.power_cuts;
        if fails && self.may_lose(machine) {
            self.cut_power(machine, &[]);
        }
        let cleanly = cleanly && marked;
        self.note(machine, 26, [0, 0], || "stopped cleanly".into());
        let incarnation = self.machines[machine].incarnation;
        self.drop_links(machine, incarnation);
        self.close_all(machine);
        if cleanly && (self.phase == Phase::Stopping || self.random.faults.bool()) {
            let at = &mut self.machines[machine];
            for disk in &mut at.disks {
                disk.cut_power(self.plan.cut, &mut self.random.disk);
            }
            at.boot_number += 1;
        }
        self.machines[machine].has_stopped = true;
        if self.phase == Phase::Stopping && self.machines.iter().any(|other| other.node.is_some()) {
            // In the end nobody starts again before all have stopped.
            return;
        }
        for machine in 0..self.machines.len() {
            if std::mem::take(&mut self.machines[machine].has_stopped) {
                let us = self.random.faults.u64(1_000..300_000);
                self.after(us, Event::Boot { machine });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_by_kind_and_add_up() {
        let (mut hits, mut more) = (Hits::default(), Hits::default());
        hits.count(Fault::Crash);
        more.count(Fault::Crash);
        more.count(Fault::Split);
        hits.add(&more);
        assert_eq!((hits.of(Fault::Crash), hits.of(Fault::Split), hits.of(Fault::Eio)), (2, 1, 0));
        assert_eq!(hits.to_string(), "Crash 2, Split 1");
    }
}
