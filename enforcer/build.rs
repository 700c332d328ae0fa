//! The kernel programs are built before, by another compiler (`cargo xtask build`); this only says
//! where they are.

fn main() {
    const OBJECT: &str = "ENFORCER_BPF_OBJECT";
    println!("cargo::rerun-if-env-changed={OBJECT}");
    if std::env::var_os("CARGO_FEATURE_KERNEL").is_none() {
        return;
    }
    match std::env::var(OBJECT) {
        Ok(path) => println!("cargo::rerun-if-changed={path}"),
        Err(_) => println!(
            "cargo::error=feature `kernel` needs the built kernel programs in {OBJECT}: use `cargo xtask build`"
        ),
    }
}
