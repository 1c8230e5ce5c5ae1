//! The start and the end of a node: boot, one executor per shard, signals, a clean stop.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use nix::sys::signal::{SigSet, Signal};
use socket2::{Domain, Protocol, Socket, Type};

use super::bell::Bell;
use super::boot::{self, Boot};
use super::clock::Clock;
use super::door::Door;
use super::files::Files;
use super::helpers::{Helpers, Returns};
use super::intake::Budget;
use super::listener::{self, Inherited};
use super::memory;
use super::mesh::Mesh;
use super::moves::Busy;
use super::runtime::{Common, Runtime};
use crate::broker::peers::messages::Registration;
use crate::broker::{Checkpoints, ControlHost, ControlStart, PeersStart, Shard};
use crate::config::{NodeConfig, ShardCpus};
use crate::controller::{Controller, ControllerConfig, Endpoint, ShardId, ShardPlacement, features};
use crate::request::{ClusterView, Node};

/// A snapshot of the metadata is taken after so many entries or bytes of its log. All of them are in memory until then.
const SNAPSHOT_ENTRIES: u64 = 10_000;
const SNAPSHOT_BYTES: u64 = 32 << 10;

/// Entries of a shard's rings. The kernel finds the poll of a connection in a table whose size goes by this, and looks
/// there each time a shard goes to sleep: with the executor's 128, ten thousand idle connections add half to the cost
/// of a request at a low rate.
const RING_DEPTH: usize = 2048;

/// How long a start waits for a port that is in use, and how long between two looks.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
const PORT_PAUSE: Duration = Duration::from_millis(20);

/// Runs a node until it is told to stop. The error is for the operator.
pub fn run(config: NodeConfig) -> Result<(), String> {
    let started = Instant::now();
    boot::check_kernel()?;
    memory::settle();
    let cpus = shard_cpus(&config)?;
    boot::check_memlock(cpus.len())?;
    raise_descriptor_limit();
    // Before any thread exists, so that every thread leaves the signals to this one.
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;
    let boot = boot::boot(&config)?;
    let sockets = bind(&config)?;
    let bells: Vec<Arc<Bell>> = cpus.iter().map(|_| Arc::new(Bell::default())).collect();
    let descriptors = Descriptors::share_out(cpus.len(), boot.directories.len());
    let common = Arc::new(common(&config, cpus.len(), descriptors));
    let shards = plan_shards(config, boot, sockets, &bells, &common, started)?;
    let handles = cpus.iter().zip(shards).map(|(cpu, shard)| {
        LocalExecutorBuilder::new(Placement::Fixed(*cpu))
            .name(&format!("shard-{}", shard.id.0))
            .io_memory(64 << 10)
            .ring_depth(RING_DEPTH)
            .spawn(move || shard.run())
            .map_err(|error| format!("cannot start a shard on CPU {cpu}: {error}"))
    });
    let handles = handles.collect::<Result<Vec<_>, _>>()?;
    let (stop, bell) = (Arc::clone(&common), bells.first().cloned());
    let waiter = std::thread::Builder::new().name("signals".to_string());
    waiter
        .spawn(move || {
            while let Ok(signal) = signals.wait() {
                if stop.stop.swap(true, Ordering::Relaxed) {
                    super::die("a second signal: stopping without waiting");
                }
                super::say(&format!("{signal}: stopping"));
                bell.iter().for_each(|bell| bell.ring());
            }
        })
        .map_err(|error| format!("cannot start the signal thread: {error}"))?;
    for handle in handles {
        handle.join().map_err(|error| format!("a shard failed: {error}"))?;
    }
    super::say("stopped");
    Ok(())
}

/// The CPU of each shard.
fn shard_cpus(config: &NodeConfig) -> Result<Vec<usize>, String> {
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    let cpus: Vec<usize> = match &config.shard_cpus {
        ShardCpus::All => allowed.clone(),
        ShardCpus::List(list) => list.iter().map(|cpu| *cpu as usize).collect(),
    };
    if let Some(missing) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(format!(
            "shard.cpus names CPU {missing}, which this process may not use (it may use {allowed:?})"
        ));
    }
    if cpus.is_empty() {
        return Err("no CPU to run on".to_string());
    }
    let count = if config.shard_count == 0 { cpus.len() } else { config.shard_count as usize };
    Ok(cpus.iter().copied().cycle().take(count).collect())
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Best effort: with fewer descriptors fewer files stay open.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How the descriptors of the process are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// For connections and files.
    left: usize,
    /// For connections of the node, at most.
    connections: usize,
}

