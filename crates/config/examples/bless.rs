//! Writes down what every conformance case yields now. The difference is reviewed like code.

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> std::io::Result<()> {
    for case in support::cases() {
        std::fs::write(support::expected(&case), support::outcome(&case))?;
        println!("{}", case.display());
    }
    Ok(())
}
