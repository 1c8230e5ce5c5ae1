//! What the compiler and clippy do not check about this repository: which folders may touch the world, how large
//! files and functions may get, which words stay out, that every file says what it is, that `unsafe` is argued
//! for, and that the documents' links lead somewhere.
//!
//! How: sources are read as text. Comments and the contents of strings are blanked first where only code counts;
//! a file's own test module counts as a test. Every exception is listed here with its reason, and an exception
//! that nothing needs any more fails too.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 120;

/// Folders and files that hold state machines: everything they know of the world comes as a parameter.
const PURE: [&str; 10] = [
    "src/wire/",
    "src/request/",
    "src/log/",
    "src/partition/",
    "src/group/",
    "src/controller/",
    "src/security/",
    "src/broker/",
    "src/config/",
    "src/effect.rs",
];

/// What no pure code may name: the world, time, chance, waiting, and orders that are not the same twice.
/// A random generator counts unless it is made from a seed that was given.
const IMPURE: [&str; 32] = [
    "glommio",
    "libc",
    "nix",
    "socket2",
    "memmap2",
    "core_affinity",
    "fastrand",
    "Rng::new",
    "rand",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "Instant",
    "SystemTime",
    "new_v4",
    "async",
    "await",
    "Mutex",
    "RwLock",
    "Condvar",
    "RefCell",
    "OnceLock",
    "LazyLock",
    "thread_local",
    "static mut",
    "println",
    "eprintln",
    "HashMap",
    "HashSet",
];

/// Pure files that may name one of [`IMPURE`], and why.
const IMPURE_ALLOWED: &[(&str, &str, &str)] = &[];

/// What only these paths may name.
const CONFINED: [(&str, &[&str]); 9] = [
    ("glommio", &["src/shard/", "bench-harness/"]),
    ("nix", &["src/shard/", "bench-harness/", "tests/"]),
    ("libc", &["src/shard/", "bench-harness/", "tests/"]),
    ("socket2", &["src/shard/", "bench-harness/"]),
    ("core_affinity", &["src/shard/", "bench-harness/"]),
    ("memmap2", &["src/shard/"]),
    ("std::fs", &["src/shard/", "src/cli/", "bench-harness/", "tuning/", "tests/"]),
    ("std::net", &["src/shard/", "src/client/", "src/config/", "bench-harness/", "tests/"]),
    ("SystemTime", &["src/shard/", "src/client/", "src/cli/", "bench-harness/", "tests/"]),
];

/// The only files with `unsafe`, and what it is for there.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("bench-harness/src/broker.rs", "a child process that ends with its parent"),
    ("bench-harness/src/floor/block.rs", "memory that is aligned, and shared with the thread that writes it"),
    ("bench-harness/src/host.rs", "a signal handler"),
    ("src/shard/boot.rs", "asks the kernel whether io_uring may be used"),
    ("src/shard/children.rs", "a child process that ends with its parent"),
    ("src/shard/connection.rs", "receives into a buffer's spare room"),
    ("src/shard/files.rs", "reads without waiting, into a buffer"),
    ("src/shard/helpers.rs", "lowers a thread's priority"),
    ("src/shard/listener.rs", "owns a descriptor that was just accepted"),
    ("src/shard/memory.rs", "tells allocators and the kernel what to keep"),
    ("src/shard/transfer.rs", "sendfile and cachestat"),
    ("tests/log_append.rs", "an allocator that counts"),
];

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Functions that may be longer, and why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// File names that say nothing.
const VAGUE_NAMES: [&str; 8] = ["util", "utils", "common", "misc", "manager", "helper", "helpers", "core"];

/// A vague name that is a noun here.
const NAMES_ALLOWED: [(&str, &str); 1] = [("src/shard/helpers.rs", "the helper threads of a log directory")];

/// Words that stay out of code and prose, put together so that this file does not hold them.
const BANNED: [&str; 7] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("sim", "ply"),
    concat!("obvi", "ously"),
];

/// One source file.
struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
    /// `text` with comments and strings blanked, of the same lines.
    code: String,
    /// Lines before the file's own test module.
    lines_before_tests: usize,
}

impl Source {
    fn new(path: String, text: String) -> Self {
        let code = blanked(&text);
        let own_tests = code.lines().position(|line| line.starts_with("#[cfg(test)]")).filter(|at| {
            // A test module that is elsewhere (`mod tests;`) does not end the code of this file.
            code.lines().nth(at + 1).is_some_and(|next| next.trim_end().ends_with('{'))
        });
        let only_tests = path.starts_with("tests/")
            || path.contains("/tests/")
            || path.ends_with("tests.rs")
            || path.starts_with("benches/");
        let lines_before_tests = if only_tests { 0 } else { own_tests.unwrap_or(usize::MAX) };
        Self { path, text, code, lines_before_tests }
    }

    /// Numbered lines of code that is not a test.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines()).take_while(|(number, _)| *number <= self.lines_before_tests)
    }

    fn under(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| self.path.starts_with(path))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below these folders with one of these extensions, sorted.
