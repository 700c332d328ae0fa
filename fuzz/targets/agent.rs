//! Any bytes at the sessions' socket: what decodes survives being encoded again, and is no longer than it may be.
#![no_main]

use enforcer::control::{
    agent::{AgentReply, AgentRequest, REQUEST},
    frame::{self, Buffer},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut buffer = Buffer::new(REQUEST);
    buffer.push(data);
    let mut frames = vec![data.to_vec()];
    while let Ok(Some(frame)) = buffer.take() {
        assert!(frame.len() <= REQUEST);
        frames.push(frame);
    }
    for frame in frames {
        if let Ok(request) = frame::decode::<AgentRequest>(&frame) {
            let again = frame::encode(&request, usize::MAX).expect("what was decoded can be encoded");
            let same: AgentRequest = frame::decode(&again[4..]).expect("and decoded");
            assert_eq!(request, same);
        }
        let _ = frame::decode::<AgentReply>(&frame);
    }
});
