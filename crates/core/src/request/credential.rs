//! Finds the token of a request in the places in which its API permits it.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::percent_decode_str;

use crate::{
    api::{TokenSource, TokenSources},
    refusal::{MalformedPart, NotAToken, Refusal},
    token::{Tokens, VerifiedToken},
};

/// The text before the token in the subprotocol by which browsers send it.
pub(super) const IN_SUBPROTOCOL: &str = "openai-insecure-api-key.";

/// Why no token was found.
#[derive(Debug)]
pub(super) struct RefusedCredential {
    pub(super) refusal: Refusal,
    /// If several credentials differ, the only token among them.
    pub(super) among: Option<Box<VerifiedToken>>,
}

impl From<Refusal> for RefusedCredential {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, among: None }
    }
}

/// Returns the one token that a request has in its headers.
pub(super) fn find<'a, H>(
    header: &H,
    sources: &TokenSources,
    tokens: &Tokens,
) -> Result<VerifiedToken, RefusedCredential>
where
    H: Fn(&str) -> Option<&'a str>,
{
    let mut first = None;
    let mut read_authorization = false;
    for source in sources.iter() {
        // `authorization` is one place, however many schemes the API accepts.
        if source.scheme().is_some() && std::mem::replace(&mut read_authorization, true) {
            continue;
        }
        let Some(value) = header(source.header()) else { continue };
        let Some(sent) = credential_in(source, value, sources)? else { continue };
        match &first {
            None => first = Some(sent),
            Some(known) if *known == sent => {}
            Some(_) => return Err(several(header, sources, tokens)),
        }
    }
    match first {
        None => Err(Refusal::MissingCredential.into()),
        Some(Err(fault)) => Err(Refusal::NotAToken(fault).into()),
        Some(Ok(text)) => match tokens.verify(text) {
            Some(token) => Ok(token),
            None => Err(NotAToken::of(text, tokens)
                .map_or(Refusal::InvalidToken, Refusal::NotAToken)
                .into()),
        },
    }
}

/// Returns the credential in a header, or what is there in place of a token; `None` if it is empty.
fn credential_in<'a>(
    source: TokenSource,
    value: &'a str,
    sources: &TokenSources,
) -> Result<Option<Result<&'a str, NotAToken>>, RefusedCredential> {
    match source {
        TokenSource::Bearer | TokenSource::ApiKeyScheme => {
            // Envoy joins the values of a repeated header with a comma, so a comma means two
            // values.
            if memchr(b',', value.as_bytes()).is_some() {
                return Err(Refusal::BadRequest(MalformedPart::Authorization).into());
            }
            Ok(Some(behind_scheme(value, sources)))
        }
        TokenSource::Subprotocol => {
            let mut tokens = subprotocols(value).filter_map(|it| it.strip_prefix(IN_SUBPROTOCOL));
            let first = tokens.next();
            if tokens.all(|other| Some(other) == first) {
                Ok(first.map(Ok))
            } else {
                Err(Refusal::BadRequest(MalformedPart::Credentials).into())
            }
        }
        TokenSource::XApiKey | TokenSource::ApiKey | TokenSource::XGoogApiKey => {
            // Clients that send their key in another header leave this one empty.
            Ok(Some(value).filter(|value| !value.is_empty()).map(Ok))
        }
    }
}

/// Returns the refusal of several credentials, with the token if there is exactly one among them.
#[cold]
fn several<'a, H>(header: &H, sources: &TokenSources, tokens: &Tokens) -> RefusedCredential
where
    H: Fn(&str) -> Option<&'a str>,
{
    let sent = sources.iter().filter_map(|source| {
        let value = header(source.header())?;
        tokens.verify(credential_in(source, value, sources).ok()??.ok()?)
    });
    let mut among: Option<VerifiedToken> = None;
    for token in sent {
        if among.as_ref().is_some_and(|known| known.digest() != token.digest()) {
            among = None;
            break;
        }
        among = Some(token);
    }
    RefusedCredential {
        refusal: Refusal::BadRequest(MalformedPart::Credentials),
        among: among.map(Box::new),
    }
}

/// Returns the names in a `Sec-WebSocket-Protocol`.
pub(super) fn subprotocols(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|name| name.trim_matches([' ', '\t'])).filter(|name| !name.is_empty())
}

/// Returns what follows a scheme that this API accepts and exactly one space.
///
/// # Errors
///
/// Returns what is there in place of a token.
pub fn behind_scheme<'a>(value: &'a str, sources: &TokenSources) -> Result<&'a str, NotAToken> {
    match memchr(b' ', value.as_bytes()) {
        Some(space) if sources.accept_scheme(&value[..space]) => Ok(&value[space + 1..]),
        Some(_) if is_quoted(value) => Err(NotAToken::Quoted),
        Some(_) => Err(NotAToken::OtherScheme),
        None if value.is_empty() || sources.accept_scheme(value) => Err(NotAToken::Blank),
        None => Err(NotAToken::NoScheme),
    }
}

