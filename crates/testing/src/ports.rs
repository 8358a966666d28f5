//! Finds free ports.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// Returns a free port, below those that the supervisor and the kernel assign, and different from
/// every port that was returned before in this process.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 4_000) as u16;
    loop {
        let port = first + GIVEN.fetch_add(1, Relaxed);
        assert!(port < 15_000, "no port is free");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
