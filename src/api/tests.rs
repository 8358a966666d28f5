//! The shipped tables side by side, and every mistake that a table can hold.

use std::{hint::black_box, path::PathBuf};

use serde_json::Value;

use super::*;
use crate::clock::Tick;

fn folder() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/apis").into()
}

fn shipped() -> Apis {
    Apis::load(&[folder()]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn compile(text: &str) -> Result<Apis, TableErrors> {
    Apis::compile(&[Source { file: "t.yaml".to_owned(), text: text.to_owned() }])
}

type Expected<'a> = Option<(&'a str, Operation, EntityType, Entity<'a>)>;

/// Host, method, path, and what it should come to.
fn check(host: &str, method: &str, path: &str, expected: Expected<'_>) {
    let apis = shipped();
    let action = apis.surface(host, path).and_then(|surface| surface.action(method, path));
    let found = action.as_ref().map(|a| (&*a.domain, a.operation, a.entity_type, a.entity));
    assert_eq!(found, expected, "{host} {method} {path}");
}

const CLOUD: &str = "acme.cubecloud.dev";

#[test]
fn cube_ai() {
    use {
        Entity::{Named, None as Any, Unread},
        EntityType::Models,
    };
    let check = |method: &str, path: &str, expected| {
        // Whatever the host.
        for host in ["gateway", CLOUD, "", "[::1]:8080", "not a host"] {
            check(host, method, path, expected);
        }
    };
    let chat = Some(("acme", Operation::LlmChatCompletions, Models, Unread(Form::Json)));
    check("POST", "/proxy/acme/v1/chat/completions", chat);
    check("POST", "/proxy/acme/api/chat", chat);
    let read = |entity| Some(("acme", Operation::LlmRead, Models, entity));
    check("GET", "/proxy/acme/v1/models", read(Any));
    check("GET", "/proxy/acme/v1/models/org/m-7b", read(Named("org/m-7b")));
    // The tail is a name, whatever it looks like.
    let name = Named("v1/chat/completions");
    check("GET", "/proxy/acme/v1/models/v1/chat/completions", read(name));
    let audit = (Operation::AuditLogRead, EntityType::Domains);
    check("GET", "/proxy/acme/audit/a/b", Some(("acme", audit.0, audit.1, Any)));
}

#[test]
fn cube_cloud() {
    use Entity::{Named, None as Any};
    for (name, entity) in [
        ("deployments", EntityType::Deployments),
        ("reports", EntityType::Reports),
        ("workbooks", EntityType::Workbooks),
    ] {
        for (method, below, operation, id) in [
            ("GET", "", Operation::Read, Any),
            ("POST", "", Operation::Create, Any),
            ("GET", "/7", Operation::Read, Named("7")),
            ("PUT", "/7", Operation::Update, Named("7")),
            ("PATCH", "/7", Operation::Update, Named("7")),
            ("DELETE", "/7", Operation::Delete, Named("7")),
        ] {
            let path = format!("/api/v1/{name}{below}");
            for host in [CLOUD, "ACME.CubeCloud.dev", "acme.cubecloud.dev:8443"] {
                check(host, method, &path, Some(("acme", operation, entity, id)));
            }
        }
    }
}

#[test]
fn scim() {
    use Entity::{Named, None as Any};
    let scim = |operation, entity| Some(("acme", operation, EntityType::Scim, entity));
    for (method, path, expected) in [
        ("GET", "Users", scim(Operation::Read, Any)),
        ("POST", "Users", scim(Operation::Create, Any)),
        ("POST", "Groups/.search", scim(Operation::Read, Any)),
        ("GET", "Users/2819c223", scim(Operation::Read, Named("2819c223"))),
        // The same path, by a method whose rule has another template.
        ("GET", "Users/.search", scim(Operation::Read, Named(".search"))),
        ("PUT", "Users/1", scim(Operation::Update, Named("1"))),
        ("PATCH", "Groups/1", scim(Operation::Update, Named("1"))),
        ("DELETE", "Users/1", scim(Operation::Delete, Named("1"))),
        ("DELETE", "Groups/1", scim(Operation::Delete, Named("1"))),
        ("GET", "ServiceProviderConfig", scim(Operation::Read, Any)),
        ("POST", "Users/1", None),
        ("POST", "Bulk", None),
        ("GET", "Me", None),
        ("GET", "users", None),
    ] {
        check(CLOUD, method, &format!("/api/scim/v2/{path}"), expected);
    }
}

#[test]
fn aigne_hub() {
    use Entity::{None as Any, Unread};
    for (method, path, operation, entity) in [
        ("POST", "chat/completions", Operation::LlmChatCompletions, Unread(Form::Json)),
        // The model stands where it is not read.
        ("POST", "chat", Operation::LlmChatCompletions, Unread(Form::Other)),
        ("POST", "completions", Operation::LlmCompletions, Unread(Form::Json)),
        ("POST", "embeddings", Operation::LlmEmbeddings, Unread(Form::Json)),
        ("POST", "audio/transcriptions", Operation::LlmTranscription, Unread(Form::Multipart)),
        ("POST", "audio/speech", Operation::LlmUtility, Unread(Form::Json)),
        ("POST", "image/generations", Operation::LlmUtility, Unread(Form::Json)),
        ("POST", "image", Operation::LlmUtility, Unread(Form::Other)),
        ("POST", "video", Operation::LlmUtility, Unread(Form::Other)),
        ("GET", "models", Operation::LlmRead, Any),
        ("GET", "status", Operation::LlmRead, Any),
    ] {
        for host in ["hub.example.com", CLOUD, ""] {
            let expected = Some(("aigne", operation, EntityType::Models, entity));
            check(host, method, &format!("/api/v2/{path}"), expected);
        }
    }
}

#[test]
fn what_no_rule_names_is_nothing() {
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/proxy"),
        ("GET", "/proxy/acme"),
        ("GET", "/proxy/acme/v1/models/"),
        ("HEAD", "/proxy/acme/v1/models"),
        ("get", "/proxy/acme/v1/models"),
        ("", "/proxy/acme/v1/models"),
        ("POST", "/proxy/acme/v1/models"),
        ("POST", "/proxy/acme/v1/chat/completions/x"),
        ("POST", "/proxy/acme/v1/chat"),
        ("POST", "/proxy/acme/x/v1/chat/completions"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/proxy/acme/audit"),
        ("POST", "/proxy//v1/chat/completions"),
        ("GET", "proxy/acme/v1/models"),
        ("GET", ""),
    ] {
        check(CLOUD, method, path, None);
    }
    for host in [
        "cubecloud.dev",
        "acme.cubecloud.dev.",
        "a.acme.cubecloud.dev",
        ".cubecloud.dev",
        "acme.cubecloud.dev.evil.example",
        "acmecubecloud.dev",
        "acme.cubecloud.dev:x",
        "x@acme.cubecloud.dev",
        "acme.cubecloud.dev,beta.cubecloud.dev",
        "gateway",
        "",
    ] {
        check(host, "GET", "/api/v1/deployments", None);
    }
}

#[test]
fn a_surface_is_known_before_its_rules() {
    let apis = shipped();
    let errors = |host, path| apis.surface(host, path).map(|surface| surface.manner().errors);
    for (host, path, expected) in [
        (CLOUD, "/api/scim/v2/Nothing", Some(ErrorStyle::Scim)),
        (CLOUD, "/api/scim/v2", Some(ErrorStyle::Scim)),
        (CLOUD, "/api/scim/v2/", Some(ErrorStyle::Scim)),
        (CLOUD, "/api/scim/v2/Users/%20;//..", Some(ErrorStyle::Scim)),
        (CLOUD, "/api/scim/v20/Users", None),
        (CLOUD, "/api/scim", None),
        (CLOUD, "/api/v1/x", Some(ErrorStyle::Problem)),
        (CLOUD, "/api/v2/x", Some(ErrorStyle::Aigne)),
        ("elsewhere", "/api/scim/v2/Users", None),
        ("elsewhere", "/api/v2/x", Some(ErrorStyle::Aigne)),
        ("elsewhere", "/proxy/acme/../x", Some(ErrorStyle::Openai)),
        ("elsewhere", "/proxy//x", None),
    ] {
        assert_eq!(errors(host, path), expected, "{host} {path}");
    }
}

const HEAD: &str = "name: x\nmount: /p/{domain}\nerrors: openai\n";

/// A table whose rules, from line 5 on, have one mistake each.
#[test]
fn mistakes_in_rules() {
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
            "`methods`: expected one or more",
        ),
        ("{ methods: [get], path: /a, operation: read, entity: scim }", "unknown method `get`"),
        (
            "{ methods: [GET, GET], path: /a, operation: read, entity: scim }",
            "`GET` stands there twice",
        ),
        ("{ methods: GET, path: /a, operation: read, entity: scim }", "`methods`: expected a list"),
        ("{ path: /a, operation: read, entity: scim }", "5: rule `/a`: `methods` is missing"),
        ("{ methods: [GET], operation: read, entity: scim }", "5: `path` is missing"),
        ("{ methods: [GET], path: /a, entity: scim }", "`operation` is missing"),
        ("{ methods: [GET], path: a, operation: read, entity: scim }", "begins with `/`"),
        ("{ methods: [GET], path: /a/, operation: read, entity: scim }", "no `/` at its end"),
        (
            "{ methods: [GET], path: \"/{*a}/b\", operation: read, entity: scim }",
            "may only end the path",
        ),
        ("{ methods: [GET], path: \"/{domain}\", operation: read, entity: scim }", "belongs into"),
        (
            "{ methods: [GET], path: [a], operation: read, entity: scim }",
            "`path`: expected a value, not a list",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: path.b }",
            "`{b}` does not stand",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: path.domain }",
            "expected `body.model`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: body.id }",
            "expected `body.model`",
        ),
        (
            "{ methods: [GET], path: /a, operation: read, entity: scim, id: body.model }",
            "not `scim`",
        ),
        (
            "{ methods: [GET], path: \"/{a}\", operation: read, entity: domains, id: path.a }",
            "has none",
        ),
        (
            "{ methods: [POST], path: /a, operation: llm_embeddings, entity: models }",
            "5: rule `POST /a`: `id` is missing: write `id: body.model`,",
        ),
        ("GET /a", "5: expected a map of fields, not a value"),
        (
            "{ methods: [GET, PUT], path: /a, operation: read, entity: scim }\n  - { methods: [PUT], path: /a, operation: delete, entity: scim }",
            "6: rule `PUT /a`: PUT overlaps rule `GET,PUT /a` (line 5)",
        ),
        (
            "{ methods: [GET], path: \"/a/{x}\", operation: read, entity: scim }\n  - { methods: [GET], path: \"/a/{y}\", operation: read, entity: scim }",
            "GET overlaps rule `GET /a/{x}` (line 5)",
        ),
        // The second can be reached in part only, which nobody could see from it.
        (
            "{ methods: [GET], path: /a/b, operation: read, entity: scim }\n  - { methods: [GET], path: \"/{x}/b\", operation: read, entity: scim }",
            "GET overlaps rule `GET /a/b` (line 5)",
        ),
        (
            "{ methods: [GET], path: \"/a/{*x}\", operation: read, entity: scim }\n  - { methods: [GET], path: /a/b/c, operation: read, entity: scim }",
            "GET overlaps rule `GET /a/{*x}` (line 5)",
        ),
    ] {
        let text = format!("{HEAD}rules:\n  - {rules}\n");
        let message = compile(&text).unwrap_err().to_string();
        assert!(message.starts_with("t.yaml:"), "{message}");
        assert!(message.contains(expected), "{rules}\n{message}");
        assert_eq!(message.lines().count(), 1, "{rules}\n{message}");
    }
}

