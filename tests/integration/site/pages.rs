//! The pages, as a browser without scripts uses them.

use std::{sync::Arc, time::Instant};

use patgate_testing::{eventually, http::Reply};

use super::{AdminSite, cookie};
use crate::support::{
    Suite, Token,
    cli::{answer, ask},
};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A browser with the cookie of a session.
struct Browser<'a> {
    site: &'a AdminSite<'a, 'a>,
    cookie: String,
}

impl<'a> Browser<'a> {
    /// Signs a user in with the form.
    async fn of(site: &'a AdminSite<'a, 'a>, user: &str, password: &str) -> Self {
        let form = format!("email={user}%40example.com&password={password}");
        let reply = post(site, "", "/sign-in", &form).await;
        leads_to(&reply, "/tokens");
        Self { site, cookie: cookie(&reply) }
    }

    /// A session of a new account.
    async fn signed_in(site: &'a AdminSite<'a, 'a>, user: &str) -> Self {
        let client = site.client(user).await;
        Self { site, cookie: format!("patgate-session={}", client.secret) }
    }

    async fn administrator(site: &'a AdminSite<'a, 'a>) -> Self {
        let client = site.administrator().await;
        Self { site, cookie: format!("patgate-session={}", client.secret) }
    }

    async fn get(&self, path: &str) -> Reply {
        self.site.send("GET", path, &[("cookie", &self.cookie)], "").await
    }

    /// The hidden field of this session's forms.
    async fn proof(&self) -> String {
        let page = self.get("/account").await;
        between(&page.body, "name=\"proof\" value=\"", "\"").to_owned()
    }

    async fn post(&self, path: &str, form: &str) -> Reply {
        let form = format!("proof={}&{form}", self.proof().await);
        post(self.site, &self.cookie, path, &form).await
    }

    /// The version of a token that its page shows.
    async fn version(&self, path: &str) -> String {
        let page = self.get(path).await.body;
        between(&page, "name=\"version\" value=\"", "\"").to_owned()
    }
}

async fn post(site: &AdminSite<'_, '_>, cookie: &str, path: &str, form: &str) -> Reply {
    let origin = site.origin();
    let mut headers = vec![FORM, ("origin", &*origin)];
    if !cookie.is_empty() {
        headers.push(("cookie", cookie));
    }
    site.send("POST", path, &headers, form).await
}

fn leads_to(reply: &Reply, path: &str) {
    assert_eq!((reply.status, reply.header("location")), (303, Some(path)), "{reply:?}");
}

/// Sends a form that asks whether the visitor is sure, and says so.
async fn surely(browser: &Browser<'_>, path: &str, form: &str) -> Reply {
    let asked = browser.post(path, form).await;
    assert_eq!(asked.status, 200, "{path} {form}: {asked:?}");
    assert!(asked.body.contains("name=\"sure\" value=\"yes\""), "{path} {form}: {asked:?}");
    browser.post(path, &format!("{form}&sure=yes")).await
}

/// An error page, or a form with an error, in HTML.
fn alerts(reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    let alert = between(&reply.body, "role=\"alert\">", "</p>");
    assert!(alert.contains(words), "{alert}");
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before}: {text}"));
    rest.split_once(after).unwrap().0
}

fn new_token(name: &str) -> String {
    format!("name={name}&description=&days=7&until=&what=acme%3Amodels%3Allm_read&entity=*")
}

/// The token that a page shows.
fn shown(suite: &Suite, page: &Reply) -> String {
    let shown = between(&page.body, "id=\"secret\">", "</code>").to_owned();
    suite.minted.lock().unwrap().push(shown.clone());
    shown
}

