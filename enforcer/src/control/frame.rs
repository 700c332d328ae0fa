//! Frames: four bytes of length, most significant first, then that many bytes of JSON.

use serde::{Serialize, de::DeserializeOwned};

/// The longest request. A longer one ends the connection.
pub const REQUEST: usize = 1 << 20;
/// The longest reply: the list of all agents that a host can have.
pub const REPLY: usize = 1 << 26;

/// Bytes of the length in front.
pub const HEAD: usize = 4;

/// Why a frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than it may be.
    #[error("a message of {length} bytes is longer than the {limit} that are possible")]
    TooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Not the JSON that was expected.
    #[error("not a message of this protocol: {0}")]
    Json(#[from] serde_json::Error),
}

/// Bytes that arrived, cut into frames.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl Buffer {
    /// An empty buffer for frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a frame has begun and not ended.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole frame.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > self.limit {
            return Err(FrameError::TooLong { length, limit: self.limit });
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let frame = frame.to_vec();
        self.bytes.drain(..HEAD + length);
        Ok(Some(frame))
    }
}

/// A message as a frame of at most `limit` bytes.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|n| *n as usize <= limit);
    let length = length.ok_or(FrameError::TooLong { length: json.len(), limit })?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

/// The message in a frame.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(frame)?)
}

#[cfg(test)]
mod tests {
    use super::super::message::{Reply, Request};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_survives_the_way_in_any_pieces() {
        let bytes = encode(&Request::Status, REQUEST).expect("encode");
        let mut buffer = Buffer::new(REQUEST);
        for byte in &bytes {
            assert!(buffer.take().expect("no error").is_none());
            buffer.push(&[*byte]);
        }
        let frame = buffer.take().expect("no error").expect("a frame");
        assert!(matches!(decode(&frame).expect("decode"), Request::Status));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_arrives() {
        let mut buffer = Buffer::new(REQUEST);
        buffer.push(&(REQUEST as u32 + 1).to_be_bytes());
        assert!(matches!(buffer.take(), Err(FrameError::TooLong { .. })));
        assert!(matches!(encode(&"x".repeat(REQUEST), REQUEST), Err(FrameError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_buffer_or_the_decoder_panic(pieces: Vec<Vec<u8>>) {
            let mut buffer = Buffer::new(REQUEST);
            for piece in pieces {
                buffer.push(&piece);
                while let Ok(Some(frame)) = buffer.take() {
                    drop(decode::<Request>(&frame));
                    drop(decode::<Reply>(&frame));
                }
            }
        }

        #[test]
        fn frames_come_out_as_they_went_in(texts in proptest::collection::vec(".{0,40}", 0..8)) {
            let mut buffer = Buffer::new(REQUEST);
            for text in &texts {
                buffer.push(&encode(text, REQUEST).expect("encode"));
            }
            for text in &texts {
                let frame = buffer.take().expect("no error").expect("a frame");
                prop_assert_eq!(&decode::<String>(&frame).expect("decode"), text);
            }
            prop_assert!(buffer.take().expect("no error").is_none());
        }
    }
}