#[test]
fn mistakes_in_tables() {
    let rule = "rules: [{ methods: [GET], path: /a, operation: read, entity: scim }]\n";
    for (head, expected) in [
        ("mount: /p/{domain}\nerrors: openai\n", "t.yaml:1: `name` is missing"),
        ("name: X\nmount: /p/{domain}\nerrors: openai\n", "t.yaml:1: `name`: expected a word"),
        ("name: x\nmount: /p/{domain}\n", "`errors` is missing"),
        ("name: x\nmount: /p/{domain}\nerrors: soap\n", "t.yaml:3: `errors`: unknown error style"),
        ("name: x\nmount: /p\nerrors: openai\n", "expected one thing that names the domain"),
        ("name: x\nerrors: openai\n", "expected one thing that names the domain"),
        (
            "name: x\nmount: /p/{domain}\ndomain: acme\nerrors: openai\n",
            "expected one thing that names the domain",
        ),
        (
            "name: x\nmount: /p/{domain}\nhost: \"{domain}.example.com\"\nerrors: openai\n",
            "expected one thing that names the domain",
        ),
        ("name: x\nmount: /p/{tenant}\nerrors: openai\n", "t.yaml:2: `mount`: `{tenant}`"),
        ("name: x\nmount: \"/p/{*domain}\"\nerrors: openai\n", "`mount`: a mount has no tail"),
        ("name: x\nhost: \"*.example.com\"\nerrors: openai\n", "t.yaml:2: `host`: a host name"),
        ("name: x\ndomain: Acme\nerrors: openai\n", "t.yaml:2: `domain`: expected a domain's slug"),
        ("name: x\ndomain: acme\nerrors: openai\nschemes: [Basic]\n", "unknown scheme `Basic`"),
        ("name: x\ndomain: acme\nerrors: openai\nschemes: []\n", "expected one or more"),
        (
            "name: x\ndomain: acme\nerrors: openai\ninsufficient_permission: 404\n",
            "unknown status `404`",
        ),
        (
            "name: x\ndomain: acme\nerrors: openai\ncolour: red\n",
            "t.yaml:4: unknown field `colour`",
        ),
        ("name: x\nname: y\ndomain: acme\nerrors: openai\n", "t.yaml:2: a key stands here twice"),
        ("name: x\n  domain: acme\n", "not well-formed YAML"),
    ] {
        let message = compile(&format!("{head}{rule}")).unwrap_err().to_string();
        assert!(message.lines().any(|line| line.contains(expected)), "{head}\n{message}");
    }
    for text in ["", "a", "[]", "name: x"] {
        assert!(compile(text).is_err(), "{text}");
    }
    let message = compile(&format!("{HEAD}rules: []\n")).unwrap_err().to_string();
    assert!(message.contains("nothing could be allowed"), "{message}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "name: X\nmount: /p/{domain}\nerrors: soap\nrules:\n\
                - { methods: [GTE], path: /a/, operation: llm, entity: scim }\n\
                - { methods: [GET], path: /b, operation: read, entity: models }\n";
    let message = compile(text).unwrap_err().to_string();
    let lines: Vec<_> = message.lines().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["1", "3", "5", "5", "5", "6"], "{message}");
}