pub(crate) async fn a_token_is_created_shown_once_and_revoked(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::with(&world, &["web.gateway_url=https://gateway.example"]).await;
    let replica = world.serve(&[]).await;
    leads_to(&site.send("GET", "/", &[], "").await, "/tokens");
    leads_to(&site.send("GET", "/tokens", &[], "").await, "/sign-in");
    let password = super::guards::password(&site, "ann").await;
    let wrong = "email=ann%40example.com&password=a+wrong+password";
    let refused = post(&site, "", "/sign-in", wrong).await;
    alerts(&refused, 401, "The sign-in failed");
    assert_eq!(refused.header("set-cookie"), None);
    assert!(!refused.body.contains("a wrong password"));
    let ann = Browser::of(&site, "ann", &password).await;

    // Another row keeps what was entered, and creates nothing.
    let more = ann.post("/tokens/new", &format!("{}&add=yes", new_token("laptop"))).await;
    assert_eq!((more.status, more.body.matches("<fieldset").count()), (200, 2), "{more:?}");
    assert!(more.body.contains("value=\"laptop\""));
    assert!(more.body.contains("value=\"acme:models:llm_read\" selected"));
    assert!(ann.get("/tokens").await.body.contains("You have no tokens yet"));

    let form = format!("key=once&{}", new_token("laptop"));
    let created = ann.post("/tokens/new", &form).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("cache-control"), Some("no-store"));
    assert!(created.body.contains("https://gateway.example/proxy/acme/v1/models"));
    let secret = shown(&suite, &created);
    // A browser that reloads the page sends the form again.
    let again = ann.post("/tokens/new", &form).await;
    assert_eq!(again.status, 200);
    assert!(again.body.contains("cannot be shown again") && !again.body.contains(&secret));

    let list = ann.get("/tokens?name=LAP").await.body;
    let id = between(&list, "scope=\"row\"><a href=\"/tokens/", "\"").to_owned();
    assert!(list.contains(&secret[..20]), "the list shows what the token begins with: {list}");
    let path = format!("/tokens/{id}");
    let token = Token { id: patgate::token::TokenId(id.parse().unwrap()), text: secret.clone() };
    assert_eq!(ask(&replica, &token, "acme").await, answer(200, "ok"));
    for page in [&list, &ann.get(&path).await.body, &ann.get("/tokens?name=other").await.body] {
        assert!(!page.contains(&secret));
    }

    assert!(ann.get(&format!("{path}/revoke")).await.body.contains("Revoke the token"));
    assert_eq!(ask(&replica, &token, "acme").await, answer(200, "ok"));
    let revoked = ann.post(&format!("{path}/revoke"), "").await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert!(revoked.body.contains("1 of 1 replicas obeyed"), "{revoked:?}");
    assert_eq!(ask(&replica, &token, "acme").await, answer(401, "token_revoked"));
    assert!(ann.get(&path).await.body.contains("revoked"));
    let version = ann.version(&format!("{path}/delete")).await;
    leads_to(
        &ann.post(&format!("{path}/delete"), &format!("version={version}")).await,
        "/tokens?done=deleted",
    );
    alerts(&ann.get(&path).await, 404, "");

    leads_to(&ann.post("/sign-out", "").await, "/sign-in");
    let gone = ann.get("/tokens").await;
    leads_to(&gone, "/sign-in?done=ended");
    assert!(gone.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")));
}

pub(crate) async fn a_token_is_changed_by_forms(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let replica = world.serve(&[]).await;
    let ann = Browser::signed_in(&site, "ann").await;
    let created = ann.post("/tokens/new", &new_token("laptop")).await;
    let old = shown(&suite, &created);
    let path = format!("/tokens/{}", between(&created.body, "<p><a href=\"/tokens/", "\">Details"));
    let id = patgate::token::TokenId(path["/tokens/".len()..].parse().unwrap());
    let first = ann.version(&path).await;
    let edit = "name=desktop&description=at+home";
    let saved = format!("{path}?done=saved");
    leads_to(&ann.post(&path, &format!("{edit}&version={first}")).await, &saved);
    assert!(ann.get(&saved).await.body.contains("role=\"status\">Saved."));
    // Someone else has changed it meanwhile, or the form says nothing about it.
    alerts(&ann.post(&path, &format!("{edit}&version={first}")).await, 412, "look at it again");
    alerts(&ann.post(&path, edit).await, 412, "look at it again");
    alerts(&ann.post(&path, "name=&description=&version=x").await, 400, "Expected");
    let page = ann.get(&path).await.body;
    assert!(page.contains("<h1>desktop</h1>") && page.contains("at home"), "{page}");

    let version = ann.version(&path).await;
    let add = |what: &str| format!("version={version}&what={what}&entity=m-7b");
    let added = format!("{path}/scopes");
    alerts(&ann.post(&added, &add("")).await, 400, "at least one");
    alerts(&ann.post(&added, &add("nowhere%3Amodels%3Allm_read")).await, 403, "Not permitted");
    leads_to(&ann.post(&added, &add("acme%3Amodels%3Allm_chat_completions")).await, &saved);
    let page = ann.get(&path).await.body;
    assert!(page.contains("<strong>chat completions</strong>: models"), "{page}");
    let (_, of_the_model) = page.split_once("m-7b").unwrap();
    let scope = between(of_the_model, "name=\"scope\" value=\"", "\"");
    let version = ann.version(&path).await;
    let remove = format!("version={version}&scope={scope}");
    leads_to(&ann.post(&format!("{path}/scopes/remove"), &remove).await, &saved);

    let version = ann.version(&format!("{path}/reset")).await;
    let reset = ann.post(&format!("{path}/reset"), &format!("version={version}")).await;
    let new = shown(&suite, &reset);
    let repeated = ann.post(&format!("{path}/reset"), &format!("version={version}")).await;
    alerts(&repeated, 412, "look at it again");
    for (text, expected) in [(old, answer(401, "invalid_token")), (new, answer(200, "ok"))] {
        let token = Token { id, text };
        eventually("the new secret", async || ask(&replica, &token, "acme").await == expected)
            .await;
    }
    let history = ann.get("/history").await.body;
    for action in ["token.create", "token.reset_secret", "web:ann@example.com"] {
        assert!(history.contains(action), "{history}");
    }
}

