//! Who governs the roles of a domain, and that governing them leads to nothing else.

use std::sync::Arc;

use patgate::{
    admin::{
        RoleName, UserRef,
        web::{Caller, Error},
    },
    domain::DomainRef,
    operation::Operation,
};

use super::{Site, exists, fails, literal, not_found, not_permitted, refused};
use crate::support::{Suite, value};

fn domain(reference: &str) -> DomainRef {
    DomainRef::parse(reference).unwrap()
}

fn role(name: &str) -> RoleName {
    name.parse().unwrap()
}

fn user(name: &str) -> UserRef {
    format!("{name}@example.com").parse().unwrap()
}

/// Each operation permits its own part.
pub(crate) async fn each_operation_permits_its_part(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let acme = domain("acme");
    // The words, and which of five things they permit: see roles, see members, change roles, add, and
    // remove.
    for (at, (operations, permitted)) in [
        ("llm_read", [false, false, false, false, false]),
        ("llm_read view_role_users", [true, true, false, false, false]),
        ("llm_read manage_role", [true, false, true, false, false]),
        ("llm_read add_role_users", [true, false, false, true, false]),
        ("llm_read remove_role_users", [true, false, false, false, true]),
    ]
    .into_iter()
    .enumerate()
    {
        world
            .sql(
                "DELETE FROM patgate.role_members m USING patgate.users u
                 WHERE u.id = m.user_id AND u.name = 'reader'",
            )
            .await;
        site.grant("acme", operations, "reader").await;
        let caller = site.signed_in("reader").await;
        let subject = role(&site.grant("acme", "llm_read", "ann").await);
        let listed = it.roles(&caller, &acme).await;
        assert_eq!(listed.is_ok(), permitted[0], "{operations}: {listed:?}");
        let members = listed.is_ok_and(|roles| roles.iter().all(|role| role.members.is_some()));
        assert_eq!(members, permitted[1], "{operations}");
        let check = |outcome: Result<(), Error>, permitted: bool| {
            if permitted {
                outcome.unwrap_or_else(|error| panic!("{operations}: {error}"));
            } else {
                fails(outcome, not_permitted);
            }
        };
        let new = role(&format!("new{at}"));
        let ops = [Operation::LlmRead];
        check(it.create_role(&caller, &acme, &new, &ops).await.map(drop), permitted[2]);
        check(it.change_role(&caller, &acme, &subject, &ops, &ops).await.map(drop), permitted[2]);
        check(it.add_member(&caller, &acme, &subject, &user("bob")).await.map(drop), permitted[3]);
        let ann = user("ann");
        check(it.remove_member(&caller, &acme, &subject, &ann).await.map(drop), permitted[4]);
        check(it.delete_role(&caller, &acme, &subject).await.map(drop), permitted[2]);
    }
}

/// With every operation that governs roles, a user comes to no other operation, and takes none from
/// those who have more.
pub(crate) async fn governing_roles_leads_to_nothing_else(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let governs = "llm_read manage_role add_role_users remove_role_users view_role_users";
    let own = role(&site.grant("acme", governs, "reader").await);
    let caller = site.signed_in("reader").await;
    let acme = domain("acme");
    let me = user("reader");
    let more = [Operation::LlmRead, Operation::LlmCreate];
    fails(it.create_role(&caller, &acme, &role("mine"), &more).await, not_permitted);
    fails(it.change_role(&caller, &acme, &own, &more, &[]).await, not_permitted);
    fails(it.add_member(&caller, &acme, &role("admin"), &me).await, not_permitted);
    // Of a role with more, not even less.
    let admin = role("admin");
    fails(it.change_role(&caller, &acme, &admin, &[], &more).await, not_permitted);
    fails(it.remove_member(&caller, &acme, &admin, &user("ann")).await, not_permitted);
    fails(it.delete_role(&caller, &acme, &admin).await, not_permitted);
    // A role in another domain, and an own one there: they may do nothing in it.
    for other in ["beta", "picky", "nowhere", &world.id("beta").to_string()] {
        let other = domain(other);
        fails(it.roles(&caller, &other).await, not_found);
        fails(it.create_role(&caller, &other, &role("mine"), &[]).await, not_found);
        fails(it.add_member(&caller, &other, &admin, &me).await, not_found);
        fails(it.remove_member(&caller, &other, &admin, &user("bob")).await, not_found);
        fails(it.change_role(&caller, &other, &admin, &[], &more).await, not_found);
        fails(it.delete_role(&caller, &other, &admin).await, not_found);
    }
    // What they may: roles up to their own.
    let small = role("small");
    let _ = it.create_role(&caller, &acme, &small, &[Operation::ManageRole]).await.unwrap();
    fails(it.create_role(&caller, &acme, &small, &[]).await, exists);
    let _ = it.add_member(&caller, &acme, &small, &user("bob")).await.unwrap();
    let bob = site.signed_in("bob").await;
    // Who was given the right to change roles has that one only, and gives no other.
    fails(it.change_role(&bob, &acme, &small, &[Operation::LlmRead], &[]).await, not_permitted);
    fails(it.add_member(&bob, &acme, &small, &me).await, not_permitted);
    let _ = it.remove_member(&caller, &acme, &small, &user("bob")).await.unwrap();
    fails(it.roles(&bob, &acme).await, not_found);
    fails(it.remove_member(&caller, &acme, &small, &user("bob")).await, not_found);
    fails(it.add_member(&caller, &acme, &role("none"), &me).await, not_found);
    fails(it.add_member(&caller, &acme, &small, &user("nobody")).await, not_found);
    // The owner of the canaries is no user.
    world.sql("SELECT patgate.flip_canary(gen_random_uuid(), '1 hour')").await;
    let keeper = "revocation-canary@patgate.invalid".parse().unwrap();
    fails(it.add_member(&caller, &acme, &small, &keeper).await, not_found);

    // Over SQL, with words that are none.
    let proof = literal(&caller);
    for (operations, code) in [
        ("'{*}'", "PW008"),
        ("'{NULL}'", "PW008"),
        ("'{LLM_READ}'", "PW008"),
        ("'{llm_read,llm_create}'", "PW002"),
        ("ARRAY['llm_read','llm_create']", "PW002"),
    ] {
        for sql in [
            format!(
                "SELECT patgate.web_create_role({proof}, NULL, NULL, 'acme', 'x', {operations})"
            ),
            format!(
                "SELECT patgate.web_change_role({proof}, NULL, NULL, 'acme', 'small', {operations},
                     '{{}}')"
            ),
        ] {
            assert_eq!(site.code(&sql).await, refused(code), "{sql}");
        }
    }
    let mine = "SELECT count(*) FROM patgate.role_members m
                JOIN patgate.role_operations o ON o.role_id = m.role_id
                JOIN patgate.users u ON u.id = m.user_id
                WHERE u.name = 'reader' AND o.operation = 'llm_create'";
    assert_eq!(value::<i64>(&world, mine).await, 0);
    can_still(&site, &caller).await;
}

/// The caller's own rights are what they were.
async fn can_still(site: &Site<'_, '_>, caller: &Caller) {
    let domains = site.service.grantable(caller).await.unwrap();
    let slugs: Vec<&str> = domains.iter().map(|domain| &*domain.slug).collect();
    assert_eq!((slugs, domains[0].operations.len()), (vec!["acme"], 5));
}
