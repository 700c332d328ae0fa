//! Frames: four bytes of length, most significant first, then that many bytes of JSON.

use serde::{Serialize, de::DeserializeOwned};

/// The longest frame. A longer one ends the connection.
pub const MAXIMUM: usize = 1 << 20;

/// Why a frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAXIMUM`].
    #[error("a message of {0} bytes is longer than the {MAXIMUM} that are possible")]
    TooLong(u64),
    /// Not the JSON that was expected.
    #[error("not a message of this protocol: {0}")]
    Json(#[from] serde_json::Error),
}

/// Bytes that arrived, cut into frames.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a frame has begun and not ended.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAXIMUM {
            return Err(FrameError::TooLong(length as u64));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let frame = frame.to_vec();
        self.bytes.drain(..4 + length);
        Ok(Some(frame))
    }
}

/// A message as a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|n| *n as usize <= MAXIMUM);
    let length = length.ok_or(FrameError::TooLong(json.len() as u64))?;
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
        let bytes = encode(&Request::Status).expect("encode");
        let mut buffer = Buffer::default();
        for byte in &bytes {
            assert!(buffer.next().expect("no error").is_none());
            buffer.push(&[*byte]);
        }
        let frame = buffer.next().expect("no error").expect("a frame");
        assert!(matches!(decode(&frame).expect("decode"), Request::Status));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_arrives() {
        let mut buffer = Buffer::default();
        buffer.push(&(MAXIMUM as u32 + 1).to_be_bytes());
        assert!(matches!(buffer.next(), Err(FrameError::TooLong(_))));
        assert!(matches!(encode(&"x".repeat(MAXIMUM)), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_buffer_or_the_decoder_panic(pieces: Vec<Vec<u8>>) {
            let mut buffer = Buffer::default();
            for piece in pieces {
                buffer.push(&piece);
                while let Ok(Some(frame)) = buffer.next() {
                    drop(decode::<Request>(&frame));
                    drop(decode::<Reply>(&frame));
                }
            }
        }

        #[test]
        fn frames_come_out_as_they_went_in(texts in proptest::collection::vec(".{0,40}", 0..8)) {
            let mut buffer = Buffer::default();
            for text in &texts {
                buffer.push(&encode(text).expect("encode"));
            }
            for text in &texts {
                let frame = buffer.next().expect("no error").expect("a frame");
                prop_assert_eq!(&decode::<String>(&frame).expect("decode"), text);
            }
            prop_assert!(buffer.next().expect("no error").is_none());
        }
    }
}
