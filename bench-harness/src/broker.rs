//! Brokers under test: how each is started, found, and stopped. A broker that the harness starts gets a
//! directory of its own and free ports on the loopback, and both go with it; nothing outlives the harness,
//! killed or not.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::admin::Admin;
use crate::floor::Append;
use crate::host::{self, Layout, Usage};
use crate::kafka;

/// A broker that does not answer within this time has failed to start.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a broker may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How to get a broker.
#[derive(Clone, Debug)]
pub enum Recipe {
    /// The harness's own minimal program.
    Floor {
        /// How it writes.
        append: Append,
        /// Whether an answer waits until its bytes are durable.
        flush: bool,
    },
    /// A binary of Tidemill, run as `PATH start FILE.properties`.
    Tidemill {
        /// Its name in tables.
        name: &'static str,
        /// The binary.
        binary: PathBuf,
        /// `key=value` lines that come last.
        settings: Vec<String>,
    },
    /// Apache Kafka from the jars in a folder, with further settings.
    Kafka {
        /// The folder of the jars.
        jars: PathBuf,
        /// `key=value` lines that come last.
        settings: Vec<String>,
    },
    /// Somebody else's broker.
    Running {
        /// Where it listens.
        bootstrap: String,
        /// Its process, if its CPU is to be read.
        pid: Option<u32>,
    },
}

impl Recipe {
    /// The yardstick.
    pub const FLOOR: Recipe = Recipe::Floor { append: Append::Plain, flush: false };

    /// The contender's name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Recipe::Floor { append, .. } => append.name(),
            Recipe::Tidemill { name, .. } => name,
            Recipe::Kafka { .. } => "kafka",
            Recipe::Running { .. } => "broker",
        }
    }

    /// Tidemill under its own name.
    pub fn tidemill(binary: PathBuf) -> Recipe {
        Recipe::Tidemill { name: "tidemill", binary, settings: Vec::new() }
    }

    /// The same with further settings, which win; a broker that is not started by settings keeps its own.
    pub fn with_settings(&self, more: &[String]) -> Recipe {
        let mut recipe = self.clone();
        match &mut recipe {
            Recipe::Tidemill { settings, .. } | Recipe::Kafka { settings, .. } => {
                settings.extend_from_slice(more)
            }
            Recipe::Floor { .. } | Recipe::Running { .. } => {}
        }
        recipe
    }

    /// What it is a version of; empty where that cannot be told.
    pub fn version(&self) -> String {
        match self {
            Recipe::Kafka { .. } => kafka::VERSION.to_owned(),
            Recipe::Tidemill { binary, .. } if std::env::current_exe().ok().as_ref() != Some(binary) => {
                host::spoken(Command::new(binary).arg("--version")).replace("tidemill ", "")
            }
            Recipe::Floor { .. } | Recipe::Tidemill { .. } => env!("CARGO_PKG_VERSION").to_owned(),
            Recipe::Running { .. } => String::new(),
        }
    }

    /// Whether every run gets a new process: the floor cannot delete what a run wrote.
    pub fn fresh_for_each_run(&self) -> bool {
        matches!(self, Recipe::Floor { .. })
    }
}

