//! The configuration, as the commands read it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::Arc,
};

use crate::support::{Suite, cli::Cli};

const PASSWORD: &str = "correct-horse-battery";

/// One check of the configuration reports all errors, and no secret.
pub(crate) async fn every_mistake_at_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let good = Cli::of(&world);
    let file = suite.dir.path().join(format!("{}.yaml", world.database));
    fs::write(&file, "listen: { gprc: '127.0.0.1:0' }\nmax_staleness: soon\n").unwrap();
    let bad = good
        .with("postgres.url", &format!("postgres//patgate:{PASSWORD}@db/patgate"))
        .with("redis.url", &format!("memcached://:{PASSWORD}@cache"))
        .with("keyring_file", "")
        .with("redis.timout", "1s")
        .with("negative_ttl", "-1s");
    let mistakes = [
        ("postgres.url", "PATGATE_POSTGRES_URL"),
        ("redis.url", "PATGATE_REDIS_URL"),
        ("keyring_file", "not set"),
        ("PATGATE_REDIS_TIMOUT", "did you mean PATGATE_REDIS_TIMEOUT?"),
        ("negative_ttl", "PATGATE_NEGATIVE_TTL"),
        ("listen.gprc", "did you mean `listen.grpc`?"),
        ("max_staleness", "found `soon`"),
        ("log.format", "--set"),
        ("--set", "`key=value`"),
        ("colour", "a key that exists"),
    ];
    let flags = format!("--set log.format=xml --set colour=red --set {PASSWORD}");
    for command in ["config check", "serve"] {
        let ran = bad.run(&format!("{command} --config {} {flags}", file.display()));
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{command}: {ran:#?}");
        for (key, detail) in mistakes {
            let line = |line: &str| line.contains(key) && line.contains(detail);
            assert!(ran.stderr.lines().any(line), "{command}: no {key} with {detail}: {ran:#?}");
        }
        assert_eq!(ran.stderr.lines().count(), mistakes.len(), "{ran:#?}");
        assert!(!ran.stderr.contains(PASSWORD), "{ran:#?}");
    }

    // The key ring is part of it.
    let ring = suite.dir.path().join(format!("{}.nonsense", world.database));
    fs::write(&ring, format!("k1:{PASSWORD}\n")).unwrap();
    let broken = good.with("keyring_file", &ring.display().to_string());
    broken.refused("config check", 2, "line 1");
    assert!(!broken.run("config check").stderr.contains(PASSWORD));
    let apis = "/no/such/tables";
    let ring_path = ring.display().to_string();
    let wholly_bad = broken.with("apis", apis).with("max_staleness", "soon");
    wholly_bad.refused("config check", 2, "found `soon`");
    let stderr = wholly_bad.run("config check").stderr;
    for beginning in [format!("key ring {ring_path}: "), format!("apis: {apis}:")] {
        assert!(stderr.lines().any(|line| line.starts_with(&beginning)), "{beginning}: {stderr}");
    }
    fs::remove_file(&ring).unwrap();
    broken.refused("config check", 2, "the file does not exist; keyring_file");

    // There is no warning about a ring that no other user can read.
    fs::set_permissions(&world.keyring_file, Permissions::from_mode(0o600)).unwrap();
    let whole = good
        .with("postgres.url", &format!("postgres://patgate:{PASSWORD}@db/patgate"))
        .with("redis.url", &format!("redis://:{PASSWORD}@cache:6379/0"));
    for format in ["table", "json"] {
        let ran = whole.run(&format!("config check --output {format}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:#?}");
        assert!(!ran.stdout.contains(PASSWORD), "{ran:#?}");
        assert_eq!(ran.stdout.matches("(set)").count(), 2, "{ran:#?}");
    }
    // The administrator's commands do not need the settings for serving.
    good.with("keyring_file", "").refused("config check", 2, "keyring_file");
    good.with("keyring_file", "").ok("config check --admin");
    assert!(good.ok("config reference").contains("`PATGATE_POSTGRES_URL_FILE`"));
}

/// Every user of the machine can read the arguments of a process.
pub(crate) async fn secrets_come_by_file_or_environment(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let url = suite.postgres_url("administrator", &world.database);
    let bare = cli.with("postgres.url", "");
    for (key, value) in [("postgres.url", url.as_str()), ("redis.url", &world.redis_url)] {
        for command in ["user list", "config check", "migrate", "serve"] {
            let variable = format!("PATGATE_{}_FILE", key.replace('.', "_").to_uppercase());
            let ran = cli.run(&format!("{command} --set {key}={value}"));
            assert_eq!(ran.code, 2, "{command}: {ran:#?}");
            assert!(ran.stderr.contains(&variable) && !ran.stderr.contains(value), "{ran:#?}");
        }
    }

    let file = suite.dir.path().join(format!("{}.url", world.database));
    fs::write(&file, format!("{url}\n")).unwrap();
    let by_file = bare.with("postgres.url_file", &file.display().to_string());
    assert!(by_file.ok("user list").contains("ann@example.com"));
    by_file.with("postgres.url", &url).refused("user list", 2, "only one of");
    fs::remove_file(&file).unwrap();
    by_file.refused("user list", 2, "PATGATE_POSTGRES_URL_FILE");

    // A token in place of its id is neither used nor repeated.
    let token = world.token(&[]).await;
    for command in ["show", "revoke", "rotate", "delete"] {
        cli.refused(&format!("token {command} {}", token.text), 2, "--stdin");
    }
    assert!(cli.ok("token list --live").contains(&token.id.to_string()));
}

/// A user who can write to a replica's files decides instead of the operator.
pub(crate) async fn files_that_others_may_write_are_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let dir = suite.dir.path().join(format!("{}.files", world.database));
    fs::create_dir(&dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        // As Kubernetes mounts a file of a ConfigMap.
        let link = dir.join(format!("linked-{name}"));
        std::os::unix::fs::symlink(name, &link).unwrap();
        (path, link.display().to_string())
    };
    let (config, config_link) = file("config.yaml", "log.format: text\n");
    let url = suite.postgres_url("administrator", &world.database);
    let (url, url_link) = file("url", &format!("{url}\n"));
    let table = "name: x\ndomain: acme\nerrors: scim\nrules:\n\
                 - { methods: [GET], path: /a, operation: read, entity: scim }\n";
    let (table, table_link) = file("table.yaml", table);
    let by_file = cli.with("postgres.url", "").with("postgres.url_file", &url_link);
    let with_table = cli.with("apis", &table_link);
    let runs = [
        (&config, &cli, format!("user list --config {config_link}")),
        (&url, &by_file, "user list".to_owned()),
        (&url, &by_file, "serve".to_owned()),
        (&table, &cli, format!("api check {table_link}")),
        (&table, &with_table, "config check".to_owned()),
        (&table, &with_table, "serve".to_owned()),
    ];
    for (path, cli, command) in &runs {
        for mode in [0o644, 0o440] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            if command != "serve" {
                cli.ok(command);
            }
        }
        for mode in [0o646, 0o664, 0o666] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            cli.refused(command, 2, "lets others write to it; `chmod go-w` it");
        }
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }
}

