//! The `snapbridge` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    snapbridge::cli::main()
}
