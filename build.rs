//! Compiles `proto/`: the messages, the Authorization service, and the descriptors that server
//! reflection shows.

use std::{env, error::Error, fs, path::PathBuf};

const SERVICE: &str = "envoy/service/auth/v3/external_auth.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=deploy/migrations");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    // protox is a protobuf compiler in Rust: no protoc on the builder's machine.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_file(SERVICE)?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    // With comments, which the generated code keeps.
    let files = compiler.include_source_info(true).file_descriptor_set();

    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        // A sorted map, so that the same message is always the same bytes.
        .btree_map(".")
        .compile_fds(files.clone())?;

    // The service takes and gives messages as bytes: one decoder and one encoder serve all checks.
    let service = out.join("service");
    fs::create_dir_all(&service)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(service)
        .codec_path("crate::edge::grpc::service::RawCodec")
        .extern_path(
            ".envoy.service.auth.v3.CheckRequest",
            "crate::edge::grpc::service::EncodedRequest",
        )
        .extern_path(".envoy.service.auth.v3.CheckResponse", "crate::wire::response::EncodedAnswer")
        .extern_path(".envoy", "crate::wire::proto::envoy")
        .extern_path(".google.rpc", "crate::wire::proto::google::rpc")
        .compile_fds(files)?;
    Ok(())
}