pub(crate) async fn a_token_is_replaced_while_the_old_one_works_on(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let replica = world.serve(&[]).await;
    let ann = Browser::signed_in(&site, "ann").await;
    let created = ann.post("/tokens/new", &new_token("laptop")).await;
    let old = shown(&suite, &created);
    let path = format!("/tokens/{}", between(&created.body, "<p><a href=\"/tokens/", "\">Details"));
    let form = format!("version={}&overlap=", ann.version(&format!("{path}/rotate")).await);
    let rotate = format!("{path}/rotate");
    alerts(&ann.post(&rotate, &format!("{form}9+years")).await, 400, "how long");
    let rotated = ann.post(&rotate, &format!("{form}1+hour")).await;
    assert_eq!(rotated.status, 201, "{rotated:?}");
    assert!(rotated.body.contains("works on for 1 hour at most"), "{rotated:?}");
    let new = shown(&suite, &rotated);
    alerts(&ann.post(&rotate, &format!("{form}1+hour")).await, 412, "look at it again");
    let id = |path: &str| patgate::token::TokenId(path["/tokens/".len()..].parse().unwrap());
    let second =
        format!("/tokens/{}", between(&rotated.body, "<p><a href=\"/tokens/", "\">Details"));
    let (old, new) = (Token { id: id(&path), text: old }, Token { id: id(&second), text: new });
    for token in [&old, &new] {
        assert_eq!(ask(&replica, token, "acme").await, answer(200, "ok"));
    }
    let form = format!("version={}&overlap=not+at+all", ann.version(&second).await);
    let third = shown(&suite, &ann.post(&format!("{second}/rotate"), &form).await);
    assert_ne!(third, new.text);
    let revoked = answer(401, "token_revoked");
    eventually("the end of the second", async || ask(&replica, &new, "acme").await == revoked)
        .await;
}

pub(crate) async fn a_page_says_why_a_request_is_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::with(&world, &["web.gateway_url=https://gateway.example"]).await;
    let ann = Browser::signed_in(&site, "ann").await;
    let created = ann.post("/tokens/new", &new_token("laptop")).await;
    shown(&suite, &created);
    let path = format!("/tokens/{}", between(&created.body, "<p><a href=\"/tokens/", "\">Details"));
    let why = async |question: &str| ann.get(&format!("{path}/why?{question}")).await.body;
    assert!(!why("").await.contains("The answer"));
    let models = "proxy/acme/v1/models";
    for (question, words) in [
        (format!("method=GET&path=/{models}"), "The request is allowed"),
        (format!("method=GET&path=https://gateway.example/{models}"), "The request is allowed"),
        (
            "method=POST&path=/proxy/acme/v1/chat/completions&model=m".into(),
            "403 permission_denied",
        ),
        ("method=GET&path=/nothing".into(), "404 not_found"),
        ("method=GET&path=/proxy/nowhere/v1/models".into(), "403 permission_denied"),
        ("method=%3Cb%3E&path=%3Cb%3E".into(), "The answer"),
    ] {
        let page = why(&question).await;
        assert!(page.contains(words) && !page.contains("<b>"), "{question}: {page}");
    }
    let others = world.token_for("bob", "1 hour", &[]).await.id;
    alerts(&ann.get(&format!("/tokens/{}/why?path=/x", others.0)).await, 404, "");
}

