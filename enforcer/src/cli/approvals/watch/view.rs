//! What the screen shows and what keys do. Pure: the terminal is elsewhere.

use crate::control::approvals::ApprovalStatus;

/// What was pressed, as far as it means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    ScrollUp,
    ScrollDown,
    Approve,
    Deny,
    Yes,
    No,
    Leave,
}

/// What the user wants of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Leave,
    /// The request with this digest, which was on the screen when it was confirmed.
    Decide {
        digest: String,
        deny: bool,
    },
}

/// A decision that is to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub digest: String,
    pub deny: bool,
    /// Where in the question's text the part begins that is on the screen, and where it ends. Bytes.
    pub from: usize,
    pub until: usize,
    /// Whether all of it has been on the screen. Before that nothing is approved.
    pub read: bool,
}

impl Question {
    /// The text from [`Question::from`] to this byte is on the screen, of so many.
    pub(super) fn shown(&mut self, until: usize, of: usize) {
        self.until = until;
        self.read |= until >= of;
    }
}

/// The screen's state.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub requests: Vec<ApprovalStatus>,
    pub problems: Vec<String>,
    /// Digest of the request that is shown in full. What comes and goes does not move it to another one.
    pub selected: Option<String>,
    pub scroll: u16,
    pub question: Option<Question>,
    pub message: Option<String>,
}

impl View {
    /// Takes what waits now.
    pub(super) fn update(&mut self, mut requests: Vec<ApprovalStatus>, problems: Vec<String>) {
        requests.retain(|request| request.state == "pending");
        let before = self.index();
        self.requests = requests;
        self.problems = problems;
        if self.index().is_none() {
            let next = before.unwrap_or(0).min(self.requests.len().saturating_sub(1));
            self.selected = self.requests.get(next).map(|request| request.digest.clone());
            self.scroll = 0;
        }
        if let Some(question) = &self.question
            && self.request(&question.digest).is_none()
        {
            self.question = None;
            self.message = Some("it does not wait any more".to_owned());
        }
    }

    /// The request with this digest, if it still waits.
    pub(super) fn request(&self, digest: &str) -> Option<&ApprovalStatus> {
        self.requests.iter().find(|request| request.digest == digest)
    }

    /// Where the selected request is in the list.
    pub(super) fn index(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.requests.iter().position(|request| request.digest == *selected)
    }

    /// Shows what came of a decision.
    pub(super) fn said(&mut self, message: String) {
        self.message = Some(message);
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: Key) -> Option<Wish> {
        if key == Key::Leave {
            return Some(Wish::Leave);
        }
        if let Some(mut question) = self.question.take() {
            // Only a clear yes to all of it decides; but for what turns pages, every other key takes the question back.
            match key {
                Key::Yes if question.read || question.deny => {
                    return Some(Wish::Decide { digest: question.digest, deny: question.deny });
                }
                Key::Yes => {}
                // Each part begins where the one before has ended, so that none is left out.
                Key::ScrollDown if !question.read => question.from = question.until,
                Key::ScrollDown => {}
                Key::ScrollUp => question.from = 0,
                _ => return None,
            }
            self.question = Some(question);
            return None;
        }
        self.message = None;
        match key {
            Key::Up => self.step(|index| index.saturating_sub(1)),
            Key::Down => self.step(|index| index + 1),
            Key::ScrollUp => self.scroll = self.scroll.saturating_sub(5),
            Key::ScrollDown => self.scroll = self.scroll.saturating_add(5),
            Key::Approve | Key::Deny => {
                if let Some(digest) = self.selected.clone().filter(|digest| self.request(digest).is_some()) {
                    let deny = key == Key::Deny;
                    self.question = Some(Question { digest, deny, from: 0, until: 0, read: false });
                }
            }
            Key::Yes | Key::No | Key::Leave => {}
        }
        None
    }

    fn step(&mut self, to: impl FnOnce(usize) -> usize) {
        let Some(index) = self.index() else { return };
        let next = to(index).min(self.requests.len() - 1);
        self.selected = self.requests.get(next).map(|request| request.digest.clone());
        self.scroll = 0;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        approvals::{request::tests::request, shape::Shape, words},
        event::text::hex,
    };