/// Returns whether a text begins or ends with a quotation mark, of which a token has none.
fn is_quoted(text: &str) -> bool {
    const MARKS: [char; 7] = ['"', '\'', '`', '“', '”', '‘', '’'];
    text.starts_with(MARKS) || text.ends_with(MARKS)
}

impl NotAToken {
    /// Classifies a text whose form says that it cannot be a token. Returns `None` for a text that
    /// begins like a token: its sender must not learn whether it was mistyped, cut or forged. Quotation
    /// marks around it, or a text without any part of a secret, say nothing about that.
    fn of(text: &str, tokens: &Tokens) -> Option<Self> {
        const VENDORS: [&str; 8] =
            ["sk-", "sk_", "gsk_", "AIza", "hf_", "xai-", "ghp_", "github_pat_"];
        // The beginning of a JSON object in Base64, with which every JWT begins.
        const JWT: &str = "eyJ";
        let begins = |beginnings: &[&str]| beginnings.iter().any(|it| text.starts_with(it));
        if text.is_empty() || text.contains([' ', '\t']) {
            Some(Self::Blank)
        } else if is_quoted(text) {
            Some(Self::Quoted)
        } else if tokens.is_a_beginning(text) {
            Some(Self::Beginning)
        } else if tokens.has_our_prefix(text) {
            None
        } else if begins(&["$", "{{", "%", "<"]) {
            Some(Self::Variable)
        } else if begins(&VENDORS) {
            Some(Self::ForeignKey)
        } else if text.starts_with(JWT) {
            Some(Self::Jwt)
        } else if tokens.is_of_another_prefix(text) {
            Some(Self::OtherPrefix)
        } else {
            None
        }
    }
}

