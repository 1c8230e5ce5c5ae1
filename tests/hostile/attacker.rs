//! One hostile client: writes frames, several at a time, and accounts for each.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use tidemill::wire::api::Listener;

use crate::answers;
use crate::body::World;
use crate::frames::{Frame, Generator, Kind};
use crate::process::PATIENCE;
use crate::tally::{Fate, Tally};

/// Frames of one write.
const PIPELINED_MAX: usize = 12;
/// The largest answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A client that means harm.
pub struct Attacker<'a> {
    address: &'a str,
    generator: Generator<'a>,
    stream: Option<TcpStream>,
    correlation_id: i32,
    pub tally: Tally,
}

/// The answers to one write, as they come.
struct Awaited {
    frames: VecDeque<Frame>,
    /// The frame that makes what follows meaningless was written.
    broken: bool,
    probe: i32,
}

impl<'a> Attacker<'a> {
    /// One that comes through a listener of clients, or through one of controllers.
    pub fn new(address: &'a str, world: &'a World, seed: u64, door: Listener) -> Self {
        let generator = Generator::new(world, seed, door);
        Self { address, generator, stream: None, correlation_id: 0, tally: Tally::default() }
    }

    /// Sends until this many frames are accounted for; what is wrong is told with the frames it happened to.
    pub fn attack(&mut self, frames: u64) -> Result<(), String> {
        while self.tally.total().frames < frames {
            self.pipeline()?;
        }
        Ok(())
    }

    fn next_correlation_id(&mut self) -> i32 {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        self.correlation_id
    }

    /// One write of several frames and its answers.
    fn pipeline(&mut self) -> Result<(), String> {
        let wanted = self.generator.rng().usize(1..=PIPELINED_MAX);
        let frames: Vec<Frame> = (1..=wanted)
            .map(|at| {
                let id = self.next_correlation_id();
                self.generator.frame(id, at == wanted)
            })
            .collect();
        let last = frames.last().expect("at least one").kind;
        let probe = self.next_correlation_id();
        let mut bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.iter().copied()).collect();
        if !last.breaks_framing() {
            bytes.extend_from_slice(&probe_frame(probe));
        }
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let started = Instant::now();
        let written = self.write(&stream, &bytes);
        if last == Kind::Gone {
            for frame in &frames {
                self.tally.count(frame, Fate::Gone);
            }
            self.tally.left_connections += 1;
            return Ok(());
        }
        if last.breaks_framing() {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let evidence = frames.clone();
        let mut awaited = Awaited { frames: frames.into(), broken: last.breaks_framing(), probe };
        let open = match self.read(&stream, &mut awaited) {
            Ok(open) => open,
            Err(wrong) => return Err(told(&wrong, &evidence)),
        };
        self.tally.slowest_ms = self.tally.slowest_ms.max(started.elapsed().as_millis());
        if open {
            if let Err(error) = written {
                return Err(told(&format!("answered what could not be written: {error}"), &evidence));
            }
            self.stream = Some(stream);
            return Ok(());
        }
        match last.breaks_framing() {
            true => self.tally.left_connections += 1,
            false => self.tally.closed_connections += 1,
        }
        self.account_closed(awaited.frames).map_err(|wrong| told(&wrong, &evidence))
    }

    fn connect(&mut self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(self.address).map_err(|error| format!("cannot connect: {error}"))?;
        let set = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
        set.and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(|error| error.to_string())?;
        self.tally.connections += 1;
        self.generator.note_session(0);
        Ok(stream)
    }

    /// Writes in one piece, or in several of random sizes.
    fn write(&mut self, mut stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
        if self.generator.rng().u8(..8) > 0 {
            return stream.write_all(bytes);
        }
        while !bytes.is_empty() {
            let most = [3, 50, 1_000, 100_000][self.generator.rng().usize(..4)].min(bytes.len());
            let (now, later) = bytes.split_at(self.generator.rng().usize(1..=most));
            stream.write_all(now)?;
            bytes = later;
        }
        Ok(())
    }

