//! What each figure may be: bench/budget.toml.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};

use super::figures::Row;
use crate::compile;

/// Kernel → configuration → operation → instructions that may be added.
type Allowed = BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>;

pub(super) struct Budget(Allowed);

/// Instructions by which equal measurements of two boots were seen to be apart, whatever their noise within one: the base
/// moves with where the kernel and its allocations happen to lie.
const BETWEEN_BOOTS: f64 = 60.0;
/// The same for operations of many thousand instructions, as a share of their base.
const SHARE_BETWEEN_BOOTS: f64 = 0.02;

/// What came of a comparison.
#[derive(Default)]
pub(super) struct Comparison {
    pub(super) compared: usize,
    pub(super) over: Vec<String>,
    /// Entries of a configuration that was measured, for operations that it does not have.
    pub(super) unknown: Vec<String>,
}

impl Budget {
    pub(super) fn read() -> Result<Self> {
        let path = compile::root().join("bench/budget.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(Self(toml::from_str(text)?))
    }

    pub(super) fn compare(&self, rows: &[Row]) -> Comparison {
        let mut result = Comparison::default();
        for (kernel, configurations) in &self.0 {
            for (configuration, operations) in configurations {
                let measured: Vec<&Row> = rows
                    .iter()
                    .filter(|row| row.kernel == *kernel && row.configuration == *configuration)
                    .collect();
                if measured.is_empty() {
                    // A kernel or a size that this run left out.
                    continue;
                }
                for (operation, allowed) in operations {
                    let place = format!("{kernel}, {configuration}: {operation}");
                    let Some(row) = measured.iter().find(|row| row.operation == *operation) else {
                        result.unknown.push(place);
                        continue;
                    };
                    result.compared += 1;
                    let Row { added, base, noise, .. } = row;
                    let boots = BETWEEN_BOOTS.max(SHARE_BETWEEN_BOOTS * base);
                    // An empty program takes more than that, so no hook hides there.
                    let boots = if *allowed == 0.0 { BETWEEN_BOOTS } else { boots };
                    if *added > allowed + noise + boots {
                        result
                            .over
                            .push(format!("{place}: {added:+.0} (±{noise:.0}), the budget is {allowed:+.0}"));
                    }
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(operation: &str, added: f64) -> Row {
        let (kernel, configuration) = ("6.12".into(), "outside".into());
        Row {
            kernel,
            configuration,
            operation: operation.into(),
            base: 5000.0,
            added,
            noise: 10.0,
            floor: None,
        }
    }

    #[test]
    fn a_figure_over_its_budget_by_more_than_its_noise_is_named() {
        let budget = Budget::parse("['6.12'.outside]\nopen = 250\nstat = 0\n").expect("valid");
        let within = budget.compare(&[row("open", 360.0), row("stat", 70.0)]);
        assert!(within.over.is_empty() && within.unknown.is_empty() && within.compared == 2);
        let over = budget.compare(&[row("open", 361.0), row("stat", 0.0)]);
        assert_eq!(over.over, ["6.12, outside: open: +361 (±10), the budget is +250"]);
        let over = budget.compare(&[row("open", 250.0), row("stat", 71.0)]);
        assert_eq!(over.over, ["6.12, outside: stat: +71 (±10), the budget is +0"]);
    }

    #[test]
    fn an_operation_that_is_gone_is_named_and_a_configuration_that_was_not_measured_is_not() {
        let budget =
            Budget::parse("['6.12'.outside]\nopem = 250\n['6.1'.outside]\nopen = 1\n").expect("valid");
        let result = budget.compare(&[row("open", 1.0)]);
        assert_eq!(result.unknown, ["6.12, outside: opem"]);
    }

    #[test]
    fn the_budget_of_this_checkout_is_valid() {
        Budget::read().expect("bench/budget.toml");
    }
}
