//! What a person states about an agent's trust. Its text is what is signed.

use crate::{
    approvals::{
        canonical::{Digest, Lines, Reader, digest, parse_digest, parse_stamp, stamp, unescape},
        statement::{LENGTH, REASON, StatementError},
    },
    event::text::hex,
    policy::Trust,
};

/// First line.
pub const HEAD: &str = "enforcer-trust 1";
/// The namespace of its signature (`ssh-keygen -Y sign -n …`): no decision about a request can be taken for it.
pub const NAMESPACE: &str = "enforcer-trust";

/// A change of an agent's level of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The host's id: it counts there and nowhere else.
    pub host: String,
    /// The agent.
    pub agent: String,
    /// The level that was last stated.
    pub before: Trust,
    /// The level from now on.
    pub after: Trust,
    /// SHA-256 of the statement before it, so that each counts once and in its order.
    pub follows: Digest,
    /// When it was written, in seconds since 1970.
    pub made: i64,
    /// Until when it can be submitted.
    pub valid_until: i64,
    /// Who states it, by the name in the approvers' files.
    pub approver: String,
    /// Why; never empty.
    pub reason: String,
}

impl Statement {
    /// The canonical text: what is signed.
    pub fn text(&self) -> String {
        let Self { host, agent, before, after, follows, made, valid_until, approver, reason } = self;
        let mut out = Lines::new(HEAD);
        out.put_escaped("host", host);
        out.put_escaped("agent", agent);
        out.put("before", before.name());
        out.put("after", after.name());
        out.put("follows", &hex(follows));
        out.put("made", &stamp(*made));
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
        let mut take = |key: &'static str| lines.value(key).ok_or(StatementError::Line(key));
        let wrong = StatementError::Line;
        let host = unescape(take("host")?).ok_or(wrong("host"))?;
        let agent = unescape(take("agent")?).ok_or(wrong("agent"))?;
        let before = Trust::named(take("before")?).ok_or(wrong("before"))?;
        let after = Trust::named(take("after")?).ok_or(wrong("after"))?;
        let follows = parse_digest(take("follows")?).ok_or(wrong("follows"))?;
        let made = parse_stamp(take("made")?).ok_or(wrong("made"))?;
        let valid_until = parse_stamp(take("valid-until")?).ok_or(wrong("valid-until"))?;
        let approver = unescape(take("approver")?).ok_or(wrong("approver"))?;
        let reason = unescape(take("reason")?).filter(|reason| is_reason(reason)).ok_or(wrong("reason"))?;
        let end = lines.is_empty();
        let statement = Self { host, agent, before, after, follows, made, valid_until, approver, reason };
        // Whatever was read in a lenient way would be another text with the same meaning.
        if end && statement.text() == text { Ok(statement) } else { Err(StatementError::Form) }
    }

    /// SHA-256 of the text: what the next statement follows.
    pub fn digest(&self) -> Digest {
        digest(&self.text())
    }
}

/// Whether a text can be a reason.
pub fn is_reason(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= REASON
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::approvals::tests::mutation::one_text_for_each;
    use proptest::prelude::*;

    pub(crate) fn statement() -> Statement {
        Statement {
            host: "h1".to_owned(),
            agent: "billing-bot".to_owned(),
            before: Trust::Probation,
            after: Trust::Supervised,
            follows: [1; 32],
            made: 1_800_000_000,
            valid_until: 1_800_003_600,
            approver: "alice".to_owned(),
            reason: "three weeks\nwithout a refusal".to_owned(),
        }
    }

    #[test]
    fn what_is_signed_is_documented_in_full() {
        let expected = format!(
            "enforcer-trust 1\nhost: h1\nagent: billing-bot\nbefore: probation\nafter: supervised\nfollows: {}\n\
             made: 2027-01-15T08:00:00Z\nvalid-until: 2027-01-15T09:00:00Z\napprover: alice\n\
             reason: three weeks\\nwithout a refusal\n",
            "01".repeat(32)
        );
        assert_eq!(statement().text(), expected);
        assert_eq!(Statement::parse(&expected), Ok(statement()));
    }

    #[test]
    fn each_thing_that_is_wrong_is_named() {
        let good = statement().text();
        for (from, to, expected) in [
            ("trust 1", "trust 2", StatementError::Head(HEAD)),
            ("host: ", "hosts: ", StatementError::Line("host")),
            ("before: probation", "before: none", StatementError::Line("before")),
            ("after: supervised", "after: Supervised", StatementError::Line("after")),
            ("follows: 01", "follows: 0", StatementError::Line("follows")),
            ("made: 2027", "made: +2027", StatementError::Line("made")),
            ("09:00:00Z", "09:00:00+00:00", StatementError::Line("valid-until")),
            ("three weeks\\nwithout a refusal", " ", StatementError::Line("reason")),
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
        fn changed_text_is_refused_or_means_something_else(at in 0usize..400, byte in any::<u8>()) {
            one_text_for_each(&statement(), (at, byte), Statement::text, Statement::parse)?;
        }
    }
}
