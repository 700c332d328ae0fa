//! `enforcer approvals watch`: the terminal around the view.

mod draw;
mod question;
mod view;

use super::{Signer, Terms, decide, fetch};
use crate::{
    cli::{
        exit::{Exit, Failure},
        screen,
    },
    control::client::Client,
};
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use view::{Key, View, Wish};

/// How often the daemon is asked.
const REFRESH: Duration = Duration::from_millis(500);

/// Shows what waits until the user leaves.
pub(super) fn run(client: &mut Client, signer: &Signer) -> Result<ExitCode, Failure> {
    screen::needs_terminal("watch", "enforcer approvals list and approve work without one")?;
    let mut view = View::default();
    let mut terminal = ratatui::init();
    let result = watch(&mut terminal, &mut view, client, signer);
    ratatui::restore();
    result.map(|()| Exit::Ok.into())
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    view: &mut View,
    client: &mut Client,
    signer: &Signer,
) -> Result<(), Failure> {
    let mut asked: Option<Instant> = None;
    loop {
        if asked.is_none_or(|at| at.elapsed() >= REFRESH) {
            let (requests, problems) = fetch(client)?;
            view.update(requests, problems);
            asked = Some(Instant::now());
        }
        let now = decide::now();
        terminal.draw(|frame| draw::draw(frame, view, now)).map_err(|e| screen::broken(&e))?;
        let Some(key) = screen::key(REFRESH)?.and_then(meaning) else { continue };
        match view.press(key) {
            None => {}
            Some(Wish::Leave) => return Ok(()),
            Some(Wish::Decide { digest, deny }) => {
                let terms = Terms { valid: 60, ..Terms::default() };
                // ssh-keygen may ask for a passphrase or a touch.
                if signer.key.is_some() {
                    ratatui::restore();
                }
                let outcome = match view.request(&digest) {
                    None => Err(Failure::new(Exit::NotApproved, "it does not wait any more", "")),
                    Some(request) => {
                        let verdict = decide::verdict(&terms, deny);
                        decide::statement(&[request], verdict, &terms, signer.approver.as_deref())
                            .and_then(|statement| decide::send(client, statement, signer))
                    }
                };
                if signer.key.is_some() {
                    *terminal = ratatui::init();
                }
                view.said(match outcome {
                    Ok(decisions) => decisions
                        .iter()
                        .map(|d| decide::words(&d.outcome).to_owned())
                        .collect::<Vec<_>>()
                        .join(", "),
                    // The connection stays; only this decision does not count.
                    Err(failure) if failure.exit != Exit::Unavailable => {
                        format!("{}; {}", failure.message, failure.remedy)
                    }
                    Err(failure) => return Err(failure),
                });
                asked = None;
            }
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    let Some(code) = screen::meaning(key) else { return Some(Key::Leave) };
    Some(match code {
        KeyCode::Char('a') => Key::Approve,
        KeyCode::Char('d') => Key::Deny,
        KeyCode::Char('y') => Key::Yes,
        KeyCode::Char('n') | KeyCode::Esc => Key::No,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::ScrollUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Key::ScrollDown,
        _ => return None,
    })
}
