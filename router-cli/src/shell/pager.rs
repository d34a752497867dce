//! The shell's own pager: output stops at each screenful and the source waits, so that the first lines of a table of
//! 900,000 routes are there at once and the rest is never fetched unless somebody wants it.

use super::pipe::without_escapes;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode, size};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PROMPT: &str = "\u{1b}[7m--More-- (space: page, enter: line, a: all, /: search, q: quit)\u{1b}[0m";

/// A writer to the terminal that stops at each screenful. An error of kind BrokenPipe says that the user has seen enough.
pub(crate) struct Pager {
    out: io::Stdout,
    stop: Arc<AtomicBool>,
    /// Rows until it stops; None: never.
    left: Option<usize>,
    rows: usize,
    columns: usize,
    line: Vec<u8>,
    search: Option<String>,
    quit: bool,
}

impl Pager {
    /// `paged`: stop at each screenful. `stop`: the user wants no more, or the program is to end.
    pub fn new(paged: bool, stop: Arc<AtomicBool>) -> Self {
        let (columns, rows) = size().unwrap_or((80, 24));
        let rows = usize::from(rows.max(2)) - 1;
        let left = paged.then_some(rows);
        Pager {
            out: io::stdout(),
            stop,
            left,
            rows,
            columns: usize::from(columns.max(1)),
            line: Vec::new(),
            search: None,
            quit: false,
        }
    }

    fn take_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let text = without_escapes(&String::from_utf8_lossy(&line));
        if let Some(wanted) = &self.search {
            if !text.to_lowercase().contains(wanted) {
                return Ok(());
            }
            self.search = None;
        }
        // Tabs go to the next eighth column; what is wider than the screen takes several rows.
        let width = text.trim_end().chars().fold(0usize, |w, c| if c == '\t' { (w / 8 + 1) * 8 } else { w + 1 });
        let rows = width.div_ceil(self.columns).max(1);
        if let Some(left) = self.left
            && rows > left
            && left < self.rows
        {
            self.ask()?;
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(rows);
        }
        self.out.write_all(&line)
    }

    /// Waits for a key.
    fn ask(&mut self) -> io::Result<()> {
        self.out.write_all(PROMPT.as_bytes())?;
        self.out.flush()?;
        let raw = Raw::enter()?;
        let decided = loop {
            if self.stop.load(Ordering::Relaxed) {
                break Some(false);
            }
            // A terminal that is gone says so here.
            if !poll(Duration::from_millis(100))? {
                continue;
            }
            let Event::Key(KeyEvent { code, modifiers, kind, .. }) = read()? else { continue };
            if kind == KeyEventKind::Release {
                continue;
            }
            match code {
                KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => break Some(false),
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => break Some(false),
                KeyCode::Char(' ' | 'f') | KeyCode::PageDown => {
                    self.left = Some(self.rows);
                    break Some(true);
                }
                KeyCode::Enter | KeyCode::Char('j') | KeyCode::Down => {
                    self.left = Some(1);
                    break Some(true);
                }
                KeyCode::Char('a' | 'G') | KeyCode::End => {
                    self.left = None;
                    break Some(true);
                }
                KeyCode::Char('/') => break None,
                _ => {}
            }
        };
        drop(raw);
        // The prompt goes away.
        write!(self.out, "\r\u{1b}[K")?;
        self.out.flush()?;
        match decided {
            Some(true) => Ok(()),
            Some(false) => {
                self.quit = true;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            None => self.read_search(),
        }
    }

    /// Text after `/`: output goes on at the next line that holds it.
    fn read_search(&mut self) -> io::Result<()> {
        write!(self.out, "/")?;
        self.out.flush()?;
        let mut text = String::new();
        io::stdin().read_line(&mut text)?;
        let text = text.trim().to_lowercase();
        self.left = Some(self.rows);
        if !text.is_empty() {
            self.search = Some(text);
            writeln!(self.out, "...skipping")?;
        }
        Ok(())
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.quit || self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.left.is_none() && self.search.is_none() && self.line.is_empty() {
            return self.out.write(bytes);
        }
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.take_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() && !self.quit {
            // A line that does not end, such as a prompt of somebody's.
            self.out.write_all(&std::mem::take(&mut self.line))?;
        }
        self.out.flush()
    }
}

/// The terminal in raw mode, until dropped.
pub(crate) struct Raw(());

impl Raw {
    pub fn enter() -> io::Result<Raw> {
        enable_raw_mode().map(|()| Raw(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = disable_raw_mode();
    }
}
