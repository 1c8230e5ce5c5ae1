//! Our own thin producer, consumer and admin over blocking sockets, for the command line, the tests and the bench harness.
