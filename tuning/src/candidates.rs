//! What is to be tried: numbers of shards, and for each the ways to place them on CPUs.
//!
//! Invariant: a candidate keeps off the CPUs of the load while there are enough others; one that does not says so,
//! since what it is measured at is then not the broker's alone.

use serde::Serialize;

use crate::topology::{Cpu, in_words};

/// A number of shards and their CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// `shard.count`.
    pub shards: usize,
    /// `shard.cpus`.
    pub cpus: Vec<usize>,
    /// Whether the load runs on some of them while it is measured.
    pub shares_with_load: bool,
}

impl Candidate {
    /// The lines of its configuration.
    pub fn settings(&self) -> [String; 2] {
        [format!("shard.count={}", self.shards), format!("shard.cpus={}", in_words(&self.cpus))]
    }
}

/// The CPUs of the load unless others are named: those of the last core, if there is another core, or the last thread.
pub fn load_cpus(cpus: &[Cpu]) -> Vec<usize> {
    let Some(last) = cpus.last() else { return Vec::new() };
    let is_alone = cpus.iter().all(|cpu| cpu.core == last.core);
    let of_load = cpus.iter().filter(|cpu| if is_alone { *cpu == last } else { cpu.core == last.core });
    of_load.map(|cpu| cpu.number).collect()
}

/// Powers of two, as many as there are CPUs besides the load's, and all of them.
pub fn usual_counts(cpus: &[Cpu], load: &[usize]) -> Vec<usize> {
    let free = cpus.iter().filter(|cpu| !load.contains(&cpu.number)).count();
    let mut counts: Vec<usize> = (0..).map(|power| 1 << power).take_while(|count| *count <= free).collect();
    counts.extend([free, cpus.len()]);
    counts.retain(|count| *count > 0);
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Every count on every placement of it: a core for each shard first; both threads of a core first; and where there
/// are several processors, these in turn.
pub fn of(cpus: &[Cpu], load: &[usize], counts: &[usize]) -> Vec<Candidate> {
    let (busy, free): (Vec<&Cpu>, Vec<&Cpu>) = cpus.iter().partition(|cpu| load.contains(&cpu.number));
    let mut found: Vec<Candidate> = Vec::new();
    for shards in counts {
        for order in [by_core, by_thread, by_package] {
            let mut pool = free.clone();
            order(&mut pool);
            // Those of the load come last.
            pool.extend(&busy);
            let mut numbers: Vec<usize> = pool.iter().take(*shards).map(|cpu| cpu.number).collect();
            numbers.sort_unstable();
            let shares_with_load = numbers.iter().any(|number| load.contains(number));
            let candidate = Candidate { shards: *shards, cpus: numbers, shares_with_load };
            if !candidate.cpus.is_empty() && !found.contains(&candidate) {
                found.push(candidate);
            }
        }
    }
    found
}

fn by_core(cpus: &mut Vec<&Cpu>) {
    cpus.sort_by_key(|cpu| (cpu.thread, cpu.package, cpu.core));
}

fn by_thread(cpus: &mut Vec<&Cpu>) {
    cpus.sort_by_key(|cpu| (cpu.package, cpu.core, cpu.thread));
}

fn by_package(cpus: &mut Vec<&Cpu>) {
    let first_of =
        |cpu: &Cpu| cpus.iter().filter(|other| other.package == cpu.package).map(|other| other.core).min();
    let mut placed: Vec<(usize, usize, usize, &Cpu)> = cpus
        .iter()
        .map(|cpu| (cpu.thread, cpu.core - first_of(cpu).unwrap_or(cpu.core), cpu.package, *cpu))
        .collect();
    placed.sort_by_key(|(thread, core, package, cpu)| (*thread, *core, *package, cpu.number));
    *cpus = placed.into_iter().map(|(.., cpu)| cpu).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors of two cores with two threads each; the second threads are numbered from 4.
    fn machine() -> Vec<Cpu> {
        let mut cpus = Vec::new();
        for core in 0..4 {
            for thread in 0..2 {
                cpus.push(Cpu { number: core + 4 * thread, package: core / 2, core, thread });
            }
        }
        cpus
    }

    fn small(count: usize) -> Vec<Cpu> {
        (0..count).map(|number| Cpu { number, package: 0, core: number, thread: 0 }).collect()
    }

    fn told(candidates: &[Candidate]) -> Vec<(usize, String, bool)> {
        candidates.iter().map(|one| (one.shards, in_words(&one.cpus), one.shares_with_load)).collect()
    }

    #[test]
    fn two_cpus_are_one_for_the_broker_and_one_for_the_load_or_both_for_both() {
        let cpus = small(2);
        let load = load_cpus(&cpus);
        assert_eq!((load.clone(), usual_counts(&cpus, &load)), (vec![1], vec![1, 2]));
        let candidates = of(&cpus, &load, &[1, 2]);
        assert_eq!(told(&candidates), [(1, "0".to_owned(), false), (2, "0-1".to_owned(), true)]);
        let [one, ..] = candidates.as_slice() else { panic!("{candidates:?}") };
        assert_eq!(one.settings(), ["shard.count=1", "shard.cpus=0"]);
    }

    #[test]
    fn a_single_cpu_is_shared() {
        let cpus = small(1);
        let load = load_cpus(&cpus);
        assert_eq!(usual_counts(&cpus, &load), [1]);
        assert_eq!(told(&of(&cpus, &load, &[1])), [(1, "0".to_owned(), true)]);
    }

    #[test]
    fn the_load_takes_the_last_core_and_shards_go_over_cores_threads_and_processors() {
        let cpus = machine();
        let load = load_cpus(&cpus);
        assert_eq!(load, [3, 7]);
        assert_eq!(usual_counts(&cpus, &load), [1, 2, 4, 6, 8]);
        let expected = [(2, "0-1", false), (2, "0,4", false), (2, "0,2", false)];
        let expected = expected.map(|(shards, cpus, shares)| (shards, cpus.to_owned(), shares));
        assert_eq!(told(&of(&cpus, &load, &[2])), expected);
        assert_eq!(told(&of(&cpus, &load, &[8])), [(8, "0-7".to_owned(), true)]);
        let once = of(&cpus, &load, &[6]);
        assert_eq!(told(&once), [(6, "0-2,4-6".to_owned(), false)], "every order has the same CPUs");
    }

    #[test]
    fn more_shards_than_cpus_share_them() {
        assert_eq!(told(&of(&small(2), &[1], &[3])), [(3, "0-1".to_owned(), true)]);
    }
}