/// Returns whether a query holds a token of this ring, directly or percent-encoded.
pub(super) fn in_query(query: &str, tokens: &Tokens) -> bool {
    if tokens.found_in(query) {
        return true;
    }
    memchr(b'%', query.as_bytes()).is_some()
        && match percent_decode_str(query).decode_utf8_lossy() {
            Cow::Borrowed(_) => false,
            Cow::Owned(decoded) => tokens.found_in(&decoded),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keyring::KeyRing,
        token::{Prefixes, TokenId},
    };

    const RING: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER_RING: &str = "a:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn tokens(ring: &str, prefix: &str) -> Tokens {
        Tokens::new(Prefixes::new([prefix]).unwrap(), KeyRing::parse(ring).unwrap())
    }

    fn mint(tokens: &Tokens, id: u128) -> String {
        tokens.mint(TokenId(uuid::Uuid::from_u128(id))).unwrap().plain.expose().to_owned()
    }

    fn all() -> TokenSources {
        TokenSource::ALL[1..].iter().fold(TokenSources::default(), |all, next| all.with(*next))
    }

    fn outcome(
        sent: &[(&str, String)],
        sources: &TokenSources,
        ours: &Tokens,
    ) -> Result<u128, RefusedCredential> {
        let header = |name: &str| {
            sent.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
        };
        find(&header, sources, ours).map(|token| token.id().0.as_u128())
    }

    #[test]
    fn equal_in_every_place_and_read_only_where_the_table_says() {
        let ours = tokens(RING, "pat");
        let one = mint(&ours, 1);
        let two = mint(&ours, 2);
        let places = |text: &str| {
            [
                ("authorization", format!("bearer {text}")),
                ("x-api-key", text.to_owned()),
                ("api-key", text.to_owned()),
                ("x-goog-api-key", text.to_owned()),
                ("sec-websocket-protocol", format!("realtime, {IN_SUBPROTOCOL}{text}, v1")),
            ]
        };
        let everywhere = places(&one);
        assert_eq!(outcome(&everywhere, &all(), &ours).unwrap(), 1);
        let differ = Refusal::BadRequest(MalformedPart::Credentials);
        for (at, name) in everywhere.iter().map(|(name, _)| *name).enumerate() {
            let alone = &everywhere[at..=at];
            assert_eq!(outcome(alone, &all(), &ours).unwrap(), 1, "{name}");
            // If the table does not name the header, patgate neither reads nor compares it.
            let bearer = TokenSources::default();
            let read = outcome(alone, &bearer, &ours).map_err(|refused| refused.refusal);
            let expected = if at == 0 { Ok(1) } else { Err(Refusal::MissingCredential) };
            assert_eq!(read, expected, "{name}");
            for (others, among) in [(&two, None), (&"sk-1".to_owned(), Some(1))] {
                let mut sent = places(others);
                sent[at] = everywhere[at].clone();
                let refused = outcome(&sent, &all(), &ours).unwrap_err();
                assert_eq!(refused.refusal, differ, "{name}");
                assert_eq!(refused.among.map(|token| token.id().0.as_u128()), among, "{name}");
            }
        }
    }

    #[test]
    fn what_holds_nothing_is_absent() {
        let ours = tokens(RING, "pat");
        let bearer = ("authorization", format!("Bearer {}", mint(&ours, 1)));
        for name in ["x-api-key", "api-key", "x-goog-api-key"] {
            let sent = [bearer.clone(), (name, String::new())];
            assert_eq!(outcome(&sent, &all(), &ours).unwrap(), 1, "{name}");
            let refused = outcome(&sent[1..], &all(), &ours).unwrap_err();
            assert_eq!(refused.refusal, Refusal::MissingCredential, "{name}");
        }
        let sent = [bearer, ("sec-websocket-protocol", "realtime, v1".to_owned())];
        assert_eq!(outcome(&sent, &all(), &ours).unwrap(), 1);
    }

    #[test]
    fn what_is_no_token_by_its_form_has_a_name() {
        let ours = tokens(RING, "pat");
        let token = mint(&ours, 1);
        let not = |what| Refusal::NotAToken(what);
        let forged = mint(&tokens(OTHER_RING, "pat"), 1);
        let of_another = mint(&tokens(OTHER_RING, "acme"), 1);
        for (authorization, expected) in [
            (token.clone(), not(NotAToken::NoScheme)),
            (format!("Basic {token}"), not(NotAToken::OtherScheme)),
            (String::new(), not(NotAToken::Blank)),
            ("Bearer".to_owned(), not(NotAToken::Blank)),
            ("Bearer ".to_owned(), not(NotAToken::Blank)),
            (format!("Bearer  {token}"), not(NotAToken::Blank)),
            (format!("Bearer {token} "), not(NotAToken::Blank)),
            ("Bearer sk-proj-1".to_owned(), not(NotAToken::ForeignKey)),
            ("Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA".to_owned(), not(NotAToken::Jwt)),
            ("Bearer ${PAT}".to_owned(), not(NotAToken::Variable)),
            (format!("Bearer \"{token}\""), not(NotAToken::Quoted)),
            (format!("Bearer '{token}'"), not(NotAToken::Quoted)),
            (format!("Bearer “{token}”"), not(NotAToken::Quoted)),
            (format!("Bearer {token}\""), not(NotAToken::Quoted)),
            ("Bearer \"\"".to_owned(), not(NotAToken::Quoted)),
            ("Bearer '$PAT'".to_owned(), not(NotAToken::Quoted)),
            (format!("\"Bearer {token}\""), not(NotAToken::Quoted)),
            (format!("Bearer {}", &token[..27]), not(NotAToken::Beginning)),
            (format!("Bearer {}…", &token[..27]), not(NotAToken::Beginning)),
            (format!("Bearer {}...", &token[..27]), not(NotAToken::Beginning)),
            // One character of the secret more, or one of the id less.
            (format!("Bearer {}", &token[..28]), Refusal::InvalidToken),
            (format!("Bearer {}", &token[..26]), Refusal::InvalidToken),
            (format!("Bearer {of_another}"), not(NotAToken::OtherPrefix)),
            (format!("Bearer {forged}"), Refusal::InvalidToken),
            (format!("Bearer {}", &token[..20]), Refusal::InvalidToken),
            (format!("Bearer {token}0"), Refusal::InvalidToken),
            ("Bearer something".to_owned(), Refusal::InvalidToken),
            (
                format!("Bearer {token},Bearer {token}"),
                Refusal::BadRequest(MalformedPart::Authorization),
            ),
        ] {
            let sent = [("authorization", authorization.clone())];
            let refused = outcome(&sent, &TokenSources::default(), &ours).unwrap_err();
            assert_eq!(refused.refusal, expected, "{authorization}");
        }
    }

    #[test]
    fn a_token_is_found_wherever_it_stands_in_a_query() {
        let ours = tokens(RING, "pat");
        let token = mint(&ours, 1);
        let forged = mint(&tokens(OTHER_RING, "pat"), 1);
        for (query, expected) in [
            (format!("?key={token}"), true),
            (format!("?{token}"), true),
            (format!("?a=b&pat_pat_{token}x"), true),
            (format!("?key={}", token.replace('_', "%5F")), true),
            (format!("?key=%zz%ff{}", token.replace('p', "%70")), true),
            (format!("?key={forged}&a"), true),
            (format!("?key={token}0"), true),
            (format!("?key={forged}0"), false),
            (format!("?key={}", &token[..70]), false),
            ("?pat_".to_owned(), false),
            ("?a=%41".to_owned(), false),
        ] {
            assert_eq!(in_query(&query, &ours), expected, "{query}");
        }
    }
}
