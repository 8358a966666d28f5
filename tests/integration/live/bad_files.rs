//! Files that cannot be used: what is in force stays, and patgate says so.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
};

use patgate_testing::eventually;

use super::{REFUSED, REFUSES, RELOADED, RingFile, line};
use crate::support::{
    Replica, Suite,
    fleet::{MODELS, answer},
    outcome,
    process::{self, Process},
    replica::request,
    secrets::{NEW, OLD},
    settings::PATIENT,
    tokens::reader,
};

fn logged(process: &Process, message: &str) -> usize {
    let log = fs::read_to_string(&process.server.log).unwrap();
    log.lines().filter(|line| line.contains(message)).count()
}

pub(crate) async fn a_bad_ring_keeps_the_old_one(suite: Arc<Suite>) {
    let world = suite.world().await;
    let ring = RingFile::of(&world);
    let second = line("k2");
    let good = [&*ring.own, &second];
    ring.write(&good);
    let setting = ring.setting();
    let process = process::serve(&world, &[&setting, PATIENT[0], PATIENT[1]]).await;
    let replica = &process.replica;
    let token = reader(&world).await;
    assert_eq!(answer(replica, &token, MODELS).await, 200);
    assert_eq!(replica.metric(REFUSES).await, 0);

    let mode = |mode| fs::set_permissions(&ring.path, Permissions::from_mode(mode)).unwrap();
    let half = &second[..second.len() / 2];
    let rest = second.split_once(':').unwrap().1;
    let bad: [(&str, &str, &dyn Fn()); 8] = [
        ("the file does not exist", "missing", &|| fs::remove_file(&ring.path).unwrap()),
        ("lets others write to it", "writable", &|| mode(0o666)),
        ("no key", "empty", &|| ring.write(&[])),
        ("line 2: expected", "cut short", &|| ring.write(&[&ring.own, half])),
        ("line 1: expected", "not a ring", &|| ring.write(&["nonsense"])),
        ("this key id occurs twice", "a repeated id", &|| {
            ring.write(&[&ring.own, &format!("k1:{rest}")]);
        }),
        ("has signed none of the live tokens", "another ring", &|| ring.write(&[&line("k9")])),
        ("`k1` has the name of one and another secret", "a namesake", &|| {
            ring.write(&[&line("k1")]);
        }),
    ];
    for (times, (why, what, break_it)) in (1..).zip(bad) {
        break_it();
        let seen = async || replica.metric(REFUSED).await == times;
        eventually(&format!("a ring to be refused: {what}"), seen).await;
        assert_eq!(replica.metric(REFUSES).await, 1, "{what}");
        assert_eq!(answer(replica, &token, MODELS).await, 200, "{what}");
        eventually(&format!("the log to say why: {what}"), async || logged(&process, why) == 1)
            .await;
        ring.write(&good);
        let loaded = async || replica.metric(RELOADED).await == times;
        eventually(&format!("the good ring to be loaded after: {what}"), loaded).await;
        assert_eq!(replica.metric(REFUSES).await, 0, "{what}");
    }
    assert_eq!(logged(&process, "key ring not reloaded"), 8);
    // A new key in the file would make every token invalid, so the log suggests none.
    assert_eq!(logged(&process, "bring back the ring of this installation"), 8);
    let log = fs::read_to_string(&process.server.log).unwrap();
    assert!(!log.contains("keyring new") && !log.contains("create the first token"), "{log}");
    assert!(!log.contains(half), "a part of a key in the log");
    assert_eq!(
        replica
            .metric("patgate_lookups_total{kind=\"principal\",tier=\"postgres\",result=\"hit\"}")
            .await,
        1,
        "nothing was dropped"
    );
    assert_eq!(answer(replica, &token, MODELS).await, 200);
}

async fn status(replica: &Replica, bearer: &str, secret: &str) -> u16 {
    let request = request("GET", MODELS, &[("authorization", bearer)]);
    let metadata = [("patgate-secret", secret)];
    let metadata = if secret.is_empty() { &[][..] } else { &metadata };
    outcome(&replica.raw_with(metadata, request).await).0
}

pub(crate) async fn settings_with_an_error_change_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let path = |name: &str| suite.dir.path().join(format!("{}.{name}", world.database));
    let [secret, config] = [path("secret"), path("yaml")];
    fs::write(&secret, &*OLD).unwrap();
    fs::write(&config, "mode: enforce").unwrap();
    let settings =
        [format!("grpc.secret_file={}", secret.display()), format!("config={}", config.display())];
    let process = process::serve(&world, &[&settings[0], &settings[1]]).await;
    let replica = &process.replica;
    let bearer = reader(&world).await.bearer();
    let answers =
        async || [status(replica, &bearer, &OLD).await, status(replica, &bearer, &NEW).await];
    let count = async |result: &str| {
        replica.metric(&format!("patgate_settings_reloads_total{{result=\"{result}\"}}")).await
    };
    let refuses = async || replica.metric("patgate_settings_refused").await;
    assert_eq!(answers().await, [200, 503]);
    fs::write(&secret, format!("{},{}\n", *OLD, *NEW)).unwrap();
    eventually("both secrets", async || count("ok").await == 1).await;
    assert_eq!(answers().await, [200, 200]);

    let bad: [(&str, &dyn Fn()); 5] = [
        ("too short", &|| fs::write(&secret, "short").unwrap()),
        ("emptied", &|| fs::write(&secret, "").unwrap()),
        ("missing", &|| fs::remove_file(&secret).unwrap()),
        ("no YAML", &|| fs::write(&config, "mode: [").unwrap()),
        ("an unknown setting", &|| fs::write(&config, "mod: enforce").unwrap()),
    ];
    for (times, (what, break_it)) in (1..).zip(bad) {
        break_it();
        let refused = async || count("refused").await == times;
        eventually(&format!("settings to be refused: {what}"), refused).await;
        assert_eq!(refuses().await, 1, "{what}");
        assert_eq!(answers().await, [200, 200], "{what}");
        assert_eq!(status(replica, &bearer, "").await, 503, "{what}");
        fs::write(&secret, format!("{},{}", *OLD, *NEW)).unwrap();
        fs::write(&config, "mode: enforce").unwrap();
        eventually("the settings to be taken up", async || refuses().await == 0).await;
    }
    let reported = async || logged(&process, "settings not reloaded") == 5;
    eventually("one line of the log for each", reported).await;

    // What needs a restart is named, and the rest is taken up.
    fs::write(&config, "mode: shadow\nmax_staleness: 9s").unwrap();
    fs::write(&secret, &*NEW).unwrap();
    eventually("the new secret alone", async || answers().await == [503, 200]).await;
    let named = "\"changed\":\"[\\\"max_staleness\\\", \\\"mode\\\"]\"";
    eventually("the log to name them", async || logged(&process, named) == 1).await;
    assert_eq!(replica.metric("patgate_mode{mode=\"enforce\"}").await, 1);
    let log = fs::read_to_string(&process.server.log).unwrap();
    assert!(!log.contains(&*OLD) && !log.contains(&*NEW), "a secret in the log");
}
