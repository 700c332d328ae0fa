//! Which name does an object have, and what do the rules say about it?
//!
//! The name is the one in the mount namespace that was recorded when the task was armed: the walk
//! goes from the object up through dentries and mounts to that namespace's root, then the policy's
//! automata run down over the components. The states reached at a directory are remembered in its
//! inode, valid while no directory is renamed and nothing is mounted; then only the last
//! component is left to do.

mod automaton;
mod cache;
mod links;
mod quick;
mod uses;
mod walk;

pub use automaton::{arena, class_table, masks, run_name, step};
pub use links::{find_link, known as known_link, loses_rules};
pub use quick::may_open;
pub use uses::{is_first, is_unused, note_use};
pub use walk::{Round, climb, outcome};

use crate::{
    maps,
    object::{self, pointer},
    subject::Subject,
    verifier::anew,
};
use automaton::{slash, twin, words};
pub use cache::same_and_allowed;
use cache::{memory_of, remember, remembered};
use enforcer_common::{
    limits,
    map::{Masks, Policy},
    scratch::Scratch,
    verdict::Folded,
};
use links::{Others, may_have_others, other_names};
use uses::is_used;
use walk::walk;

/// An automaton's states, one per group.
pub type States = [u32; 3];

/// What the rules say about the object at `dentry`, whose name ended in `states`, under all its names.
#[inline(always)]
pub fn rights(subject: &Subject, dentry: *const u8, states: &States) -> Folded {
    rights_with(subject, other_names(subject, dentry), states)
}

/// As [`rights`], with what is known of other names.
#[inline(always)]
pub fn rights_with(subject: &Subject, others: Others, states: &States) -> Folded {
    let mut all = masks_of(subject.policy, states);
    all.join(&links::masks(others));
    all.fold(&subject.tiers())
}

/// What the rules say about a name that ended in `states`.
#[inline(always)]
fn masks_of(policy: *const Policy, states: &States) -> Masks {
    let policy = anew(policy);
    let mut all = Masks::NONE;
    let arena = arena();
    if !policy.is_null() {
        // SAFETY: map values.
        unsafe {
            let groups = (*policy).groups;
            all.join(&masks(arena, states[0]));
            if groups > 1 {
                all.join(&masks(arena, states[1]));
                all.join(&masks(arena, states[2]));
            }
        }
    }
    all
}

/// Whether the masks alone say that `want` is allowed: most questions end here. False says nothing.
#[inline(always)]
pub fn clearly_allowed(
    subject: &Subject,
    arena: *const u8,
    dentry: *const u8,
    states: &States,
    want: u16,
) -> bool {
    if want == 0 || subject.policy.is_null() || subject.session.is_null() {
        return false;
    }
    // SAFETY: map values.
    unsafe {
        if (*subject.policy).groups != 1 {
            return false;
        }
        let tiers = core::ptr::read_volatile((&raw const (*subject.session).tiers).cast::<u64>());
        let words = words(arena, states[0]);
        words.clearly_allows(tiers, want)
            && is_used(subject.policy, words.high, want)
            && !may_have_others(subject, dentry)
    }
}

/// An object to be judged: what a `struct path` and a dentry say.
#[derive(Clone, Copy)]
pub struct Place {
    /// Dentry of the directory, for the cache; null if there is none to remember at.
    pub directory: *const u8,
    /// The object's dentry.
    pub dentry: *const u8,
    /// The mount.
    pub mount: *const u8,
    /// The kernel's count of renames before any of it was read.
    pub renames: u32,
}

impl Place {
    /// An object in `directory` (a `struct path`).
    #[inline(always)]
    pub fn below(directory: *const u8, dentry: *const u8) -> Self {
        Self::below_since(directory, dentry, object::renames())
    }

    /// The same, where the count of renames is known from before.
    #[inline(always)]
    pub fn below_since(directory: *const u8, dentry: *const u8, renames: u32) -> Self {
        Self {
            directory: pointer(directory, &object::PATH_DENTRY),
            dentry,
            mount: pointer(directory, &object::PATH_MOUNT),
            renames,
        }
    }

    /// The object that `path` (a `struct path`) names.
    #[inline(always)]
    pub fn at(path: *const u8) -> Self {
        let renames = object::renames();
        let dentry = pointer(path, &object::PATH_DENTRY);
        let mount = pointer(path, &object::PATH_MOUNT);
        let parent = pointer(dentry, &object::DENTRY_PARENT);
        let directory = if dentry == parent { core::ptr::null() } else { parent };
        Self { directory, dentry, mount, renames }
    }

