//! The box that asks before a decision: its text is never cut. What does not fit is shown in parts, and nothing is
//! approved before the last one was on the screen.

use super::{super::text::line, view::View};
use ratatui::{
    Frame,
    layout::{Constraint, Flex, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Block, Clear, Paragraph},
};

/// On narrower screens the box is as wide as they are.
const NARROW: u16 = 60;
/// Border, question and keys.
const AROUND: u16 = 4;

/// Draws it over the view, if there is a question.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let Some(mut question) = view.question.take() else { return };
    let Some(request) = view.request(&question.digest) else { return };
    let (ask, what) = match question.deny {
        true => (
            "Deny this?",
            format!("{} is refused to {}.", line(&request.act), line(&request.request.who.agent)),
        ),
        false => ("Approve this once?", line(&request.allows)),
    };
    let screen = frame.area();
    let width = if screen.width < NARROW { screen.width } else { screen.width / 5 * 4 };
    let most = screen.height.saturating_sub(AROUND);
    let rest = what.get(question.from..).filter(|rest| !rest.is_empty()).unwrap_or(&what);
    question.from = what.len() - rest.len();
    let (mut rows, taken) = wrapped(rest, width.saturating_sub(2), most);
    question.shown(question.from + taken, what.len());

    // Empty lines around the text where there is room for them.
    let airy = rows.len() + 2 <= usize::from(most);
    if airy {
        rows.insert(0, "");
        rows.push("");
    }
    let height = AROUND.saturating_add(u16::try_from(rows.len()).unwrap_or(most));
    let [area] = Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(screen);
    let [area] = Layout::horizontal([Constraint::Length(width)]).flex(Flex::Center).areas(area);
    let mut block = Block::bordered();
    if taken < what.len() {
        block = block.title_bottom(format!(" to {} of {} ", question.from + taken, what.len()));
    }
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(inner);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(Line::from(ask).style(bold)), top);
    frame.render_widget(Paragraph::new(Text::from_iter(rows.into_iter().map(Line::from))), middle);
    keys(frame, inner, bottom, question.read || question.deny);
    view.question = Some(question);
}

/// The keys, which stay on the screen whatever else does not. Where there is one line for all, they have it.
fn keys(frame: &mut Frame<'_>, inner: Rect, bottom: Rect, may: bool) {
    let (long, short) = match may {
        true => ("y: yes, this   any other key: no", "y: yes  other: no"),
        false => ("space: more, then y or no   any other key: no", "space: more  n: no"),
    };
    let keys = if usize::from(inner.width) < long.len() { short } else { long };
    let at = if bottom.is_empty() { frame.area().rows().next_back().unwrap_or_default() } else { bottom };
    frame.render_widget(Paragraph::new(keys), at);
}

/// As much of a text as fits so many lines of this width, and how many bytes that is. Lines end behind a blank where
/// one is near, else anywhere: nothing is left out.
fn wrapped(text: &str, width: u16, lines: u16) -> (Vec<&str>, usize) {
    let (mut out, mut start) = (Vec::new(), 0);
    while start < text.len() && out.len() < usize::from(lines) {
        let rest = &text[start..];
        let fits = fitting(rest, usize::from(width));
        let end = match rest[..fits].rfind(' ').map(|blank| blank + 1) {
            _ if fits == rest.len() => fits,
            Some(end) if end > fits / 2 => end,
            _ => fits,
        };
        // Not even one character has room: then it is not shown, and does not count as such.
        if end == 0 {
            break;
        }
        out.push(&rest[..end]);
        start += end;
    }
    (out, start)
}

