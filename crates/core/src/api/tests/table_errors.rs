//! Every error that a table can have, reported with its file and line.

use super::*;

/// A table whose rules, from line 5 on, have one error each.
#[test]
fn errors_in_rules() {
    for (rules, expected) in [
        (
            "{ methods: [GET], path: /a, operation: llm, entity: models }",
            "5: rule `GET /a`: `operation`: unknown operation `llm`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: model }",
            "5: rule `GET /a`: `entity`: unknown entity type `model`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: models }",
            "5: rule `GET /a`: `read` is not an operation of `models`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, it: x }",
            "5: rule `GET /a`: unknown field `it`",
        ),
        (
            "{ methods: [], path: /a, operation: read, entity: scim }",
            "5: rule ` /a`: `methods`: expected one or more",
        ),
        (
            "{ methods: [get], path: /a, operation: read, entity: scim }",
            "5: rule `get /a`: unknown method `get`",
        ),
        (
            "{ methods: [GET, GET], path: /a, operation: read, entity: scim }",
            "5: rule `GET,GET /a`: `GET` occurs twice",
        ),
        (
            "{ methods: GET, path: /a, operation: read, entity: scim }",
            "5: rule `/a`: `methods`: expected a list",
        ),
        ("{ path: /a, operation: read, entity: scim }", "5: rule `/a`: `methods` is missing"),
        ("{ methods: [GET], operation: read, entity: scim }", "5: `path` is missing"),
        ("{ methods: [GET], path: /a, entity: scim }", "5: rule `GET /a`: `operation` is missing"),
        (
            "{ methods: [GET], path: a, operation: read, entity: scim }",
            "5: rule `GET a`: `path`: a path begins with `/`",
        ),
        (
            "{ methods: [GET], path: /a/, operation: read, entity: scim }",
            "5: rule `GET /a/`: `path`: ``: a path has no empty segments and no `/` at its end",
        ),
        (
            "{ methods: [GET], path: \"/{*a}/b\", operation: read, entity: scim }",
            "5: rule `GET /{*a}/b`: `path`: a tail such as `{*name}` must end the path",
        ),
        (
            "{ methods: [GET], path: \"/{domain}\", operation: read, entity: scim }",
            "5: rule `GET /{domain}`: `{domain}` belongs in",
        ),
        (
            "{ methods: [GET], path: [a], operation: read, entity: scim }",
            "5: `path`: expected a value, not a list",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: path.b }",
            "5: rule `GET /a`: `id`: `{b}` does not occur",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: path.domain }",
            "5: rule `GET /a`: `id`: expected `body.model`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: body.id }",
            "5: rule `GET /a`: `id`: expected `body.model`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, upstream: A }",
            "5: rule `GET /a`: `upstream`: expected a backend's name",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: body.model }",
            "5: rule `GET /a`: `id`: `body.model` is the id of one of `models`, not `scim`",
        ),
        (
            "{ methods: [GET], path: \"/{a}\", operation: read, entity: domains, id: path.a }",
            "5: rule `GET /{a}`: `id`: a rule about the domain itself has none",
        ),
        (
            "{ methods: [POST], path: /a, operation: llm_read, entity: models, id: body.model, content_type: any }",
            "5: rule `POST /a`: `content_type`: unknown use of Content-Type `any`",
        ),
        (
            "{ methods: [POST], path: /a, operation: llm_read, entity: models, id: form.model, content_type: ignored }",
            "5: rule `POST /a`: `content_type` belongs to a rule with `id: body.model`",
        ),
        (
            "{ methods: [POST], path: /a, operation: llm_read, entity: models, content_type: checked }",
            "5: rule `POST /a`: `content_type` belongs to a rule with `id: body.model`",
        ),
        (
            "{ methods: [POST], path: /a, operation: llm_embeddings, entity: models }",
            "5: rule `POST /a`: `id` is missing: write `id: body.model`,",
        ),
        (
            "{ methods: [GET], path: /a, operation: llm_read, entity: models, answer: list }",
            "5: rule `GET /a`: `answer`: unknown form of an answer `list`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, answer: ollama-ps }",
            "5: rule `GET /a`: `answer` is for rules of `llm_read` on `models`",
        ),
        (
            "{ methods: [GET, POST], path: /a, operation: llm_read, entity: models, answer: ollama-ps }",
            "5: rule `GET,POST /a`: `answer` is for rules of `llm_read` on `models`",
        ),
        (
            "{ methods: [GET], path: /a, operation: llm_read, entity: models, answer: openai-model }",
            "5: rule `GET /a`: `answer` is for rules of `llm_read` on `models`",
        ),
        (
            "{ methods: [GET], path: \"/{a}\", operation: llm_read, entity: models, id: path.a, answer: openai-models }",
            "5: rule `GET /{a}`: `answer` is for rules of `llm_read` on `models`",
        ),
        (
            "{ methods: [GET], path: /a%20b, operation: read, entity: scim }",
            "5: rule `GET /a%20b`: `path`: `a%20b`: a request's path has visible ASCII",
        ),
        (
            "{ methods: [GET], path: /a/../b, operation: read, entity: scim }",
            "5: rule `GET /a/../b`: `path`: `..`: a path has no `.` and `..`",
        ),
        (
            "{ methods: [GET], path: /a/:id, operation: read, entity: scim }",
            "5: rule `GET /a/:id`: `path`: `:id`: a parameter is written `{id}`, not `:id`",
        ),
        (
            "{ methods: [GET], path: /a/*, operation: read, entity: scim }",
            "5: rule `GET /a/*`: `path`: `*`: a tail is written `{*name}`; there is no other",
        ),
        (
            "{ methods: [GET], path: \"/{id}.json\", operation: read, entity: scim }",
            "5: rule `GET /{id}.json`: `path`: `{id}.json`: a parameter is a whole segment",
        ),
        ("GET /a", "5: expected a map of fields, not a value"),
        (
            "{ methods: [GET, PUT], path: /a, operation: read, entity: scim }\n  - { methods: [PUT], path: /a, operation: delete, entity: scim }",
            "6: rule `PUT /a`: PUT overlaps rule `GET,PUT /a` (line 5)",
        ),
        (
            "{ methods: [GET], path: \"/a/{x}\", operation: read, entity: scim }\n  - { methods: [GET], path: \"/a/{y}\", operation: read, entity: scim }",
            "6: rule `GET /a/{y}`: GET overlaps rule `GET /a/{x}` (line 5)",
        ),
        // Only some requests would reach the second rule, which its text does not show.
        (
            "{ methods: [GET], path: /a/b, operation: read, entity: scim }\n  - { methods: [GET], path: \"/{x}/b\", operation: read, entity: scim }",
            "6: rule `GET /{x}/b`: GET overlaps rule `GET /a/b` (line 5)",
        ),
        (
            "{ methods: [GET], path: \"/a/{*x}\", operation: read, entity: scim }\n  - { methods: [GET], path: /a/b/c, operation: read, entity: scim }",
            "6: rule `GET /a/b/c`: GET overlaps rule `GET /a/{*x}` (line 5)",
        ),
    ] {
        let text = format!("{HEAD}rules:\n  - {rules}\n");
        let message = compile(&text).unwrap_err().to_string();
        assert!(message.starts_with(&format!("t.yaml:{expected}")), "{rules}\n{message}");
        assert_eq!(message.lines().count(), 1, "{rules}\n{message}");
    }
}

