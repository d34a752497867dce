//! `duet`: see the library.

fn main() -> std::process::ExitCode {
    router_cli::main()
}
