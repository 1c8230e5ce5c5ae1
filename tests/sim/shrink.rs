//! Makes a failed run smaller: fewer clients and kinds of faults, a shorter run, single faults left out. What is left
//! still fails in the same way, and the settings that make it are one line for a command.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Plan;

/// A number of a plan that can be made smaller.
struct Knob {
    name: &'static str,
    get: fn(&Plan) -> u64,
    set: fn(&mut Plan, u64),
    /// Nothing is less.
    least: u64,
    /// Between what it is and the least there is something to be had.
    is_gradual: bool,
}

/// A knob that is turned all the way or not at all.
const fn switch(name: &'static str, get: fn(&Plan) -> u64, set: fn(&mut Plan, u64), least: u64) -> Knob {
    Knob { name, get, set, least, is_gradual: false }
}

/// A knob that is turned as far as it goes.
const fn dial(name: &'static str, get: fn(&Plan) -> u64, set: fn(&mut Plan, u64), least: u64) -> Knob {
    Knob { name, get, set, least, is_gradual: true }
}

/// The knobs, those that save most first.
const KNOBS: [Knob; 43] = [
    dial("faulty_ms", |plan| plan.faulty_ms, |plan, n| plan.faulty_ms = n, 1),
    switch("machines", |plan| plan.machines as u64, |plan, n| plan.machines = n as usize, 1),
    switch("shards", |plan| plan.shards.into(), |plan, n| plan.shards = n as u16, 1),
    switch("directories", |plan| plan.directories as u64, |plan, n| plan.directories = n as usize, 1),
    switch("topics", |plan| plan.topics.len() as u64, |plan, n| plan.topics.truncate(n as usize), 1),
    switch("churn_topics", |plan| plan.churn_topics as u64, |plan, n| plan.churn_topics = n as usize, 0),
    switch(
        "more_partitions",
        |plan| plan.more_partitions as u64,
        |plan, n| plan.more_partitions = n as i32,
        0,
    ),
    switch("members", |plan| plan.members.0 as u64, |plan, n| plan.members.0 = n as usize, 0),
    switch(
        "consumer_members",
        |plan| plan.consumer_members.0 as u64,
        |plan, n| plan.consumer_members.0 = n as usize,
        0,
    ),
    dial("consumers", |plan| plan.consumers as u64, |plan, n| plan.consumers = n as usize, 0),
    dial("idempotent", |plan| plan.idempotent as u64, |plan, n| plan.idempotent = n as usize, 0),
    switch("leader_acks", |plan| plan.leader_acks as u64, |plan, n| plan.leader_acks = n as usize, 0),
    switch("no_acks", |plan| plan.no_acks as u64, |plan, n| plan.no_acks = n as usize, 0),
    switch("hostile", |plan| plan.hostile as u64, |plan, n| plan.hostile = n as usize, 0),
    switch("probes", |plan| plan.probes.into(), |plan, n| plan.probes = n > 0, 0),
    switch("tunes", |plan| plan.tunes.into(), |plan, n| plan.tunes = n > 0, 0),
    switch(
        "deletes_records",
        |plan| plan.shortens.by_request.into(),
        |plan, n| plan.shortens.by_request = n > 0,
        0,
    ),
    switch("retains_by_age", |plan| plan.shortens.by_age.into(), |plan, n| plan.shortens.by_age = n > 0, 0),
    switch("racks", |plan| plan.cluster.racks as u64, |plan, n| plan.cluster.racks = n as usize, 0),
    switch("throttles", |plan| plan.cluster.throttles.into(), |plan, n| plan.cluster.throttles = n > 0, 0),
    switch(
        "retains_by_size",
        |plan| plan.shortens.by_size.into(),
        |plan, n| plan.shortens.by_size = n > 0,
        0,
    ),
    switch(
        "moves",
        |plan| plan.moves.is_some().into(),
        |plan, n| plan.moves = plan.moves.filter(|_| n > 0),
        0,
    ),
    switch("crash_every_ms", |plan| plan.crash_every_ms, |plan, n| plan.crash_every_ms = n, 0),
    switch("drop_every_ms", |plan| plan.drop_every_ms, |plan, n| plan.drop_every_ms = n, 0),
    switch("full_every_ms", |plan| plan.full_every_ms, |plan, n| plan.full_every_ms = n, 0),
    switch("cut_every_ms", |plan| plan.cut_every_ms, |plan, n| plan.cut_every_ms = n, 0),
    switch("slow_every_ms", |plan| plan.slow_every_ms, |plan, n| plan.slow_every_ms = n, 0),
    switch("pause_every_ms", |plan| plan.pause_every_ms, |plan, n| plan.pause_every_ms = n, 0),
    switch("reset_every_ms", |plan| plan.reset_every_ms, |plan, n| plan.reset_every_ms = n, 0),
    switch(
        "moves_every_ms",
        |plan| plan.cluster.moves_every_ms,
        |plan, n| plan.cluster.moves_every_ms = n,
        0,
    ),
    switch("overthrows", |plan| plan.cluster.overthrows.into(), |plan, n| plan.cluster.overthrows = n > 0, 0),
    switch(
        "alters_every_ms",
        |plan| plan.cluster.alters_every_ms,
        |plan, n| plan.cluster.alters_every_ms = n,
        0,
    ),
    switch(
        "voters_every_ms",
        |plan| plan.cluster.voters_every_ms,
        |plan, n| plan.cluster.voters_every_ms = n,
        0,
    ),
    switch("clock_jumps", |plan| plan.clock_jumps.into(), |plan, n| plan.clock_jumps = n > 0, 0),
    switch("drift_ppm", |plan| plan.drift_ppm as u64, |plan, n| plan.drift_ppm = n as i64, 0),
    switch("power_cuts", |plan| (plan.power_cuts > 0.0).into(), |plan, n| plan.power_cuts *= n as f64, 0),
    switch("lost_disks", |plan| (plan.lost_disks > 0.0).into(), |plan, n| plan.lost_disks *= n as f64, 0),
    switch("clean_stops", |plan| (plan.clean_stops > 0.0).into(), |plan, n| plan.clean_stops *= n as f64, 0),
    switch(
        "short_appends",
        |plan| (plan.short_appends > 0.0).into(),
        |plan, n| plan.short_appends *= n as f64,
        0,
    ),
    switch("io_errors", |plan| (plan.io_errors > 0.0).into(), |plan, n| plan.io_errors *= n as f64, 0),
    switch(
        "slow_readers",
        |plan| (plan.slow_readers > 0.0).into(),
        |plan, n| plan.slow_readers *= n as f64,
        0,
    ),
    switch("preallocate", |plan| plan.preallocate.into(), |plan, n| plan.preallocate = n > 0, 0),
    dial("records", |plan| plan.records, |plan, n| plan.records = n, 1),
];

