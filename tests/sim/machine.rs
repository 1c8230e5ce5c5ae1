//! One machine: its devices, its clocks and the broker that runs on it, if one does.

use std::collections::{BTreeMap, BTreeSet};

use tidemill::effect::Now;

use crate::disk::Disk;
use crate::history::Place;
use crate::node::Node;

/// Where the clients' wall clock begins, in milliseconds since the epoch.
pub const WALL_START_MS: i64 = 1_700_000_000_000;

/// The clocks of a machine against virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// How far the wall clock jumped.
    pub wall_offset_ms: i64,
    /// How much faster both clocks run, in millionths; they run slower where it is negative.
    pub drift_ppm: i64,
}

impl Clock {
    /// Virtual microseconds as this machine counts them.
    fn counted_us(self, us: u64) -> u64 {
        us.saturating_add_signed(us as i64 * self.drift_ppm / 1_000_000)
    }

    /// The clocks as a process sees them that began at `started_us`. Only the wall clock ever jumps.
    pub fn now(self, now_us: u64, started_us: u64) -> Now {
        Now {
            mono_ms: self.counted_us(now_us - started_us) / 1000,
            wall_ms: WALL_START_MS + (self.counted_us(now_us) / 1000) as i64 + self.wall_offset_ms,
        }
    }

    /// When the monotonic clock of a process that began at `started_us` shows that many milliseconds.
    pub fn at_us(self, started_us: u64, mono_ms: u64) -> u64 {
        let counted_us = mono_ms.saturating_mul(1000);
        if self.drift_ppm == 0 {
            return started_us.saturating_add(counted_us);
        }
        let us = u128::from(counted_us) * 1_000_000 / (1_000_000 + self.drift_ppm) as u128;
        started_us.saturating_add(u64::try_from(us).unwrap_or(u64::MAX)).saturating_add(2)
    }
}

/// One machine of a run.
#[derive(Debug)]
pub struct Machine {
    /// Which cluster its broker belongs to.
    pub cluster: usize,
    /// One device for each log directory.
    pub disks: Vec<Disk>,
    /// Until when each device is full.
    pub full_until_us: Vec<u64>,
    /// The process, if one runs.
    pub node: Option<Node>,
    /// Tells the processes of this machine apart.
    pub incarnation: u64,
    /// Tells apart what the kernel's boot id tells apart.
    pub boot_number: u64,
    /// Its clocks.
    pub clock: Clock,
    /// The process gets no CPU until then.
    pub paused_until_us: u64,
    /// The power failed at least once: what was not synced may be gone.
    pub power_was_cut: bool,
    /// Nobody says a word for it: the power is off, and no process is there yet.
    pub is_dark: bool,
    /// It waits until every other one has stopped before it starts again.
    pub has_stopped: bool,
    /// How often it got new disks.
    pub disks_lost: u64,
    /// How far each replica ever claimed to be synced.
    pub synced: BTreeMap<Place, i64>,
    /// Directories that the last start found, by log directory.
    pub found_at_start: BTreeSet<(usize, String)>,
    /// Base offset of each replica's oldest segment, and the log start with which it was opened, while this process
    /// runs.
    pub firsts: BTreeMap<Place, (i64, i64)>,
}

impl Machine {
    /// A machine that was never started.
    pub fn new(cluster: usize, directories: usize, clock: Clock) -> Self {
        Self {
            cluster,
            disks: (0..directories).map(|_| Disk::default()).collect(),
            full_until_us: vec![0; directories],
            node: None,
            incarnation: 0,
            boot_number: 0,
            clock,
            paused_until_us: 0,
            power_was_cut: false,
            is_dark: false,
            has_stopped: false,
            disks_lost: 0,
            synced: BTreeMap::new(),
            found_at_start: BTreeSet::new(),
            firsts: BTreeMap::new(),
        }
    }

    /// A start begins with the directories that are there.
    pub fn look_at_disks(&mut self) {
        let names = |(at, disk): (usize, &Disk)| disk.directories().into_iter().map(move |name| (at, name));
        self.found_at_start = self.disks.iter().enumerate().flat_map(names).collect();
    }

    /// Whether clients may connect.
    pub fn takes_clients(&self) -> bool {
        self.node.as_ref().is_some_and(Node::takes_clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_without_drift_shows_virtual_time() {
        let clock = Clock { wall_offset_ms: -7, drift_ppm: 0 };
        let now = clock.now(5_000_900, 1_000_000);
        assert_eq!(now, Now { mono_ms: 4_000, wall_ms: WALL_START_MS + 5_000 - 7 });
        assert_eq!(clock.at_us(1_000_000, 4_000), 5_000_000);
    }

    #[test]
    fn a_drifting_clock_shows_a_time_when_it_says_that_it_will() {
        for drift_ppm in [-200_000, -500, -3, 3, 500, 200_000] {
            let clock = Clock { wall_offset_ms: 0, drift_ppm };
            for mono_ms in [0, 1, 17, 999, 30_000, 86_400_000] {
                let at_us = clock.at_us(123_456, mono_ms);
                let shown_ms = clock.now(at_us, 123_456).mono_ms;
                assert!((mono_ms..=mono_ms + 1).contains(&shown_ms), "{drift_ppm}: {mono_ms} is {shown_ms}");
            }
        }
    }
}
