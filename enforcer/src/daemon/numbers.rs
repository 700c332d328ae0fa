//! What the policy numbers in records stand for, those of earlier daemons included.
//!
//! A number is noted before the kernel can name it, and forgotten when no record with it can come any more:
//! its policy was replaced, every program that could still use it has ended, and the rings were empty after
//! that.

use super::{
    enforcement::PublishedPolicy,
    loaded::{Kept, Loaded},
    published::{Published, Store},
};
use crate::event::{json::PolicyNote, text::hex};
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    rc::Rc,
    time::Instant,
};

/// No program of the kernel runs for so long, in nanoseconds (see `kernel::publish`).
const LONGEST_PROGRAM: i128 = 60_000_000_000;

/// Numbers and what they stand for.
pub struct Numbers {
    store: Store,
    tables: String,
    entries: BTreeMap<u32, Entry>,
    /// The number that is in force of each agent.
    current: BTreeMap<String, u32>,
}

struct Entry {
    what: Published,
    /// The policy itself, read again when a record first asks for its rules. `None`: this build reads its text as
    /// another policy.
    known: OnceCell<Option<Known>>,
    /// Boot time at which it was seen not to be in force.
    replaced: Option<i128>,
}

#[derive(Clone)]
struct Known {
    kept: Rc<Kept>,
    /// Where its tables lie, if they are those that the kernel has.
    base: Option<u32>,
}

impl Known {
    fn new(kept: Rc<Kept>, image: &str, what: &Published) -> Self {
        let base = (image == what.image).then_some(what.base);
        Self { kept, base }
    }
}

/// What the kernel says about its policies at the start.
pub struct InKernel {
    /// What tells the kernel's tables from any others.
    pub tables: String,
    /// The numbers of the policies that it holds, and their digests.
    pub held: BTreeMap<u32, [u8; 32]>,
    /// Those that are some agent's.
    pub in_force: BTreeSet<u32>,
}

impl Numbers {
    /// Takes over what earlier daemons noted, as far as it is about these tables and the kernel does not
    /// contradict; and what is wrong with it, in one sentence. `now` is boot time.
    pub fn adopt(store: Store, kernel: InKernel, now: i128) -> (Self, Option<String>) {
        let mut contents = store.load();
        let mut entries = BTreeMap::new();
        for what in contents.entries {
            let number = what.number;
            if what.tables != kernel.tables {
                // Before a reboot, or before somebody removed the pins: nothing of that time can come.
                store.forget(number);
                continue;
            }
            if kernel.held.get(&number).is_some_and(|digest| hex(digest) != what.digest) {
                contents.broken.push(format!("number {number} is another policy in the kernel"));
                store.forget(number);
                continue;
            }
            let replaced = (!kernel.in_force.contains(&number)).then_some(now);
            entries.insert(number, Entry { what, known: OnceCell::new(), replaced });
        }
        let unknown: Vec<String> =
            kernel.in_force.iter().filter(|n| !entries.contains_key(n)).map(ToString::to_string).collect();
        if !unknown.is_empty() {
            contents.broken.push(format!("nothing is noted about number {}", unknown.join(", ")));
        }
        let problem = (!contents.broken.is_empty()).then(|| {
            format!(
                "records that the kernel made under policies of an earlier daemon may lack the policy's name \
                 and rules: {} ({})",
                contents.broken.join("; "),
                store.directory().display()
            )
        });
        let current = entries.iter().filter(|(_, e)| e.replaced.is_none());
        let current = current.map(|(number, e)| (e.what.agent.clone(), *number)).collect();
        (Self { store, tables: kernel.tables, entries, current }, problem)
    }

    /// Notes a number that the kernel is about to use. What cannot be kept on disk is known to this daemon
    /// at least.
    pub fn note(&mut self, file: &Path, kept: &Rc<Kept>, published: &PublishedPolicy) {
        let policy = kept.head();
        let what = Published {
            number: published.id,
            tables: self.tables.clone(),
            agent: policy.id().to_owned(),
            version: policy.version(),
            digest: hex(&policy.digest()),
            image: hex(&published.image_digest),
            base: published.base,
            file: file.display().to_string(),
            text: kept.text().to_owned(),
        };
        if let Err(error) = self.store.keep(&what) {
            tracing::warn!(
                %error,
                "cannot note in {} what policy number {} is: if the daemon ends, later records lack its name",
                self.store.directory().display(), what.number
            );
        }
        let image = hex(&kept.whole().image.digest());
        // The same policy under the agent's earlier number need not be read again.
        let earlier = self.current.get(policy.id()).and_then(|number| self.entries.get(number));
        if let Some(earlier) = earlier
            && (&earlier.what.digest, &earlier.what.file, &earlier.what.text)
                == (&what.digest, &what.file, &what.text)
        {
            let _ = earlier.known.set(Some(Known::new(Rc::clone(kept), &image, &earlier.what)));
        }
        let known = OnceCell::from(Some(Known::new(Rc::clone(kept), &image, &what)));
        self.entries.insert(what.number, Entry { what, known, replaced: None });
    }

