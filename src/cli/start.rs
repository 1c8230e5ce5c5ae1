//! `tidemill start`: reads the configuration and runs the node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::NodeConfig;
use crate::shard::node;

/// Runs a node until it is told to stop. `overrides` are `key=value`, later ones winning over
/// earlier ones and over the file.
pub fn run(file: Option<PathBuf>, overrides: Vec<String>) -> ExitCode {
    match load(file.as_deref(), &overrides).and_then(node::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tidemill: {why}");
            ExitCode::FAILURE
        }
    }
}

fn load(file: Option<&Path>, overrides: &[String]) -> Result<NodeConfig, String> {
    let text = match file {
        // Properties files are Latin-1, in which every byte is a character.
        Some(path) => {
            let bytes =
                std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            Some(bytes.iter().map(|byte| char::from(*byte)).collect::<String>())
        }
        None => None,
    };
    let pairs = overrides.iter().map(|text| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("--override {text}: expected key=value"))?;
        Ok((key.trim().to_string(), value.trim().to_string()))
    });
    let pairs = pairs.collect::<Result<Vec<_>, String>>()?;
    let (config, warnings) = NodeConfig::load(text.as_deref(), &pairs)
        .map_err(|error| format!("the configuration cannot be used:\n{error}"))?;
    for warning in warnings {
        eprintln!("tidemill: warning: {warning}");
    }
    Ok(config)
}
