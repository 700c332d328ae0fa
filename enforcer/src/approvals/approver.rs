//! Who may decide: one file for each approver.

use crate::policy::Tier;
use serde::Deserialize;
use ssh_key::{HashAlg, PublicKey, public::KeyData};
use std::collections::BTreeSet;

/// Somebody who may decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// The name that statements use.
    pub name: String,
    /// The person: two approvers with the same person count as one.
    pub person: String,
    /// Their keys.
    pub keys: Vec<PublicKey>,
    /// What they may decide about.
    pub scopes: Vec<Scope>,
    /// The file that says so.
    pub file: String,
}

/// What an approver may decide about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Agents by name; `*` stands for any characters.
    pub agents: Vec<String>,
    /// Tiers of requests.
    #[serde(default)]
    pub tiers: Vec<Tier>,
    /// Whether they may change the level of trust of these agents.
    #[serde(default)]
    pub trust: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    person: String,
    keys: Vec<String>,
    scopes: Vec<Scope>,
}

/// The approvers, and the files that cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvers {
    /// Those whose files are good.
    pub known: Vec<Approver>,
    /// What is wrong with the others: whoever stands in them cannot decide.
    pub problems: Vec<String>,
}

impl Approver {
    /// Reads a file's text.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let Document { name, person, keys, scopes } =
            toml::from_str(text).map_err(|e| format!("{file}: {e}"))?;
        let plain = |text: &str| !text.trim().is_empty() && text.chars().all(crate::event::text::is_plain);
        if !plain(&name) || name.starts_with("operator") {
            return Err(format!("{file}: name: {name:?} must be plain text and not begin with `operator`"));
        }
        if !plain(&person) {
            return Err(format!(
                "{file}: person: must be plain text, like \"Ada Lovelace <ada@example.com>\""
            ));
        }
        if keys.is_empty() || scopes.is_empty() {
            return Err(format!("{file}: at least one key and one scope are needed"));
        }
        if scopes.iter().any(|scope| scope.tiers.contains(&Tier::Critical)) {
            return Err(format!("{file}: scopes: tier critical is never approved; take it away"));
        }
        let keys = keys.iter().map(|key| public_key(key).map_err(|e| format!("{file}: keys: {e}")));
        Ok(Self { name, person, keys: keys.collect::<Result<_, _>>()?, scopes, file: file.to_owned() })
    }

    /// Whether they may decide about requests of an agent in a tier.
    pub fn decides(&self, agent: &str, tier: Tier) -> bool {
        self.scopes.iter().any(|scope| scope.covers(agent) && scope.tiers.contains(&tier))
    }

    /// Whether they may change an agent's level of trust.
    pub fn changes_trust(&self, agent: &str) -> bool {
        self.scopes.iter().any(|scope| scope.trust && scope.covers(agent))
    }
}

impl Scope {
    fn covers(&self, agent: &str) -> bool {
        self.agents.iter().any(|pattern| fits(pattern, agent))
    }
}

impl Approvers {
    /// Reads files: their names and texts, or why they cannot be read. A name or a key that an earlier file has
    /// is an error of the later one.
    pub fn read(files: impl IntoIterator<Item = Result<(String, String), String>>) -> Self {
        let mut out = Self::default();
        let (mut names, mut keys) = (BTreeSet::new(), Vec::<(KeyData, String)>::new());
        for file in files {
            let parsed = file.and_then(|(name, text)| Approver::parse(&name, &text)).and_then(|approver| {
                let Approver { name, keys: own, file, .. } = &approver;
                if names.contains(name) {
                    return Err(format!("{file}: name: another file has the approver {name} already"));
                }
                let taken = own.iter().find_map(|key| keys.iter().find(|(data, _)| data == key.key_data()));
                match taken {
                    Some((_, other)) => {
                        Err(format!("{file}: keys: a key belongs to the approver {other} already"))
                    }
                    None => Ok(approver),
                }
            });
            match parsed {
                Ok(approver) => {
                    names.insert(approver.name.clone());
                    keys.extend(approver.keys.iter().map(|k| (k.key_data().clone(), approver.name.clone())));
                    out.known.push(approver);
                }
                Err(problem) => out.problems.push(problem),
            }
        }
        out
    }

    /// The approver with a key.
    pub fn with_key(&self, key: &KeyData) -> Option<&Approver> {
        self.known.iter().find(|approver| approver.keys.iter().any(|own| own.key_data() == key))
    }
}

