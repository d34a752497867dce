//! `duet explain`: what becomes of a packet and why, asked of the running router or of a configuration alone.

use super::capture::{check_filter, stop_on_signal};
use super::{Session, unexpected};
use crate::control::{Answer, Body, CaptureSelect, Client, ClientError, Op};
use crate::grammar::inspect::Line;
use crate::grammar::{Failure, Options, exit};
use crate::output;
use crate::shell::offline::Offline;
use router_core::explain::{Bytes, Explanation, Question};
use router_core::port::Medium;
use router_io::capture::pcapng::AnyReader;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Help of the command.
pub(crate) const USAGE: &str = "\
Usage: duet explain [ -c FILE ] [ --all ] [ -j ] PACKET
PACKET := [ from ADDRESS ] to ADDRESS [ iif PORT ]
          [ proto { udp | tcp | icmp | NUMBER } ] [ sport NUMBER ] [ dport NUMBER ]
          [ ttl NUMBER ] [ tos NUMBER ] [ len NUMBER ] [ gso NUMBER ] [ df ] [ mark NUMBER ]
        | { --pcap FILE NUMBER | --hex BYTES } [ iif PORT ]
        | --watch [ FILTER ] [ count NUMBER ]
Runs the data plane's own code on the packet, without sending it, and tells every step:
which prefixes and routes competed and why one won, next hops, neighbours, tunnels, the
MTU and who sets it, the finished headers; or why it is dropped and who is told.

  -c FILE     ask a configuration instead of the running router
  --all       every fragment or segment, and the answers in full
  --pcap FILE NUMBER
              packet NUMBER, from 1, of a capture file
  --hex BYTES an Ethernet frame or IP packet in hexadecimal
  --watch     live packets as they come in; the filter is in tcpdump's words
  -j, -p      JSON, indented
\"len\" is that of the whole IP packet; \"gso\" makes it a super-frame of such segments.";

/// What the words say.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub question: Question,
    pub config: Option<PathBuf>,
    pub all: bool,
    pub options: Options,
    pub help: bool,
    /// Live packets that fit this filter, so many.
    watch: Option<(String, u64)>,
}

const PROTO: &str = "udp, tcp, icmp or a number from 0 to 255";
const WORDS: &str = "from, to, iif, proto, sport, dport, ttl, tos, len, gso, df, mark, --pcap or --hex";

/// Reads the words behind `explain`.
pub(crate) fn parse(words: &[&str], options: Options) -> Result<Asked, Failure> {
    let mut a = Asked { options, ..Asked::default() };
    let line = &mut Line::new(words);
    let mut said: Vec<&str> = Vec::new();
    while let Some(word) = line.next() {
        if said.contains(&word) {
            let at = line.here();
            return Err(line.complain(at, &format!("Error: \"{word}\" is said twice."), "each word once"));
        }
        let taken = line.option(word, &mut a.options)?;
        let q = &mut a.question;
        match word {
            _ if taken => {}
            "from" => q.from = Some(line.address()?),
            "to" => q.to = Some(line.address()?),
            "iif" | "dev" => q.iif = Some(line.value("the name of a port")?.to_owned()),
            "proto" => {
                q.proto = Some(line.parsed(PROTO, |w| match w {
                    "udp" => Some(17),
                    "tcp" => Some(6),
                    "icmp" => Some(1),
                    "icmp6" | "icmpv6" | "ipv6-icmp" => Some(58),
                    number => number.parse().ok(),
                })?);
            }
            "sport" => q.sport = Some(line.number(0, 65_535)? as u16),
            "dport" => q.dport = Some(line.number(0, 65_535)? as u16),
            "ttl" | "hlim" => q.ttl = Some(line.number(0, 255)? as u8),
            "tos" | "dsfield" => q.tos = Some(line.number(0, 255)? as u8),
            "len" => q.len = Some(line.number(20, 65_575)? as u32),
            "gso" => q.gso = Some(line.number(1, 65_535)? as u16),
            "df" => q.df = true,
            "mark" => q.mark = Some(line.number(0, u64::from(u32::MAX))? as u32),
            "--hex" => {
                // Bytes with spaces between them may come as several words.
                let first = line.value("hexadecimal bytes")?.to_owned();
                let (at, mut text) = (line.here(), first);
                while let Some(more) = line.peek().filter(|w| is_hex(w)) {
                    text.push_str(more);
                    line.next();
                }
                let bytes = Bytes::from_hex(&text).map_err(|_| {
                    line.complain(at, "Error: these are not whole bytes.", "pairs of hexadecimal digits")
                })?;
                (q.bytes, q.ethernet) = (Some(bytes), None);
            }
            "--pcap" => {
                let file = line.value("a capture file")?.to_owned();
                let number = line.number(1, u64::from(u32::MAX))?;
                let (bytes, medium) = packet_of(Path::new(&file), number)?;
                (q.bytes, q.ethernet) = (Some(Bytes(bytes)), Some(medium == Medium::Ethernet));
            }
            "-c" | "--config" => a.config = Some(line.value("a configuration file")?.into()),
            "--watch" => {
                // The rest is the filter, and how many.
                let (mut words, mut count) = (Vec::new(), u64::MAX);
                while let Some(word) = line.next() {
                    match word {
                        "count" => count = line.number(1, u64::MAX)?,
                        "-j" | "--json" => a.options.json = true,
                        "--all" => a.all = true,
                        word => words.push((line.here(), word)),
                    }
                }
                a.watch = Some((check_filter(line, &words)?, count));
            }
            "--all" | "-a" => a.all = true,
            "-p" | "-pretty" | "--pretty" => (a.options.json, a.options.pretty) = (true, true),
            "help" | "--help" | "-h" => a.help = true,
            // As in `route get ADDRESS`.
            _ if q.to.is_none() && router_core::addr::parse_addr(word).is_ok() => {
                q.to = router_core::addr::parse_addr(word).ok();
            }
            _ => return Err(line.wrong(WORDS)),
        }
        said.push(word);
    }
    let q = &a.question;
    if q.to.is_none() && q.bytes.is_none() && !a.help && a.watch.is_none() {
        return Err(line.complain(
            words.len(),
            "The command is not complete.",
            "to ADDRESS, --pcap FILE N or --hex BYTES",
        ));
    }
    Ok(a)
}

