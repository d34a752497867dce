//! WireGuard ports and their peers, in the words of `wg show`. Secret keys are never among them.

use super::out::{Out, Paint};
use crate::control::LinkInfo;
use router_io::port::wireguard::spec::{PeerStatus, Status};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// One port among tunnels: a line of its own, then its peers.
pub(super) fn interface(out: &mut Out<'_>, l: &LinkInfo, status: &Status) -> io::Result<()> {
    out.str("ifname", "", &l.name, ": ", Paint::Name)?;
    out.str("mode", "", "wireguard", "", Paint::Plain)?;
    peers(out, status)
}

/// Our key and port, and the peers, indented below what was printed before.
pub(super) fn peers(out: &mut Out<'_>, status: &Status) -> io::Result<()> {
    out.newline()?;
    out.str("public_key", "    public key: ", status.public_key, "", Paint::Plain)?;
    out.newline()?;
    out.num("listening_port", "    listening port: ", status.listen_port, "")?;
    out.array("peers")?;
    for p in &status.peers {
        out.object(None)?;
        peer(out, p)?;
        out.end_object()?;
    }
    out.end_array()
}

fn peer(out: &mut Out<'_>, p: &PeerStatus) -> io::Result<()> {
    out.newline()?;
    out.str("public_key", "    peer: ", p.public_key, "", Paint::Up)?;
    if p.preshared_key {
        out.newline()?;
        out.str("preshared_key", "      preshared key: ", "(hidden)", "", Paint::Plain)?;
    }
    if let Some(endpoint) = p.endpoint {
        out.newline()?;
        out.str("endpoint", "      endpoint: ", endpoint, "", Paint::addr(&endpoint.ip()))?;
        if let Some(name) = &p.endpoint_name {
            out.str("endpoint_name", " (", name, ")", Paint::Plain)?;
        }
    } else if let Some(name) = &p.endpoint_name {
        out.newline()?;
        out.str("endpoint_name", "      endpoint: ", name, " (not resolved)", Paint::Plain)?;
    }
    out.newline()?;
    let list: Vec<String> = p.allowed_ips.iter().map(ToString::to_string).collect();
    let words: Vec<&str> = list.iter().map(String::as_str).collect();
    out.words("allowed_ips", &words)?;
    let shown = if words.is_empty() { "(none)".to_owned() } else { words.join(", ") };
    out.text(format_args!("      allowed ips: {shown}"))?;
    if let Some(at) = p.latest_handshake {
        out.newline()?;
        out.json_num("latest_handshake", at)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        out.text(format_args!("      latest handshake: {}", ago(now.saturating_sub(at))))?;
    }
    if p.transfer_rx > 0 || p.transfer_tx > 0 || out.is_json() {
        out.newline()?;
        out.json_num("transfer_rx", p.transfer_rx)?;
        out.json_num("transfer_tx", p.transfer_tx)?;
        let (rx, tx) = (bytes(p.transfer_rx), bytes(p.transfer_tx));
        out.text(format_args!("      transfer: {rx} received, {tx} sent"))?;
    }
    if let Some(every) = p.persistent_keepalive {
        out.newline()?;
        let word = if every == 1 { "second" } else { "seconds" };
        out.num("persistent_keepalive", "      persistent keepalive: every ", every, "")?;
        out.text(format_args!(" {word}"))?;
    }
    Ok(())
}

/// As `wg show` says how long ago something was.
fn ago(mut seconds: u64) -> String {
    if seconds == 0 {
        return "Now".to_owned();
    }
    let mut parts = Vec::new();
    for (name, length) in [("year", 31_536_000), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)] {
        let n = seconds / length;
        seconds %= length;
        if n > 0 {
            parts.push(format!("{n} {name}{}", if n == 1 { "" } else { "s" }));
        }
    }
    parts.join(", ") + " ago"
}

/// As `wg show` prints an amount.
fn bytes(n: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, shift)| n >> shift > 0) {
        Some((unit, shift)) => format!("{:.2} {unit}", n as f64 / (1u64 << shift) as f64),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_amounts_are_those_of_wg() {
        assert_eq!(ago(0), "Now");
        assert_eq!(ago(1), "1 second ago");
        assert_eq!(ago(63), "1 minute, 3 seconds ago");
        assert_eq!(ago(90_061), "1 day, 1 hour, 1 minute, 1 second ago");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(5 << 30), "5.00 GiB");
    }
}
