//! Headers that could make a backend read a request as another one than was checked. There are more
//! names here than in the shipped configuration, which has prefixes.

use std::{collections::BTreeSet, sync::Arc};

use patgate_testing::http::{Over, Sent};

use super::{
    answers::allow,
    gate::{CREDULOUS, GateAnswer::Says, MODELS, SHIPPED, SINGLE_STEP, TO_ACME, gate},
};
use crate::support::Suite;

const HOST_PATH_OR_SCHEME: &str = "
    forwarded forwarded-for forwarded-host forwarded-proto forward-for x-forward x-forward-for
    x-forward-host x-forward-proto x-forwarded x-forwarded-by x-forwarded-context
    x-forwarded-for-ip x-forwarded-for-original x-forwarded-host x-forwarded-https
    x-forwarded-method x-forwarded-path x-forwarded-port x-forwarded-prefix
    x-forwarded-proto-version x-forwarded-protocol x-forwarded-scheme x-forwarded-server
    x-forwarded-ssl x-forwarded-uri x-forwarded-url x-forwarder-for
    x-host x-hostname x-host-override x-host-name x-http-host-override x-http-destinationurl
    x-http-path-override x-original-host x-original-path x-original-uri x-original-url
    x-original-forwarded-for x-original-remote-addr x-originating-ip x-original-prefix
    x-rewrite-path x-rewrite-uri x-rewrite-url x-real-host x-real-ip x-real-uri x-real-url
    x-path x-path-info x-path-override x-script-name x-script-path x-script-url x-uri x-url
    x-url-scheme x-request-uri x-request-url x-base-path x-base-url x-matched-path x-invoke-path
    x-invoke-query x-proxy-host x-proxy-url x-proxycontextpath x-proxyuser-ip x-ingress-path
    x-waws-unencoded-url x-arr-clientcert x-arr-log-id x-iisnode-path_info x-now-route-matches
    x-vercel-forwarded-for x-vercel-ip-country x-nextjs-data x-nextjs-rewrite
    x-envoy-original-path x-envoy-original-host x-envoy-original-method
    x-envoy-original-dst-host x-envoy-external-address x-envoy-internal x-envoy-force-trace
    x-envoy-upstream-rq-timeout-ms x-envoy-max-retries x-envoy-decorator-operation
    x-middleware-subrequest x-middleware-prefetch x-middleware-rewrite x-middleware-next
    http-host http-url http-uri http-method http-client-ip http-forwarded-for http-x-forwarded-for
    http-x-original-url destination base-url request-uri script-name x-scheme front-end-https
    wl-proxy-ssl wl-proxy-client-ip wl-proxy-client-cert proxy proxy-host proxy-url
    proxy-client-ip x-sendfile-type x-accel-mapping x-accel-redirect x-accel-buffering-path
";

const METHOD: &str = "
    x-http-method x-http-method-override x-method x-method-override x-http-verb
";

const USER_TENANT_OR_ADDRESS: &str = "
    remote-user remote-groups remote-name remote-email remote-addr remote-host
    x-remote-user x-remote-group x-remote-groups x-remote-extra-scopes x-remote-addr x-remote-ip
    x-forwarded-user x-forwarded-email x-forwarded-groups x-forwarded-preferred-username
    x-forwarded-access-token x-forwarded-client-cert x-forwarded-tls-client-cert
    x-auth-request-user x-auth-request-email x-auth-request-groups x-auth-request-access-token
    x-auth-request-redirect x-auth-user x-auth-username x-auth-email x-auth-groups x-auth-roles
    x-auth-name x-authentik-username x-authentik-groups x-authentik-uid x-authenticated-user
    x-authenticated-userid x-authenticated-scope x-authenticated-groups x-webauth-user
    x-webauth-name x-webauth-role x-webauth-groups x-consumer-id x-consumer-username
    x-consumer-custom-id x-consumer-groups x-credential-identifier x-credential-username
    x-anonymous-consumer x-user x-users x-userid x-user-id x-username x-user-name x-user-email
    x-user-role x-user-roles x-user-group x-user-groups x-user-info x-userinfo x-user-login
    x-user-claims x-ms-client-principal x-ms-client-principal-id x-ms-client-principal-name
    x-ms-token-aad-access-token x-ms-token-aad-id-token x-goog-authenticated-user-email
    x-goog-authenticated-user-id x-goog-iap-jwt-assertion x-amzn-oidc-identity x-amzn-oidc-data
    x-amzn-oidc-accesstoken x-amzn-mtls-clientcert x-amzn-mtls-clientcert-subject
    cf-access-authenticated-user-email cf-access-jwt-assertion cf-connecting-ip cf-connecting-ipv6
    x-ssl-client-cert x-ssl-client-dn x-ssl-client-s-dn x-ssl-client-verify x-ssl-cert x-ssl
    ssl-client-cert ssl-client-s-dn ssl-client-verify x-client-cert x-client-cert-dn client-cert
    client-cert-chain x-tls-client-cert x-tls-client-subject x-tls-version $wsru $wssn $wssc $wsra
    x-tenant x-tenant-id x-tenant-name x-tenantid x-domain x-domain-id x-domain-name x-domain-slug
    x-scope-orgid x-client-ip client-ip true-client-ip fastly-client-ip fastly-client
    x-cluster-client-ip x-azure-clientip x-azure-socketip x-appengine-user-ip
    x-appengine-inbound-appid x-appengine-https
