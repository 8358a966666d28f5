//! Generates the ext_authz messages and the service that carries them.

use std::error::Error;

use tonic_build::manual::{Method, Service};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=deploy/migrations");

    // protox is a protobuf compiler in Rust: no protoc on the builder's machine.
    let files = protox::compile(["envoy/service/auth/v3/external_auth.proto"], ["proto"])?;
    prost_build::Config::new()
        // Not copied out of the message: it may be a megabyte, and is seldom read.
        .bytes([".envoy.service.auth.v3.AttributeContext.HttpRequest.raw_body"])
        .compile_fds(files)?;

    // Written out by hand so that the service answers with `response::Answer`, which cannot be
    // empty, instead of `CheckResponse`, whose default Envoy takes for an ALLOW.
    let check = Method::builder()
        .name("check")
        .route_name("Check")
        .input_type("crate::proto::CheckRequest")
        .output_type("crate::response::Answer")
        .codec_path("crate::codec::CheckCodec")
        .build();
    let authorization = Service::builder()
        .name("Authorization")
        .package("envoy.service.auth.v3")
        .comment("Asked by Envoy about each request.")
        .method(check)
        .build();
    tonic_build::manual::Builder::new().build_client(false).compile(&[authorization]);
    Ok(())
}
