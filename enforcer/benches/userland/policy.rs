//! From a policy's text to the kernel's tables: what `enforcer policy check` and a reload wait for.

use divan::Bencher;
use enforcer::policy::{compile, parse};
use std::fmt::Write as _;

/// How many rules a policy has.
const RULES: [usize; 3] = [10, 1_000, 10_000];

/// One rule of ten is about a network, the others about directories.
fn text(rules: usize) -> String {
    let mut text = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
        metadata: { id: bench, version: 1, owner: bench@example.com, purpose: Benchmark }\nfiles:\n"
        .to_owned();
    let networks = rules / 10;
    for i in 0..rules - networks {
        let _ = writeln!(
            text,
            "  - {{ allow: [read, list], paths: [\"/srv/group-{}/item-{}/**\"] }}",
            i / 100,
            i % 100
        );
    }
    text.push_str("network:\n");
    for i in 0..networks {
        let _ =
            writeln!(text, "  - {{ allow: [connect], to: [\"10.{}.{}.0/24:443/tcp\"] }}", i / 256, i % 256);
    }
    text
}

#[divan::bench(args = RULES, sample_count = 10, sample_size = 1)]
fn parse_and_compile(bencher: Bencher<'_, '_>, rules: usize) {
    let text = text(rules);
    // Reading makes the tables too, since a policy without any is no valid one; `compile` hands them out.
    bencher.bench(|| compile(&parse("bench.yaml", &text).expect("a valid policy")).expect("it fits"));
}
