//! Log directories that a start refuses, and what it leaves of them; several of them, one failing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::process::{Broker, Home, until};
use crate::wire::{append, batch, connect, create, delete, fetch, produce, read_all};

const STORAGE_ERROR: i16 = 56;

/// A node with these log directories in its home, in this order.
fn home(directories: &[&str]) -> Home {
    let mut home = Home::new(&[]);
    home.overrides.push(format!("log.dirs={}", paths(&home, directories)));
    home
}

fn paths(home: &Home, directories: &[&str]) -> String {
    let paths: Vec<String> =
        directories.iter().map(|name| home.path().join(name).display().to_string()).collect();
    paths.join(",")
}

/// Every file in a directory with its bytes, and every directory; not the locks.
fn everything(path: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut left = vec![path.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                all.insert(name, None);
                left.push(path);
            } else if path.file_name().unwrap() != ".lock" {
                all.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    all
}

/// The node refuses to start in these words, and changes nothing.
fn refused(home: &Home, words: &[&str]) {
    let before = everything(home.path());
    let (code, said) = home.refused(&[]);
    assert_eq!(code, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    let after = everything(home.path());
    let changed: Vec<_> = after.iter().filter(|(name, bytes)| before.get(*name) != Some(bytes)).collect();
    assert!(changed.is_empty() && before.len() == after.len(), "changed: {changed:?}");
}

/// Runs a node once and stops it cleanly, with a topic of one partition for each directory.
fn ran(home: &Home, partitions: i32) {
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "kept", partitions, &[]);
    for partition in 0..partitions {
        append(&mut connection, "kept", partition, &[b"a"]);
    }
    assert_eq!(broker.stop(), Some(0));
}

fn edit(path: &Path, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, change(&text)).unwrap();
}

/// The directory, of these, in which a replica is.
fn place<'a>(home: &Home, directories: &[&'a str], replica: &str) -> Option<&'a str> {
    directories.iter().copied().find(|name| home.path().join(name).join(replica).exists())
}

#[test]
fn what_is_someone_elses_is_refused_and_left_as_it_is() {
    let home = home(&["a", "b"]);
    ran(&home, 2);
    let meta = home.path().join("b/meta.properties");
    let ours = fs::read_to_string(&meta).unwrap();
    let line = |key: &str| ours.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    let cases: [(&str, String, &[&str]); 7] = [
        (
            "cluster",
            ours.replace(&line("cluster.id"), "cluster.id=5L6g3nShT-eMCtK--X86sw"),
            &["belongs to cluster"],
        ),
        ("node", ours.replace("node.id=1", "node.id=7"), &["belongs to node 7", "this is node 1"]),
        ("empty", String::new(), &["meta.properties", "no cluster.id"]),
        ("cut", ours[..ours.find("cluster.id").unwrap()].to_owned(), &["meta.properties", "no cluster.id"]),
        ("garbage", "\0\0\0\0\0\0".to_owned(), &["meta.properties, line 1"]),
        ("version", ours.replace("version=1", "version=2"), &["meta.properties", "an unknown version"]),
        ("copy", fs::read_to_string(home.path().join("a/meta.properties")).unwrap(), &["same directory.id"]),
    ];
    for (case, text, words) in cases {
        println!("{case}");
        fs::write(&meta, text).unwrap();
        let mut all = words.to_vec();
        let path = home.path().join("b").display().to_string();
        all.push(&path);
        refused(&home, &all);
    }
    fs::write(&meta, &ours).unwrap();
    let mut other = Home::new(&["node.id=2"]);
    other.overrides.push(format!("log.dirs={}", paths(&home, &["a", "b"])));
    let (code, said) = other.refused(&[]);
    assert!(code == Some(1) && said.contains("belongs to node 1"), "{said}");
    let broker = home.start();
    let marked = everything(home.path()).keys().any(|name| name.ends_with(".kafka_cleanshutdown"));
    assert!(!marked, "the clean stop before all the refusals still counts, and only once");
    assert_eq!(read_all(&mut connect(&broker), "kept", 1).len(), 1);
}

#[test]
fn half_formatted_directories_are_refused() {
    let home = home(&["a", "b"]);
    ran(&home, 2);
    let (b, aside) = (home.path().join("b"), home.path().join("aside"));
    fs::rename(&b, &aside).unwrap();
    fs::create_dir(&b).unwrap();
    refused(&home, &["/b: ", "no meta.properties", "has started before", "directory.id"]);
    fs::create_dir(b.join("other-0")).unwrap();
    refused(&home, &["/b: ", "no meta.properties", "other-0"]);
    fs::remove_dir_all(&b).unwrap();
    fs::rename(&aside, &b).unwrap();
    // The metadata are gone, the logs are not.
    fs::rename(home.path().join("a/__tidemill_metadata"), home.path().join("saved")).unwrap();
    refused(&home, &["holds logs", "kept-", "no metadata of their topics"]);
    fs::rename(home.path().join("saved"), home.path().join("a/__tidemill_metadata")).unwrap();
    home.start();
}

