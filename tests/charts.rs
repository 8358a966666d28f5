//! Compares the pictures of docs/performance.md with its table. It needs no servers.
//!
//! `make bench DOCS=1` writes both. After a change of `benches/checks/chart.rs`, draw them again from
//! the same table: `UPDATE=1 cargo test --test charts`.

#[path = "../benches/checks/chart.rs"]
mod chart;

use std::{collections::BTreeSet, env, fs, path::Path};

#[test]
fn the_pictures_show_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/performance.md")).unwrap();
    let pictures = chart::draw(&document);
    assert!(!pictures.is_empty());
    let dir = root.join(chart::DIR);
    for (file, drawn) in &pictures {
        if env::var_os("UPDATE").is_some_and(|value| !value.is_empty()) {
            fs::write(dir.join(file), drawn).unwrap();
        }
        let kept = fs::read_to_string(dir.join(file)).unwrap_or_default();
        assert!(kept == *drawn, "{file} shows other figures: draw it again, see {}", file!());
        let shown = format!("](performance/{file})");
        assert!(document.contains(&shown), "docs/performance.md does not show {file}");
    }
    let drawn: BTreeSet<_> = pictures.iter().map(|(file, _)| (*file).to_owned()).collect();
    let kept = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
    let kept: BTreeSet<_> = kept.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(kept, drawn, "pictures that nothing draws");
}