pub(crate) async fn a_session_is_ended_from_another(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let password = super::guards::password(&site, "ann").await;
    let (here, there) =
        (Browser::of(&site, "ann", &password).await, Browser::of(&site, "ann", &password).await);
    let account = here.get("/account").await.body;
    assert_eq!(account.matches("This one").count(), 1);
    let id = between(&account, "name=\"session\" value=\"", "\"").to_owned();
    let bob = Browser::signed_in(&site, "bob").await;
    let end = format!("session={id}");
    alerts(&bob.post("/account/sessions/end", &end).await, 404, "");
    alerts(&here.post("/account/sessions/end", "session=x").await, 404, "");
    assert_eq!(there.get("/tokens").await.status, 200);
    leads_to(&here.post("/account/sessions/end", &end).await, "/account");
    leads_to(&there.get("/tokens").await, "/sign-in?done=ended");
    assert_eq!(here.get("/tokens").await.status, 200);
    alerts(&here.post("/account/password", "present=x&password=a&again=b").await, 400, "differ");
    let short = "present=x&password=short&again=short";
    alerts(&here.post("/account/password", short).await, 400, "");
    let new = format!("{password}2");
    let change = |present: &str| format!("present={present}&password={new}&again={new}");
    alerts(&here.post("/account/password", &change("wrong")).await, 401, "This password is wrong");
    let changed = here.post("/account/password", &change(&password)).await;
    leads_to(&changed, "/sign-in?done=password");
    leads_to(&here.get("/tokens").await, "/sign-in?done=ended");
    Browser::of(&site, "ann", &new).await;
}

pub(crate) async fn a_mistake_is_shown_at_its_field(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let ann = Browser::signed_in(&site, "ann").await;
    assert_eq!(ann.post("/tokens/new", &new_token("laptop")).await.status, 201);
    let form = |days: &str, until: &str, what: &str| {
        format!("name=n&description=d&days={days}&until={until}&what={what}&entity=*")
    };
    let read = "acme%3Amodels%3Allm_read";
    for (form, status, field) in [
        (new_token("laptop"), 409, "name"),
        (new_token(""), 400, "name"),
        (form("0", "", read), 400, "days"),
        (form("7", "2031-01-01", read), 400, "until"),
        (form("", "2031-02-30", read), 400, "until"),
        (form("7", "", ""), 400, "scopes"),
        (form("7", "", "acme%3Amodels%3Afly"), 400, "scopes"),
        (form("7", "", "acme"), 400, "scopes"),
        (form("7", "", "beta%3Amodels%3Allm_read"), 403, "scopes"),
    ] {
        let reply = ann.post("/tokens/new", &form).await;
        alerts(&reply, status, &format!("<a href=\"#{field}\">"));
        assert!(reply.body.contains(&format!("id=\"{field}\"")), "{form}: {reply:?}");
    }
    // What no form of a page sends is refused in words, not in the library's.
    for (kind, body) in [("application/json", "{}"), (FORM.1, "email=x"), (FORM.1, "%ff=%ff")] {
        let origin = site.origin();
        let headers = [("content-type", kind), ("origin", &*origin)];
        alerts(&site.send("POST", "/sign-in", &headers, body).await, 400, "no form of a page");
    }
    alerts(&site.send("GET", "/nothing", &[], "").await, 404, "nothing at this path");
    alerts(&site.send("DELETE", "/tokens", &[("origin", &site.origin())], "").await, 405, "method");
    alerts(&site.send("GET", "/apis", &[], "").await, 404, "nothing at this path");
}

pub(crate) async fn a_form_of_another_session_is_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let ann = Browser::signed_in(&site, "ann").await;
    let bob = Browser::signed_in(&site, "bob").await;
    let form = new_token("laptop");
    let of_bob = bob.proof().await;
    for proof in ["".to_owned(), "proof=&".into(), format!("proof={of_bob}&")] {
        for path in ["/tokens/new", "/sign-out", "/account/sign-out-everywhere", "/users"] {
            let reply = post(&site, &ann.cookie, path, &format!("{proof}{form}")).await;
            alerts(&reply, 403, "of your present session");
        }
    }
    leads_to(&post(&site, "", "/tokens/new", &form).await, "/sign-in");
    assert!(ann.get("/tokens").await.body.contains("You have no tokens yet"));
    assert_eq!(ann.post("/tokens/new", &form).await.status, 201);
}

