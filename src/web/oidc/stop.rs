//! Why a sign-in in a browser ends without a session. Nothing of a request or of the provider is shown.

use axum::http::StatusCode;

use super::Failure;
use crate::{admin::web::Error, web::problem::Problem};

pub(super) fn no_provider() -> Problem {
    Problem::not_found("self-service has no provider; sign in with a password")
}

pub(super) fn no_sign_out() -> Problem {
    Problem::not_found("the provider has no page to sign out; you are signed out here")
}

/// Another browser has begun it, or it is over.
pub(super) fn not_begun() -> Problem {
    stopped(
        StatusCode::BAD_REQUEST,
        "not-begun",
        "this sign-in was not begun in this browser, is over, or took longer than ten minutes; sign in \
         again",
    )
}

/// The provider has not signed the user in.
pub(super) fn declined() -> Problem {
    stopped(
        StatusCode::FORBIDDEN,
        "declined",
        "the provider has not signed you in; if you did not cancel, ask an administrator of the provider",
    )
}

/// The provider's answer is not that of this sign-in, or is not genuine.
pub(super) fn not_accepted() -> Problem {
    stopped(
        StatusCode::BAD_GATEWAY,
        "not-accepted",
        "the provider's answer is not accepted; sign in again, and tell an operator if that does not \
         help",
    )
}

pub(super) fn of_failure(failure: Failure) -> Problem {
    match failure {
        Failure::Code => not_begun(),
        Failure::Token(_) => not_accepted(),
        Failure::Unavailable(_) | Failure::NoRandomNumbers => failure.into(),
    }
}

pub(super) fn of_error(error: Error) -> Problem {
    match error {
        Error::SignInFailed => stopped(
            StatusCode::FORBIDDEN,
            "not-linked",
            "the provider has signed you in, but your account there belongs to no user here; ask an \
             administrator to link it",
        ),
        error => error.into(),
    }
}

fn stopped(status: StatusCode, code: &'static str, detail: &str) -> Problem {
    Problem::new(status, code, "You are not signed in", detail)
}
