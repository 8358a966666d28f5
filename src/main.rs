//! `patgate`: see `patgate help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two crates use rustls, so the provider is chosen here, before the first handshake. This fails
    // if a provider is chosen already, which is equally good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    patgate::cli::run()
}
