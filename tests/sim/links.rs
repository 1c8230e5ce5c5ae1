//! Links: connections that a machine dials to another one. A broker asks for them (dial, send, close) and is told what
//! became of them (up, a frame, down); at the other end they are connections like a client's.
//!
//! What is on its way arrives in order or not at all. A machine whose process died says so, over the same ways as
//! everything; one without power says nothing, and whoever dialed it learns that from his own clock.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use tidemill::broker::{LinkId, LinkLoss};

use crate::connections::{CLIENTS_LISTENER, CONTROLLERS_LISTENER, Caller};
use crate::faults::Fault;
use crate::node::{Arrived, Node};
use crate::probe::PROBE_LINK_FIRST;
use crate::world::{Event, World, draw};

/// The port of the listener that is open as soon as a process runs; the clients' opens when the node is ready.
pub const CONTROLLER_PORT: u16 = 9093;
/// How long somebody waits for a machine that says nothing, in microseconds.
const SILENCE_US: std::ops::Range<u64> = 300_000..3_000_000;

/// The end of a link at the one who dialed: a shard of a process, and the number that the link has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkEnd {
    pub machine: usize,
    pub incarnation: u64,
    pub shard: usize,
    pub link: u64,
}

/// What the one who dialed learns of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNews {
    /// It is there.
    Up,
    /// A whole frame came, without its length.
    Frame(Bytes),
    /// It is not there, or not any more. Nothing follows.
    Down(LinkLoss),
}

/// What the one who dials wants of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    Dial {
        host: String,
        port: u16,
    },
    /// One frame with its length.
    Send(Bytes),
    Close,
}

/// A link that was dialed and is not down.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// Which dial it came from: a link that is down is dialed again under its number.
    dial: u64,
    /// The connection at the other end, once somebody took it.
    connection: Option<u64>,
    /// Received and not yet a whole frame.
    buffer: BytesMut,
}

/// Every link that was dialed and is not down.
#[derive(Debug, Default)]
pub struct Links {
    lines: BTreeMap<LinkEnd, Line>,
    dials: u64,
}

impl Links {
    /// A shard dials: the number of the dial.
    fn dial(&mut self, end: LinkEnd) -> u64 {
        self.dials += 1;
        let line = Line { dial: self.dials, connection: None, buffer: BytesMut::new() };
        let before = self.lines.insert(end, line);
        assert!(before.is_none(), "a link is dialed that is not down: {end:?}");
        self.dials
    }

    /// Somebody took the connection.
    fn taken(&mut self, end: LinkEnd, connection: u64) {
        if let Some(line) = self.lines.get_mut(&end) {
            line.connection = Some(connection);
        }
    }

    /// The connection of a link that is not down.
    pub fn connection(&self, end: LinkEnd) -> Option<u64> {
        self.lines.get(&end)?.connection
    }

    /// The dial that a connection came from, if its link is not down.
    fn dial_of(&self, end: LinkEnd, connection: u64) -> Option<u64> {
        self.lines.get(&end).filter(|line| line.connection == Some(connection)).map(|line| line.dial)
    }

    /// Bytes came on a link: the frames that are whole now. None where the link is down, or another connection's.
    fn received(&mut self, end: LinkEnd, connection: u64, bytes: &Bytes) -> Vec<Bytes> {
        let Some(line) = self.lines.get_mut(&end).filter(|line| line.connection == Some(connection)) else {
            return Vec::new();
        };
        line.buffer.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(prefix) = line.buffer.first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            if line.buffer.len() < 4 + length {
                break;
            }
            let mut frame = line.buffer.split_to(4 + length);
            frame.advance(4);
            frames.push(frame.freeze());
        }
        frames
    }

    /// Whether news of a dial still concern somebody; a link that is down is forgotten.
    pub fn concerns(&mut self, end: LinkEnd, dial: u64, news: &LinkNews) -> bool {
        if self.lines.get(&end).is_none_or(|line| line.dial != dial) {
            return false;
        }
        if matches!(news, LinkNews::Down(_)) {
            self.lines.remove(&end);
        }
        true
    }

    /// The link is closed by the one who dialed: its connection, if somebody took it.
    fn close(&mut self, end: LinkEnd) -> Option<u64> {
        self.lines.remove(&end)?.connection
    }

    /// The links of a process.
    fn of_process(&self, machine: usize, incarnation: u64) -> Vec<LinkEnd> {
        let is_its = |end: &&LinkEnd| (end.machine, end.incarnation) == (machine, incarnation);
        self.lines.keys().filter(is_its).copied().collect()
    }

    /// Every link that somebody took, with its dial and its connection.
    fn open(&self) -> Vec<(LinkEnd, u64, u64)> {
        self.lines.iter().filter_map(|(end, line)| Some((*end, line.dial, line.connection?))).collect()
    }
}

