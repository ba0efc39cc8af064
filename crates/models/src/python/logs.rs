//! What Python processes print: into this process's log under the deployment's name, bounded, with the last lines kept for errors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::clock::Stopwatch;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Lines kept for an error's message.
const TAIL: usize = 30;
/// A line is cut after so many bytes.
const LINE: usize = 4_096;
/// So many lines a second go into the log; what is more is counted.
const LINES_A_SECOND: u32 = 200;

/// The last lines of a process.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines as one text.
    pub fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

/// Reads until the other side closes. Reading goes on whatever is printed, so that printing never holds up an answer.
pub(super) async fn follow(mut from: impl AsyncRead + Unpin, name: Arc<str>, tail: Tail) {
    let mut buffer = vec![0_u8; 16_384];
    let mut line: Vec<u8> = Vec::new();
    let mut second = Stopwatch::start();
    let (mut lines, mut dropped) = (0_u32, 0_u64);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        for piece in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            line.extend_from_slice(&text[..text.len().min(LINE - line.len().min(LINE))]);
            if !whole {
                continue;
            }
            let said = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if second.elapsed().as_secs() >= 1 {
                if dropped > 0 {
                    tracing::warn!(deployment = %name, lines = dropped, "the worker printed more than is kept");
                }
                (second, lines, dropped) = (Stopwatch::start(), 0, 0);
            }
            if lines < LINES_A_SECOND {
                lines += 1;
                tracing::info!(target: "tidemill::worker", deployment = %name, "{said}");
            } else {
                dropped += 1;
            }
            tail.push(said);
        }
    }
    if !line.is_empty() {
        let said = String::from_utf8_lossy(&line).into_owned();
        tracing::info!(target: "tidemill::worker", deployment = %name, "{said}");
        tail.push(said);
    }
    if dropped > 0 {
        tracing::warn!(deployment = %name, lines = dropped, "the worker printed more than is kept");
    }
}
