//! Passes calls that are not checks to tonic, if they are short and arrive in time: questions about
//! health, and about the services themselves.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Limited};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Status, body::Body, codegen::Service, service::Routes};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::{GrpcEdge, message::READING, service};
use crate::wire::proto::DESCRIPTORS;

/// A question about health contains the name of a service.
const MAX_BODY: usize = 4096;

/// The prefix of the paths of server reflection.
const REFLECTION: &str = "/grpc.reflection.";
/// Concurrent reflection calls, on all connections together: each holds descriptors of some
/// kilobytes, and its own task.
pub(super) const MAX_REFLECTIONS: usize = 16;
/// Time limit for a reflection call. A client needs a few round trips.
pub(super) const REFLECTING: Duration = Duration::from_secs(10);

/// The services that tonic serves: health, server reflection, and the generated `Authorization`.
pub(super) struct TonicServices {
    routes: Routes,
    reflections: Semaphore,
}

impl TonicServices {
    pub(super) fn new(edge: GrpcEdge, health: HealthServer<impl Health>) -> Self {
        let routes =
            Routes::new(health).add_service(reflection()).add_service(service::authorization(edge));
        Self { routes: routes.prepare(), reflections: Semaphore::new(MAX_REFLECTIONS) }
    }

    pub(super) fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Answers a call until it ends, or the client cancels it.
    pub(super) async fn answer(
        &self,
        path: &str,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        if !path.starts_with(REFLECTION) {
            return answer(self.routes(), path, body, &mut respond).await;
        }
        let Ok(_place) = self.reflections.try_acquire() else { return refuse(respond) };
        // Client and server take turns, so the call may never end by itself.
        let answered = timeout(REFLECTING, answer(self.routes(), path, body, &mut respond)).await;
        if answered.is_err() {
            respond.send_reset(h2::Reason::CANCEL);
        }
    }
}

/// Lets clients ask which services there are, and how their messages are defined.
fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    let described = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    #[expect(clippy::expect_used, reason = "the descriptors are compiled in; tests read them")]
    described.expect("descriptors of the services")
}

async fn answer(
    mut routes: Routes,
    path: &str,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
) {
    // The whole question about health is read before its answer begins. tonic needs only the path
    // of the head.
    let body = Body::new(Limited::new(RequestBody(body), MAX_BODY));
    let Ok(request) = Request::post(path).body(body) else {
        return respond.send_reset(h2::Reason::PROTOCOL_ERROR);
    };
    let Ok(answered) = timeout(READING, routes.call(request)).await else {
        return respond.send_reset(h2::Reason::CANCEL);
    };
    send_answer(answered.unwrap_or_else(|never| match never {}), respond).await;
}

/// Sends tonic's answer.
pub(super) async fn send_answer(answer: Response<Body>, respond: &mut SendResponse<Bytes>) {
    let (head, body) = answer.into_parts();
    // A status without data must end the stream. If an empty data frame follows, grpcio and others
    // do not read the status, and report UNKNOWN.
    let only_status = body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), only_status) else {
        return;
    };
    if !only_status && !send(body, &mut stream).await {
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

/// Answers a call above the limit.
pub(super) fn refuse(respond: SendResponse<Bytes>) {
    refuse_with(Status::resource_exhausted("too many calls on this connection"), respond);
}

/// Answers a call as if there were no such service.
pub(super) fn hide(respond: SendResponse<Bytes>) {
    refuse_with(Status::unimplemented(""), respond);
}

fn refuse_with(status: Status, mut respond: SendResponse<Bytes>) {
    let (head, _) = status.into_http::<()>().into_parts();
    // A client that has gone away needs no answer.
    let _ = respond.send_response(Response::from_parts(head, ()), true);
}

/// Returns whether everything was sent that the client wanted.
async fn send(mut body: Body, stream: &mut SendStream<Bytes>) -> bool {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // A client that watches the health may wait without end; it stops by a reset.
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return true,
        };
        let sent = match frame {
            // tonic's answers end with trailers. Without them, the client gets no status.
            None => return false,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send_data(data, stream).await,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => return stream.send_trailers(trailers).is_ok(),
                    Err(_) => Ok(()),
                },
            },
        };
        if sent.is_err() {
            return false;
        }
    }
}

/// Sends as fast as the client accepts, so that nothing piles up for a client that does not read.
async fn send_data(mut data: Bytes, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(h2::Reason::CANCEL.into());
        };
        stream.send_data(data.split_to(room?.min(data.len())), false)?;
    }
    Ok(())
}

/// A request's body, in the form that tonic takes.
struct RequestBody(RecvStream);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = ready!(self.0.poll_data(cx));
        Poll::Ready(data.map(|data| {
            let data = data?;
            self.0.flow_control().release_capacity(data.len())?;
            Ok(Frame::data(data))
        }))
    }
}
