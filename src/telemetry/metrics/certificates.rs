//! The certificates that patgate shows to others, and how long they are valid.

use std::ops::RangeInclusive;

use prometheus_client::{encoding::EncodeLabelSet, metrics::gauge::Gauge};

use super::{Metrics, Registrar};
use crate::telemetry::{
    closed::Closed,
    results::{MetricResult, OwnCertificate},
};

/// Label of a certificate: the setting that leads to its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    setting: &'static str,
}

impl CertificateLabels {
    fn of(certificate: OwnCertificate) -> Self {
        Self { setting: certificate.as_str() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Certificates {
    not_before: Closed<CertificateLabels, Gauge>,
    not_after: Closed<CertificateLabels, Gauge>,
}

impl Certificates {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let all = || Closed::new(OwnCertificate::ALL.iter().copied().map(CertificateLabels::of));
        let (not_before, not_after) = (all(), all());
        to.seconds(
            "certificate_not_before_timestamp",
            "Unix time at which the certificate in use begins to be valid; 0 if there is none",
            not_before.family(),
        );
        to.seconds(
            "certificate_not_after_timestamp",
            "Unix time at which the certificate in use ends, or one of its chain that ends earlier; \
             0 if there is none",
            not_after.family(),
        );
        Self { not_before, not_after }
    }
}

impl Metrics {
    /// Shows when the certificate that was taken up is valid, in Unix seconds; `None` if there is
    /// none.
    pub(crate) fn took_up_certificate(
        &self,
        certificate: OwnCertificate,
        validity: Option<RangeInclusive<i64>>,
    ) {
        let labels = CertificateLabels::of(certificate);
        let (not_before, not_after) = validity.map_or((0, 0), RangeInclusive::into_inner);
        self.certificates.not_before.of(&labels).set(not_before);
        self.certificates.not_after.of(&labels).set(not_after);
    }
}