#[test]
fn a_new_directory_is_added_with_the_identity_of_another() {
    let mut home = home(&["a"]);
    ran(&home, 1);
    let all = paths(&home, &["a", "b"]);
    home.overrides.push(format!("log.dirs={all}"));
    fs::create_dir(home.path().join("b")).unwrap();
    refused(&home, &["/b: ", "has started before"]);
    let (from, to) = (home.path().join("a/meta.properties"), home.path().join("b/meta.properties"));
    fs::copy(from, &to).unwrap();
    let keep = |line: &&str| !line.starts_with("directory.id");
    edit(&to, |text| text.lines().filter(keep).fold(String::new(), |text, line| text + line + "\n"));
    let broker = home.start();
    create(&mut connect(&broker), "new", 1, &[]);
    let made = || std::fs::metadata(home.path().join("b/new-0"));
    until("the emptiest directory gets it", made);
    assert!(fs::read_to_string(to).unwrap().contains("directory.id="), "it has an id of its own");
}

#[test]
fn directories_of_apache_kafka_are_refused_by_name() {
    let home = home(&["a"]);
    let a = home.path().join("a");
    fs::create_dir_all(a.join("__cluster_metadata-0")).unwrap();
    fs::write(
        a.join("meta.properties"),
        "#\n#Sat Nov 21 02:00:00 UTC 2026\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\nversion=1\n\
         cluster.id=5L6g3nShT-eMCtK--X86sw\n",
    )
    .unwrap();
    refused(&home, &["/a: ", "Apache Kafka's", "__cluster_metadata-0", "KRaft"]);
    fs::remove_dir(a.join("__cluster_metadata-0")).unwrap();
    fs::create_dir(a.join("orders-0")).unwrap();
    refused(&home, &["holds logs (orders-0", "Apache Kafka"]);
    fs::remove_file(a.join("meta.properties")).unwrap();
    refused(&home, &["/a: ", "no meta.properties", "orders-0"]);
    // One that was only formatted becomes ours, and keeps its identity.
    fs::remove_dir(a.join("orders-0")).unwrap();
    fs::write(a.join("meta.properties"), "version=0\nbroker.id=1\ncluster.id=5L6g3nShT-eMCtK--X86sw\n")
        .unwrap();
    home.start();
    let text = fs::read_to_string(a.join("meta.properties")).unwrap();
    assert!(text.contains("version=1\n") && text.contains("5L6g3nShT-eMCtK--X86sw"), "{text}");
}

