//! From the rounds of each run to one row per configuration and operation. No I/O.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The runs with nothing loaded, before, once more, and after all others.
const BASE: &str = "nothing";
/// What the loop of a known number of instructions is called.
const CLOCK: &str = "clock";

/// One operation in one configuration, as the guest measured it.
pub(super) struct Run {
    configuration: String,
    operation: String,
    rounds: Vec<f64>,
}

/// What one configuration adds to one operation.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) kernel: String,
    pub(super) configuration: String,
    pub(super) operation: String,
    /// Instructions with nothing loaded.
    pub(super) base: f64,
    /// Instructions on top of them.
    pub(super) added: f64,
    /// What the same measurement may differ by without any difference in what is measured.
    pub(super) noise: f64,
}

impl Run {
    pub(super) fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let text =
            |name| value[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {line}"));
        let numbers = value["rounds"].as_array().into_iter().flatten();
        let rounds: Vec<f64> = numbers.filter_map(Value::as_f64).collect();
        if rounds.is_empty() {
            bail!("no rounds: {line}");
        }
        Ok(Self { configuration: text("configuration")?, operation: text("operation")?, rounds })
    }

    fn is_base(&self) -> bool {
        self.configuration.starts_with(BASE)
    }
}

/// Of numbers in any order; between two of them the lower one, of none 0.
fn quantile(numbers: &[f64], part: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len().saturating_sub(1) as f64) as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

/// The difference of two medians of these rounds that chance alone makes: half of the middle half's width
/// over the root of their number, with some room.
fn spread(rounds: &[f64]) -> f64 {
    let width = quantile(rounds, 0.75) - quantile(rounds, 0.25);
    2.0 * width / (rounds.len() as f64).sqrt()
}

/// Compares every configuration with the runs that had nothing loaded. The noise is the greatest of: how
/// far these typically are from their median, and the spreads of both sides.
pub(super) fn rows(kernel: &str, runs: &[Run]) -> Result<Vec<Row>> {
    check_clock(runs)?;
    let mut rows = Vec::new();
    for run in runs.iter().filter(|run| !run.is_base() && run.operation != CLOCK) {
        let same = || runs.iter().filter(|other| other.is_base() && other.operation == run.operation);
        let bases: Vec<f64> = same().map(|other| median(&other.rounds)).collect();
        let base = median(&bases);
        let apart: Vec<f64> = bases.iter().map(|one| (one - base).abs()).collect();
        let spreads = same().map(|other| spread(&other.rounds)).chain([spread(&run.rounds)]);
        rows.push(Row {
            kernel: kernel.to_owned(),
            configuration: run.configuration.clone(),
            operation: run.operation.clone(),
            base,
            added: median(&run.rounds) - base,
            noise: spreads.fold(median(&apart), f64::max),
        });
    }
    Ok(rows)
}

/// A nanosecond of the guest must be an instruction, or the figures are something else. The shortest round counts:
/// others may have been interrupted.
fn check_clock(runs: &[Run]) -> Result<()> {
    let clocks = runs.iter().filter(|run| run.operation == CLOCK);
    let Some(clock) = clocks.flat_map(|run| run.rounds.iter().copied()).min_by(f64::total_cmp) else {
        bail!("the guest did not measure its clock");
    };
    if (clock - 1.0).abs() > 0.02 {
        bail!("an instruction takes {clock} ns of the guest's clock: it does not count instructions");
    }
    Ok(())
}

/// One line an operation, one column a configuration.
pub(super) fn table(rows: &[Row]) -> String {
    let mut configurations: Vec<&str> = Vec::new();
    let mut operations: Vec<&str> = Vec::new();
    for row in rows {
        for (list, name) in [(&mut configurations, &row.configuration), (&mut operations, &row.operation)] {
            if !list.contains(&name.as_str()) {
                list.push(name);
            }
        }
    }
    let mut text = format!("{:<24}{:>9}", "operation", "base");
    for configuration in &configurations {
        let _ = write!(text, "{configuration:>22}");
    }
    text.push_str("   noise\n");
    for operation in operations {
        let of = |configuration: &str| {
            rows.iter().find(|row| row.operation == operation && row.configuration == configuration)
        };
        let measured: Vec<Option<&Row>> =
            configurations.iter().map(|configuration| of(configuration)).collect();
        let base = measured.iter().flatten().map(|row| row.base).next().unwrap_or(0.0);
        let _ = write!(text, "{operation:<24}{base:>9.0}");
        for row in &measured {
            let _ = match row {
                Some(row) => write!(text, "{:>+22.0}", row.added),
                None => write!(text, "{:>22}", "-"),
            };
        }
        let noise = measured.iter().flatten().map(|row| row.noise).fold(0.0, f64::max);
        let _ = writeln!(text, "{noise:>8.0}");
    }
    text
}

impl Row {
    pub(super) fn json(&self) -> Value {
        let Self { kernel, configuration, operation, base, added, noise } = self;
        let round = |number: &f64| number.round() as i64;
        json!({
            "kernel": kernel, "configuration": configuration, "operation": operation,
            "base": round(base), "added": round(added), "noise": noise.ceil() as i64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(configuration: &str, operation: &str, rounds: &[f64]) -> Run {
        Run { configuration: configuration.into(), operation: operation.into(), rounds: rounds.to_vec() }
    }

    fn clock() -> Run {
        run("nothing", "clock", &[1.0, 1.001])
    }

    #[test]
    fn a_row_is_the_difference_of_medians() {
        let runs = [
            clock(),
            run("nothing", "open", &[100.0, 100.0, 900.0]),
            run("nothing again", "open", &[101.0]),
            run("nothing at the end", "open", &[98.0]),
            run("outside", "open", &[350.0, 350.0, 350.0]),
        ];
        let rows = rows("6.12", &runs).expect("a clock and a base");
        let expected = Row {
            kernel: "6.12".into(),
            configuration: "outside".into(),
            operation: "open".into(),
            base: 100.0,
            added: 250.0,
            noise: 1.0,
        };
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn a_clock_that_counts_something_else_is_an_error() {
        let error = rows("6.12", &[run("nothing", "clock", &[0.4])]).expect_err("it counts something else");
        assert!(error.to_string().contains("does not count instructions"), "{error}");
        assert!(rows("6.12", &[]).is_err());
    }

    #[test]
    fn what_the_guest_prints_is_read() {
        let line = r#"{"configuration":"outside","operation":"open","rounds":[1.5,2]}"#;
        let run = Run::parse(line).expect("a whole line");
        assert_eq!((run.operation.as_str(), run.rounds.as_slice()), ("open", [1.5, 2.0].as_slice()));
        assert!(Run::parse(r#"{"configuration":"outside","operation":"open","rounds":[]}"#).is_err());
    }
}
