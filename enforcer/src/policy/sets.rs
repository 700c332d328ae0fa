//! Which rules allow something together? Numbers for these sets, so that the kernel can tell the first use of each.

use super::rule::{Rule, normal};
use enforcer_common::{
    access::file::{ANY_ARGUMENTS, EXEC},
    limits::SETS,
    map::Masks,
};
use std::{cell::RefCell, collections::HashMap};

/// The numbers of the sets that were met. There are none in a policy of very many rules.
pub(super) struct Sets<'a> {
    rules: &'a [Rule],
    numbers: RefCell<HashMap<Box<[u32]>, u16>>,
}

impl<'a> Sets<'a> {
    pub(super) fn new(rules: &'a [Rule]) -> Self {
        Self { rules, numbers: RefCell::default() }
    }

    /// Whether the rules about paths (or else those about addresses) are so few that it is worth trying to tell their
    /// sets apart.
    pub(super) fn may_be_told(&self, paths: bool) -> bool {
        let of = |rule: &&Rule| rule.globs().is_empty() != paths && allows(&rule.masks()) != 0;
        self.rules.iter().filter(of).count() < SETS
    }

    /// Whether every set that was met has a number of its own.
    pub(super) fn are_told(&self) -> bool {
        self.numbers.borrow().len() < SETS
    }

    /// What these rules say together, with the number of those that allow something.
    pub(super) fn masks(&self, labels: &[u32]) -> Masks {
        let masks = joined(self.rules, labels);
        Masks { set: self.number(labels, &masks), ..masks }
    }

    /// The number of those of the rules that allow something of what all together do; 0 where none does. Executing
    /// programs does not count: each time has a record.
    pub(super) fn number(&self, labels: &[u32], all: &Masks) -> u16 {
        let allowed = allows(all) & !(EXEC | ANY_ARGUMENTS);
        let allowing = |rule: &&u32| allows(&self.rules[**rule as usize].masks()) & allowed != 0;
        let set: Box<[u32]> = labels.iter().filter(allowing).copied().collect();
        if set.is_empty() {
            return 0;
        }
        let mut numbers = self.numbers.borrow_mut();
        let fresh = numbers.len() + 1;
        if fresh >= SETS && !numbers.contains_key(&set) {
            // One too many: then nobody uses any of them.
            numbers.insert(set, 0);
            return 0;
        }
        *numbers.entry(set).or_insert(fresh as u16)
    }

    /// Forgets all numbers.
    pub(super) fn clear(&self) {
        self.numbers.borrow_mut().clear();
    }
}

/// What rules say together, whichever they are.
pub(super) fn joined(rules: &[Rule], labels: &[u32]) -> Masks {
    let mut masks = Masks::NONE;
    labels.iter().for_each(|rule| masks.join(&rules[*rule as usize].masks()));
    normal(&masks)
}

fn allows(masks: &Masks) -> u16 {
    masks.allow[0] | masks.allow[1] | masks.allow[2]
}