/// How a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In which virtual millisecond.
    pub at_ms: u64,
    /// Faults that were due until then.
    pub faults: u64,
}

/// What is set otherwise than the seed says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    numbers: BTreeMap<&'static str, u64>,
    skipped: BTreeSet<u64>,
}

impl Settings {
    /// Reads `name=number` and `skip=number+number`, with spaces between.
    ///
    /// # Panics
    /// If it is not that.
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("{word} is no name=number"));
            let numbers = value.split('+').map(|n| n.parse().unwrap_or_else(|_| panic!("{n} is no number")));
            if name == "skip" {
                settings.skipped.extend(numbers);
                continue;
            }
            let knob = KNOBS.iter().find(|knob| knob.name == name);
            let knob = knob.unwrap_or_else(|| panic!("{name} cannot be set"));
            settings.numbers.extend(numbers.map(|number| (knob.name, number)));
        }
        settings
    }

    /// The plan with them.
    pub fn apply(&self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        for knob in &KNOBS {
            if let Some(number) = self.numbers.get(knob.name) {
                (knob.set)(&mut plan, *number);
            }
        }
        plan.skipped.extend(&self.skipped);
        plan
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words: Vec<String> =
            self.numbers.iter().map(|(name, number)| format!("{name}={number}")).collect();
        if !self.skipped.is_empty() {
            let skipped: Vec<String> = self.skipped.iter().map(u64::to_string).collect();
            words.push(format!("skip={}", skipped.join("+")));
        }
        f.write_str(&words.join(" "))
    }
}

/// A search for the smallest settings with which a plan still fails.
struct Search<'a, F> {
    plan: &'a Plan,
    fails: F,
    best: Settings,
    failure: Failure,
    /// Runs that may still be made.
    left: u32,
}

