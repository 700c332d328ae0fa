//! From the rounds of each run to one row per configuration and operation. No I/O.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The runs with nothing loaded, before, once more, and after all others.
const BASE: &str = "nothing";
/// What the loop of a known number of instructions is called.
const CLOCK: &str = "clock";
/// Programs that do nothing on the hooks of ours.
const FLOOR: &str = "empty programs";
/// Not costs but facts about each of our programs; here an operation is a program.
const ABOUT_PROGRAMS: [&str; 3] = ["verified instructions", "eBPF bytes", "machine code bytes"];

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
    /// What empty programs on the same hooks add, where they were measured.
    pub(super) floor: Option<f64>,
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
            floor: None,
        });
    }
    let floors: BTreeMap<String, f64> = rows
        .iter()
        .filter(|row| row.configuration == FLOOR)
        .map(|row| (row.operation.clone(), row.added))
        .collect();
    for row in rows.iter_mut().filter(|row| row.configuration != FLOOR) {
        row.floor = floors.get(&row.operation).copied();
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
pub(super) fn table(rows: &[&Row]) -> String {
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
    // Two blanks before each name, and never so narrow that columns dance from run to run.
    let width = |configuration: &str| (configuration.len() + 2).max(22);
    for configuration in &configurations {
        let _ = write!(text, "{configuration:>0$}", width(configuration));
    }
    text.push_str("   noise\n");
    for operation in operations {
        let of = |configuration: &str| {
            rows.iter().copied().find(|row| row.operation == operation && row.configuration == configuration)
        };
        let measured: Vec<Option<&Row>> =
            configurations.iter().map(|configuration| of(configuration)).collect();
        let base = measured.iter().flatten().map(|row| row.base).next().unwrap_or(0.0);
        let _ = write!(text, "{operation:<24}{base:>9.0}");
        for (row, configuration) in measured.iter().zip(&configurations) {
            let width = width(configuration);
            let _ = match row {
                Some(row) => write!(text, "{:>+width$.0}", row.added),
                None => write!(text, "{:>width$}", "-"),
            };
        }
        let noise = measured.iter().flatten().map(|row| row.noise).fold(0.0, f64::max);
        let _ = writeln!(text, "{noise:>8.0}");
    }
    text
}

/// What ours adds beyond the empty programs, for the operations in which so many hooks or so much else takes part that
/// the sum says little.
pub(super) fn above_floor(rows: &[&Row]) -> String {
    const OF_INTEREST: [&str; 5] = ["fork+exec", "TCP", "connect", "UDP", "unix"];
    let ours = ["outside", "inside"];
    let mut text = String::from(
        "beyond empty programs on the same hooks
",
    );
    for row in rows {
        let wanted = OF_INTEREST.iter().any(|start| row.operation.starts_with(start))
            && ours.iter().any(|start| row.configuration.starts_with(start));
        if let (true, Some(floor)) = (wanted, row.floor) {
            let _ = writeln!(
                text,
                "{:<24}{:<22}{:>+9.0}   of {:>+9.0}",
                row.operation,
                row.configuration,
                row.added - floor,
                row.added
            );
        }
    }
    text
}

/// One line a program.
pub(super) fn programs(rows: &[&Row]) -> String {
    let mut text = format!("{:<28}", "program");
    for configuration in ABOUT_PROGRAMS {
        let _ = write!(text, "{configuration:>24}");
    }
    text.push('\n');
    let mut by_program: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for row in rows {
        by_program.entry(&row.operation).or_default().insert(&row.configuration, row.added);
    }
    let mut sums = [0.0; 3];
    for (program, figures) in &by_program {
        let _ = write!(text, "{program:<28}");
        for (configuration, sum) in ABOUT_PROGRAMS.iter().zip(&mut sums) {
            let figure = figures.get(configuration).copied().unwrap_or(0.0);
            *sum += figure;
            let _ = write!(text, "{figure:>24.0}");
        }
        text.push('\n');
    }
    let _ = write!(text, "{:<28}", format!("all {}", by_program.len()));
    for sum in sums {
        let _ = write!(text, "{sum:>24.0}");
    }
    text + "\n"
}

impl Row {
    /// A fact about a program, not a cost.
    pub(super) fn is_about_a_program(&self) -> bool {
        ABOUT_PROGRAMS.contains(&self.configuration.as_str())
    }

    pub(super) fn json(&self) -> Value {
        let Self { kernel, configuration, operation, base, added, noise, floor } = self;
        let round = |number: &f64| number.round() as i64;
        json!({
            "kernel": kernel, "configuration": configuration, "operation": operation,
            "base": round(base), "added": round(added), "noise": noise.ceil() as i64,
            "floor": floor.as_ref().map(round),
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
            floor: None,
        };
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn the_floor_stands_beside_what_is_above_it() {
        let runs = [
            clock(),
            run("nothing", "UDP send", &[100.0]),
            run("inside, 10 rules", "UDP send", &[900.0]),
            run("empty programs", "UDP send", &[300.0]),
            run("verified instructions", "socket_sendmsg", &[1234.0]),
        ];
        let rows = rows("6.12", &runs).expect("a clock and a base");
        assert_eq!(rows[0].floor, Some(200.0));
        assert_eq!(rows[0].json()["floor"], 200);
        let (programs, rows): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.is_about_a_program());
        assert!(above_floor(&rows).contains("+600   of      +800"), "{}", above_floor(&rows));
        assert_eq!((programs[0].added, programs[0].floor), (1234.0, None));
        assert!(super::programs(&programs).contains("socket_sendmsg"));
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