#[test]
fn tables_that_contradict_one_another_are_refused() {
    let table = |name: &str, at: &str| {
        let rules = "rules: [{ methods: [GET], path: /a, operation: read, entity: scim }]";
        let text = format!("name: {name}\n{at}\nerrors: openai\n{rules}\n");
        Source { file: format!("{name}.yaml"), text }
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
            let message = outcome.err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
            assert_eq!(message.is_empty(), apart, "{one} {other} {message}");
            let told = "two.yaml:1: `two` overlaps table `one` (one.yaml:1)";
            assert!(apart || message.starts_with(told), "{message}");
        }
    }
    let twice = [table("x", "mount: /a/{domain}"), table("x", "mount: /b/{domain}")];
    let message = Apis::compile(&twice).unwrap_err().to_string();
    assert!(message.contains("another table has the name"), "{message}");
}

#[test]
fn files_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    let load = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| dir.path().join(path)).collect();
        let names = |apis: Apis| apis.list().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        Apis::load(&paths).map(names).map_err(|mistakes| mistakes.to_string())
    };
    assert!(load(&[""]).unwrap_err().contains("holds no file"));
    assert!(load(&["missing.yaml"]).unwrap_err().contains("missing.yaml: No such file"));
    for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt"] {
        let text = format!(
            "name: {}\nmount: /{name}/{{domain}}\nerrors: scim\nrules:\n\
             - {{ methods: [GET], path: /, operation: read, entity: scim }}\n",
            &name[..1]
        );
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    assert_eq!(load(&[""]).unwrap(), ["a", "b"]);
    assert_eq!(load(&["b.yaml"]).unwrap(), ["b"]);
    assert_eq!(
        Apis::load(&[]).unwrap().list().map(|(name, _)| name).collect::<Vec<_>>(),
        ["cube-ai"]
    );
}

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
    for source in Source::read(&[folder()]).unwrap() {
        let value: Value = serde_saphyr::from_str(&source.text).unwrap();
        let errors: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", source.file);
    }
    let good = "name: x\nmount: /p/{domain}\nerrors: openai\ninsufficient_permission: 401\n\
                schemes: [Api-Key]\nrules:\n\
                - { methods: [GET], path: \"/a/{b}/{*c}\", operation: read, entity: scim, id: path.c }\n";
    assert!(valid(good) && compile(good).is_ok());
    let listing = good.replace("read, entity: scim, id: path.c", "llm_read, entity: models");
    assert!(valid(&listing) && compile(&listing).is_ok());
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
        ("[Api-Key]", "[Basic]"),
        ("[Api-Key]", "[]"),
        ("[Api-Key]", "Bearer"),
        ("[Api-Key]", "[Bearer, Bearer]"),
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

