//! One request: what it needs from partitions, controller and Image, and how the answers become one response.
