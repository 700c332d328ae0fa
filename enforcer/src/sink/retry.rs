//! When to try again, and when a failure is worth a record. Pure.

use std::time::Duration;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// So many failures in a row are recorded; a single one is everyday life.
const WORTH_A_RECORD: u32 = 3;

/// How deliveries have gone.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
}

/// What is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The sink does not work.
    Failed,
    /// It works again after so many failed attempts.
    Recovered(u32),
}

impl Retry {
    /// A delivery has failed: how long to wait, spread by `jitter` (0 to 255) so that a fleet does not come
    /// back all at once.
    pub(super) fn failed(&mut self, jitter: u8) -> (Duration, Option<Note>) {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = doubled.min(LONGEST) / 2;
        let note = (self.failures == WORTH_A_RECORD).then_some(Note::Failed);
        (wait + wait * u32::from(jitter) / 255, note)
    }

    /// A delivery has succeeded.
    pub(super) fn succeeded(&mut self) -> Option<Note> {
        let failures = std::mem::take(&mut self.failures);
        (failures >= WORTH_A_RECORD).then_some(Note::Recovered(failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_are_spread() {
        let mut retry = Retry::default();
        let waits: Vec<Duration> = (0..20).map(|_| retry.failed(255).0).collect();
        assert_eq!(waits[..3], [250, 500, 1000].map(Duration::from_millis));
        assert_eq!(waits[19], LONGEST);
        assert_eq!(retry.failed(0).0, LONGEST / 2);
    }

    #[test]
    fn the_third_failure_in_a_row_is_recorded_once_and_so_is_the_recovery() {
        let mut retry = Retry::default();
        let notes: Vec<_> = (0..5).map(|_| retry.failed(0).1).collect();
        assert_eq!(notes, [None, None, Some(Note::Failed), None, None]);
        assert_eq!(retry.succeeded(), Some(Note::Recovered(5)));
        assert_eq!(retry.succeeded(), None);
        retry.failed(0);
        assert_eq!(retry.succeeded(), None);
    }
}
