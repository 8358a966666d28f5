//! The model in a query, and queries that may choose one.

use super::super::*;

#[test]
fn nor_may_the_query() {
    for target in [
        "/a",
        "/a?",
        "/model",
        "/a?b",
        "/a?b=model&c=models",
        "/a?beta=true&api-version=2024-10-21",
        "/a?b=%6dodel+x",
        "/a?mode=x&models_of=y&_model=z&x[model]=w",
    ] {
        assert_eq!(in_query(target), Ok(false), "{target}");
    }
    for target in [
        "/a?model=n",
        "/a?model",
        "/a?b=c&model=m",
        "/a?b=c;model=m",
        "/a??model=m",
        "/a?Model=m",
        "/a?model[]=m",
        "/a?model[x]=m",
        "/a?model.x=m",
        "/a?mod%65l=m",
        "/a?+model=m",
        "/a?b%00=m",
        "/a?models=m",
        "/a?preset=m",
        "/a?extra_body[model]=m",
        "/a?fallbacks[]=m",
    ] {
        assert_eq!(in_query(target), Ok(true), "{target}");
    }
}

#[test]
fn a_query_names_a_model_in_one_way_only() {
    for (query, expected) in [
        ("?model=m", Some("m")),
        ("?a=b&model=org/m-7b:x&c", Some("org/m-7b:x")),
        ("", None),
        ("?", None),
        ("?model", None),
        ("?model=", None),
        ("?models=m", None),
        ("?model=m&model=m", None),
        ("?model=m&MODEL=n", None),
        ("?model=m&model[]=n", None),
        ("?model=m;model=n", None),
        ("?model=m&mode%6c=n", None),
        ("?model=m%20", None),
        ("?model=m+n", None),
    ] {
        assert_eq!(super::model_in_query(query), expected, "{query}");
    }
}
