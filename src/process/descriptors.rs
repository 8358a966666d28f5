//! Limits on open files and connections of this process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of file descriptors to the hard limit. Shells and systemd set the soft
/// limit to 1,024 for programs that use `select`. Returns the new limit, or `None` if it is
/// unlimited.
pub(crate) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // On macOS, for example, the hard limit may be unlimited, and the kernel's own limit lower.
        Err(_) => limit.current,
    }
}

/// Returns the number of connections for each of `listeners`: `wanted`, or less if `limit` is too
/// low. `reserved` descriptors are kept for everything else.
pub(crate) fn places(
    wanted: usize,
    limit: Option<u64>,
    reserved: usize,
    listeners: usize,
) -> usize {
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return wanted };
    wanted.min(limit.saturating_sub(reserved) / listeners.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        assert_eq!(places(4096, None, 200, 2), 4096);
        assert_eq!(places(4096, Some(1 << 20), 200, 2), 4096);
        assert_eq!(places(4096, Some(1024), 200, 2), 412);
        assert_eq!(places(4096, Some(1024), 200, 1), 824);
        assert_eq!(places(4096, Some(100), 200, 1), 1);
    }
}