#[test]
fn errors_in_tables() {
    let rule = "rules: [{ methods: [GET], path: /a, operation: read, entity: scim }]\n";
    for (head, expected) in [
        ("mount: /p/{domain}\nerrors: openai\n", "t.yaml:1: `name` is missing"),
        ("name: X\nmount: /p/{domain}\nerrors: openai\n", "t.yaml:1: `name`: expected a word"),
        ("name: x\nmount: /p/{domain}\n", "t.yaml:1: `errors` is missing"),
        ("name: x\nmount: /p/{domain}\nerrors: soap\n", "t.yaml:3: `errors`: unknown error style"),
        (
            "name: x\nmount: /p/{domain}\nerrors: [openai]\n",
            "t.yaml:3: `errors`: expected an error style, not a list",
        ),
        (
            "name: x\nmount: /p/{domain}\nerrors: {}\n",
            "t.yaml:3: `errors`: `/` is missing: the style for all other paths",
        ),
        (
            "name: x\nmount: /p/{domain}\nerrors:\n  /: openai\n  /: ollama\n",
            "t.yaml:5: this key occurs twice in the map",
        ),
        (
            "name: x\nmount: /p\nerrors: openai\n",
            "t.yaml:1: expected one thing that names the domain",
        ),
        ("name: x\nerrors: openai\n", "t.yaml:1: expected one thing that names the domain"),
        (
            "name: x\nmount: /p/{domain}\ndomain: acme\nerrors: openai\n",
            "t.yaml:1: expected one thing that names the domain",
        ),
        (
            "name: x\nmount: /p/{domain}\nhost: \"{domain}.example.com\"\nerrors: openai\n",
            "t.yaml:1: expected one thing that names the domain",
        ),
        ("name: x\nmount: /p/{tenant}\nerrors: openai\n", "t.yaml:2: `mount`: `{tenant}`"),
        (
            "name: x\nmount: \"/p/{*domain}\"\nerrors: openai\n",
            "t.yaml:2: `mount`: a mount has no tail",
        ),
        ("name: x\nhost: \"*.example.com\"\nerrors: openai\n", "t.yaml:2: `host`: a host name"),
        ("name: x\ndomain: Acme\nerrors: openai\n", "t.yaml:2: `domain`: expected a domain's slug"),
        (
            "name: x\ndomain: acme\nerrors: openai\ncredentials: [authorization.Basic]\n",
            "t.yaml:4: unknown source of credentials `authorization.Basic`",
        ),
        (
            "name: x\ndomain: acme\nerrors: openai\ncredentials: [api-key]\n",
            "t.yaml:4: `credentials`: expected at least one in `authorization`, such as \
             `authorization.Bearer`",
        ),
        (
            "name: x\ndomain: acme\nerrors: openai\nremove_cookies: [\"a b\"]\n",
            "t.yaml:4: `a b` is not the name of a cookie",
        ),
        (
            "name: x\ndomain: acme\nerrors: openai\ninsufficient_permission: 404\n",
            "t.yaml:4: `insufficient_permission`: unknown status `404`",
        ),
        (
            "name: x\ndomain: acme\nerrors: openai\ncolour: red\n",
            "t.yaml:4: unknown field `colour`",
        ),
        (
            "name: x\nname: y\ndomain: acme\nerrors: openai\n",
            "t.yaml:2: this key occurs twice in the map",
        ),
        ("name: x\n  domain: acme\n", "t.yaml:2: not well-formed YAML"),
    ] {
        let message = compile(&format!("{head}{rule}")).unwrap_err().to_string();
        assert!(message.lines().any(|line| line.starts_with(expected)), "{head}\n{message}");
    }
    for (text, expected) in [
        ("", "t.yaml:1: expected a map of fields, not a value"),
        ("a", "t.yaml:1: expected a map of fields, not a value"),
        ("[]", "t.yaml:1: expected a map of fields, not a list"),
        ("name: x", "t.yaml:1: `errors` is missing"),
        (&format!("{HEAD}rules: []\n"), "t.yaml:1: `rules` is empty: nothing could be allowed"),
        (&format!("{HEAD}rules: {{}}\n"), "t.yaml:4: `rules`: expected a list, not a map"),
    ] {
        let message = compile(text).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{text:?}\n{message}");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let text = "name: X\nmount: /p/{domain}\nerrors: soap\nrules:\n\
                - { methods: [GTE], path: /a/, operation: llm, entity: scim }\n\
                - { methods: [GET], path: /b, operation: read, entity: models }\n";
    let message = compile(text).unwrap_err().to_string();
    let lines: Vec<_> = message.lines().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["1", "3", "5", "5", "5", "6"], "{message}");
}