fn files(folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(listed) = std::fs::read_dir(&folder) else { continue };
        for entry in listed {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn sources() -> Vec<Source> {
    let found = files(&["src", "tests", "benches", "bench-harness", "tuning"], "rs");
    assert!(found.len() > 100, "the sources are where they are looked for");
    found.iter().map(|path| Source::new(relative(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The documents that a reader is sent to.
fn documents() -> Vec<PathBuf> {
    let mut found = files(&["docs"], "md");
    found.extend(
        ["README.md", "CHANGELOG.md"].map(|name| root().join(name)).into_iter().filter(|p| p.exists()),
    );
    found
}

/// Fails with everything that is wrong, not only the first.
fn assert_none(problems: &[String]) {
    let mut list = String::new();
    for problem in problems {
        writeln!(list, "  {problem}").unwrap();
    }
    assert!(problems.is_empty(), "{} problems:\n{list}", problems.len());
}

/// The text with comments, strings and character literals blanked; line breaks stay.
fn blanked(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(&bytes, at);
        if end == at {
            code.push(bytes[at]);
            at += 1;
            continue;
        }
        code.extend(bytes[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_end(text: &[char], at: usize) -> usize {
    let starts =
        |prefix: &str| prefix.chars().zip(&text[at..]).filter(|(a, b)| a == *b).count() == prefix.len();
    let until = |from: usize, stop: &dyn Fn(usize) -> bool| {
        (from..text.len()).find(|i| stop(*i)).unwrap_or(text.len())
    };
    if starts("//") {
        return until(at, &|i| text[i] == '\n');
    }
    if starts("/*") {
        return until(at + 4, &|i| text[i - 2] == '*' && text[i - 1] == '/');
    }
    let in_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    if !in_word && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        let quote = until(at, &|i| text[i] == '"' || text[i].is_whitespace());
        let hashes = text[at..quote].iter().filter(|c| **c == '#').count();
        if text.get(quote) == Some(&'"') {
            let closes = |i: usize| text[i] == '"' && text[i + 1..].iter().take(hashes).all(|c| *c == '#');
            return (until(quote + 1, &closes) + 1 + hashes).min(text.len());
        }
    }
    match text[at] {
        '"' => quoted_end(text, at, '"'),
        // A lifetime has no closing quote after one character.
        '\'' if text.get(at + 1) == Some(&'\\') || text.get(at + 2) == Some(&'\'') => {
            quoted_end(text, at, '\'')
        }
        _ => at,
    }
}

fn quoted_end(text: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < text.len() && text[i] != quote {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(text.len())
}

/// Whether the line holds the words with nothing of an identifier around them.
fn names(line: &str, words: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(words).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + words.len()..].chars().next().is_some_and(part);
        !(before || after && words.ends_with(part))
    })
}

/// Name, first line and number of lines of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| !c.is_whitespace()) {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(length) = body_end(rest).filter(|_| !name.is_empty()) else { continue };
        let first = code[..at].matches('\n').count() + 1;
        found.push((name, first, rest[..length].matches('\n').count() + 1));
    }
    found
}

/// Bytes up to the brace that closes the body; `None` for a function without one.
fn body_end(rest: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn pure_code_names_nothing_of_the_world() {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources().iter().filter(|source| source.under(&PURE)) {
        for (number, line) in source.production() {
            let line = line.replace("fastrand::Rng", "Rng");
            for word in IMPURE.iter().filter(|word| names(&line, word)) {
                match IMPURE_ALLOWED.iter().find(|(path, named, _)| *path == source.path && named == word) {
                    Some(allowed) => drop(used.insert(allowed)),
                    None => problems.push(format!("{}:{number} names {word}", source.path)),
                }
            }
        }
    }
    let unused = IMPURE_ALLOWED.iter().filter(|allowed| !used.contains(allowed));
    problems
        .extend(unused.map(|(path, word, _)| format!("{path} no longer names {word}: drop its exception")));
    assert_none(&problems);
}

#[test]
fn the_shell_is_the_only_place_that_names_its_tools() {
    let mut problems = Vec::new();
    for source in &sources() {
        for (number, line) in source.production() {
            for (word, allowed) in CONFINED {
                if names(line, word) && !source.under(allowed) {
                    problems
                        .push(format!("{}:{number} names {word}, which belongs in {allowed:?}", source.path));
                }
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn files_functions_and_lines_stay_small() {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for Source { path, text, code, .. } in &sources() {
        let lines = text.lines().count();
        let may_be_long = LONG_FILES.iter().any(|(allowed, _)| allowed == path);
        if may_be_long != (lines > FILE_LINES_MAX) {
            let what = if may_be_long { "and needs no exception any more" } else { "which is too many" };
            problems.push(format!("{path} has {lines} lines, {what}"));
        }
        for (name, first, length) in
            functions(code).into_iter().filter(|(.., length)| *length > FUNCTION_LINES_MAX)
        {
            match LONG_FUNCTIONS.iter().find(|(file, function, _)| file == path && *function == name) {
                Some(allowed) => drop(used.insert(allowed)),
                None => problems.push(format!("{path}:{first} {name} has {length} lines")),
            }
        }
        // rustfmt keeps code narrow; it breaks no strings, and a message reads best as it is.
        let in_string = |(line, code): (&str, &str)| {
            line.contains('"') || (code.trim().is_empty() && !line.trim_start().starts_with("//"))
        };
        for (number, line) in (1..).zip(text.lines().zip(code.lines())) {
            if in_string(line) || line.0.chars().count() <= LINE_CHARS_MAX {
                continue;
            }
            problems.push(format!("{path}:{number} has {} characters", line.0.chars().count()));
        }
    }
    let unused = LONG_FUNCTIONS.iter().filter(|allowed| !used.contains(allowed));
    problems.extend(unused.map(|(path, name, _)| format!("{path}: {name} needs no exception any more")));
    assert_none(&problems);
}

#[test]
fn file_names_say_what_is_in_them() {
    let vague = |path: &Path| {
        let stem = path.file_stem().unwrap().to_string_lossy();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        VAGUE_NAMES.iter().any(|name| *name == stem || *name == folder)
    };
    let paths = sources().into_iter().map(|source| source.path).filter(|path| vague(Path::new(path)));
    let allowed = |path: &String| NAMES_ALLOWED.iter().any(|(name, _)| name == path);
    assert_none(&paths.filter(|path| !allowed(path)).collect::<Vec<_>>());
}

#[test]
fn every_file_begins_with_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    assert_none(&silent.map(|source| format!("{} has no `//!` head", source.path)).collect::<Vec<_>>());
}

#[test]
fn banned_words_stay_out() {
    let mut problems = Vec::new();
    let mut paths = documents();
    for extension in ["rs", "py", "toml", "java"] {
        paths.extend(files(&["src", "tests", "benches", "bench-harness", "tuning"], extension));
    }
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            for word in BANNED.iter().filter(|word| names(line, word)) {
                problems.push(format!("{}:{number} says {word}", relative(&path)));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn unsafe_is_listed_and_argued_for() {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for source in &sources() {
        let text: Vec<&str> = source.text.lines().collect();
        for (at, line) in source.code.lines().enumerate() {
            if !names(line, "unsafe") || line.contains("unsafe_") {
                continue;
            }
            let listed = UNSAFE_ALLOWED.iter().find(|(path, _)| *path == source.path);
            match listed {
                Some(listed) => drop(used.insert(listed)),
                None => problems.push(format!("{}:{} is not listed for unsafe", source.path, at + 1)),
            }
            // `unsafe fn` states its contract in its documentation; those of a trait are the trait's.
            let argued = text[at.saturating_sub(5)..=at].iter().any(|line| line.contains("// SAFETY:"));
            if !argued && !line.contains("unsafe fn") {
                problems.push(format!("{}:{} has no SAFETY comment", source.path, at + 1));
            }
        }
    }
    let unused = UNSAFE_ALLOWED.iter().filter(|listed| !used.contains(listed));
    problems.extend(unused.map(|(path, _)| format!("{path} has no unsafe any more: drop it from the list")));
    assert_none(&problems);
}

#[test]
fn links_and_paths_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            if !folder.join(file).exists() {
                problems.push(format!("{} links to {link}", relative(&document)));
            }
        }
        // Every second piece between backticks is code; fenced blocks have three and cancel out.
        let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let ours = ["src/", "tests/", "docs/", "benches/", "bench-harness/", "tuning/"];
        for path in spans.filter(|span| ours.iter().any(|folder| span.starts_with(folder))) {
            let plain = path.split([' ', ':', '#']).next().unwrap();
            if !plain.contains(['*', '{', '<', '…']) && !root().join(plain).exists() {
                problems.push(format!("{} names {plain}", relative(&document)));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "fn a() { // {\n    let s = \"}\\\" fn b(\"; let c = '{';\n}\nfn d(x: [u8; 2]);\nfn e<'a>(y: &'a str) {}\n";
    let code = blanked(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!code.contains('"') && !code.contains("//") && code.contains("&'a str"));
    assert_eq!(functions(&code), [("a".to_owned(), 1, 3), ("e".to_owned(), 5, 1)]);
    assert!(!blanked("r#\"fn x() {\"# + br\"y\" + /* z */ 1").contains(['x', 'y', 'z']));
    assert!(names("use std::fs::File;", "std::fs") && names("x.await?", "await") && names("nix::x()", "nix"));
    assert!(!names("let libcrypto = unix;", "libc") && !names("let unix = 1;", "nix"));
    let source = Source::new("src/log/x.rs".to_owned(), "a\n#[cfg(test)]\nmod tests {\nb\n}\n".to_owned());
    assert_eq!(source.production().collect::<Vec<_>>(), [(1, "a")]);
    let source = Source::new("src/log/x.rs".to_owned(), "a\n#[cfg(test)]\nmod tests;\nb\n".to_owned());
    assert_eq!(source.production().count(), 4);
}