pub(crate) async fn pages_show_text_and_own_tokens_only(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let ann = Browser::signed_in(&site, "ann").await;
    let created = ann.post("/tokens/new", &new_token("%3Cb%3E%22x%26")).await;
    assert_eq!(created.status, 201, "{created:?}");
    let history = ann.get("/history").await;
    let lists = [ann.get("/tokens").await, ann.get("/tokens?name=%3Cb%3E%22").await];
    for page in [created, history].into_iter().chain(lists) {
        assert!(page.body.contains("&lt;b&gt;&quot;x&amp;"), "{page:?}");
        assert!(!page.body.contains("<b>") && !page.body.contains("style="));
    }
    let others = world.token_for("bob", "1 hour", &[]).await.id;
    for id in [others.0.to_string(), uuid::Uuid::new_v4().to_string(), "x".into()] {
        for end in ["", "/reset", "/revoke", "/delete"] {
            alerts(&ann.get(&format!("/tokens/{id}{end}")).await, 404, "");
        }
        for end in ["/reset", "/revoke", "/delete", "/scopes"] {
            let form = "what=acme%3Amodels%3Allm_read&entity=*";
            alerts(&ann.post(&format!("/tokens/{id}{end}"), form).await, 404, "");
        }
    }
    let page = ann.get("/tokens").await;
    for (before, kind) in
        [("stylesheet\" href=\"", "text/css"), ("icon\" href=\"", "image/svg+xml")]
    {
        let path = between(&page.body, before, "\"");
        let asset = site.send("GET", path, &[], "").await;
        assert_eq!(asset.status, 200);
        assert!(asset.header("content-type").unwrap().starts_with(kind));
        assert!(asset.header("cache-control").unwrap().contains("immutable"));
        let other = site.send("GET", &format!("{path}0"), &[], "").await;
        assert_eq!(other.header("cache-control"), Some("no-cache"));
    }
    alerts(&site.send("GET", "/assets/other.css", &[], "").await, 404, "");
}

pub(crate) async fn only_administrators_see_what_is_theirs(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let ann = Browser::signed_in(&site, "ann").await;
    for path in ["/users", "/backends", "/audit", "/replicas", "/tokens?all=yes"] {
        alerts(&ann.get(path).await, 403, "");
        assert!(!ann.get("/tokens").await.body.contains(&format!("href=\"{path}\"")));
    }
    for (path, form) in [
        ("/users", "do=create&email=eve%40example.com&name=Eve&platform_admin=yes"),
        ("/users", "do=disable&user=bob%40example.com&sure=yes"),
        ("/users", "do=invite&user=root%40example.com&sure=yes"),
        ("/backends", "do=create&name=evil&url=http%3A%2F%2Fx.example&kind=vllm"),
        ("/domains", "slug=evil&name=Evil&backend=model-acme&all_models=yes"),
        ("/domains/acme/settings", "backend=model-beta"),
        ("/domains/acme/add-model", "model=m&model_backend=model-acme"),
    ] {
        let reply = ann.post(path, form).await;
        assert!(matches!(reply.status, 403 | 404), "{path} {form}: {reply:?}");
    }
    // A session of an administrator that has not proven the password lately has the same rights.
    let password = super::guards::password(&site, "root").await;
    let root = Browser::of(&site, "root", &password).await;
    for path in ["/users", "/backends", "/audit", "/replicas"] {
        let back = format!("/confirm?next=%2F{}", &path[1..]);
        leads_to(&root.get(path).await, &back);
        assert!(root.get(&back).await.body.contains(&format!("value=\"{path}\"")));
    }
    let disable = "do=disable&user=bob%40example.com&sure=yes";
    leads_to(&root.post("/users", disable).await, "/confirm");
    alerts(&root.post("/confirm", "present=a+wrong+password").await, 401, "This password is wrong");
    let confirm = |next: &str| format!("present={password}&next={next}");
    for (next, leads) in [
        ("%2Ftokens%3Fall%3Dyes", "/tokens?all=yes"),
        ("%2F%2Fevil.example", "/domains"),
        ("%2F%5Cevil.example", "/domains"),
        ("https%3A%2F%2Fevil.example", "/domains"),
        ("", "/domains"),
    ] {
        leads_to(&root.post("/confirm", &confirm(next)).await, leads);
    }
    assert!(root.get("/users").await.body.contains("bob@example.com"));
    leads_to(&root.post("/confirm/end", "").await, "/account");
    leads_to(&root.get("/users").await, "/confirm?next=%2Fusers");
}

