//! One token that sends the costliest requests uses up its own share, and nothing of others'.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use envoy_types::pb::envoy::service::auth::v3::{
    CheckResponse, check_response::HttpResponse::DeniedResponse,
};
use futures_util::future::join_all;
use patgate_testing::{
    costly_bodies::{self, Form},
    eventually,
    http::{self, Over},
};

use crate::support::{
    Suite,
    envoy::patient,
    fleet::{MODELS, answer},
    http_of, outcome, process, request,
    tokens::reader,
};

const CHAT: &str = "/proxy/acme/v1/chat/completions";
const AUDIO: &str = "/proxy/acme/v1/audio/transcriptions";
const EMBEDDINGS: &str = "/proxy/acme/v1/embeddings";
/// The maximum that the shipped configuration shows of a body, and that Envoy accepts of headers.
const BODY: usize = 1_000_000;
const QUERY: usize = 30_000;

/// Target, media type, encoding and body.
type Costly = (String, &'static str, &'static str, Vec<u8>);

fn costly() -> Vec<Costly> {
    let bodies = costly_bodies::bodies(BODY).into_iter().map(|costly| {
        let costly_bodies::Costly { name, form, bytes, encoding, decoded, good } = costly;
        let malformed = if good { "" } else { ", malformed" };
        println!("{name}: {} bytes, decoded {decoded}{malformed}", bytes.len());
        let target = match form {
            Form::Json => CHAT,
            Form::Multipart => AUDIO,
        };
        (target.to_owned(), form.media_type(), encoding.unwrap_or("identity"), bytes)
    });
    let queries = costly_bodies::targets(QUERY).into_iter().map(|(_, target)| {
        let query = target.split_once('?').unwrap().1;
        let body = b"{\"model\":\"n\"}".to_vec();
        (format!("{CHAT}?{query}"), "application/json", "identity", body)
    });
    bodies.chain(queries).collect()
}

/// Through Envoy, which asks about all of them on the same connection, and waits a second for an
/// answer, because the test machine may be busy with other tests.
pub(crate) async fn neighbours_of_a_costly_token_are_served(suite: Arc<Suite>) {
    const CLIENTS: usize = 4;
    const CHECKS: usize = 1000;
    const AT_ONCE: usize = 10;
    let world = suite.world().await;
    let scopes = ["llm_chat_completions", "llm_transcription"];
    let scopes = scopes.map(|operation| ("acme", "models", "m", operation));
    let sender = world.token(&scopes).await.bearer();
    let neighbour = reader(&world).await.bearer();
    let process = process::serve(&world, &[]).await;
    let envoy = process.replica.envoy_with(&suite, patient("1s", "1s"));
    let ask = async |bearer: &str| {
        let headers = [("authorization", bearer)];
        http::send(envoy.port, "GET", MODELS, &headers, "").await.status
    };
    eventually("the neighbour to be served", async || ask(&neighbour).await == 200).await;

    let costly = costly();
    let stop = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let flood = join_all((0..CLIENTS).map(async |client| {
        let mut statuses = std::collections::BTreeMap::new();
        for (target, media_type, encoding, body) in
            costly.iter().cycle().skip(client * costly.len() / CLIENTS)
        {
            if stop.load(Relaxed) {
                break;
            }
            let headers = [
                ("authorization", sender.as_str()),
                ("content-type", media_type),
                ("content-encoding", encoding),
            ];
            let status = Over::in_turn().post(envoy.port, target, &headers, body).await.status;
            *statuses.entry(status).or_insert(0) += 1;
            sent.fetch_add(1, Relaxed);
        }
        statuses
    }));
    let neighbours = async {
        // Until all have been sent, with this number of other requests meanwhile.
        let mut asked = 0;
        let mut refused = Vec::new();
        let mut took = Vec::new();
        while asked < CHECKS || sent.load(Relaxed) < costly.len() {
            let began = Instant::now();
            let answers = join_all((0..AT_ONCE).map(|_| ask(&neighbour))).await;
            took.push(began.elapsed());
            asked += AT_ONCE;
            refused.extend(answers.into_iter().filter(|status| *status != 200));
        }
        stop.store(true, Relaxed);
        took.sort_unstable();
        println!(
            "{asked} of a neighbour's, {AT_ONCE} at a time: p99 {:?}",
            took[took.len() * 99 / 100]
        );
        refused
    };
    let (statuses, refused) = tokio::join!(flood, neighbours);
    println!("{} costly ones were answered {statuses:?}", sent.load(Relaxed));
    assert!(refused.is_empty(), "{} were refused: {refused:?}", refused.len());
    for statuses in statuses {
        assert!(
            statuses.keys().all(|status| [200, 400, 403, 413, 415, 429, 503].contains(status)),
            "{statuses:?}"
        );
    }
    suite.stack.stop(&envoy);
    suite.stack.stop(&process.server);
}

