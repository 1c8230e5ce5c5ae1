//! How a controller learns at once that a broker's process is gone: the connection on which it sent its heartbeats
//! ends, and nobody listens where the broker did.
//!
//! One sign alone is none: connections break, and a broker may have another one already. So an ended connection is
//! answered by a dial to the broker's own listener. Refused is the second sign; anything else, silence too, leaves
//! the broker to its session.
//!
//! A process that is killed closes one socket after the other, and its listener may be the last: until then the kernel
//! takes connections for it. So a dial that succeeds is kept for a moment. One that the other side ends is made again.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::followers::{Address, LinkIds};
use super::link::{LinkId, LinkLoss};
use crate::broker::{ConnectionKey, Output};
use crate::effect::Now;

/// How long a probe lasts, in milliseconds. A refusal comes within a round trip of the listener's end.
const PROBE_MS: u64 = 1_000;
/// Dials of a probe: somebody may listen and end whatever comes.
const DIALS_MAX: u32 = 4;
/// Brokers that are probed at the same time.
const PROBES_MAX: usize = 64;

/// A broker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its node id.
    pub node_id: i32,
    /// New with every start.
    pub incarnation: Uuid,
}

/// What one shard hears of brokers on its connections.
#[derive(Debug, Default)]
pub struct Senses {
    /// Who sends its heartbeats there: a node id and a broker epoch. Which process that is, the metadata say when they
    /// have its registration, and that may be after the first heartbeat.
    heard: BTreeMap<ConnectionKey, (i32, i64)>,
    probes: BTreeMap<LinkId, Probe>,
}

/// One look whether anybody listens where a broker did.
#[derive(Debug)]
struct Probe {
    process: Process,
    address: Address,
    until_ms: u64,
    dials: u32,
}

impl Probe {
    fn dial(&mut self, link: LinkId, outputs: &mut Vec<Output>) {
        let (host, port) = self.address.clone();
        self.dials += 1;
        outputs.push(Output::Dial { link, host, port });
    }
}

impl Senses {
    /// A broker, known by its id and its epoch, sent a heartbeat on a connection.
    pub fn heard(&mut self, connection: ConnectionKey, node_id: i32, broker_epoch: i64) {
        self.heard.insert(connection, (node_id, broker_epoch));
    }

    /// A connection says nothing any more.
    pub fn forget(&mut self, connection: ConnectionKey) {
        self.heard.remove(&connection);
    }

    /// Whether nothing was heard and nobody is probed.
    pub fn is_empty(&self) -> bool {
        self.heard.is_empty() && self.probes.is_empty()
    }

    /// A connection is gone. If the other side ended it and it was a broker's, the broker is probed where it listens.
    /// `find` tells the process that registered with that epoch, where it is the last one of its id, and its address.
    pub fn ended(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        by_peer: bool,
        ids: &mut LinkIds,
        find: impl Fn(i32, i64) -> Option<(Process, Address)>,
        outputs: &mut Vec<Output>,
    ) {
        let Some(gone) = self.heard.remove(&connection).filter(|_| by_peer) else { return };
        let is_elsewhere = self.heard.values().any(|heard| *heard == gone);
        let Some((process, address)) = find(gone.0, gone.1) else { return };
        let is_probed = self.probes.values().any(|probe| probe.process == process);
        if is_elsewhere || is_probed || self.probes.len() >= PROBES_MAX {
            return;
        }
        let link = ids.take();
        let mut probe = Probe { process, address, until_ms: now.mono_ms + PROBE_MS, dials: 0 };
        probe.dial(link, outputs);
        self.probes.insert(link, probe);
    }

    /// Whether a link is one of these.
    pub fn owns(&self, link: LinkId) -> bool {
        self.probes.contains_key(&link)
    }

    /// A dial succeeded. Somebody listens there: the process that lost its connection, the next one in its place, or
    /// what is left of a process that is being killed.
    pub fn up(&mut self, link: LinkId) -> Option<Process> {
        self.probes.get(&link).map(|probe| probe.process)
    }

    /// A dial, or the connection that it made, has ended. Gives the process that is gone, if that is what it means.
    pub fn down(&mut self, link: LinkId, loss: LinkLoss, outputs: &mut Vec<Output>) -> Option<Process> {
        let mut probe = self.probes.remove(&link)?;
        if matches!(loss, LinkLoss::Closed | LinkLoss::Reset) && probe.dials < DIALS_MAX {
            probe.dial(link, outputs);
            self.probes.insert(link, probe);
            return None;
        }
        (loss == LinkLoss::Refused).then_some(probe.process)
    }

