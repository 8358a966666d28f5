//! What a client without a token, which reaches patgate's ports, can do to its memory and its
//! connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use patgate_testing::{eventually, http as http1};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Replica, Suite, World,
    envoy::patient,
    fleet::status,
    process::{self, Process},
    tokens::reader,
};

/// With an earlier release, these held 1.8 GiB. Now the process grows by about 60 MiB.
const CONNECTIONS: usize = 4;
/// The number of streams that an earlier release permitted per connection.
const STREAMS: u32 = 10_000;
/// The largest head that patgate accepts, as HTTP/2 counts it.
const LARGEST: usize = 8 * 1024;
/// Far below the room for messages, from which waiting calls take their memory.
const GROWTH: u64 = 96 << 20;

/// Encodes the opening of streams without a message, sent as fast as the server reads: written by
/// hand, because a client library obeys limits on streams and heads. On the wire, each header is
/// one byte.
fn streams(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    // POST, http, and two literals that are not inserted into HPACK's table: :path and :authority.
    let begin = [&[0x83, 0x86, 0x04][..], &text(path), &[0x01], &text("patgate")].concat();
    // `a: b`, which is inserted into the table and stays its latest entry.
    let first = [&[0x40][..], &text("a"), &text("b")].concat();
    let again = vec![0x80 | 62; (LARGEST - 300) / (32 + 2)];
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for number in 0..STREAMS {
        let more = if number == 0 { &first[..] } else { &[] };
        let block = [&begin[..], more, &again].concat();
        wire.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
        // HEADERS with END_HEADERS and without END_STREAM.
        wire.extend_from_slice(&[1, 4]);
        wire.extend_from_slice(&(2 * number + 1).to_be_bytes());
        wire.extend_from_slice(&block);
    }
    wire
}

/// Floods until the server reads no more, or closes the connection.
async fn flood(replica: &Replica, path: &str) {
    let connections = (0..CONNECTIONS).map(async |_| {
        let wire = streams(path);
        let (mut reading, mut writing) =
            TcpStream::connect(replica.grpc).await.unwrap().into_split();
        let answers = tokio::spawn(async move {
            let mut answers = Vec::new();
            let _ = reading.read_to_end(&mut answers).await;
        });
        // A server that has read enough closes the connection.
        let written = timeout(Duration::from_secs(20), writing.write_all(&wire)).await;
        // Waiting calls get their answers by then.
        let _ = timeout(Duration::from_secs(6), answers).await;
        assert!(written.is_ok(), "the flood is not read");
    });
    join_all(connections).await;
}

/// The promise: calls whose message does not arrive share the room of messages, and their heads are
/// not kept.
pub(crate) async fn heads_without_bodies_hold_little_memory(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let Process { replica, server } = process::serve(&world, &[]).await;
    assert_eq!(status(&replica, &token).await, 200);
    let before = server.peak_resident();
    for path in ["/envoy.service.auth.v3.Authorization/Check", "/grpc.health.v1.Health/Check"] {
        flood(&replica, path).await;
        let grown = server.peak_resident() - before;
        println!("{path}: grown by {} MiB", grown >> 20);
        assert!(grown < GROWTH, "{path}: {} MiB", grown >> 20);
    }
    assert_eq!(status(&replica, &token).await, 200);
}

/// The process has few file descriptors. A client that takes all connections of one port takes none
/// of the other, nor of the stores.
pub(crate) async fn idle_connections_of_one_port_leave_room_for_the_other(suite: Arc<Suite>) {
    const FILES: usize = 400;
    let world = suite.world().await;
    let token = reader(&world).await;
    let other = reader(&world).await;
    let few = format!("ulimit -n {FILES}; exec {} serve", process::program());
    let settings = ["max_staleness=10m"];
    let started = process::serve_by(&world, &["/bin/sh", "-c", &few], &settings).await;
    let replica = &started.replica;
    let ready =
        async || http1::send(replica.http.port(), "GET", "/readyz", &[], "").await.status == 200;

    let idle_http = idle(replica.http, FILES + 100, b"GET /metr").await;
    // On a connection that it has yet to make.
    let fresh = Replica::at(replica.grpc, replica.http);
    let told = timeout(Duration::from_secs(20), status(&fresh, &token)).await;
    assert_eq!(told, Ok(200), "an answer over gRPC");
    assert!(ready().await, "the latest connection is served");
    drop(idle_http);

    let _idle_grpc = idle(replica.grpc, FILES + 100, b"").await;
    assert!(ready().await, "an answer over HTTP");
    let told = timeout(Duration::from_secs(20), status(&fresh, &other)).await;
    assert_eq!(told, Ok(200), "a lookup in the stores, over a connection that is open already");
    revoke(&world, &token).await;
    eventually("the revocation to be obeyed", async || status(&fresh, &token).await == 401).await;
    assert!(replica.metric("patgate_grpc_connections{listener=\"tcp\"}").await < FILES as u64);
}

/// Opens connections that send `said` and nothing else.
async fn idle(to: SocketAddr, count: usize, said: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        // The kernel queues connections that are not accepted, up to a limit.
        let connecting = timeout(Duration::from_secs(1), TcpStream::connect(to)).await;
        let Ok(Ok(mut stream)) = connecting else { break };
        let _ = stream.write_all(said).await;
        open.push(stream);
    }
    open
}

async fn revoke(world: &World<'_>, token: &crate::support::Token) {
    let id = token.id;
    world.sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{id}'")).await;
}

/// If a connection has no free stream, Envoy opens another one: more checks are in progress than
/// fit on one connection. Allowed requests reach their backend.
pub(crate) async fn envoy_finds_a_stream_for_each_check(suite: Arc<Suite>) {
    /// More than fit on one connection for each of Envoy's two threads here, and more than Envoy
    /// sends to a backend at a time by default, including those that wait for a connection.
    const AT_ONCE: usize = 2600;
    let world = suite.world().await;
    let token = reader(&world).await;
    let settings = ["deadline=30s", "postgres.query_timeout=29s"];
    let replica = world.serve(&settings).await;
    let envoy = replica.envoy_with(&suite, patient("30s", "30s"));
    let mut table = world.postgres.acquire().await.unwrap();
    let lock = "BEGIN; LOCK TABLE patgate.pats IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut *table).await.unwrap();
    let bearer = token.bearer();
    let asked =
        (0..AT_ONCE).map(|_| {
            let headers = [("authorization", bearer.as_str())];
            async move {
                http1::send(envoy.port, "GET", "/proxy/acme/v1/models", &headers, "").await.status
            }
        });
    let under_way = async || {
        let stats = "/stats?filter=cluster.patgate.upstream_rq_active";
        let stats = http1::send(envoy.admin_port, "GET", stats, &[], "").await.body;
        let active = stats
            .lines()
            .find_map(|line| line.strip_prefix("cluster.patgate.upstream_rq_active: "));
        active.is_some_and(|active| active.parse::<usize>().unwrap() >= AT_ONCE)
    };
    let release = async {
        eventually("all checks to be under way", under_way).await;
        let connections = replica.metric("patgate_grpc_connections{listener=\"tcp\"}").await;
        assert!(connections > 2, "{connections} connections");
        sqlx::raw_sql("COMMIT").execute(&mut *table).await.unwrap();
    };
    let (told, ()) = tokio::join!(join_all(asked), release);
    let lost = told.iter().filter(|status| **status != 200).count();
    assert_eq!(lost, 0, "of {AT_ONCE}");
}
