//! Whose an object in the cluster is.

use patgate_routes::{INSTALLATION, INSTANCE, MANAGED_BY, MANAGER, Target};

use super::api::Live;
use crate::routes::status::Owner;

/// Both labels say which instance an object belongs to, and the annotation from which database it comes.
/// An object without the annotation is nobody's that is known here.
pub(super) fn owner(live: &Live, target: &Target) -> Owner {
    let is_instance = live.label(MANAGED_BY) == Some(MANAGER)
        && live.label(INSTANCE) == Some(target.instance.as_str());
    let installation = live.annotation(INSTALLATION);
    match (is_instance, installation == Some(target.installation.as_str())) {
        (false, _) => Owner::Somebody,
        (true, false) => Owner::AnotherInstallation,
        (true, true) => Owner::Us,
    }
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use patgate_routes::Gateway;
    use serde_json::{Value, json};

    use super::*;

    fn target() -> Target {
        Target {
            gateway: Gateway::Istio,
            namespace: "gateways".to_owned(),
            gateway_name: "patgate".to_owned(),
            listeners: Vec::new(),
            instance: "eu".parse().unwrap(),
            installation: "7/16384/an-id".to_owned(),
            authorities: None,
        }
    }

    fn owner_of(labels: Value, annotations: Value) -> Owner {
        let metadata = json!({ "name": "eu-m", "labels": labels, "annotations": annotations });
        let object = json!({ "metadata": metadata, "spec": {} });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        owner(&object.into(), &target())
    }

    #[test]
    fn labels_and_installation_say_it() {
        let ours = json!({ MANAGED_BY: MANAGER, INSTANCE: "eu" });
        let here = json!({ INSTALLATION: "7/16384/an-id" });
        assert_eq!(owner_of(ours.clone(), here.clone()), Owner::Us);
        for other in [json!({}), json!({ INSTALLATION: "7/16385/an-id" }), json!({ "x": "y" })] {
            assert_eq!(owner_of(ours.clone(), other), Owner::AnotherInstallation);
        }
        for labels in [
            json!({}),
            json!({ MANAGED_BY: MANAGER }),
            json!({ INSTANCE: "eu" }),
            json!({ MANAGED_BY: MANAGER, INSTANCE: "patgate" }),
            json!({ MANAGED_BY: "Helm", INSTANCE: "eu" }),
        ] {
            assert_eq!(owner_of(labels, here.clone()), Owner::Somebody);
        }
    }
}
