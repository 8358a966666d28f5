//! Tables from the documentation, for entity types that no shipped table has.

use std::{fs, sync::Arc};

use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use patgate_testing::stack::project;

use crate::support::Suite;

const SERVICES: &str = r#"
name: services
mount: /services/{domain}
errors: problem
rules:
  - { methods: [GET], path: /, operation: read, entity: services }
  - { methods: [POST], path: "/{id}/run", operation: execute, entity: services, id: path.id }
"#;

/// Returns the first YAML block of the document.
fn example() -> String {
    let document = fs::read_to_string(project("docs/apis.md")).unwrap();
    let (_, block) = document.split_once("```yaml\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

pub(crate) async fn every_type_of_entity_has_rules_and_scopes(suite: Arc<Suite>) {
    let world = suite.world().await;
    let dir = suite.dir.path().join(format!("{}.entities", world.database));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("datasets.yaml"), example()).unwrap();
    fs::write(dir.join("services.yaml"), SERVICES).unwrap();
    let replica = world.serve(&[&format!("apis={}", dir.display())]).await;
    let one =
        world.token(&[("acme", "datasets", "d1", "read"), ("acme", "services", "s1", "execute")]);
    let every = world.token(&[
        ("acme", "datasets", "*", "read"),
        ("acme", "services", "*", "execute"),
        ("acme", "services", "*", "read"),
    ]);
    let one = one.await.bearer();
    let every = every.await.bearer();
    for (request, one_may, every_may) in [
        ("GET /api/datasets", false, true),
        ("GET /api/datasets/d1", true, true),
        ("GET /api/datasets/d2", false, true),
        ("GET /api/datasets/d1/files/a/b.csv", true, true),
        ("GET /api/datasets/d2/files/d1", false, true),
        ("PATCH /api/datasets/d1", false, false),
        ("GET /services/acme", false, true),
        ("POST /services/acme/s1/run", true, true),
        ("POST /services/acme/s2/run", false, true),
        // The id of another type.
        ("POST /services/acme/d1/run", false, true),
        ("POST /services/beta/s1/run", false, false),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        for (bearer, may) in [(&one, one_may), (&every, every_may)] {
            let headers = [("authorization", bearer.as_str())];
            let host = "acme.data.example.com";
            let answer = replica.check_at(host, method, path, &headers).await;
            let allowed = matches!(answer.http_response, Some(HttpResponse::OkResponse(_)));
            assert_eq!((allowed, answer.status.unwrap().code == 0), (may, may), "{request}");
        }
    }
}
