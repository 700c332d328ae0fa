//! `system_calls` → [`Actions`].

use super::{
    check::Checker,
    decode::{self, At},
    draft::SystemCallsDraft,
};
use enforcer_common::calls::{Actions, CALLS};

impl Checker<'_> {
    pub(super) fn calls(&mut self, draft: &SystemCallsDraft) -> Actions {
        let SystemCallsDraft { ignore, stop, kill } = draft;
        let mut taken = 0;
        let mut bits = |named: &Option<Vec<At<String>>>| {
            named.iter().flatten().fold(0, |bits, text| bits | self.call(text, &mut taken).unwrap_or(0))
        };
        Actions { ignored: bits(ignore), stopped: bits(stop), killed: bits(kill) }
    }

    fn call(&mut self, text: &At<String>, taken: &mut u64) -> Option<u64> {
        let Some(place) = CALLS.iter().position(|call| call.name == text.value) else {
            let names: Vec<&str> = CALLS.iter().map(|call| call.name).collect();
            self.problem(
                text.at,
                format!("`{}` is none of the system calls that are recorded", text.value),
                format!("these are {}", decode::list(&names)),
            );
            return None;
        };
        let bit = 1 << place;
        if *taken & bit != 0 {
            self.problem(
                text.at,
                format!("`{}` is named twice", text.value),
                "name a call under one of `ignore`, `stop` and `kill`; what is stopped or killed is recorded too",
            );
            return None;
        }
        *taken |= bit;
        Some(bit)
    }
}

/// What is said of system calls, in the words of policies.
pub(super) fn text(actions: Actions) -> String {
    let Actions { ignored, stopped, killed } = actions;
    let part = |(word, bits): (&str, u64)| {
        let names: Vec<&str> = names(bits).collect();
        (!names.is_empty()).then(|| format!("{word}: {}", names.join(", ")))
    };
    let parts: Vec<String> =
        [("ignore", ignored), ("stop", stopped), ("kill", killed)].into_iter().filter_map(part).collect();
    if parts.is_empty() { "all recorded".to_owned() } else { parts.join("; ") }
}

/// The names of calls, in the order of the list.
pub(super) fn names(bits: u64) -> impl Iterator<Item = &'static str> {
    CALLS.iter().enumerate().filter(move |(place, _)| bits >> place & 1 != 0).map(|(_, call)| call.name)
}
