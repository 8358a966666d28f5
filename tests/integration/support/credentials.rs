//! Credentials of backends: sets one, and asks which one a replica uses.

use std::time::Instant;

use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use patgate_testing::PAUSE;
use tokio::time::sleep;

use crate::support::{
    Replica, Suite, Token,
    cli::Cli,
    fleet::{Fleet, HEALED},
    outcome,
};

/// Returns the `Authorization` of an allowed request, or the status of a refused one.
pub(crate) async fn authorization(
    replica: &Replica,
    token: &Token,
    path: &str,
) -> Result<Option<String>, u16> {
    let bearer = token.bearer();
    let response = replica.check("GET", path, &[("authorization", &bearer)]).await;
    let (status, _) = outcome(&response);
    let Some(HttpResponse::OkResponse(ok)) = response.http_response else { return Err(status) };
    let headers = ok.headers.into_iter().filter_map(|option| option.header);
    let mut set: Vec<_> = headers.filter(|header| header.key == "authorization").collect();
    let removed = ok.headers_to_remove.iter().any(|name| name == "authorization");
    assert_eq!(set.len() + usize::from(removed), 1, "set, or removed");
    Ok(set.pop().map(|header| header.value))
}

/// Gives a backend a new credential, and returns what it should receive.
pub(crate) fn give(cli: &Cli<'_>, suite: &Suite, backend: &str) -> String {
    let key = suite.provider_key();
    let ran = cli.feed(&format!("backend credential set {backend}"), &format!("{key}\n"));
    assert_eq!(ran.code, 0, "{ran:#?}");
    format!("Bearer {key}")
}

/// Waits until every replica gives this answer, and checks that it stays.
pub(crate) async fn turns(
    fleet: &Fleet,
    token: &Token,
    path: &str,
    expected: Result<Option<&str>, u16>,
) {
    let expected = expected.map(|value| value.map(str::to_owned));
    let began = Instant::now();
    for replica in &fleet.0 {
        while authorization(replica, token, path).await != expected {
            assert!(began.elapsed() < HEALED, "not {expected:?}");
            sleep(PAUSE).await;
        }
    }
    for replica in &fleet.0 {
        assert_eq!(authorization(replica, token, path).await, expected);
    }
}
