//! W&B's log of records: LevelDB's log format with another checksum, after a header of seven bytes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Blocks begin at multiples of this.
const BLOCK: u64 = 32 * 1024;
/// Checksum, length, kind.
const RECORD_HEADER: u64 = 7;
/// `:W&B`, 0xBEE1 and the version.
const FILE_HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Reads records from a log, one after the other.
pub struct Log {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
}

impl Log {
    /// Opens a log.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut log = Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(256 * 1024, file),
            at: 0,
        };
        let mut header = [0; 7];
        if !log.fill(&mut header)? || header[..6] != FILE_HEADER[..6] {
            bail!("{} is no W&B log: it does not begin with `:W&B`", path.display());
        }
        if header[6] != FILE_HEADER[6] {
            bail!(
                "{} is a W&B log of version {}, expected 0",
                path.display(),
                header[6]
            );
        }
        Ok(log)
    }

    /// The next record; `None` at the end. A log whose writer was killed may end within a record: that one is not there.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut record = Vec::new();
        let mut begun = false;
        loop {
            let left = BLOCK - self.at % BLOCK;
            if left < RECORD_HEADER {
                let mut padding = vec![0; usize::try_from(left)?];
                if !self.fill(&mut padding)? {
                    return Ok(None);
                }
            }
            let began_at = self.at;
            let mut header = [0; 7];
            if !self.fill(&mut header)? {
                return Ok(None);
            }
            let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            let length = u16::from_le_bytes([header[4], header[5]]);
            let kind = header[6];
            let mut part = vec![0; usize::from(length)];
            if !self.fill(&mut part)? {
                return Ok(None);
            }
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&[kind]);
            hasher.update(&part);
            if hasher.finalize() != checksum {
                bail!(
                    "{}: the record at byte {began_at} is damaged",
                    self.path.display()
                );
            }
            match (kind, begun) {
                (FULL, false) => return Ok(Some(part)),
                (FIRST, false) | (MIDDLE, true) => record.extend(part),
                (LAST, true) => {
                    record.extend(part);
                    return Ok(Some(record));
                }
                _ => bail!(
                    "{}: the record at byte {began_at} has kind {kind}, which does not belong there",
                    self.path.display()
                ),
            }
            begun = true;
        }
    }

    /// Fills `buffer`; `false` if the file ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match self.file.read_exact(buffer) {
            Ok(()) => {
                self.at += buffer.len() as u64;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn part(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[kind]);
        hasher.update(data);
        let mut out = hasher.finalize().to_le_bytes().to_vec();
        out.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
        out.push(kind);
        out.extend(data);
        out
    }

    fn log(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn records_are_put_together_across_blocks_and_a_torn_end_is_no_record() {
        let mut bytes = FILE_HEADER.to_vec();
        bytes.extend(part(FULL, b"one"));
        // The next begins in this block and ends in the third.
        let room = usize::try_from(BLOCK).unwrap() - bytes.len() - 7;
        bytes.extend(part(FIRST, &vec![1; room]));
        bytes.extend(part(MIDDLE, &vec![2; 32 * 1024 - 7]));
        bytes.extend(part(LAST, b"end"));
        let fill = 3 * 32 * 1024 - bytes.len() - 7 - 3;
        bytes.extend(part(FULL, &vec![7; fill]));
        bytes.extend([0; 3]);
        bytes.extend(part(FULL, b"after the padding"));
        let whole = bytes.len();
        bytes.extend(&part(FULL, b"torn")[..9]);
        let file = log(&bytes);
        let mut log = Log::open(file.path()).unwrap();
        assert_eq!(log.next().unwrap().unwrap(), b"one");
        assert_eq!(log.next().unwrap().unwrap().len(), room + 32 * 1024 - 7 + 3);
        assert_eq!(log.next().unwrap().unwrap().len(), fill);
        assert_eq!(log.next().unwrap().unwrap(), b"after the padding");
        assert_eq!(log.next().unwrap(), None);
        assert!(whole > 3 * 32 * 1024);
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let mut bytes = FILE_HEADER.to_vec();
        bytes.extend(part(FULL, b"one"));
        let at = bytes.len();
        bytes.extend(part(FULL, b"two"));
        *bytes.last_mut().unwrap() ^= 1;
        let file = log(&bytes);
        let mut log = Log::open(file.path()).unwrap();
        assert!(log.next().unwrap().is_some());
        let error = log.next().unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("the record at byte {at} is damaged")),
            "{error}"
        );
        assert!(Log::open(self::log(b"hello").path()).is_err());
    }
}
