//! The decision itself, once, for the kernel programs and for everything that explains them.

use crate::{
    access::file,
    map::{Masks, TierMap},
};

/// What becomes of an operation. Ordered: the larger one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Verdict {
    /// The operation goes on.
    Allow = 0,
    /// A person decides.
    Hold = 1,
    /// The operation is refused with `EPERM`.
    Deny = 2,
}

impl Masks {
    /// No rule says anything.
    pub const NONE: Self = Self { allow: [0; 3], hold: [0; 3], deny: 0, set: 0 };

    /// What two sets of matching rules say together. Order does not matter. The number of the set is not joined.
    #[inline(always)]
    pub fn join(&mut self, other: &Self) {
        self.allow[0] |= other.allow[0];
        self.allow[1] |= other.allow[1];
        self.allow[2] |= other.allow[2];
        self.hold[0] |= other.hold[0];
        self.hold[1] |= other.hold[1];
        self.hold[2] |= other.hold[2];
        self.deny |= other.deny;
    }

    /// The operations that these rules allow, hold and deny in a session whose tiers mean `tiers`.
    ///
    /// A rule with both a verdict and a tier gets the stricter of the two.
    #[inline(always)]
    pub fn fold(&self, tiers: &TierMap) -> Folded {
        let (a, h, t, u) = (&self.allow, &self.hold, &tiers.allow, &tiers.hold);
        let allow = (a[0] & t[0]) | (a[1] & t[1]) | (a[2] & t[2]);
        let hold = (a[0] & u[0])
            | (a[1] & u[1])
            | (a[2] & u[2])
            | (h[0] & (t[0] | u[0]))
            | (h[1] & (t[1] | u[1]))
            | (h[2] & (t[2] | u[2]));
        let deny = self.deny
            | ((a[0] | h[0]) & !(t[0] | u[0]))
            | ((a[1] | h[1]) & !(t[1] | u[1]))
            | ((a[2] | h[2]) & !(t[2] | u[2]));
        Folded { allow, hold, deny }
    }
}

/// Two sets of masks and a tier map as words, for the one question that most calls of a hook are about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// `allow` of the three tiers, then `hold` of the first.
    pub low: u64,
    /// `hold` of the other two tiers, then `deny`, then [`Masks::set`].
    pub high: u64,
}

impl Words {
    /// Whether `want` is allowed for certain: every operation by a tier that runs, and none held, denied, or
    /// allowed by a tier that does not run as well. `tiers` is [`TierMap::allow`] as a word. False only means
    /// that [`Masks::fold`] has to be asked.
    #[inline(always)]
    pub fn clearly_allows(&self, tiers: u64, want: u16) -> bool {
        const ALLOW: u64 = 0xffff_ffff_ffff;
        let tiers = tiers & ALLOW;
        let runs = self.low & tiers;
        // The number of the set goes out at the top.
        let stops = (self.low & !tiers) | self.high << 16;
        let runs = runs | runs >> 16 | runs >> 32;
        let stops = stops | stops >> 16;
        let stops = stops | stops >> 32;
        let want = u64::from(want);
        want & !runs == 0 && want & stops == 0
    }

    /// Whether two say the same, whichever rules do.
    #[inline(always)]
    pub fn say_the_same(&self, other: &Self) -> bool {
        self.low == other.low && self.high << 16 == other.high << 16
    }
}

/// Operations by what becomes of them; the three may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// Operations that some rule allows.
    pub allow: u16,
    /// Operations that some rule leaves to a person.
    pub hold: u16,
    /// Operations that some rule refuses.
    pub deny: u16,
}

impl Folded {
    /// The verdict on doing all of `want` at once: deny beats hold beats allow, and what no rule
    /// mentions is denied.
    #[inline(always)]
    pub fn verdict(&self, want: u16) -> Verdict {
        if want & self.deny != 0 || want & !(self.allow | self.hold) != 0 {
            Verdict::Deny
        } else if want & self.hold != 0 {
            Verdict::Hold
        } else {
            Verdict::Allow
        }
    }

    /// The operations that are allowed without asking anybody.
    #[inline(always)]
    pub fn free(&self) -> u16 {
        self.allow & !self.hold & !self.deny
    }

    /// The verdict on mapping a file executable: what may be executed may be mapped too (that is how
    /// it comes to run), unless a rule denies `load`.
    #[inline(always)]
    pub fn map_verdict(&self) -> Verdict {
        if self.deny & file::LOAD != 0 || self.free() & (file::EXEC | file::LOAD) == 0 {
            Verdict::Deny
        } else {
            Verdict::Allow
        }
    }

    /// The verdict on opening a file to execute it, which only the kernel does, for `execve` itself: whoever may
    /// run it by approval is asked when it runs.
    #[inline(always)]
    pub fn open_to_execute(&self) -> Verdict {
        if self.runs_when_approved() { Verdict::Allow } else { self.map_verdict() }
    }

    /// Whether the file may be executed if a person approves it, and be mapped for that alone.
    #[inline(always)]
    pub fn runs_when_approved(&self) -> bool {
        self.hold & file::EXEC != 0 && self.deny & (file::EXEC | file::LOAD) == 0
    }

    /// Whether an object that has these rights may get a further name with the rights `new`. The
    /// name must not give what the present one does not; making and removing names is the directories'
    /// matter and does not count.
    #[inline(always)]
    pub fn may_also_be(&self, new: &Self) -> bool {
        let names = file::CREATE | file::DELETE | file::RENAME | file::LINK | file::LIST;
        new.free() & !self.free() & !names == 0
    }

    /// Whether an object that has these rights under its old name may take a name with the rights
    /// `new`, without a copy that the agent could not make itself.
    ///
    /// Reading and changing must not become possible by moving; running may, where the agent can
    /// read the object and so could copy it.
    #[inline(always)]
    pub fn may_become(&self, new: &Folded) -> bool {
        let gained = new.free() & !self.free();
        let run = file::EXEC | file::LOAD | file::ANY_ARGUMENTS;
        gained & (file::READ | file::WRITE | file::TRUNCATE | file::METADATA | file::CONNECT) == 0
            && (gained & run == 0 || self.free() & file::READ != 0)
    }
}
