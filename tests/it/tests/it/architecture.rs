//! The map's invariants, held by looking at the files: who may name whom, where SQL and the clock live, how long a file may be, and that
//! every error code has its page. `ARCHITECTURE.md` says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::util::repository;

/// Which crates of the house each may name. The binary may name all.
const MAY_NAME: [(&str, &[&str]); 9] = [
    ("core", &[]),
    ("stats", &[]),
    ("store", &["core"]),
    ("data", &["core", "stats", "store"]),
    ("models", &["core"]),
    ("serving", &["core", "stats"]),
    ("control", &["core", "serving", "stats", "store"]),
    ("api", &["core", "control", "serving", "store"]),
    (
        "tidemill",
        &[
            "core", "stats", "store", "data", "models", "serving", "control", "api",
        ],
    ),
];

/// Heavy outside crates and the only ones that may depend on them (beyond tests).
const ONLY_IN: [(&str, &[&str]); 12] = [
    ("axum", &["api"]),
    ("tonic", &["api"]),
    ("datafusion", &["data"]),
    ("arrow", &["data"]),
    ("parquet", &["data"]),
    ("rusqlite", &["store"]),
    ("postgres", &["store"]),
    ("object_store", &["store"]),
    ("perpetual", &["models"]),
    ("ort", &["models"]),
    ("clap", &["tidemill"]),
    ("reqwest", &["tidemill"]),
];

const MAX_LINES: usize = 700;

fn crates() -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(repository().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    found.sort();
    found
}

/// The names in a section of a `Cargo.toml`.
fn names_in(manifest: &str, section: &str) -> Vec<String> {
    let header = format!("[{section}]");
    manifest
        .lines()
        .skip_while(|line| line.trim() != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim_start().starts_with('#') && line.contains('='))
        .map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// A source file that is no test: its path from the repository, its text without the tests in it, and how many lines it has in all.
struct Source {
    name: String,
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = repository();
    let mut files = Vec::new();
    for (_, folder) in crates() {
        rust_files(&folder.join("src"), &mut files);
    }
    let is_test = |path: &Path| {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        stem.ends_with("_tests") || matches!(stem.as_str(), "tests" | "testing")
    };
    files.sort();
    files
        .iter()
        .filter(|path| !is_test(path))
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let code = text
                .find("#[cfg(test)]\nmod ")
                .map_or(text.as_str(), |at| &text[..at]);
            Source {
                name: path.strip_prefix(&root).unwrap().display().to_string(),
                code: code.to_owned(),
                lines: text.lines().count(),
            }
        })
        .collect()
}

/// Code lines without comments, with their numbers.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .code
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.split("//").next().unwrap()))
        .filter(|(_, line)| !line.trim().is_empty())
}

#[track_caller]
fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn a_crate_names_only_the_crates_below_it() {
    let table: BTreeMap<&str, &[&str]> = MAY_NAME.into_iter().collect();
    let mut wrong = Vec::new();
    for (name, folder) in crates() {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let Some(allowed) = table.get(name.as_str()) else {
            panic!(
                "crate `{name}` is new: say in MAY_NAME what it may name, and in ARCHITECTURE.md why it is there"
            );
        };
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for named in names_in(&manifest, section) {
                let Some(short) = named.strip_prefix("tidemill-") else {
                    continue;
                };
                if !allowed.contains(&short) {
                    wrong.push(format!(
                        "crates/{name} names `{named}` in [{section}], allowed: {allowed:?}"
                    ));
                }
            }
        }
    }
    assert_none("arrows that point upwards", &wrong);
    assert!(crates().len() <= 10, "ten crates or fewer");
}

#[test]
fn a_heavy_dependency_has_one_door() {
    let mut wrong = Vec::new();
    for (name, folder) in crates() {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let named = names_in(&manifest, "dependencies");
        for (heavy, owners) in ONLY_IN {
            if named.iter().any(|n| n == heavy) && !owners.contains(&name.as_str()) {
                wrong.push(format!(
                    "crates/{name} depends on `{heavy}`, which only {owners:?} may"
                ));
            }
        }
    }
    assert_none("heavy dependencies beside their door", &wrong);
}

#[test]
fn sql_is_spoken_only_in_the_store() {
    let words = [
        "SELECT ",
        "INSERT INTO",
        "INSERT OR",
        "DELETE FROM",
        "CREATE TABLE",
        "CREATE INDEX",
        "PRAGMA ",
        "ALTER TABLE",
    ];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !s.name.starts_with("crates/store/")) {
        for (number, line) in code_lines(source) {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{number}: {}", source.name, line.trim()));
            }
        }
    }
    assert_none("SQL outside `store`", &wrong);
}