    /// A request as the daemon tells of it.
    pub(in super::super) fn status(n: u64, object: &[u8]) -> ApprovalStatus {
        let request = request(|r| {
            r.hold = crate::approvals::hold::HoldId([n, 2]);
            r.what.object = crate::approvals::request::Shown::of(object);
            r.justification = (n == 1).then(|| "I must clean up\x1b[2J".to_owned());
        });
        ApprovalStatus {
            hold: request.hold.to_string(),
            digest: hex(&request.digest()),
            state: "pending".to_owned(),
            text: request.text(),
            act: words::act(&request.what),
            allows: words::allows(&request, Shape::Once),
            tier: "medium".to_owned(),
            asked: n,
            waiting: 1,
            two_persons: false,
            approved_by: Vec::new(),
            request,
        }
    }

    /// The question's text has been on the screen.
    fn read(view: &mut View) {
        view.question.as_mut().expect("a question").shown(9, 9);
    }

    fn three() -> Vec<ApprovalStatus> {
        (1..=3).map(|n| status(n, format!("/w/{n}").as_bytes())).collect()
    }

    #[test]
    fn nothing_is_decided_without_a_yes_to_exactly_that() {
        let mut view = View::default();
        view.update(three(), Vec::new());
        let first = view.requests[0].digest.clone();
        assert_eq!(view.press(Key::Approve), None);
        assert_eq!(view.press(Key::Approve), None, "not the same key twice");
        assert_eq!(view.press(Key::Yes), None, "the question was taken back");
        view.press(Key::Deny);
        assert_eq!(view.press(Key::Yes), Some(Wish::Decide { digest: first, deny: true }));
        for key in [Key::Up, Key::Down, Key::No, Key::Deny] {
            view.press(Key::Approve);
            assert_eq!(view.press(key), None);
            assert_eq!(view.question, None);
        }
        view.press(Key::Approve);
        assert_eq!(view.press(Key::Leave), Some(Wish::Leave));
    }

    #[test]
    fn nothing_is_approved_that_was_not_shown_to_its_end() {
        let mut view = View::default();
        view.update(three(), Vec::new());
        view.press(Key::Approve);
        assert_eq!(view.press(Key::Yes), None, "nothing was drawn yet");
        for (from, until) in [(0, 4), (4, 8), (8, 9)] {
            assert_eq!((view.press(Key::Yes), view.question.as_ref().map(|q| q.from)), (None, Some(from)));
            view.question.as_mut().expect("a question").shown(until, 9);
            if until < 9 {
                view.press(Key::ScrollDown);
            }
        }
        // All of it was seen: turning pages takes nothing back.
        view.press(Key::ScrollUp);
        view.press(Key::ScrollDown);
        assert!(matches!(view.press(Key::Yes), Some(Wish::Decide { deny: false, .. })));
    }

    #[test]
    fn what_comes_and_goes_does_not_put_another_request_under_the_hand() {
        let mut view = View::default();
        view.update(three(), Vec::new());
        view.press(Key::Down);
        let second = view.requests[1].digest.clone();
        view.press(Key::Approve);
        read(&mut view);
        view.update([vec![status(9, b"/new")], three()].concat(), Vec::new());
        assert_eq!(view.press(Key::Yes), Some(Wish::Decide { digest: second.clone(), deny: false }));
        view.press(Key::Approve);
        let without = three().into_iter().filter(|request| request.digest != second).collect();
        view.update(without, Vec::new());
        assert_eq!((view.press(Key::Yes), view.question.is_none()), (None, true));
        assert_ne!(view.selected, Some(second));
    }

    #[test]
    fn an_empty_list_has_nothing_to_decide() {
        let mut view = View::default();
        view.update(Vec::new(), Vec::new());
        for key in [Key::Up, Key::Down, Key::Approve, Key::Yes, Key::Deny, Key::Yes] {
            assert_eq!(view.press(key), None);
        }
    }
}