/// A directory that goes when its owner goes.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new directory under `parent`.
    pub fn new(parent: &Path, name: &str) -> Result<Scratch> {
        for attempt in 0..1000 {
            let path = parent.join(format!("bench-{name}-{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context(format!("creating {}", path.display())),
            }
        }
        bail!("no free name for a directory under {}", parent.display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// A broker that answers.
pub struct Broker {
    /// The contender's name.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process, when known.
    pub pid: Option<u32>,
    /// From the start of the process to its first answer.
    pub start_up: Option<Duration>,
    /// Resident bytes when it first answered and had rested ([`Place::rest`]).
    pub resident_at_start_bytes: Option<u64>,
    /// How it was started, in a form that means something on another machine; empty for one that was there before.
    pub command: String,
    /// The lines of its settings, in the same form.
    pub settings: Vec<String>,
    /// Whether topics can be created and deleted.
    pub has_topics: bool,
    child: Option<Running>,
}

/// The process is stopped before its directory goes: fields are dropped in order.
struct Running {
    process: Process,
    scratch: Scratch,
    command: Command,
    place: Place,
}

/// How a broker is stopped before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is asked to.
    Clean,
    /// It is killed.
    Kill,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Process {
    /// Asks it to end, and kills it where it does not.
    fn stop(&mut self) {
        let pid = Pid::from_raw(self.0.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where brokers run and keep their data.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whether broker and load share CPUs.
    pub layout: Layout,
    /// The CPUs that the broker may use.
    pub broker_cpus: Vec<usize>,
    /// The CPUs of the load.
    pub load_cpus: Vec<usize>,
    /// The folder in which scratch directories are made.
    pub data: PathBuf,
    /// How long a broker rests before its memory is read for the first time.
    pub rest: Duration,
}

impl Place {
    /// The CPUs of a layout, out of those that the harness may use.
    pub fn new(layout: Layout, cpus: &[usize], data: PathBuf, rest: Duration) -> Place {
        let (broker_cpus, load_cpus) = (layout.broker_cpus(cpus).to_vec(), layout.load_cpus(cpus).to_vec());
        Place { layout, broker_cpus, load_cpus, data, rest }
    }

    /// How many CPUs broker and load use together.
    pub fn cpu_count(&self) -> usize {
        let more = self.load_cpus.iter().filter(|cpu| !self.broker_cpus.contains(cpu));
        self.broker_cpus.len() + more.count()
    }

    /// Moves this thread to the broker's CPUs, for the moment in which it starts the broker: a child inherits them.
    pub fn enter_broker(&self) -> Result<()> {
        host::pin(&self.broker_cpus)
    }

    /// Moves this thread to the CPUs of the load.
    pub fn enter_load(&self) -> Result<()> {
        host::pin(&self.load_cpus)
    }
}

impl Broker {
    /// Follows a recipe until the broker answers.
    pub fn start(recipe: &Recipe, place: &Place) -> Result<Broker> {
        if let Recipe::Running { bootstrap, pid } = recipe {
            return Broker::attach(bootstrap, *pid);
        }
        let scratch = Scratch::new(&place.data, recipe.name())?;
        let port = free_port()?;
        let mut command = command(recipe, place, scratch.path(), port)?;
        let log = scratch.path().join("output.txt");
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        tie_to_this_process(&mut command);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (process, start_up) = spawn(&mut command, place, address, &log)?;
        std::thread::sleep(place.rest);
        let pid = process.0.id();
        Ok(Broker {
            name: recipe.name(),
            address,
            pid: Some(pid),
            start_up: Some(start_up),
            resident_at_start_bytes: Some(Usage::of(pid)?.resident_bytes),
            command: in_words(&command, recipe, scratch.path()),
            settings: settings_of(scratch.path()),
            has_topics: !matches!(recipe, Recipe::Floor { .. }),
            child: Some(Running { process, scratch, command, place: place.clone() }),
        })
    }

    fn attach(bootstrap: &str, pid: Option<u32>) -> Result<Broker> {
        let mut addresses = bootstrap.to_socket_addrs().with_context(|| format!("looking up {bootstrap}"))?;
        let address = addresses.next().with_context(|| format!("{bootstrap} has no address"))?;
        Admin::connect(address)?.answers()?;
        Ok(Broker {
            name: "broker",
            address,
            pid,
            start_up: None,
            resident_at_start_bytes: None,
            command: String::new(),
            settings: Vec::new(),
            has_topics: true,
            child: None,
        })
    }

    /// Resident bytes at this moment; 0 where the process is not known.
    pub fn resident_bytes(&self) -> u64 {
        self.pid.and_then(|pid| Usage::of(pid).ok()).map_or(0, |usage| usage.resident_bytes)
    }

    /// Stops the broker and starts it again with what it has stored. Returns how long it took to stop, and from the
    /// start of the process to its first answer.
    pub fn restart(&mut self, how: Stop) -> Result<(Duration, Duration)> {
        let running = self.child.as_mut().context("a broker that was there before is not started again")?;
        let asked = Instant::now();
        if how == Stop::Kill {
            running.process.0.kill()?;
        }
        running.process.stop();
        let (stop, log) = (asked.elapsed(), running.scratch.path().join("output.txt"));
        let (process, start_up) = spawn(&mut running.command, &running.place, self.address, &log)?;
        self.pid = Some(process.0.id());
        running.process = process;
        Ok((stop, start_up))
    }

    /// Fails when the process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(running) = &mut self.child
            && let Some(status) = running.process.0.try_wait()?
        {
            bail!("{} ended by itself: {status}", self.name);
        }
        Ok(())
    }
}

/// Starts the process on the broker's CPUs, and waits for its first answer.
fn spawn(
    command: &mut Command,
    place: &Place,
    address: SocketAddr,
    log: &Path,
) -> Result<(Process, Duration)> {
    place.enter_broker()?;
    let started = Instant::now();
    let spawned = command.spawn();
    place.enter_load()?;
    let child = spawned.with_context(|| format!("starting {:?}", command.get_program()))?;
    let mut process = Process(child);
    let start_up = await_answer(&mut process, address, started, log)?;
    Ok((process, start_up))
}

/// Lets the child end when this process ends, however that is.
pub fn tie_to_this_process(command: &mut Command) {
    // SAFETY: prctl is one system call, safe between fork and exec.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}

/// The lines of a properties file: of each key the last.
pub fn properties(lines: &[String]) -> String {
    let key = |line: &String| line.split('=').next().unwrap_or("").trim().to_owned();
    let last =
        |(at, line): &(usize, &String)| !lines.iter().skip(at + 1).any(|later| key(later) == key(line));
    lines.iter().enumerate().filter(last).map(|(_, line)| format!("{line}\n")).collect()
}

fn command(recipe: &Recipe, place: &Place, scratch: &Path, port: u16) -> Result<Command> {
    let data = scratch.join("data");
    match recipe {
        Recipe::Floor { append, flush } => {
            fs::create_dir(&data)?;
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("serve-floor").arg("--port").arg(port.to_string()).arg("--data").arg(&data);
            if *append != Append::Plain {
                command.arg("--append").arg(append.argument());
            }
            command.args(flush.then_some("--flush"));
            Ok(command)
        }
        Recipe::Tidemill { binary, settings, .. } => {
            let file = scratch.join("server.properties");
            let shards = place.broker_cpus.len();
            let mut lines = vec![
                format!("listeners=PLAINTEXT://127.0.0.1:{port}"),
                format!("log.dirs={}", data.display()),
                format!("shard.count={shards}"),
            ];
            lines.extend(settings.iter().cloned());
            fs::write(&file, properties(&lines))?;
            let mut command = Command::new(binary);
            command.arg("start").arg(file).current_dir(scratch);
            Ok(command)
        }
        Recipe::Kafka { jars, settings } => kafka::command(jars, settings, scratch, port, free_port()?),
        Recipe::Running { .. } => bail!("a running broker is not started"),
    }
}

/// A command without the folders of this machine: they are named by what they are.
fn in_words(command: &Command, recipe: &Recipe, scratch: &Path) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let jars = match recipe {
        Recipe::Kafka { jars, .. } => fs::canonicalize(jars).ok(),
        _ => None,
    };
    let word = |word: &std::ffi::OsStr| {
        let word = without_scratch(&word.to_string_lossy(), scratch);
        jars.as_ref().map_or(word.clone(), |jars| word.replace(&jars.display().to_string(), "libs"))
    };
    std::iter::once(program).chain(command.get_args().map(word)).collect::<Vec<String>>().join(" ")
}

fn without_scratch(text: &str, scratch: &Path) -> String {
    text.replace(&format!("{}/", scratch.display()), "")
}

/// The settings that a recipe wrote into its scratch directory.
fn settings_of(scratch: &Path) -> Vec<String> {
    let text = fs::read_to_string(scratch.join("server.properties")).unwrap_or_default();
    text.lines().map(|line| without_scratch(line, scratch)).collect()
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn await_answer(
    process: &mut Process,
    address: SocketAddr,
    started: Instant,
    log: &Path,
) -> Result<Duration> {
    loop {
        if Admin::connect(address).and_then(|mut admin| admin.answers()).is_ok() {
            return Ok(started.elapsed());
        }
        let ended = process.0.try_wait()?;
        if ended.is_some() || started.elapsed() > START_PATIENCE || host::interrupted() {
            let said = fs::read_to_string(log).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(15).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            let how = ended.map_or("did not answer".to_owned(), |status| format!("ended: {status}"));
            bail!("the broker {how}; it said:\n{}", last.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_settings_name_no_folder_of_this_machine() {
        let scratch = Scratch::new(&std::env::temp_dir(), "words").unwrap();
        let jars = scratch.path().join("cache/kafka/libs");
        fs::create_dir_all(&jars).unwrap();
        let home = scratch.path().join("run");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("server.properties"), format!("log.dirs={}/data\na=1\n", home.display()))
            .unwrap();
        let mut command = Command::new("/usr/bin/java");
        command.args(["-cp", &format!("{}/*", fs::canonicalize(&jars).unwrap().display()), "kafka.Kafka"]);
        command.arg(home.join("server.properties"));
        let recipe = Recipe::Kafka { jars, settings: Vec::new() };
        assert_eq!(in_words(&command, &recipe, &home), "java -cp libs/* kafka.Kafka server.properties");
        assert_eq!(settings_of(&home), ["log.dirs=data", "a=1"]);
    }

    #[test]
    fn of_each_key_the_last_line_wins() {
        let lines = ["a=1", "b.c=2", "a=3", "a.b=4"].map(str::to_owned);
        assert_eq!(properties(&lines), "b.c=2\na=3\na.b=4\n");
    }

    #[test]
    fn settings_reach_the_brokers_that_are_started_by_settings() {
        let more = ["x=1".to_owned()];
        let recipe = Recipe::tidemill(PathBuf::from("t")).with_settings(&more).with_settings(&more);
        assert!(matches!(recipe, Recipe::Tidemill { settings, .. } if settings.len() == 2));
        assert!(matches!(Recipe::FLOOR.with_settings(&more), Recipe::Floor { .. }));
    }
}
