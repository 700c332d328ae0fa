//! Patterns, as the kernel runs them.

use crate::{
    agent::Agent,
    cases,
    harness::{Outcome, Test},
    promise::{self as check, Attempt, Denial},
};

cases!(globs:
    a_star_stays_in_its_component,
    two_stars_cross_components_and_name_the_directory_itself,
    a_question_mark_is_one_byte,
    classes_and_braces_choose,
    case_matters,
);

/// Under the one rule `allow read DIR/PATTERN`, `yes` can be read and `no` cannot.
fn reads(t: &Test, pattern: &str, yes: &[&str], no: &[&str]) -> Outcome<Agent> {
    t.fresh()?;
    for name in yes.iter().chain(no) {
        t.file(name)?;
    }
    let attempt = |name: &&str| {
        let path = t.at(name);
        Attempt::new(format!("read {path}"), Denial::no_rule("open").on(&path).asking("read"))
    };
    let attempts: Vec<Attempt> = no.iter().map(attempt).collect();
    let twins: Vec<String> = yes.iter().map(|name| format!("read {}", t.at(name))).collect();
    check::control(&attempts)?;
    let agent = t.agent(t.policy().allow("read", &t.at(pattern)))?;
    check::refused(t, &agent, &twins, &attempts)?;
    Ok(agent)
}

fn a_star_stays_in_its_component(t: &mut Test) -> Outcome {
    let yes = ["a/x.txt", "a/.txt", "a/x.y.txt"];
    reads(t, "a/*.txt", &yes, &["a/b/x.txt", "a/x.txt2", "b/x.txt", "a/x", "x.txt"])?;
    Ok(())
}

fn two_stars_cross_components_and_name_the_directory_itself(t: &mut Test) -> Outcome {
    reads(t, "a/**/x", &["a/x", "a/b/x", "a/b/c/d/x"], &["a/b/y", "a/y/z", "x", "a/bx", "ax"])?;
    let agent = reads(t, "a/**", &["a/x", "a/b/c/x"], &["ab/x", "b"])?;
    // A rule for what is below a directory names the directory too.
    let mut agent = agent;
    agent.change(agent.policy().next().allow("list", &t.at("a/b/**")))?;
    let above = t.at("a");
    let attempts = [Attempt::new(format!("list {above}"), Denial::no_rule("open").on(&above).asking("list"))];
    check::refused(
        t,
        &agent,
        &[format!("list {}", t.at("a/b")), format!("list {}", t.at("a/b/c"))],
        &attempts,
    )
}

fn a_question_mark_is_one_byte(t: &mut Test) -> Outcome {
    reads(t, "a?c", &["abc", "a.c", "aac"], &["ac", "abbc", "a/c", "abcd"])?;
    Ok(())
}

fn classes_and_braces_choose(t: &mut Test) -> Outcome {
    reads(t, "[a-c]x", &["ax", "cx"], &["dx", "x", "aax", "Ax"])?;
    reads(t, "[!a-c]x", &["dx", "0x"], &["ax", "cx", "x"])?;
    reads(t, "{a,b/c}/x", &["a/x", "b/c/x"], &["b/x", "c/x", "a/c/x"])?;
    Ok(())
}

fn case_matters(t: &mut Test) -> Outcome {
    reads(t, "Name", &["Name"], &["name", "NAME"])?;
    Ok(())
}