    /// An object whose directory is not known, so that nothing is remembered of it.
    #[inline(always)]
    pub fn alone(dentry: *const u8, mount: *const u8) -> Self {
        Self { directory: core::ptr::null(), dentry, mount, renames: 0 }
    }
}

/// The task's scratch with the walk's beginning filled in, or null.
#[inline(always)]
pub fn begin(subject: &Subject, dentry: u64, mount: u64) -> *mut Scratch {
    let sc = maps::SCRATCH.of_current_or_new();
    if !sc.is_null() {
        // SAFETY: not null, and nobody else uses a task's scratch.
        unsafe {
            core::ptr::write_volatile(&raw mut (*sc).dentry, dentry);
            core::ptr::write_volatile(&raw mut (*sc).mount, mount);
            core::ptr::write_volatile(&raw mut (*sc).namespace, subject.namespace);
            core::ptr::write_volatile(&raw mut (*sc).policy, u64::from(subject.slot));
        }
    }
    sc
}

/// What is known of an object.
pub enum Answer {
    /// What was asked for is allowed.
    Allowed,
    /// Its name ends in these states.
    Ends(States),
}

/// The states in which the object's name ends, from the directory's cache if possible.
#[inline(always)]
pub fn states(subject: &Subject, place: &Place) -> Result<States, u64> {
    match ask(subject, place, 0) {
        Ok(Answer::Ends(states)) => Ok(states),
        Ok(Answer::Allowed) => Err(outcome::UNKNOWN),
        Err(why) => Err(why),
    }
}

/// Whether `want` is allowed, as far as the directory's cache says, else the states. A `want` of 0 asks for the
/// states.
#[inline(always)]
pub fn ask(subject: &Subject, place: &Place, want: u16) -> Result<Answer, u64> {
    let inode = if place.directory.is_null() {
        core::ptr::null()
    } else {
        pointer(place.directory, &object::DENTRY_INODE)
    };
    let memory = if inode.is_null() { core::ptr::null_mut() } else { memory_of(inode) };
    if !memory.is_null()
        && let Some(answer) = remembered(subject, place, inode, memory, want)
    {
        return Ok(answer);
    }
    let sc = begin(subject, place.dentry as u64, place.mount as u64);
    if sc.is_null() {
        return Err(outcome::UNKNOWN);
    }
    let result = walk(sc);
    if result != outcome::KNOWN {
        return Err(result);
    }
    // SAFETY: not null.
    unsafe {
        let sequence = core::ptr::read_volatile(&raw const (*sc).sequence);
        // The directory was read before the walk began; the object may have moved to another one in
        // between, whose states must not be remembered at this one.
        let same = core::ptr::read_volatile(&raw const (*sc).directory) == place.directory as u64;
        if !inode.is_null() && sequence != 0 && same {
            remember(subject, place, inode, memory, sequence, sc);
        }
        let states = [(*sc).object[0], (*sc).object[1], (*sc).object[2]];
        if clearly_allowed(subject, arena(), place.dentry, &states, want) {
            return Ok(Answer::Allowed);
        }
        Ok(Answer::Ends(states))
    }
}

/// The states of a walk without a cache, for hooks whose pointers the verifier does not trust.
#[inline(always)]
pub fn states_uncached(subject: &Subject, dentry: u64, mount: u64) -> Result<States, u64> {
    let sc = begin(subject, dentry, mount);
    if sc.is_null() {
        return Err(outcome::UNKNOWN);
    }
    let result = walk(sc);
    if result != outcome::KNOWN {
        return Err(result);
    }
    // SAFETY: not null.
    unsafe { Ok([(*sc).object[0], (*sc).object[1], (*sc).object[2]]) }
}

/// Whether a directory keeps all the rules below it under a name that ends in `new`.
#[inline(always)]
pub fn same_directory(subject: &Subject, old: &States, new: &States) -> bool {
    let arena = arena();
    if subject.policy.is_null() {
        return false;
    }
    // SAFETY: map values.
    unsafe {
        let groups = u64::from((*subject.policy).groups);
        let mut group = 0u64;
        while group < limits::GROUPS as u64 {
            if group >= groups {
                break;
            }
            let (a, b) = match group {
                0 => (old[0], new[0]),
                1 => (old[1], new[1]),
                _ => (old[2], new[2]),
            };
            let (below_a, below_b) = (
                slash(arena, subject.policy, group, u64::from(a)),
                slash(arena, subject.policy, group, u64::from(b)),
            );
            if twin(arena, below_a) != twin(arena, below_b) || !words(arena, a).say_the_same(&words(arena, b))
            {
                return false;
            }
            group += 1;
        }
        true
    }
}
