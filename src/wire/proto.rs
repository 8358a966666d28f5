//! Generated code, and the only place where its lints are relaxed.

#[expect(
    unreachable_pub,
    clippy::disallowed_types,
    reason = "generated from proto/, where the fields are described"
)]
pub(crate) mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!(concat!(env!("OUT_DIR"), "/envoy.config.core.v3.rs"));
            }
        }
    }
    pub mod service {
        pub mod auth {
            pub mod v3 {
                include!(concat!(env!("OUT_DIR"), "/envoy.service.auth.v3.rs"));
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            include!(concat!(env!("OUT_DIR"), "/envoy.r#type.v3.rs"));
        }
    }
}

#[expect(unreachable_pub, reason = "generated from proto/")]
pub(crate) mod google {
    pub mod rpc {
        include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
    }
}

#[expect(
    unreachable_pub,
    clippy::default_constructed_unit_structs,
    reason = "generated from proto/, for any codec"
)]
pub(crate) mod authorization {
    include!(concat!(env!("OUT_DIR"), "/service/envoy.service.auth.v3.rs"));
}

/// The descriptors of all files in `proto/` and of their imports, for server reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
