//! In which order decisions take effect: recorded, kept, then told to the kernel. What allows never comes before
//! what accounts for it; what refuses never waits for it.

use super::{
    approver::Approvers,
    error::DecisionError,
    hold::{HoldId, Now, Waiter},
    queue::{Action, Kept, KernelAct, Outcome, Queue},
    signature::{LocalPeer, identify},
    statement::Statement,
};
use serde_json::Value;

/// Whatever has effects.
pub trait World {
    /// What time it is.
    fn now(&self) -> Now;
    /// Writes a record.
    fn record(&mut self, kind: &'static str, fields: Value);
    /// Writes a record so that it stays, or says why not.
    fn record_surely(&mut self, kind: &'static str, fields: Value) -> Result<(), String>;
    /// Keeps the queue on the disk.
    fn persist(&mut self, kept: &Kept) -> Result<(), String>;
    /// Tells the kernel. `false`: what was meant is not there, or not open any more.
    fn kernel(&mut self, act: KernelAct) -> Result<bool, String>;
    /// Tells whoever wants to hear of requests.
    fn announce(&mut self, queue: &Queue, id: HoldId);
    /// Tells an operator what could not be done.
    fn complain(&mut self, what: &str);
}

/// What a decision did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What became of each request.
    pub outcomes: Vec<(HoldId, Outcome)>,
    /// Those for which it came too late after all.
    pub void: Vec<HoldId>,
}

/// Carries out what follows from news and from time.
pub fn perform(world: &mut dyn World, queue: &mut Queue, actions: Vec<Action>) {
    // What refuses and what asks need not wait for the disk; so it is written once for all of them.
    let changed = actions.contains(&Action::Persist);
    for action in actions {
        match action {
            Action::Record(kind, fields) => world.record(kind, fields),
            Action::Persist => {}
            // A grant comes from a decision alone.
            Action::Kernel(KernelAct::Grant(id, ..)) => {
                world.complain(&format!("a grant for {id} without a decision"))
            }
            Action::Kernel(act) => {
                if let Err(error) = world.kernel(act) {
                    world.complain(&format!("the kernel side did not take {act:?}: {error}"));
                }
            }
            Action::Announce(id) => world.announce(queue, id),
        }
    }
    if changed && let Err(error) = world.persist(queue.kept()) {
        world.complain(&format!("cannot keep the queue of approvals: {error}"));
    }
}

/// A person's decision, from the text to the kernel.
pub fn decide(
    world: &mut dyn World,
    queue: &mut Queue,
    (text, signature): (&str, Option<&str>),
    peer: &LocalPeer,
    approvers: &Approvers,
    waiters: &[Waiter],
) -> Result<Decided, DecisionError> {
    let statement = Statement::parse(text)?;
    let identity = identify(text, &statement.approver, signature, peer, approvers)?;
    let proposal = queue.propose(world.now(), &statement, &identity, signature)?;
    world.record_surely("approval-decided", proposal.record.clone()).map_err(DecisionError::Unrecorded)?;
    let outcomes = proposal.outcomes.clone();
    // Writing took its time: what has ended meanwhile stays as it is.
    let before = queue.clone();
    let actions = queue.commit(world.now(), proposal, waiters);
    if let Err(error) = world.persist(queue.kept()) {
        *queue = before;
        let because = format!("the queue could not be kept: {error}");
        world.record("approval-void", serde_json::json!({"statement": text, "because": because}));
        return Err(DecisionError::Unrecorded(because));
    }
    let mut void = Vec::new();
    for action in actions.into_iter().filter(|action| *action != Action::Persist) {
        let Action::Kernel(KernelAct::Grant(id, ..)) = action else {
            perform(world, queue, vec![action]);
            continue;
        };
        let Action::Kernel(act) = action else { continue };
        let because = match world.kernel(act) {
            Ok(true) => continue,
            Ok(false) => "nobody asks for it any more".to_owned(),
            Err(error) => format!("the kernel side did not take it: {error}"),
        };
        void.push(id);
        let actions = queue.not_granted(world.now(), id, &because);
        perform(world, queue, actions);
    }
    for (id, outcome) in &outcomes {
        let counts = queue.entry(*id).is_some_and(|entry| match outcome {
            Outcome::Approved(_) => matches!(entry.state, super::queue::State::Granted { .. }),
            Outcome::Denied => matches!(entry.state, super::queue::State::Refused { .. }),
            Outcome::First(approval) => entry.approvals.contains(approval),
        });
        if !counts && !void.contains(id) {
            void.push(*id);
        }
    }
    Ok(Decided { outcomes, void })
}
