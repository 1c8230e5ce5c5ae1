//! Text stories of one partition: commands in, effects out, as they are written in `tests/scenarios/*.txt`.
//!
//! A line `> command` is carried out; the indented lines below it are what came of it; every other line is prose.
//! `UPDATE_SCENARIOS=1 cargo test --test scenarios` writes what comes of the commands into the files, to be
//! reviewed as a difference. [`stage`] says which commands there are; [`cluster`] has several replicas play together.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod cluster;
mod shown;
mod stage;

use std::path::{Path, PathBuf};

use cluster::Cluster;

const INDENT: &str = "    ";

/// The story with what its commands give now in place of what it says.
fn played(story: &str) -> String {
    let mut cluster = Cluster::default();
    let mut told = String::new();
    for line in story.lines().filter(|line| !line.starts_with(INDENT)) {
        told.push_str(line);
        told.push('\n');
        if let Some(command) = line.strip_prefix("> ") {
            for shown in cluster.command(command) {
                told.push_str(&format!("{INDENT}{shown}\n"));
            }
        }
    }
    told
}

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|kind| kind == "txt"));
    found.sort();
    found
}

#[test]
fn every_story_goes_as_it_is_told() {
    let stories = stories();
    assert!(stories.len() >= 30, "{} stories", stories.len());
    let mut differences = String::new();
    for path in stories {
        let expected = std::fs::read_to_string(&path).unwrap();
        let told = played(&expected);
        if told == expected {
            continue;
        }
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&path, told).unwrap();
            continue;
        }
        let number = told.lines().zip(expected.lines()).take_while(|(new, old)| new == old).count();
        let line = |text: &str| text.lines().nth(number).unwrap_or("the end").to_owned();
        let (name, told, expected) = (path.file_name().unwrap(), line(&told), line(&expected));
        let line = number + 1;
        differences.push_str(&format!("{name:?}, line {line}:\n  expected {expected}\n  came     {told}\n"));
    }
    assert!(differences.is_empty(), "{differences}UPDATE_SCENARIOS=1 writes what came into the stories.");
}

#[test]
fn a_story_is_rewritten_below_its_commands_only() {
    let story = "Prose.\n\n> create\n    wrong\n> state\nmore prose\n";
    let told = played(story);
    assert!(told.starts_with("Prose.\n\n> create\n") && !told.contains("wrong"), "{told}");
    assert!(told.ends_with("more prose\n") && told.contains("\n    high watermark 0"), "{told}");
    assert_eq!(played(&told), told, "playing it again changes nothing");
}
