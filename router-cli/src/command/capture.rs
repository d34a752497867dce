//! `duet capture`: packets of the running router to a pcapng file, to standard output, or as lines.

use super::{Session, unexpected};
use crate::control::{Answer, Body, CapturePage, CaptureSelect, Op, PacketRecord, plain};
use crate::grammar::inspect::Line;
use crate::grammar::{Failure, Options, exit};
use router_core::port::PortId;
use router_core::trace::{Filter, FilterError, Point};
use router_io::capture::pcapng::Packet;
use router_io::capture::rotate::Files;
use router_io::runtime::Signals;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Help of the command.
pub(crate) const USAGE: &str = "\
Usage: duet capture [ FILTER ] [ at POINT[,POINT]... ] [ -w FILE ] [ -c NUMBER ] [ -s BYTES ]
                    [ -C SIZE ] [ -W NUMBER ] [ -B PACKETS ] [ -j ]
POINT := { rx | tx | drop | inner | outer }, rx and tx if none is said
FILTER := in tcpdump's words: host, net, port, portrange, src, dst, ip, ip6, icmp, icmp6, tcp,
          udp, sctp, arp, proto, vlan, ether, less, greater, broadcast, multicast, inbound,
          outbound, and, or, not, ( ); and on PORT, reason DROP-REASON

  -w FILE     pcapng for Wireshark and tcpdump; - is standard output
  -c NUMBER   end after so many packets
  -s BYTES    of each packet, all if 0 or not said
  -C SIZE     next file after SIZE million bytes, or with k, M, G at its end; FILE1, FILE2 ...
  -W NUMBER   so many files, then the first again
  -B PACKETS  that may wait in the router; what finds no place is lost and counted
  -j          JSON, a line per packet
Without -w each packet is a line. Ctrl-C ends.";

/// What the words say.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub select: CaptureSelect,
    file: Option<PathBuf>,
    count: Option<u64>,
    size: u64,
    files: usize,
    pub options: Options,
    help: bool,
}

/// Reads the words behind `capture`.
pub(crate) fn parse(words: &[&str], options: Options) -> Result<Asked, Failure> {
    let mut a = Asked { options, ..Asked::default() };
    let line = &mut Line::new(words);
    let mut filter: Vec<(usize, &str)> = Vec::new();
    while let Some(word) = line.next() {
        let taken = line.option(word, &mut a.options)?;
        match word {
            _ if taken => {}
            "-w" => a.file = Some(line.value("a file, or -")?.into()),
            "-c" => a.count = Some(line.number(1, u64::MAX)?),
            "-s" => a.select.snap = line.number(0, 262_144)? as u32,
            "-C" => a.size = line.parsed("a size: 10 (million bytes), 500k, 1G", size)?,
            "-W" => a.files = line.number(1, 1_000_000)? as usize,
            "-B" => a.select.queue = line.number(1, 1 << 20)? as u32,
            "help" | "--help" | "-h" => a.help = true,
            "at" => {
                let list = line.value("rx, tx, drop, inner or outer")?;
                for name in list.split(',').filter(|n| !n.is_empty()) {
                    if Point::from_name(name).is_none() {
                        return Err(line.wrong("rx, tx, drop, inner or outer, or several with commas"));
                    }
                    a.select.at.push(name.to_owned());
                }
            }
            w if w.starts_with('-') && w.len() > 1 => {
                return Err(line.wrong("-w, -c, -s, -C, -W, -B, -j, or a filter"));
            }
            w => filter.push((line.here(), w)),
        }
    }
    if a.select.at.is_empty() {
        a.select.at = vec!["rx".into(), "tx".into()];
    }
    if (a.size > 0 || a.files > 0) && a.file.is_none() {
        return Err(line.complain(words.len(), "Error: without a file there is nothing to rotate.", "-w FILE"));
    }
    if a.files > 0 && a.size == 0 {
        return Err(line.complain(words.len(), "Error: -W numbers the files that -C makes.", "-C SIZE"));
    }
    a.select.filter = check_filter(line, &filter)?;
    Ok(a)
}

