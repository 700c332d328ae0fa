//! Lines of globs, and lines of paths that start with `=`: the compiled automata say what the reference
//! says, and comparing two policies finds what differs and nothing else.
#![no_main]

use enforcer::policy::{self, Diff, Example, Glob, Trust, ValidPolicy, reference, trust_tiers};
use enforcer_common::access::{self, file};
use libfuzzer_sys::fuzz_target;
use std::fmt::Write as _;

const VERDICTS: [&str; 5] = [
    "allow: [read]",
    "deny: [write], tier: low",
    "allow: [all], tier: high",
    "hold: [read, exec], tier: medium",
    "deny: [read, load]",
];
const LEVELS: [Trust; 3] = [Trust::Probation, Trust::Supervised, Trust::Autonomous];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (paths, globs): (Vec<&str>, Vec<&str>) =
        text.lines().take(16).partition(|line| line.starts_with('='));
    let globs: Vec<&str> = globs.into_iter().filter(|text| is_glob(text)).collect();
    if globs.is_empty() {
        return;
    }
    // They may multiply each other, which is an error and no finding.
    let (Some(few), Some(all)) = (with(&globs[..globs.len().div_ceil(2)]), with(&globs)) else { return };
    let diff = policy::diff(&few, &all, None).ok();
    for path in paths {
        let Ok(path) = policy::path_bytes(&path[1..]) else { continue };
        let says = [&few, &all].map(|policy| {
            let masks = policy::compile(policy).expect("it compiled").masks_at(&path);
            let meant = reference::masks_at_path(policy, &path);
            LEVELS.map(|level| {
                let tiers = trust_tiers(level);
                let (found, meant) = (masks.fold(&tiers), meant.fold(&tiers));
                let of = |folded: &enforcer_common::verdict::Folded| {
                    file::NAMES.map(|(bit, _)| folded.verdict(bit)).to_vec()
                };
                assert_eq!(of(&found), of(&meant), "at {path:?}");
                assert_eq!(found.map_verdict(), meant.map_verdict(), "at {path:?}");
                (of(&meant), meant.map_verdict())
            })
        });
        let differs = says[0] != says[1];
        if let Some(diff) = &diff {
            assert!(!differs || !diff.differences.is_empty(), "a difference at {path:?} is not found");
        }
    }
    if let Some(diff) = &diff {
        examples_differ(&few, &all, diff);
    }
});

fn is_glob(text: &str) -> bool {
    match Glob::parse(text) {
        Ok(glob) => {
            assert_eq!(Glob::parse(&glob.to_string()).as_ref(), Ok(&glob));
            true
        }
        Err(error) => {
            assert!(error.offset <= text.len() && !error.message.is_empty());
            false
        }
    }
}

fn with(globs: &[&str]) -> Option<ValidPolicy> {
    let mut text = String::from(
        "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata: { id: f, version: 1, owner: f, purpose: f }\ntrust: autonomous\nfiles:\n",
    );
    for (i, glob) in globs.iter().enumerate() {
        let verdict = VERDICTS[i % VERDICTS.len()];
        let quoted = glob.replace('\'', "''");
        let _ = writeln!(text, "  - {{ {verdict}, paths: ['{quoted}'] }}");
    }
    policy::parse("fuzz.yaml", &text).ok()
}

fn examples_differ(a: &ValidPolicy, b: &ValidPolicy, diff: &Diff) {
    for difference in &diff.differences {
        let Example::Path(path) = &difference.example else { unreachable!("no rule names an address") };
        for step in &difference.steps {
            for name in &difference.operations {
                let bit = access::named(&file::NAMES, name).expect("an operation");
                let says = |policy: &ValidPolicy| {
                    let folded = reference::masks_at_path(policy, path).fold(&trust_tiers(step.trust));
                    if bit == file::LOAD { folded.map_verdict() } else { folded.verdict(bit) }
                };
                assert_eq!((says(a), says(b)), (step.from, step.to), "{name} at {path:?}");
            }
        }
    }
}
