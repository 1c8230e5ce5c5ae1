//! The group coordinator: text stories, and random clients over failing appends.
//!
//! A line `> command` of a story is carried out; the indented lines below it are what came of it; every other line is
//! prose. `UPDATE_SCENARIOS=1 cargo test --test group` writes what comes of the commands into the files, to be reviewed
//! as a difference. [`stage`] says which commands there are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod mixed;
mod random;
mod shown;
mod stage;

use std::path::{Path, PathBuf};

use stage::Stage;

const INDENT: &str = "    ";

/// The story with what its commands give now in place of what it says.
fn played(story: &str) -> String {
    let mut stage = Stage::default();
    let mut told = String::new();
    for line in story.lines().filter(|line| !line.starts_with(INDENT)) {
        told.push_str(line);
        told.push('\n');
        if let Some(command) = line.strip_prefix("> ") {
            for shown in stage.command(command) {
                told.push_str(&format!("{INDENT}{shown}\n"));
            }
        }
    }
    told
}

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/group");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|kind| kind == "txt"));
    found.sort();
    found
}

#[test]
fn every_story_goes_as_it_is_told() {
    let stories = stories();
    assert!(stories.len() >= 8, "{} stories", stories.len());
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
