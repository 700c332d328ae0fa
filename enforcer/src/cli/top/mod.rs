//! `enforcer top`: what agents do now. The terminal around the view.

mod draw;
mod model;
#[cfg(test)]
mod tests;

use super::{Failure, Output, exit::Exit, json_text, print, screen, unexpected};
use crate::control::{
    client::Client,
    message::{Reply, Request},
};
use clap::Args;
use model::{Look, View};
use ratatui::{
    Frame,
    crossterm::event::KeyCode,
    style::Style,
    text::{Line, Text},
    widgets::Paragraph,
};
use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// How it is shown.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Print one frame as text and end; with --output json as JSON.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks at the daemon.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    interval: u16,
}

/// Shows it until the user leaves, or once.
pub(super) fn run(client: &mut Client, args: &TopArgs, output: Output) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let pause = Duration::from_secs(args.interval.into());
    if args.once || output == Output::Json {
        let before = look(client, begun)?;
        thread::sleep(pause);
        let view = View::of(Some(&before), &look(client, begun)?);
        return print(&match output {
            Output::Json => json_text(&view),
            Output::Human => draw::lines(&view).join("\n") + "\n",
        });
    }
    screen::needs_terminal("top", "enforcer top --once works without one")?;
    let mut terminal = ratatui::init();
    let result = watch(&mut terminal, client, pause, begun);
    ratatui::restore();
    result.map(|()| Exit::Ok.into())
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    client: &mut Client,
    pause: Duration,
    begun: Instant,
) -> Result<(), Failure> {
    let (mut before, mut scroll): (Option<Look>, u16) = (None, 0);
    loop {
        let now = look(client, begun)?;
        let view = View::of(before.as_ref(), &now);
        let due = Instant::now() + pause;
        loop {
            let most = u16::try_from(draw::lines(&view).len()).unwrap_or(u16::MAX).saturating_sub(1);
            scroll = scroll.min(most);
            terminal.draw(|frame| show(frame, &view, scroll)).map_err(|e| screen::broken(&e))?;
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match screen::key(left)?.map(screen::meaning) {
                Some(None) => return Ok(()),
                Some(Some(KeyCode::Down | KeyCode::Char('j'))) => scroll = scroll.saturating_add(1),
                Some(Some(KeyCode::Up | KeyCode::Char('k'))) => scroll = scroll.saturating_sub(1),
                _ => {}
            }
        }
        before = Some(now);
    }
}

fn show(frame: &mut Frame<'_>, view: &View, scroll: u16) {
    let mut lines: Vec<Line<'_>> = draw::lines(view).into_iter().map(Line::from).collect();
    if let Some(first) = lines.first_mut() {
        *first = first.clone().style(Style::new().fg(draw::colour(view.state)));
    }
    frame.render_widget(Paragraph::new(Text::from(lines)).scroll((scroll, 0)), frame.area());
}

fn look(client: &mut Client, begun: Instant) -> Result<Look, Failure> {
    let status = match client.ask(&Request::Status)? {
        Reply::Status(status) => *status,
        other => return Err(unexpected(&other)),
    };
    let agents = match client.ask(&Request::Agents)? {
        Reply::Agents { agents } => agents,
        other => return Err(unexpected(&other)),
    };
    let waiting = match client.ask(&Request::Approvals)? {
        Reply::Approvals { requests, .. } => {
            let pending = requests.into_iter().filter(|one| one.state == "pending");
            pending.map(|one| one.request.who.agent).collect()
        }
        other => return Err(unexpected(&other)),
    };
    Ok(Look { at: begun.elapsed().as_secs_f64(), status, agents, waiting })
}