impl World {
    /// Carries out what a shard wants of a link.
    pub fn carry_link(&mut self, end: LinkEnd, order: LinkOrder) {
        let link = end.link;
        self.note(end.machine, 40, [link, 0], || format!("shard {} link {link}: {order:?}", end.shard));
        match order {
            LinkOrder::Dial { host, port } => self.dial(end, &host, port),
            LinkOrder::Send(bytes) => {
                if let Some(id) = self.links.connection(end) {
                    self.send_to_server(id, bytes);
                }
            }
            LinkOrder::Close => {
                if let Some(id) = self.links.close(end) {
                    self.end_to_server(id, true);
                }
            }
        }
    }

    /// News of a dial are on their way.
    fn tell_later(&mut self, at_us: u64, end: LinkEnd, dial: u64, news: LinkNews) {
        self.at(at_us, Event::ToLink { end, dial, news });
    }

    fn dial(&mut self, end: LinkEnd, host: &str, port: u16) {
        // News of the connection before may have come in this very turn: it is let go, as the real shell does.
        if let Some(id) = self.links.close(end) {
            self.end_to_server(id, true);
        }
        let dial = self.links.dial(end);
        if self.plan.host_of(end.machine) == host {
            // It is in the middle of its own turn.
            let us = draw(self.plan.network_us, &mut self.random.links);
            return self.after(us, Event::DialSelf { end, dial, port });
        }
        self.reach_out(end, dial, host, port);
    }

    /// A shard has dialed its own node, if it still wants to.
    pub fn dial_self(&mut self, end: LinkEnd, dial: u64, port: u16) {
        if self.links.lines.get(&end).is_some_and(|line| line.dial == dial) {
            let host = self.plan.host_of(end.machine);
            self.reach_out(end, dial, &host, port);
        }
    }

    fn reach_out(&mut self, end: LinkEnd, dial: u64, host: &str, port: u16) {
        let us = draw(self.plan.network_us, &mut self.random.links);
        let Some(there) = (0..self.machines.len()).find(|at| self.plan.host_of(*at) == host) else {
            return self.tell_later(self.now_us + us, end, dial, LinkNews::Down(LinkLoss::Refused));
        };
        let cut = self.network.cut_until(end.machine, there, self.now_us);
        let cut = cut.or_else(|| self.network.cut_until(there, end.machine, self.now_us));
        if let Some((_, fault)) = cut {
            self.hits.count(fault);
        }
        let target = &self.machines[there];
        if cut.is_some() || target.is_dark {
            let patience_us = self.random.links.u64(SILENCE_US);
            return self.tell_later(self.now_us + patience_us, end, dial, LinkNews::Down(LinkLoss::Timeout));
        }
        let is_controllers = port == CONTROLLER_PORT;
        // The listeners of one that is part of a cluster are open as long as its process runs.
        let listens = match is_controllers {
            true => target.node.is_some() && self.plan.has_controller(there),
            false if self.plan.linked => target.node.is_some(),
            false => target.takes_clients(),
        };
        if !listens {
            self.hits.count(Fault::RefusedDial);
            return self.tell_later(self.now_us + 2 * us, end, dial, LinkNews::Down(LinkLoss::Refused));
        }
        let listener =
            if is_controllers && self.plan.linked { CONTROLLERS_LISTENER } else { CLIENTS_LISTENER };
        let id = self.accept(Caller::Link(end), there, us, false, listener);
        self.links.taken(end, id);
        let connection = self.connections.get_mut(&id).expect("it was taken");
        connection.to_client_at_us += us;
        self.tell_later(self.now_us + 2 * us, end, dial, LinkNews::Up);
    }

    /// Something reaches the one who dialed, on this connection.
    pub fn reach_link(&mut self, id: u64, end: LinkEnd, bytes: Option<Bytes>) {
        let Some(dial) = self.links.dial_of(end, id) else { return };
        let Some(bytes) = bytes else {
            return self.tell_link(end, dial, LinkNews::Down(LinkLoss::Closed));
        };
        for frame in self.links.received(end, id, &bytes) {
            self.tell_link(end, dial, LinkNews::Frame(frame));
        }
    }

    /// The one who dialed learns something at its next turn, if it still runs and the link is not down.
    pub fn tell_link(&mut self, end: LinkEnd, dial: u64, news: LinkNews) {
        let LinkEnd { machine, incarnation, shard, link } = end;
        if self.machines[machine].incarnation == incarnation {
            self.note(machine, 41, [link, 0], || format!("shard {shard} link {link}: {news:?}"));
            self.arrive(machine, shard, Arrived::Link(end, dial, news));
        }
    }

    /// The process at the other end of a link is gone.
    pub fn link_lost_its_server(&mut self, end: LinkEnd, id: u64, server: usize) {
        let Some(dial) = self.links.dial_of(end, id) else { return };
        if self.machines[server].is_dark {
            let at_us = self.now_us + self.random.links.u64(SILENCE_US);
            return self.tell_later(at_us, end, dial, LinkNews::Down(LinkLoss::Timeout));
        }
        let at_us = self.arrival_us(server, end.machine);
        self.tell_later(at_us, end, dial, LinkNews::Down(LinkLoss::Reset));
    }

