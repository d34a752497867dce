//! `translate show [NAME] [sessions [COUNT]]`.

use super::failure::Failure;
use super::words::Words;
use super::{Command, Object};
use crate::control::TranslateSelect;

/// Sessions listed unless said otherwise.
const SESSIONS: u32 = 1000;

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return Ok(Command::Translate(TranslateSelect::default()));
    }
    match () {
        () if w.matches(&["show", "lst", "list"]) => {}
        () if w.matches(&["help"]) => return Ok(Command::Help(Object::Translate)),
        () => return Err(w.unknown_command("translate")),
    }
    let mut select = TranslateSelect::default();
    while let Some(word) = w.next() {
        match word {
            "sessions" => {
                select.sessions = SESSIONS;
                if w.peek().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) {
                    w.arg()?;
                    select.sessions = w
                        .current_number("sessions", 1..=1_000_000)
                        .map_err(|_| w.invalid("invalid count", "a count is 1 to 1000000"))?
                        as u32;
                }
            }
            name if select.name.is_none() => select.name = Some(name.to_owned()),
            _ => return Err(w.garbage("translate", "say translate show [NAME] [sessions [COUNT]]")),
        }
    }
    Ok(Command::Translate(select))
}
