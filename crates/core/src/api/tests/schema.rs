//! The published schema accepts and refuses what compiling does, as far as a schema can.

use serde_json::Value;

use super::{super::schema, compile, folder, sources};

#[test]
fn the_published_schema_is_this_versions() {
    let published = std::fs::read_to_string(folder().join("schema.json")).unwrap_or_default();
    let schema = schema::text();
    assert!(published == schema, "run `patgate api schema >deploy/apis/schema.json`");
}

/// What the schema refuses is refused by compiling, and the shipped tables pass both. (Compiling
/// sees more: overlaps, parameters that are not there.)
#[test]
fn the_schema_agrees() {
    let schema = jsonschema::validator_for(&schema::schema()).unwrap();
    let valid = |text: &str| schema.is_valid(&serde_saphyr::from_str::<Value>(text).unwrap());
    for source in sources() {
        let value: Value = serde_saphyr::from_str(&source.text).unwrap();
        let errors: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", source.file);
    }
    const KEY: &str = "[authorization.Api-Key]";
    let good = "name: x\nmount: /p/{domain}\nerrors: openai\ninsufficient_permission: 401\n\
                credentials: [authorization.Api-Key]\nrules:\n\
                - { methods: [GET], path: \"/a/{b}/{*c}\", operation: read, entity: scim, id: path.c }\n";
    assert!(valid(good) && compile(good).is_ok());
    let own = "upstream: a.b\nerrors: openai";
    let own = good.replace("errors: openai", own).replace("path.c }", "path.c, upstream: 0_c-d }");
    assert!(valid(&own) && compile(&own).is_ok());
    for (from, to) in
        [("a.b", "A"), ("a.b", "-a"), ("a.b", "[a]"), ("0_c-d", "a/b"), ("0_c-d", "\"\"")]
    {
        let bad = own.replace(from, to);
        assert!(!valid(&bad), "the schema takes {to:?} for {from:?}");
        assert!(compile(&bad).is_err(), "compiled {to:?} for {from:?}");
    }
    let by_path = "errors: { /: openai, /a/b: ollama, /v1: anthropic }";
    let styled = good.replace("errors: openai", by_path);
    assert!(valid(&styled) && compile(&styled).is_ok());
    for (from, to) in [
        ("/: openai, ", ""),
        ("ollama", "soap"),
        ("/a/b:", "a/b:"),
        ("/a/b:", "/a/b/:"),
        ("/a/b:", "/a//b:"),
        ("/a/b:", "/a/..:"),
        ("/a/b:", "\"/a/{b}\":"),
        ("/a/b: ollama", "/a/b: [ollama]"),
    ] {
        let bad = styled.replace(from, to);
        assert!(!valid(&bad), "the schema takes {to:?} for {from:?}");
        assert!(compile(&bad).is_err(), "compiled {to:?} for {from:?}");
    }
    let ignoring = good.replace(
        "read, entity: scim, id: path.c",
        "llm_read, entity: models, id: body.model, content_type: ignored",
    );
    assert!(valid(&ignoring) && compile(&ignoring).is_ok());
    for (from, to) in [("ignored", "any"), ("body.model", "form.model"), ("id: body.model, ", "")] {
        let bad = ignoring.replace(from, to);
        assert!(!valid(&bad), "the schema takes {to:?} for {from:?}");
        assert!(compile(&bad).is_err(), "compiled {to:?} for {from:?}");
    }
    let listing = good.replace("read, entity: scim, id: path.c", "llm_read, entity: models");
    assert!(valid(&listing) && compile(&listing).is_ok());
    let answered = listing.replace("entity: models", "entity: models, answer: ollama-tags");
    let one = answered.replace("ollama-tags", "openai-model, id: path.c");
    assert!(valid(&answered) && compile(&answered).is_ok());
    assert!(valid(&one) && compile(&one).is_ok());
    for (good, from, to) in [
        (&answered, "ollama-tags", "ollama"),
        (&answered, "ollama-tags", "openai-model"),
        (&answered, "ollama-tags", "ollama-tags, id: path.c"),
        (&answered, "[GET]", "[GET, DELETE]"),
        (&answered, "llm_read, entity: models", "read, entity: scim"),
        (&one, "openai-model", "openai-models"),
        (&one, "path.c", "body.model"),
        (&one, "llm_read", "llm_delete"),
    ] {
        let bad = good.replace(from, to);
        assert!(!valid(&bad), "the schema takes {to:?} for {from:?}");
        assert!(compile(&bad).is_err(), "compiled {to:?} for {from:?}");
    }
    for (from, to) in [
        ("name: x", "name: X"),
        ("name: x\n", ""),
        ("name: x", "nom: x"),
        ("/p/{domain}", "/p/{tenant}"),
        ("/p/{domain}", "p/{domain}"),
        ("/p/{domain}", "/p/{domain}/"),
        ("mount: /p/{domain}", "host: \"*.example.com\""),
        ("mount: /p/{domain}", "host: Example.com"),
        ("mount: /p/{domain}", "host: example.com."),
        ("mount: /p/{domain}", "domain: Acme"),
        ("openai", "soap"),
        ("401", "404"),
        (KEY, "[authorization.Basic]"),
        (KEY, "[]"),
        (KEY, "authorization.Bearer"),
        (KEY, "[authorization.Bearer, authorization.Bearer]"),
        (KEY, "[x-api-key]"),
        (KEY, "[authorization.Api-Key]\nremove_cookies: [\"a;b\"]"),
        (KEY, "[authorization.Api-Key]\nremove_cookies: [a, a]"),
        ("[GET]", "[]"),
        ("[GET]", "[get]"),
        ("[GET]", "[GET, GET]"),
        ("[GET]", "GET"),
        ("methods: [GET], ", ""),
        ("/a/{b}", "a/{b}"),
        ("/a/{b}", "//{b}"),
        ("/a/{b}", "/../{b}"),
        ("/a/{b}", "/:a/{b}"),
        ("/a/{b}", "/*/{b}"),
        ("/a/{b}", "/a%20/{b}"),
        ("/a/{b}", "/ä/{b}"),
        ("/a/{b}", "/a/{b}.json"),
        ("/a/{b}", "/a/{*b}"),
        ("operation: read", "operation: READ"),
        ("operation: read", "operation: execute"),
        ("entity: scim", "entity: models"),
        ("entity: scim", "entity: domains"),
        ("path.c", "c"),
        ("path.c", "body.model"),
        ("path.c", "path.domain"),
        ("id: path.c", "colour: red"),
        ("operation: read, entity: scim, id: path.c", "operation: llm_delete, entity: models"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(!valid(&bad), "the schema takes {to:?} for {from:?}");
        assert!(compile(&bad).is_err(), "compiled {to:?} for {from:?}");
    }
}
