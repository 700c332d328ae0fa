//! Finds the files that have several names, for [`crate::policy::LinkedFile`].

mod mounts;
mod walk;

use crate::policy::{self, Image, LinkedFile, ValidPolicy};
use std::{
    collections::BTreeSet,
    rc::Rc,
    time::{Duration, Instant},
};
use walk::{Names, Walk};

/// A look at everything is good for so long: names anywhere (`**/.env`) take a walk over all local file systems.
const GOOD_FOR: Duration = Duration::from_secs(600);

/// Sets of places that are remembered together.
const REMEMBERED: usize = 16;

/// What was found for a policy.
#[derive(Debug, Default)]
pub struct Links {
    /// Files with several names that the policy denies or holds under one of them.
    pub files: Vec<LinkedFile>,
    /// Why there may be more, if there may.
    pub incomplete: Option<String>,
    /// What that was made of; `None`: nothing was looked at.
    pub looked: Option<Looked>,
}

/// Where was looked, and what was there: the same for all policies that stop the same places.
#[derive(Clone, Debug)]
pub struct Looked {
    places: Rc<BTreeSet<Vec<u8>>>,
    names: Rc<Names>,
}

/// Looks for them.
#[derive(Debug)]
pub struct Finder {
    limit: Duration,
    everything: Option<(Instant, Looked)>,
    /// What lies at some places, since [`Self::begin`].
    some: Vec<Looked>,
}

impl Finder {
    /// `limit` is the longest that one look may take; zero: nothing is looked at.
    pub fn new(limit: Duration) -> Self {
        Self { limit, everything: None, some: Vec::new() }
    }

    /// Policies are about to be published: one look at the same places is enough for all of them.
    pub fn begin(&mut self) {
        self.some.clear();
    }

    /// The next look sees everything anew.
    pub fn forget(&mut self) {
        self.everything = None;
        self.begin();
    }

    /// The files that matter to `policy`.
    pub fn find(&mut self, policy: &ValidPolicy, image: &Image) -> Links {
        if self.limit.is_zero() {
            return Links::default();
        }
        let looked = self.look(Rc::new(policy::link_places(policy)));
        let Names { names, incomplete } = &*looked.names;
        Links {
            files: policy::linked_files(image, names),
            incomplete: incomplete.clone(),
            looked: Some(looked),
        }
    }

    /// Whether there is nothing else where was looked than there was: then no policy has other files than it had.
    pub fn is_as_before(&mut self, looked: &Looked) -> bool {
        self.look(Rc::clone(&looked.places)).names == looked.names
    }

    fn look(&mut self, places: Rc<BTreeSet<Vec<u8>>>) -> Looked {
        if places.contains(b"/".as_slice()) {
            let known = self.everything.take().filter(|(since, _)| since.elapsed() <= GOOD_FOR);
            let (since, looked) = known.unwrap_or_else(|| (Instant::now(), self.walk(places)));
            self.everything = Some((since, looked.clone()));
            return looked;
        }
        if let Some(looked) = self.some.iter().find(|looked| looked.places == places) {
            return looked.clone();
        }
        let looked = self.walk(places);
        if self.some.len() < REMEMBERED {
            self.some.push(looked.clone());
        }
        looked
    }

    fn walk(&self, places: Rc<BTreeSet<Vec<u8>>>) -> Looked {
        let mut walk = Walk::new(Instant::now() + self.limit);
        places.iter().for_each(|place| walk.go(place));
        Looked { places, names: Rc::new(walk.finish()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_denied_file_is_found_by_its_other_name() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["secret/deep", "open"] {
            fs::create_dir_all(at(name)).expect("directory");
        }
        fs::write(at("secret/deep/key"), "k").expect("file");
        fs::write(at("secret/single"), "k").expect("file");
        fs::hard_link(at("secret/deep/key"), at("open/key")).expect("link");
        let text = format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
             metadata: {{ id: a, version: 1, owner: o@example.com, purpose: test }}\n\
             files:\n  - {{ deny: [read], paths: [\"{}/**\"] }}\n",
            at("secret").display()
        );
        let policy = policy::parse("a.yaml", &text).expect("a policy");
        let image = policy::compile(&policy).expect("compiles");
        let links = Finder::new(Duration::from_secs(60)).find(&policy, &image);
        assert_eq!(links.incomplete, None);
        let paths: Vec<_> = links.files.iter().map(|file| String::from_utf8_lossy(&file.path)).collect();
        assert_eq!(paths, [at("secret/deep/key").display().to_string()]);
    }

    #[test]
    fn a_look_that_takes_too_long_says_where_it_ended() {
        let text = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
                    metadata: { id: a, version: 1, owner: o@example.com, purpose: test }\n\
                    files:\n  - { deny: [read], paths: [\"/etc/shadow\"] }\n";
        let policy = policy::parse("a.yaml", text).expect("a policy");
        let image = policy::compile(&policy).expect("compiles");
        let find = |limit| Finder::new(limit).find(&policy, &image).incomplete;
        let why = find(Duration::from_nanos(1));
        let over = why.as_ref().is_some_and(|why| why.starts_with("the time for looking was over at /"));
        assert!(over, "{why:?}");
        // Whoever switches it off knows.
        assert_eq!(find(Duration::ZERO), None);
    }
}
