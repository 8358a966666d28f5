//! The replicas of the gateway, for administrators.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};

use super::{
    Fault,
    input::Visitor,
    layout::{Frame, answer, page},
    time::{count, moment},
};
use crate::{
    admin::web::{Fleet, FleetReplica},
    web::Site,
};

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
) -> Result<Response, Fault> {
    let fleet = site.service.fleet(&visitor.caller).await?;
    Ok(answer(StatusCode::OK, render(&visitor, &fleet)))
}

fn render(visitor: &Visitor, fleet: &Fleet) -> Markup {
    let content = html! {
        h1 { "Replicas" }
        p {
            "The replicas that answer Envoy, and how far each has read what was changed. A change holds \
             everywhere when all that count have read it. As of " (moment(&fleet.at)) "."
        }
        @if fleet.replicas.is_empty() {
            p { "No replica serves." }
        } @else {
            table role="table" {
                caption { (count(fleet.replicas.len(), "replica")) }
                thead role="rowgroup" { tr role="row" {
                    @for head in ["Name", "State", "Behind by", "May use data as old as"] {
                        th role="columnheader" scope="col" { (head) }
                    }
                } }
                tbody role="rowgroup" { @for replica in &fleet.replicas { (row(replica)) } }
            }
        }
    };
    page("Replicas", Frame::Of(visitor), &content)
}

fn row(replica: &FleetReplica) -> Markup {
    let time = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
    html! { tr role="row" {
        th role="rowheader" scope="row" { (replica.name) }
        td role="cell" data-label="State" {
            @if replica.counts { "up to date" } @else { "not heard from: ended, or reads the database for each request" }
        }
        td role="cell" data-label="Behind by" { (time(replica.lag_ms)) }
        td role="cell" data-label="May use data as old as" {
            (time(replica.max_staleness_ms))
        }
    } }
}