/// Each installed shell reads its script without an error, and bash completes with it.
pub(crate) async fn completions_parse(suite: Arc<Suite>) {
    let world = suite.world().await;
    // It must work before anything is configured.
    let bare = Cli::of(&world).with("postgres.url", "").with("keyring_file", "");
    for (shell, dry_run, registers) in [
        ("bash", "-n", "complete -F _patgate"),
        ("zsh", "-n", "#compdef patgate"),
        ("fish", "--no-execute", "complete -c patgate"),
    ] {
        let script = bare.ok(&format!("completions {shell}"));
        for word in [registers, "set-upstream", "set-platform-admin", "expires-in"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        let file = suite.dir.path().join(format!("completions.{shell}"));
        fs::write(&file, script).unwrap();
        match Command::new(shell).arg(dry_run).arg(&file).output() {
            Ok(output) => {
                let complaints = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && complaints.is_empty(), "{shell}: {complaints}");
            }
            Err(_) => println!("{shell} is not installed: its completions were not parsed"),
        }
    }
    let complete = "source \"$0\"; COMP_WORDS=(patgate token ro); COMP_CWORD=2;
                    _patgate patgate ro token; echo \"${COMPREPLY[*]}\"";
    let file = suite.dir.path().join("completions.bash");
    if let Ok(output) = Command::new("bash").arg("-c").arg(complete).arg(file).output() {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "rotate\n", "{output:?}");
    }
    bare.refused("completions tcsh", 2, "invalid value");
}