/// A key of a kind that can be verified here.
fn public_key(text: &str) -> Result<PublicKey, String> {
    let key =
        PublicKey::from_openssh(text).map_err(|e| format!("{text:?} is not an OpenSSH public key: {e}"))?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => Ok(key),
        KeyData::Ecdsa(ecdsa) if ecdsa.curve() != ssh_key::EcdsaCurve::NistP521 => Ok(key),
        _ => Err(format!(
            "a key of type {} cannot be used: take ed25519, ecdsa with nistp256 or nistp384, or one of a hardware \
             key (ed25519-sk, ecdsa-sk)",
            key.algorithm()
        )),
    }
}

/// A key as people compare it.
pub fn fingerprint(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Whether a name fits a pattern in which `*` stands for any characters.
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(tail) = name.strip_prefix(head) else { return false };
    (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| fits(rest, &tail[at..]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ssh_key::{
        PrivateKey,
        private::{Ed25519Keypair, KeypairData},
    };

    /// A key that is the same every time.
    pub(crate) fn key(seed: u8) -> PrivateKey {
        PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "test").expect("a key")
    }

    /// The text of an approver's file.
    pub(crate) fn file(name: &str, person: &str, seed: u8, scope: &str) -> String {
        let key = key(seed).public_key().to_openssh().expect("text");
        format!("name = \"{name}\"\nperson = \"{person}\"\nkeys = [\"{key}\"]\n[[scopes]]\n{scope}\n")
    }

    /// Alice decides low and medium of everything; Bob, and a second name of his, high as well.
    pub(crate) fn approvers() -> Approvers {
        let all = "agents = [\"*\"]\ntiers = [\"low\", \"medium\", \"high\"]";
        let files = [
            ("a", file("alice", "Alice", 1, "agents = [\"*\"]\ntiers = [\"low\", \"medium\"]\ntrust = true")),
            ("b", file("bob", "Bob", 2, all)),
            ("c", file("bobby", "Bob", 3, all)),
            ("d", file("carol", "Carol", 4, "agents = [\"other-*\"]\ntiers = [\"low\"]")),
            ("e", file("dave", "Dave", 5, all)),
        ];
        Approvers::read(files.map(|(name, text)| Ok((name.to_owned(), text))))
    }

    #[test]
    fn scopes_are_agents_and_tiers() {
        let approvers = approvers();
        assert!(approvers.problems.is_empty(), "{:?}", approvers.problems);
        let [alice, bob, _, carol, _] = &approvers.known[..] else { panic!("{approvers:?}") };
        assert!(alice.decides("x", Tier::Low) && !alice.decides("x", Tier::High) && alice.changes_trust("x"));
        assert!(bob.decides("x", Tier::High) && !bob.changes_trust("x"));
        assert!(carol.decides("other-1", Tier::Low) && !carol.decides("another-1", Tier::Low));
    }

    #[test]
    fn a_file_that_is_wrong_names_its_problem_and_leaves_the_others() {
        let scope = "agents = [\"*\"]\ntiers = [\"low\"]";
        let good = file("alice", "Alice", 1, scope);
        let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7";
        for (bad, words) in [
            (good.clone(), "the approver alice already"),
            (file("b", "B", 1, scope), "belongs to the approver alice"),
            (file("b", "B", 2, "agents = [\"*\"]\ntiers = [\"critical\"]"), "tier critical"),
            (file("b", "B", 2, "agents = [\"*\"]\ntier = [\"low\"]"), "tier"),
            (file("operator", "B", 2, scope), "operator"),
            (file("b", " ", 2, scope), "person"),
            (format!("name='b'\nperson='B'\nkeys=['{rsa}']\n[[scopes]]\n{scope}\n"), "public key"),
            (format!("name='b'\nperson='B'\nkeys=[]\n[[scopes]]\n{scope}\n"), "at least one key"),
        ] {
            let read = Approvers::read([Ok(("a".to_owned(), good.clone())), Ok(("z".to_owned(), bad))]);
            assert_eq!(read.known.len(), 1);
            assert!(
                read.problems[0].starts_with("z: ") && read.problems[0].contains(words),
                "{:?}",
                read.problems
            );
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(
            fits("*", "") && fits("a*c", "abbc") && fits("a*", "a") && fits("*b*", "abc") && fits("x", "x")
        );
        assert!(!fits("", "a") && !fits("a*c", "ab") && !fits("x", "xy") && !fits("?", "x"));
        assert!(fits("*é", "aé"));
    }
}
