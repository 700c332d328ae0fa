//! What full-screen commands share: whether there is a terminal, its keys, and its errors.

use super::{Failure, exit::Exit};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::{
    io::{self, IsTerminal, stdin, stdout},
    time::Duration,
};

/// Refuses to begin without a terminal on both sides.
pub(super) fn needs_terminal(command: &str, remedy: &str) -> Result<(), Failure> {
    match stdin().is_terminal() && stdout().is_terminal() {
        true => Ok(()),
        false => Err(Failure::new(Exit::Usage, format!("{command} needs a terminal"), remedy)),
    }
}

/// A terminal that failed.
pub(super) fn broken(error: &io::Error) -> Failure {
    Failure::new(Exit::CannotWrite, format!("the terminal: {error}"), "")
}

/// The next key that is pressed; `None`: nothing happened for that long, or something else did.
pub(super) fn key(patience: Duration) -> Result<Option<KeyEvent>, Failure> {
    if !event::poll(patience).map_err(|e| broken(&e))? {
        return Ok(None);
    }
    Ok(match event::read().map_err(|e| broken(&e))? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(key),
        _ => None,
    })
}

/// What a key means; `None`: leave.
pub(super) fn meaning(key: KeyEvent) -> Option<KeyCode> {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => None,
        KeyCode::Char('q') => None,
        code => Some(code),
    }
}
