//! Flexible versions: lengths as variable numbers plus one, and tagged fields. Produce 10, whose refusals name the
//! leader, and DescribeQuorum 0, which tells the active controller.

use anyhow::{Context, Result, ensure};

use super::{Cursor, Frame, api};

/// The tag under which a partition of a Produce answer names its leader, and the answer the nodes it names.
const LEADER_TAG: u32 = 0;

impl Frame {
    /// An unsigned number of seven bits a byte.
    fn uvarint(&mut self, mut value: usize) -> &mut Frame {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    fn compact_count(&mut self, count: usize) -> &mut Frame {
        self.uvarint(count + 1)
    }

    fn compact_bytes(&mut self, bytes: &[u8]) -> &mut Frame {
        self.compact_count(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn no_tags(&mut self) -> &mut Frame {
        self.i8(0)
    }
}

impl<'a> Cursor<'a> {
    /// An unsigned number of seven bits a byte.
    fn uvarint(&mut self) -> Result<u32> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.i8()? as u8;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        anyhow::bail!("a variable number is too long")
    }

    /// A length or a count; null counts as empty.
    fn compact_count(&mut self) -> Result<usize> {
        Ok(self.uvarint()?.saturating_sub(1) as usize)
    }

    fn compact_text(&mut self) -> Result<&'a [u8]> {
        let length = self.compact_count()?;
        self.take(length)
    }

    /// Tagged fields, one after the other.
    fn tags(&mut self, mut each: impl FnMut(u32, Cursor<'a>) -> Result<()>) -> Result<()> {
        for _ in 0..self.uvarint()? {
            let (tag, length) = (self.uvarint()?, self.uvarint()? as usize);
            each(tag, Cursor::new(self.take(length)?))?;
        }
        Ok(())
    }

    fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(()))
    }
}

/// A Produce 10 request of one batch with acks=all.
pub fn produce_to_all(topic: &str, partition: usize, batch: &[u8]) -> Vec<u8> {
    let mut frame = Frame::new(api::PRODUCE, 10);
    frame.no_tags().uvarint(0).i16(-1).i32(30_000);
    frame.compact_count(1).compact_bytes(topic.as_bytes());
    frame.compact_count(1).count(partition).compact_bytes(batch);
    frame.no_tags().no_tags().no_tags();
    frame.finish()
}

/// What an answer to [`produce_to_all`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Kafka's error code, 0 when all is well.
    pub error: i16,
    /// The offset given to the first record.
    pub base_offset: i64,
    /// Who leads instead, where a refusal tells.
    pub leader: Option<i32>,
}

/// Reads an answer to [`produce_to_all`] after its correlation id.
pub fn read_acknowledgement(mut answer: Cursor<'_>) -> Result<Acknowledgement> {
    answer.skip_tags()?;
    ensure!(answer.compact_count()? == 1, "one topic was asked for, another number answered");
    answer.compact_text()?;
    ensure!(answer.compact_count()? == 1, "one partition was asked for, another number answered");
    answer.i32()?;
    let mut found = Acknowledgement { error: answer.i16()?, base_offset: answer.i64()?, leader: None };
    answer.take(16)?; // log append time, log start offset
    for _ in 0..answer.compact_count()? {
        answer.i32()?; // a record that was refused
        answer.compact_text()?;
        answer.skip_tags()?;
    }
    answer.compact_text()?; // message
    answer.tags(|tag, mut field| {
        if tag == LEADER_TAG {
            found.leader = Some(field.i32()?).filter(|leader| *leader >= 0);
        }
        Ok(())
    })?;
    Ok(found)
}

/// A DescribeQuorum 0 request.
pub fn describe_quorum() -> Vec<u8> {
    let mut frame = Frame::new(api::DESCRIBE_QUORUM, 0);
    frame.no_tags().compact_count(1).compact_bytes(b"__cluster_metadata");
    frame.compact_count(1).i32(0).no_tags().no_tags().no_tags();
    frame.finish()
}

/// The active controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveController {
    /// The node.
    pub id: i32,
    /// Greater after each election.
    pub epoch: i32,
}

/// The active controller in an answer to DescribeQuorum 0; none while none is known.
pub fn read_quorum_leader(mut answer: Cursor<'_>) -> Result<Option<ActiveController>> {
    answer.skip_tags()?;
    let error = answer.i16()?;
    ensure!(error == 0, "DescribeQuorum answered with error {error}");
    ensure!(answer.compact_count()? == 1, "one log was asked for, another number answered");
    answer.compact_text()?;
    ensure!(answer.compact_count()? == 1, "one log was asked for, another number answered");
    answer.i32()?;
    let error = answer.i16()?;
    ensure!(error == 0, "DescribeQuorum answered with error {error}");
    let id = answer.i32().context("the leader is due")?;
    let epoch = answer.i32().context("its epoch is due")?;
    Ok(Some(ActiveController { id, epoch }).filter(|found| found.id >= 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn body(frame: Frame) -> Vec<u8> {
        // Length, key, version, correlation id and the client's name.
        frame.finish().split_off(4 + 8 + 7)
    }

    #[test]
    fn variable_numbers_come_back() {
        for value in [0usize, 1, 127, 128, 300, 1 << 20, u32::MAX as usize] {
            let mut frame = Frame::new(0, 0);
            frame.uvarint(value);
            assert_eq!(Cursor::new(&body(frame)).uvarint().unwrap() as usize, value);
        }
        assert!(Cursor::new(&[0xff; 8]).uvarint().is_err());
    }

    #[test]
    fn a_refusal_names_the_leader_and_a_short_answer_is_an_error() {
        let mut frame = Frame::new(0, 0);
        frame.no_tags().compact_count(1).compact_bytes(b"t").compact_count(1).i32(0).i16(6).i64(-1);
        frame.i64(-1).i64(-1).compact_count(0).uvarint(0);
        frame.uvarint(1).uvarint(0).uvarint(9).i32(3).i32(7).no_tags();
        let bytes = body(frame);
        let found = read_acknowledgement(Cursor::new(&bytes)).unwrap();
        assert_eq!(found, Acknowledgement { error: 6, base_offset: -1, leader: Some(3) });
        for length in 0..bytes.len() {
            assert!(read_acknowledgement(Cursor::new(bytes.get(..length).unwrap())).is_err());
        }
    }

    #[test]
    fn the_active_controller_is_found() {
        let mut frame = Frame::new(0, 0);
        frame.no_tags().i16(0).compact_count(1).compact_bytes(b"m").compact_count(1).i32(0).i16(0).i32(2);
        frame.i32(7);
        let found = read_quorum_leader(Cursor::new(&body(frame)));
        assert_eq!(found.unwrap(), Some(ActiveController { id: 2, epoch: 7 }));
    }
}
