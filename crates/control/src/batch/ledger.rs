//! Which files of a job are done: so that a job that is begun again leaves them as they are.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::{BatchError, Result};

/// The files that are done, and what was counted of each.
pub(super) struct Ledger<T> {
    file: File,
    done: BTreeMap<String, T>,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> BatchError + '_ {
    move |error| {
        tidemill_core::ports::PortError::upstream(
            "batch_io",
            format!("cannot keep `{}`: {error}", path.display()),
        )
        .into()
    }
}

impl<T: Serialize + DeserializeOwned> Ledger<T> {
    /// Opens the ledger of a job's folder, or begins one.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("done.jsonl");
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // A line that was cut off by a crash was not done.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut done = BTreeMap::new();
        for line in whole.lines() {
            if let Ok(mut entry) = serde_json::from_str::<Value>(line)
                && let Ok(counted) = serde_json::from_value(entry["counted"].take())
                && let Some(name) = entry["file"].as_str()
            {
                done.insert(name.to_owned(), counted);
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.map_err(failed(&path))?;
        if text.len() > whole.len() + 1 {
            file.write_all(b"\n").map_err(failed(&path))?;
        }
        Ok(Self { file, done })
    }

    /// What was counted of a file that is done.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.done.get(name)
    }

    /// A file is done; durable on return.
    pub fn add(&mut self, name: &str, counted: &T) -> Result<()> {
        let line = json!({ "file": name, "counted": counted });
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.file.sync_all())
            .map_err(failed(Path::new(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_again_and_a_line_cut_off_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.add("a", &1).unwrap();
        ledger.add("b/c", &2).unwrap();
        let path = dir.path().join("done.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{{\"file\":\"d\",\"cou")).unwrap();
        let mut again = Ledger::<i32>::open(dir.path()).unwrap();
        assert_eq!(
            (again.get("a"), again.get("b/c"), again.get("d")),
            (Some(&1), Some(&2), None)
        );
        again.add("e", &3).unwrap();
        let third = Ledger::<i32>::open(dir.path()).unwrap();
        assert_eq!((third.get("b/c"), third.get("e")), (Some(&2), Some(&3)));
    }
}
