//! `tidemill start`: reads the configuration and runs the node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{ConfigError, NodeConfig, Warning, properties};
use crate::shard::node;

/// Runs a node until it is told to stop. Of several files each is put over those before it; `overrides` are
/// `key=value`, later ones winning over earlier ones and over the files.
pub fn run(files: &[PathBuf], overrides: &[String]) -> ExitCode {
    match load(files, overrides).and_then(node::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tidemill: {why}");
            ExitCode::FAILURE
        }
    }
}

fn load(files: &[PathBuf], overrides: &[String]) -> Result<NodeConfig, String> {
    let (text, pairs) = read_all(files, overrides)?;
    told(NodeConfig::load(text.as_deref(), &pairs))
}

/// As for a start, without its warnings.
pub(super) fn load_quietly(files: &[PathBuf], overrides: &[String]) -> Result<NodeConfig, String> {
    let (text, pairs) = read_all(files, overrides)?;
    NodeConfig::load(text.as_deref(), &pairs).map(|(config, _)| config).map_err(unusable)
}

fn told(loaded: Result<(NodeConfig, Vec<Warning>), ConfigError>) -> Result<NodeConfig, String> {
    let (config, warnings) = loaded.map_err(unusable)?;
    for warning in warnings {
        eprintln!("tidemill: warning: {warning}");
    }
    Ok(config)
}

fn unusable(error: ConfigError) -> String {
    format!("the configuration cannot be used:\n{error}")
}

/// The text of the first file, and the values that are put over it.
type Read = (Option<String>, Vec<(String, String)>);

fn read_all(files: &[PathBuf], overrides: &[String]) -> Result<Read, String> {
    let (first, further) = files.split_first().map_or((None, files), |(first, rest)| (Some(first), rest));
    let text = first.map(|path| read(path)).transpose()?;
    let mut pairs = Vec::new();
    for path in further {
        pairs.extend(over(path, &read(path)?)?);
    }
    for text in overrides {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("--override {text}: expected key=value"))?;
        pairs.push((key.trim().to_string(), value.trim().to_string()));
    }
    Ok((text, pairs))
}

/// Properties files are Latin-1, in which every byte is a character.
fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(bytes.iter().map(|byte| char::from(*byte)).collect())
}

/// The values of a file that is put over another.
fn over(path: &Path, text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = properties::parse(text)
        .map_err(|error| format!("{}, line {}: {} is no escape", path.display(), error.line, error.escape))?;
    Ok(entries.into_iter().map(|entry| (entry.key, entry.value.trim().to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_win_over_earlier_ones_and_overrides_over_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = [
            file("server.properties", "num.partitions=3\nnode.id=7\nshard.count=4\n"),
            file("plan.properties", "# found by measuring\nshard.count=2\nshard.cpus=0 \n"),
            file("own.properties", "num.partitions=5\n"),
        ];
        let config = load(&files, &["num.partitions=6".to_owned()]).unwrap();
        assert_eq!((config.node_id, config.shard_count, config.num_partitions), (7, 2, 6));
        assert_eq!(load(&files, &[]).unwrap().num_partitions, 5);
        let broken = file("broken.properties", "\na=\\u12\n");
        let why = load(&[files[0].clone(), broken], &[]).unwrap_err();
        assert!(why.ends_with("broken.properties, line 2: \\u12 is no escape"), "{why}");
        assert!(load(&[folder.path().join("none")], &[]).unwrap_err().starts_with("cannot read"));
    }
}
