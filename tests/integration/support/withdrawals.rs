//! Every way to take a permission away, and to give it back.

use std::time::Duration;

use uuid::Uuid;

use crate::support::{Token, World};

pub(crate) const PROMISED: Duration = Duration::from_secs(1);

/// A token, and its own user, role and domain, which all have the same id.
pub(crate) struct Subject {
    id: Uuid,
    pub(crate) token: Token,
    pub(crate) path: String,
}

/// What is taken away, the refusal, and the statements that take and give.
pub(crate) type Withdrawal = (&'static str, u16, fn(&Subject) -> [String; 2]);

pub(crate) const WITHDRAWALS: [Withdrawal; 7] = [
    ("token revoked", 401, |subject| {
        ["now()", "NULL"].map(|at| {
            format!("UPDATE patgate.pats SET revoked_at = {at} WHERE id = '{}'", subject.token.id)
        })
    }),
    ("token deleted", 401, |Subject { token, .. }| {
        let take = format!("DELETE FROM patgate.pats WHERE id = '{}'", token.id);
        let give = format!(
            "BEGIN; INSERT INTO patgate.pats SELECT * FROM kept WHERE id = '{0}';
             INSERT INTO patgate.pat_scopes SELECT * FROM kept_scopes WHERE pat_id = '{0}'; COMMIT",
            token.id
        );
        [take, give]
    }),
    ("scope removed", 403, |Subject { token, .. }| {
        let take = format!("DELETE FROM patgate.pat_scopes WHERE pat_id = '{}'", token.id);
        let give = "INSERT INTO patgate.pat_scopes SELECT * FROM kept_scopes WHERE pat_id = ";
        [take, format!("{give}'{}'", token.id)]
    }),
    ("membership removed", 403, |Subject { id, .. }| {
        let take = format!("DELETE FROM patgate.role_members WHERE role_id = '{id}'");
        [take, format!("INSERT INTO patgate.role_members VALUES ('{id}', '{id}')")]
    }),
    ("role removed", 403, |subject| {
        [format!("DELETE FROM patgate.roles WHERE id = '{}'", subject.id), role(subject.id)]
    }),
    ("user disabled", 401, |Subject { id, .. }| {
        [false, true].map(|on| format!("UPDATE patgate.users SET enabled = {on} WHERE id = '{id}'"))
    }),
    ("domain disabled", 403, |Subject { id, .. }| {
        [false, true]
            .map(|on| format!("UPDATE patgate.domains SET enabled = {on} WHERE id = '{id}'"))
    }),
];

fn role(id: Uuid) -> String {
    format!(
        "BEGIN; INSERT INTO patgate.roles (id, domain_id, name) VALUES ('{id}', '{id}', 'user');
         INSERT INTO patgate.role_operations VALUES ('{id}', 'llm_read');
         INSERT INTO patgate.role_members VALUES ('{id}', '{id}'); COMMIT;"
    )
}

pub(crate) async fn subject(world: &World<'_>) -> Subject {
    let id = Uuid::now_v7();
    let scope = id.to_string();
    let (token, issued) =
        world.issue("ann", "1 day", &[(scope.as_str(), "models", "*", "llm_read")]);
    // A slug begins with a letter.
    let slug = format!("d-{}", id.simple());
    world
        .sql(&format!(
            "INSERT INTO patgate.users (id, email, name) VALUES ('{id}', '{id}@example.com', 'x');
             INSERT INTO patgate.domains (id, slug, name, upstream, all_models)
                 VALUES ('{id}', '{slug}', 'x', 'model-acme', true); {} {issued}
             UPDATE patgate.pats SET user_id = '{id}' WHERE id = '{}'",
            role(id),
            token.id
        ))
        .await;
    Subject { id, token, path: format!("/proxy/{slug}/v1/models") }
}

/// Keeps copies, from which the taken permissions can be given back.
pub(crate) async fn keep(world: &World<'_>) {
    world
        .sql(
            "CREATE TABLE kept AS SELECT * FROM patgate.pats;
             CREATE TABLE kept_scopes AS SELECT * FROM patgate.pat_scopes",
        )
        .await;
}
