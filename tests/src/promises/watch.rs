//! Watching takes what opening takes: names of files come and go, and what is done to them shows.

use super::tree;
use crate::{
    cases,
    harness::{Outcome, Test},
    promise::{self as check, Attempt, Denial},
};

cases!(watch: what_may_not_be_read_is_not_watched);

fn what_may_not_be_read_is_not_watched(t: &mut Test) -> Outcome {
    let (file, directory) = (t.at("shut/f1"), t.at("shut/d1"));
    let watch = |path: &str| Attempt::new(format!("inotify {path}"), Denial::no_rule("watch").on(path));
    let attempts = [
        watch(&file),
        watch(&directory),
        Attempt::new("inotify /root", Denial::no_rule("watch").on("/root").asking("list")),
        Attempt::new("inotify /proc/1", Denial::floor("watch")),
    ];
    let open = t.at("open/**");
    let twins = [
        format!("inotify {}", t.at("open/f1")),
        format!("inotify {}", t.at("open/d1")),
        format!("dnotify {}", t.at("open/d1")),
        "inotify /proc/self".to_owned(),
    ];
    let narrow = t.policy().allow("read, list", &open).allow("list", &t.at("open"));
    tree(t)?;
    check::control(&attempts)?;
    check::allowed_outside(&twins)?;
    check::refused(t, &t.agent(narrow)?, &twins, &attempts)
}
