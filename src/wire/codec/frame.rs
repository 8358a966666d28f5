//! How gRPC frames a message, and the names of the service and its method.

/// The service that Envoy calls, by the name in health checks.
pub(crate) const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// The path of its one method.
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// The length of what precedes a message: whether it is compressed, and its length.
pub(crate) const HEAD: usize = 5;

/// What precedes an uncompressed message of `length` bytes.
pub(crate) fn head(length: usize) -> [u8; HEAD] {
    // Messages are far shorter than 4 GiB.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}
