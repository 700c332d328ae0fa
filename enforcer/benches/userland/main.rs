//! What the daemon and the command line do with the CPU: `cargo bench --package enforcer`. Needs no kernel feature,
//! no privileges and no network. docs/performance.md has figures and says what they are good for.

mod approval;
mod log;
mod made;
mod policy;
mod records;

fn main() {
    divan::main();
}
