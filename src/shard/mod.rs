//! The shell: the only place of the broker that names glommio, sockets, files, the clock and randomness.
