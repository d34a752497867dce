//! `route restore`: reads the lines of `route save`.

use super::Session;
use super::batch::Batch;
use crate::grammar::{Command, Failure, RouteCommand, parse_route_line};
use router_core::spec::RouteOp;
use std::io::{self, BufReader};

/// Adds every route of `input`; those that are there already do not count as failures, as with iproute2.
pub(super) fn restore(session: &mut Session<'_>, input: &mut impl io::Read) -> Result<(), Failure> {
    let family = session.options.family;
    let mut batch = Batch::new(session, "-").force();
    batch.tolerate = Some("exists");
    batch.each_line(&mut BufReader::with_capacity(1 << 20, input), false, |words| {
        let words = words.strip_prefix(&["route", "add"]).unwrap_or(words);
        if words.is_empty() {
            return Ok(None);
        }
        let spec = parse_route_line(words, family)?;
        Ok(Some(Command::Route(RouteCommand::Modify(RouteOp::Add, Box::new(spec)))))
    })
}