impl Descriptors {
    /// Connections get three quarters of what is left at most, and files what connections do not take. A shard's
    /// rings and bells take some, and what a helper opens for a moment.
    fn share_out(shards: usize, directories: usize) -> Self {
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let limit = limit.map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX));
        let open = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count);
        Self::of(limit, open + 16 * shards + 4 * directories + 16)
    }

    fn of(limit: usize, taken: usize) -> Self {
        let left = limit.saturating_sub(taken);
        Self { left, connections: (left - left / 4).max(1) }
    }

    /// Open files of a shard, those that are being sent among them, while the node has so many connections.
    pub(super) fn files_per_shard(&self, connections: usize, shards: usize) -> usize {
        // Those that are just being accepted do not count yet.
        let coming = (self.left / 64).min(256);
        let files = self.left.saturating_sub(connections + coming).max(self.left / 4);
        (files / shards.max(1)).max(4)
    }
}

/// The largest frame with its length prefix, in bytes.
fn frame_limit(config: &NodeConfig) -> usize {
    config.socket_request_max_bytes as usize + crate::wire::frame::PREFIX_BYTES
}

/// The shards' share of the machine's memory, in bytes for each.
fn budget_bytes(config: &NodeConfig, shards: usize) -> usize {
    let info = nix::sys::sysinfo::sysinfo().map(|info| info.ram_total()).unwrap_or(1 << 30);
    let share = info / 100 * u64::from(config.shard_memory_percent) / shards as u64;
    let share = config.queued_max_request_bytes.map_or(share, |max| share.min(max / shards as u64));
    usize::try_from(share).unwrap_or(usize::MAX).max(1 << 20)
}

fn common(config: &NodeConfig, shards: usize, descriptors: Descriptors) -> Common {
    Common {
        connections: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
        descriptors,
        busy: (0..shards).map(|_| Busy::default()).collect(),
        stop: AtomicBool::new(false),
        frame_limit_bytes: config.socket_request_max_bytes,
        budget: Budget::divide(budget_bytes(config, shards), frame_limit(config)),
        idle_ms: config.connections_max_idle_ms,
    }
}

/// Binds every listener, so that a port in use is known before anything starts.
fn bind(config: &NodeConfig) -> Result<Vec<(OwnedFd, SocketAddr)>, String> {
    let inherited = Inherited::of(config);
    let bound = config.listeners.iter().map(|listener| {
        let host = if listener.bind.host.is_empty() { "0.0.0.0" } else { listener.bind.host.as_str() };
        let shown = format!("{}://{host}:{}", listener.name, listener.bind.port);
        let failed = |what: &str, error: std::io::Error| format!("listener {shown}: {what}: {error}");
        let mut addresses =
            (host, listener.bind.port).to_socket_addrs().map_err(|error| failed("cannot resolve", error))?;
        let address = addresses.next().ok_or_else(|| format!("listener {shown}: no address"))?;
        let bind = || -> std::io::Result<(OwnedFd, SocketAddr)> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            inherited.give(&socket);
            socket.bind(&address.into())?;
            socket.listen(i32::try_from(config.socket_listen_backlog.max(1024)).unwrap_or(1024))?;
            let local = socket.local_addr()?.as_socket().unwrap_or(address);
            Ok((OwnedFd::from(socket), local))
        };
        while_in_use(PORT_PATIENCE, bind).map_err(|error| failed("cannot listen", error))
    });
    bound.collect()
}

/// Tries again for a while what fails because the address is in use. A killed process may be gone
/// before its listeners are: the kernel closes them when it has taken its io_uring apart.
fn while_in_use<T>(patience: Duration, mut bind: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let started = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && started.elapsed() < patience => {
                std::thread::sleep(PORT_PAUSE);
            }
            done => return done,
        }
    }
}

/// The endpoint of each listener as clients reach it.
fn endpoints(config: &NodeConfig, sockets: &[(OwnedFd, SocketAddr)]) -> Vec<Endpoint> {
    let own_name = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let listeners = config.listeners.iter().zip(sockets);
    listeners
        .map(|(listener, (_, bound))| {
            let told = listener.advertised.as_ref().unwrap_or(&listener.bind);
            let host = match told.host.as_str() {
                "" | "0.0.0.0" | "::" => own_name().unwrap_or_else(|| "localhost".to_string()),
                host => host.to_string(),
            };
            let port = if told.port == 0 { bound.port() } else { told.port };
            Endpoint { name: listener.name.as_str().into(), host: host.into(), port, security_protocol: 0 }
        })
        .collect()
}

