//! `docs/OPERATING.md` names keys that there are and lines that the broker says.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What looks like a key and is none: files, and settings of the kernel.
const NOT_KEYS: [&str; 5] =
    ["server.properties", "meta.properties", "directory.id", "partition.metadata", "tidemill.pid"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What stands between single backticks of a text, outside blocks of code.
fn quoted(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn is_like_a_key(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let is_word = |part: &&str| part.bytes().all(|byte| byte.is_ascii_lowercase()) && !part.is_empty();
    parts.len() > 1
        && parts.iter().all(is_word)
        && !matches!(parts.last(), Some(&("sh" | "log" | "md" | "rs")))
}

#[test]
fn every_key_of_the_operators_page_is_in_the_table_of_keys() {
    let document = tidemill::config::document();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let keys: BTreeSet<&str> = rows.map(|(key, _)| key).collect();
    assert!(keys.len() > 300, "only {} keys", keys.len());
    let page = read("docs/OPERATING.md");
    let names = quoted(&page).into_iter().map(|text| text.split('=').next().unwrap().to_owned());
    let named: BTreeSet<String> = names.filter(|name| is_like_a_key(name)).collect();
    assert!(named.len() > 20, "{named:?}");
    let unknown: Vec<_> = named
        .iter()
        .filter(|name| !keys.contains(name.as_str()) && !NOT_KEYS.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "no keys: {unknown:?}");
}

/// The text of every file under a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}

#[test]
fn every_line_of_the_operators_page_is_one_that_the_broker_says() {
    let code = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    // A string that goes on in the next line is one text.
    let code: String = code.split("\\\n").map(str::trim_start).collect();
    let page = read("docs/OPERATING.md");
    let (_, table) = page.split_once("| line | what it means, what to do |").unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap();
        for said in quoted(cell) {
            let pieces = said.split('…').map(|piece| piece.trim_end_matches(": "));
            for piece in pieces.filter(|piece| piece.len() > 3) {
                assert!(code.contains(piece), "nothing says {piece:?} of {said:?}");
            }
        }
    }
}

/// Fields that are read inside of the configuration: levels become part of what a topic's codec is.
const READ_INSIDE: [&str; 3] = ["gzip", "lz4", "zstd"];

#[test]
fn what_an_honoured_key_fills_is_read_outside_of_the_configuration() {
    let document = tidemill::config::document();
    let honoured = |key: &str| {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        row.is_some_and(|row| row.contains("| honoured |"))
    };
    let mut code = String::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("config") && !path.ends_with("client") && !path.ends_with("cli") {
            code.push_str(&sources(&path));
        }
    }
    let mut looked_at = 0;
    for file in ["src/config/node.rs", "src/config/topic.rs"] {
        let text = read(file);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let [doc, field] = pair else { continue };
            let Some((field, _)) = field.strip_prefix("pub ").and_then(|field| field.split_once(':')) else {
                continue;
            };
            let Some(doc) = doc.strip_prefix("///") else { continue };
            if quoted(doc).iter().any(|key| honoured(key)) && !READ_INSIDE.contains(&field) {
                looked_at += 1;
                let is_read = code.contains(&format!(".{field}"));
                assert!(is_read, "{file}: nothing reads {field}, and its key is called honoured");
            }
        }
    }
    assert!(looked_at > 40, "{looked_at}");
}
