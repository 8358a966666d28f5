//! HTTP/1.1 at minimal cost: clients that send requests that were written beforehand, and a backend
//! that always gives the same answer. One thread per connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{
    grpc::{Tally, nanoseconds},
    requests::{HEADERS, chat},
    site::Issued,
    statistics::Dice,
};

const BODY: &str = r#"{"model":"org/model","messages":[{"role":"user","content":"Hello"}]}"#;
const REPLY: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const HEAD_ENDS: &[u8] = b"\r\n\r\n";

/// A chat, as an OpenAI client sends it.
pub(crate) fn request(token: &Issued) -> Vec<u8> {
    let mut text = format!("POST {} HTTP/1.1\r\nhost: gateway\r\n", chat(&token.domain));
    for (name, value) in HEADERS {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("authorization: Bearer {}\r\n", token.text));
    text.push_str(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len()));
    text.into_bytes()
}

/// Accepts connections as long as this process lives.
pub(crate) fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Ends when the other side closes the connection.
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 1 << 14];
    let mut filled = 0;
    loop {
        filled += match stream.read(&mut bytes[filled..])? {
            0 => return Ok(()),
            read => read,
        };
        while let Some(head) = memchr::memmem::find(&bytes[..filled], HEAD_ENDS) {
            let end = head + HEAD_ENDS.len() + BODY.len();
            if end > filled {
                break;
            }
            bytes.copy_within(end..filled, 0);
            filled -= end;
            stream.write_all(REPLY)?;
        }
    }
}

/// Opens this many connections, each with one request at a time, drawn at random. Panics at the
/// first answer that is not 200.
pub(crate) fn load(port: u16, time: Duration, requests: &[Vec<u8>], connections: u64) -> Tally {
    let started = Instant::now();
    let end = started + time;
    let all: Vec<Vec<u32>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|seed| scope.spawn(move || client(port, end, requests, Dice::new(seed))))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap().unwrap()).collect()
    });
    let latencies = all.concat();
    Tally { checks: latencies.len() as u64, took: started.elapsed(), latencies }
}

fn client(port: u16, end: Instant, requests: &[Vec<u8>], mut dice: Dice) -> io::Result<Vec<u32>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut bytes = [0; 1 << 14];
    let mut latencies = Vec::new();
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(latencies);
        }
        stream.write_all(&requests[dice.below(requests.len())])?;
        let mut filled = 0;
        // All answers have the body of the backend.
        while !bytes[..filled].ends_with(b"\r\n\r\n{}") {
            match stream.read(&mut bytes[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
            if !bytes[..filled].starts_with(&REPLY[..12]) {
                let answer = bytes[..filled].escape_ascii();
                return Err(io::Error::other(format!("not what the backend answers: {answer}")));
            }
        }
        latencies.push(nanoseconds(sent.elapsed()));
    }
}
