//! Links over loopback sockets, to nodes that answer as a test says.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use glommio::LocalExecutorBuilder;

use super::*;

/// A home that keeps what happens.
struct Home {
    links: RefCell<Links>,
    events: RefCell<VecDeque<(LinkId, LinkEvent)>>,
    arrived: RefCell<Option<Waker>>,
    buffer: RefCell<BytesMut>,
}

impl LinkHome for Home {
    fn links(&self) -> RefMut<'_, Links> {
        self.links.borrow_mut()
    }

    fn happened(&self, link: LinkId, event: LinkEvent) {
        self.events.borrow_mut().push_back((link, event));
        if let Some(waker) = self.arrived.borrow_mut().take() {
            waker.wake();
        }
    }

    fn take_buffer(&self) -> BytesMut {
        let mut buffer = std::mem::take(&mut *self.buffer.borrow_mut());
        buffer.reserve(BLOCK_BYTES);
        buffer
    }

    fn give_buffer(&self, buffer: BytesMut) {
        *self.buffer.borrow_mut() = buffer;
    }
}

impl Home {
    fn new(receiving_bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            links: RefCell::new(Links::new(64 << 20, receiving_bytes_max)),
            events: RefCell::default(),
            arrived: RefCell::default(),
            buffer: RefCell::default(),
        })
    }

    fn dial(self: &Rc<Self>, link: u32, host: &str, port: u16) {
        let number = self.links().begin(LinkId(link));
        glommio::spawn_local(run(Rc::clone(self), LinkId(link), number, Arc::from(host), port)).detach();
    }

    async fn next(&self) -> (u32, LinkEvent) {
        poll_fn(|context| match self.events.borrow_mut().pop_front() {
            Some((link, event)) => Poll::Ready((link.0, event)),
            None => {
                *self.arrived.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    async fn frame(&self) -> (u32, Bytes) {
        match self.next().await {
            (link, LinkEvent::Frame(frame)) => (link, frame),
            other => panic!("{other:?}"),
        }
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes()[..], body].concat()
}

/// Runs a test on an executor, with a node that answers each connection by `node`.
fn with_node<F: Future<Output = ()> + 'static>(
    node: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    test: impl FnOnce(u16) -> F + Send + 'static,
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let node = Arc::new(node);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let node = Arc::clone(&node);
            std::thread::spawn(move || node(number, stream.unwrap()));
        }
    });
    let executor = LocalExecutorBuilder::default().io_memory(64 << 10).spawn(move || test(port)).unwrap();
    executor.join().unwrap();
}

/// Sends every frame back that comes.
fn echo(mut stream: TcpStream) {
    let mut prefix = [0; 4];
    while stream.read_exact(&mut prefix).is_ok() {
        let mut body = vec![0; i32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(&framed(&body)).unwrap();
    }
}

#[test]
fn frames_of_all_sizes_come_back_in_order() {
    with_node(
        |_, stream| echo(stream),
        |port| async move {
            let home = Home::new(1 << 20);
            home.dial(1, "localhost", port);
            assert!(matches!(home.next().await, (1, LinkEvent::Up)));
            let sizes = [1, 0, 5_000, FRONT_BYTES - 4, FRONT_BYTES, 3_000_000, 8, 17_000_000, 2];
            let bodies: Vec<Vec<u8>> = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
            for body in &bodies {
                home.links().send(LinkId(1), framed(body).into());
            }
            for body in &bodies {
                let (_, frame) = home.frame().await;
                assert!(frame == body[..], "{} bytes", body.len());
            }
            assert_eq!(home.links().reserved_bytes, 0);
            home.links().close(LinkId(1));
            home.dial(2, "127.0.0.1", port);
            assert!(matches!(home.next().await, (2, LinkEvent::Up)), "the first one ended without a word");
        },
    );
}

#[test]
fn large_frames_wait_for_room_and_all_arrive() {
    let large = |number: usize| vec![number as u8; 5_000_000];
    with_node(
        move |number, mut stream| {
            stream.write_all(&framed(&large(number))).unwrap();
            echo(stream);
        },
        |port| async move {
            let home = Home::new(6_000_000);
            (0..4).for_each(|link| home.dial(link, "127.0.0.1", port));
            let mut arrived = [0; 4];
            let mut up = 0;
            while up < 4 || arrived.contains(&0) {
                match home.next().await {
                    (_, LinkEvent::Up) => up += 1,
                    (link, LinkEvent::Frame(frame)) => arrived[link as usize] += frame.len(),
                    other => panic!("{other:?}"),
                }
                assert!(home.links().reserved_bytes <= 6_000_000);
            }
            assert_eq!(arrived, [5_000_000; 4]);
        },
    );
}

#[test]
fn the_ways_in_which_a_link_ends_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    with_node(
        |number, stream| match number {
            0 => {}
            1 => {
                // Unread bytes make the kernel reset the connection.
                let mut byte = [0];
                (&stream).read_exact(&mut byte).unwrap();
            }
            2 => (&stream).write_all(&(-5_i32).to_be_bytes()).unwrap(),
            _ => std::thread::park(),
        },
        move |port| async move {
            let home = Home::new(1 << 20);
            home.dial(1, "127.0.0.1", free);
            assert!(matches!(home.next().await, (1, LinkEvent::Down(LinkLoss::Refused))));
            home.dial(2, "", port);
            assert!(matches!(home.next().await, (2, LinkEvent::Down(LinkLoss::Timeout))));
            home.dial(3, "127.0.0.1", port);
            assert!(matches!(home.next().await, (3, LinkEvent::Up)));
            assert!(matches!(home.next().await, (3, LinkEvent::Down(LinkLoss::Closed))));
            home.dial(4, "127.0.0.1", port);
            assert!(matches!(home.next().await, (4, LinkEvent::Up)));
            home.links().send(LinkId(4), framed(&[0; 100]).into());
            assert!(matches!(home.next().await, (4, LinkEvent::Down(LinkLoss::Reset))));
            home.dial(5, "127.0.0.1", port);
            assert!(matches!(home.next().await, (5, LinkEvent::Up)));
            assert!(matches!(home.next().await, (5, LinkEvent::Down(LinkLoss::Reset))), "nonsense");
            home.dial(6, "127.0.0.1", port);
            home.links().close(LinkId(6));
            home.dial(7, "127.0.0.1", port);
            assert!(matches!(home.next().await, (7, LinkEvent::Up)), "nothing of the sixth");
        },
    );
}
