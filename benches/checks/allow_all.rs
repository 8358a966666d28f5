//! The server for comparison: the simplest server with tonic and the published definitions, on one
//! thread. It allows every check, with four headers, and does nothing else.

use std::{convert::Infallible, path::Path};

use envoy_types::{
    ext_authz::v3::{
        CheckResponseExt, OkHttpResponseBuilder,
        pb::{Authorization, AuthorizationServer},
    },
    pb::envoy::service::auth::v3::{CheckRequest, CheckResponse},
};
use futures_util::stream;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Builder,
};
use tonic::{Request, Response, Status, transport::Server};

struct AllowAll;

#[tonic::async_trait]
impl Authorization for AllowAll {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let mut ok = OkHttpResponseBuilder::new();
        for name in ["x-domain-id", "x-user-id", "x-pat-id", "x-upstream-cluster"] {
            ok.add_header(name, "01890a5d-ac96-774b-bcce-b302099a8057", None, false);
        }
        let mut response = CheckResponse::with_status(Status::ok("ok"));
        response.set_http_response(ok);
        Ok(Response::new(response))
    }
}

/// Serves on both addresses until it is ended, and prints them on standard output.
pub(crate) fn serve(socket: &Path) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unix = UnixListener::bind(socket).unwrap();
        println!("{{\"message\": \"listening\", \"grpc\": \"{}\"}}", tcp.local_addr().unwrap());
        let over_tcp = stream::unfold(tcp, |tcp| async {
            let (accepted, _) = tcp.accept().await.unwrap();
            accepted.set_nodelay(true).unwrap();
            Some((Ok::<_, Infallible>(accepted), tcp))
        });
        let over_unix = stream::unfold(unix, |unix| async {
            Some((Ok::<_, Infallible>(unix.accept().await.unwrap().0), unix))
        });
        let server = || Server::builder().add_service(AuthorizationServer::new(AllowAll));
        let (tcp, unix) = tokio::join!(
            server().serve_with_incoming(over_tcp),
            server().serve_with_incoming(over_unix),
        );
        tcp.and(unix).unwrap();
    });
}
