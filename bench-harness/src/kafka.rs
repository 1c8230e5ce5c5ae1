//! Apache Kafka as a contender: fetched once from Maven into a cache folder, formatted and started as
//! KRaft nodes that are controller and broker, with the heap and the collector that its own start
//! script gives it. Its tools are fetched apart, so that the broker's class path is what it is in
//! Kafka's own distribution.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::broker::{CLUSTER_ID, Member, done};

/// The version that Tidemill is measured against.
pub const VERSION: &str = "4.3.1";

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemill.bench</groupId>
  <artifactId>kafka-jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>ARTIFACT</artifactId>
      <version>VERSION</version>
    </dependency>
  </dependencies>
</project>
"#;

/// What `kafka-server-start.sh` passes to Java when nothing else is set.
const JAVA_OPTIONS: [&str; 8] = [
    "-Xms1G",
    "-Xmx1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// The folder of the broker's jars under `cache`, fetched with Maven when it is not there.
pub fn jars(cache: &Path) -> Result<PathBuf> {
    fetch(&cache.join(format!("kafka-{VERSION}")), "kafka_2.13")
}

/// The folder of the jars of Kafka's command-line tools.
pub fn tools_jars(cache: &Path) -> Result<PathBuf> {
    fetch(&cache.join(format!("kafka-tools-{VERSION}")), "kafka-tools")
}

/// Copies an artifact of Kafka and what it needs into `home`. Maven's own store is tried first, so that a filled one
/// needs no network.
fn fetch(home: &Path, artifact: &str) -> Result<PathBuf> {
    let (jars, done) = (home.join("libs"), home.join("complete"));
    if done.exists() {
        return Ok(jars);
    }
    eprintln!("fetching {artifact} {VERSION} from Maven into {}", home.display());
    fs::create_dir_all(home)?;
    fs::write(home.join("pom.xml"), POM.replace("VERSION", VERSION).replace("ARTIFACT", artifact))?;
    let copy = |more: &[&str]| {
        let mut maven = Command::new("mvn");
        maven.current_dir(home).args(["-q", "-B", "dependency:copy-dependencies"]).args(more);
        maven.args(["-DoutputDirectory=libs", "-DincludeScope=runtime"]).stdin(Stdio::null());
        maven
    };
    let why = "running mvn: Maven and Java 17 are needed for what is Kafka's";
    let filled = copy(&["-o"]).stdout(Stdio::null()).stderr(Stdio::null()).status().context(why)?;
    if !filled.success() {
        let status = copy(&[]).status().context(why)?;
        ensure!(status.success(), "mvn failed: {status}");
    }
    ensure!(jars.join(format!("{artifact}-{VERSION}.jar")).exists(), "Maven brought no {artifact}");
    fs::write(done, "")?;
    Ok(jars)
}

/// The lines that `--kafka-config` gives: itself when it is `KEY=VALUE`, else those of the file it names.
pub fn settings(argument: &str) -> Result<Vec<String>> {
    if argument.contains('=') {
        return Ok(vec![argument.to_owned()]);
    }
    let text = fs::read_to_string(argument).with_context(|| format!("reading {argument}"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    let odd = lines.iter().find(|line| !line.contains('=') || line.ends_with('\\'));
    ensure!(odd.is_none(), "{argument}: {} is not KEY=VALUE in one line", odd.map_or("", String::as_str));
    Ok(lines)
}

/// Formats a log directory under `scratch` and returns the command that starts the node.
pub fn command(jars: &Path, settings: &[String], scratch: &Path, member: &Member) -> Result<Command> {
    let file = scratch.join("server.properties");
    fs::write(&file, properties(&scratch.join("data"), settings, member))?;
    let class_path = format!("{}/*", fs::canonicalize(jars)?.display());
    let mut format = Command::new("java");
    format.args(["-cp", &class_path, "kafka.tools.StorageTool", "format"]);
    format.args(["-t", CLUSTER_ID, "-c"]).arg(&file).current_dir(scratch);
    done(&mut format, "kafka-storage format")?;
    let mut start = Command::new("java");
    start.args(JAVA_OPTIONS).args(["-cp", &class_path, "kafka.Kafka"]).arg(&file).current_dir(scratch);
    Ok(start)
}

fn properties(data: &Path, settings: &[String], member: &Member) -> String {
    let mut lines = member.lines();
    lines.push(format!("log.dirs={}", data.display()));
    // What a run wrote goes at once, so that the next run finds the page cache free.
    lines.push("log.segment.delete.delay.ms=100".to_owned());
    lines.extend(settings.iter().cloned());
    crate::broker::properties(&lines)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_user_come_last_and_win() {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let text = properties(
            Path::new("/d"),
            &["num.io.threads=2".to_owned()],
            &Member { id: 1, address, control: vec![address] },
        );
        assert!(text.ends_with("num.io.threads=2\n"));
        assert!(text.contains("log.dirs=/d\n"));
    }

    #[test]
    fn settings_come_as_a_line_or_from_a_file() {
        let path = std::env::temp_dir().join(format!("bench-settings-{}", std::process::id()));
        let named = path.to_str().unwrap();
        fs::write(&path, "# why\n\n num.io.threads=2\nlog.flush.interval.messages=1\n").unwrap();
        assert_eq!(settings("a=b").unwrap(), ["a=b"]);
        assert_eq!(settings(named).unwrap(), ["num.io.threads=2", "log.flush.interval.messages=1"]);
        fs::write(&path, "num.io.threads 2\n").unwrap();
        assert!(settings(named).is_err());
        fs::remove_file(&path).unwrap();
        assert!(settings(named).is_err());
    }
}