/// Joins the words of a filter and checks them; a complaint points into the command.
pub(crate) fn check_filter(line: &Line<'_>, words: &[(usize, &str)]) -> Result<String, Failure> {
    let text = words.iter().map(|(_, w)| *w).collect::<Vec<_>>().join(" ");
    // Only the router knows its ports.
    match Filter::parse(&text, &|_| Some(PortId(0))) {
        Ok(_) => Ok(text),
        Err(e) => Err(locate(line, words, &e)),
    }
}

fn locate(line: &Line<'_>, words: &[(usize, &str)], e: &FilterError) -> Failure {
    let message = format!("Error: {}", e.message);
    let mut start = 0;
    for (at, word) in words {
        if e.len > 0 && (start..start + word.len()).contains(&e.at) {
            let offset = word.get(..e.at - start).map_or(0, |w| w.chars().count());
            return line.complain_within(*at, offset, e.len, &message, &e.expected);
        }
        start += word.len() + 1;
    }
    let end = words.last().map_or(0, |(at, _)| at + 1);
    line.complain(end, &message, &e.expected)
}

/// `10` is ten million bytes, as in tcpdump; `k`, `M`, `G` count in thousands, `Ki`, `Mi`, `Gi` in 1024s.
fn size(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let n = digits.parse::<u64>().ok().filter(|n| *n > 0)?;
    let unit = match word.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" | "m" | "mb" => 1_000_000,
        "k" | "kb" => 1000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    n.checked_mul(unit)
}

/// Where packets go.
enum To<'a> {
    File(Box<Files>),
    Lines(&'a mut dyn Write),
    Json(&'a mut dyn Write),
}

impl To<'_> {
    fn packet(&mut self, p: &PacketRecord) -> io::Result<()> {
        match self {
            To::File(files) => {
                let comment = comment(p);
                files.write(&Packet {
                    nanos: p.nanos,
                    interface: &p.port,
                    inbound: Some(p.inbound),
                    comment: comment.as_deref(),
                    data: &p.data.0,
                    len: p.len,
                    ethernet: p.ethernet,
                    vlan_tci: p.vlan_tci,
                })
            }
            To::Lines(out) => writeln!(out, "{}", text(p)),
            To::Json(out) => {
                serde_json::to_writer(&mut *out, p)?;
                writeln!(out)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            To::File(files) => files.flush(),
            To::Lines(out) | To::Json(out) => out.flush(),
        }
    }
}

/// What Wireshark shows beside the packet: why it was dropped, or where it was seen if not at a port.
fn comment(p: &PacketRecord) -> Option<String> {
    match &p.reason {
        Some(reason) => {
            let why = router_core::drop_reason::DropReason::from_name(reason).map_or("", |r| r.explanation());
            Some(format!("dropped: {reason}: {why}"))
        }
        None => matches!(p.at.as_str(), "inner" | "outer").then(|| format!("{} packet of a tunnel", p.at)),
    }
}

/// The time of day (UTC) in microseconds.
pub(crate) fn time_of_day(nanos: u64) -> String {
    let micros = nanos / 1000;
    let s = micros / 1_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}.{:06}", s / 3600, s / 60 % 60, s % 60, micros % 1_000_000)
}

/// A packet as a line.
fn text(p: &PacketRecord) -> String {
    let what = match p.view() {
        Some(view) => view.to_string(),
        None => format!("{} bytes{}", p.len, ether_type(p)),
    };
    let way = if p.inbound { "in " } else { "out" };
    let end = match (&p.reason, p.at.as_str()) {
        (Some(reason), _) => format!("  dropped: {reason}"),
        (None, "inner" | "outer") => format!("  ({})", p.at),
        _ => String::new(),
    };
    format!("{}  {:<8} {way}  {what}{end}", time_of_day(p.nanos), p.port)
}

