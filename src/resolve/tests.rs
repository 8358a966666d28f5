use std::time::Duration;

use prometheus_client::registry::Registry;
use uuid::Uuid;

use super::*;
use crate::{check::tests::hot, token::TokenId};

/// Another lookup has ended after memory was checked. The stores do not exist.
#[tokio::test]
async fn a_look_up_takes_what_memory_has_meanwhile() {
    let (checker, ..) = hot(&mut Registry::default());
    let tokens = &checker.stores.stores().unwrap().resolver.principals;
    let now = clock::now();
    let held = TokenId(Uuid::from_u128(7));
    let look_up = async |id: &TokenId, oldest| {
        let found = tokens.look_up(id, oldest, None).unwrap().await;
        found.map(|(_, tier)| tier)
    };
    let second = Duration::from_secs(1);
    assert_eq!(look_up(&held, now.before(second)).await, Ok(Tier::Memory));
    // Nothing older than the caller accepts is returned.
    assert_eq!(look_up(&held, now.after(second)).await, Err(Unavailable));
    let other = TokenId(Uuid::from_u128(8));
    assert_eq!(look_up(&other, now.before(second)).await, Err(Unavailable));
}
