//! Who visits a page, and what a form has sent.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{Form, FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, header::SET_COOKIE, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use serde::de::DeserializeOwned;

use super::{Fault, SIGN_IN, notice::Done};
use crate::{
    admin::web::{Caller, CurrentSession, Error},
    token::TokenId,
    web::{
        Site, cookie,
        problem::Problem,
        visit::{Visit, form_proof, proves_form},
    },
};

/// A visitor with a session that has not ended; others are led to the sign-in.
pub(super) struct Visitor {
    pub(super) caller: Caller,
    pub(super) session: CurrentSession,
}

impl Visitor {
    /// What a form of this session must send back.
    pub(super) fn form_proof(&self) -> String {
        form_proof(&self.caller.session)
    }
}

impl FromRequestParts<Arc<Site>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Response> {
        let Ok(visit) = Visit::from_request_parts(parts, site).await;
        let session = match visit.caller() {
            Some(caller) => site.service.session(&caller).await.map(|session| (caller, session)),
            None => Err(Error::NotSignedIn),
        };
        match session {
            Ok((caller, session)) => Ok(Self { caller, session }),
            Err(Error::NotSignedIn) => Err(to_sign_in(site, &parts.headers)),
            Err(error) => Err(Fault::from(error).into_response()),
        }
    }
}

/// Leads to the sign-in, and takes the cookie of an ended session back.
fn to_sign_in(site: &Site, headers: &HeaderMap) -> Response {
    let had_one = cookie::is_sent(&site.settings.url, headers);
    let mut response = match had_one {
        true => Done::Ended.lead_to(SIGN_IN),
        false => Redirect::to(SIGN_IN).into_response(),
    };
    if had_one {
        response.headers_mut().append(SET_COOKIE, cookie::take(&site.settings.url));
    }
    response
}

/// What the address of a page asks for; if it is malformed, the usual.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequestParts<Arc<Site>> for Asked<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Infallible> {
        let asked = Query::<T>::from_request_parts(parts, site).await;
        Ok(Self(asked.map(|Query(it)| it).unwrap_or_default()))
    }
}

/// A form that a visitor without a session has sent.
pub(super) struct Sent<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Site>> for Sent<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Fault> {
        // The error of the library may quote a value, such as a password.
        let not_a_form = |_| Fault::from(Problem::invalid("what was sent is no form of a page"));
        let Form(it) = Form::<T>::from_request(request, site).await.map_err(not_a_form)?;
        Ok(Self(it))
    }
}

/// A form that a visitor has sent from a page of their own session.
pub(super) struct SentForm {
    pub(super) visitor: Visitor,
    pub(super) fields: Fields,
}

impl FromRequest<Arc<Site>> for SentForm {
    type Rejection = Response;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, site).await?;
        let request = Request::from_parts(parts, body);
        let sent = Sent::<Vec<(String, String)>>::from_request(request, site).await;
        let fields = Fields(sent.map_err(IntoResponse::into_response)?.0);
        if !proves_form(&visitor.caller.session, fields.get("proof")) {
            return Err(Fault::from(Problem::foreign_form()).into_response());
        }
        Ok(Self { visitor, fields })
    }
}

/// The fields of a form, in order. A name may occur more than once.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The first value of a field, without white space around it; empty if there is none.
    pub(super) fn get<'f>(&'f self, name: &'f str) -> &'f str {
        self.all(name).next().unwrap_or_default().trim()
    }

    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// All but the proof that the form is of this session.
    pub(super) fn without_proof(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(|(name, _)| *name != "proof")
    }

    /// Whether a box is ticked, or a button with this name was pressed.
    pub(super) fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// The version that the visitor has seen. A form without one is of no page.
    pub(super) fn version(&self) -> Option<&str> {
        Some(self.get("version"))
    }
}

/// An id in a path: what is none is answered like one that nobody has.
pub(super) fn token_id(text: &str) -> Result<TokenId, Fault> {
    let id = text.parse().map_err(|_| Error::NotFound("there is no such token".into()))?;
    Ok(TokenId(id))
}