impl<F: FnMut(&Plan) -> Option<Failure>> Search<'_, F> {
    /// Runs with these settings; they are the best if it fails.
    fn keep_if_fails(&mut self, settings: Settings) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let Some(failure) = (self.fails)(&settings.apply(self.plan)) else { return false };
        (self.best, self.failure) = (settings, failure);
        true
    }

    fn try_number(&mut self, knob: &Knob, number: u64) -> bool {
        let mut settings = self.best.clone();
        settings.numbers.insert(knob.name, number);
        self.keep_if_fails(settings)
    }

    fn turn(&mut self, knob: &Knob) {
        let is = (knob.get)(&self.best.apply(self.plan));
        if is <= knob.least || self.try_number(knob, knob.least) || !knob.is_gradual {
            return;
        }
        // It fails with `fails_at` and does not with `holds_at`.
        let (mut holds_at, mut fails_at) = (knob.least, is);
        while fails_at - holds_at > (fails_at / 8).max(1) {
            let between = holds_at + (fails_at - holds_at) / 2;
            if self.left == 0 {
                return;
            }
            if self.try_number(knob, between) {
                fails_at = between;
            } else {
                holds_at = between;
            }
        }
    }

    /// Leaves faults out, many at a time and then fewer.
    fn skip_faults(&mut self) {
        let mut size = self.failure.faults;
        while size > 0 {
            let mut first = 1;
            while first <= self.failure.faults {
                let mut settings = self.best.clone();
                settings.skipped.extend(first..(first + size).min(self.failure.faults + 1));
                if settings != self.best {
                    self.keep_if_fails(settings);
                }
                first += size;
            }
            size /= 2;
        }
        let faults = self.failure.faults;
        self.best.skipped.retain(|number| *number <= faults);
    }
}

/// The smallest settings found, in so many runs at most, with which the plan still fails; it failed as it is with
/// `failure`.
pub fn smallest(
    plan: &Plan,
    failure: Failure,
    runs: u32,
    fails: impl FnMut(&Plan) -> Option<Failure>,
) -> Settings {
    let mut search = Search { plan, fails, best: Settings::default(), failure, left: runs };
    // Faults that come after the failure did not make it.
    let [length, ..] = &KNOBS;
    if failure.at_ms + 1 < plan.faulty_ms {
        search.try_number(length, failure.at_ms + 1);
    }
    for _ in 0..2 {
        let before = search.best.clone();
        KNOBS.iter().skip(1).for_each(|knob| search.turn(knob));
        search.turn(length);
        if search.best == before {
            break;
        }
    }
    search.skip_faults();
    search.best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan { consumers: 4, idempotent: 3, faulty_ms: 9_000, records: 400, ..Plan::of(1) }
    }

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let plan = plan();
        let mut runs = 0;
        let fails = |plan: &Plan| {
            runs += 1;
            let needed = plan.consumers >= 2 && plan.faulty_ms >= 1_000 && plan.records >= 37;
            let needed = needed && !plan.skipped.contains(&3) && !plan.skipped.contains(&9);
            needed.then_some(Failure { at_ms: 4_000, faults: 12 })
        };
        let found = smallest(&plan, Failure { at_ms: 4_000, faults: 12 }, 400, fails);
        let small = found.apply(&plan);
        assert_eq!((small.consumers, small.idempotent, small.shards, small.hostile), (2, 0, 1, 0));
        assert!((1_000..1_200).contains(&small.faulty_ms), "{}", small.faulty_ms);
        assert!((37..=45).contains(&small.records), "{}", small.records);
        assert_eq!(small.skipped, (1..=12).filter(|number| ![3, 9].contains(number)).collect());
        assert!(runs < 120, "{runs} runs");
    }

    #[test]
    fn no_more_runs_are_made_than_allowed() {
        let mut runs = 0;
        let fails = |_: &Plan| {
            runs += 1;
            (runs < 100).then_some(Failure { at_ms: 1, faults: 1_000 })
        };
        smallest(&plan(), Failure { at_ms: 1, faults: 1_000 }, 7, fails);
        assert_eq!(runs, 7);
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let text = "consumers=0 faulty_ms=1200 skip=3+5";
        let settings = Settings::parse(text);
        assert_eq!(settings.to_string(), text);
        let plan = settings.apply(&plan());
        assert_eq!((plan.consumers, plan.faulty_ms, plan.skipped), (0, 1_200, BTreeSet::from([3, 5])));
    }

    #[test]
    fn every_knob_turns_to_its_least() {
        for seed in 1..40 {
            for knob in &KNOBS {
                let mut plan = Plan::of(seed).on_machines(3);
                (knob.set)(&mut plan, knob.least);
                assert!((knob.get)(&plan) <= knob.least, "{} of seed {seed}", knob.name);
            }
        }
    }
}