    /// Takes answers until the last one has come (true) or the broker has closed the connection.
    fn read(&mut self, mut stream: &TcpStream, awaited: &mut Awaited) -> Result<bool, String> {
        let mut received = BytesMut::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => 0,
                Err(error) => return Err(format!("neither answered nor closed: {error}")),
            };
            if count == 0 {
                return Ok(false);
            }
            received.extend_from_slice(&buffer[..count]);
            while let Some(answer) = split_answer(&mut received)? {
                if self.take(answer, awaited)? {
                    return if received.is_empty() {
                        Ok(true)
                    } else {
                        Err("bytes behind the last answer".to_owned())
                    };
                }
            }
        }
    }

    /// Takes one answer; whether it was the probe's.
    fn take(&mut self, mut answer: Bytes, awaited: &mut Awaited) -> Result<bool, String> {
        let id = answer.get_i32();
        loop {
            let Some(frame) = awaited.frames.front() else {
                if id == awaited.probe && !awaited.broken {
                    return answers::parse(18, 0, answer).map(|_| true);
                }
                // Behind a frame of a wrong length anything may have been a frame.
                return if awaited.broken { Ok(false) } else { Err(format!("nobody asked for answer {id}")) };
            };
            let (key, version, sent_id) = frame.sent();
            if sent_id == id && !frame.is_silent() {
                let session = answers::parse(key, version, answer)
                    .map_err(|error| format!("the answer to API {key} v{version} does not parse: {error}"))?;
                if session != 0 {
                    self.generator.note_session(session);
                }
                if frame.kind.must_be_closed() && frame.kind != Kind::LengthMore {
                    return Err(format!("a frame that should close the connection is answered: {id}"));
                }
                self.tally.count(frame, Fate::Answered);
                awaited.frames.pop_front();
                return Ok(false);
            }
            if !frame.is_silent() {
                return Err(format!("answer {id} came where {sent_id} is due"));
            }
            self.tally.count(frame, Fate::Silent);
            awaited.frames.pop_front();
        }
    }

    /// The connection is closed: some frame must have been the reason.
    fn account_closed(&mut self, left: VecDeque<Frame>) -> Result<(), String> {
        if !left.is_empty() && !left.iter().any(Frame::may_be_closed) {
            return Err("the connection was closed, and no frame was a reason to".to_owned());
        }
        let mut closed = false;
        for frame in &left {
            if closed {
                self.tally.behind += 1;
                continue;
            }
            self.tally.count(frame, Fate::Closed);
            closed = frame.may_be_closed();
        }
        Ok(())
    }
}

/// ApiVersions in version 0: its answer comes when everything before it is answered.
fn probe_frame(correlation_id: i32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 10, 0, 18, 0, 0];
    bytes.extend_from_slice(&correlation_id.to_be_bytes());
    bytes.extend_from_slice(&[0xff, 0xff]);
    bytes
}

/// Takes an answer off the front, without its length.
fn split_answer(received: &mut BytesMut) -> Result<Option<Bytes>, String> {
    let Some(length) = received.first_chunk() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    if !(4..=ANSWER_BYTES_MAX).contains(&length) {
        return Err(format!("an answer of {length} bytes"));
    }
    if received.len() < 4 + length {
        return Ok(None);
    }
    received.advance(4);
    Ok(Some(received.split_to(length).freeze()))
}

/// What went wrong, with the frames that were written.
fn told(wrong: &str, frames: &[Frame]) -> String {
    let mut text = format!("{wrong}\nwritten were:");
    for frame in frames {
        let (key, version, id) = frame.sent();
        let shown: String = frame.bytes.iter().take(400).map(|byte| format!("{byte:02x}")).collect();
        text += &format!(
            "\n  {:?} API {key} v{version} id {id}, {} bytes: {shown}",
            frame.kind,
            frame.bytes.len()
        );
    }
    text
}