fn is_hex(word: &str) -> bool {
    word.len().is_multiple_of(2) && word.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Packet `number`, from 1, of a capture file.
fn packet_of(path: &Path, number: u64) -> Result<(Vec<u8>, Medium), Failure> {
    let failed = |e: String| Failure::new(exit::USAGE, format!("{}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| failed(crate::control::plain(&e)))?;
    let mut reader = AnyReader::new(file).map_err(|e| failed(e.to_string()))?;
    let (mut data, mut have, mut medium) = (Vec::new(), 0, Medium::Ethernet);
    while have < number {
        match reader.next(&mut data).map_err(|e| failed(e.to_string()))? {
            Some(m) => medium = m,
            None => return Err(failed(format!("it has {have} packets, there is no packet {number}"))),
        }
        have += 1;
    }
    Ok((data, medium))
}

/// Asks and prints.
pub(crate) fn run(
    asked: Asked,
    out: &mut dyn Write,
    color: bool,
    socket: impl FnOnce(&Options) -> Result<PathBuf, Failure>,
) -> Result<(), Failure> {
    if asked.help {
        return Ok(writeln!(out, "{USAGE}")?);
    }
    let Asked { question, config, all, options, watch, .. } = asked;
    if let Some((filter, count)) = watch {
        return live(&filter, count, all, &options, out, color, &socket(&options)?);
    }
    let answer = match &config {
        Some(file) => offline(file, question)?,
        None => {
            let mut session = Session::new(socket(&options)?, options.clone(), out, color);
            match session.call(Op::Explain(Box::new(question)))? {
                Answer::Explain(e) => *e,
                _ => return Err(unexpected()),
            }
        }
    };
    print(&answer, all, &options, out, color)
}

/// Explains live packets as they come in.
fn live(
    filter: &str,
    count: u64,
    all: bool,
    options: &Options,
    out: &mut dyn Write,
    color: bool,
    socket: &Path,
) -> Result<(), Failure> {
    let mut packets = Client::connect(socket)?;
    let mut questions = Client::connect(socket)?;
    // A few packets wait for their explanation, the others are let go: it is about what happens now.
    let select = CaptureSelect { filter: filter.to_owned(), at: vec!["rx".into()], snap: 0, queue: 16 };
    packets.send(Op::Capture(select))?;
    let stopped = stop_on_signal(packets.handle()?)?;
    let mut told = 0;
    while told < count {
        let (page, over) = match packets.receive() {
            Ok(Body::Ok(Answer::Capture(p))) => (p, true),
            Ok(Body::Page(Answer::Capture(p))) => (p, false),
            Ok(_) => return Err(unexpected()),
            Err(_) if stopped.load(std::sync::atomic::Ordering::Relaxed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        for p in page.packets.iter().take(usize::try_from(count - told).unwrap_or(usize::MAX)) {
            let question = Question {
                iif: Some(p.port.clone()),
                bytes: Some(p.data.clone()),
                ethernet: Some(p.ethernet),
                gso: p.gso,
                ..Question::default()
            };
            let answer = match questions.call(Op::Explain(Box::new(question))) {
                Ok(Answer::Explain(e)) => *e,
                Ok(_) => return Err(unexpected()),
                // What came is no packet, such as ARP cut short.
                Err(ClientError::Refused(_)) => continue,
                Err(e) => return Err(e.into()),
            };
            if !options.json {
                writeln!(out, "{}", super::capture::time_of_day(p.nanos))?;
            }
            print(&answer, all, options, out, color)?;
            if !options.json {
                writeln!(out)?;
            }
            out.flush()?;
            told += 1;
        }
        if over {
            break;
        }
    }
    Ok(())
}

/// Prints an explanation in the form that the options ask for.
pub(crate) fn print(
    e: &Explanation,
    all: bool,
    options: &Options,
    out: &mut dyn Write,
    color: bool,
) -> Result<(), Failure> {
    if options.json {
        let text = if options.pretty { serde_json::to_string_pretty(e) } else { serde_json::to_string(e) };
        let text = text.map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    Ok(output::explain(&mut output::Out::new(out, options, color), e, all)?)
}

/// Builds the router of a configuration in memory, no device touched, and asks that.
fn offline(file: &Path, question: Question) -> Result<Explanation, Failure> {
    let router = Offline::with_stations(&crate::run::load(file)?)?;
    let mut client = Client::connect(&router.socket())?;
    match client.call(Op::Explain(Box::new(question)))? {
        Answer::Explain(e) => Ok(*e),
        _ => Err(unexpected()),
    }
}