    /// When [`Senses::wake`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        self.probes.values().map(|probe| probe.until_ms).min()
    }

    /// Time has passed: dials that take too long say nothing, and who stays connected listens.
    pub fn wake(&mut self, now: Now, outputs: &mut Vec<Output>) {
        self.probes.retain(|link, probe| {
            let waits = probe.until_ms > now.mono_ms;
            if !waits {
                outputs.push(Output::LinkClose { link: *link });
            }
            waits
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    const fn key(slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: 1 }
    }

    const PROCESS: Process = Process { node_id: 2, incarnation: Uuid::from_u128(9) };

    const EPOCH: i64 = 5;

    fn somewhere(node_id: i32, broker_epoch: i64) -> Option<(Process, Address)> {
        let is_it = (node_id, broker_epoch) == (PROCESS.node_id, EPOCH);
        is_it.then(|| (PROCESS, (Arc::from("host"), 9092)))
    }

    fn ended(senses: &mut Senses, slot: u32, by_peer: bool) -> Option<LinkId> {
        let (mut ids, mut outputs) = (LinkIds::default(), Vec::new());
        senses.ended(at(0), key(slot), by_peer, &mut ids, somewhere, &mut outputs);
        outputs.pop().map(|output| match output {
            Output::Dial { link, .. } => link,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn an_ended_connection_and_a_refused_dial_mean_that_the_process_is_gone() {
        for (loss, gone) in [(LinkLoss::Refused, Some(PROCESS)), (LinkLoss::Timeout, None)] {
            let mut senses = Senses::default();
            senses.heard(key(1), PROCESS.node_id, EPOCH);
            let link = ended(&mut senses, 1, true).unwrap();
            assert!(senses.owns(link));
            assert_eq!(senses.down(link, loss, &mut Vec::new()), gone);
            assert!(senses.is_empty());
        }
    }

    #[test]
    fn a_listener_that_is_closed_last_is_dialled_again() {
        for loss in [LinkLoss::Reset, LinkLoss::Closed] {
            let (mut senses, mut outputs) = (Senses::default(), Vec::new());
            senses.heard(key(1), PROCESS.node_id, EPOCH);
            let link = ended(&mut senses, 1, true).unwrap();
            assert_eq!(senses.up(link), Some(PROCESS));
            assert_eq!(senses.down(link, loss, &mut outputs), None);
            assert!(matches!(outputs[..], [Output::Dial { link: again, .. }] if again == link));
            assert_eq!(senses.down(link, LinkLoss::Refused, &mut outputs), Some(PROCESS));
        }
    }

    #[test]
    fn who_ends_whatever_comes_is_not_dialled_for_ever() {
        let (mut senses, mut outputs) = (Senses::default(), Vec::new());
        senses.heard(key(1), PROCESS.node_id, EPOCH);
        let link = ended(&mut senses, 1, true).unwrap();
        while senses.owns(link) {
            senses.up(link);
            assert_eq!(senses.down(link, LinkLoss::Closed, &mut outputs), None);
        }
        assert_eq!(outputs.len(), 3);
    }

    #[test]
    fn one_sign_alone_is_none() {
        let mut senses = Senses::default();
        assert_eq!(ended(&mut senses, 1, true), None, "nobody's");
        senses.heard(key(1), PROCESS.node_id, EPOCH - 1);
        assert_eq!(ended(&mut senses, 1, true), None, "another process of that broker has registered since");
        senses.heard(key(1), PROCESS.node_id, EPOCH);
        assert_eq!(ended(&mut senses, 1, false), None, "this side closed it");
        senses.heard(key(1), PROCESS.node_id, EPOCH);
        senses.heard(key(2), PROCESS.node_id, EPOCH);
        assert_eq!(ended(&mut senses, 1, true), None, "it has another one");
        let link = ended(&mut senses, 2, true).unwrap();
        let mut outputs = Vec::new();
        senses.up(link);
        senses.wake(at(1_000), &mut outputs);
        assert!(senses.is_empty() && matches!(outputs[..], [Output::LinkClose { .. }]));
        senses.heard(key(1), PROCESS.node_id, EPOCH);
        let link = ended(&mut senses, 1, true).unwrap();
        assert_eq!(senses.next_wake_ms(), Some(1_000));
        senses.wake(at(1_000), &mut outputs);
        assert!(senses.down(link, LinkLoss::Refused, &mut outputs).is_none(), "too late to mean anything");
    }
}