fn retry_after(response: &CheckResponse) -> Option<String> {
    let Some(DeniedResponse(denied)) = &response.http_response else { return None };
    let mut headers = denied.headers.iter().filter_map(|option| option.header.as_ref());
    headers.find(|header| header.key == "retry-after").map(|header| header.value.clone())
}

/// Permitted requests of that token still pass, as do those of other tokens; and patgate reads no
/// body for a token above its rate.
pub(crate) async fn one_token_is_denied_at_a_bounded_rate(suite: Arc<Suite>) {
    const ASKED: usize = 40;
    let world = suite.world().await;
    let replica = world.serve(&["token.denials_per_second=1"]).await;
    let scopes =
        [("acme", "models", "*", "llm_read"), ("acme", "models", "m", "llm_chat_completions")];
    let token = world.token(&scopes).await;
    let other = world.token(&scopes).await;
    let deny =
        async |bearer: &str| replica.check("POST", EMBEDDINGS, &[("authorization", bearer)]).await;
    let chat = async |bearer: &str| {
        let headers = [
            ("authorization", bearer),
            ("content-type", "application/json"),
            ("x-envoy-auth-partial-body", "false"),
        ];
        let mut request = request("POST", CHAT, &headers);
        http_of(&mut request).raw_body = b"{\"model\":\"m\"}".to_vec();
        outcome(&replica.raw(request).await)
    };
    let began = Instant::now();
    let bearer = token.bearer();
    let mut denied = 0;
    let mut limited = 0;
    for _ in 0..ASKED {
        let answer = deny(&bearer).await;
        match outcome(&answer).0 {
            403 => denied += 1,
            429 => {
                assert_eq!(outcome(&answer).1, "rate_limited");
                assert_eq!(retry_after(&answer).as_deref(), Some("1"));
                limited += 1;
            }
            status => panic!("{status}"),
        }
    }
    let most = 11.0 + began.elapsed().as_secs_f64();
    println!("{denied} denied and {limited} told to wait in {:?}", began.elapsed());
    assert!(denied >= 10 && f64::from(denied) <= most && limited > 0, "{denied} {limited}");
    // No body is read meanwhile, although this request is permitted. On a slow machine, the token
    // may be denied again by then: try again.
    let mut waits = false;
    for _ in 0..20 {
        while outcome(&deny(&bearer).await).0 == 403 {}
        match chat(&bearer).await {
            (429, code) if code == "rate_limited" => {
                waits = true;
                break;
            }
            told => assert_eq!(told, (200, "ok".to_owned())),
        }
    }
    assert!(waits, "bodies of a token that has to wait are read");
    assert_eq!(answer(&replica, &token, MODELS).await, 200);
    // Another token has its own rate.
    assert_eq!(outcome(&deny(&other.bearer()).await).0, 403);
    assert_eq!(chat(&other.bearer()).await.0, 200);
    let counted =
        "patgate_decisions_total{outcome=\"deny\",code=\"rate_limited\",enforced=\"true\"}";
    assert!(replica.metric(counted).await >= limited);

    // A denial that is not enforced does not count.
    let shadow = world.serve(&["token.denials_per_second=1", "mode=shadow"]).await;
    for _ in 0..ASKED {
        let answer = shadow.check("POST", EMBEDDINGS, &[("authorization", &bearer)]).await;
        assert_eq!(outcome(&answer).0, 200);
    }
}