    /// Takes back what was noted for a number that the kernel did not come to use.
    pub fn withdraw(&mut self, number: u32) {
        self.entries.remove(&number);
        self.store.forget(number);
    }

    /// The agent's policy is this one now; whatever it had before was replaced. `now` is boot time.
    pub fn in_force(&mut self, agent: &str, number: Option<u32>, now: i128) {
        let before = match number {
            Some(number) => self.current.insert(agent.to_owned(), number),
            None => self.current.remove(agent),
        };
        let replaced = before.filter(|before| Some(*before) != number);
        if let Some(entry) = replaced.and_then(|before| self.entries.get_mut(&before)) {
            entry.replaced.get_or_insert(now);
        }
    }

    /// Forgets what no record can name any more, and says whether there was such. The rings have just been found empty;
    /// `now` is boot time.
    pub fn forget(&mut self, now: i128) -> bool {
        let before = self.entries.len();
        let over = |entry: &Entry| entry.replaced.is_some_and(|since| since + LONGEST_PROGRAM <= now);
        let store = &self.store;
        self.entries.retain(|number, entry| {
            let keep = !over(entry);
            if !keep {
                store.forget(*number);
            }
            keep
        });
        self.entries.len() < before
    }

    /// The digests of the policies that a record can name.
    pub fn digests(&self) -> HashSet<&str> {
        self.entries.values().map(|entry| entry.what.digest.as_str()).collect()
    }

    /// The policy behind a number, as records name it.
    pub fn policy(&self, number: u32) -> Option<PolicyNote> {
        self.entries.get(&number).map(|Entry { what, .. }| PolicyNote {
            id: what.agent.clone(),
            version: what.version,
            digest: what.digest.clone(),
        })
    }

    /// The policy itself and, where its compiled tables are those that the kernel had, their place.
    pub fn loaded(&self, number: u32) -> Option<(Rc<Loaded>, Option<u32>)> {
        self.known(number).map(|known| (known.kept.whole(), known.base))
    }

    /// The policy behind a number, for longer than its number means it.
    pub fn shared(&self, number: u32) -> Option<Rc<Kept>> {
        self.known(number).map(|known| Rc::clone(&known.kept))
    }

    /// Lets go of rules and tables that nobody has asked for lately; says of how many policies.
    pub fn rest(&self, now: Instant) -> usize {
        let known = self.entries.values().filter_map(|entry| entry.known.get()?.as_ref());
        known.filter(|known| known.kept.rest(now)).count()
    }

    /// The number that is in force for an agent, and the policy's digest.
    pub fn current(&self, agent: &str) -> Option<(u32, &str)> {
        let number = *self.current.get(agent)?;
        self.entries.get(&number).map(|entry| (number, entry.what.digest.as_str()))
    }

    fn known(&self, number: u32) -> Option<&Known> {
        let entry = self.entries.get(&number)?;
        entry.known.get_or_init(|| read_again(&entry.what)).as_ref()
    }
}

