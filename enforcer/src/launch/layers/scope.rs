//! The most that a session may ever do, as far as Landlock has words for it: every place that a rule lets or could
//! let it use, whatever its trust and whoever approves. Pure; where places really are is looked up at the launch.

use crate::{
    control::message::Bytes,
    policy::{Atom, Component, Effect, Glob, Pattern, Section, TCP, Tier, ValidPolicy},
};
use enforcer_common::access::{
    file::{self, ABSTRACT},
    net,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Ports that a ruleset names at most; a policy that could use more has none of them refused by this layer.
const PORTS: usize = 1024;

/// What a session may ever do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Reading, listing and truncating too.
    pub reading: bool,
    /// Places, and the bits of [`mod@file`] there.
    pub places: Vec<Place>,
    /// TCP ports to connect to; none: whichever.
    pub connect: Option<Vec<u16>>,
    /// TCP ports to bind; none: whichever.
    pub bind: Option<Vec<u16>>,
    /// It may connect to somebody else's abstract unix socket.
    pub abstract_sockets: bool,
}

/// A place without wildcards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its components, from the root down.
    pub path: Vec<Bytes>,
    /// A rule names this one object; otherwise it names what is below, or this and what is below.
    pub exact: bool,
    /// Bits of [`mod@file`].
    pub operations: u16,
}

/// What a policy's session may ever do.
pub fn scope(policy: &ValidPolicy, reading: bool) -> Scope {
    let mut places: BTreeMap<(Vec<Vec<u8>>, bool), u16> = BTreeMap::new();
    let (mut connect, mut bind) = (Ports::default(), Ports::default());
    let mut abstract_sockets = false;
    // A deny takes away from what others give, and nothing of it can be said to Landlock.
    let gives = policy.rules().iter().filter(|rule| match rule.effect() {
        Effect::Allow | Effect::Hold => rule.tier() != Some(Tier::Critical),
        Effect::Deny => false,
    });
    for rule in gives {
        match rule.origin().section {
            Section::Files | Section::Exec => {
                for pattern in rule.globs().iter().flat_map(Glob::patterns) {
                    let (path, exact) = prefix(pattern);
                    *places.entry((path, exact)).or_default() |= rule.operations();
                }
            }
            Section::Unix => {
                abstract_sockets |= rule.globs().iter().flat_map(Glob::patterns).any(may_be_abstract);
            }
            Section::Network => {
                for endpoint in rule.endpoints().iter().filter(|e| e.protocols().contains(&TCP)) {
                    if rule.operations() & net::CONNECT != 0 {
                        connect.add(endpoint.ports());
                    }
                    if rule.operations() & net::BIND != 0 {
                        bind.add(endpoint.ports());
                    }
                }
            }
        }
    }
    let place = |((path, exact), operations): ((Vec<Vec<u8>>, bool), u16)| Place {
        path: path.into_iter().map(Bytes).collect(),
        exact,
        operations,
    };
    Scope {
        reading,
        places: places.into_iter().map(place).collect(),
        connect: connect.list(),
        bind: bind.list(),
        abstract_sockets,
    }
}

/// The components before the first wildcard, and whether there is none.
fn prefix(pattern: &Pattern) -> (Vec<Vec<u8>>, bool) {
    let literal = |component: &Component| match component {
        Component::AnyDepth => None,
        Component::Name(atoms) => atoms
            .iter()
            .map(|atom| match atom {
                Atom::Byte(byte) => Some(*byte),
                Atom::Set(_) | Atom::Star => None,
            })
            .collect::<Option<Vec<u8>>>(),
    };
    let path: Vec<Vec<u8>> = pattern.components().iter().map_while(literal).collect();
    let exact = path.len() == pattern.components().len();
    (path, exact)
}

/// Whether a pattern over sockets could match an abstract name.
fn may_be_abstract(pattern: &Pattern) -> bool {
    match pattern.components().first() {
        None => false,
        Some(Component::AnyDepth) => true,
        Some(Component::Name(atoms)) => match atoms.first() {
            Some(Atom::Byte(byte)) => *byte == ABSTRACT,
            Some(Atom::Set(_) | Atom::Star) | None => true,
        },
    }
}

/// Ports by number, unless they are too many.
#[derive(Default)]
struct Ports {
    some: BTreeSet<u16>,
    too_many: bool,
}

