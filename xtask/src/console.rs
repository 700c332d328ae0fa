//! What a guest's console says about its end.

/// Lines that are shown.
const LINES: usize = 45;

/// The first oops and what follows it, else the last lines.
pub(crate) fn end(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let begins =
        |line: &&str| ["Oops", "BUG:", "Kernel panic", "general protection"].iter().any(|w| line.contains(w));
    let from = lines.iter().position(begins).unwrap_or(lines.len().saturating_sub(LINES));
    lines.iter().skip(from).take(LINES).copied().collect::<Vec<_>>().join("\n")
}

/// Whether the kernel died of a breakpoint in its own code. It writes one there while it patches an instruction, waits
/// for all CPUs, and removes it (`smp_text_poke_batch_finish()`, before 6.15 `text_poke_bp_batch()`,
/// arch/x86/kernel/alternative.c). QEMU's CPUs are threads that translate ahead: one of them can execute what was
/// there a moment ago, which no real CPU does after that wait.
pub(crate) fn is_emulators_fault(console: &str) -> bool {
    console.contains("Oops: int3") || console.lines().any(|line| line.contains("int3: 0000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_oops_is_shown_before_the_end() {
        let mut console: String = (0..100).map(|n| format!("line {n}\n\r\n")).collect();
        assert!(end(&console).starts_with("line 55") && end(&console).ends_with("line 99"));
        console += "[ 7.1] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n";
        console += &"more\n".repeat(100);
        assert!(end(&console).starts_with("[ 7.1] Oops") && end(&console).lines().count() == LINES);
    }

    #[test]
    fn only_a_breakpoint_is_the_emulators_fault() {
        assert!(is_emulators_fault("[ 7.3] int3: 0000 [#1] PREEMPT SMP NOPTI"));
        assert!(is_emulators_fault("[ 7.3] Oops: int3: 0000 [#1] SMP"));
        assert!(!is_emulators_fault(
            "[ 7.3] BUG: kernel NULL pointer dereference\n[ 7.3] Oops: 0000 [#1] SMP"
        ));
        assert!(!is_emulators_fault("Kernel panic - not syncing: Fatal exception in interrupt"));
    }
}
