//! What a replica takes up while it serves: the key ring and settings, alone and under load.

mod bad_files;
mod keys;
mod lost_keys;
mod relayed;
pub(crate) mod rotation;
mod under_load;

pub(crate) use bad_files::{a_bad_ring_keeps_the_old_one, settings_with_an_error_change_nothing};
pub(crate) use keys::{
    a_credential_opens_while_its_key_is_there, a_forged_entry_goes_with_its_key,
    keys_rotate_as_documented, the_last_key_of_an_installation_is_replaced,
};
pub(crate) use lost_keys::{
    a_lost_ring_is_replaced_as_documented, a_stolen_key_is_removed_as_documented,
};
pub(crate) use relayed::a_forged_frame_goes_with_its_key;
pub(crate) use rotation::{relayed_replicas_rotate, three_replicas_rotate, two_replicas_rotate};
pub(crate) use under_load::{over_a_socket, over_tls};

use std::{fs, path::PathBuf};

use patgate::keyring;
use patgate_testing::eventually;

use crate::support::{Replica, World};

const RELOADED: &str = "patgate_key_ring_reloads_total{result=\"ok\"}";
const REFUSED: &str = "patgate_key_ring_reloads_total{result=\"refused\"}";
const REFUSES: &str = "patgate_key_ring_refused";

/// Makes a line of a ring.
fn line(id: &str) -> String {
    keyring::new_line(&id.parse().unwrap()).unwrap().to_string()
}

/// A key ring of some replicas.
struct RingFile {
    path: PathBuf,
    /// The key of the world, which has signed its tokens.
    own: String,
}

impl RingFile {
    /// Makes a file with the key of the world.
    fn of(world: &World<'_>) -> Self {
        let own = fs::read_to_string(&world.keyring_file).unwrap().trim().to_owned();
        let path = world.suite.dir.path().join(format!("{}.live.keys", world.database));
        let ring = Self { path, own };
        ring.write(&[&ring.own]);
        ring
    }

    /// Replaces the file as `patgate keyring` does, in one step.
    fn write(&self, lines: &[&str]) {
        let new = self.path.with_extension("new");
        fs::write(&new, lines.join("\n")).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }

    fn setting(&self) -> String {
        format!("keyring_file={}", self.path.display())
    }

    /// Replaces the file, and waits until the replica has taken it up.
    async fn bring(&self, replica: &Replica, lines: &[&str]) {
        let before = replica.metric(RELOADED).await;
        self.write(lines);
        let reloaded = async || replica.metric(RELOADED).await > before;
        eventually("the key ring to be reloaded", reloaded).await;
    }
}
