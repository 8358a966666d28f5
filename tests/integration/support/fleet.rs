//! Replicas of one world that are asked together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate_testing::{PAUSE, eventually};
use tokio::time::sleep;

use crate::support::{Replica, Token, World, outcome};

pub(crate) const MODELS: &str = "/proxy/acme/v1/models";

/// How soon everything must work again after a fault.
pub(crate) const HEALED: Duration = Duration::from_secs(5);

pub(crate) struct Fleet(pub(crate) Vec<Arc<Replica>>);

impl Fleet {
    pub(crate) async fn of(world: &World<'_>, size: usize, settings: &[&str]) -> Self {
        Self(join_all((0..size).map(async |_| Arc::new(world.serve(settings).await))).await)
    }

    /// The status that each replica answers.
    pub(crate) async fn answers(&self, token: &Token, path: &str) -> Vec<u16> {
        join_all(self.0.iter().map(|replica| answer(replica, token, path))).await
    }

    /// Asks twice, so that the second answer comes from memory.
    pub(crate) async fn all_answer(&self, token: &Token, path: &str, status: u16) {
        for _ in 0..2 {
            let answers = self.answers(token, path).await;
            assert!(
                answers.iter().all(|answer| *answer == status),
                "{path}: {answers:?}, not {status}"
            );
        }
    }

    /// Waits until every replica answers `after`. Until then, every answer is `before`, and no
    /// replica goes back. Returns how long each took, to within the pause between two requests.
    pub(crate) async fn turn(
        &self,
        what: &str,
        (token, path): (&Token, &str),
        before: u16,
        after: u16,
    ) -> Vec<Duration> {
        let began = Instant::now();
        let turned = join_all(self.0.iter().map(async |replica| {
            loop {
                let answer = answer(replica, token, path).await;
                if answer == after {
                    return began.elapsed();
                }
                assert_eq!(answer, before, "{what}");
                assert!(began.elapsed() < HEALED, "{what}: still {before}");
                sleep(PAUSE).await;
            }
        }))
        .await;
        self.all_answer(token, path, after).await;
        turned
    }

    /// Waits until every replica has polled the feed this many more times.
    pub(crate) async fn polled(&self, times: u64) {
        join_all(self.0.iter().map(|replica| polled(replica, times))).await;
    }
}

/// The status that a replica answers to a GET.
pub(crate) async fn answer(replica: &Replica, token: &Token, path: &str) -> u16 {
    outcome(&replica.check("GET", path, &[("authorization", &token.bearer())]).await).0
}

pub(crate) async fn polls(replica: &Replica) -> u64 {
    replica.metric("patgate_feed_polls_total{result=\"ok\"}").await
}

async fn polled(replica: &Replica, times: u64) {
    let before = polls(replica).await;
    eventually("polls of the feed", async || polls(replica).await >= before + times).await;
}

pub(crate) async fn status(replica: &Replica, token: &Token) -> u16 {
    let headers = [("authorization", token.bearer())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    outcome(&replica.check("GET", MODELS, &headers).await).0
}
