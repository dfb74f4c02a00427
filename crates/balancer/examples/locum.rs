//! Stands for the main binary in the tests: knows `proxy …` and nothing else. An example, since
//! cargo builds those along with the tests and ships them to nobody.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("proxy") => locum_proxy::main_process(arguments),
        _ => ExitCode::from(2),
    }
}
