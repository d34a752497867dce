//! `duet tunnel check NAME [ADDRESS]`: echo requests through the tunnel tell whether its other end answers, how much fits
//! there and back, what is lost, and what became of DSCP and ECN.

use super::unexpected;
use crate::control::{Answer, Op, TunnelProbe};
use crate::grammar::Failure;
use crate::output::{Out, Paint};
use router_core::router::ProbeAnswer;
use router_core::tunnel::Path;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Questions of the first round.
const ROUND: u16 = 20;

/// So many of them at once.
const BURST: u16 = 5;

/// How long answers may take.
const PATIENCE: Duration = Duration::from_millis(1000);
const LOOK: Duration = Duration::from_millis(10);

/// Times that a size is tried before it counts as too long: a lost packet is no narrow link.
const TRIES: u16 = 3;

/// What a round of questions gave.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Round {
    pub sent: u16,
    pub received: u16,
    /// Least and mean round trip.
    pub rtt: Option<(Duration, Duration)>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub name: String,
    pub target: IpAddr,
    pub reached: Round,
    /// The tunnel's inner MTU, and the largest packet that was answered with its like.
    pub mtu: (u32, Option<u32>),
    /// Traffic classes asked with and answered with.
    pub marks: Vec<(u8, Option<u8>)>,
    /// By which protocols the tunnel could go, and whether the path lets them through; empty where there is no choice.
    pub protocols: Vec<(String, Option<Duration>)>,
}

type Call<'c> = dyn FnMut(Op) -> Result<Answer, Failure> + 'c;

