//! What a person states: a decision about requests. Its text is what is signed.

use super::{
    canonical::{Digest, Lines, Reader, parse_digest, parse_stamp, stamp, unescape},
    shape::Shape,
};
use crate::event::text::hex;

/// First line of a decision.
pub const HEAD: &str = "enforcer-decision 1";
/// The namespace of its signature (`ssh-keygen -Y sign -n …`).
pub const NAMESPACE: &str = "enforcer-approval";
/// Requests that one statement may decide.
pub const REQUESTS: usize = 64;
/// The longest reason.
pub const REASON: usize = 1024;
/// The longest text that can be a statement.
pub const LENGTH: usize = 16 * 1024;

/// What is to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, as far as the shape says.
    Approve(Shape),
    /// It is refused.
    Deny,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What is to become of the requests.
    pub verdict: Verdict,
    /// Which requests: sorted, without repetition, not empty.
    pub requests: Vec<Digest>,
    /// Until when the statement counts, in seconds since 1970.
    pub valid_until: i64,
    /// Who states it, by the name in the approvers' files.
    pub approver: String,
    /// Why.
    pub reason: String,
}

/// Why a text is no statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Another kind of text, or another version.
    #[error("the statement does not begin with `{0}`")]
    Head(&'static str),
    /// A line is missing or has another form.
    #[error("the statement's line `{0}` is missing or not as it must be")]
    Line(&'static str),
    /// Something follows or is written in another way.
    #[error("the statement is not in its one canonical form")]
    Form,
    /// It is too long.
    #[error("the statement is longer than {LENGTH} bytes")]
    Long,
}

impl Statement {
    /// The canonical text: what is signed.
    pub fn text(&self) -> String {
        let Self { verdict, requests, valid_until, approver, reason } = self;
        let mut out = Lines::new(HEAD);
        match verdict {
            Verdict::Approve(shape) => {
                out.put("decision", "approve");
                out.put("shape", &shape.to_string());
            }
            Verdict::Deny => out.put("decision", "deny"),
        }
        requests.iter().for_each(|digest| out.put("request", &hex(digest)));
        out.put("valid-until", &stamp(*valid_until));
        out.put_escaped("approver", approver);
        out.put_escaped("reason", reason);
        out.end()
    }

    /// Reads a statement. There is exactly one text for each.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        if text.len() > LENGTH {
            return Err(StatementError::Long);
        }
        let mut lines = Reader::new(text);
        if lines.line() != Some(HEAD) {
            return Err(StatementError::Head(HEAD));
        }
        let verdict = match lines.value("decision") {
            Some("approve") => {
                let shape = lines.value("shape").and_then(Shape::parse);
                Verdict::Approve(shape.ok_or(StatementError::Line("shape"))?)
            }
            Some("deny") => Verdict::Deny,
            _ => return Err(StatementError::Line("decision")),
        };
        let mut requests = Vec::new();
        while let Some(request) = lines.value("request") {
            requests.push(parse_digest(request).ok_or(StatementError::Line("request"))?);
        }
        let ordered = requests.windows(2).all(|pair| pair[0] < pair[1]);
        if requests.is_empty() || requests.len() > REQUESTS || !ordered {
            return Err(StatementError::Line("request"));
        }
        let valid_until =
            lines.value("valid-until").and_then(parse_stamp).ok_or(StatementError::Line("valid-until"))?;
        let approver = lines.value("approver").and_then(unescape).ok_or(StatementError::Line("approver"))?;
        let reason = lines.value("reason").and_then(unescape).filter(|reason| reason.len() <= REASON);
        let reason = reason.ok_or(StatementError::Line("reason"))?;
        let statement = Self { verdict, requests, valid_until, approver, reason };
        // Whatever was read in a lenient way would be another text with the same meaning.
        if lines.is_empty() && statement.text() == text { Ok(statement) } else { Err(StatementError::Form) }
    }

    /// The requests of a statement, in their order.
    pub fn ordered(mut requests: Vec<Digest>) -> Vec<Digest> {
        requests.sort_unstable();
        requests.dedup();
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::tests::mutation::one_text_for_each;
    use proptest::prelude::*;

    fn statement(verdict: Verdict) -> Statement {
        Statement {
            verdict,
            requests: vec![[1; 32], [2; 32]],
            valid_until: 1_800_000_000,
            approver: "alice".to_owned(),
            reason: "ticket 7\nand more".to_owned(),
        }
    }

    #[test]
    fn a_statement_is_read_as_it_was_written() {
        for verdict in
            [Verdict::Deny, Verdict::Approve(Shape::Once), Verdict::Approve(Shape::Until(1_800_000_000))]
        {
            let one = statement(verdict);
            assert_eq!(Statement::parse(&one.text()), Ok(one));
        }
    }

    #[test]
    fn what_is_signed_is_documented_in_full() {
        let text = statement(Verdict::Approve(Shape::Times(3))).text();
        let expected = format!(
            "enforcer-decision 1\ndecision: approve\nshape: times 3\nrequest: {}\nrequest: {}\n\
             valid-until: 2027-01-15T08:00:00Z\napprover: alice\nreason: ticket 7\\nand more\n",
            "01".repeat(32),
            "02".repeat(32)
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn each_thing_that_is_wrong_is_named() {
        let good = statement(Verdict::Approve(Shape::Once)).text();
        for (from, to, expected) in [
            ("decision 1", "decision 2", StatementError::Head(HEAD)),
            ("approve", "Approve", StatementError::Line("decision")),
            ("shape: once", "shape: always", StatementError::Line("shape")),
            ("request: 01", "request: 03", StatementError::Line("request")),
            ("request: 02", "request: 00", StatementError::Line("request")),
            ("08:00:00Z", "08:00:00+00:00", StatementError::Line("valid-until")),
            ("reason: ", "because: ", StatementError::Line("reason")),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_eq!(Statement::parse(&bad), Err(expected), "{bad}");
        }
        assert_eq!(Statement::parse(&(good.clone() + "x: y\n")), Err(StatementError::Form));
        assert_eq!(Statement::parse(good.trim_end()), Err(StatementError::Line("reason")));
        assert_eq!(Statement::parse(&"x".repeat(LENGTH + 1)), Err(StatementError::Long));
    }

    proptest! {
        #[test]
        fn changed_text_is_refused_or_means_something_else(at in 0usize..300, byte in any::<u8>()) {
            one_text_for_each(&statement(Verdict::Approve(Shape::Once)), (at, byte), Statement::text, Statement::parse)?;
        }
    }
}
