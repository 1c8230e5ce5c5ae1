//! Who may come in: how many connections a node has, how many of one address, how many a second.
//!
//! As in Kafka, a node that is full or whose connections come too fast accepts later (they wait in
//! the listener's backlog), and a connection too many of one address is closed at once. All
//! listeners are on one shard, so nothing here is shared but the counts, which a [`Seat`] gives
//! back wherever its connection ends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashMap;

use crate::config::NodeConfig;

/// How long a full node rests before it looks again, in milliseconds.
const FULL_REST_MS: u64 = 20;
/// Addresses without connections are forgotten when there are so many and twice as many as the last time.
const ADDRESSES_KEPT: usize = 1024;

/// A connection's place among those that are counted. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Seat {
    counts: Arc<[AtomicUsize]>,
    shard: u16,
    address: Option<Arc<AtomicUsize>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(count) = self.counts.get(usize::from(self.shard)) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(count) = &self.address {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Seat {
    /// The connection goes to another shard.
    pub fn move_to(&mut self, shard: u16) {
        let count = |shard: u16| self.counts.get(usize::from(shard));
        if let (Some(from), Some(to)) = (count(self.shard), count(shard)) {
            to.fetch_add(1, Ordering::Relaxed);
            from.fetch_sub(1, Ordering::Relaxed);
            self.shard = shard;
        }
    }

    /// The shard whose connection it is.
    pub fn shard(&self) -> u16 {
        self.shard
    }
}

/// What is asked of everyone who comes in.
#[derive(Debug)]
pub(super) struct Door {
    /// Connections of each shard.
    counts: Arc<[AtomicUsize]>,
    descriptors_max: usize,
    connections_max: usize,
    per_address_max: usize,
    /// Addresses of the hosts that were named at the start.
    hosts: BTreeMap<String, Vec<IpAddr>>,
    overrides: BTreeMap<IpAddr, usize>,
    addresses: FxHashMap<IpAddr, Arc<AtomicUsize>>,
    addresses_look_at: usize,
    pace: Option<Pace>,
}

impl Door {
    /// `descriptors_max` is how many connections the process has descriptors for.
    pub fn new(config: &NodeConfig, counts: Arc<[AtomicUsize]>, descriptors_max: usize) -> Self {
        let mut hosts = BTreeMap::new();
        for host in config.max_connections_per_ip_overrides.keys() {
            match std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), 0)) {
                Ok(found) => {
                    drop(hosts.insert(host.clone(), found.map(|at| at.ip().to_canonical()).collect()))
                }
                Err(error) => super::say(&format!("max.connections.per.ip.overrides: {host}: {error}")),
            }
        }
        let mut door = Self {
            counts,
            descriptors_max,
            connections_max: 0,
            per_address_max: 0,
            hosts,
            overrides: BTreeMap::new(),
            addresses: FxHashMap::default(),
            addresses_look_at: ADDRESSES_KEPT,
            pace: None,
        };
        door.configure(config);
        door
    }

    /// Takes up limits that were changed. Whoever is in stays in. A host's name that was not looked up at the
    /// start counts after a restart: looking it up would hold the shard.
    pub fn configure(&mut self, config: &NodeConfig) {
        let rate = config.max_connection_creation_rate;
        self.connections_max = (config.max_connections as usize).min(self.descriptors_max);
        self.per_address_max = config.max_connections_per_ip as usize;
        if self.pace.as_ref().map(|pace| pace.per_second) != pace_of(rate) {
            self.pace = pace_of(rate).map(Pace::new);
        }
        self.overrides.clear();
        for (host, max) in &config.max_connections_per_ip_overrides {
            let literal = host.parse::<IpAddr>().ok().map(|address| vec![address.to_canonical()]);
            match literal.as_ref().or_else(|| self.hosts.get(host)) {
                Some(found) => self.overrides.extend(found.iter().map(|address| (*address, *max as usize))),
                None => super::say(&format!(
                    "max.connections.per.ip.overrides: {host} is looked up at the next start"
                )),
            }
        }
    }

    /// How long to wait before the next connection is accepted, in milliseconds, if it is to wait.
    pub fn wait_ms(&mut self, now_ms: u64) -> Option<u64> {
        let total: usize = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        if total >= self.connections_max {
            return Some(FULL_REST_MS);
        }
        self.pace.as_mut().and_then(|pace| pace.wait_ms(now_ms))
    }

    /// Counts an accepted connection and gives it a place on the shard with the fewest; `None` if
    /// its address has enough.
    pub fn seat(&mut self, address: Option<IpAddr>) -> Option<Seat> {
        if let Some(pace) = &mut self.pace {
            pace.take();
        }
        let address = match address.map(|address| address.to_canonical()) {
            Some(address) => Some(self.count_address(address)?),
            None => None,
        };
        let counts = (0u16..).zip(self.counts.iter());
        let (shard, count) = counts.min_by_key(|(_, count)| count.load(Ordering::Relaxed))?;
        count.fetch_add(1, Ordering::Relaxed);
        Some(Seat { counts: Arc::clone(&self.counts), shard, address })
    }

    fn count_address(&mut self, address: IpAddr) -> Option<Arc<AtomicUsize>> {
        let max = self.overrides.get(&address).copied().unwrap_or(self.per_address_max);
        if self.addresses.len() >= self.addresses_look_at {
            self.addresses.retain(|_, count| count.load(Ordering::Relaxed) > 0);
            self.addresses_look_at = (2 * self.addresses.len()).max(ADDRESSES_KEPT);
        }
        let count = self.addresses.entry(address).or_default();
        if count.load(Ordering::Relaxed) >= max {
            return None;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(count))
    }
}

