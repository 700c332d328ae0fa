//! Any bytes on the control socket, in any pieces: the same frames or the same error, and requests that
//! decode survive being encoded again.
#![no_main]

use enforcer::control::{
    frame::{self, Buffer, REQUEST},
    message::{Reply, Request},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = frames(&[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*size).max(1)).collect();
    assert_eq!(whole, frames(&pieces));
    for frame in whole.iter().chain([&bytes.to_vec()]) {
        if let Ok(request) = frame::decode::<Request>(frame) {
            let again = frame::encode(&request, usize::MAX).expect("what was decoded can be encoded");
            let same: Request = frame::decode(&again[4..]).expect("and decoded");
            assert_eq!(format!("{request:?}"), format!("{same:?}"));
        }
        let _ = frame::decode::<Reply>(frame);
    }
});

fn frames(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut buffer = Buffer::new(REQUEST);
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.push(piece);
        loop {
            match buffer.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                // The connection ends here.
                Err(_) => return frames,
            }
        }
    }
    frames
}
