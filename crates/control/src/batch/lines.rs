//! The lines of a file, wherever it is, in memory that does not grow with it.

use bytes::{Bytes, BytesMut};
use tidemill_store::objects::Outgoing;

use super::error::{BatchError, Result};

/// The lines of a file; empty ones are passed over.
pub(super) struct Lines {
    file: Outgoing,
    buffer: BytesMut,
    /// How far the buffer has been looked through.
    seen: usize,
    number: u64,
    ended: bool,
    longest: usize,
}

/// A line, and its number from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub number: u64,
    pub text: Bytes,
}

impl Lines {
    /// The lines of a file, none of which may be longer than `longest` bytes.
    pub fn of(file: Outgoing, longest: usize) -> Self {
        Self {
            file,
            buffer: BytesMut::new(),
            seen: 0,
            number: 0,
            ended: false,
            longest,
        }
    }

    /// The next line that is not empty, without its end; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let end = self.buffer[self.seen..].iter().position(|&byte| byte == b'\n');
            let taken = match end {
                Some(at) => self.buffer.split_to(self.seen + at + 1),
                None if self.ended && self.buffer.is_empty() => return Ok(None),
                None if self.ended => self.buffer.split(),
                None => {
                    self.seen = self.buffer.len();
                    if self.seen > self.longest {
                        return Err(self.too_long());
                    }
                    match self.file.next().await? {
                        Some(piece) => self.buffer.extend_from_slice(&piece),
                        None => self.ended = true,
                    }
                    continue;
                }
            };
            self.seen = 0;
            self.number += 1;
            let mut text = taken.freeze();
            while matches!(text.last(), Some(b'\n' | b'\r')) {
                text.truncate(text.len() - 1);
            }
            if text.len() > self.longest {
                self.number -= 1;
                return Err(self.too_long());
            }
            if !text.is_empty() {
                let number = self.number;
                return Ok(Some(Line { number, text }));
            }
        }
    }

    fn too_long(&self) -> BatchError {
        let line = self.number + 1;
        BatchError::bad_input(format!(
            "line {line} is longer than {} bytes, which is all that one request takes",
            self.longest
        ))
        .at("row", line)
    }
}

#[cfg(test)]
mod tests {
    use tidemill_store::objects::Folder;

    use super::*;

    async fn lines(text: &str, longest: usize) -> Result<Vec<(u64, String)>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), text).unwrap();
        let file = Folder::at(dir.path()).open("x").await.unwrap().unwrap();
        let mut lines = Lines::of(file, longest);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await? {
            found.push((line.number, String::from_utf8(line.text.to_vec()).unwrap()));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn lines_keep_their_numbers_and_empty_ones_are_passed_over() {
        let found = lines("a\r\n\nb\nc", 10).await.unwrap();
        assert_eq!(
            found,
            [(1, "a".to_owned()), (3, "b".to_owned()), (4, "c".to_owned())]
        );
        assert!(lines("", 10).await.unwrap().is_empty());
        assert!(lines("\n\n", 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_named() {
        for text in ["a\nbbbbbb\nc", "a\nbbbbbb"] {
            let error = lines(text, 5).await.unwrap_err();
            assert_eq!(error.place["row"], 2, "{error}");
        }
        let megabytes = "x".repeat(3 << 20);
        assert_eq!(lines(&megabytes, 4 << 20).await.unwrap()[0].1.len(), 3 << 20);
    }
}