#[test]
fn errors_in_styles_of_errors() {
    let styles = [
        ("/a: openai", "`errors`: `/` is missing: the style for all other paths"),
        ("/: soap", "`errors`: `/`: unknown error style `soap`"),
        ("/a: { b: openai }", "`errors`: `/a`: expected an error style, not a map"),
        ("b: openai", "`errors`: a path begins with `/`"),
        ("/b/: openai", "`errors`: ``: a path has no empty segments and no `/` at its end"),
        ("/b/../c: openai", "`errors`: `..`: a path has no `.` and `..`"),
        ("\"/b/{c}\": openai", "`errors`: `{c}`: a prefix has no parameters"),
        ("\"/b/{*c}\": openai", "`errors`: `{c}`: a prefix has no parameters"),
    ];
    for (style, expected) in styles {
        let more =
            if style.starts_with("/:") || style == "/a: openai" { "" } else { "  /: scim\n" };
        let text = format!("name: x\nmount: /p/{{domain}}\nerrors:\n  {style}\n{more}rules: 7\n");
        let message = compile(&text).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 2, "{message}");
        assert!(message.contains(expected), "{style}\n{message}");
    }
    // All of them at once.
    let all: String = styles[1..].iter().map(|(style, _)| format!("  {style}\n")).collect();
    let message = compile(&format!("name: x\nmount: /p/{{domain}}\nerrors:\n{all}rules: 7\n"));
    let message = message.unwrap_err().to_string();
    for (at, (style, expected)) in styles.iter().enumerate().skip(1) {
        assert!(message.contains(&format!("t.yaml:{}: {expected}", at + 3)), "{style}\n{message}");
    }
}

