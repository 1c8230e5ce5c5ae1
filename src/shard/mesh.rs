//! Lanes between shards: one bounded single-producer ring per ordered pair, and a bell per shard.
//!
//! A full ring never blocks its sender: what does not fit waits in the sender's memory and goes
//! in a later turn. That memory is bounded by the requests that the senders' connections have
//! admitted, since every parcel belongs to one of them. So two full shards cannot deadlock.

use std::collections::VecDeque;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use super::bell::Bell;
use super::moves::Arrival;
use crate::broker::Message;

/// Parcels that a lane holds before its sender keeps them.
const LANE_PARCELS: usize = 1024;

/// What travels between shards.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A message of the broker.
    Message(Message),
    /// A connection that was accepted elsewhere, or served elsewhere until now.
    Connection(Box<Arrival>),
}

/// One shard's ends of all lanes.
#[derive(Debug)]
pub(super) struct Mesh {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    inbox: Consumer<Parcel>,
    outbox: Producer<Parcel>,
    overflow: VecDeque<Parcel>,
    bell: Arc<Bell>,
    sent: bool,
}

impl Mesh {
    /// The ends for every shard, given their bells in shard order.
    pub fn weave(bells: &[Arc<Bell>]) -> Vec<Mesh> {
        let count = bells.len();
        let (mut outs, mut ins) = (Vec::new(), Vec::new());
        for _ in 0..count * count {
            let (producer, consumer) = RingBuffer::new(LANE_PARCELS);
            outs.push(Some(producer));
            ins.push(Some(consumer));
        }
        let mut take = |from: usize, to: usize| {
            let outbox = outs.get_mut(from * count + to).and_then(Option::take);
            let inbox = ins.get_mut(to * count + from).and_then(Option::take);
            outbox.zip(inbox).expect("every lane has two ends, each taken once")
        };
        let shards = 0..count;
        let lanes =
            |me: usize, take: &mut dyn FnMut(usize, usize) -> (Producer<Parcel>, Consumer<Parcel>)| {
                let lane = |(peer, bell): (usize, &Arc<Bell>)| {
                    let (outbox, inbox) = take(me, peer);
                    Lane { inbox, outbox, overflow: VecDeque::new(), bell: Arc::clone(bell), sent: false }
                };
                bells.iter().enumerate().map(lane).collect::<Vec<_>>()
            };
        shards.map(|me| Mesh { lanes: lanes(me, &mut take) }).collect()
    }

    /// Puts a parcel on the lane to a shard. It is seen when [`Mesh::ring`] is called.
    pub fn send(&mut self, to: u16, parcel: Parcel) {
        let Some(lane) = self.lanes.get_mut(usize::from(to)) else { return };
        lane.sent = true;
        if !lane.overflow.is_empty() {
            return lane.overflow.push_back(parcel);
        }
        if let Err(rtrb::PushError::Full(parcel)) = lane.outbox.push(parcel) {
            lane.overflow.push_back(parcel);
        }
    }

    /// Wakes everyone who was sent something. Says whether parcels are left that did not fit.
    pub fn ring(&mut self) -> bool {
        let mut left = false;
        for lane in &mut self.lanes {
            while let Some(parcel) = lane.overflow.pop_front() {
                lane.sent = true;
                if let Err(rtrb::PushError::Full(parcel)) = lane.outbox.push(parcel) {
                    lane.overflow.push_front(parcel);
                    left = true;
                    break;
                }
            }
            lane.overflow.shrink_to(LANE_PARCELS);
            if std::mem::take(&mut lane.sent) {
                lane.bell.ring();
            }
        }
        left
    }

    /// The next parcel that has arrived, with its sender; senders in turn.
    pub fn receive(&mut self, from: u16) -> Option<Parcel> {
        self.lanes.get_mut(usize::from(from))?.inbox.pop().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_keeps_order_and_loses_nothing() {
        let bells: Vec<_> = (0..2).map(|_| Arc::new(Bell::default())).collect();
        let mut meshes = Mesh::weave(&bells);
        let (left, right) = meshes.split_at_mut(1);
        let (sender, receiver) = (&mut left[0], &mut right[0]);
        let total = LANE_PARCELS as u64 + 10;
        for version in 0..total {
            sender.send(1, Parcel::Message(Message::Applied(version)));
        }
        assert!(sender.ring());
        let mut seen = Vec::new();
        for _ in 0..2 {
            while let Some(Parcel::Message(Message::Applied(version))) = receiver.receive(0) {
                seen.push(version);
            }
            sender.ring();
        }
        assert_eq!(seen, (0..total).collect::<Vec<_>>());
    }
}
