//! Who has made a statement: by a signature, or by being the local operator.

use super::{
    approver::{Approver, Approvers, fingerprint},
    armor,
    error::DecisionError,
    statement::NAMESPACE,
};
use ssh_key::{PublicKey, SshSig};

/// The longest armor of a signature.
pub const ARMOR: usize = 8 * 1024;
/// "User presence", the lowest bit of the flags that a hardware key signs (CTAP 2, authenticator data).
const TOUCHED: u8 = 1;

/// The process that connected, where nobody has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// Its user.
    pub uid: u32,
    /// Its process.
    pub pid: i32,
    /// The user who once logged in, through every `su` and `sudo` since (`/proc/PID/loginuid`).
    pub login_uid: Option<u32>,
    /// Whether the settings let root decide.
    pub may_decide: bool,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    /// An approver, by signature.
    Approver {
        /// Who.
        approver: &'a Approver,
        /// With which key.
        key: String,
    },
    /// Root on this host.
    Operator(LocalPeer),
}

impl Identity<'_> {
    /// The name that statements and records use.
    pub fn name(&self) -> String {
        match self {
            Self::Approver { approver, .. } => approver.name.clone(),
            Self::Operator(peer) => operator_name(peer.uid),
        }
    }

    /// Who it is, for records.
    pub fn record(&self) -> serde_json::Value {
        match self {
            Self::Approver { approver, key } => {
                serde_json::json!({"name": approver.name, "person": approver.person, "key": key, "by": "signature"})
            }
            Self::Operator(peer) => serde_json::json!({
                "name": operator_name(peer.uid), "uid": peer.uid, "pid": peer.pid, "login_uid": peer.login_uid,
                "by": "peer credentials",
            }),
        }
    }
}

/// What statements call a local operator.
pub fn operator_name(uid: u32) -> String {
    format!("operator-{uid}")
}

/// Who has made the decision `text`, which says it is `named`'s.
pub fn identify<'a>(
    text: &str,
    named: &str,
    signature: Option<&str>,
    peer: &LocalPeer,
    approvers: &'a Approvers,
) -> Result<Identity<'a>, DecisionError> {
    identify_in(NAMESPACE, text, named, signature, peer, approvers)
}

/// As [`identify`], for statements whose signatures have another namespace.
pub fn identify_in<'a>(
    namespace: &'static str,
    text: &str,
    named: &str,
    signature: Option<&str>,
    peer: &LocalPeer,
    approvers: &'a Approvers,
) -> Result<Identity<'a>, DecisionError> {
    let identity = match signature {
        Some(armor) => signed(namespace, text, armor, approvers)?,
        None if !peer.may_decide => return Err(DecisionError::NoOperator),
        None if peer.uid != 0 => return Err(DecisionError::NotRoot),
        None => Identity::Operator(*peer),
    };
    let signer = identity.name();
    if signer != named {
        return Err(DecisionError::OtherApprover { named: named.to_owned(), signer });
    }
    Ok(identity)
}