/// Connections a second, where they are limited. A rate of 0 would never let anyone in; it counts as 1.
fn pace_of(rate: u32) -> Option<u64> {
    (rate < i32::MAX.cast_unsigned()).then(|| u64::from(rate.max(1)))
}

/// So many a second, and at most those of one second at once.
#[derive(Debug)]
struct Pace {
    per_second: u64,
    /// What is left, in thousandths of a connection.
    left_milli: u64,
    filled_ms: u64,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        Self { per_second, left_milli: per_second * 1000, filled_ms: 0 }
    }

    fn wait_ms(&mut self, now_ms: u64) -> Option<u64> {
        let passed_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = now_ms;
        self.left_milli =
            (self.left_milli + passed_ms.min(1000) * self.per_second).min(self.per_second * 1000);
        let missing = 1000u64.checked_sub(self.left_milli).filter(|missing| *missing > 0)?;
        Some(missing.div_ceil(self.per_second))
    }

    fn take(&mut self) {
        self.left_milli = self.left_milli.saturating_sub(1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(overrides: &[(&str, &str)]) -> Door {
        let given: Vec<(String, String)> =
            overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (config, _) = NodeConfig::load(None, &given).unwrap();
        Door::new(&config, (0..3).map(|_| AtomicUsize::new(0)).collect(), 1000)
    }

    fn counts(door: &Door) -> Vec<usize> {
        door.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn connections_are_spread_evenly_also_when_some_have_gone() {
        let mut door = door(&[]);
        let mut seats: Vec<Seat> = (0..30).map(|_| door.seat(None).unwrap()).collect();
        assert_eq!(counts(&door), [10, 10, 10]);
        seats.retain(|seat| seat.shard() != 1);
        assert_eq!(counts(&door), [10, 0, 10]);
        seats.extend((0..11).map(|_| door.seat(None).unwrap()));
        assert_eq!(counts(&door), [11, 10, 10]);
    }

    #[test]
    fn a_connection_that_moves_is_counted_where_it_is() {
        let mut door = door(&[("max.connections.per.ip", "2")]);
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        let mut seats: Vec<Seat> = (0..2).map(|_| door.seat(address).unwrap()).collect();
        seats[0].move_to(1);
        assert_eq!(counts(&door), [0, 2, 0]);
        assert!(door.seat(address).is_none(), "its address has it wherever it is");
        seats[0].move_to(7);
        assert_eq!(counts(&door), [0, 2, 0], "there is no such shard");
        drop(seats);
        assert_eq!(counts(&door), [0, 0, 0]);
    }

    #[test]
    fn an_address_has_its_own_limit_and_gets_its_places_back() {
        let mut door = door(&[
            ("max.connections.per.ip", "2"),
            ("max.connections.per.ip.overrides", "10.0.0.1:1,[::1]:0"),
        ]);
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let first = door.seat(ip("10.0.0.1")).unwrap();
        assert!(door.seat(ip("10.0.0.1")).is_none());
        assert!(door.seat(ip("::ffff:10.0.0.1")).is_none(), "the same address in other words");
        assert!(door.seat(ip("::1")).is_none());
        let others = [door.seat(ip("10.0.0.2")), door.seat(ip("10.0.0.2"))];
        assert!(others.iter().all(Option::is_some) && door.seat(ip("10.0.0.2")).is_none());
        drop((first, others));
        assert!(door.seat(ip("10.0.0.1")).is_some());
        assert_eq!(counts(&door), [0, 0, 0]);
    }

    #[test]
    fn limits_change_while_everyone_inside_stays() {
        let mut door = door(&[("max.connections", "2")]);
        let seats = [door.seat(None).unwrap(), door.seat(None).unwrap()];
        assert_eq!(door.wait_ms(0), Some(FULL_REST_MS));
        let configured = |pairs: &[(&str, &str)]| {
            let given: Vec<_> =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            NodeConfig::load(None, &given).unwrap().0
        };
        door.configure(&configured(&[("max.connections", "3"), ("max.connection.creation.rate", "0")]));
        assert_eq!(door.wait_ms(10_000), None);
        door.configure(&configured(&[
            ("max.connections.per.ip", "1"),
            ("max.connections.per.ip.overrides", "10.0.0.1:2"),
        ]));
        assert_eq!(door.wait_ms(0), None);
        let of = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let (one, two) = (door.seat(of(1)), door.seat(of(1)));
        assert!(one.is_some() && two.is_some() && door.seat(of(1)).is_none());
        let other = door.seat(of(2));
        assert!(other.is_some() && door.seat(of(2)).is_none());
        drop(seats);
    }

    #[test]
    fn addresses_that_have_gone_are_forgotten() {
        let mut door = door(&[("max.connections.per.ip", "2")]);
        for number in 0..10 * ADDRESSES_KEPT as u32 {
            assert!(door.seat(Some(IpAddr::from(number.to_be_bytes()))).is_some());
        }
        assert!(door.addresses.len() <= ADDRESSES_KEPT);
    }

    #[test]
    fn a_full_node_and_a_fast_crowd_wait() {
        let mut door = door(&[("max.connections", "2"), ("max.connection.creation.rate", "10")]);
        let seats = [door.seat(None), door.seat(None)];
        assert_eq!(door.wait_ms(0), Some(FULL_REST_MS));
        drop(seats);
        for _ in 0..8 {
            assert_eq!(door.wait_ms(0), None);
            door.seat(None);
        }
        assert_eq!(door.wait_ms(0), Some(100), "the tokens of a second are spent");
        assert_eq!(door.wait_ms(100), None);
        door.seat(None);
        assert_eq!(door.wait_ms(150), Some(50));
        assert_eq!(door.wait_ms(100_000), None);
        (0..10).for_each(|_| drop(door.seat(None)));
        assert!(door.wait_ms(100_000).is_some(), "a long rest saves up one second, no more");
    }
}
