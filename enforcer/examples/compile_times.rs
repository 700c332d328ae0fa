//! Prints how long policies of 10, 1,000 and 10,000 mixed rules take to read, check and compile, and
//! how large they get: `cargo run --release -p enforcer --example compile_times`.

use enforcer::policy::{compile, parse};
use std::{fmt::Write as _, time::Instant};

/// A small generator of repeatable numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn word(&mut self) -> String {
        (0..3 + self.below(7)).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }
}

/// 60 % directories with all below, 20 % files, 10 % extensions below a directory, 5 % names
/// anywhere, 5 % a star inside a component.
fn mixed(rules: usize) -> String {
    let mut numbers = Numbers(0x0123_4567);
    let mut text = String::from(
        "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata: { id: bench, version: 1, owner: me, purpose: figures }\n\
         files:\n",
    );
    let tops = ["usr", "var", "opt", "home", "srv", "etc", "workspace", "data"];
    for _ in 0..rules {
        let top = tops[numbers.below(8) as usize];
        let (a, b, c) = (numbers.word(), numbers.word(), numbers.word());
        let path = match numbers.below(100) {
            0..60 => format!("/{top}/{a}/{b}/**"),
            60..80 => format!("/{top}/{a}/{b}/{c}"),
            80..90 => format!("/{top}/{a}/**/*.{}", &b[..3]),
            90..95 => format!("**/{a}.{}", &b[..3]),
            _ => format!("/{top}/{a}*/{b}"),
        };
        let verdict = ["allow: [read]", "hold: [read, write]", "deny: [all]"][numbers.below(3) as usize];
        let _ = writeln!(text, "  - {{ {verdict}, paths: [\"{path}\"] }}");
    }
    text
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:>7} {:>12} {:>10} {:>24} {:>12}", "rules", "compiled ms", "placed ms", "states", "bytes");
    for rules in [10, 100, 1_000, 10_000] {
        let text = mixed(rules);
        let start = Instant::now();
        let policy = parse("bench.yaml", &text)?;
        let image = compile(&policy)?;
        let compiled = start.elapsed();
        let start = Instant::now();
        let placed = image.place(0);
        let done = start.elapsed();
        println!(
            "{rules:>7} {:>12.1} {:>10.1} {:>24} {:>12}",
            compiled.as_secs_f64() * 1e3,
            done.as_secs_f64() * 1e3,
            format!("{:?}", image.group_states()),
            placed.bytes.len()
        );
    }
    for (name, globs) in [
        ("24 x **/x/**/y", (0..24).map(|i| format!("**/x{i}/**/y")).collect::<Vec<_>>()),
        ("26 x /w/**/*x*.rs", ('a'..='z').map(|c| format!("/w/**/*{c}*.rs")).collect()),
    ] {
        let mut text = mixed(0);
        globs.iter().for_each(|glob| {
            let _ = writeln!(text, "  - {{ deny: [read], paths: [\"{glob}\"] }}");
        });
        let start = Instant::now();
        let refused = parse("bench.yaml", &text).is_err();
        println!("{name}: refused {refused} after {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
