//! `duet`: see the library.

use router_io::line_alloc::LineAlloc;

#[global_allocator]
static ALLOC: LineAlloc = LineAlloc::new();

fn main() -> std::process::ExitCode {
    router_cli::main()
}
