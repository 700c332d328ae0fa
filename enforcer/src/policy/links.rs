//! Files with several names: a rule that denies or holds one name is about the file under all of them.

use super::{
    glob::{Atom, Component},
    image::Image,
    rule::{Effect, Objects, Rule, Tier},
    valid::ValidPolicy,
};
use enforcer_common::map::Masks;
use std::collections::{BTreeMap, BTreeSet};

/// One name of a file that has several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Device of the file system, in the kernel's encoding: major << 20 | minor.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// The name, absolute.
    pub path: Vec<u8>,
}

/// A file with several names, one of which a policy denies or holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedFile {
    /// Device of the file system, in the kernel's encoding: major << 20 | minor.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// One of the names that rules deny or hold something under.
    pub path: Vec<u8>,
    /// What they deny and hold under any of its names.
    pub masks: Masks,
}

/// The files among `names` that a policy denies or holds something of.
pub fn linked_files(image: &Image, names: &[Name]) -> Vec<LinkedFile> {
    let mut files: BTreeMap<(u32, u64), LinkedFile> = BTreeMap::new();
    for Name { device, inode, path } in names {
        let masks = image.stops_at(path);
        if masks == Masks::NONE {
            continue;
        }
        let fresh = LinkedFile { device: *device, inode: *inode, path: path.clone(), masks: Masks::NONE };
        files.entry((*device, *inode)).or_insert(fresh).masks.join(&masks);
    }
    files.into_values().collect()
}

/// The names at and below which everything lies that a policy denies or holds by path; `/` where a rule names
/// things anywhere. What a rule allows as critical it denies.
pub fn places(policy: &ValidPolicy) -> BTreeSet<Vec<u8>> {
    let stops = |rule: &&Rule| rule.effect() != Effect::Allow || rule.tier() == Some(Tier::Critical);
    let stops = policy.rules().iter().filter(stops);
    let globs = stops.filter_map(|rule| match rule.objects() {
        Objects::Paths(globs) => Some(globs),
        Objects::Endpoints(_) => None,
    });
    let patterns = globs.flatten().flat_map(|glob| glob.patterns());
    let all: BTreeSet<Vec<u8>> = patterns.map(|pattern| place(pattern.components())).collect();
    // A place in another one is looked at with it.
    let within = |inner: &[u8], outer: &[u8]| {
        outer == b"/" || inner.starts_with(outer) && inner.get(outer.len()) == Some(&b'/')
    };
    all.iter()
        .filter(|inner| !all.iter().any(|outer| outer != *inner && within(inner, outer)))
        .cloned()
        .collect()
}

/// The longest name at the beginning of a pattern without wildcards: a directory, or all of it.
fn place(components: &[Component]) -> Vec<u8> {
    let mut path = Vec::new();
    for component in components {
        let Component::Name(atoms) = component else { break };
        let name: Option<Vec<u8>> =
            atoms.iter().map(|atom| if let Atom::Byte(byte) = atom { Some(*byte) } else { None }).collect();
        let Some(name) = name else { break };
        path.push(b'/');
        path.extend(name);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::policy;
    use enforcer_common::access::file::{READ, WRITE};

    fn name(inode: u64, path: &str) -> Name {
        Name { device: 1, inode, path: path.as_bytes().to_vec() }
    }

    #[test]
    fn a_file_is_stopped_under_every_name() {
        let policy = policy(
            "files:\n  - { allow: [read, write], paths: [\"/w/**\"] }\n  \
             - { deny: [read], paths: [\"/s/**\"] }\n  - { hold: [write], paths: [\"/h/*\"] }\n",
        );
        let image = crate::policy::compile(&policy).expect("compiles");
        let names = [name(1, "/w/a"), name(1, "/s/a"), name(2, "/w/b"), name(2, "/w/c"), name(1, "/h/a")];
        let files = linked_files(&image, &names);
        let [file] = &files[..] else { panic!("{files:?}") };
        assert_eq!((file.inode, file.masks.deny & READ, file.masks.allow), (1, READ, [0; 3]));
        assert_eq!(file.masks.hold.iter().fold(0, |all, mask| all | mask) & WRITE, WRITE);
    }

    #[test]
    fn what_is_anywhere_is_looked_for_everywhere_and_the_rest_where_it_is() {
        let places_of = |paths: &str| -> Vec<String> {
            let policy = policy(&format!("files:\n  - {{ deny: [read], paths: [{paths}] }}\n"));
            let texts = places(&policy).into_iter().map(|path| String::from_utf8_lossy(&path).into_owned());
            // Every policy denies the Enforcer's own files too.
            texts.filter(|path| !["enforcer", "agents.slice"].iter().any(|own| path.contains(own))).collect()
        };
        assert_eq!(
            places_of("\"/s/**\", \"/s/t/*.key\", \"/a/b\", \"/sa/{x,y}/z\""),
            ["/a/b", "/s", "/sa/x/z", "/sa/y/z"]
        );
        assert_eq!(places_of("\"/s/**\", \"**/.env\""), ["/"]);
        assert_eq!(places_of("\"/top\""), ["/top"]);
    }

    #[test]
    fn what_is_critical_is_looked_for_like_what_is_denied() {
        let of = |tier: &str| {
            let policy = policy(&format!(
                "files:\n  - {{ allow: [read], paths: [\"/s/**\"], tier: {tier}, because: x }}\n"
            ));
            let image = crate::policy::compile(&policy).expect("compiles");
            let files = linked_files(&image, &[name(1, "/s/a")]);
            (places(&policy).contains(&b"/s"[..]), files.iter().any(|file| file.masks.deny & READ != 0))
        };
        assert_eq!((of("critical"), of("low")), ((true, true), (false, false)));
    }
}
