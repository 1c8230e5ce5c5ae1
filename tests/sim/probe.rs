//! What uses links before brokers dial each other: each process dials the other machines again and again, asks
//! something small, and sees that answers come in order. So the links meet every fault of the network in whole runs.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request};

use crate::links::{LinkEnd, LinkNews, LinkOrder};
use crate::world::{Event, World};

/// Numbers of its links begin here; a broker's are below.
pub const PROBE_LINK_FIRST: u64 = 1 << 32;
/// Requests on a link before it is closed.
const REQUESTS: i32 = 6;
const IN_FLIGHT: i32 = 2;
const PORT: u16 = 9092;

/// The probe of a process.
#[derive(Debug)]
pub struct Probe {
    hosts: Vec<String>,
    at: usize,
    link: u64,
    sent: i32,
    answered: i32,
    random: fastrand::Rng,
    /// Links that were up and answered everything.
    pub finished: u64,
}

/// An order, and after how many microseconds it is given.
type Later = (u64, LinkEnd, LinkOrder);

/// A request for the versions of all APIs.
fn request(correlation_id: i32) -> Bytes {
    let version = 0;
    let header = RequestHeader::default()
        .with_request_api_key(ApiVersionsRequest::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id);
    let mut body = BytesMut::new();
    header.encode(&mut body, ApiVersionsRequest::header_version(version)).expect("a header of ours");
    ApiVersionsRequest::default().encode(&mut body, version).expect("a request of ours");
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.extend_from_slice(&body);
    frame.freeze()
}

impl Probe {
    /// One that asks these hosts in turn.
    pub fn new(hosts: Vec<String>, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { hosts, at: 0, link: PROBE_LINK_FIRST, sent: 0, answered: 0, random, finished: 0 }
    }

    /// Dials the next machine after a while.
    fn next(&mut self, end: LinkEnd) -> Later {
        self.at += 1;
        self.link += 1;
        (self.sent, self.answered) = (0, 0);
        let host = self.hosts[self.at % self.hosts.len()].clone();
        let end = LinkEnd { link: self.link, ..end };
        (self.random.u64(1_000..200_000), end, LinkOrder::Dial { host, port: PORT })
    }

    /// Something happened to its link.
    pub fn take(&mut self, end: LinkEnd, news: LinkNews) -> Vec<Later> {
        if end.link != self.link {
            // It came in the turn in which the link was done with.
            return Vec::new();
        }
        match news {
            LinkNews::Down(_) => return vec![self.next(end)],
            LinkNews::Up => assert_eq!(self.sent, 0, "a link comes up once"),
            LinkNews::Frame(frame) => {
                let correlation_id = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
                assert_eq!(correlation_id, Some(self.answered), "answers on a link come in order");
                self.answered += 1;
            }
        }
        if self.answered == REQUESTS {
            self.finished += 1;
            return vec![(0, end, LinkOrder::Close), self.next(end)];
        }
        let mut orders = Vec::new();
        while self.sent < REQUESTS && self.sent - self.answered < IN_FLIGHT {
            orders.push((0, end, LinkOrder::Send(request(self.sent))));
            self.sent += 1;
        }
        orders
    }
}

/// The probe of a process that has begun.
pub fn start(world: &mut World, machine: usize) {
    let others = (0..world.machines.len()).filter(|other| *other != machine);
    let hosts: Vec<String> = others.map(|other| world.plan.host_of(other)).collect();
    if hosts.is_empty() {
        return;
    }
    let mut probe = Probe::new(hosts, world.random.links.u64(..));
    let incarnation = world.machines[machine].incarnation;
    let end = LinkEnd { machine, incarnation, shard: 0, link: PROBE_LINK_FIRST };
    let (us, end, order) = probe.next(end);
    if let Some(node) = &mut world.machines[machine].node {
        node.probe = Some(probe);
    }
    world.after(us, Event::Order { end, order });
}

/// Nobody probes any more: every link is closed. Since the faults ended each process has reached another one.
pub fn end(world: &mut World) {
    for machine in 0..world.machines.len() {
        let Some(node) = &mut world.machines[machine].node else { continue };
        let Some(probe) = node.probe.take() else { continue };
        let incarnation = node.incarnation;
        let has_had_time = world.now_us > node.started_us + 3_000_000;
        assert!(
            probe.finished > 0 || !has_had_time,
            "stuck: no link of machine {machine} came through: {probe:?}"
        );
        world.drop_links(machine, incarnation);
    }
}
