//! What requests mean by the shipped tables.

use super::*;

type ExpectedRule<'a> = Option<(&'a str, Operation, EntityType, Entity<'a>)>;

/// Host, method, path, and what it should come to.
fn check(host: &str, method: &str, path: &str, expected: ExpectedRule<'_>) {
    let apis = shipped();
    let rule = apis.find(host, path).and_then(|api| api.rule(method, path));
    let found = rule.as_ref().map(|a| (&*a.domain, a.operation, a.entity_type, a.entity));
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
    let chat = Some(("acme", Operation::LlmChatCompletions, Models, Unread(BodyForm::Json)));
    check("POST", "/proxy/acme/v1/chat/completions", chat);
    check("POST", "/proxy/acme/v1/responses", chat);
    check("POST", "/proxy/acme/v1/messages", chat);
    let ollama = Unread(BodyForm::JsonOfAnyType);
    let chat = Some(("acme", Operation::LlmChatCompletions, Models, ollama));
    check("POST", "/proxy/acme/api/chat", chat);
    let read = |entity| Some(("acme", Operation::LlmRead, Models, entity));
    check("GET", "/proxy/acme/v1/models", read(Any));
    check("GET", "/proxy/acme/v1/models/org/m-7b", read(Named("org/m-7b")));
    // The tail is a name, whatever it looks like.
    let name = Named("v1/chat/completions");
    check("GET", "/proxy/acme/v1/models/v1/chat/completions", read(name));
    check("GET", "/proxy/acme", read(Any));
    check("HEAD", "/proxy/acme", read(Any));
    let blob = Some(("acme", Operation::LlmCreate, Models, Unread(BodyForm::Other)));
    check("HEAD", "/proxy/acme/api/blobs/sha256:0a", blob);
    let stored = Some(("acme", Operation::LlmChatCompletions, Models, Unread(BodyForm::Other)));
    check("GET", "/proxy/acme/v1/responses/resp_1", stored);
    check("POST", "/proxy/acme/v1/responses/resp_1/cancel", stored);
    for (path, form) in [
        ("v1/models", Some(ListForm::OpenaiModels)),
        ("v1/models/org/m-7b", Some(ListForm::OpenaiModel)),
        ("api/tags", Some(ListForm::OllamaTags)),
        ("api/ps", Some(ListForm::OllamaPs)),
        ("api/version", None),
    ] {
        let path = format!("/proxy/acme/{path}");
        let apis = shipped();
        let rule = apis.find("gateway", &path).and_then(|it| it.rule("GET", &path));
        assert_eq!(rule.map(|rule| rule.answer), Some(form), "{path}");
    }
    let audit = (Operation::AuditLogRead, EntityType::Domains);
    check("GET", "/proxy/acme/audit/a/b", Some(("acme", audit.0, audit.1, Any)));
}

#[test]
fn cube_platform() {
    use Entity::{Named, None as Any};
    let users = |operation, entity| Some(("platform", operation, EntityType::Users, entity));
    for (method, path, expected) in [
        ("GET", "/users", users(Operation::Read, Any)),
        ("POST", "/users", users(Operation::Create, Any)),
        ("GET", "/users/7", users(Operation::Read, Named("7"))),
        ("GET", "/users/profile", users(Operation::Read, Named("profile"))),
        ("PATCH", "/users/7", users(Operation::Update, Named("7"))),
        ("PATCH", "/users/7/tags", users(Operation::Update, Named("7"))),
        ("POST", "/users/7/disable", users(Operation::Disable, Named("7"))),
        ("DELETE", "/users/7", users(Operation::Delete, Named("7"))),
        ("PATCH", "/users/7/role", None),
        ("POST", "/users/tokens/issue", None),
        ("PUT", "/users/7", None),
        ("GET", "/user", None),
    ] {
        check("cube.example.com", method, path, expected);
    }
}