fn ether_type(p: &PacketRecord) -> String {
    match p.data.0.get(12..14) {
        Some([8, 6]) if p.ethernet => match p.data.0.get(21) {
            Some(1) => " ARP request".to_owned(),
            Some(2) => " ARP reply".to_owned(),
            _ => " ARP".to_owned(),
        },
        Some([a, b]) if p.ethernet => format!(" of type 0x{a:02x}{b:02x}"),
        _ => String::new(),
    }
}

/// Captures until a signal, the count, or a failure.
pub(crate) fn run(
    asked: Asked,
    out: &mut dyn Write,
    socket: impl FnOnce(&Options) -> Result<PathBuf, Failure>,
) -> Result<(), Failure> {
    if asked.help {
        return Ok(writeln!(out, "{USAGE}")?);
    }
    let Asked { select, file, count, size, files, options, .. } = asked;
    if file.as_deref() == Some(Path::new("-")) && io::stdout().is_terminal() {
        let line = "Error: a capture file would spoil the terminal.";
        return Err(Failure::with_hint(exit::USAGE, line, "say \"-w FILE\", or \"-w - | wireshark -k -i -\""));
    }
    let path = file.clone().unwrap_or_default();
    let cannot_open =
        |e: io::Error| Failure::new(exit::REFUSED, format!("Cannot open {}: {}", path.display(), plain(&e)));
    let socket = socket(&options)?;
    let snap = if select.snap == 0 { 262_144 } else { select.snap };
    let json = options.json;
    let mut session_out = io::sink();
    let mut session = Session::new(socket, options, &mut session_out, false);
    let client = session.client()?;
    // Before the file is touched: a filter that the router refuses must not cost an old file.
    client.send(Op::Capture(select.clone()))?;
    let first = page(client.receive()?)?;
    let mut to = match &file {
        Some(path) => To::File(Box::new(Files::create(path, snap, size, files).map_err(cannot_open)?)),
        None if json => To::Json(out),
        None => To::Lines(out),
    };
    let stopped = stop_on_signal(client.handle()?)?;
    if !json {
        let points = select.at.join(", ");
        let what = if select.filter.is_empty() { "all packets".to_owned() } else { select.filter.clone() };
        let where_to = file.as_ref().map_or_else(String::new, |f| format!(" to {}", f.display()));
        eprintln!("capturing {what} at {points}{where_to}; Ctrl-C ends");
    }
    let mut taken = 0u64;
    let (mut last, mut lost) = (0, first.lost);
    let mut result = Ok(());
    loop {
        let (page, over) = match client.receive() {
            Ok(Body::Ok(Answer::Capture(p))) => (p, true),
            Ok(Body::Page(Answer::Capture(p))) => (p, false),
            Ok(_) => return Err(unexpected()),
            // The signal has closed the connection.
            Err(_) if stopped.load(Relaxed) => break,
            Err(e) => {
                result = Err(Failure::from(e));
                break;
            }
        };
        lost = page.lost;
        let wanted = count.map_or(usize::MAX, |c| usize::try_from(c - taken).unwrap_or(usize::MAX));
        let mut written = Ok(());
        for p in page.packets.iter().take(wanted) {
            written = to.packet(p);
            if written.is_err() {
                break;
            }
            taken += 1;
            last = p.nanos;
        }
        if let Err(e) = written.and_then(|()| to.flush()) {
            result = Err(cannot_write(&file, &e));
            break;
        }
        if over || count.is_some_and(|c| taken >= c) {
            break;
        }
    }
    if result.is_ok()
        && let To::File(files) = &mut to
        && let Err(e) = files.finish(last, lost)
    {
        result = Err(cannot_write(&file, &e));
    }
    if !json {
        let s = if taken == 1 { "" } else { "s" };
        eprintln!("{taken} packet{s} captured, {lost} lost because they were not taken fast enough");
    }
    result
}

fn page(body: Body) -> Result<CapturePage, Failure> {
    match body {
        Body::Page(Answer::Capture(p)) | Body::Ok(Answer::Capture(p)) => Ok(p),
        _ => Err(unexpected()),
    }
}

