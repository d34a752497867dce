//! `duet drops`: why packets were dropped, how fast, what to do about it, and the last ones. `duet stats`: counters, with
//! rates while somebody watches.

use super::{Session, unexpected};
use crate::control::{Answer, DropInfo, Op, StatsInfo};
use crate::grammar::Failure;
use crate::output::{self, DropRow};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How long rates are measured when nobody says.
const MOMENT: Duration = Duration::from_secs(1);

fn ask_drops(session: &mut Session<'_>) -> Result<Vec<DropInfo>, Failure> {
    match session.call(Op::Drops)? {
        Answer::Drops(list) => Ok(list),
        _ => Err(unexpected()),
    }
}

/// Prints the drops: once, with the rates of one second, or again and again.
pub(crate) fn drops(session: &mut Session<'_>, all: bool, watch: Option<f64>) -> Result<(), Failure> {
    let span = watch.map_or(MOMENT, seconds);
    let mut before = ask_drops(session)?;
    let mut at = Instant::now();
    loop {
        // Without any drop there is nothing to measure.
        if watch.is_some() || !before.is_empty() {
            std::thread::sleep(span.saturating_sub(at.elapsed()));
        }
        let now = ask_drops(session)?;
        let elapsed = at.elapsed().as_secs_f64().max(0.001);
        at = Instant::now();
        let old: BTreeMap<&str, u64> = before.iter().map(|d| (d.reason.as_str(), d.packets)).collect();
        let rows: Vec<DropRow> = now
            .iter()
            .map(|d| {
                let grown = d.packets.saturating_sub(old.get(d.reason.as_str()).copied().unwrap_or(0));
                DropRow { info: d.clone(), rate: grown as f64 / elapsed }
            })
            .collect();
        again(session, watch)?;
        session.print(|out, _| output::drops(out, &rows, all))?;
        session.out.flush()?;
        if watch.is_none() {
            return Ok(());
        }
        before = now;
    }
}

/// Prints the counters: once, or again and again with rates.
pub(crate) fn stats(session: &mut Session<'_>, watch: Option<f64>) -> Result<(), Failure> {
    let ask = |session: &mut Session<'_>| match session.call(Op::Stats)? {
        Answer::Stats(s) => Ok::<StatsInfo, Failure>(*s),
        _ => Err(unexpected()),
    };
    let mut before = ask(session)?;
    let Some(every) = watch else {
        return session.print(|out, _| output::stats(out, &before));
    };
    let mut at = Instant::now();
    loop {
        std::thread::sleep(seconds(every).saturating_sub(at.elapsed()));
        let now = ask(session)?;
        let elapsed = at.elapsed().as_secs_f64().max(0.001);
        at = Instant::now();
        again(session, watch)?;
        session.print(|out, _| output::rates(out, &before, &now, elapsed))?;
        session.out.flush()?;
        before = now;
    }
}

/// On a terminal the next table takes the place of the last; elsewhere an empty line parts them.
pub(super) fn again(session: &mut Session<'_>, watch: Option<f64>) -> Result<(), Failure> {
    if watch.is_none() || session.options.json {
        return Ok(());
    }
    let clear: &[u8] = if std::io::stdout().is_terminal() { b"\x1b[H\x1b[2J" } else { b"\n" };
    Ok(session.out.write_all(clear)?)
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or(MOMENT).clamp(Duration::from_millis(100), Duration::from_secs(86_400))
}