    /// A process that dialed is gone: the other ends learn it over the network, or much later if the power is off.
    pub fn drop_links(&mut self, machine: usize, incarnation: u64) {
        for end in self.links.of_process(machine, incarnation) {
            let Some(id) = self.links.close(end) else { continue };
            if self.machines[machine].is_dark {
                let us = self.random.links.u64(SILENCE_US);
                self.after(us, Event::ToServer { connection: id, bytes: None });
            } else {
                self.end_to_server(id, true);
            }
        }
    }

    /// Some link between machines breaks, before or after what is on its way.
    pub fn reset_link(&mut self) {
        let open = self.links.open();
        let Some((end, dial, id)) = self.random.faults.choice(&open).copied() else { return };
        let late = self.random.faults.bool();
        let Some(connection) = self.connections.get(&id) else { return };
        let behind_us = if late { connection.to_client_at_us } else { self.now_us };
        self.hits.count(if late { Fault::ResetAfter } else { Fault::ResetBefore });
        self.end_to_server(id, late);
        self.tell_later(behind_us, end, dial, LinkNews::Down(LinkLoss::Reset));
    }

    /// A shard takes in what happened to one of its links.
    pub fn take_link_news(&mut self, node: &mut Node, end: LinkEnd, dial: u64, news: LinkNews) {
        if !self.links.concerns(end, dial, &news) {
            return;
        }
        if end.link < PROBE_LINK_FIRST {
            let (now, core) = (self.now(node), &mut node.hosts[end.shard].core);
            let link = LinkId(end.link as u32);
            match news {
                LinkNews::Up => core.link_up(now, link),
                LinkNews::Frame(frame) => core.link_frame(now, link, frame),
                LinkNews::Down(loss) => core.link_down(now, link, loss),
            }
        } else if let Some(probe) = &mut node.probe {
            for (us, end, order) in probe.take(end, news) {
                self.after(us, Event::Order { end, order });
            }
        }
    }

    /// A shard wants something of one of its links.
    pub fn order_link(&mut self, node: &Node, shard: usize, link: LinkId, order: LinkOrder) {
        let LinkId(link) = link;
        let (machine, incarnation) = (node.machine, node.incarnation);
        self.carry_link(LinkEnd { machine, incarnation, shard, link: link.into() }, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: LinkEnd = LinkEnd { machine: 1, incarnation: 3, shard: 0, link: 7 };

    fn taken() -> (Links, u64) {
        let mut links = Links::default();
        let dial = links.dial(END);
        links.taken(END, 20);
        (links, dial)
    }

    const DOWN: LinkNews = LinkNews::Down(LinkLoss::Reset);

    #[test]
    fn frames_come_whole_and_in_order_however_their_bytes_are_cut() {
        let bytes: Vec<u8> = [&[0, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 0], &[0, 0, 0, 1, 9]].concat();
        for first in 0..=bytes.len() {
            let (mut links, _) = taken();
            let bytes = Bytes::copy_from_slice(&bytes);
            let mut frames = links.received(END, 20, &bytes.slice(..first));
            frames.extend(links.received(END, 20, &bytes.slice(first..)));
            assert_eq!(frames, [&[1, 2, 3][..], &[], &[9]]);
        }
    }

    #[test]
    fn what_comes_for_a_link_that_is_down_concerns_nobody() {
        let (mut links, dial) = taken();
        assert!(links.concerns(END, dial, &LinkNews::Up));
        assert!(links.concerns(END, dial, &DOWN));
        assert!(!links.concerns(END, dial, &DOWN));
        assert!(!links.concerns(END, dial, &LinkNews::Frame(Bytes::new())));
        assert!(links.received(END, 20, &Bytes::from_static(&[0, 0, 0, 0])).is_empty());
    }

    #[test]
    fn news_of_an_earlier_dial_do_not_concern_the_next_one() {
        let (mut links, dial) = taken();
        assert_eq!(links.dial_of(END, 20), Some(dial));
        assert!(links.concerns(END, dial, &DOWN));
        let again = links.dial(END);
        assert!(!links.concerns(END, dial, &LinkNews::Up));
        assert!(links.concerns(END, again, &LinkNews::Up));
        assert_eq!(links.dial_of(END, 20), None, "the connection was the earlier dial's");
    }

    #[test]
    fn a_number_of_another_process_is_another_link() {
        let (mut links, _) = taken();
        let next = LinkEnd { incarnation: 4, ..END };
        links.dial(next);
        assert_eq!((links.of_process(1, 3), links.of_process(1, 4)), (vec![END], vec![next]));
        assert_eq!((links.close(END), links.close(END), links.close(next)), (Some(20), None, None));
    }

    #[test]
    fn bytes_of_another_connection_are_not_taken() {
        assert!(taken().0.received(END, 21, &Bytes::from_static(&[0, 0, 0, 0])).is_empty());
    }
}