#[test]
fn what_cannot_be_a_directory_is_refused_on_the_first_start() {
    let home = home(&["a", "b"]);
    fs::write(home.path().join("b"), "a file").unwrap();
    let (code, said) = home.refused(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/b") && said.contains("log.dirs"), "{said}");
    // Not even root may write here.
    let mut home = Home::new(&[]);
    home.overrides.push("log.dirs=/sys/kernel".to_owned());
    let (code, said) = home.refused(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot write to the log directory /sys/kernel"), "{said}");
}

#[test]
fn one_directory_under_two_names_is_refused() {
    let mut home = home(&["a", "b"]);
    fs::create_dir(home.path().join("a")).unwrap();
    std::os::unix::fs::symlink(home.path().join("a"), home.path().join("b")).unwrap();
    let (code, said) = home.refused(&[]);
    assert!(code == Some(1) && said.contains("same directory"), "{said}");
    // The metadata may well be in one of them, by whatever name.
    let (a, b) = (paths(&home, &["a"]), paths(&home, &["b"]));
    home.overrides.extend([format!("log.dirs={a}"), format!("metadata.log.dir={b}")]);
    ran(&home, 1);
    assert!(home.path().join("a/__tidemill_metadata").is_dir());
    assert_eq!(read_all(&mut connect(&home.start()), "kept", 0).len(), 1);
}

#[test]
fn a_replica_in_two_directories_is_refused() {
    let home = home(&["a", "b"]);
    ran(&home, 1);
    let directories = ["a", "b"];
    let of = place(&home, &directories, "kept-0").unwrap();
    let other = directories.into_iter().find(|name| *name != of).unwrap();
    let (from, to) = (home.path().join(of).join("kept-0"), home.path().join(other).join("kept-0"));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    refused(&home, &["in two log directories", "a/kept-0", "b/kept-0"]);
}

#[test]
fn partitions_go_round_the_directories_and_the_metadata_has_its_own() {
    let mut home = home(&["a", "b", "c"]);
    let metadata = paths(&home, &["m"]);
    home.overrides.push(format!("metadata.log.dir={metadata}"));
    ran(&home, 9);
    for name in ["a", "b", "c"] {
        let logs = everything(&home.path().join(name));
        let count = |end: &str| logs.keys().filter(|name| name.ends_with(end)).count();
        assert_eq!(count("partition.metadata"), 3, "{name}: {:?}", logs.keys());
        for file in ["meta.properties", "recovery-point-offset-checkpoint", ".kafka_cleanshutdown"] {
            assert_eq!(count(file), 1, "{name}/{file}");
        }
    }
    assert!(home.path().join("m/__tidemill_metadata").is_dir());
    let ids: std::collections::BTreeSet<String> = ["a", "b", "c", "m"]
        .iter()
        .map(|name| fs::read_to_string(home.path().join(name).join("meta.properties")).unwrap())
        .map(|text| text.lines().find(|line| line.starts_with("directory.id=")).unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 4, "each has an id of its own");
    let broker = home.start();
    let mut connection = connect(&broker);
    for partition in 0..9 {
        assert_eq!(append(&mut connection, "kept", partition, &[b"b"]), 1);
    }
}

/// Which partitions of "kept" can be read, and which answer that their storage failed.
fn split(broker: &Broker, partitions: i32) -> (Vec<i32>, Vec<i32>) {
    let mut connection = connect(broker);
    (0..partitions).partition(|partition| {
        loop {
            let found = fetch(&mut connection, "kept", *partition, 0);
            match found.error_code {
                0 => return true,
                STORAGE_ERROR => return false,
                6 => std::thread::yield_now(),
                other => panic!("error {other}"),
            }
        }
    })
}

#[test]
fn a_directory_that_is_missing_takes_only_its_own_partitions_offline_and_comes_back() {
    let home = home(&["a", "b"]);
    ran(&home, 6);
    let directories = ["a", "b"];
    let in_b: Vec<i32> =
        (0..6).filter(|at| place(&home, &directories, &format!("kept-{at}")) == Some("b")).collect();
    assert_eq!(in_b.len(), 3);
    fs::rename(home.path().join("b"), home.path().join("away")).unwrap();
    let broker = home.start();
    broker.wait_for_line("its partitions are offline");
    let (online, offline) = split(&broker, 6);
    assert_eq!((online.len(), &offline), (3, &in_b));
    let mut connection = connect(&broker);
    let answer = produce(&mut connection, "kept", offline[0], -1, batch(&[b"x"]));
    assert_eq!(answer.error_code, STORAGE_ERROR);
    create(&mut connection, "new", 3, &[]);
    for partition in 0..3 {
        append(&mut connection, "new", partition, &[b"y"]);
    }
    assert!(!home.path().join("b").exists(), "a missing directory is not made again");
    // The other one is stopped cleanly; the one that was away still is as it was.
    assert_eq!(broker.stop(), Some(0));
    fs::rename(home.path().join("away"), home.path().join("b")).unwrap();
    let broker = home.start();
    let mut connection = connect(&broker);
    for partition in 0..6 {
        assert_eq!(append(&mut connection, "kept", partition, &[b"z"]), 1, "{partition}");
    }
    broker.kill();
    // Without the metadata, or without any directory, there is nothing to go on with.
    fs::rename(home.path().join("a"), home.path().join("away")).unwrap();
    let (code, said) = home.refused(&[]);
    assert!(code == Some(1) && said.contains("holds logs"), "{said}");
}

#[test]
fn a_topic_deleted_while_its_directory_was_away_is_reported_and_gives_way_but_is_kept() {
    let home = home(&["a", "b"]);
    ran(&home, 2);
    let replica =
        ["kept-0", "kept-1"].into_iter().find(|name| home.path().join("b").join(name).exists()).unwrap();
    fs::rename(home.path().join("b"), home.path().join("away")).unwrap();
    let broker = home.start();
    assert_eq!(delete(&mut connect(&broker), "kept"), 0);
    assert_eq!(broker.stop(), Some(0));
    fs::rename(home.path().join("away"), home.path().join("b")).unwrap();
    let broker = home.start();
    let line = broker.wait_for_line("the cluster does not know");
    assert!(line.contains(replica) && line.contains(": 1, "), "{line}");
    assert!(home.path().join("b").join(replica).is_dir(), "it is left alone");
    let mut connection = connect(&broker);
    create(&mut connection, "kept", 2, &[]);
    let partition = i32::from(replica == "kept-1");
    loop {
        let answer = produce(&mut connection, "kept", partition, -1, batch(&[b"new"]));
        match answer.error_code {
            0 => break assert_eq!(answer.base_offset, 0),
            6 => std::thread::yield_now(),
            other => panic!("error {other}"),
        }
    }
    broker.wait_for_line("-stray");
    let strays = everything(&home.path().join("b"));
    let kept = strays.keys().find(|name| name.ends_with("-stray")).expect("renamed, not deleted");
    let records = fs::metadata(Path::new(kept).join("00000000000000000000.log")).unwrap().len();
    assert!(records > 0);
    assert_eq!(broker.stop(), Some(0));
    home.start().wait_for_line("ends in -stray: 1");
}
