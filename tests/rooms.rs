//! The rooms of the house, and that each uses only those below it.
//!
//! ```text
//! cargo test --test rooms -- --nocapture
//! ```
//! prints how often each room imports from each other one. Tests within files may look anywhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the ground up. Rooms on the same floor know nothing of each other.
const FLOORS: [&[&str]; 10] = [
    &["primitive", "claim"],
    &["sys"],
    &["segment"],
    &["peer"],
    &["sync", "ring"],
    &["heap"],
    &["object"],
    &["queue", "boxed", "lock", "spsc", "value", "event"],
    &["channel"],
    &["process"],
];

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files below a folder, but those of tests.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the source is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .flat_map(|path| {
            let name = path.file_stem().and_then(|name| name.to_str()).expect("text").to_owned();
            match name.as_str() {
                "tests" | "loom_tests" => Vec::new(),
                _ if path.is_dir() => files(&path),
                _ => vec![path],
            }
        })
        .collect()
}

/// The room of a file: the folder or file below `src`.
fn room_of(path: &Path) -> String {
    let within = path.strip_prefix(source()).expect("below src");
    let first = within.components().next().expect("a name").as_os_str().to_str().expect("text");
    first.trim_end_matches(".rs").to_owned()
}

/// How often each room names each other one, in code and not in comments.
fn arrows() -> BTreeMap<(String, String), usize> {
    let mut arrows = BTreeMap::new();
    for path in files(&source()) {
        let room = room_of(&path);
        let text = std::fs::read_to_string(&path).expect("text");
        let code = text.split("#[cfg(test)]\nmod tests {").next().expect("a beginning");
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (_, rest) in line.match_indices("crate::").map(|(at, _)| line.split_at(at + 7)) {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let other = &rest[..end.unwrap_or(rest.len())];
                if other != room && floor_of(other).is_some() {
                    *arrows.entry((room.clone(), other.to_owned())).or_insert(0) += 1;
                }
            }
        }
    }
    arrows
}

#[test]
fn every_room_uses_only_those_below_it() {
    let arrows = arrows();
    for ((from, to), count) in &arrows {
        println!("{from:>10} -> {to:<10} {count}");
    }
    // What the crate's root re-exports is not an arrow between rooms.
    let rooms = arrows.iter().filter(|((from, _), _)| from != "lib");
    for ((from, to), count) in rooms {
        let (above, below) =
            (floor_of(from).expect("on a floor"), floor_of(to).expect("on a floor"));
        assert!(above > below, "{from} uses {to}, {count} times");
    }
    assert!(arrows.len() > 30, "nothing was read");
}

#[test]
fn every_room_has_a_floor() {
    for path in files(&source()) {
        let room = room_of(&path);
        assert!(room == "lib" || floor_of(&room).is_some(), "{room} is on no floor");
    }
}
