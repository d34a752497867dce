//! Programs of the distribution, where they are installed.

use router_io::lab::Host;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a program in a host; None if it is not installed, which is said on standard error. Standard output and standard
/// error together, and whether it succeeded.
pub fn run(host: &Host, program: &str, args: &[&str]) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut process) = host.spawn(command) else {
        eprintln!("SKIPPED: {} of host {}: not installed", program, host.name());
        return None;
    };
    let mut text = String::new();
    // Ends when the program does; all that are run here limit themselves.
    process.stdout()?.read_to_string(&mut text).ok()?;
    process.stderr()?.read_to_string(&mut text).ok()?;
    let status = process.wait(Duration::from_secs(30)).ok()??;
    Some((status.success(), text))
}

/// Addresses of the hops that traceroute(8) prints with `-n -q 1`, `*` for silent ones.
pub fn hops(output: &str) -> Vec<String> {
    let mut lines = output.lines().map(|l| l.split_whitespace());
    lines
        .by_ref()
        .filter_map(|mut words| {
            let _: u8 = words.next()?.parse().ok()?;
            words.next().map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceroute_output() {
        let text =
            "traceroute to 192.0.2.9 (192.0.2.9), 30 hops max, 60 byte packets\n 1  192.0.0.8  0.061 ms\n 2  *\n";
        assert_eq!(hops(text), ["192.0.0.8", "*"]);
    }
}
