//! Lines of values, bounded as they pass through: what reads them holds a whole line, however long it is.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::columns::MOST_COLUMNS;

/// So many bytes a line has at most.
const LONGEST_LINE: usize = 64 << 20;

/// A reader that ends at a line with too many bytes or values.
pub struct Lines<R> {
    inner: R,
    separator: u8,
    in_quotes: bool,
    values: usize,
    length: usize,
    longest: Rc<Cell<usize>>,
}

impl<R: Read> Lines<R> {
    /// From the beginning; the longest line is written down in the last.
    pub fn new(inner: R, separator: u8, longest: Rc<Cell<usize>>) -> Self {
        Self {
            inner,
            separator,
            in_quotes: false,
            values: 1,
            length: 0,
            longest,
        }
    }

    fn end_of_line(&mut self) {
        self.longest.set(self.longest.get().max(self.length));
        (self.values, self.length) = (1, 0);
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        for byte in &into[..read] {
            self.length += 1;
            match *byte {
                b'"' => self.in_quotes = !self.in_quotes,
                b'\n' | b'\r' if !self.in_quotes => self.end_of_line(),
                byte if byte == self.separator && !self.in_quotes => self.values += 1,
                _ => {}
            }
            if self.values > MOST_COLUMNS {
                return Err(io::Error::other(format!(
                    "a line has more than {MOST_COLUMNS} values: a table has at most {MOST_COLUMNS} columns here"
                )));
            }
            if self.length > LONGEST_LINE {
                return Err(io::Error::other(format!(
                    "a line is longer than {} MB",
                    LONGEST_LINE >> 20
                )));
            }
        }
        if read == 0 {
            self.end_of_line();
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, String> {
        let longest = Rc::default();
        let mut lines = Lines::new(text.as_bytes(), b',', Rc::clone(&longest));
        io::copy(&mut lines, &mut io::sink()).map_err(|e| e.to_string())?;
        Ok(longest.get())
    }

    #[test]
    fn lines_are_bounded_and_the_longest_is_known() {
        assert_eq!(read("a,b\n1,\"x\n,y\"\n3,4"), Ok(9));
        assert!(
            read(&",".repeat(5_000))
                .unwrap_err()
                .contains("more than 4096 values")
        );
        let long = format!("a\n\"{}\"", "x\n".repeat(LONGEST_LINE / 2));
        assert!(read(&long).unwrap_err().contains("longer than 64 MB"));
    }
}