/// Everything one executor is given.
struct PlannedShard {
    id: ShardId,
    core: Shard,
    /// On the controller's shard of a node that is not alone.
    peers: Option<PeersStart>,
    files: Files,
    mesh: Mesh,
    returns: Arc<Returns>,
    bell: Arc<Bell>,
    clock: Clock,
    common: Arc<Common>,
    /// On the controller's shard: the bound listeners, who may come in by them, and what is said
    /// when they open.
    listeners: Vec<OwnedFd>,
    /// Which of them open at once: other controllers have to come before anything else can.
    early: Vec<bool>,
    door: Option<Door>,
    greeting: Greeting,
    /// Held while the node runs.
    _locks: Vec<OwnedFd>,
}

/// The line that says that the node is ready.
struct Greeting {
    line: String,
    started: Instant,
}

impl PlannedShard {
    async fn run(mut self) {
        if let Some(peers) = self.peers {
            self.core.join_cluster(self.clock.now(), peers);
        }
        let runtime =
            Runtime::new(self.core, self.files, self.mesh, self.returns, self.bell, self.clock, self.common);
        let (listeners, greeting) = (self.listeners, self.greeting);
        if let Some(door) = self.door {
            let door = Rc::new(RefCell::new(door));
            runtime.state().door = Some(Rc::clone(&door));
            let opened = Rc::clone(&runtime);
            let numbered = listeners.into_iter().zip(self.early).enumerate();
            let (early, late): (Vec<_>, Vec<_>) = numbered.partition(|(_, (_, early))| *early);
            let open = move |runtime: &Rc<Runtime>, sockets: Vec<(usize, (OwnedFd, bool))>| {
                for (number, (socket, _)) in sockets {
                    let (runtime, door) = (Rc::clone(runtime), Rc::clone(&door));
                    glommio::spawn_local(listener::listen(runtime, socket, number, door)).detach();
                }
            };
            open(&opened, early);
            glommio::spawn_local(async move {
                opened.ready().await;
                open(&opened, late);
                super::say(&format!("{} ({} ms)", greeting.line, greeting.started.elapsed().as_millis()));
            })
            .detach();
        }
        runtime.run().await;
    }
}

fn plan_shards(
    config: NodeConfig,
    boot: Boot,
    sockets: Vec<(OwnedFd, SocketAddr)>,
    bells: &[Arc<Bell>],
    common: &Arc<Common>,
    started: Instant,
) -> Result<Vec<PlannedShard>, String> {
    let shard_count = u16::try_from(bells.len()).map_err(|_| "too many shards".to_string())?;
    let line = greeting(&config, &sockets, shard_count);
    let listeners = endpoints(&config, &sockets);
    let recovery_threads = config.recovery_threads_per_log_dir;
    let of_metadata = usize::from(boot.metadata_directory);
    let helpers = (0..boot.directories.len())
        .map(|number| Helpers::start(number, number == of_metadata, recovery_threads));
    let helpers = helpers.collect::<Result<Vec<_>, _>>();
    let helpers = helpers.map_err(|error| format!("cannot start helper threads: {error}"))?;
    let door = Door::new(&config, Arc::clone(&common.connections), common.descriptors.connections);
    let incarnation = uuid::Uuid::new_v4();
    let mut peers = peers_start(&config, &boot, &listeners, incarnation);
    let control = control_start(&config, &boot, shard_count, listeners, incarnation)?;
    let of_controllers = |listener: &crate::config::Listener| {
        !boot.quorum.is_alone && config.controller_listeners.contains(&listener.name)
    };
    let mut early: Vec<bool> = config.listeners.iter().map(of_controllers).collect();
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let node = Arc::new(Node { cluster_id: boot.cluster_id, shard_count, seed, config });
    let view = Arc::new(ClusterView::before_any(Arc::new(node.config.clone())));
    let facts = Arc::from(boot.facts);
    let mut door = Some(door);
    let mut control = Box::new(ControlHost::new(control));
    boot.offline.iter().for_each(|directory| control.offline_from_start(*directory));
    let mut control = Some(control);
    let mut sockets: Vec<_> = sockets.into_iter().map(|(socket, _)| socket).collect();
    let mut locks = boot.locks;
    let clock = Clock::start();
    let shards = (0..shard_count).zip(Mesh::weave(bells)).zip(bells);
    let planned = shards.map(|((id, mesh), bell)| {
        let returns = Returns::new(Arc::clone(bell));
        let files = Files::new(
            boot.directories.clone(),
            helpers.clone(),
            Arc::clone(&returns),
            common.descriptors.files_per_shard(0, usize::from(shard_count)),
        );
        PlannedShard {
            id: ShardId(id),
            peers: peers.take(),
            core: Shard::new(
                ShardId(id),
                Arc::clone(&node),
                Arc::clone(&view),
                Arc::clone(&facts),
                control.take(),
            ),
            files,
            mesh,
            returns,
            bell: Arc::clone(bell),
            clock,
            common: Arc::clone(common),
            listeners: std::mem::take(&mut sockets),
            early: std::mem::take(&mut early),
            door: door.take(),
            greeting: Greeting { line: line.clone(), started },
            _locks: std::mem::take(&mut locks),
        }
    });
    Ok(planned.collect())
}

