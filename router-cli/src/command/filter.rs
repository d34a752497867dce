//! `duet filter`.

use super::{Session, unexpected};
use crate::control::{Answer, Op};
use crate::grammar::{Failure, FilterCommand};
use crate::output;

impl Session<'_> {
    pub(super) fn filter(&mut self, command: FilterCommand) -> Result<(), Failure> {
        match command {
            FilterCommand::Show(select) => match self.call(Op::FilterShow(select))? {
                Answer::Filters(info) => self.print(|out, o| output::filters(out, &info, o)),
                _ => Err(unexpected()),
            },
            FilterCommand::Add(f) => self.done(Op::FilterAdd(f)),
            FilterCommand::Replace(f) => self.done(Op::FilterReplace(f)),
            FilterCommand::Delete(d) => self.done(Op::FilterDelete(d)),
            FilterCommand::Set(change) => self.done(Op::FilterSet(change)),
        }
    }
}
