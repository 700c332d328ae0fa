//! What failed, said once more at the end: who reads only the last lines of a long log still learns it.

/// Lines of one failure that are repeated. The others stand where they were printed.
const LINES: usize = 40;

/// Picks the failures out of the lines of libtest, and of the guests' programs, which print as it does.
#[derive(Debug, Default)]
pub(crate) struct Recap {
    failures: Vec<String>,
    /// Lines taken of the block that is being read.
    in_block: Option<usize>,
}

impl Recap {
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.in_block = None;
            self.failures.push(format!("test {name} ... FAILED"));
        } else if line.starts_with("---- ") {
            self.in_block = Some(0);
            self.failures.push(line.to_owned());
        } else if line.starts_with("test ") || line == "failures:" {
            self.in_block = None;
        } else if let Some(taken) = self.in_block.filter(|taken| *taken < LINES) {
            self.in_block = Some(taken + 1);
            self.failures.push(line.to_owned());
        }
    }

    /// One that no line of a test told of.
    pub(crate) fn say(&mut self, text: String) {
        self.in_block = None;
        self.failures.push(text);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.failures.extend(other.failures);
    }

    pub(crate) fn print(&self) {
        if !self.failures.is_empty() {
            println!("\nfailed:");
            self.failures.iter().filter(|line| !line.is_empty()).for_each(|line| println!("  {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_reasons_of_libtest_are_repeated() {
        let mut recap = Recap::default();
        let lines = [
            "running 2 tests",
            "test one ... ok",
            "test two ... FAILED",
            "",
            "failures:",
            "",
            "---- two stdout ----",
            "assertion failed: it",
            "",
            "failures:",
            "    two",
            "",
            "test result: FAILED. 1 passed; 1 failed",
        ];
        lines.iter().for_each(|line| recap.line(line));
        let expected = ["test two ... FAILED", "---- two stdout ----", "assertion failed: it", ""];
        assert_eq!(recap.failures, expected);
    }

    #[test]
    fn a_long_reason_is_cut_and_the_next_failure_is_not() {
        let mut recap = Recap::default();
        recap.line("---- two stdout ----");
        (0..1000).for_each(|number| recap.line(&format!("line {number}")));
        recap.line("test three ... FAILED");
        recap.line("---- three (1.0 s) ----");
        recap.line("  why");
        assert_eq!(recap.failures.len(), 1 + LINES + 3);
        assert_eq!(recap.failures.last().map(String::as_str), Some("  why"));
    }
}
