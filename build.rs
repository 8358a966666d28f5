//! Generates the ext_authz messages that are written by name.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=deploy/migrations");

    // protox is a protobuf compiler in Rust: no protoc on the builder's machine.
    let files = protox::compile(["envoy/service/auth/v3/external_auth.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
