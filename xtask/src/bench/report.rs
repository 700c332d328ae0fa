//! The figures as one page: no script, nothing that is fetched, so that it opens from a disk.

use std::fmt::Write as _;

use anyhow::Result;

use super::{
    figures::{self, Row},
    plots::{self, Line},
};

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>What enforcement costs</title>
<style>
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 1120px; color: #222; background: #fff; }
figure { display: inline-block; margin: 0 12px 12px 0; }
pre { overflow-x: auto; font-size: 12px; }
ul.key { list-style: none; padding: 0; } ul.key li { display: inline-block; margin-right: 1.5em; }
ul.key i { display: inline-block; width: 1em; height: 1em; margin-right: .4em; vertical-align: -2px; }
</style></head><body>
<h1>What enforcement costs</h1>
<p>Instructions of an emulated guest that a configuration adds to an operation, compared with the same boot while
nothing was loaded. The thin lines are the noise. docs/performance.md says how it was measured, and what
instructions do not tell.</p>
";

/// The page.
pub(super) fn html(rows: &[Row]) -> Result<String> {
    let mut page = HEAD.to_owned();
    for kernel in unique(rows.iter().map(|row| row.kernel.as_str())) {
        let (programs, rows): (Vec<&Row>, Vec<&Row>) =
            rows.iter().filter(|row| row.kernel == kernel).partition(|row| row.is_about_a_program());
        let _ = writeln!(page, "<h2>Kernel {}</h2>", escape(kernel));
        page += &key(&rows);
        page.push_str("<h3>By operation</h3>\n");
        for operation in unique(rows.iter().map(|row| row.operation.as_str())) {
            let of: Vec<&Row> = rows.iter().copied().filter(|row| row.operation == operation).collect();
            figure(&mut page, &plots::bars(operation, &of)?);
        }
        page.push_str("<h3>By the depth of the path</h3>\n");
        for (title, end) in [("open, warm", ""), ("open, cold", ", cold")] {
            figure(&mut page, &plots::lines(title, "components", &over_depth(&rows, end), false)?);
        }
        page.push_str("<h3>By the number of rules</h3>\n");
        for operation in ["open depth 6", "open depth 6, cold", "create+unlink", "UDP send, to address"] {
            figure(&mut page, &plots::lines(operation, "rules", &over_rules(&rows, operation), true)?);
        }
        page.push_str("<h3>Tables</h3>\n");
        for table in [figures::table(&rows), figures::above_floor(&rows), figures::programs(&programs)] {
            let _ = writeln!(page, "<pre>{}</pre>", escape(&table));
        }
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

fn figure(page: &mut String, svg: &str) {
    let _ = writeln!(page, "<figure>{svg}</figure>");
}

fn key(rows: &[&Row]) -> String {
    let mut text = "<ul class=\"key\">".to_owned();
    for configuration in unique(rows.iter().map(|row| row.configuration.as_str())) {
        let plotters::style::RGBColor(red, green, blue) = plots::colour(configuration);
        let name = escape(configuration);
        let _ = write!(text, "<li><i style=\"background:rgb({red},{green},{blue})\"></i>{name}</li>");
    }
    text + "</ul>\n"
}

/// Of each configuration, what `open depth N` costs.
fn over_depth(rows: &[&Row], end: &str) -> Vec<Line> {
    let depth = |row: &Row| -> Option<f64> {
        row.operation.strip_prefix("open depth ")?.strip_suffix(end)?.parse().ok()
    };
    let line = |name: &str| Line {
        name: name.to_owned(),
        colour: plots::colour(name),
        points: rows
            .iter()
            .filter(|row| row.configuration == name)
            .filter_map(|row| Some((depth(row)?, row.added)))
            .collect(),
    };
    unique(rows.iter().map(|row| row.configuration.as_str())).into_iter().map(line).collect()
}

/// Of each system that has rules, what one operation costs.
fn over_rules(rows: &[&Row], operation: &str) -> Vec<Line> {
    let parts = |row: &Row| -> Option<(String, f64)> {
        let (system, rules) = row.configuration.split_once(", ")?;
        Some((system.to_owned(), rules.strip_suffix(" rules")?.parse().ok()?))
    };
    let mut lines: Vec<Line> = Vec::new();
    for row in rows.iter().filter(|row| row.operation == operation) {
        let Some((system, rules)) = parts(row) else { continue };
        let place = lines.iter().position(|line| line.name == system).unwrap_or_else(|| {
            let colour = plots::colour(&system);
            lines.push(Line { name: system, colour, points: Vec::new() });
            lines.len() - 1
        });
        lines[place].points.push((rules, row.added));
    }
    lines
}

/// In the order of the first of each.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut list = Vec::new();
    for name in names {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    list
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(configuration: &str, operation: &str, added: f64) -> Row {
        let (configuration, operation) = (configuration.to_owned(), operation.to_owned());
        Row { kernel: "6.12".into(), configuration, operation, base: 5000.0, added, noise: 10.0, floor: None }
    }

    #[test]
    fn a_page_has_every_figure_and_fetches_nothing() {
        let rows = [
            row("outside", "open depth 3", 250.0),
            row("inside, 10 rules", "open depth 3", 600.0),
            row("inside, 1000 rules", "open depth 3", 612.0),
            row("inside, 10 rules", "open depth 6", 601.0),
            row("inside, 10 rules", "connect <denied>", -14000.0),
        ];
        let page = html(&rows).expect("drawn");
        for text in ["+250", "+612", "-14000", "connect &lt;denied&gt;", "Kernel 6.12"] {
            assert!(page.contains(text), "{text}");
        }
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http") && !elsewhere.contains("<script"));
    }

    #[test]
    fn lines_are_by_depth_and_by_rules() {
        let rows = [
            row("inside, 10 rules", "open depth 3", 1.0),
            row("inside, 10 rules", "open depth 12", 2.0),
            row("inside, 10 rules", "open depth 12, cold", 9.0),
            row("inside, 1000 rules", "open depth 12", 3.0),
        ];
        let rows: Vec<&Row> = rows.iter().collect();
        assert_eq!(over_depth(&rows, "")[0].points, [(3.0, 1.0), (12.0, 2.0)]);
        assert_eq!(over_depth(&rows, ", cold")[0].points, [(12.0, 9.0)]);
        assert_eq!(over_rules(&rows, "open depth 12")[0].points, [(10.0, 2.0), (1000.0, 3.0)]);
    }
}
