//! Sign-ins by a provider of OpenID Connect.

mod jwt;
mod keys;
