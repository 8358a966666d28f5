use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::select};
use uuid::Uuid;

use super::*;
use crate::domain::{DomainId, Models};

const DOMAIN: DomainId = DomainId(Uuid::from_u128(1));
/// One name that no scope and no list has, and some that they may have.
const NAMES: [&str; 5] = ["unheard-of", "a", "a-b", "org/m-7b", "z"];
const LISTED: [&str; 6] = ["a", "a-b", "z", "a*", "org/*", "left,*"];
/// Two uses, an operation that is not a use, and one that models do not have.
const OPERATIONS: [Operation; 4] =
    [Operation::LlmChatCompletions, Operation::LlmEmbeddings, Operation::LlmRead, Operation::Read];

fn domain(models: Option<&[&str]>) -> Domain {
    let models = models.map_or(Models::All, |listed| {
        Models::Listed(listed.iter().map(|name| ((*name).into(), "model-acme".into())).collect())
    });
    Domain::new(DOMAIN, "acme".parse().unwrap(), true, "model-acme".into(), models)
}

type TestScope<'a> = (EntityType, &'a str, Operation);

fn grants(permitted: &[Operation], scopes: &[TestScope<'_>]) -> DomainGrants {
    let permitted = permitted.iter().copied().collect();
    let mut grants = DomainGrants::new(DOMAIN, "acme".parse().unwrap(), permitted);
    scopes.iter().for_each(|(on, name, operation)| grants.add_scope(*on, name, *operation));
    grants
}

proptest! {
    /// Compares the list with the rule of single calls: a name is in the list if some use of it is
    /// permitted, and if a scope or the domain's list names it.
    #[test]
    fn a_list_has_what_single_calls_may_use(
        permitted in vec(select(&OPERATIONS[..]), 0..4),
        scopes in vec(
            (
                select(&[EntityType::Models, EntityType::Domains, EntityType::Datasets][..]),
                select(&["*", "a", "a-b", "org/m-7b", "z"][..]),
                select(&OPERATIONS[..]),
            ),
            0..6,
        ),
        listed in proptest::option::of(vec(select(&LISTED[..]), 0..5)),
    ) {
        let domain = domain(listed.as_deref());
        let grants = grants(&permitted, &scopes);
        let usable = UsableModels::new(&grants, &domain);
        let stands = |name: &str| {
            listed.iter().flatten().any(|listed| *listed == name)
                || scopes.iter().any(|(on, scoped, operation)| {
                    let means = on.operations().contains(*operation);
                    *on == EntityType::Models && *scoped == name && means
                })
        };
        let may_use = |name: &str| {
            let uses = [Operation::LlmChatCompletions, Operation::LlmEmbeddings];
            uses.iter().any(|operation| {
                grants.permits(*operation)
                    && grants.scoped(*operation, EntityType::Models, Some(name))
            }) && domain.upstream_for(Some(name)).is_some()
        };
        let expected: Vec<_> = BTreeSet::from(NAMES)
            .into_iter()
            .filter(|name| stands(name) && may_use(name))
            .collect();
        prop_assert_eq!(&usable.names(), &expected);
        for name in NAMES {
            prop_assert_eq!(usable.has(name), expected.contains(&name), "{}", name);
        }
        if !usable.is_limited() {
            // In every case, the backend's list shows nothing that the token must not read about.
            prop_assert!(grants.scoped(Operation::LlmRead, EntityType::Models, None));
            prop_assert!(listed.is_none());
        }
    }
}

#[test]
fn limited_is_what_names_models() {
    use {
        EntityType::Models as M, Operation::LlmChatCompletions as Chat, Operation::LlmRead as Read,
    };
    let all = [Chat, Read, Operation::LlmEmbeddings];
    for (permitted, scopes, limited) in [
        (&all[..], &[(M, "*", Read), (M, "*", Chat)][..], false),
        (&all, &[(EntityType::Domains, "*", Read), (EntityType::Domains, "*", Chat)], false),
        // A token that only reads may read about every model.
        (&all, &[(M, "*", Read)], false),
        (&[Read], &[(M, "*", Read), (M, "a", Chat)], false),
        (&all, &[(M, "*", Read), (M, "a", Chat)], true),
        (&all, &[(M, "*", Read), (M, "a", Chat), (M, "*", Operation::LlmEmbeddings)], false),
        // Scopes for every model count only as far as the role permits them.
        (
            &[Chat, Read],
            &[(M, "*", Read), (M, "a", Chat), (M, "*", Operation::LlmEmbeddings)],
            true,
        ),
        (&all, &[(M, "a", Read), (M, "*", Chat)], true),
        (&all, &[(M, "a", Read)], true),
    ] {
        let grants = grants(permitted, scopes);
        for (models, expected) in [(None, limited), (Some(&["a"][..]), true), (Some(&[]), true)] {
            let domain = domain(models);
            let usable = UsableModels::new(&grants, &domain);
            assert_eq!(usable.is_limited(), expected, "{permitted:?} {scopes:?} {models:?}");
        }
    }
}

#[test]
fn each_form_says_what_is_known_and_no_more() {
    let names = ["a", "org/\"m\"\n"];
    for (form, names, expected) in [
        (
            ListForm::OpenaiModels,
            &names[..],
            r#"{"object":"list","data":[{"id":"a","object":"model"},{"id":"org/\"m\"\n","object":"model"}]}"#,
        ),
        (ListForm::OpenaiModels, &[], r#"{"object":"list","data":[]}"#),
        (ListForm::OpenaiModel, &names[..1], r#"{"id":"a","object":"model"}"#),
        (
            ListForm::OllamaTags,
            &names,
            r#"{"models":[{"name":"a","model":"a"},{"name":"org/\"m\"\n","model":"org/\"m\"\n"}]}"#,
        ),
        (ListForm::OllamaTags, &[], r#"{"models":[]}"#),
        (ListForm::OllamaPs, &names, r#"{"models":[]}"#),
    ] {
        assert_eq!(body(form, names), expected, "{form}");
    }
}

/// However many names and patterns there are, and however long they are.
#[test]
fn what_a_list_takes_is_bounded() {
    use {EntityType::Models as M, Operation::LlmChatCompletions as Chat};
    let names = |count: usize, what: &str| -> Vec<String> {
        (0..count).map(|number| format!("{what}{number:06}")).collect()
    };
    let listed = |names: &[String]| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        domain(Some(&names))
    };
    let scoped = |names: &[String]| {
        let scopes: Vec<_> = names.iter().map(|name| (M, name.as_str(), Chat)).collect();
        grants(&[Chat], &scopes)
    };
    let every = grants(&[Chat], &[(M, "*", Chat)]);
    let count = |grants: &DomainGrants, domain: &Domain| {
        let usable = UsableModels::new(grants, domain);
        (usable.names().len(), usable.takes_long())
    };
    let short = names(200, "m");
    let long = names(MAX_NAMES + 2000, "m");
    let all = domain(None);
    let none = domain(Some(&[]));
    assert_eq!(count(&every, &listed(&short)), (200, false));
    assert_eq!(count(&scoped(&short), &all), (200, false));
    assert_eq!(count(&scoped(&short), &none), (0, false));
    assert_eq!(count(&every, &listed(&long)), (MAX_NAMES, true));
    assert_eq!(count(&scoped(&long), &all), (MAX_NAMES, true));
    // The list has the first ones.
    let domain = listed(&long);
    let listed_first = UsableModels::new(&every, &domain).names();
    assert_eq!(listed_first.last().copied(), Some(&*format!("m{:06}", MAX_NAMES - 1)));
    // With many patterns, fewer names are compared with them.
    let mut patterns: Vec<_> = (0..999).map(|number| format!("x{number}-*")).collect();
    patterns.push("m*".to_owned());
    assert_eq!(count(&scoped(&long), &listed(&patterns)), (MAX_COMPARISONS / 1000, true));
    assert_eq!(count(&scoped(&short[..3]), &listed(&patterns)), (3, false));
    assert_eq!(count(&scoped(&short[..5]), &listed(&patterns)), (5, true));

    let long = "m".repeat(1000);
    let many = vec![&*long; MAX_NAMES];
    for form in ListForm::ALL {
        let length = body(*form, &many).len();
        assert!(length <= 2 * MAX_BYTES, "{form}: {length}");
    }
    let names: Vec<_> = names(MAX_NAMES, "org/model-").into_iter().collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(body(ListForm::OpenaiModels, &names).matches("org/").count(), MAX_NAMES);
}
