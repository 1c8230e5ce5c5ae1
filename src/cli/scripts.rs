//! `tidemill scripts DIR`: shell scripts under the names of Kafka's own, so that runbooks go on as they are.
//!
//! A file is only written over when it was written here before.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::output::print;
use crate::client::ClientError;

/// The second line of every script, by which they are known again.
const MARK: &str = "# Written by tidemill scripts.";

/// Kafka's tools and ours.
const TOOLS: [(&str, &str); 13] = [
    ("kafka-topics.sh", "topics"),
    ("kafka-configs.sh", "configs"),
    ("kafka-consumer-groups.sh", "consumer-groups"),
    ("kafka-console-producer.sh", "console-producer"),
    ("kafka-console-consumer.sh", "console-consumer"),
    ("kafka-get-offsets.sh", "get-offsets"),
    ("kafka-delete-records.sh", "delete-records"),
    ("kafka-log-dirs.sh", "log-dirs"),
    ("kafka-dump-log.sh", "dump-log"),
    ("kafka-cluster.sh", "cluster"),
    ("kafka-storage.sh", "storage"),
    ("kafka-producer-perf-test.sh", "producer-perf-test"),
    ("kafka-consumer-perf-test.sh", "consumer-perf-test"),
];

const START: &str = r#"# kafka-server-start.sh [-daemon] FILE [--override KEY=VALUE]...
pid_file="${TIDEMILL_PID_FILE:-$(dirname "$0")/tidemill.pid}"
daemon=
if [ "$1" = "-daemon" ]; then
    daemon=yes
    shift
fi
if [ -n "$daemon" ]; then
    log="${TIDEMILL_LOG_FILE:-$(dirname "$0")/tidemill.out}"
    nohup "$tidemill" start "$@" > "$log" 2>&1 < /dev/null &
    echo $! > "$pid_file"
else
    echo $$ > "$pid_file"
    exec "$tidemill" start "$@"
fi
"#;

const STOP: &str = r#"# kafka-server-stop.sh: SIGTERM to the broker that kafka-server-start.sh has started.
pid_file="${TIDEMILL_PID_FILE:-$(dirname "$0")/tidemill.pid}"
if [ ! -f "$pid_file" ] || ! kill -s "${SIGNAL:-TERM}" "$(cat "$pid_file")" 2> /dev/null; then
    echo "No kafka server to stop"
    exit 1
fi
rm -f "$pid_file"
"#;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill scripts /opt/kafka/bin
  PATH=/opt/kafka/bin:$PATH kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --list

The scripts run this very binary; TIDEMILL names another one. kafka-server-start.sh writes the process id to
tidemill.pid beside it, or to TIDEMILL_PID_FILE, and kafka-server-stop.sh reads it there.")]
pub(super) struct Options {
    /// Where to write them; made if it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let binary = std::env::current_exe();
    let binary = binary.map_err(|error| ClientError::Usage(format!("cannot find this binary: {error}")))?;
    let written = write_all(&options.folder, &binary).map_err(ClientError::Usage)?;
    print(&format!("Wrote {written} scripts to {}.\n", options.folder.display()))
}

fn write_all(folder: &Path, binary: &Path) -> Result<usize, String> {
    let wrong = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(folder).map_err(|error| wrong(folder, error))?;
    let scripts = scripts(binary);
    // All or nothing: looked at before anything is written.
    for (name, _) in &scripts {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) if text.lines().nth(1) != Some(MARK) => {
                return Err(format!("{} is there and was not written by tidemill", path.display()));
            }
            _ => {}
        }
    }
    for (name, text) in &scripts {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| wrong(&path, error))?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).map_err(|error| wrong(&path, error))?;
    }
    Ok(scripts.len())
}

fn scripts(binary: &Path) -> Vec<(&'static str, String)> {
    let quoted = binary.to_string_lossy().replace('\'', r"'\''");
    let head = format!(
        "#!/bin/sh\n{MARK}\ntidemill=\"${{TIDEMILL:-}}\"\n[ -n \"$tidemill\" ] || tidemill='{quoted}'\n"
    );
    let tool = |(name, command): &(&'static str, &str)| {
        (*name, format!("{head}exec \"$tidemill\" {command} \"$@\"\n"))
    };
    let others = [("kafka-server-start.sh", START), ("kafka-server-stop.sh", STOP)];
    let others = others.map(|(name, text)| (name, format!("{head}{text}")));
    TOOLS.iter().map(tool).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_written_again_but_nothing_else_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let binary = Path::new("/opt/it's/tidemill");
        assert_eq!(write_all(folder.path(), binary).unwrap(), 15);
        assert_eq!(write_all(folder.path(), binary).unwrap(), 15);
        let topics = folder.path().join("kafka-topics.sh");
        let text = std::fs::read_to_string(&topics).unwrap();
        assert!(text.ends_with("exec \"$tidemill\" topics \"$@\"\n"), "{text}");
        assert!(text.contains(r"tidemill='/opt/it'\''s/tidemill'"), "{text}");
        std::fs::write(&topics, "#!/bin/sh\n# Mine.\n").unwrap();
        assert!(write_all(folder.path(), binary).unwrap_err().contains("was not written by tidemill"));
        assert!(std::fs::read_to_string(&topics).unwrap().contains("Mine"));
    }

    #[test]
    fn every_script_is_one_that_a_shell_can_read() {
        for (name, text) in scripts(Path::new("/bin/tidemill")) {
            let checked = std::process::Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
            assert!(checked.success(), "{name}");
        }
    }
}
