//! What is lifted, for whom and until when. Pure: times are nanoseconds of boot time, as in the kernel.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// How long one that is over is still known: records of its time may come that late.
const REMEMBERED: u64 = 60 * SECOND;
/// Bytes that a reason may have.
const LONGEST_REASON: usize = 1024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The agents; none: all that have a policy.
    pub agents: Vec<String>,
    /// For how long.
    pub seconds: u64,
    /// Why.
    pub reason: String,
    /// Who, for records.
    pub by: Value,
    /// An id that was never used.
    pub id: String,
}

/// Why it is not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The settings.
    #[error("the settings do not allow break-glass (break_glass.maximum_seconds = 0)")]
    Off,
    /// Too long, or no time at all.
    #[error("{asked} seconds are asked for; 1 to {most} are possible (break_glass.maximum_seconds)")]
    Time {
        /// As asked.
        asked: u64,
        /// The maximum.
        most: u64,
    },
    /// No reason.
    #[error("the reason is empty, or longer than {LONGEST_REASON} bytes")]
    Reason,
    /// No such agent.
    #[error("there is no agent {0}")]
    Unknown(String),
    /// There is nothing to be lifted.
    #[error("no agent has a policy")]
    Nobody,
    /// It is in force already.
    #[error("break-glass {id} is in force for {agent} already")]
    Already {
        /// The agent.
        agent: String,
        /// Which one.
        id: String,
    },
    /// Not recorded, so not done.
    #[error("it could not be recorded, so it does not begin: {0}")]
    Unrecorded(String),
    /// The kernel side.
    #[error("the kernel could not be told, so it does not begin: {0}")]
    Kernel(String),
    /// Nothing to end.
    #[error("break-glass is not in force{}", .0.as_ref().map(|id| format!(" with the id {id}")).unwrap_or_default())]
    NotInForce(Option<String>),
}

/// One time of break-glass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifted {
    /// Its id.
    pub id: String,
    /// For whom.
    pub agents: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who began it.
    pub by: Value,
    /// When it began.
    pub from: u64,
    /// When the kernel ends it.
    pub until: u64,
    /// When it was over, if that was earlier or is known.
    pub ended: Option<u64>,
}

impl Lifted {
    /// The fields of the record that it begins.
    pub fn begun(&self) -> Value {
        let Self { id, agents, reason, by, from, until, ended: _ } = self;
        let seconds = (until - from) / SECOND;
        json!({"break_glass": id, "agents": agents, "because": reason, "by": by, "seconds": seconds})
    }

    /// The fields of the record that it has ended. `now` may be a while later than the end; `None`: it was cut off,
    /// nobody knows when.
    pub fn over(&self, because: &str, by: Option<&Value>, now: Option<u64>) -> Value {
        let Self { id, agents, reason: _, by: _, from, until: _, ended } = self;
        let lasted = |now: u64| ended.unwrap_or(now).saturating_sub(*from).div_ceil(SECOND);
        let since = |now: u64| now.saturating_sub(ended.unwrap_or(now)) / SECOND;
        json!({
            "break_glass": id, "agents": agents, "because": because, "by": by,
            "seconds": now.map(lasted), "noticed_after_seconds": now.map(since),
        })
    }

    fn in_force(&self, now: u64) -> bool {
        self.ended.is_none() && now < self.until
    }
}

/// Everything that is lifted, and what was until a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    entries: Vec<Lifted>,
}

