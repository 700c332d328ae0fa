//! The arguments of executed programs: the kernel hands them over in pieces, right behind the record of the
//! execution. Pure; times are boot time in nanoseconds.

use crate::event::{decode::Event, json::put_arguments};
use serde_json::Value;
use std::collections::BTreeMap;

/// How long a piece is waited for. The kernel makes all of them before the program runs.
const PATIENCE: u64 = 1_000_000_000;

/// Executions whose arguments are not complete.
#[derive(Debug, Default)]
pub(super) struct Commands {
    // In order of process, which is also the order in which overdue ones are recorded.
    waiting: BTreeMap<u32, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    record: Value,
    bytes: Vec<u8>,
    /// How many there were in all.
    total: usize,
    since: u64,
}

impl Waiting {
    fn finish(mut self) -> Value {
        put_arguments(&mut self.record, &self.bytes, self.total);
        self.record
    }
}

impl Commands {
    /// A program was executed: its record, if all arguments are there, and that of an earlier one of the same process
    /// that waited in vain.
    pub(super) fn begin(&mut self, event: &Event<'_>, record: Value) -> Vec<Value> {
        let (bytes, total) = (event.target.to_vec(), event.header.argument as usize);
        let since = event.header.time;
        let mut out: Vec<Value> =
            self.waiting.remove(&event.header.tgid).map(Waiting::finish).into_iter().collect();
        let waiting = Waiting { record, bytes, total, since };
        // If even the first piece could not be read, none follows that could.
        if waiting.bytes.len() >= total || waiting.bytes.is_empty() {
            out.push(waiting.finish());
        } else {
            self.waiting.insert(event.header.tgid, waiting);
        }
        out
    }

    /// More arguments: the record, if they are the last; else `Err` if they are nobody's.
    pub(super) fn more(&mut self, event: &Event<'_>) -> Result<Option<Value>, ()> {
        let process = event.header.tgid;
        let waiting = self.waiting.get_mut(&process).ok_or(())?;
        // After a gap nothing fits any more; how much is missing is said.
        if waiting.bytes.len() == event.header.argument as usize {
            waiting.bytes.extend_from_slice(event.target);
        }
        let complete = waiting.bytes.len() >= waiting.total;
        Ok(if complete { self.waiting.remove(&process).map(Waiting::finish) } else { None })
    }

    /// The records of executions of which nothing more will come.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<Value> {
        let late: Vec<u32> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| now.saturating_sub(waiting.since) >= PATIENCE)
            .map(|(process, _)| *process)
            .collect();
        late.iter().filter_map(|process| self.waiting.remove(process)).map(Waiting::finish).collect()
    }

    /// All that wait.
    pub(super) fn all(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.waiting).into_values().map(Waiting::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode::tests::record;
    use enforcer_common::event::{ARGUMENTS_FIRST, ARGUMENTS_MORE, kind};
    use serde_json::json;

    /// The records that the kernel makes of these arguments.
    fn pieces(process: u32, time: u64, arguments: &[u8]) -> Vec<Vec<u8>> {
        let (first, rest) = arguments.split_at(arguments.len().min(ARGUMENTS_FIRST));
        let total = arguments.len() as u32;
        // Without an object, the second name comes first behind the header.
        let piece = |of: u16, at: u32, bytes: &[u8]| {
            record(bytes, b"", |h| {
                (h.kind, h.tgid, h.time, h.argument) = (of, process, time, at);
                (h.object_len, h.target_len, h.verdict, h.reason) = (0, bytes.len() as u16, 0, 0);
            })
        };
        let mut out = vec![piece(kind::EXECUTED, total, first)];
        for (n, bytes) in rest.chunks(ARGUMENTS_MORE).enumerate() {
            out.push(piece(kind::ARGUMENTS, (ARGUMENTS_FIRST + n * ARGUMENTS_MORE) as u32, bytes));
        }
        out
    }

    fn feed(commands: &mut Commands, bytes: &[u8]) -> Vec<Value> {
        let event = Event::try_from(bytes).expect("a record");
        if event.header.kind == kind::EXECUTED {
            return commands.begin(&event, json!({"kind": "executed"}));
        }
        commands.more(&event).ok().flatten().into_iter().collect()
    }

    #[test]
    fn a_short_command_is_complete_at_once() {
        let mut commands = Commands::default();
        let [one] = &pieces(1, 0, b"git\0push\0")[..] else { panic!("one piece") };
        assert_eq!(feed(&mut commands, one), [json!({"kind": "executed", "argv": ["git", "push"]})]);
    }

    #[test]
    fn a_command_of_128_kib_is_put_together_byte_by_byte() {
        let mut argument = vec![b'a'; (128 << 10) - 8];
        argument[5] = b'\n';
        argument[70_000] = 0xff;
        let all = [b"prog\0", &argument[..], b"\0"].concat();
        let mut commands = Commands::default();
        let mut out = Vec::new();
        for piece in pieces(1, 0, &all) {
            assert!(out.is_empty());
            out = feed(&mut commands, &piece);
        }
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let bytes = BASE64_STANDARD.decode(out[0]["argv_b64"].as_str().expect("text")).expect("base64");
        assert!(bytes == all && out[0].get("argv_missing").is_none());
        assert!(!out[0]["argv"][1].as_str().expect("text").contains('\n'));
    }

    #[test]
    fn what_is_missing_is_said_and_nothing_of_another_program_is_taken_for_it() {
        let all = [&[b'x'; 20_000][..], b"\0"].concat();
        let of = pieces(1, 0, &all);
        let mut commands = Commands::default();
        for piece in [&of[0], &of[1], &of[3], &of[4]] {
            assert!(feed(&mut commands, piece).is_empty());
        }
        assert!(commands.overdue(PATIENCE - 1).is_empty());
        let late = commands.overdue(PATIENCE);
        assert_eq!(late[0]["argv_missing"], json!(20_001 - ARGUMENTS_FIRST - ARGUMENTS_MORE));
        // Pieces of a program whose first record was lost are nobody's.
        let event = Event::try_from(&of[1][..]).expect("a record");
        assert_eq!(commands.more(&event), Err(()));
        // The same process executes something else before the rest has come.
        feed(&mut commands, &of[0]);
        let both = feed(&mut commands, &pieces(1, 5, b"b\0")[0]);
        assert_eq!(both.len(), 2);
        assert_eq!(both[1]["argv"], json!(["b"]));
    }

    #[test]
    fn more_than_128_kib_is_cut_and_said() {
        let all = vec![b'y'; 200_000];
        let mut commands = Commands::default();
        for piece in pieces(1, 0, &all).iter().take(1 + enforcer_common::event::ARGUMENTS_ROUNDS) {
            assert!(feed(&mut commands, piece).is_empty());
        }
        let cut = commands.all();
        let kept = ARGUMENTS_FIRST + ARGUMENTS_MORE * enforcer_common::event::ARGUMENTS_ROUNDS;
        assert_eq!(cut[0]["argv_missing"], json!(200_000 - kept));
    }
}
