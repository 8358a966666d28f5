//! HTTP/1.1 as written: requests that no client library would send. `over` sends the same request
//! in each of the ways that reach Envoy.

mod over;

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub use self::over::{CERTIFICATE, KEY, Over, Sent, certify, tls_port};

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The code in patgate's error body, or in that of the catch-all route; empty if there is none.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The values of a header that a model backend received, by lower-case name.
    pub fn seen(&self, name: &str) -> Vec<String> {
        let seen = self.json()["seen"]["headers"].clone();
        let headers: Vec<(String, String)> = serde_json::from_value(seen).unwrap_or_default();
        headers.into_iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v).collect()
    }
}

/// Sends a request line and headers exactly as given, and asks the server to close the connection.
pub async fn send(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Reply {
    send_to("gateway", port, method, target, headers, body).await
}

/// The same, with another host name.
pub async fn send_to(
    host: &str,
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Reply {
    let body = body.as_ref();
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    raw(port, [text.as_bytes(), body].concat()).await
}

/// Sends all of a request as given; it must ask the server to close the connection.
pub async fn raw(port: u16, request: Vec<u8>) -> Reply {
    let exchange = exchange(SocketAddr::from(([127, 0, 0, 1], port)), request);
    timeout(Duration::from_secs(20), exchange).await.expect("an answer within 20 s")
}

/// A client that sends one request after another on the same connection.
pub struct Session {
    port: u16,
    stream: Option<TcpStream>,
}

impl Session {
    pub fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    /// Sends a GET and returns the status of the answer.
    pub async fn get(&mut self, target: &str, bearer: &str) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(("127.0.0.1", self.port)).await?,
        };
        let request =
            format!("GET {target} HTTP/1.1\r\nhost: gateway\r\nauthorization: {bearer}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, length)) = head(&bytes)?
                && bytes.len() >= length
            {
                self.stream = Some(stream);
                return Ok(status);
            }
        }
    }
}

/// Returns the status and the length of the whole answer, once its head is complete.
fn head(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|h| str::from_utf8(h.value).ok()?.parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("an answer without a length"))?;
    Ok(Some((response.code.unwrap(), head + length)))
}

/// Encodes a body in chunks of at most `size`, for `transfer-encoding: chunked`.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let piece =
        |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    body.chunks(size).chain([&b""[..]]).flat_map(piece).collect()
}

async fn exchange(to: SocketAddr, request: Vec<u8>) -> Reply {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // A server that refuses early may close the connection before it has read everything.
    let _ = stream.write_all(&request).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    parse(&bytes)
}

/// Parses a whole answer.
pub fn parse(bytes: &[u8]) -> Reply {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(body)) = response.parse(bytes) else {
        panic!("not an HTTP answer: {:?}", String::from_utf8_lossy(bytes));
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Reply {
        status: response.code.unwrap(),
        headers: response.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
        body: text(&bytes[body..]),
    }
}