/// What finding costs, among as many rules: nanoseconds a request, the least of some rounds.
fn cost(apis: &Apis, rules: usize) -> f64 {
    let paths: Vec<_> =
        (0..256).map(|at| format!("/p/acme/things/kind-{}/7/parts/9", at * 31 % rules)).collect();
    let started = Tick::now();
    for path in &paths {
        let surface = apis.surface(black_box("gateway"), path).unwrap();
        black_box(surface.action("GET", path).unwrap());
    }
    Tick::now().since(started).as_secs_f64() * 1e9 / paths.len() as f64
}

#[test]
fn ten_thousand_rules_cost_what_ten_do() {
    let table = |count: usize| {
        let rules: String = (0..count)
            .map(|at| {
                format!(
                    "- {{ methods: [GET], path: \"/things/kind-{at}/{{id}}/parts/{{part}}\", \
                     operation: read, entity: scim, id: path.part }}\n"
                )
            })
            .collect();
        compile(&format!("{HEAD}rules:\n{rules}")).unwrap()
    };
    let (few, many) = (table(10), table(10_000));
    let least = |apis: &Apis, rules| (0..50).map(|_| cost(apis, rules)).fold(f64::MAX, f64::min);
    let (few, many) = (least(&few, 10), least(&many, 10_000));
    println!("10 rules {few:.0} ns, 10,000 rules {many:.0} ns, ratio {:.2}", many / few);
    // A thousandfold by a walk along the rules; memory that is not in a cache may cost a little.
    assert!(many / few < 5.0, "{few} ns, {many} ns");
}
