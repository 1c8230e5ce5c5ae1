//! A storm of hostile frames: all accounted for, memory flat, the witness served, a clean stop and a whole log.

use std::time::{Duration, Instant};

use tidemill::wire::api::Listener;

use crate::attacker::Attacker;
use crate::process::Broker;
use crate::tally::Tally;
use crate::witness::{self, Reader};
use crate::*;

/// Connections that attack at once.
const ATTACKERS: u64 = 6;
const PARTS: u64 = 4;
/// Between two looks for topics that hostile requests have made.
const SWEEP_EVERY: Duration = Duration::from_millis(200);
/// What the broker's memory may grow by from the end of the first quarter to the end of the last.
const GROWTH_PERCENT_MAX: u64 = 5;
/// A run from here on is large. In a smaller one the first quarter does not fill what is bounded: 10,000
/// entries of the metadata's log until its snapshot, 1,000 fetch sessions, buffers kept by codecs.
const FRAMES_LARGE: u64 = 1_000_000;
/// What a smaller run may grow by beyond that: those bounds, and the allocator's pages of each thread.
const GROWTH_BYTES_FLOOR: u64 = 8 << 20;

#[test]
fn a_storm_of_hostile_frames_is_answered_or_closed_and_leaves_nothing_behind() {
    let _turn = turn();
    let frames = setting("HOSTILE_FRAMES", 60_000);
    let seed = setting("HOSTILE_SEED", fastrand::u64(..));
    eprintln!("HOSTILE_FRAMES={frames} HOSTILE_SEED={seed}");
    let controller = free_address();
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://{controller}");
    let mut home =
        Home::new(&["log.segment.delete.delay.ms=1000", "controller.listener.names=CONTROLLER", &listeners]);
    let broker = home.start();
    let world = world(&broker);
    let sockets = broker.sockets();
    let stop = AtomicBool::new(false);
    let (tally, memory, testimony) = std::thread::scope(|scope| {
        let witness = scope.spawn(|| witness::testify(&broker.address, &stop));
        let sweeper = scope.spawn(|| sweep(&broker.address, &world, &stop));
        let over = Over(&stop);
        let storm = storm((&broker, &controller), &world, seed, frames);
        drop(over);
        sweeper.join().unwrap();
        let testimony = witness.join().unwrap().expect("the witness is served");
        let (tally, memory) = storm.unwrap_or_else(|wrong| panic!("HOSTILE_SEED={seed}: {wrong}"));
        (tally, memory, testimony)
    });
    eprintln!("{tally}");
    eprintln!("memory after each quarter: {memory:?}; closed: {:?}", closes::reasons(&broker));
    eprintln!("{testimony:?}");
    judge(&tally, &memory, frames);
    process::until("connections that ended are closed", || {
        let now = broker.sockets();
        if now <= sockets { Ok(()) } else { Err((now, sockets)) }
    });
    assert_eq!(closes::alarms(&broker), Vec::<String>::new());
    let (code, said) = broker.stop_and_tell();
    assert_eq!(code, Some(0), "a clean stop: {said:#?}");
    let counted = closes::counted(&said);
    let seen = tally.closed_connections..=tally.closed_connections + tally.left_connections;
    assert!(seen.contains(&counted), "the broker counted {counted} closed connections, seen were {seen:?}");
    eprintln!(
        "the broker counted {counted} connections closed for what was sent on them, seen were {seen:?}"
    );
    home.overrides.push("auto.create.topics.enable=false".to_owned());
    let again = home.start();
    let whole = Reader::new(&again.address).read_to(&testimony.written);
    whole.expect("every acknowledged record is there after a restart");
    assert_eq!(again.stop(), Some(0));
}

/// An address of this machine that nobody uses.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Ends what goes on beside the storm, also when the storm panics: the test would wait for it for ever.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn judge(tally: &Tally, memory: &[Memory], frames: u64) {
    assert_eq!(tally.missed(), [], "every API and version is hit");
    let total = tally.total();
    assert!(total.frames >= frames, "{total}");
    assert!(total.valid_up_to_body * 2 >= total.frames, "half of them valid up to the body: {total}");
    let (first, last) = (&memory[0], &memory[memory.len() - 1]);
    for (first, last) in [(first.own_bytes, last.own_bytes), (first.resident_bytes, last.resident_bytes)] {
        let share = first * GROWTH_PERCENT_MAX / 100;
        let growth = if frames < FRAMES_LARGE { share.max(GROWTH_BYTES_FLOOR) } else { share };
        let most = first + growth;
        assert!(last <= most, "memory grew from {first} to {last} bytes: {memory:?}");
    }
}

