//! `patgate`: see `patgate help`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Quicker than the C library's, and gives back what a burst has taken.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Two crates bring rustls in; a provider chosen here spares them a choice at the first
    // handshake. It fails when one is chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    patgate::cli::run()
}