/// How many bytes of a text fit this width.
fn fitting(text: &str, width: usize) -> usize {
    let mut used = 0;
    let too_wide = |(_, c): &(usize, char)| {
        used += Span::raw(c.to_string()).width();
        used > width
    };
    text.char_indices().find(too_wide).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::super::{
        draw::draw,
        view::{Key, View, Wish, tests::status},
    };
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    const SIZES: [(u16, u16); 4] = [(20, 8), (40, 10), (80, 24), (78, 28)];

    /// The lines of a screen.
    fn screen(view: &mut View, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("terminal");
        terminal.draw(|frame| draw(frame, view, 1_800_000_000)).expect("draw");
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>()).collect()
    }

    /// What stands within the box, but for the question and the keys.
    fn inside(lines: &[String]) -> String {
        let ask = lines.iter().position(|line| line.contains("Approve this once?")).expect("the question");
        let keys = lines.iter().position(|line| line.contains(": no")).expect("the keys");
        // The box lies over the view: it begins where the question does, and the border ends it.
        let left = lines[ask].split("Approve").next().unwrap_or_default().chars().count();
        let cut = |line: &String| line.chars().skip(left).take_while(|c| *c != '│').collect::<String>();
        lines[ask + 1..keys].iter().map(cut).collect()
    }

    fn view(object: &[u8]) -> View {
        let mut view = View::default();
        view.update(vec![status(2, object)], Vec::new());
        view.press(Key::Approve);
        view
    }

    fn letters(text: &str) -> String {
        text.chars().filter(|c| *c != ' ').collect()
    }

    #[test]
    fn a_long_object_is_shown_to_its_end_before_y_means_anything() {
        for size in SIZES {
            let object = [b"/w/".as_slice(), &b"d/".repeat(2_040), b"the-end.csv"].concat();
            let mut view = view(&object);
            let (mut seen, mut pages) = (String::new(), 0);
            loop {
                let lines = screen(&mut view, size);
                seen += &inside(&lines);
                pages += 1;
                let question = view.question.clone().expect("asks on");
                if question.read {
                    assert!(lines.iter().any(|line| line.contains("y: yes")), "{size:?} {lines:#?}");
                    break;
                }
                assert!(lines.iter().any(|line| line.contains("space: more")), "{size:?} {lines:#?}");
                assert!(!lines.iter().any(|line| line.contains("y: yes")), "{size:?} {lines:#?}");
                assert_eq!(view.press(Key::Yes), None, "{size:?}");
                view.press(Key::ScrollDown);
                assert!(pages < 1_000);
            }
            assert!(pages > 1, "{size:?}");
            assert_eq!(letters(&seen), letters(&view.requests[0].allows), "{size:?}");
            assert!(seen.contains("the-end.csv") || size.0 < 40, "{size:?}");
            assert!(matches!(view.press(Key::Yes), Some(Wish::Decide { deny: false, .. })));
        }
    }

    #[test]
    fn a_short_object_needs_one_page_where_there_is_room() {
        for size in [(80, 24), (78, 28)] {
            let mut view = view(b"/w/ledger.csv");
            let lines = screen(&mut view, size);
            assert!(lines.iter().any(|line| line.contains("y: yes, this   any other key: no")), "{lines:#?}");
            assert!(matches!(view.press(Key::Yes), Some(Wish::Decide { .. })));
        }
    }

    #[test]
    fn a_terminal_that_becomes_smaller_or_has_no_room_hides_nothing() {
        let mut view = view(&[b"/w/".as_slice(), &b"e".repeat(4_093)].concat());
        for size in [(1, 1), (2, 5), (5, 3), (3, 200)] {
            screen(&mut view, size);
            assert_eq!(view.press(Key::Yes), None, "{size:?}");
        }
        let all = view.requests[0].allows.len();
        for size in [(80, 24), (20, 8), (40, 10)] {
            screen(&mut view, size);
            let before = view.question.clone().expect("asks on");
            assert!(before.until < all && !before.read);
            view.press(Key::ScrollDown);
            assert_eq!(view.question.as_ref().map(|q| q.from), Some(before.until), "{size:?}");
        }
    }

    #[test]
    fn wide_characters_and_blanks_are_not_lost() {
        let text = "  日本語 のファイル   名前.csv  ".repeat(9);
        for width in [2, 3, 7, 18] {
            let (rows, taken) = wrapped(&text, width, u16::MAX);
            assert_eq!((rows.concat(), taken), (text.clone(), text.len()));
            assert!(rows.iter().all(|row| Span::raw(*row).width() <= usize::from(width)));
        }
        assert_eq!(wrapped("日", 1, 9), (Vec::new(), 0));
    }
}
