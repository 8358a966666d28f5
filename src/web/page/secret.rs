//! The one page that shows a token.

use maud::{Markup, html};

use super::{
    example::{copy, examples},
    input::Visitor,
    layout::{Frame, page},
    time::distance,
};
use crate::{
    admin::web::{Error, OwnToken},
    token::PlainToken,
    web::Site,
};

/// Shows a token that was made just now. Its secret is kept nowhere, so no other page can show it.
pub(super) async fn shown_once(
    site: &Site,
    visitor: &Visitor,
    plain: &PlainToken,
    token: &OwnToken,
    more: Option<&str>,
) -> Result<Markup, Error> {
    let domains = site.service.grantable(&visitor.caller).await?;
    let secret = plain.expose();
    let content = html! {
        h1 { "Your token " (token.name) }
        p role="status" { "Copy the token now. It is not shown again." }
        p { code #secret.secret { (secret) } }
        (copy("secret", "Copy the token"))
        p { "It expires " (distance(&token.expires_at)) "." }
        @if let Some(more) = more { p { (more) } }
        (examples(&site.settings.gateway_url, secret, token, &domains))
        p { a href={ "/tokens/" (token.id) } { "Details of the token" } }
    };
    Ok(page("Your token", Frame::Of(visitor), &content))
}
