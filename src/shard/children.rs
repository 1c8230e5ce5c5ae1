//! Nodes that another process of ours starts: children that do not outlive it, the signals that end it, and ports for
//! them.

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

/// Starts a process that the kernel kills when this one ends, in whichever way. It is in a process group of its own: an
/// interrupt from the keyboard reaches this process alone, which decides. To be called on the main thread: the kernel
/// takes the end of the calling thread for the end.
///
/// # Errors
/// The process cannot be started.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let parent = getpid();
    let bind = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // A parent that ended before the line above is not heard of any more.
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(bind) };
    command.process_group(0).spawn()
}

/// Asks a child to stop cleanly; one that has ended is none to ask.
pub fn terminate(child: &Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
}

/// SIGINT and SIGTERM, kept from every thread that is started afterwards.
pub struct StopSignals(SigSet);

impl StopSignals {
    /// To be called before any thread is started.
    ///
    /// # Errors
    /// The signals cannot be blocked.
    pub fn block() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.extend([Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block()?;
        Ok(Self(signals))
    }

    /// Waits for the next one; its name.
    ///
    /// # Errors
    /// Nothing can be waited for.
    pub fn wait(&self) -> io::Result<&'static str> {
        Ok(self.0.wait()?.as_str())
    }
}

/// The first port of `count` in a row of the loopback that nobody listens on, at or above `first`, looked for in steps
/// of ten; `None` if there are none.
pub fn free_ports(first: u16, count: u16) -> Option<u16> {
    (first..=u16::MAX - count).step_by(10).find(|base| are_free(*base, count))
}

/// Whether nobody listens on any of `count` ports in a row of the loopback.
pub fn are_free(base: u16, count: u16) -> bool {
    // Each stays bound until all have been tried.
    let bound: Result<Vec<_>, _> =
        (0..count).map(|offset| TcpListener::bind(("127.0.0.1", base.saturating_add(offset)))).collect();
    bound.is_ok()
}

/// The CPUs that this process may use.
pub fn allowed_cpus() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_use_are_left_alone() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(!are_free(port, 1) && !are_free(port - 1, 2));
        assert!(free_ports(port, 1).is_some_and(|found| found > port));
    }

    #[test]
    fn a_child_that_is_asked_to_stop_ends_by_the_signal() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = spawn(Command::new("sleep").arg("600")).unwrap();
        terminate(&child);
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        terminate(&child);
    }
}
