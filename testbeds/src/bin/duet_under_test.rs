//! The program under test.
fn main() -> std::process::ExitCode {
    router_cli::main()
}