pub(crate) async fn an_administrator_sets_a_domain_up(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let replica = world.serve(&[]).await;
    let root = Browser::administrator(&site).await;
    let backend = "do=create&name=second&url=http%3A%2F%2Fm.example%3A8000&kind=vllm";
    leads_to(&root.post("/backends", backend).await, "/backends?done=saved");
    alerts(&root.post("/backends", backend).await, 409, "has this name");
    let domain = "slug=gamma&name=Gamma&backend=model-acme&models=m-7b%0D%0Aorg%2Fm";
    alerts(&root.post("/domains", &format!("{domain}&all_models=yes")).await, 400, "not both");
    let none = "slug=gamma&name=Gamma&backend=model-acme&models=";
    alerts(&root.post("/domains", none).await, 400, "tick All models");
    leads_to(&root.post("/domains", domain).await, "/domains/gamma");
    alerts(&root.post("/domains", domain).await, 409, "slug");
    let to = |change: &str| format!("/domains/gamma/{change}");
    let saved = "/domains/gamma?done=saved";
    let role = "new-role=readers&operation=llm_read&operation=llm_chat_completions";
    leads_to(&root.post(&to("create-role"), role).await, saved);
    let again = root.post(&to("create-role"), role).await;
    alerts(&again, 409, "<a href=\"#new-role\">");
    assert!(
        again.body.contains("id=\"new-llm_read\" name=\"operation\" value=\"llm_read\" checked")
    );
    let member = "role=readers&member=bob%40example.com";
    leads_to(&root.post(&to("add-member"), member).await, saved);
    let nobody = "role=readers&member=nobody%40example.com";
    alerts(&root.post(&to("add-member"), nobody).await, 404, "");
    leads_to(&root.post(&to("add-model"), "model=m-70b&model_backend=second").await, saved);
    let page = root.get("/domains/gamma").await.body;
    for shown in ["bob@example.com", "m-7b", "org/m", "m-70b", "readers"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }

    let bob = Browser::signed_in(&site, "bob").await;
    let form = "name=n&days=1&what=gamma%3Amodels%3Allm_read&entity=*";
    let created = bob.post("/tokens/new", form).await;
    let text = shown(&suite, &created);
    let id = between(&created.body, "<p><a href=\"/tokens/", "\">Details").parse().unwrap();
    let token = Token { id: patgate::token::TokenId(id), text };
    eventually("the domain", async || ask(&replica, &token, "gamma").await.0 == 200).await;
    leads_to(&root.post(&to("remove-model"), "model=m-70b").await, saved);
    assert!(!root.get("/domains/gamma").await.body.contains("m-70b"));
    // A form of before gives nothing back that was taken meanwhile, and takes only what was unticked.
    let both = "role=readers&seen=llm_read&seen=llm_chat_completions";
    let without_chat = format!("{both}&operation=llm_read");
    leads_to(&root.post(&to("set-operations"), &without_chat).await, saved);
    let all_ticked = format!("{both}&operation=llm_read&operation=llm_chat_completions");
    leads_to(&root.post(&to("set-operations"), &all_ticked).await, saved);
    let page = root.get("/domains/gamma").await.body;
    assert!(page.contains("What readers may do: 1 operation<"), "{page}");
    leads_to(&root.post(&to("set-operations"), "role=readers&seen=llm_read").await, saved);
    let refused = answer(403, "permission_denied");
    eventually("the role", async || ask(&replica, &token, "gamma").await == refused).await;
    leads_to(&surely(&root, &to("remove-member"), member).await, "/domains?done=saved");
    leads_to(&surely(&root, &to("delete-role"), "role=readers").await, saved);

    let user = "do=create&email=new%40example.com&name=New";
    let invited = root.post("/users", user).await;
    assert_eq!(invited.status, 200, "{invited:?}");
    let code = between(&invited.body, "id=\"code\">", "</code>").to_owned();
    alerts(&root.post("/users", user).await, 409, "");
    assert!(!root.get("/users?part=new").await.body.contains(&code));
    let password = format!("a password {}", uuid::Uuid::new_v4());
    let accept = format!("code={code}&password={password}&again={password}").replace(' ', "+");
    alerts(&post(&site, "", "/invitation", &format!("{accept}x")).await, 400, "differ");
    leads_to(&post(&site, "", "/invitation", &accept).await, "/sign-in?done=password");
    alerts(&post(&site, "", "/invitation", &accept).await, 404, "code");
    let new = Browser::of(&site, "new", &password.replace(' ', "+")).await;
    assert!(new.get("/domains").await.body.contains("no role in any domain"));
    for (change, shown) in [("promote", true), ("demote", false)] {
        let form = format!("do={change}&user=new%40example.com");
        let changed = match shown {
            true => surely(&root, "/users", &form).await,
            false => root.post("/users", &form).await,
        };
        leads_to(&changed, "/users?done=saved");
        let page = root.get("/users?part=new").await.body;
        assert_eq!(page.contains(", platform administrator"), shown, "{page}");
    }
    let user = "user=new%40example.com";
    leads_to(&surely(&root, "/users", &format!("do=disable&{user}")).await, "/users?done=saved");
    leads_to(&new.get("/tokens").await, "/sign-in?done=ended");
    leads_to(&surely(&root, "/users", &format!("do=delete&{user}")).await, "/users?done=deleted");
    assert!(!root.get("/users?part=new").await.body.contains("new@example.com"));
    assert!(root.get("/replicas").await.body.contains("1 replica<"));
    let log = root.get("/history?domain=gamma").await.body;
    assert!(log.contains("role.create") && !log.contains("user.create"), "{log}");
    let bob = bob.get("/history?domain=gamma").await;
    assert!(matches!(bob.status, 403 | 404), "{bob:?}");
    leads_to(&surely(&root, &to("delete"), "").await, "/domains?done=deleted");
    alerts(&root.get("/domains/gamma").await, 404, "");
    let log = root.get("/audit?action=domain").await.body;
    assert!(
        log.contains("domain.create")
            && log.contains("domain.delete")
            && log.contains("web:root@example.com"),
        "{log}"
    );
}