impl Book {
    /// What would be lifted; nothing has changed yet. `known` are the agents with a policy.
    pub fn propose(&self, ask: Ask, known: &[String], most: u64, now: u64) -> Result<Lifted, Refused> {
        let Ask { mut agents, seconds, reason, by, id } = ask;
        if most == 0 {
            return Err(Refused::Off);
        }
        if !(1..=most).contains(&seconds) {
            return Err(Refused::Time { asked: seconds, most });
        }
        if reason.trim().is_empty() || reason.len() > LONGEST_REASON {
            return Err(Refused::Reason);
        }
        if let Some(unknown) = agents.iter().find(|agent| !known.contains(agent)) {
            return Err(Refused::Unknown(unknown.clone()));
        }
        if agents.is_empty() {
            agents = known.to_vec();
        }
        agents.sort();
        agents.dedup();
        if agents.is_empty() {
            return Err(Refused::Nobody);
        }
        for agent in &agents {
            if let Some(id) = self.of(agent, now) {
                return Err(Refused::Already { agent: agent.clone(), id: id.to_owned() });
            }
        }
        Ok(Lifted { id, agents, reason, by, from: now, until: now + seconds * SECOND, ended: None })
    }

    /// It begins.
    pub fn enter(&mut self, lifted: Lifted) {
        self.entries.push(lifted);
    }

    /// The id of what was in force for an agent at a time.
    pub fn of(&self, agent: &str, time: u64) -> Option<&str> {
        let covers = |one: &&Lifted| {
            (one.from..one.ended.unwrap_or(one.until)).contains(&time)
                && one.agents.iter().any(|name| name == agent)
        };
        self.entries.iter().find(covers).map(|one| one.id.as_str())
    }

    /// What is in force now.
    pub fn in_force(&self, now: u64) -> impl Iterator<Item = &Lifted> {
        self.entries.iter().filter(move |one| one.in_force(now))
    }

    /// Those whose time is over; they are not in force from here on.
    pub fn overdue(&mut self, now: u64) -> Vec<Lifted> {
        let mut over = Vec::new();
        for one in self.entries.iter_mut().filter(|one| one.ended.is_none() && one.until <= now) {
            one.ended = Some(one.until);
            over.push(one.clone());
        }
        self.entries.retain(|one| one.ended.is_none_or(|end| now < end + REMEMBERED));
        over
    }

    /// Ends the one with this id, or all; what was ended.
    pub fn end(&mut self, id: Option<&str>, now: u64) -> Result<Vec<Lifted>, Refused> {
        let mut ended = Vec::new();
        for one in self.entries.iter_mut().filter(|one| one.in_force(now)) {
            if id.is_none_or(|id| id == one.id) {
                one.ended = Some(now);
                ended.push(one.clone());
            }
        }
        match ended.is_empty() {
            true => Err(Refused::NotInForce(id.map(str::to_owned))),
            false => Ok(ended),
        }
    }

    /// What was in force when the host went down.
    pub fn cut_off(self) -> Vec<Lifted> {
        self.entries.into_iter().filter(|one| one.ended.is_none()).collect()
    }

