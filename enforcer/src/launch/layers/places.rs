//! Where the places of a scope are at this launch, and what Landlock lets a session do there. Never less than the
//! policy: what Landlock cannot tell apart is allowed here and left to the kernel programs.

use super::scope::{OF_NAMES, Place};
use enforcer_common::access::file;
use landlock::{AccessFs, BitFlags};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// Everything by which a name comes into being.
const MAKE: BitFlags<AccessFs> = landlock::make_bitflags!(AccessFs::{
    MakeChar | MakeDir | MakeReg | MakeSock | MakeFifo | MakeBlock | MakeSym
});
const REMOVE: BitFlags<AccessFs> = landlock::make_bitflags!(AccessFs::{ RemoveFile | RemoveDir });
/// What a file itself can have.
const OF_FILES: BitFlags<AccessFs> =
    landlock::make_bitflags!(AccessFs::{ Execute | WriteFile | ReadFile | Truncate });

/// Objects by name and what is allowed on each and below.
pub type Found = BTreeMap<PathBuf, BitFlags<AccessFs>>;

/// What a ruleset refuses unless a place allows it.
pub fn handled(reading: bool, truncate: bool) -> BitFlags<AccessFs> {
    let changes = MAKE | REMOVE | AccessFs::Refer | AccessFs::WriteFile | AccessFs::Execute;
    match (reading, truncate) {
        (false, _) => changes,
        (true, false) => changes | AccessFs::ReadFile | AccessFs::ReadDir,
        (true, true) => changes | AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Truncate,
    }
}

/// The places as they are now, with everything of `handled` that a policy could allow there.
pub fn find(places: &[Place], handled: BitFlags<AccessFs>) -> Result<Found, Errno> {
    let mut found = Found::new();
    for place in places {
        let (names, objects) = (place.operations & OF_NAMES, place.operations & !OF_NAMES);
        // Whoever may make a name may put another object in the place of the one that has it now.
        let replaceable = place.exact && names & file::CREATE != 0;
        if place.exact && names != 0 {
            let above = place.path.split_last().map_or(&[][..], |(_, above)| above);
            let operations = names | if replaceable { objects } else { 0 };
            add(&mut found, above, operations, handled)?;
        }
        let here = if place.exact { objects } else { place.operations };
        if here != 0 && !(replaceable && place.path.is_empty()) {
            add(&mut found, &place.path, here, handled)?;
        }
    }
    if places.iter().any(|place| place.operations & (file::RENAME | file::LINK) != 0) {
        let_move(&mut found);
    }
    Ok(found)
}

/// The object of that name, and how much of `access` it can have; `None` if it has gone since it was found. One at a
/// time: a policy may name more objects than a process may have descriptors.
pub fn open_place(
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<Option<(OwnedFd, BitFlags<AccessFs>)>, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        fd => fd?,
    };
    let is_directory = FileType::from_raw_mode(fstat(&fd)?.st_mode).is_dir();
    let access = if is_directory { access } else { access & OF_FILES };
    Ok((!access.is_empty()).then_some((fd, access)))
}

/// Lets things move between directories wherever a policy could let them. Landlock wants two things for that: its
/// own right in both directories, and that nothing has more rights where it arrives than where it was. The policy
/// wants the latter too, but by names, which Landlock sees coarser; so all places between which things can move get
/// what any of them has.
fn let_move(rights: &mut Found) {
    let movable = |access: BitFlags<AccessFs>| access.intersects(MAKE | REMOVE);
    let places: Vec<PathBuf> =
        rights.iter().filter(|(_, access)| movable(**access)).map(|(path, _)| path.clone()).collect();
    let related = |path: &PathBuf| places.iter().any(|at| path.starts_with(at) || at.starts_with(path));
    let union = rights.iter().filter(|(path, _)| related(path)).fold(BitFlags::EMPTY, |all, (_, a)| all | *a);
    for place in &places {
        rights.entry(place.clone()).and_modify(|access| *access |= union);
    }
    *rights.entry("/".into()).or_default() |= AccessFs::Refer;
}

fn add(
    found: &mut Found,
    path: &[crate::control::message::Bytes],
    operations: u16,
    handled: BitFlags<AccessFs>,
) -> Result<(), Errno> {
    let access = access(operations) & handled;
    if access.is_empty() {
        return Ok(());
    }
    let (at, complete) = nearest(path)?;
    // What is missing right below the root is somebody else's to make, unless the policy lets the session.
    let is_root = at.as_os_str().len() == 1;
    if !complete && is_root && operations & file::CREATE == 0 {
        return Ok(());
    }
    *found.entry(at).or_default() |= access;
    Ok(())
}

/// The object of that name, or the nearest directory above it that is there. Names are those of objects, so what is
/// behind a symbolic link has another one, and the link ends the way.
fn nearest(path: &[crate::control::message::Bytes]) -> Result<(PathBuf, bool), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (mut at, mut fd) = (PathBuf::from("/"), open("/", flags, Mode::empty())?);
    for name in path {
        let name = OsStr::from_bytes(&name.0);
        let Ok(next) = openat(&fd, name, flags, Mode::empty()) else { return Ok((at, false)) };
        if FileType::from_raw_mode(fstat(&next)?.st_mode).is_symlink() {
            return Ok((at, false));
        }
        at.push(name);
        fd = next;
    }
    Ok((at, true))
}

