//! Frames between this process and a worker: a header of fixed size, a part in JSON, and raw bytes. `python/tidemill_worker/wire.py` is
//! the other side.

use std::io;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::tensors::{DataType, Tensor, TensorData};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;

const HEADER: usize = 20;
/// An answer may describe itself in so many bytes, and
const MAX_META: u32 = 16 << 20;
/// have so many. What a worker says is not to be trusted.
const MAX_BODY: u64 = 2 << 30;
/// Frames up to this size are put together and written in one go.
const SMALL: usize = 64 << 10;
/// The length of a byte string that is missing.
const MISSING: u32 = u32::MAX;

const FLAG_TENSORS: u8 = 1;
const FLAG_STREAM: u8 = 2;

const CALL: u8 = 1;
const CANCEL: u8 = 2;

/// What a worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ready,
    Answer,
    Piece,
    End,
    Error,
}

/// A frame from a worker.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: Kind,
    pub call: u32,
    tensors: bool,
    pub meta: Bytes,
    body: Bytes,
}

/// Why a worker could not do what it was asked.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub traceback: String,
    /// What MLflow calls it, where its own exception said so.
    #[serde(default)]
    pub error_code: String,
}

type Described<'a> = (&'a str, &'a str, &'a [usize], usize);

#[derive(Serialize)]
struct CallMeta<'a> {
    #[serde(rename = "t", skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Described<'a>>,
    #[serde(rename = "c", skip_serializing_if = "str::is_empty")]
    content_type: &'a str,
    #[serde(rename = "p", skip_serializing_if = "Map::is_empty")]
    parameters: &'a Map<String, Value>,
    #[serde(rename = "o", skip_serializing_if = "<[String]>::is_empty")]
    outputs: &'a [String],
    #[serde(rename = "r", skip_serializing_if = "str::is_empty")]
    request: &'a str,
}

#[derive(Deserialize, Default)]
struct AnswerMeta {
    #[serde(rename = "t", default)]
    tensors: Vec<(String, DataType, Vec<usize>, usize)>,
    #[serde(rename = "c")]
    content_type: Option<String>,
}

fn padding(length: usize) -> usize {
    length.wrapping_neg() % 8
}

/// The pieces of a frame that asks a worker.
#[derive(Debug)]
pub(super) struct Request {
    head: BytesMut,
    parts: Vec<Bytes>,
}

impl Request {
    /// A call.
    pub fn call(id: u32, payload: &Payload, context: &CallContext, stream: bool) -> io::Result<Self> {
        let mut parts = Vec::new();
        let mut described = Vec::new();
        let mut flags = if stream { FLAG_STREAM } else { 0 };
        let mut type_of_body = "";
        match payload {
            Payload::Tensors(tensors) => {
                flags |= FLAG_TENSORS;
                for tensor in tensors {
                    let raw = match &tensor.data {
                        TensorData::Fixed(bytes) => bytes.clone(),
                        TensorData::Strings(strings) => packed(strings),
                    };
                    let length = raw.len();
                    described.push((
                        tensor.name.as_str(),
                        tensor.datatype.name(),
                        tensor.shape.as_slice(),
                        length,
                    ));
                    parts.push(raw);
                    if padding(length) > 0 {
                        parts.push(Bytes::from_static(&[0; 8]).slice(..padding(length)));
                    }
                }
            }
            Payload::Body { content_type, bytes } => {
                type_of_body = content_type;
                parts.push(bytes.clone());
            }
        }
        let meta = CallMeta {
            tensors: described,
            content_type: type_of_body,
            parameters: &context.parameters,
            outputs: &context.outputs,
            request: &context.request_id,
        };
        let meta = serde_json::to_vec(&meta)?;
        let length: usize = parts.iter().map(Bytes::len).sum();
        let mut head = header(CALL, flags, id, meta.len(), length);
        head.extend_from_slice(&meta);
        Ok(Self { head, parts })
    }

    /// The answer to a call is not wanted any more.
    pub fn cancel(id: u32) -> Self {
        Self {
            head: header(CANCEL, 0, id, 0, 0),
            parts: Vec::new(),
        }
    }

