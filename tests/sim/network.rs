//! What lies between machines and clients: which ways are cut or slow, and until when.
//!
//! Connections are TCP: bytes arrive in order and once, or the connection breaks. What is sent into a cut waits at the
//! sender until the cut has healed, as TCP sends it again; nothing overtakes within a connection, and anything may
//! between two. A way is directed: a cut of one direction lets the other one through.

use crate::faults::Fault;

/// A machine by its number, or one of the two sites where clients are, behind the machines.
pub type Site = usize;

/// Sites of clients.
const CLIENT_SITES: usize = 2;

/// A way that nothing passes until a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Way {
    cut_until_us: u64,
    cut_by: Option<Fault>,
    slow_until_us: u64,
    factor: u64,
}

/// The ways between all sites.
#[derive(Debug)]
pub struct Network {
    machines: usize,
    ways: Vec<Way>,
}

/// When something arrives, and the fault that it met on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub at_us: u64,
    pub met: Option<Fault>,
}

impl Network {
    /// Every way is open.
    pub fn new(machines: usize) -> Self {
        let sites = machines + CLIENT_SITES;
        Self { machines, ways: vec![Way::default(); sites * sites] }
    }

    /// How many sites there are.
    pub fn sites(&self) -> usize {
        self.machines + CLIENT_SITES
    }

    /// Where a client is.
    pub fn site_of_client(&self, client: usize) -> Site {
        self.machines + client % CLIENT_SITES
    }

    fn way(&mut self, from: Site, to: Site) -> &mut Way {
        let sites = self.sites();
        &mut self.ways[from * sites + to]
    }

    /// Until when a way is cut, and by which fault.
    pub fn cut_until(&self, from: Site, to: Site, now_us: u64) -> Option<(u64, Fault)> {
        let way = &self.ways[from * self.sites() + to];
        way.cut_by.filter(|_| way.cut_until_us > now_us).map(|fault| (way.cut_until_us, fault))
    }

    /// When something arrives that would take `us` on an open way.
    pub fn arrival(&self, from: Site, to: Site, now_us: u64, us: u64) -> Arrival {
        let way = &self.ways[from * self.sites() + to];
        let slow = way.slow_until_us > now_us;
        let us = if slow { us * way.factor } else { us };
        match self.cut_until(from, to, now_us) {
            Some((until_us, fault)) => Arrival { at_us: until_us + us, met: Some(fault) },
            None => Arrival { at_us: now_us + us, met: slow.then_some(Fault::SlowWay) },
        }
    }

    /// Nothing passes from any of these sites to any of those until a time.
    fn cut(&mut self, from: &[Site], to: &[Site], until_us: u64, fault: Fault) {
        for from in from {
            for to in to.iter().filter(|to| *to != from) {
                let way = self.way(*from, *to);
                if way.cut_until_us < until_us {
                    (way.cut_until_us, way.cut_by) = (until_us, Some(fault));
                }
            }
        }
    }

    /// Nothing passes from one site to another until a time, or back.
    pub fn cut_pair(&mut self, (from, to): (Site, Site), is_both_ways: bool, until_us: u64) {
        self.cut(&[from], &[to], until_us, Fault::CutPair);
        if is_both_ways {
            self.cut(&[to], &[from], until_us, Fault::CutPair);
        }
    }

    /// Cuts some ways until a time; which fault it is.
    pub fn cut_some(&mut self, until_us: u64, random: &mut fastrand::Rng) -> Fault {
        let kinds = [
            Fault::Isolation,
            Fault::CutOutward,
            Fault::CutInward,
            Fault::CutPair,
            Fault::Split,
            Fault::CutClients,
        ];
        let fault = *random.choice(&kinds).expect("some");
        let machine = random.usize(0..self.machines);
        let others: Vec<Site> = (0..self.sites()).filter(|site| *site != machine).collect();
        match fault {
            Fault::Isolation => {
                self.cut(&[machine], &others, until_us, fault);
                self.cut(&others, &[machine], until_us, fault);
            }
            Fault::CutOutward => self.cut(&[machine], &others, until_us, fault),
            Fault::CutInward => self.cut(&others, &[machine], until_us, fault),
            Fault::CutPair => {
                let other = *random.choice(&others).expect("there are clients");
                self.cut_pair((machine, other), random.bool(), until_us);
            }
            Fault::Split => {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                for site in 0..self.sites() {
                    if random.bool() { left.push(site) } else { right.push(site) }
                }
                self.cut(&left, &right, until_us, fault);
                self.cut(&right, &left, until_us, fault);
            }
            _ => {
                let clients = [self.machines + random.usize(0..CLIENT_SITES)];
                let machines: Vec<Site> = (0..self.machines).collect();
                self.cut(&clients, &machines, until_us, fault);
                self.cut(&machines, &clients, until_us, fault);
            }
        }
        fault
    }

    /// A machine is far away for a while: everything to and from it takes `factor` times as long.
    pub fn slow(&mut self, machine: Site, factor: u64, until_us: u64) {
        for other in 0..self.sites() {
            for (from, to) in [(machine, other), (other, machine)] {
                let way = self.way(from, to);
                (way.slow_until_us, way.factor) = (until_us, factor);
            }
        }
    }

    /// Every way is open and fast from now on. What waits at a cut comes when it would have come.
    pub fn heal(&mut self) {
        self.ways.fill(Way::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(at_us: u64) -> Arrival {
        Arrival { at_us, met: None }
    }

    #[test]
    fn a_way_is_cut_in_one_direction() {
        let mut network = Network::new(3);
        network.cut(&[0], &[1, 2], 500, Fault::CutOutward);
        let held = Arrival { at_us: 510, met: Some(Fault::CutOutward) };
        assert_eq!(network.arrival(0, 1, 100, 10), held);
        assert_eq!(network.arrival(1, 0, 100, 10), open(110));
        assert_eq!(network.arrival(0, 3, 100, 10), open(110));
        assert_eq!(network.arrival(0, 1, 500, 10), open(510));
    }

    #[test]
    fn the_longer_of_two_cuts_counts() {
        let mut network = Network::new(2);
        network.cut(&[0], &[1], 500, Fault::CutOutward);
        network.cut(&[0], &[1], 300, Fault::Split);
        assert_eq!(network.cut_until(0, 1, 0), Some((500, Fault::CutOutward)));
    }

    #[test]
    fn a_slow_machine_is_slow_both_ways_and_only_for_a_while() {
        let mut network = Network::new(2);
        network.slow(1, 20, 1_000);
        let slow = Arrival { at_us: 300, met: Some(Fault::SlowWay) };
        assert_eq!((network.arrival(0, 1, 100, 10), network.arrival(1, 0, 100, 10)), (slow, slow));
        assert_eq!(network.arrival(0, 2, 100, 10), open(110));
        assert_eq!(network.arrival(0, 1, 1_000, 10), open(1_010));
    }

    #[test]
    fn every_kind_of_cut_cuts_something_and_heals() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut network = Network::new(3);
            let fault = network.cut_some(900, &mut fastrand::Rng::with_seed(seed));
            let cut = |network: &Network| {
                let pairs = (0..network.sites()).flat_map(|a| (0..network.sites()).map(move |b| (a, b)));
                pairs.filter(|(a, b)| network.cut_until(*a, *b, 0).is_some()).count()
            };
            if fault != Fault::Split {
                assert!(cut(&network) > 0, "{fault:?} cuts nothing");
            }
            assert!((0..network.sites()).all(|site| network.cut_until(site, site, 0).is_none()));
            network.heal();
            assert_eq!(cut(&network), 0);
            seen.insert(fault);
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
    }
}
