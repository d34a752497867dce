//! What the demo writes: lines with colour where a terminal wants it, a spinner while something takes its time.

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Commands of the host's kernel and of the router's operator.
const COMMAND: Style = Style::new().bold();
const PROMPT: Style = AnsiColor::Cyan.on_default();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();
const TITLE: Style = AnsiColor::Yellow.on_default().bold();

/// Standard output of the demo. Colour goes only to a terminal, and not where NO_COLOR is set.
pub struct Screen {
    quiet: bool,
    ascii: bool,
    /// Somebody is looking.
    watched: bool,
    spinner: RefCell<Option<ProgressBar>>,
}

impl Screen {
    /// `quiet` writes nothing, for `--json`; `ascii` draws with ASCII characters only.
    pub fn new(quiet: bool, ascii: bool) -> Self {
        let watched = std::io::stderr().is_terminal() && (quiet || std::io::stdout().is_terminal());
        Screen { quiet, ascii, watched, spinner: RefCell::default() }
    }

    /// Shows on a terminal what is under way, until something else is written.
    pub fn working(&self, what: impl Into<String>) {
        self.rest();
        if !self.watched {
            return;
        }
        let bar = ProgressBar::new_spinner();
        let template = if self.ascii { "     {spinner} {msg}" } else { "     {spinner:.cyan} {msg}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(if self.ascii { style.tick_chars("|/-\\ ") } else { style });
        bar.set_message(what.into());
        bar.enable_steady_tick(Duration::from_millis(80));
        self.spinner.replace(Some(bar));
    }

    /// Nothing is under way any more.
    pub fn rest(&self) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
    }

    /// A scenario begins.
    pub fn title(&self, place: &str, name: &str, text: &str) {
        self.line("");
        self.line(format_args!("{DIM}{place}{DIM:#}  {TITLE}{name}{TITLE:#}  {text}"));
        self.line("");
    }

    /// A picture, or other text that stands for itself.
    pub fn block<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) {
        for line in lines {
            self.line(format_args!("   {}", line.as_ref()));
        }
        self.line("");
    }

    /// A command that is run on a host.
    pub fn command(&self, host: &str, sign: char, words: &str) {
        self.line(format_args!("   {PROMPT}{host}{sign}{PROMPT:#} {COMMAND}{words}{COMMAND:#}"));
    }

    /// What a command did, as it should.
    pub fn good(&self, text: &str) {
        self.line(format_args!("     {GOOD}✓{GOOD:#} {text}"));
    }

    /// What a command did, and should not have.
    pub fn bad(&self, text: &str) {
        self.line(format_args!("     {BAD}✗ {text}{BAD:#}"));
    }

    /// Output of a command, or a remark.
    pub fn note(&self, text: &str) {
        self.line(format_args!("       {text}"));
    }

    /// Something that explains.
    pub fn dim(&self, text: &str) {
        self.line(format_args!("       {DIM}{text}{DIM:#}"));
    }

    /// The last line of all.
    pub fn verdict(&self, ok: bool, text: &str) {
        let (style, sign) = if ok { (GOOD, '✓') } else { (BAD, '✗') };
        self.line("");
        self.line(format_args!("{style}{sign}{style:#} {text}"));
    }

    /// One line.
    pub fn line(&self, text: impl Display) {
        if self.quiet {
            return;
        }
        let mut text = text.to_string().trim_end().to_owned();
        if self.ascii {
            text = text.chars().map(plain).collect();
        }
        self.rest();
        // A reader who has gone away has seen enough.
        let _ = writeln!(anstream::stdout(), "{text}");
    }
}

/// The ASCII character that stands for one of a picture's.
fn plain(c: char) -> char {
    match c {
        '─' => '-',
        '═' => '=',
        '│' => '|',
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' => '+',
        '→' => '>',
        '✓' => '*',
        '✗' => '!',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn everything_has_an_ascii_form() {
        assert!("─═│┌┐└┘├┤┬→✓✗abc".chars().map(plain).all(|c| c.is_ascii()));
    }
}