/// What Landlock calls these operations.
fn access(operations: u16) -> BitFlags<AccessFs> {
    let words = [
        (file::READ, AccessFs::ReadFile.into()),
        (file::LIST, AccessFs::ReadDir.into()),
        (file::WRITE, AccessFs::WriteFile | AccessFs::Truncate),
        (file::TRUNCATE, AccessFs::Truncate.into()),
        (file::CREATE | file::LINK, MAKE),
        (file::DELETE | file::RENAME, REMOVE),
        // The kernel opens a program for reading, and Landlock asks for that too.
        (file::EXEC | file::LOAD, AccessFs::Execute | AccessFs::ReadFile),
    ];
    let meant = words.into_iter().filter(|(operation, _)| operations & operation != 0);
    meant.fold(BitFlags::EMPTY, |all, (_, access)| all | access)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Bytes;
    use std::{fs, os::unix::fs::symlink};

    fn place(path: &Path, exact: bool, operations: u16) -> Place {
        let names = path.components().skip(1).map(|name| Bytes(name.as_os_str().as_bytes().to_vec()));
        Place { path: names.collect(), exact, operations }
    }

    fn found(places: &[Place], reading: bool) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
        let all = find(places, handled(reading, true)).expect("places");
        let opened = |(path, access): (PathBuf, BitFlags<AccessFs>)| {
            open_place(&path, access).expect("it opens").map(|(_, access)| (path, access))
        };
        all.into_iter().filter_map(opened).collect()
    }

    #[test]
    fn a_place_that_is_not_there_is_the_nearest_directory_above() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().canonicalize().expect("path");
        symlink("/etc", root.join("link")).expect("link");
        for missing in ["none", "none/deeper", "link/passwd", "link"] {
            let there = found(&[place(&root.join(missing), false, file::WRITE)], false);
            assert_eq!(there, [(root.clone(), AccessFs::WriteFile.into())], "{missing}");
        }
    }

    #[test]
    fn what_is_missing_below_the_root_counts_only_where_the_session_may_make_it() {
        let missing = Path::new("/there-is-no-such-directory/x");
        assert_eq!(found(&[place(missing, false, file::WRITE | file::LOAD)], false), []);
        let made = found(&[place(missing, false, file::WRITE | file::CREATE)], false);
        assert_eq!(made, [(PathBuf::from("/"), MAKE | AccessFs::WriteFile)]);
    }

    #[test]
    fn a_files_name_is_its_directorys() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().canonicalize().expect("path");
        let file = root.join("f");
        fs::write(&file, "").expect("write");
        let only = found(&[place(&file, true, file::WRITE)], false);
        assert_eq!(only, [(file.clone(), AccessFs::WriteFile.into())]);
        let removed = found(&[place(&file, true, file::WRITE | file::DELETE)], false);
        assert_eq!(removed, [(root.clone(), REMOVE), (file.clone(), AccessFs::WriteFile.into())]);
        let replaced = found(&[place(&file, true, file::WRITE | file::CREATE)], false);
        let both = (root, MAKE | AccessFs::WriteFile);
        assert_eq!(replaced, [both, (file, AccessFs::WriteFile.into())]);
    }

    #[test]
    fn things_may_move_between_all_places_where_names_may_change() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().canonicalize().expect("path");
        let (a, b, bin) = (root.join("a"), root.join("b"), root.join("b/bin"));
        fs::create_dir_all(&a).expect("dir");
        fs::create_dir_all(&bin).expect("dir");
        let change = file::CREATE | file::DELETE | file::RENAME | file::WRITE;
        let places = [place(&a, false, change), place(&b, false, change), place(&bin, false, file::EXEC)];
        let all = MAKE | REMOVE | AccessFs::WriteFile | AccessFs::Execute;
        assert_eq!(
            found(&places, false),
            [
                (PathBuf::from("/"), AccessFs::Refer.into()),
                (a.clone(), all),
                (b, all),
                (bin, AccessFs::Execute.into())
            ]
        );
        let still = [place(&a, false, file::CREATE | file::WRITE)];
        assert_eq!(found(&still, false), [(a, MAKE | AccessFs::WriteFile)]);
    }

    #[test]
    fn what_has_gone_meanwhile_and_what_leads_elsewhere_is_left_out() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().canonicalize().expect("path");
        symlink("/etc", root.join("link")).expect("link");
        for gone in ["none", "link", "link/passwd"] {
            assert!(open_place(&root.join(gone), handled(true, true)).expect("no error").is_none(), "{gone}");
        }
    }

    #[test]
    fn reading_is_handled_only_where_it_was_asked_for() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().canonicalize().expect("path");
        let places = [place(&root, false, file::READ | file::LIST)];
        assert_eq!(found(&places, false), []);
        assert_eq!(found(&places, true), [(root, AccessFs::ReadFile | AccessFs::ReadDir)]);
    }
}
