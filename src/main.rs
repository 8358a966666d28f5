//! `patgate`: see `patgate help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two crates bring rustls in; a provider chosen here spares them a choice at the first
    // handshake. It fails when one is chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    patgate::cli::run()
}