fn control_start(
    config: &NodeConfig,
    boot: &Boot,
    shard_count: u16,
    listeners: Vec<Endpoint>,
    incarnation: uuid::Uuid,
) -> Result<ControlStart, String> {
    let controller = ControllerConfig {
        raft_id: boot.quorum.raft_id,
        voters: boot.quorum.voters.clone(),
        cluster_id: boot.cluster_id.as_str().into(),
        node: Arc::new(config.clone()),
        snapshot_entries: SNAPSHOT_ENTRIES,
        snapshot_bytes: SNAPSHOT_BYTES,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
    };
    Ok(ControlStart {
        controller: Controller::new(controller, boot.controller.clone())?,
        placement: ShardPlacement::new(config.node_id, shard_count, boot.log_directories),
        found: boot.found.clone(),
        incarnation,
        listeners,
        metadata_directory: boot.metadata_directory,
        checkpoints: Checkpoints::new(
            boot.stored.clone(),
            (boot.boot_id.clone(), boot.previous_epoch),
            config,
        ),
    })
}

/// What makes the node part of a cluster; `None` for one that is alone.
fn peers_start(
    config: &NodeConfig,
    boot: &Boot,
    listeners: &[Endpoint],
    incarnation: uuid::Uuid,
) -> Option<PeersStart> {
    if boot.quorum.is_alone {
        return None;
    }
    let is_controllers = |name: &str| config.controller_listeners.iter().any(|own| own == name);
    let supported = features::supported();
    let registration = Registration {
        node_id: config.node_id,
        cluster_id: boot.cluster_id.as_str().into(),
        incarnation,
        listeners: listeners.iter().filter(|listener| !is_controllers(&listener.name)).cloned().collect(),
        rack: config.rack.as_deref().map(Arc::from),
        directories: boot.directory_ids.iter().flatten().copied().collect(),
        features: supported
            .iter()
            .map(|feature| (feature.name.to_string(), feature.level_least, feature.level_most))
            .collect(),
    };
    Some(PeersStart {
        registration,
        is_broker: config.roles.broker,
        voters: boot.quorum.known_voters(config),
        previous_epoch: boot.previous_epoch,
        raft_id: boot.quorum.raft_id,
        endpoint: boot.quorum.endpoint(config, listeners),
        directory_ids: boot.directory_ids.clone(),
    })
}

fn greeting(config: &NodeConfig, sockets: &[(OwnedFd, SocketAddr)], shard_count: u16) -> String {
    let addresses: Vec<String> = sockets.iter().map(|(_, bound)| bound.to_string()).collect();
    let directories: Vec<String> = config.log_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let plural = if shard_count == 1 { "shard" } else { "shards" };
    format!(
        "ready on {} with {shard_count} {plural}, data in {}",
        addresses.join(", "),
        directories.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shared_between_connections_and_files() {
        let shared = Descriptors::of(256, 66);
        assert_eq!(shared.connections, 143);
        assert_eq!(
            [0, 100, 143, 500].map(|connections| shared.files_per_shard(connections, 2)),
            [94, 44, 23, 23]
        );
        let shared = Descriptors::of(20, 66);
        assert_eq!((shared.connections, shared.files_per_shard(0, 2)), (1, 4));
        let shared = Descriptors::of(20_000, 100);
        assert!(shared.connections > 10_000 && shared.files_per_shard(10_000, 1) > 9_000);
    }

    #[test]
    fn a_port_that_is_in_use_is_tried_again_for_a_while() {
        let mut left = 3;
        let mut bind = || {
            left -= 1;
            if left > 0 { Err(ErrorKind::AddrInUse.into()) } else { Ok(left) }
        };
        assert_eq!(while_in_use(Duration::from_secs(60), &mut bind).unwrap(), 0);
        let fails = |patience, kind: ErrorKind| {
            while_in_use(patience, || Err::<(), _>(kind.into())).unwrap_err().kind()
        };
        assert_eq!(fails(Duration::ZERO, ErrorKind::AddrInUse), ErrorKind::AddrInUse);
        let at_once = fails(Duration::MAX, ErrorKind::PermissionDenied);
        assert_eq!(at_once, ErrorKind::PermissionDenied);
    }
}
