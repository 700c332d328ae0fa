//! The users and groups of this host.

use super::authorize::Names;
use crate::policy;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::{ffi::CString, os::unix::ffi::OsStrExt};

/// The user that a session runs as, with everything that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// The user's name, or its number where it has none.
    pub name: String,
    /// Home directory.
    pub home: Vec<u8>,
}

/// The host's own lists.
pub struct Host;

impl Names for Host {
    fn uid(&self, name: &str) -> Option<u32> {
        User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn gid(&self, name: &str) -> Option<u32> {
        Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    }
}

/// Looks a user up. A number without an entry is a user without a name, groups or home.
pub fn identity(run_as: &policy::User) -> Result<Identity, String> {
    let (found, shown) = match run_as {
        policy::User::Name(name) => (User::from_name(name), format!("user {name}")),
        policy::User::Id(uid) => (User::from_uid(Uid::from_raw(*uid)), format!("user {uid}")),
    };
    let found = found.map_err(|e| format!("cannot look up {shown}: {}", e.desc()))?;
    match (found, run_as) {
        (Some(user), _) => {
            let name = CString::new(user.name.as_bytes()).map_err(|e| e.to_string())?;
            let groups = getgrouplist(&name, user.gid)
                .map_err(|e| format!("cannot look up the groups of {shown}: {}", e.desc()))?;
            Ok(Identity {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                groups: groups.into_iter().map(Gid::as_raw).collect(),
                name: user.name,
                home: user.dir.as_os_str().as_bytes().to_vec(),
            })
        }
        (None, policy::User::Id(uid)) => Ok(Identity {
            uid: *uid,
            gid: *uid,
            groups: vec![*uid],
            name: uid.to_string(),
            home: b"/".to_vec(),
        }),
        (None, policy::User::Name(name)) => Err(format!("there is no user {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_number() {
        let root = identity(&policy::User::Name("root".to_owned())).expect("root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(identity(&policy::User::Id(0)).expect("root"), root);
        assert_eq!(Host.uid("root"), Some(0));
    }

    #[test]
    fn a_name_that_nobody_has_is_an_error_and_a_number_is_not() {
        assert!(identity(&policy::User::Name("no-such-user-here".to_owned())).is_err());
        let stranger = identity(&policy::User::Id(3_999_999_999)).expect("a stranger");
        assert_eq!((stranger.gid, stranger.groups), (3_999_999_999, vec![3_999_999_999]));
    }
}