#[test]
fn the_machines_clock_is_read_in_one_file() {
    let calls = [
        "SystemTime::now",
        "Instant::now",
        "Utc::now",
        "Local::now",
        "Timestamp::now",
        "Zoned::now",
        "time::sleep(",
        "thread::sleep",
        "time::interval(",
    ];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.name != "crates/core/src/clock.rs") {
        for (number, line) in code_lines(source) {
            if calls.iter().any(|call| line.contains(call)) {
                wrong.push(format!("{}:{number}: {}", source.name, line.trim()));
            }
        }
    }
    assert_none("the machine's clock outside core/src/clock.rs", &wrong);
}

#[test]
fn nothing_is_left_to_do() {
    // Spelt in two parts, so that this file does not find itself.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let root = repository();
    let mut files = Vec::new();
    for folder in ["crates", "tests", "benches"] {
        rust_files(&root.join(folder), &mut files);
    }
    let mut wrong = Vec::new();
    for path in files {
        for (i, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{}:{}: {}", path.display(), i + 1, line.trim()));
            }
        }
    }
    assert_none("left to do", &wrong);
}

#[test]
fn a_source_file_can_be_read_in_one_sitting() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|s| s.lines > MAX_LINES)
        .map(|s| format!("{} has {} lines, more than {MAX_LINES}", s.name, s.lines))
        .collect();
    assert_none("long files", &long);
}

#[test]
fn every_crate_says_what_lives_there_and_what_does_not() {
    for (name, folder) in crates() {
        let path = ["lib.rs", "main.rs"]
            .map(|f| folder.join("src").join(f))
            .into_iter()
            .find(|p| p.is_file())
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} begins with what it is",
            path.display()
        );
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(
            name == "tidemill" || head.to_lowercase().contains("absent"),
            "{} says what is absent",
            path.display()
        );
    }
}

/// The text literals in a piece of code.
fn literals(code: &str) -> Vec<String> {
    code.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The first literal after each of `marks`, where nothing but white space stands between.
fn literal_after(code: &str, mark: &str) -> Vec<String> {
    code.match_indices(mark)
        .filter_map(|(at, _)| {
            code[at + mark.len()..]
                .trim_start()
                .strip_prefix('"')?
                .split('"')
                .next()
        })
        .map(str::to_owned)
        .collect()
}

/// Every stable error code in the code, with where it was found.
fn error_codes() -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    let constructors = [
        "PortError::caller(",
        "PortError::internal(",
        "PortError::upstream(",
        "ApiError::bad_request(",
        "ApiError::not_found(",
        "ApiError::conflict(",
        "ApiError::internal(",
        "ApiError::unavailable(",
        "code: ",
        "Kind::TooLarge,",
        "Kind::NotFound,",
        "Kind::NoRoute,",
        "Kind::MethodNotAllowed,",
        "Kind::UnsupportedMediaType,",
    ];
    for source in sources() {
        let mut add = |code: String| {
            codes.entry(code).or_insert_with(|| source.name.clone());
        };
        for mark in constructors {
            literal_after(&source.code, mark).into_iter().for_each(&mut add);
        }
        let choices = [
            ("fn code(&self) -> &'static str {", "\n    }\n"),
            ("let code = match", "\n        };\n"),
        ];
        for (begin, end) in choices {
            for (at, _) in source.code.match_indices(begin) {
                let body = &source.code[at..];
                let end = body.find(end).unwrap();
                literals(&body[..end]).into_iter().for_each(&mut add);
            }
        }
    }
    codes
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let codes = error_codes();
    assert!(codes.len() > 40, "the codes are found: {codes:?}");
    let folder = repository().join("docs/errors");
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "README" && name != "index")
        .collect();
    let missing: Vec<String> = codes
        .iter()
        .filter(|(code, _)| !pages.contains(*code))
        .map(|(code, from)| format!("{code} ({from})"))
        .collect();
    assert_none("error codes without a page in docs/errors", &missing);
    let stale: Vec<String> = pages
        .iter()
        .filter(|page| !codes.contains_key(*page))
        .cloned()
        .collect();
    assert_none("pages in docs/errors for codes that nothing gives", &stale);
}

#[test]
fn error_codes_are_written_alike() {
    // The page of an error is looked up by its code, which takes these characters only.
    let odd: Vec<String> = error_codes()
        .into_iter()
        .filter(|(code, _)| {
            code.is_empty()
                || !code
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .map(|(code, from)| format!("{code} ({from})"))
        .collect();
    assert_none(
        "error codes that are not snake_case, so `/docs/errors/<code>` cannot find their page",
        &odd,
    );
}

#[test]
fn licences_are_there() {
    let root = repository();
    let licence = std::fs::read_to_string(root.join("LICENSE")).unwrap();
    assert!(licence.contains("Apache License") && licence.contains("Version 2.0"));
    for path in ["ui/vendor/LICENSES.md", "examples/flights/data/LICENSE.md"] {
        assert!(
            !std::fs::read_to_string(root.join(path))
                .unwrap_or_default()
                .trim()
                .is_empty(),
            "{path}"
        );
    }
    for (name, folder) in crates() {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("license.workspace = true"),
            "crates/{name}/Cargo.toml names no licence"
        );
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "crates/{name} does not take the workspace's lints"
        );
    }
}