fn cannot_write(file: &Option<PathBuf>, e: &io::Error) -> Failure {
    let name = match file.as_deref() {
        Some(p) if p != Path::new("-") => p.display().to_string(),
        _ => "standard output".to_owned(),
    };
    if e.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(exit::REFUSED, format!("Capture ended: nobody reads {name} any more."));
    }
    Failure::new(exit::REFUSED, format!("Capture ended: cannot write {name}: {}", plain(e)))
}

/// SIGINT, SIGTERM and SIGHUP close the connection, which ends the capture in order.
pub(crate) fn stop_on_signal(stream: std::os::unix::net::UnixStream) -> Result<Arc<AtomicBool>, Failure> {
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    let signals =
        Signals::install().map_err(|e| Failure::new(exit::REFUSED, format!("Cannot wait for signals: {e}")))?;
    let watching = std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Ok(Some(_)) = signals.wait(None) {
            flag.store(true, Relaxed);
            // The router sends what it has and ends; the rest is read as usual.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // A router that does not answer any more must not keep us, nor a second Ctrl-C.
            let _ = signals.wait(Some(std::time::Duration::from_secs(2)));
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
    watching.map_err(|e| Failure::new(exit::REFUSED, format!("Cannot wait for signals: {e}")))?;
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use router_core::explain::Bytes;

    #[test]
    fn words_of_tcpdump() {
        let parse = |text: &str| parse(&text.split_whitespace().collect::<Vec<_>>(), Options::default());
        let a = parse("tcp port 80 at drop,rx -w x.pcapng -C 10 -W 3 -s 128 or icmp -c 5").unwrap();
        assert_eq!(a.select.filter, "tcp port 80 or icmp");
        assert_eq!(
            (a.select.at, a.size, a.files, a.select.snap, a.count),
            (vec!["drop".to_owned(), "rx".into()], 10_000_000, 3, 128, Some(5))
        );
        assert_eq!(parse("").unwrap().select.at, ["rx", "tx"]);
        for (text, caret, expected) in [
            ("tcp prt 80", "^^^", "expected and, or"),
            ("at nowhere", "^^^^^^^", "rx, tx, drop"),
            ("-w", "^", "a file"),
            ("-C 5", "^", "-w FILE"),
            ("tcp and", "^", "host, net"),
            ("(tcp or udp", "^", "closing parenthesis"),
            ("-x", "^^", "-w, -c"),
        ] {
            let said = crate::complaint::shown(parse(text).unwrap_err(), "capture", text);
            let marked = said.lines().nth(2).unwrap_or_default();
            assert!(marked.contains(caret) && said.contains(expected), "{text}: {said}");
        }
        let text = "at drop tcp prt 80";
        let said = crate::complaint::shown(parse(text).unwrap_err(), "capture", text);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[2].find('^'), lines[1].find("prt"), "{said}");
        assert_eq!(
            ["10", "500k", "1Gi", "0", "5x", ""].map(size),
            [Some(10_000_000), Some(500_000), Some(1 << 30), None, None, None]
        );
    }

    #[test]
    fn a_line_per_packet() {
        let p = PacketRecord {
            nanos: 1_700_000_000_123_456_000,
            at: "drop".into(),
            port: "lan0".into(),
            inbound: true,
            reason: Some("ttl_expired".into()),
            len: 28,
            ethernet: false,
            vlan_tci: None,
            gso: None,
            data: Bytes::from_hex("4500001c 00000000 01110000 c0000201 c6336402 03e80035 00080000").unwrap(),
        };
        // The checksum is wrong on purpose: what cannot be parsed is told as bytes.
        assert_eq!(text(&p), "22:13:20.123456  lan0     in   28 bytes  dropped: ttl_expired");
        assert!(comment(&p).unwrap().starts_with("dropped: ttl_expired: TTL or hop limit"));
    }
}
