//! Connections that a given shard of the broker serves. A listener deals its connections out, so one that came to the
//! wrong shard is kept open until all are there: the next one goes elsewhere.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, bail};

use crate::admin::Admin;

/// So many connections in a row that come to other shards mean that none will come to the right one.
const ATTEMPTS: usize = 256;

/// Connections that are open and not needed yet, with their shards.
pub struct Whereabouts {
    address: SocketAddr,
    spare: Vec<(usize, TcpStream)>,
}

impl Whereabouts {
    /// None is open yet.
    pub fn new(address: SocketAddr) -> Whereabouts {
        Whereabouts { address, spare: Vec::new() }
    }

    /// A connection that this shard serves.
    pub fn connect(&mut self, shard: usize) -> Result<TcpStream> {
        if let Some(at) = self.spare.iter().position(|(of, _)| *of == shard) {
            return Ok(self.spare.swap_remove(at).1);
        }
        for _ in 0..ATTEMPTS {
            let mut admin = Admin::connect(self.address)?;
            let of = admin.shard()?;
            if of == shard {
                return Ok(admin.into_stream());
            }
            self.spare.push((of, admin.into_stream()));
        }
        bail!("none of {ATTEMPTS} connections came to shard {shard}")
    }
}
