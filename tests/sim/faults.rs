//! What goes wrong and when: crashes, power cuts, full devices, jumping clocks.

use crate::history::Place;
use crate::world::{Event, Phase, World, draw};

impl World {
    /// Draws when each fault comes for the first time.
    pub fn plan_faults(&mut self) {
        let plan = self.plan.clone();
        for (every_ms, event) in [
            (plan.crash_every_ms, Event::CrashDue),
            (plan.drop_every_ms, Event::DropDue),
            (plan.full_every_ms, Event::FullDue),
            (if plan.clock_jumps { 2000 } else { 0 }, Event::JumpDue),
        ] {
            self.fault_later(every_ms, event);
        }
    }

    fn fault_later(&mut self, every_ms: u64, event: Event) {
        if every_ms > 0 {
            let us = draw(every_ms * 1000, &mut self.random.faults);
            self.after(us, event);
        }
    }

    /// It is time for a fault, and for drawing when the next one comes.
    pub fn fault_due(&mut self, event: Event) {
        match event {
            Event::CrashDue => {
                self.crash_or_stop();
                self.fault_later(self.plan.crash_every_ms, Event::CrashDue);
            }
            Event::DropDue => {
                self.drop_connection();
                self.fault_later(self.plan.drop_every_ms, Event::DropDue);
            }
            Event::FullDue => {
                let directory = self.random.faults.usize(0..self.disks.len());
                let until_us = self.now_us + self.random.faults.u64(1_000..1_500_000);
                self.full_until_us[directory] = until_us;
                self.trace.note(self.now_us, 20, [until_us, directory as u64], || {
                    format!("device {directory} is full until {until_us} us")
                });
                self.fault_later(self.plan.full_every_ms, Event::FullDue);
            }
            Event::JumpDue => {
                self.wall_offset_ms += self.random.faults.i64(-3_000..3_000);
                self.fault_later(2000, Event::JumpDue);
            }
            other => unreachable!("{other:?} is no fault"),
        }
    }

    /// Everything not synced is at stake. `durable` says what the replicas claimed.
    pub fn cut_power(&mut self, durable: &[(Place, i64)]) {
        for disk in &mut self.disks {
            disk.cut_power(self.plan.cut, &mut self.random.disk);
        }
        self.history.crashed(durable, true);
        self.power_was_cut = true;
        self.boot_number += 1;
        self.trace.note(self.now_us, 24, [self.boot_number, 0], || "the power is cut".into());
    }

    fn crash_or_stop(&mut self) {
        if self.node.is_none() {
            return;
        }
        if self.random.faults.f64() < self.plan.clean_stops {
            self.begin_stop();
        } else {
            let power = self.random.faults.f64() < self.plan.power_cuts;
            self.crash(power);
        }
    }

    /// The process dies, perhaps because the power does.
    pub fn crash(&mut self, power: bool) {
        let Some(mut node) = self.node.take() else { return };
        self.crashes += 1;
        self.trace.note(self.now_us, 25, [u64::from(power), 0], || "the process dies".into());
        let durable = node.durable();
        self.abandon_operations(&mut node);
        self.close_all();
        if power {
            self.cut_power(&durable);
        } else {
            self.history.crashed(&durable, false);
        }
        let us = self.random.faults.u64(1_000..300_000);
        self.after(us, Event::Boot);
    }

    /// The node has stopped. If it could do so cleanly, everything is durable whatever happens to the power now.
    pub fn stopped(&mut self, cleanly: bool) {
        // A device that is full at the wrong moment gets no marker: what was not synced is at stake.
        let marked = self.disks.iter().all(|disk| disk.has(".kafka_cleanshutdown"));
        if !marked && !self.is_calm() && self.random.faults.f64() < self.plan.power_cuts {
            self.cut_power(&[]);
        }
        let cleanly = cleanly && marked;
        self.trace.note(self.now_us, 26, [0, 0], || "stopped cleanly".into());
        self.close_all();
        if cleanly && (self.phase == Phase::Stopping || self.random.faults.bool()) {
            for disk in &mut self.disks {
                disk.cut_power(self.plan.cut, &mut self.random.disk);
            }
            self.boot_number += 1;
        }
        let us = self.random.faults.u64(1_000..300_000);
        self.after(us, Event::Boot);
    }
}