/// Asks.
pub(crate) fn run(name: &str, target: Option<IpAddr>, call: &mut Call<'_>) -> Result<Found, Failure> {
    let mtu = match call(Op::TunnelShow(Some(name.to_owned())))? {
        Answer::Tunnels(list) => list.first().ok_or_else(|| Failure::no_device(name))?.mtu.unwrap_or(1280),
        _ => return Err(unexpected()),
    };
    let probe = |size, tclass, count| TunnelProbe { name: name.to_owned(), target, size, tclass, count };
    let Answer::Asked(target, _) = call(Op::TunnelProbe(probe(0, 0, 0)))? else { return Err(unexpected()) };
    // Neighbours on the way may have to be asked for first: that is no loss of the tunnel's.
    for _ in 0..TRIES {
        if !ask(probe(100, 0, 1), call)?.is_empty() {
            break;
        }
    }
    let mut small = Vec::new();
    for _ in 0..ROUND / BURST {
        small.extend(ask(probe(100, 0, BURST), call)?);
        // Nobody there: do not wait for each burst.
        if small.is_empty() {
            break;
        }
    }
    let reached = Round { sent: ROUND, received: small.len() as u16, rtt: times(&small) };
    let mut found =
        Found { name: name.to_owned(), target, reached, mtu: (mtu, None), marks: Vec::new(), protocols: Vec::new() };
    found.protocols = protocols(name, call)?;
    if small.is_empty() {
        return Ok(found);
    }
    let mut fits = |size: u32| -> Result<bool, Failure> {
        for _ in 0..TRIES {
            if ask(probe(size, 0, 1), call)?.iter().any(|a| a.size == size) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    // The tunnel's own MTU is what should fit; else the largest size below it.
    found.mtu.1 = if fits(mtu)? { Some(mtu) } else { largest(100, mtu, &mut fits)? };
    for tclass in [0xb8, 0x02, 0x01, 0x03] {
        let answers = ask(probe(100, tclass, TRIES), call)?;
        found.marks.push((tclass, answers.first().map(|a| a.tclass)));
    }
    Ok(found)
}

/// What became of the questions by each way that the tunnel could go: they were asked when it was made ready.
fn protocols(name: &str, call: &mut Call<'_>) -> Result<Vec<(String, Option<Duration>)>, Failure> {
    let Answer::Tunnels(list) = call(Op::TunnelShow(Some(name.to_owned())))? else { return Err(unexpected()) };
    let Some(info) = list.first() else { return Ok(Vec::new()) };
    let kind = info.tunnel.options.udp.map_or("udp", |u| u.kind.name());
    let results = info.path.as_ref().map(|p| p.passes.as_slice()).unwrap_or_default();
    let named = results.iter().map(|r| {
        let name = match r.path {
            Path::Bare => info.tunnel.mode.shape().name.to_owned(),
            Path::Udp(port) => format!("{kind} port {port}"),
        };
        (name, r.rtt_us.map(|us| Duration::from_micros(u64::from(us))))
    });
    Ok(named.collect())
}

/// The largest size between one that fits and one that does not.
fn largest(
    mut fits: u32,
    mut not: u32,
    test: &mut impl FnMut(u32) -> Result<bool, Failure>,
) -> Result<Option<u32>, Failure> {
    while not - fits > 1 {
        let middle = fits + (not - fits) / 2;
        if test(middle)? { fits = middle } else { not = middle }
    }
    Ok(Some(fits))
}

/// Asks some questions and waits for their answers.
fn ask(probe: TunnelProbe, call: &mut Call<'_>) -> Result<Vec<ProbeAnswer>, Failure> {
    let name = probe.name.clone();
    let Answer::Asked(_, asked) = call(Op::TunnelProbe(probe))? else { return Err(unexpected()) };
    let deadline = Instant::now() + PATIENCE;
    let mut answers = Vec::new();
    while answers.len() < asked.len() && Instant::now() < deadline {
        let Answer::Answers(more) = call(Op::TunnelAnswers(name.clone()))? else { return Err(unexpected()) };
        if more.is_empty() {
            std::thread::sleep(LOOK);
        }
        answers.extend(more.into_iter().filter(|a| asked.contains(&a.seq)));
    }
    Ok(answers)
}

fn times(answers: &[ProbeAnswer]) -> Option<(Duration, Duration)> {
    let least = answers.iter().map(|a| a.rtt).min()?;
    let sum: Duration = answers.iter().map(|a| a.rtt).sum();
    Some((least, sum / u32::try_from(answers.len()).ok()?))
}

/// Prints it.
pub(crate) fn print(out: &mut Out<'_>, f: &Found) -> io::Result<()> {
    out.begin()?;
    out.object(None)?;
    out.str("ifname", "", &f.name, ": ", Paint::Name)?;
    out.str("target", "asked ", f.target, "", Paint::addr(&f.target))?;
    out.newline()?;
    let r = &f.reached;
    out.num("sent", "    reach: ", r.sent, " asked, ")?;
    out.num("received", "", r.received, " answered")?;
    let lost = u32::from(r.sent - r.received) * 100 / u32::from(r.sent.max(1));
    out.num("loss_percent", ", ", lost, "% lost")?;
    if let Some((least, mean)) = r.rtt {
        let ms = |d: Duration| format!("{:.3}", d.as_secs_f64() * 1000.0);
        out.str("rtt_min", ", rtt min ", ms(least), "", Paint::Plain)?;
        out.str("rtt_avg", " avg ", ms(mean), " ms", Paint::Plain)?;
    }
    for (name, rtt) in &f.protocols {
        out.newline()?;
        out.object(Some(name))?;
        out.str("protocol", "    ", name, "", Paint::Plain)?;
        match rtt {
            Some(rtt) => {
                let ms = format!("{:.3}", rtt.as_secs_f64() * 1000.0);
                out.str("result", ": ", "passes there and back", "", Paint::Up)?;
                out.str("rtt", ", rtt ", ms, " ms", Paint::Plain)?;
            }
            None => out.str("result", ": ", "not answered", "", Paint::Down)?,
        }
        out.end_object()?;
    }
    if r.received > 0 {
        out.newline()?;
        out.num("mtu", "    mtu: ", f.mtu.0, " configured or learned, ")?;
        match f.mtu.1 {
            Some(n) if n == f.mtu.0 => out.num("mtu_both_ways", "passes there and back: ", n, "")?,
            Some(n) => out.num("mtu_both_ways", "but nothing above ", n, " passes there and back: set mtu")?,
            None => {}
        }
        for (asked, answered) in &f.marks {
            out.newline()?;
            out.object(Some(&format!("tclass_{asked:02x}")))?;
            let what = match asked & 3 {
                0 => format!("dscp {}", asked >> 2),
                2 => "ecn ECT(0)".to_owned(),
                1 => "ecn ECT(1)".to_owned(),
                _ => "ecn CE".to_owned(),
            };
            out.str("asked", "    ", &what, "", Paint::Plain)?;
            match answered {
                Some(a) if a == asked => out.str("result", ": ", "survives there and back", "", Paint::Up)?,
                Some(0) => out.str("result", ": ", "cleared, on the way or by who answers", "", Paint::Plain)?,
                Some(a) => out.str("result", ": ", format!("comes back as 0x{a:02x}"), "", Paint::Plain)?,
                None => out.str("result", ": ", "not answered", "", Paint::Down)?,
            }
            out.end_object()?;
        }
    }
    out.text("\n")?;
    out.end_object()?;
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::TunnelInfo;
    use router_core::spec::{TunnelMode, TunnelSpec};

    /// A tunnel through which packets of up to `fits` bytes pass, and marks without their lower bit.
    fn through(fits: u32, lossy: bool) -> Found {
        let (mut seq, mut waiting) = (0u16, Vec::new());
        let target: IpAddr = "192.0.2.9".parse().unwrap();
        let mut call = |op: Op| -> Result<Answer, Failure> {
            Ok(match op {
                Op::TunnelShow(_) => {
                    let spec = TunnelSpec::new("t", TunnelMode::SixInFour, target, target);
                    Answer::Tunnels(vec![TunnelInfo { mtu: Some(1480), ..TunnelInfo::of(spec) }])
                }
                Op::TunnelProbe(p) => {
                    let mut asked = Vec::new();
                    for _ in 0..p.count {
                        seq += 1;
                        asked.push(seq);
                        if p.size <= fits && !(lossy && seq % 4 == 0) {
                            let rtt = Duration::from_millis(3);
                            waiting.push(ProbeAnswer { seq, rtt, tclass: p.tclass & !1, size: p.size });
                        }
                    }
                    Answer::Asked(target, asked)
                }
                Op::TunnelAnswers(_) => Answer::Answers(std::mem::take(&mut waiting)),
                other => panic!("{other:?}"),
            })
        };
        run("t", None, &mut call).unwrap()
    }

    #[test]
    fn what_passes_is_found() {
        let f = through(9000, false);
        assert_eq!((f.reached.received, f.mtu), (20, (1480, Some(1480))));
        assert_eq!(f.marks, [(0xb8, Some(0xb8)), (2, Some(2)), (1, Some(0)), (3, Some(2))]);
        let f = through(0, false);
        assert_eq!((f.reached.received, f.mtu.1), (0, None));
    }
}
