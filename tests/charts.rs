//! Compares the pictures and the summary of docs/performance.md with its table. It needs no servers.
//!
//! `make bench DOCS=1` writes them. After a change of `benches/checks/chart.rs`, draw them again from
//! the same table: `UPDATE=1 cargo test --test charts`.

#[path = "../benches/checks/chart.rs"]
mod chart;
#[path = "../benches/checks/summary.rs"]
mod summary;

use std::{collections::BTreeSet, env, fs, path::Path};

use chart::{BEGIN, END, Picture};

#[test]
fn the_summary_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let document = fs::read_to_string(path).unwrap();
    let shown = format!("{}{}{}", summary::BEGIN, summary::summary(&document), summary::END);
    // Every figure that it names was measured.
    assert_eq!(shown.matches("\n| ").count(), 8, "{shown}");
    assert!(document.contains(&shown), "docs/performance.md does not say:\n{shown}");
}

#[test]
fn the_pictures_show_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/performance.md")).unwrap();
    let pictures = chart::draw(&document);
    assert!(!pictures.is_empty());
    let dir = root.join(chart::DIR);
    for Picture { file, svg, .. } in &pictures {
        if env::var_os("UPDATE").is_some_and(|value| !value.is_empty()) {
            fs::write(dir.join(file), svg).unwrap();
        }
        let kept = fs::read_to_string(dir.join(file)).unwrap_or_default();
        assert!(kept == *svg, "{file} shows other figures: draw it again, see {}", file!());
    }
    let list: Vec<_> = pictures.iter().map(|picture| &*picture.markdown).collect();
    let list = format!("{BEGIN}{}{END}", list.join("\n"));
    assert!(document.contains(&list), "docs/performance.md does not show these pictures:\n{list}");
    let drawn: BTreeSet<_> = pictures.iter().map(|picture| picture.file.to_owned()).collect();
    let kept = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
    let kept: BTreeSet<_> = kept.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(kept, drawn, "pictures that nothing draws");
}
