//! The proxy's process by itself, for the tests: what `locum proxy …` of the main binary runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    locum_proxy::main_process(std::env::args().skip(1).skip_while(|word| word == "proxy"))
}
