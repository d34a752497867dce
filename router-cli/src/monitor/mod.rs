//! `duet monitor`: what happens in a running router, in the form of `ip monitor` or as one JSON object per line.

mod text;

use crate::app::Common;
use crate::control::{Answer, Client, Kind, MonitorSelect, Op, find_socket};
use crate::grammar::{Failure, exit};
use std::io::{self, Write};
use std::time::Duration;

/// `duet monitor`.
#[derive(Debug, clap::Args)]
pub(crate) struct MonitorArgs {
    /// Which router, which form
    #[command(flatten)]
    pub common: Common,
    /// Print the time before each event
    #[arg(short = 't', long)]
    pub timestamp: bool,
    /// With -t: the time in its short form, on the event's own line (-ts)
    #[arg(short = 's', long = "tshort")]
    pub short: bool,
    /// What to hear of; all words of iproute2 and their abbreviations; "all" also labels the events, as does "label"
    #[arg(value_name = "OBJECT", value_parser = object())]
    pub objects: Vec<String>,
}

/// The words, each with others that iproute2 takes for it.
const OBJECTS: [(&str, &[&str]); 9] = [
    ("route", &["r", "ro"]),
    ("nexthop", &["nex"]),
    ("neigh", &["n", "neighbor", "neighbour"]),
    ("link", &["l"]),
    ("address", &["a", "addr"]),
    ("tunnel", &["tunl"]),
    ("drops", &["drop"]),
    ("all", &[]),
    ("label", &[]),
];

fn object() -> impl clap::builder::TypedValueParser<Value = String> {
    use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
    let values = OBJECTS.map(|(word, aliases)| PossibleValue::new(word).aliases(aliases));
    PossibleValuesParser::new(values).map(|said: String| {
        let known = OBJECTS.iter().find(|(word, aliases)| *word == said || aliases.contains(&said.as_str()));
        known.map_or(said.clone(), |(word, _)| (*word).to_owned())
    })
}

/// Follows until the router, the reader or the user ends it.
pub(crate) fn run(args: &MonitorArgs) -> Result<(), Failure> {
    let options = args.common.clone().options();
    let socket = find_socket(options.socket.as_deref(), options.name.as_deref())
        .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    let color = crate::app::color(&options);
    let said = |w: &str| args.objects.iter().any(|o| o == w);
    let kinds = if said("all") { Vec::new() } else { args.objects.iter().filter_map(|o| kind(o)).collect() };
    let form = text::Form {
        options,
        color,
        label: said("all") || said("label"),
        timestamp: args.timestamp || args.short,
        short: args.short,
    };
    // Nothing may happen for a long time.
    let mut client = Client::connect(&socket)?.patience(Duration::from_secs(u32::MAX.into()));
    let mut out = io::BufWriter::new(io::stdout().lock());
    client.send(Op::Monitor(MonitorSelect { kinds }))?;
    loop {
        let (events, over) = match client.receive()? {
            crate::control::Body::Page(Answer::Events(events)) => (events, false),
            crate::control::Body::Ok(Answer::Events(events)) => (events, true),
            _ => return Err(crate::command::unexpected()),
        };
        for event in &events {
            form.write(&mut out, event)?;
        }
        out.flush()?;
        if over {
            let hint = "start it again with \"duet run FILE\"";
            return Err(Failure::with_hint(exit::REFUSED, "The router has stopped.", hint));
        }
    }
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "route" => Kind::Route,
        "nexthop" => Kind::Nexthop,
        "neigh" => Kind::Neigh,
        "link" => Kind::Link,
        "address" => Kind::Address,
        "tunnel" => Kind::Tunnel,
        "drops" => Kind::Drops,
        _ => return None,
    })
}
