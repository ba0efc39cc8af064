//! The content type of a file, by its name, as MLflow tells it: what people read is `text/plain`.

/// Names that end so, or are so, are text.
const TEXT: &[&str] = &[
    "txt",
    "log",
    "err",
    "cfg",
    "conf",
    "cnf",
    "cf",
    "ini",
    "properties",
    "prop",
    "hocon",
    "toml",
    "yaml",
    "yml",
    "xml",
    "json",
    "js",
    "py",
    "py3",
    "csv",
    "tsv",
    "md",
    "rst",
    "MLmodel",
    "mlproject",
    "MLproject",
];

const TYPES: &[(&str, &str)] = &[
    ("avi", "video/x-msvideo"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("css", "text/css"),
    ("eps", "application/postscript"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("h5", "application/x-hdf5"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ipynb", "application/json"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("mjs", "text/javascript"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("ogg", "audio/ogg"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ps", "application/postscript"),
    ("sh", "application/x-sh"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("wav", "audio/x-wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xhtml", "application/xhtml+xml"),
    ("zip", "application/zip"),
];

/// The content type of a file.
pub(super) fn of(name: &str) -> &'static str {
    // A name that only begins with a dot has no extension.
    let extension = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty());
    let extension = extension.map_or(name, |(_, extension)| extension);
    if TEXT.contains(&extension) {
        return "text/plain";
    }
    let lower = extension.to_ascii_lowercase();
    TYPES
        .iter()
        .find(|(known, _)| *known == lower)
        .map_or("application/octet-stream", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn names_tell_types() {
        let table = [
            ("a.txt", "text/plain"),
            ("MLmodel", "text/plain"),
            ("mlproject", "text/plain"),
            ("conda.yaml", "text/plain"),
            ("b.pkl", "application/octet-stream"),
            ("model", "application/octet-stream"),
            (".png", "application/octet-stream"),
            ("c.PNG", "image/png"),
            ("d.pdf", "application/pdf"),
            ("page.html", "text/html"),
            ("x.svg", "image/svg+xml"),
        ];
        for (name, kind) in table {
            assert_eq!(of(name), kind, "{name}");
        }
    }
}
