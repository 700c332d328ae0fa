//! The view on a screen.

use super::{
    super::text::{duration, facts, line},
    question,
    view::View,
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Modifier, Style},
    widgets::{Block, List, ListItem, ListState, Paragraph, Wrap},
};

const KEYS: &str = "up/down choose   page up/down scroll   a approve once   d deny   q leave";

/// Draws everything, and notes how much of a question is on the screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, now: i64) {
    let rows = [Constraint::Percentage(35), Constraint::Min(5), Constraint::Length(1)];
    let [top, middle, bottom] = Layout::vertical(rows).areas(frame.area());

    let items: Vec<ListItem<'_>> = view
        .requests
        .iter()
        .map(|request| {
            let left = duration(request.request.deadline - now);
            let (agent, tier, act) =
                (line(&request.request.who.agent), line(&request.tier), line(&request.act));
            ListItem::new(format!("{left:>8}  {agent} ({tier})  {act}"))
        })
        .collect();
    let title = match view.problems.len() {
        0 => format!(" {} wait ", view.requests.len()),
        n => format!(" {} wait; {n} approvers' files are not used ", view.requests.len()),
    };
    let list = List::new(items)
        .block(Block::bordered().title(title))
        .highlight_symbol("> ")
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(list, top, &mut ListState::default().with_selected(view.index()));

    let selected = view.index().and_then(|index| view.requests.get(index));
    let text = selected.map_or_else(
        || "Nothing waits for a person.".to_owned(),
        |request| {
            let persons = match (request.two_persons, request.approved_by.is_empty()) {
                (false, _) => String::new(),
                (true, true) => "\nTwo persons must approve; nobody has yet.".to_owned(),
                (true, false) => {
                    format!("\nTwo persons must approve; so far: {}", line(&request.approved_by.join(", ")))
                }
            };
            format!("{}\n\n{}{persons}", line(&request.act), facts(request))
        },
    );
    let detail = Paragraph::new(text)
        .wrap(Wrap { trim: false })
        .scroll((view.scroll, 0))
        .block(Block::bordered().title(" the selected request "));
    frame.render_widget(detail, middle);
    frame.render_widget(Paragraph::new(view.message.as_deref().map_or(KEYS.to_owned(), line)), bottom);

    question::draw(frame, view);
}

#[cfg(test)]
mod tests {
    use super::super::view::{Key, tests::status};
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    fn screen(view: &mut View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(78, 28)).expect("terminal");
        terminal.draw(|frame| draw(frame, view, 1_800_000_000)).expect("draw");
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(78);
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    /// ENFORCER_WRITE_SCREENS=1 writes what is drawn; git then shows what has changed.
    fn same(name: &str, drawn: &str) {
        let path = format!("{}/tests/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("ENFORCER_WRITE_SCREENS").is_some() {
            std::fs::write(&path, drawn).expect("write");
        }
        assert_eq!(drawn, std::fs::read_to_string(&path).expect("read"), "compare with {path}");
    }

    fn view() -> View {
        let mut view = View::default();
        view.update(vec![status(1, b"/w/ledger.csv"), status(2, b"/w/\x1b[31mred\n")], Vec::new());
        view
    }

    #[test]
    fn the_screen_with_two_requests() {
        same("approvals-list", &screen(&mut view()));
    }

    #[test]
    fn the_screen_that_asks_again() {
        let mut view = view();
        view.press(Key::Approve);
        same("approvals-question", &screen(&mut view));
    }

    #[test]
    fn a_denial_and_a_message_are_shown() {
        let mut view = view();
        view.press(Key::Deny);
        assert!(screen(&mut view).contains("Deny this?"));
        view.press(Key::No);
        view.said("approved\x1b[2J".to_owned());
        assert!(screen(&mut view).contains("approved?[2J"));
    }

    #[test]
    fn nothing_that_an_agent_chose_reaches_the_terminal_as_it_is() {
        let mut view = view();
        view.press(Key::Down);
        let text = screen(&mut view);
        assert!(text.contains("\\x1b[31mred\\n"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn small_screens_do_not_matter() {
        let mut asked = view();
        asked.press(Key::Approve);
        for (width, height) in [(1, 1), (5, 3), (20, 8), (300, 5)] {
            for view in [&mut asked, &mut view(), &mut View::default()] {
                let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("terminal");
                terminal.draw(|frame| draw(frame, view, 0)).expect("draw");
            }
        }
    }
}