/// The topics that are attacked, and the one that is not.
pub fn world(broker: &Broker) -> World {
    let mut cluster = witness::cluster(&broker.address);
    let names = [("target-of-one", 1), ("target-of-three", 3)];
    let mut admin = Admin::new(witness::cluster(&broker.address), process::PATIENCE);
    for (name, partitions) in names.into_iter().chain([(witness::TOPIC, witness::PARTITIONS)]) {
        let topic =
            NewTopic { name: name.to_owned(), partitions, replication_factor: -1, ..NewTopic::default() };
        admin.create_topic(&topic).unwrap();
        cluster.partitions(name, false).unwrap();
    }
    let described = cluster.describe(None, false).unwrap();
    let targets = names.into_iter().map(|(name, partitions)| {
        let found = described.iter().find(|topic| topic.name.as_ref().is_some_and(|n| n.0.as_str() == name));
        Target { name: name.to_owned(), id: found.unwrap().topic_id, partitions }
    });
    let passing = (0..8).map(|n| format!("passing-{n}")).collect();
    World { targets: targets.collect(), passing, arsenal: Arsenal::new() }
}

/// Deletes what hostile requests have created, so that a storm of any length has the same topics.
fn sweep(address: &str, world: &World, stop: &AtomicBool) {
    let mut admin = Admin::new(witness::cluster(address), process::PATIENCE);
    while !stop.load(Ordering::Relaxed) {
        std::thread::park_timeout(SWEEP_EVERY);
        let there = admin.list_topics().unwrap();
        let stays = |name: &str| {
            name == witness::TOPIC
                || name == tidemill::group::OFFSETS_TOPIC
                || world.targets.iter().any(|target| target.name == name)
        };
        let made: Vec<_> =
            there.iter().map(|topic| topic.name.as_str()).filter(|name| !stays(name)).collect();
        // All with one request: one after the other they would not keep up with the storm. A hostile request may
        // have deleted some meanwhile.
        if !made.is_empty() {
            admin.delete_topics(&made).unwrap();
        }
    }
}

/// All frames in four parts, and the broker's memory after each.
/// All but one of the attackers come as clients, that one as a broker that asks the controller.
fn storm(
    (broker, controller): (&Broker, &str),
    world: &World,
    seed: u64,
    frames: u64,
) -> Result<(Tally, Vec<Memory>), String> {
    let (mut tally, mut memory) = (Tally::default(), Vec::new());
    for part in 0..PARTS {
        let started = Instant::now();
        let tallies = std::thread::scope(|scope| {
            let attackers = (0..ATTACKERS).map(|number| {
                let seed = seed.wrapping_add((part * ATTACKERS + number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                scope.spawn(move || {
                    let mut attacker = match number {
                        0 => Attacker::new(controller, world, seed, Listener::Controller),
                        _ => Attacker::new(&broker.address, world, seed, Listener::Client),
                    };
                    attacker.attack(frames.div_ceil(PARTS * ATTACKERS))?;
                    Ok(attacker.tally)
                })
            });
            let attackers: Vec<_> = attackers.collect();
            attackers.into_iter().map(|one| one.join().unwrap()).collect::<Result<Vec<_>, String>>()
        })?;
        tallies.iter().for_each(|one| tally.add(one));
        memory.push(settled_memory(broker));
        let settled = &memory[memory.len() - 1];
        eprintln!("part {part}: {} ms, {settled:?}", started.elapsed().as_millis());
    }
    Ok((tally, memory))
}

/// What a broker holds.
#[derive(Clone, Debug)]
pub struct Memory {
    /// With the pages of its executable.
    pub resident_bytes: u64,
    /// What is not of a file.
    pub own_bytes: u64,
}

/// The least memory of two seconds in which nobody attacks.
pub fn settled_memory(broker: &Broker) -> Memory {
    let now = || Memory { resident_bytes: broker.resident_bytes(), own_bytes: broker.memory_bytes() };
    let until = Instant::now() + Duration::from_secs(2);
    let mut least = now();
    while Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(50));
        let now = now();
        least.resident_bytes = least.resident_bytes.min(now.resident_bytes);
        least.own_bytes = least.own_bytes.min(now.own_bytes);
    }
    least
}
