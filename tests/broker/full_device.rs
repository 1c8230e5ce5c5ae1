//! A device without space: nothing acknowledged is lost, nothing goes offline, and it goes on when
//! there is space again. On a real file system of a few megabytes, which only root can mount.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Broker, Home, until};
use crate::wire::{batch, connect, create, produce, read_all};

const STORAGE_ERROR: i16 = 56;

/// A small file system inside a node's home, with some of its space taken.
struct Device {
    path: PathBuf,
}

impl Device {
    /// None where this user may not mount one.
    fn mount(home: &mut Home, ballast: usize) -> Option<Self> {
        let path = home.path().join("small");
        std::fs::create_dir(&path).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=12m", "tmpfs"];
        let mounted = Command::new("mount").args(mount).arg(&path).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("skipped: this user may not mount a small file system");
            return None;
        }
        let device = Self { path };
        for number in 0..ballast {
            std::fs::write(device.ballast(number), vec![1; 1 << 20]).unwrap();
        }
        home.overrides.push(format!("log.dirs={}", device.path.join("data").display()));
        Some(device)
    }

    fn ballast(&self, number: usize) -> PathBuf {
        self.path.join(format!("ballast-{number}"))
    }

    fn make_space(&self, number: usize) {
        std::fs::remove_file(self.ballast(number)).unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Produces until the device is full; how many batches there are then.
fn fill(broker: &Broker, mut end: i64) -> i64 {
    let mut connection = connect(broker);
    // Large ones first, then small ones, so that hardly a page is left.
    for size in [100_000, 5_000, 500] {
        loop {
            let answer = produce(&mut connection, "t", 0, -1, batch(&[&vec![7; size]]));
            match answer.error_code {
                0 => assert_eq!(answer.base_offset, end),
                STORAGE_ERROR => break,
                other => panic!("error {other}"),
            }
            end += 1;
        }
    }
    end
}

fn produce_again(broker: &Broker, end: i64) {
    let mut connection = connect(broker);
    let base_offset = until("there is space", || {
        let answer = produce(&mut connection, "t", 0, -1, batch(&[b"small"]));
        if answer.error_code == STORAGE_ERROR { Err(answer.error_code) } else { Ok(answer.base_offset) }
    });
    assert_eq!(base_offset, end);
}

#[test]
fn a_full_device_refuses_batches_and_takes_them_again_when_there_is_space() {
    let mut home = Home::new(&["log.segment.bytes=2000000"]);
    let Some(device) = Device::mount(&mut home, 3) else { return };
    let broker = home.start();
    create(&mut connect(&broker), "t", 1, &[]);
    let mut end = fill(&broker, 0);
    assert!(end > 50, "{end} batches fit");
    assert_eq!(read_all(&mut connect(&broker), "t", 0).len() as i64, end, "what is there is served");
    device.make_space(0);
    produce_again(&broker, end);
    end = fill(&broker, end + 1);
    // A stop on a full device ends; it need not be a clean one.
    assert_eq!(broker.stop(), Some(0));
    for (number, kill) in [(1, true), (2, false)] {
        // The start finds the device full, or finds the space that is made meanwhile.
        let broker = std::thread::scope(|scope| {
            scope.spawn(|| device.make_space(number));
            home.start()
        });
        assert_eq!(read_all(&mut connect(&broker), "t", 0).len() as i64, end, "nothing acknowledged is lost");
        produce_again(&broker, end);
        end = fill(&broker, end + 1);
        let said = broker.lines();
        assert!(!said.iter().any(|line| line.contains("failed") || line.contains("offline")), "{said:?}");
        if kill { broker.kill() } else { assert_eq!(broker.stop(), Some(0)) }
    }
}

#[test]
fn a_topic_is_deleted_from_a_full_device_and_makes_space() {
    let mut home = Home::new(&["log.segment.delete.delay.ms=0"]);
    let Some(device) = Device::mount(&mut home, 1) else { return };
    let broker = home.start();
    create(&mut connect(&broker), "t", 1, &[]);
    create(&mut connect(&broker), "other", 1, &[]);
    fill(&broker, 0);
    // The deletion is metadata: it may have to wait for the first page.
    let deleted = std::thread::scope(|scope| {
        let deleting = scope.spawn(|| crate::wire::delete(&mut connect(&broker), "t"));
        device.make_space(0);
        deleting.join().unwrap()
    });
    assert_eq!(deleted, 0);
    let mut connection = connect(&broker);
    until("the deleted topic's space can be used", || {
        let answer = produce(&mut connection, "other", 0, -1, batch(&[&vec![7; 900_000]]));
        if answer.error_code == 0 && answer.base_offset >= 5 { Ok(()) } else { Err(answer.error_code) }
    });
}
