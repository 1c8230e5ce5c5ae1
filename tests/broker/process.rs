//! The broker's process: started with overrides in a directory of its own, stopped by signal, killed at the end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take; two busy cores are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory and the settings of a broker that may be started there again and again.
pub struct Home {
    directory: TempDir,
    pub overrides: Vec<String>,
}

/// A running broker.
pub struct Broker {
    child: Child,
    said: Arc<Said>,
    /// `127.0.0.1:port`
    pub address: String,
}

/// What a process has written on its standard error so far.
#[derive(Default)]
struct Said {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Home {
    /// Two shards and a free port, with these overrides on top.
    pub fn new(overrides: &[&str]) -> Self {
        let mut all = vec!["listeners=PLAINTEXT://127.0.0.1:0".to_owned(), "shard.count=2".to_owned()];
        all.extend(overrides.iter().map(|one| (*one).to_owned()));
        Self { directory: tempfile::tempdir().unwrap(), overrides: all }
    }

    /// Where the broker works; its data is in `tidemill-data`.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the data is.
    pub fn data(&self) -> PathBuf {
        self.path().join("tidemill-data")
    }

    /// The command that starts a broker here, with arguments before the overrides.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(self.path()).arg("start").args(arguments);
        for one in &self.overrides {
            command.args(["--override", one]);
        }
        command
    }

    /// Starts a broker that may have this many descriptors.
    pub fn start_with_descriptors(&self, limit: u32) -> Broker {
        let broker = self.command(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -Sn {limit}; ulimit -Hn {limit}; exec \"$0\" \"$@\"")]);
        shell.arg(broker.get_program()).args(broker.get_args()).current_dir(self.path());
        Broker::start(shell)
    }

    /// Starts a broker and waits until it is ready.
    pub fn start(&self) -> Broker {
        Broker::start(self.command(&[]))
    }

    /// Runs a broker that is expected to refuse to start: its exit code and its standard error.
    pub fn refused(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut failing = Process::spawn(self.command(arguments));
        let status = failing.exit_status();
        failing.said.wait_for(|lines, ended| ended.then(|| (status.code(), lines.join("\n"))))
    }
}

impl Broker {
    pub fn start(command: Command) -> Self {
        let process = Process::spawn(command);
        let address = process.said.wait_for(|lines, ended| {
            let address = lines.iter().find_map(|line| ready_address(line));
            assert!(
                address.is_some() || !ended,
                "the broker ended before it was ready:\n{}",
                lines.join("\n")
            );
            address
        });
        let Process { child, said } = process;
        Self { child, said, address }
    }

    /// Ends the process as a power cut would, except that the page cache stays.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code of the clean stop.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        exit_status(&mut self.child).code()
    }

    /// The exit code of the clean stop, and everything the broker has said.
    pub fn stop_and_tell(mut self) -> (Option<i32>, Vec<String>) {
        self.signal(Signal::SIGTERM);
        let code = exit_status(&mut self.child).code();
        self.said.wait_for(|_, ended| ended.then_some(()));
        (code, self.lines())
    }

    /// The exit code of a stop that has been asked for already.
    pub fn ended(mut self) -> Option<i32> {
        exit_status(&mut self.child).code()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits until a line of its standard error contains the text.
    pub fn wait_for_line(&self, text: &str) -> String {
        self.said.wait_for(|lines, ended| {
            let found = lines.iter().find(|line| line.contains(text)).cloned();
            assert!(found.is_some() || !ended, "the broker never said {text:?}:\n{}", lines.join("\n"));
            found
        })
    }

    /// What it has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.said.lock().0.clone()
    }

    /// How many sockets it has open.
    pub fn sockets(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let named = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        named.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The time its threads have run, in microseconds: the scheduler's sum, not its samples.
    pub fn cpu_us(&self) -> u64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let runs = threads
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("schedstat")).ok());
        runs.filter_map(|run| run.split(' ').next()?.parse::<u64>().ok()).sum::<u64>() / 1_000
    }

    /// Bytes of memory that belong to the process alone: neither shared nor of a file.
    pub fn memory_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    /// Bytes of memory in which the process is, with the pages of its executable: what `ps` and the benchmarks call
    /// its memory.
    #[allow(dead_code, reason = "not every crate that includes this file asks")]
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the broker said:\n{}", self.lines().join("\n"));
        }
    }
}

struct Process {
    child: Child,
    said: Arc<Said>,
}

impl Process {
    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Said::default());
        let (stderr, listening) = (child.stderr.take().unwrap(), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                listening.lock().0.push(line);
                listening.more.notify_all();
            }
            listening.lock().1 = true;
            listening.more.notify_all();
        });
        Self { child, said }
    }

    fn exit_status(&mut self) -> ExitStatus {
        exit_status(&mut self.child)
    }
}

impl Said {
    /// Who waited in vain panicked with the lines in hand: they are whole, and wanted all the more.
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something among the lines; it is also told whether there will be more.
    fn wait_for<T>(&self, found: impl Fn(&[String], bool) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lock();
        loop {
            if let Some(result) = found(&lines.0, lines.1) {
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain; so far:\n{}", lines.0.join("\n"));
            lines = self.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// `127.0.0.1:port` of the line that says that the broker is ready.
fn ready_address(line: &str) -> Option<String> {
    let rest = line.strip_prefix("tidemill: ready on ")?;
    Some(rest.split([' ', ',']).next()?.to_owned())
}

/// Waits for the end of a process; one that does not end fails the test.
fn exit_status(child: &mut Child) -> ExitStatus {
    until("the process ends", || child.try_wait().unwrap().ok_or("it still runs"))
}

/// Looks again and again until there is a result, as long as it is worth waiting; the error is the last word.
pub fn until<T, E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why:?}"),
            // Gives the processor to whoever is to bring the condition about.
            Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
        }
    }
}