    /// Writes as much as can be written without waiting; whether that was all.
    pub fn begin(&mut self, to: &OwnedWriteHalf) -> io::Result<bool> {
        let length: usize = self.parts.iter().map(Bytes::len).sum();
        if self.head.len() + length > SMALL {
            return Ok(false);
        }
        for part in self.parts.drain(..) {
            self.head.extend_from_slice(&part);
        }
        match to.try_write(&self.head) {
            Ok(count) => {
                self.head.advance(count);
                Ok(self.head.is_empty())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes what is not written yet. Dropping this half-way leaves half a frame.
    pub async fn write(self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.head).await?;
        for part in &self.parts {
            to.write_all(part).await?;
        }
        Ok(())
    }
}

fn header(kind: u8, flags: u8, id: u32, meta: usize, body: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(HEADER + meta + if body <= SMALL { body } else { 0 });
    head.put_u8(kind);
    head.put_u8(flags);
    head.put_u16_le(0);
    head.put_u32_le(id);
    head.put_u32_le(meta as u32);
    head.put_u64_le(body as u64);
    head
}

/// Lengths first, then the strings.
fn packed(strings: &[Option<Bytes>]) -> Bytes {
    let bytes: usize = strings.iter().flatten().map(Bytes::len).sum();
    let mut raw = BytesMut::with_capacity(4 * strings.len() + bytes);
    for string in strings {
        raw.put_u32_le(string.as_ref().map_or(MISSING, |s| s.len() as u32));
    }
    for string in strings.iter().flatten() {
        raw.extend_from_slice(string);
    }
    raw.freeze()
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Frame {
    /// The next frame.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = [0_u8; HEADER];
        from.read_exact(&mut head).await?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let kind = match head[0] {
            1 => Kind::Ready,
            2 => Kind::Answer,
            3 => Kind::Piece,
            4 => Kind::End,
            5 => Kind::Error,
            other => return Err(bad(format!("a frame of the unknown kind {other}"))),
        };
        let (meta, body) = (number(8), u64::from(number(12)) | u64::from(number(16)) << 32);
        if meta > MAX_META || body > MAX_BODY {
            return Err(bad(format!(
                "an answer of {body} bytes, at most {MAX_BODY} are taken"
            )));
        }
        Ok(Self {
            kind,
            call: number(4),
            tensors: head[1] & FLAG_TENSORS != 0,
            meta: exactly(from, meta as usize).await?,
            body: exactly(from, body as usize).await?,
        })
    }

    /// Bytes that it carries.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// What it carries.
    pub fn payload(self) -> io::Result<Payload> {
        let meta: AnswerMeta = if self.meta.is_empty() {
            AnswerMeta::default()
        } else {
            serde_json::from_slice(&self.meta).map_err(|error| bad(error.to_string()))?
        };
        if !self.tensors {
            return Ok(Payload::Body {
                content_type: meta.content_type.unwrap_or_else(|| "application/json".to_owned()),
                bytes: self.body,
            });
        }
        let mut tensors = Vec::with_capacity(meta.tensors.len());
        let mut offset = 0_usize;
        for (name, datatype, shape, length) in meta.tensors {
            let end = offset.checked_add(length).filter(|end| *end <= self.body.len());
            let raw = self
                .body
                .slice(offset..end.ok_or_else(|| bad(format!("output `{name}` is cut off")))?);
            offset = (offset + length + padding(length)).min(self.body.len());
            let data = match datatype {
                DataType::Bytes => TensorData::Strings(unpacked(&raw, &shape)?),
                _ => TensorData::Fixed(raw),
            };
            let tensor = Tensor {
                name,
                datatype,
                shape,
                data,
            };
            tensor.check().map_err(|error| bad(error.to_string()))?;
            tensors.push(tensor);
        }
        Ok(Payload::Tensors(tensors))
    }
}

/// Memory is taken as bytes arrive, not as a header claims.
async fn exactly(from: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(length.min(1 << 20));
    let mut limited = from.take(length as u64);
    while bytes.len() < length {
        bytes.reserve((length - bytes.len()).min(1 << 20));
        if limited.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes.freeze())
}

fn unpacked(raw: &Bytes, shape: &[usize]) -> io::Result<Vec<Option<Bytes>>> {
    let cut = || bad("a tensor of byte strings is cut off");
    let count = tidemill_core::tensors::elements(shape).ok_or_else(cut)?;
    let lengths = raw.get(..count.checked_mul(4).ok_or_else(cut)?).ok_or_else(cut)?;
    let mut strings = Vec::with_capacity(count);
    let mut at = lengths.len();
    for chunk in lengths.as_chunks::<4>().0 {
        let length = u32::from_le_bytes(*chunk);
        if length == MISSING {
            strings.push(None);
            continue;
        }
        let end = at
            .checked_add(length as usize)
            .filter(|end| *end <= raw.len())
            .ok_or_else(cut)?;
        strings.push(Some(raw.slice(at..end)));
        at = end;
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_strings_come_back_as_they_went() {
        let strings = vec![
            Some(Bytes::from_static(b"a")),
            None,
            Some(Bytes::new()),
            Some(Bytes::from_static(b"bc")),
        ];
        assert_eq!(unpacked(&packed(&strings), &[2, 2]).unwrap(), strings);
        assert!(unpacked(&packed(&strings).slice(..17), &[4]).is_err());
        assert!(unpacked(&Bytes::new(), &[usize::MAX, 3]).is_err());
    }

    #[tokio::test]
    async fn a_frame_that_claims_more_than_is_taken_is_refused_before_memory_is() {
        let mut head = header(2, 0, 7, 0, usize::MAX);
        head[0] = 2;
        let error = Frame::read(&mut head.as_ref()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut odd: &[u8] = &[9; HEADER];
        assert_eq!(
            Frame::read(&mut odd).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
