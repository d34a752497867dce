//! `duet run` and `duet check`.

use crate::app::RunArgs;
use crate::grammar::Failure;
use std::io::Write;
use std::path::Path;

pub(crate) fn run(_args: &RunArgs, _socket: Option<&str>) -> Result<(), Failure> {
    Ok(())
}

pub(crate) fn check(_file: &Path, _out: &mut impl Write) -> Result<(), Failure> {
    Ok(())
}
