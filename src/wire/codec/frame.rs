//! What gRPC puts around a message, and the names by which it is called.

/// The service that Envoy asks, as it is known to health checks.
pub(crate) const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// The path of its one method.
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Bytes before a message: whether it is compressed, and its length.
pub(crate) const HEAD: usize = 5;

/// What comes before a message of so many bytes that is not compressed.
pub(crate) fn head(length: usize) -> [u8; HEAD] {
    // Messages are far shorter than that.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}