/// Clients that join their base URL and `/` ask for the mount with a slash.
#[test]
fn a_mount_may_end_with_a_slash() {
    let apis = shipped();
    for (path, expected) in [
        ("/proxy/acme/", Some("/proxy/acme")),
        ("/users/", Some("/users")),
        ("/proxy/acme", None),
        ("/proxy/acme//", None),
        ("/proxy/acme/v1/models/", None),
        ("/proxy/acme/v1/", None),
    ] {
        let api = apis.find("", path).unwrap();
        assert_eq!(api.root(path), expected, "{path}");
    }
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
        ("POST", "chat/completions", Operation::LlmChatCompletions, Unread(BodyForm::Json)),
        // The model stands where it is not read.
        ("POST", "chat", Operation::LlmChatCompletions, Unread(BodyForm::Other)),
        ("POST", "completions", Operation::LlmCompletions, Unread(BodyForm::Json)),
        ("POST", "embeddings", Operation::LlmEmbeddings, Unread(BodyForm::Json)),
        ("POST", "audio/transcriptions", Operation::LlmTranscription, Unread(BodyForm::Multipart)),
        ("POST", "audio/speech", Operation::LlmUtility, Unread(BodyForm::Json)),
        ("POST", "image/generations", Operation::LlmUtility, Unread(BodyForm::Other)),
        ("POST", "image", Operation::LlmUtility, Unread(BodyForm::Other)),
        ("POST", "video", Operation::LlmUtility, Unread(BodyForm::Other)),
        ("GET", "models", Operation::LlmRead, Any),
        ("GET", "status", Operation::LlmRead, Any),
    ] {
        for host in ["hub.example.com", CLOUD, ""] {
            let expected = Some(("aigne", operation, EntityType::Models, entity));
            check(host, method, &format!("/api/v2/{path}"), expected);
        }
    }
}

/// As docs/apis.md says: an export has no rule of its own beside the tail, and has one in place of it.
#[test]
fn an_export_is_told_from_the_rest_by_naming_paths() {
    let table = std::fs::read_to_string(folder().join("cube-ai.yaml")).unwrap();
    let tail = table.lines().find(|line| line.contains("/audit/{*rest}")).unwrap();
    let rule = |path, operation: Operation| {
        let operation = operation.as_str();
        format!("  - {{ methods: [GET], path: {path}, operation: {operation}, entity: domains }}")
    };
    let export = rule("/audit/export", Operation::AuditLogExport);
    let beside = compile(&table.replace(tail, &[tail, &*export].join("\n")));
    let error = beside.unwrap_err().to_string();
    assert!(error.contains("GET overlaps rule `GET /audit/{*rest}`"), "{error}");

    let logs = rule("/audit/logs", Operation::AuditLogRead);
    let apis = compile(&table.replace(tail, &[logs, export].join("\n"))).unwrap();
    for (path, operation) in [
        ("/proxy/acme/audit/logs", Some(Operation::AuditLogRead)),
        ("/proxy/acme/audit/export", Some(Operation::AuditLogExport)),
        ("/proxy/acme/audit/export/all", None),
    ] {
        let rule = apis.find("", path).and_then(|api| api.rule("GET", path));
        assert_eq!(rule.map(|rule| rule.operation), operation, "{path}");
    }
}

#[test]
fn what_no_rule_names_is_nothing() {
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/proxy"),
        ("POST", "/proxy/acme"),
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
    use ErrorStyle::{Aigne, Anthropic, Ollama, Openai, Problem, Scim};
    for (host, path, table, errors) in [
        (CLOUD, "/api/scim/v2/Nothing", Some("scim"), Scim),
        (CLOUD, "/api/scim/v2", Some("scim"), Scim),
        (CLOUD, "/api/scim/v2/", Some("scim"), Scim),
        (CLOUD, "/api/scim/v2/Users/%20;//..", Some("scim"), Scim),
        (CLOUD, "/api/scim/v20/Users", None, Ollama),
        (CLOUD, "/api/scim", None, Ollama),
        (CLOUD, "/api/v1/x", Some("cube-cloud"), Problem),
        (CLOUD, "/api/v2/x", Some("aigne-hub"), Aigne),
        (CLOUD, "/users/x", Some("cube-platform"), Problem),
        ("elsewhere", "/api/scim/v2/Users", None, Ollama),
        ("elsewhere", "/api/v2/x", Some("aigne-hub"), Aigne),
        ("elsewhere", "/proxy/acme/../x", Some("cube-ai"), Openai),
        ("elsewhere", "/proxy/acme/v1/chat/completions", Some("cube-ai"), Openai),
        ("elsewhere", "/proxy/acme/v1/messages/nothing", Some("cube-ai"), Anthropic),
        ("elsewhere", "/proxy/acme/api/nothing", Some("cube-ai"), Ollama),
        ("elsewhere", "/proxy/acme/v1/api/chat", Some("cube-ai"), Ollama),
        ("elsewhere", "/proxy/acme/v1/v1/messages", Some("cube-ai"), Anthropic),
        ("elsewhere", "/proxy//x", None, Openai),
        ("elsewhere", "/v1/messages", None, Anthropic),
    ] {
        assert_eq!(apis.find(host, path).map(|it| it.name()), table, "{host} {path}");
        assert_eq!(apis.error_style(host, path), errors, "{host} {path}");
    }
}
