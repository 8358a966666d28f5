//! What Envoy does, where our safety rests on it: against a real Envoy and an authorization server
//! that answers as each test says. Another release of Envoy that behaves otherwise turns these
//! red, and so does a shipped configuration that has lost a setting.

mod answers;
mod bodies;
mod gate;
mod headers;
mod heads;
mod limits;
mod misleading;
mod requests;
mod routing;

pub(crate) use self::{
    answers::*, bodies::*, headers::*, heads::*, limits::*, misleading::*, requests::*, routing::*,
};