impl Ports {
    fn add(&mut self, (first, last): (u16, u16)) {
        if usize::from(last - first) >= PORTS {
            self.too_many = true;
        } else {
            self.some.extend(first..=last);
            self.too_many |= self.some.len() > PORTS;
        }
    }

    fn list(self) -> Option<Vec<u16>> {
        (!self.too_many).then(|| self.some.into_iter().collect())
    }
}

/// Operations on the name of an object rather than on the object.
pub const OF_NAMES: u16 = file::CREATE | file::DELETE | file::RENAME | file::LINK;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn of(rules: &str) -> Scope {
        let head = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
                    metadata: { id: a, version: 1, owner: a@b.c, purpose: Test }\n";
        scope(&parse("p", &format!("{head}{rules}")).unwrap_or_else(|e| panic!("{e}")), false)
    }

    fn places(scope: &Scope) -> Vec<(String, bool, u16)> {
        let text = |place: &Place| {
            let names = place.path.iter().map(|name| String::from_utf8_lossy(&name.0).into_owned());
            format!("/{}", names.collect::<Vec<_>>().join("/"))
        };
        scope.places.iter().map(|place| (text(place), place.exact, place.operations)).collect()
    }

    #[test]
    fn a_glob_becomes_what_stands_before_its_first_wildcard() {
        let scope =
            of("files:\n- { allow: [write], paths: ['/w/**', '/srv/*/in', '/a/b', '**/.x', '/{p,q}/r*'] }\n");
        assert_eq!(
            places(&scope),
            [
                ("/".to_owned(), false, file::WRITE | file::TRUNCATE),
                ("/a/b".to_owned(), true, file::WRITE | file::TRUNCATE),
                ("/p".to_owned(), false, file::WRITE | file::TRUNCATE),
                ("/q".to_owned(), false, file::WRITE | file::TRUNCATE),
                ("/srv".to_owned(), false, file::WRITE | file::TRUNCATE),
                ("/w".to_owned(), false, file::WRITE | file::TRUNCATE),
            ]
        );
    }

    #[test]
    fn what_is_held_or_of_a_tier_counts_and_what_is_never_allowed_does_not() {
        let scope = of("files:\n\
            - { hold: [delete], paths: ['/held/**'] }\n\
            - { allow: [create], tier: high, paths: ['/high/**'] }\n\
            - { allow: [create], tier: critical, paths: ['/never/**'] }\n\
            - { deny: [all], paths: ['/held/no/**', '/denied'] }\n");
        assert_eq!(
            places(&scope),
            [("/held".to_owned(), false, file::DELETE), ("/high".to_owned(), false, file::CREATE)]
        );
    }

    #[test]
    fn programs_count_whatever_their_arguments() {
        let scope =
            of("exec:\n- { allow: ['/usr/bin/git'], arguments: [status] }\n- { hold: ['/opt/**'] }\n");
        let programs: Vec<_> = places(&scope).into_iter().map(|(path, exact, _)| (path, exact)).collect();
        assert_eq!(programs, [("/opt".to_owned(), false), ("/usr/bin/git".to_owned(), true)]);
        assert!(scope.places.iter().all(|place| place.operations & file::EXEC != 0));
    }

    #[test]
    fn ports_are_listed_unless_they_are_too_many() {
        let scope = of("network:\n\
            - { allow: [connect], to: ['10.0.0.0/8:443/tcp', '*:8000-8001/*', '*:53/udp'] }\n\
            - { hold: [bind], to: ['127.0.0.1:0/tcp'] }\n- { deny: [connect], to: ['*:22/tcp'] }\n");
        assert_eq!(scope.connect, Some(vec![443, 8000, 8001]));
        assert_eq!(scope.bind, Some(vec![0]));
        let scope = of("network:\n- { allow: [connect], to: ['*:*/tcp'] }\n");
        assert_eq!((scope.connect, scope.bind), (None, Some(Vec::new())));
    }

    #[test]
    fn sockets_by_path_are_not_abstract() {
        let files = "files:\n- { allow: [read], paths: ['/a'] }\n";
        assert!(!of(&format!("{files}unix:\n- {{ allow: ['/run/x.sock', '/run/**'] }}\n")).abstract_sockets);
        for wide in ["/**", "**/x", "@x", "/*"] {
            let text = format!("{files}unix:\n- {{ allow: ['{wide}'] }}\n");
            assert!(of(&text).abstract_sockets, "{wide}");
        }
        assert!(!of(&format!("{files}unix:\n- {{ deny: ['@x'] }}\n")).abstract_sockets);
    }
}