";

/// Headers that clients of these APIs, and tracing, send.
const ORDINARY: &str = "
    accept accept-language cookie referer http-referer x-title user-agent x-user-agent
    idempotency-key if-none-match range prefer openai-organization openai-project openai-beta
    anthropic-version anthropic-beta x-api-key api-key x-stainless-lang x-stainless-os
    x-stainless-arch x-stainless-runtime x-stainless-runtime-version x-stainless-package-version
    x-stainless-retry-count x-stainless-read-timeout x-stainless-async x-stainless-helper-method
    traceparent tracestate baggage x-b3-traceid x-cloud-trace-context x-amzn-trace-id sentry-trace
    x-goog-api-client x-goog-user-project x-goog-api-key x-ms-client-request-id x-ms-useragent
    x-client-version x-client-request-id x-session-id x-correlation-id x-litellm-tags
    x-openwebui-chat-id dnt sec-fetch-mode sec-ch-ua x-requested-with x-csrf-token priority
";

/// The number of headers in one request.
const AT_ONCE: usize = 40;

/// Spells `x-remote-user` as `X-Remote-User`.
fn in_title_case(name: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// Sends `names`, each twice in two spellings, and returns those that reach the backend.
async fn that_pass(suite: &Suite, over: Over, listener: &str, names: &[&str]) -> BTreeSet<String> {
    let mut passed = BTreeSet::new();
    for names in names.chunks(AT_ONCE) {
        let titles: Vec<_> = names.iter().map(|name| in_title_case(name)).collect();
        let both = names.iter().zip(&titles);
        let headers: Vec<_> =
            both.flat_map(|(name, title)| [(*name, "evil"), (title.as_str(), "worse")]).collect();
        let case = gate(suite).await.case(Says(allow(&[TO_ACME], &[])));
        let sent = Sent { method: "GET", target: MODELS, headers: &headers, ..Sent::default() };
        let reply = case.over(over, listener, sent).await;
        assert_eq!(
            (reply.status, reply.header("x-backend")),
            (200, Some("model-acme")),
            "{reply:?}"
        );
        for name in names {
            let seen = reply.seen(name).join(",");
            if seen.contains("evil") || seen.contains("worse") {
                passed.insert((*name).to_owned());
            }
        }
    }
    passed
}

pub(crate) async fn as_shipped_no_header_that_misleads_reaches_a_backend(suite: Arc<Suite>) {
    let lists = [HOST_PATH_OR_SCHEME, METHOD, USER_TENANT_OR_ADDRESS];
    let names: Vec<_> = lists.iter().flat_map(|list| list.split_whitespace()).collect();
    assert!(names.len() > 220, "{}", names.len());
    // Many servers treat these as equal.
    let underscored: Vec<_> = names.iter().map(|name| name.replace('-', "_")).collect();
    let underscored: Vec<_> =
        underscored.iter().map(String::as_str).filter(|name| name.contains('_')).collect();
    for over in Over::ALL {
        for names in [&names, &underscored] {
            let passed = that_pass(&suite, over, SHIPPED, names).await;
            assert!(passed.is_empty(), "{over:?}: {passed:?}");
        }
    }
    let names: Vec<_> = names.into_iter().filter(|name| !name.contains('_')).collect();
    // Without the removal, all pass except Envoy's own and hop-by-hop headers.
    let passed = that_pass(&suite, Over::Http1, CREDULOUS, &names).await;
    assert!(passed.len() > names.len() - 15, "{} of {}", passed.len(), names.len());
}

pub(crate) async fn as_shipped_ordinary_headers_reach_the_backend(suite: Arc<Suite>) {
    let names: Vec<_> = ORDINARY.split_whitespace().collect();
    for over in Over::ALL {
        let passed = that_pass(&suite, over, SHIPPED, &names).await;
        let lost: Vec<_> = names.iter().filter(|name| !passed.contains(**name)).collect();
        assert!(lost.is_empty(), "{over:?}: {lost:?}");
    }
}

/// A server that is many hosts must not be told by a client which of them is asked.
pub(crate) async fn as_shipped_the_backend_gets_its_own_host(suite: Arc<Suite>) {
    for over in Over::ALL {
        for listener in [SHIPPED, SINGLE_STEP] {
            let case = gate(&suite).await.case(Says(allow(&[TO_ACME], &[])));
            let sent = Sent { method: "GET", target: MODELS, ..Sent::default() };
            let reply = case.over(over, listener, sent).await;
            assert_eq!(reply.header("x-backend"), Some("model-acme"), "{reply:?}");
            // The client has called it `gateway`.
            assert_eq!(reply.seen("host"), ["model-acme"], "{over:?} {listener}");
        }
    }
}
