//! One connection that stays open, for tests that depend on the order of events.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The time limit for any wait in a test; no test measures it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Wire {
    stream: TcpStream,
    /// All text that has arrived.
    pub text: String,
}

impl Wire {
    pub async fn connect(port: u16) -> Self {
        Self::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    pub fn new(stream: TcpStream) -> Self {
        Self { stream, text: String::new() }
    }

    /// Returns the connection itself, for data that is not text.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Writes a chunk of a body; an empty one ends the body.
    pub async fn write_chunk(&mut self, data: &str) {
        self.write(&format!("{:x}\r\n{data}\r\n", data.len())).await;
    }

    /// Reads until `expected` has arrived.
    pub async fn read_until(&mut self, expected: &str) {
        while !self.text.contains(expected) {
            let mut buffer = [0; 4096];
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            let count = read.unwrap_or_else(|_| panic!("no {expected:?} after {:?}", self.text));
            let count = count.unwrap();
            assert_ne!(count, 0, "closed without {expected:?}, after {:?}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
}