    /// Compares with what the kernel says (agent, until): what does not agree is ended, on the refusing side.
    /// Returns those, and agents whose entry in the kernel must be set to zero.
    pub fn reconcile(&mut self, kernel: &BTreeMap<String, u64>, now: u64) -> (Vec<Lifted>, Vec<String>) {
        let mut ended = Vec::new();
        for one in self.entries.iter_mut().filter(|one| one.in_force(now)) {
            if !one.agents.iter().all(|agent| kernel.get(agent) == Some(&one.until)) {
                one.ended = Some(now);
                ended.push(one.clone());
            }
        }
        let stays = |agent: &&String| !self.in_force(now).any(|one| one.agents.contains(agent));
        (ended, kernel.keys().filter(stays).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(agents: &[&str], seconds: u64) -> Ask {
        let agents = agents.iter().map(|name| (*name).to_owned()).collect();
        Ask { agents, seconds, reason: "disk full".to_owned(), by: json!({"uid": 0}), id: "id1".to_owned() }
    }

    fn known() -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    fn begun(agents: &[&str]) -> Book {
        let mut book = Book::default();
        let lifted = book.propose(ask(agents, 60), &known(), 900, 5 * SECOND).expect("begins");
        book.enter(lifted);
        book
    }

    #[test]
    fn it_covers_its_agents_and_its_time_and_nothing_else() {
        let book = begun(&["a"]);
        let at = |agent, seconds| book.of(agent, seconds * SECOND);
        assert_eq!(
            (at("a", 4), at("a", 5), at("a", 64), at("a", 65)),
            (None, Some("id1"), Some("id1"), None)
        );
        assert_eq!(at("b", 10), None);
        assert_eq!(begun(&[]).of("b", 10 * SECOND), Some("id1"), "all");
    }

    #[test]
    fn what_is_not_fit_is_refused() {
        let book = begun(&["a"]);
        let refused = |ask: Ask, most| book.propose(ask, &known(), most, 6 * SECOND).expect_err("refused");
        assert_eq!(refused(ask(&["b"], 60), 0), Refused::Off);
        assert_eq!(refused(ask(&["b"], 61), 60), Refused::Time { asked: 61, most: 60 });
        assert_eq!(refused(ask(&["b"], 0), 60), Refused::Time { asked: 0, most: 60 });
        assert_eq!(refused(Ask { reason: " ".to_owned(), ..ask(&["b"], 9) }, 60), Refused::Reason);
        assert_eq!(refused(ask(&["c"], 9), 60), Refused::Unknown("c".to_owned()));
        assert!(matches!(refused(ask(&[], 9), 60), Refused::Already { agent, .. } if agent == "a"));
        assert_eq!(Book::default().propose(ask(&[], 9), &[], 60, 0), Err(Refused::Nobody));
        assert!(book.propose(ask(&["a"], 9), &known(), 60, 65 * SECOND).is_ok(), "the earlier one is over");
    }

    #[test]
    fn it_ends_once_by_time_or_by_hand_and_is_remembered_for_late_records() {
        let mut book = begun(&["a"]);
        assert!(book.overdue(64 * SECOND).is_empty());
        let over = book.overdue(70 * SECOND);
        assert_eq!(over.len(), 1);
        let record = over[0].over("its time is over", None, Some(70 * SECOND));
        assert_eq!((&record["seconds"], &record["noticed_after_seconds"]), (&json!(60), &json!(5)));
        assert!(book.overdue(71 * SECOND).is_empty());
        assert_eq!(book.of("a", 10 * SECOND), Some("id1"), "a record of that time");
        book.overdue(126 * SECOND);
        assert_eq!(book, Book::default());

        let mut book = begun(&["a"]);
        assert!(book.end(Some("other"), 9 * SECOND).is_err());
        assert_eq!(book.end(None, 9 * SECOND).expect("ended").len(), 1);
        assert_eq!((book.of("a", 8 * SECOND), book.of("a", 9 * SECOND)), (Some("id1"), None));
        assert!(book.end(None, 9 * SECOND).is_err() && book.overdue(70 * SECOND).is_empty());
    }

    #[test]
    fn what_kernel_and_book_do_not_agree_on_is_ended_on_the_refusing_side() {
        let now = 10 * SECOND;
        let kernel = |words: &[(&str, u64)]| words.iter().map(|(n, w)| ((*n).to_owned(), *w)).collect();
        let until = 65 * SECOND;
        let mut book = begun(&["a"]);
        assert_eq!(book.reconcile(&kernel(&[("a", until)]), now), (vec![], vec![]));
        let (ended, clear) = book.clone().reconcile(&kernel(&[("a", until + 1)]), now);
        assert_eq!((ended.len(), clear), (1, vec!["a".to_owned()]));
        let (ended, clear) = book.clone().reconcile(&kernel(&[]), now);
        assert_eq!((ended.len(), clear), (1, vec![]));
        // Nobody has kept anything about b.
        let (ended, clear) = book.reconcile(&kernel(&[("a", until), ("b", until)]), now);
        assert_eq!((ended.len(), clear), (0, vec!["b".to_owned()]));
    }
}