pub(crate) async fn a_thousand_tokens_are_listed_in_parts(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let ann = Browser::signed_in(&site, "ann").await;
    let owner = world.id("ann");
    world
        .sql(&format!(
            "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
             SELECT gen_random_uuid(), '{owner}', 'token ' || lpad(n::text, 4, '0'),
                    sha256(n::text::bytea), 'k', now() + interval '1 day'
             FROM generate_series(1, 1000) n"
        ))
        .await;
    let first = ann.get("/tokens").await.body;
    assert!(first.contains("1000 in all, page 1 of 40") && first.contains("token 0025"), "{first}");
    assert!(!first.contains("token 0026") && first.contains("Next page"));
    let last = ann.get("/tokens?page=40").await.body;
    assert!(last.contains("token 1000") && !last.contains("Next page"), "{last}");
    assert!(ann.get("/tokens?name=0999").await.body.contains("1 in all"));
    // What is no number of a page is the first one; beyond the last, there is nothing.
    for (page, words) in [("x", "page 1 of 40"), ("-1", "page 1 of 40"), ("41", "no such token")] {
        assert!(ann.get(&format!("/tokens?page={page}")).await.body.contains(words), "{page}");
    }
    // A page takes about as long as the one query for what it shows.
    let query = async || {
        let limit = "/api/pats?limit=25";
        site.send("GET", limit, &[("cookie", &ann.cookie)], "").await
    };
    let (mut pages, mut queries) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let begin = Instant::now();
        assert_eq!(ann.get("/tokens").await.status, 200);
        pages.push(begin.elapsed());
        let begin = Instant::now();
        assert_eq!(query().await.status, 200);
        queries.push(begin.elapsed());
    }
    pages.sort();
    queries.sort();
    assert!(pages[7] < queries[7] * 3, "a page takes {:?}, the query {:?}", pages[7], queries[7]);
}
