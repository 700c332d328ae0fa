//! Any text as a policy: no panic, every fault inside the text, and a policy that loads keeps its meaning
//! in the canonical layout.
#![no_main]

use enforcer::policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match policy::parse("fuzz.yaml", text) {
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            assert!(errors.problems().iter().all(|problem| problem.line > 0 && problem.column > 0));
            let shown = errors.render(false);
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        }
        Ok(policy) => {
            let Some(out) = laid_out(text) else { return };
            let again = policy::parse("fuzz.yaml", &out).expect("what was laid out loads");
            assert_eq!(policy.digest(), again.digest(), "{out}");
        }
    }
    // Profiles take another way through the checks.
    if policy::parse_profile("fuzz.yaml", text).is_ok() {
        laid_out(text);
    }
});

/// The canonical layout of a valid document, which a second time must not change.
fn laid_out(text: &str) -> Option<String> {
    match policy::format("fuzz.yaml", text) {
        Ok(out) => {
            assert_eq!(policy::format("fuzz.yaml", &out).expect("again"), out);
            Some(out)
        }
        Err(policy::FormatError::Document(_)) => {
            assert!(text.contains(['&', '*', '!', '%', '?']), "only what has no canonical layout is refused");
            None
        }
        Err(unsure @ policy::FormatError::Unsure { .. }) => panic!("{unsure}"),
    }
}