fn signed<'a>(
    namespace: &'static str,
    text: &str,
    given: &str,
    approvers: &'a Approvers,
) -> Result<Identity<'a>, DecisionError> {
    let unreadable = |why: String| DecisionError::Armor(why);
    if given.len() > ARMOR {
        return Err(unreadable(format!("longer than {ARMOR} bytes")));
    }
    let signature = SshSig::from_pem(given).map_err(|e| unreadable(e.to_string()))?;
    // One signature has one text: what differs from it has been changed on the way.
    let canonical = armor::armor(&signature).unwrap_or_default();
    if canonical.trim_end() != given.trim_end_matches('\n') || signature.version() != SshSig::VERSION {
        return Err(unreadable("it is not as ssh-keygen writes it".to_owned()));
    }
    if signature.namespace() != namespace {
        let found = signature.namespace().to_owned();
        return Err(DecisionError::Namespace { found, wanted: namespace });
    }
    let data = signature.public_key();
    let key = fingerprint(data);
    let Some(approver) = approvers.with_key(data) else { return Err(DecisionError::UnknownKey(key)) };
    // The key is the approver's own, not the one that came with the signature: they are equal by now.
    PublicKey::from(data.clone())
        .verify(namespace, text.as_bytes(), &signature)
        .map_err(|_| DecisionError::Signature(approver.name.clone()))?;
    if armor::is_hardware(&signature.algorithm()) {
        let bytes = signature.signature_bytes();
        let flags = bytes.len().checked_sub(armor::TRAILER).and_then(|at| bytes.get(at));
        if flags.is_none_or(|flags| flags & TOUCHED == 0) {
            return Err(DecisionError::Untouched(approver.name.clone()));
        }
    }
    Ok(Identity::Approver { approver, key })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::approver::tests::{approvers, key};
    use super::*;
    use ssh_key::{HashAlg, LineEnding};

    /// A signature like ssh-keygen's.
    pub(crate) fn sign(seed: u8, namespace: &str, text: &str) -> String {
        let signature = key(seed).sign(namespace, HashAlg::Sha512, text.as_bytes()).expect("sign");
        signature.to_pem(LineEnding::LF).expect("armor")
    }

    pub(crate) const NOBODY: LocalPeer = LocalPeer { uid: 1000, pid: 1, login_uid: None, may_decide: false };

    #[test]
    fn a_signature_tells_its_approver() {
        let approvers = approvers();
        let armor = sign(2, NAMESPACE, "text\n");
        let identity = identify("text\n", "bob", Some(&armor), &NOBODY, &approvers).expect("bob");
        assert_eq!(identity.name(), "bob");
        assert_eq!(identity.record()["person"], "Bob");
    }

    #[test]
    fn every_other_signature_is_refused_for_its_own_reason() {
        let approvers = approvers();
        let ask = |text: &str, named: &str, armor: &str| {
            identify(text, named, Some(armor), &NOBODY, &approvers).expect_err("refused")
        };
        let good = sign(2, NAMESPACE, "text\n");
        assert!(matches!(ask("other\n", "bob", &good), DecisionError::Signature(who) if who == "bob"));
        assert!(matches!(ask("text\n", "alice", &good), DecisionError::OtherApprover { .. }));
        assert!(matches!(ask("text\n", "bob", &sign(2, "git", "text\n")), DecisionError::Namespace { .. }));
        assert!(matches!(ask("text\n", "bob", &sign(9, NAMESPACE, "text\n")), DecisionError::UnknownKey(_)));
        assert!(matches!(ask("text\n", "bob", &good.replace('\n', "\r\n")), DecisionError::Armor(_)));
        assert!(matches!(ask("text\n", "bob", &format!(" {good}")), DecisionError::Armor(_)));
        assert!(matches!(ask("text\n", "bob", ""), DecisionError::Armor(_)));
        assert!(matches!(ask("text\n", "bob", &"x".repeat(ARMOR + 1)), DecisionError::Armor(_)));
    }

    #[test]
    fn only_root_decides_unsigned_and_only_where_the_settings_say_so() {
        let approvers = approvers();
        let ask =
            |peer: LocalPeer, named: &str| identify("t\n", named, None, &peer, &approvers).map(|i| i.name());
        let root = LocalPeer { uid: 0, may_decide: true, ..NOBODY };
        assert_eq!(ask(root, "operator-0"), Ok("operator-0".to_owned()));
        assert_eq!(
            ask(LocalPeer { may_decide: false, ..root }, "operator-0"),
            Err(DecisionError::NoOperator)
        );
        assert_eq!(ask(LocalPeer { uid: 1000, ..root }, "operator-1000"), Err(DecisionError::NotRoot));
        assert!(matches!(ask(root, "alice"), Err(DecisionError::OtherApprover { .. })));
    }
}
