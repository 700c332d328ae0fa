//! Benchmarks inside a guest whose clock counts instructions.

mod apparmor;
mod landlock;
mod ops;
pub mod phases;
mod programs;
mod rules;

/// Whatever went wrong, for people.
pub type Done = Result<(), Box<dyn std::error::Error>>;

/// Measures every operation in this process, or those that are wanted, and prints the rounds of each.
pub fn measure(configuration: &str, only: &[&str]) -> Done {
    // Like ours, a profile holds from the start; what Landlock confines has begun without it.
    if configuration.starts_with("apparmor") {
        apparmor::confine(configuration)?;
    }
    let mut bench = ops::Bench::prepare()?;
    if let Some(rest) = configuration.strip_prefix("landlock, ") {
        landlock::confine(rest.trim_end_matches(" rules").parse()?)?;
    }
    // What the start of a session makes others do is over by then.
    std::thread::sleep(std::time::Duration::from_secs(2));
    // Printed at the end: whoever reads would work in between.
    let measured = bench.all(&ops::Only(only))?;
    for operation in measured {
        println!(
            "{}",
            serde_json::json!({
                "configuration": configuration, "operation": operation.name, "rounds": operation.rounds,
                "operations": operation.operations,
            })
        );
    }
    Ok(())
}

/// Opens what is refused, `count` times.
pub fn refused(count: &str) -> Done {
    for _ in 0..count.parse()? {
        let _ = std::fs::File::open(ops::DENIED);
    }
    Ok(())
}

/// Opens a file for ever.
pub fn repeat(path: &str) -> Done {
    loop {
        let _ = std::fs::File::open(path)?;
    }
}
