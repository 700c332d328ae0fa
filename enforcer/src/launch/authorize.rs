//! Who may launch an agent, and as which user it runs: pure decisions.

use crate::{
    control::peer::Peer,
    policy::{Launcher, User},
};

/// The host's users and groups by name.
pub trait Names {
    /// The number of a user.
    fn uid(&self, name: &str) -> Option<u32>;
    /// The number of a group.
    fn gid(&self, name: &str) -> Option<u32>;
}

/// Proof that the peer may launch the agent.
#[must_use = "a permission that nobody looks at permits everything"]
#[derive(Debug, PartialEq, Eq)]
pub struct Authorized {
    uid: u32,
}

/// Lets a peer launch an agent if the policy names it. A policy that names nobody lets root.
pub fn authorize(peer: &Peer, by: &[Launcher], names: &dyn Names) -> Option<Authorized> {
    let named = |launcher: &Launcher| match launcher {
        Launcher::User(User::Id(uid)) => *uid == peer.uid,
        Launcher::User(User::Name(name)) => names.uid(name) == Some(peer.uid),
        Launcher::GroupId(gid) => peer.in_group(*gid),
        Launcher::Group(name) => names.gid(name).is_some_and(|gid| peer.in_group(gid)),
    };
    let allowed = if by.is_empty() { peer.uid == 0 } else { by.iter().any(named) };
    allowed.then_some(Authorized { uid: peer.uid })
}

impl Authorized {
    /// The user that the session runs as: the one that the policy names, else the launcher. So nobody
    /// becomes root who is not, unless the policy says so.
    pub fn run_as(&self, policy: Option<&User>) -> User {
        policy.cloned().unwrap_or(User::Id(self.uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host;
    impl Names for Host {
        fn uid(&self, name: &str) -> Option<u32> {
            [("root", 0), ("alice", 1000)].iter().find(|(n, _)| *n == name).map(|(_, id)| *id)
        }
        fn gid(&self, name: &str) -> Option<u32> {
            [("operators", 500), ("root", 0)].iter().find(|(n, _)| *n == name).map(|(_, id)| *id)
        }
    }

    fn user(name: &str) -> Launcher {
        Launcher::User(User::Name(name.to_owned()))
    }

    fn group(name: &str) -> Launcher {
        Launcher::Group(name.to_owned())
    }

    fn may(uid: u32, gid: u32, groups: &[u32], by: &[Launcher]) -> bool {
        let peer = Peer { pid: 1, uid, gid, groups: groups.to_vec(), terminal: None };
        authorize(&peer, by, &Host).is_some()
    }

    #[test]
    fn a_policy_that_names_nobody_lets_only_root_launch() {
        assert!(may(0, 0, &[], &[]));
        assert!(!may(1000, 0, &[0], &[]));
    }

    #[test]
    fn users_and_groups_are_matched_by_name_and_number() {
        assert!(may(1000, 1, &[], &[user("alice")]));
        assert!(may(1000, 1, &[], &[Launcher::User(User::Id(1000))]));
        assert!(may(1001, 500, &[], &[group("operators")]));
        assert!(may(1001, 1, &[4, 500], &[user("root"), group("operators")]));
        assert!(may(1001, 1, &[77], &[Launcher::GroupId(77)]));
        assert!(!may(1001, 1, &[501], &[user("alice"), group("operators")]));
    }

    #[test]
    fn root_is_not_let_where_the_policy_names_others() {
        assert!(!may(0, 0, &[], &[user("alice")]));
    }

    #[test]
    fn a_name_that_the_host_does_not_know_matches_nobody() {
        for uid in [0, 1000, u32::MAX] {
            assert!(!may(uid, uid, &[uid], &[user("nobody-here"), group("nobody-here")]));
        }
    }

    #[test]
    fn nobody_becomes_root_unless_the_policy_says_so() {
        let peer = Peer { pid: 1, uid: 1000, gid: 1, groups: vec![], terminal: None };
        let allowed = authorize(&peer, &[user("alice")], &Host).expect("allowed");
        assert_eq!(allowed.run_as(None), User::Id(1000));
        let bot = User::Name("bot".to_owned());
        assert_eq!(allowed.run_as(Some(&bot)), bot);
        assert_eq!(allowed.run_as(Some(&User::Id(0))), User::Id(0));
    }
}