#[test]
fn tables_that_contradict_one_another_are_refused() {
    let table = |name: &str, at: &str| {
        let rules = "rules: [{ methods: [GET], path: /a, operation: read, entity: scim }]";
        let text = format!("name: {name}\n{at}\nerrors: openai\n{rules}\n");
        TableSource { file: format!("{name}.yaml"), text }
    };
    let fixed = |at: &str| format!("{at}\ndomain: acme");
    for (one, other, apart) in [
        ("mount: /p/{domain}".to_owned(), "mount: /q/{domain}".to_owned(), true),
        ("mount: /p/{domain}".to_owned(), "mount: /p/{domain}".to_owned(), false),
        ("mount: /p/{domain}".to_owned(), fixed("mount: /p"), false),
        ("mount: /p/{domain}".to_owned(), fixed("mount: /p/a/b"), false),
        ("mount: /p/{domain}".to_owned(), fixed("mount: /pp"), true),
        ("mount: /p/{domain}".to_owned(), fixed("host: a.b"), false),
        (fixed("host: a.b"), fixed("host: b.a"), true),
        (fixed("host: a.b"), "host: \"{domain}.b\"".to_owned(), false),
        (fixed("host: a.b\nmount: /x"), "host: \"{domain}.b\"\nmount: /y".to_owned(), true),
    ] {
        for (one, other) in [(&one, &other), (&other, &one)] {
            let outcome = Apis::compile(&[table("one", one), table("two", other)]);
            let message = outcome.err().map(|errors| errors.to_string()).unwrap_or_default();
            assert_eq!(message.is_empty(), apart, "{one} {other} {message}");
            let told = "two.yaml:1: `two` overlaps table `one` (one.yaml:1)";
            assert!(apart || message.starts_with(told), "{message}");
        }
    }
    let mut twice = [table("x", "mount: /a/{domain}"), table("x", "mount: /b/{domain}")];
    twice[1].file = "again.yaml".to_owned();
    let message = Apis::compile(&twice).unwrap_err().to_string();
    assert_eq!(message, "again.yaml:1: another table has the name `x` (x.yaml:1)");
}
