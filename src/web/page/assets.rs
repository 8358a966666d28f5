//! The style sheet, the script and the icon, which are parts of the program.

use std::sync::LazyLock;

use axum::{
    extract::{Path, RawQuery},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};

use super::Fault;
use crate::web::problem::Problem;

/// A file under `/assets/`.
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    version: LazyLock<String>,
}

pub(super) static STYLE: Asset = Asset {
    name: "page.css",
    kind: "text/css; charset=utf-8",
    text: include_str!("../assets/page.css"),
    version: LazyLock::new(|| digest(STYLE.text)),
};

pub(super) static SCRIPT: Asset = Asset {
    name: "page.js",
    kind: "text/javascript; charset=utf-8",
    text: include_str!("../assets/page.js"),
    version: LazyLock::new(|| digest(SCRIPT.text)),
};

pub(super) static ICON: Asset = Asset {
    name: "icon.svg",
    kind: "image/svg+xml",
    text: include_str!("../assets/icon.svg"),
    version: LazyLock::new(|| digest(ICON.text)),
};

impl Asset {
    /// Changes with the content, so browsers may keep what it names for good.
    pub(super) fn path(&self) -> String {
        format!("/assets/{}?v={}", self.name, *self.version)
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

pub(super) async fn serve(
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Fault> {
    let asset = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| Problem::not_found("there is nothing at this path"))?;
    // During an update, a page of one version may ask a process of the other.
    let is_this =
        query.as_deref().and_then(|query| query.strip_prefix("v=")) == Some(&asset.version);
    let keep = if is_this { "public, max-age=31536000, immutable" } else { "no-cache" };
    Ok(([(CONTENT_TYPE, asset.kind), (CACHE_CONTROL, keep)], asset.text).into_response())
}