/// The policy of an earlier daemon. Its profiles may be others in this build, which its digest tells.
fn read_again(what: &Published) -> Option<Known> {
    match Kept::read(&what.file, what.text.clone()) {
        Ok(kept) if hex(&kept.head().digest()) == what.digest => {
            let image = hex(&kept.whole().image.digest());
            Some(Known::new(Rc::new(kept), &image, what))
        }
        _ => {
            tracing::warn!(
                "this build reads version {} of the policy of {} as another one: records under its number {} lack \
                 their rules",
                what.version,
                what.agent,
                what.number
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    fn text(version: u32) -> String {
        format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
             metadata: {{ id: bot, version: {version}, owner: a@example.com, purpose: Test }}\n\
             files:\n  - {{ allow: [read], paths: [\"/workspace/**\"] }}\n"
        )
    }

    fn loaded(version: u32) -> Rc<Kept> {
        Rc::new(Kept::read("bot.yaml", text(version)).expect("valid"))
    }

    fn published(id: u32, kept: &Kept) -> PublishedPolicy {
        PublishedPolicy { id, slot: id, base: 32, image_digest: kept.whole().image.digest() }
    }

    fn kernel(tables: &str, held: &[(u32, &Kept)], in_force: &[u32]) -> InKernel {
        InKernel {
            tables: tables.to_owned(),
            held: held.iter().map(|(number, kept)| (*number, kept.head().digest())).collect(),
            in_force: in_force.iter().copied().collect(),
        }
    }

    fn start(dir: &Path, kernel: InKernel) -> (Numbers, Option<String>) {
        Numbers::adopt(Store::new(dir), kernel, 0)
    }

    fn noted(dir: &Path, number: u32, version: u32) -> Rc<Kept> {
        let policy = loaded(version);
        let (mut numbers, problem) = start(dir, kernel("t", &[], &[]));
        assert_eq!(problem, None);
        numbers.note(Path::new("bot.yaml"), &policy, &published(number, &policy));
        policy
    }

    fn versions(numbers: &Numbers, of: &[u32]) -> Vec<Option<u64>> {
        of.iter().map(|number| numbers.policy(*number).map(|note| note.version)).collect()
    }

    #[test]
    fn the_next_daemon_knows_the_number_and_its_rules() {
        let dir = tempfile::tempdir().expect("dir");
        let policy = noted(dir.path(), 4, 7);
        let (numbers, problem) = start(dir.path(), kernel("t", &[(4, &policy)], &[4]));
        assert_eq!(problem, None);
        let note = numbers.policy(4).expect("known");
        assert_eq!((note.id.as_str(), note.version, note.digest), ("bot", 7, hex(&policy.head().digest())));
        let (again, base) = numbers.loaded(4).expect("compiled");
        assert_eq!((again.policy.digest(), base), (policy.head().digest(), Some(32)));
    }

    #[test]
    fn numbers_of_other_tables_mean_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        noted(dir.path(), 4, 7);
        let (numbers, problem) = start(dir.path(), kernel("other", &[], &[]));
        assert_eq!((versions(&numbers, &[4]), problem), (vec![None], None));
        assert!(Store::new(dir.path()).load().entries.is_empty());
    }

    #[test]
    fn what_the_kernel_contradicts_is_not_used_and_said() {
        let dir = tempfile::tempdir().expect("dir");
        noted(dir.path(), 4, 7);
        let (numbers, problem) = start(dir.path(), kernel("t", &[(4, &loaded(8))], &[4]));
        assert_eq!(versions(&numbers, &[4]), [None]);
        assert!(problem.expect("said").contains("number 4 is another policy"));
    }

    #[test]
    fn a_missing_or_damaged_note_is_said_once_for_all() {
        let dir = tempfile::tempdir().expect("dir");
        noted(dir.path(), 4, 7);
        std::fs::write(dir.path().join("published/4.json"), "x").expect("write");
        let (numbers, problem) = start(dir.path(), kernel("t", &[], &[4, 5]));
        let problem = problem.expect("said");
        assert!(problem.contains("4.json: damaged") && problem.contains("number 4, 5"), "{problem}");
        assert!(numbers.policy(4).is_none() && numbers.loaded(4).is_none());
    }

    #[test]
    fn a_replaced_number_is_forgotten_when_no_program_can_use_it_any_more() {
        let dir = tempfile::tempdir().expect("dir");
        let (old, new) = (noted(dir.path(), 1, 1), loaded(2));
        let (mut numbers, _) = start(dir.path(), kernel("t", &[(1, &old)], &[1]));
        numbers.forget(1000 * SECOND);
        assert_eq!(versions(&numbers, &[1]), [Some(1)], "it is in force");
        numbers.note(Path::new("bot.yaml"), &new, &published(2, &new));
        numbers.in_force("bot", Some(2), 1000 * SECOND);
        numbers.in_force("someone else", None, 1000 * SECOND);
        numbers.in_force("bot", Some(2), 1030 * SECOND);
        numbers.forget(1059 * SECOND);
        assert_eq!(versions(&numbers, &[1, 2]), [Some(1), Some(2)]);
        numbers.forget(1060 * SECOND);
        assert_eq!(versions(&numbers, &[1, 2]), [None, Some(2)]);
        assert_eq!(Store::new(dir.path()).load().entries.len(), 1);
    }

    #[test]
    fn a_number_that_was_never_in_force_or_is_not_any_more_does_not_stay() {
        let dir = tempfile::tempdir().expect("dir");
        let policy = noted(dir.path(), 1, 1);
        let (mut numbers, _) = start(dir.path(), kernel("t", &[], &[]));
        numbers.forget(61 * SECOND);
        assert_eq!(versions(&numbers, &[1]), [None]);
        numbers.note(Path::new("bot.yaml"), &policy, &published(3, &policy));
        numbers.withdraw(3);
        assert_eq!(versions(&numbers, &[3]), [None]);
        assert!(Store::new(dir.path()).load().entries.is_empty());
    }

    #[test]
    fn a_text_that_this_build_reads_otherwise_keeps_its_name_and_has_no_rules() {
        let dir = tempfile::tempdir().expect("dir");
        let policy = loaded(1);
        let (mut numbers, _) = start(dir.path(), kernel("t", &[], &[]));
        numbers.note(Path::new("bot.yaml"), &policy, &published(1, &policy));
        let mut entry = Store::new(dir.path()).load().entries.remove(0);
        entry.text = text(9);
        Store::new(dir.path()).keep(&entry).expect("keep");
        let (numbers, _) = start(dir.path(), kernel("t", &[(1, &policy)], &[1]));
        assert_eq!(versions(&numbers, &[1]), [Some(1)]);
        assert!(numbers.loaded(1).is_none());
    }

    #[test]
    fn states_of_tables_that_compile_differently_now_are_not_read() {
        let dir = tempfile::tempdir().expect("dir");
        let policy = loaded(1);
        let (mut numbers, _) = start(dir.path(), kernel("t", &[], &[]));
        let foreign = PublishedPolicy { image_digest: [1; 32], ..published(1, &policy) };
        numbers.note(Path::new("bot.yaml"), &policy, &foreign);
        assert_eq!(numbers.loaded(1).map(|(_, base)| base), Some(None));
    }
}
