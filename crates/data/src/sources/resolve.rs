//! Which files a source pattern means.

use std::path::{Path, PathBuf};

use tidemill_core::digest::Digest;
use tidemill_core::spec::DataFormat;

use crate::error::{DataError, Result, suggest};

/// The files of a source, sorted by path, all of one format.
#[derive(Debug, Clone)]
pub struct SourceFiles {
    /// As the spec writes it.
    pub pattern: String,
    /// Where each file lies.
    pub files: Vec<PathBuf>,
    /// How they are written.
    pub format: DataFormat,
}

/// The name of a format in messages.
pub fn format_name(format: DataFormat) -> &'static str {
    match format {
        DataFormat::Parquet => "Parquet",
        DataFormat::Csv => "CSV",
        DataFormat::Jsonl => "JSON lines",
    }
}

fn format_of(file: &Path) -> Option<DataFormat> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "parquet" | "pq" => Some(DataFormat::Parquet),
        "csv" => Some(DataFormat::Csv),
        "jsonl" | "ndjson" | "json" => Some(DataFormat::Jsonl),
        _ => None,
    }
}

/// Finds the files that `pattern` means: a file, a folder (all data files in and below it) or a glob.
pub fn resolve(root: &Path, pattern: &str, format: Option<DataFormat>) -> Result<SourceFiles> {
    let path = root.join(pattern);
    let mut files = if path.is_file() {
        vec![path]
    } else if path.is_dir() {
        let mut found = Vec::new();
        walk(&path, format.is_some(), &mut found)?;
        found
    } else if pattern.contains(['*', '?', '[']) {
        glob_files(root, pattern)?
    } else {
        Vec::new()
    };
    files.sort();
    if files.is_empty() {
        return Err(DataError::NoSuchSource {
            source_pattern: pattern.to_owned(),
            root: root.to_owned(),
            hint: hint(root, pattern),
        });
    }
    let format = match format {
        Some(format) => format,
        None => common_format(&files)?,
    };
    let files = files
        .into_iter()
        .map(|file| std::path::absolute(&file).map_err(|e| DataError::io(&file, e)))
        .collect::<Result<Vec<_>>>()?;
    Ok(SourceFiles {
        pattern: pattern.to_owned(),
        files,
        format,
    })
}

fn common_format(files: &[PathBuf]) -> Result<DataFormat> {
    let mut first: Option<(DataFormat, &Path)> = None;
    for file in files {
        let format = format_of(file).ok_or_else(|| DataError::UnknownFormat { file: file.clone() })?;
        match first {
            None => first = Some((format, file)),
            Some((known, _)) if known == format => {}
            Some((known, other)) => {
                return Err(DataError::UnlikeFiles(format!(
                    "`{}` is {} and `{}` is {}: a source holds one format; narrow it with a glob such as `*.parquet`",
                    other.display(),
                    format_name(known),
                    file.display(),
                    format_name(format)
                )));
            }
        }
    }
    Ok(first.map_or(DataFormat::Parquet, |(format, _)| format))
}

/// Hidden names and those that start with `_` (Spark's and pandas' side files) are no data.
fn is_data_name(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| !name.starts_with(['.', '_']))
}

fn walk(folder: &Path, any_ending: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|e| DataError::io(folder, e))?;
    for entry in entries {
        let path = entry.map_err(|e| DataError::io(folder, e))?.path();
        if !is_data_name(&path) {
            continue;
        }
        if path.is_dir() {
            walk(&path, any_ending, found)?;
        } else if any_ending || format_of(&path).is_some() {
            found.push(path);
        }
    }
    Ok(())
}

fn glob_files(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let full = if Path::new(pattern).is_absolute() {
        pattern.to_owned()
    } else {
        format!("{}/{pattern}", glob::Pattern::escape(&root.to_string_lossy()))
    };
    let paths = glob::glob(&full)
        .map_err(|e| DataError::Spec(format!("`data.source` `{pattern}` is not a valid glob: {e}")))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|e| {
            let place = e.path().to_owned();
            DataError::io(&place, e.into())
        })?;
        if path.is_file() && is_data_name(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

/// The nearest existing names in the deepest folder of the pattern that exists.
fn hint(root: &Path, pattern: &str) -> String {
    let path = root.join(pattern);
    let wanted = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let Some(folder) = path.ancestors().skip(1).find(|p| p.is_dir()) else {
        return String::new();
    };
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            entries
                .flatten()
                .filter(|e| is_data_name(&e.path()))
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    suggest(&wanted, names.iter().map(String::as_str))
}

impl SourceFiles {
    /// Names, sizes and modification marks as one digest.
    pub fn digest(&self, root: &Path) -> Result<Digest> {
        let root = std::path::absolute(root).map_err(|e| DataError::io(root, e))?;
        let mut parts: Vec<Vec<u8>> = Vec::with_capacity(self.files.len() * 3);
        for file in &self.files {
            let meta = std::fs::metadata(file).map_err(|e| DataError::io(file, e))?;
            let modified = meta.modified().map_err(|e| DataError::io(file, e))?;
            let nanos = modified
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.as_nanos());
            let name = file.strip_prefix(&root).unwrap_or(file);
            parts.push(name.to_string_lossy().into_owned().into_bytes());
            parts.push(meta.len().to_le_bytes().to_vec());
            parts.push(nanos.to_le_bytes().to_vec());
        }
        Ok(Digest::of_parts(parts.iter().map(Vec::as_slice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_a_folder_and_a_glob_resolve_to_sorted_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        for name in ["d/b.csv", "d/a.csv", "d/.hidden.csv", "d/_SUCCESS", "d/notes.txt"] {
            std::fs::write(dir.path().join(name), "x\n1\n").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            resolve(dir.path(), pattern, None)
                .unwrap()
                .files
                .iter()
                .map(|f| f.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names("d"), ["a.csv", "b.csv"]);
        assert_eq!(names("d/*.csv"), ["a.csv", "b.csv"]);
        assert_eq!(names("d/b.csv"), ["b.csv"]);
    }

    #[test]
    fn a_missing_file_names_the_nearest_one_and_mixed_formats_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("flights.csv"), "x\n").unwrap();
        let missing = resolve(dir.path(), "flight.csv", None).unwrap_err().to_string();
        assert!(missing.contains("did you mean `flights.csv`?"), "{missing}");
        std::fs::write(dir.path().join("flights.parquet"), "x").unwrap();
        let mixed = resolve(dir.path(), "flights.*", None).unwrap_err().to_string();
        assert!(mixed.contains("a source holds one format"), "{mixed}");
    }

    #[test]
    fn the_digest_of_a_source_changes_when_a_file_arrives() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.csv"), "x\n1\n").unwrap();
        let digest = || {
            resolve(dir.path(), "*.csv", None)
                .unwrap()
                .digest(dir.path())
                .unwrap()
        };
        let before = digest();
        assert_eq!(before, digest());
        std::fs::write(dir.path().join("b.csv"), "x\n1\n").unwrap();
        assert_ne!(before, digest());
    }
}
