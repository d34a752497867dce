//! One writer for both forms, after iproute2's `print_*` family: each fact has a JSON key and a text form.

use crate::grammar::Options;
use anstyle::{AnsiColor, Style};
use std::fmt::Display;
use std::io::{self, Write};

/// What a piece of text is, for its colour: iproute2's palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// No colour.
    Plain,
    /// A port's name.
    Name,
    /// A link-layer address.
    Mac,
    /// An IPv4 address or prefix.
    Inet,
    /// An IPv6 address or prefix.
    Inet6,
    /// Good state.
    Up,
    /// Bad state.
    Down,
}

impl Paint {
    /// The colour of an address.
    pub fn addr(addr: &std::net::IpAddr) -> Paint {
        if addr.is_ipv4() { Paint::Inet } else { Paint::Inet6 }
    }

    fn style(self) -> Style {
        let color = match self {
            Paint::Plain => return Style::new(),
            Paint::Name => AnsiColor::Cyan,
            Paint::Mac => AnsiColor::Yellow,
            Paint::Inet => AnsiColor::Magenta,
            Paint::Inet6 => AnsiColor::Blue,
            Paint::Up => AnsiColor::Green,
            Paint::Down => AnsiColor::Red,
        };
        Style::new().fg_color(Some(color.into()))
    }
}

/// See the module. JSON layout follows iproute2's json_writer, so that `-p` is equal too.
pub struct Out<'a> {
    w: &'a mut dyn Write,
    json: bool,
    pretty: bool,
    color: bool,
    oneline: bool,
    depth: usize,
    /// A comma is due before the next value.
    comma: bool,
}

/// Where in a list a writer is.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutState {
    depth: usize,
    comma: bool,
}

impl<'a> Out<'a> {
    /// Writes to `w` as the options say; `color` is already decided.
    pub fn new(w: &'a mut dyn Write, options: &Options, color: bool) -> Self {
        Out {
            w,
            json: options.json,
            pretty: options.pretty,
            color: color && !options.json,
            oneline: options.oneline,
            depth: 0,
            comma: false,
        }
    }

    /// Goes on where another writer paused.
    pub fn resume(w: &'a mut dyn Write, options: &Options, color: bool, state: OutState) -> Self {
        Out { depth: state.depth, comma: state.comma, ..Out::new(w, options, color) }
    }

    /// Where this writer is, for another one to go on.
    pub fn pause(self) -> OutState {
        OutState { depth: self.depth, comma: self.comma }
    }

    /// Whether JSON is written.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Opens the list that surrounds all output.
    pub fn begin(&mut self) -> io::Result<()> {
        if self.json { self.open("[") } else { Ok(()) }
    }

    /// Closes it.
    pub fn end(&mut self) -> io::Result<()> {
        if self.json {
            self.close_array()?;
            self.w.write_all(b"\n")?;
            self.comma = false;
        }
        self.w.flush()
    }

    /// Opens an object that stands alone, outside any list.
    pub fn object_alone(&mut self) -> io::Result<()> {
        self.object(None)
    }

    /// Ends the line after an object that stands alone.
    pub fn finish_line(&mut self) -> io::Result<()> {
        self.comma = false;
        self.w.write_all(b"\n")?;
        self.w.flush()
    }

    /// Opens an object, in a list or under `key`.
    pub fn object(&mut self, key: Option<&str>) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        match key {
            Some(key) => self.key(key)?,
            None => self.separate()?,
        }
        self.open("{")
    }

    /// Closes an object.
    pub fn end_object(&mut self) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        self.depth = self.depth.saturating_sub(1);
        if self.comma {
            self.eol()?;
        }
        self.comma = true;
        self.w.write_all(b"}")
    }

    /// Opens a list under `key`.
    pub fn array(&mut self, key: &str) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        self.key(key)?;
        self.open("[")
    }

    /// Closes a list.
    pub fn end_array(&mut self) -> io::Result<()> {
        if self.json { self.close_array() } else { Ok(()) }
    }

    /// A text value: `before value after` or `"key":"value"`.
    pub fn str(&mut self, key: &str, before: &str, value: impl Display, after: &str, paint: Paint) -> io::Result<()> {
        if self.json {
            self.key(key)?;
            return self.json_str(&value.to_string());
        }
        self.w.write_all(before.as_bytes())?;
        self.paint(value, paint)?;
        self.w.write_all(after.as_bytes())
    }

    /// A number: `before value after` or `"key":value`.
    pub fn num(&mut self, key: &str, before: &str, value: impl Into<u64>, after: &str) -> io::Result<()> {
        let value = value.into();
        if self.json {
            self.key(key)?;
            return write!(self.w, "{value}");
        }
        write!(self.w, "{before}{value}{after}")
    }

    /// A number that may be below zero.
    pub fn signed(&mut self, key: &str, before: &str, value: i32) -> io::Result<()> {
        if self.json {
            self.key(key)?;
            return write!(self.w, "{value}");
        }
        write!(self.w, "{before}{value}")
    }

    /// Seconds, told in hundredths, written as C's `%g` does: `120`, `0.75`.
    pub fn seconds(&mut self, key: &str, before: &str, hundredths: u64, after: &str) -> io::Result<()> {
        let value = hundredths as f64 / 100.0;
        // Six digits, no zeros at the end.
        let whole = value.trunc().to_string().len();
        let text = match whole {
            0..=5 => value.to_string(),
            _ => (value.round() as u64).to_string(),
        };
        if self.json {
            self.key(key)?;
            return write!(self.w, "{text}");
        }
        write!(self.w, "{before}{text}{after}")
    }

    /// A fact without a value: `text` or `"key":null`.
    pub fn null(&mut self, key: &str, text: &str) -> io::Result<()> {
        self.flag_as(key, text, "null")
    }

    /// A fact that is true: `text` or `"key":true`.
    pub fn truth(&mut self, key: &str, text: &str) -> io::Result<()> {
        self.flag_as(key, text, "true")
    }

    /// `"key":true`, which text does not have.
    pub fn truth_json(&mut self, key: &str) -> io::Result<()> {
        if self.json { self.truth(key, "") } else { Ok(()) }
    }

    fn flag_as(&mut self, key: &str, text: &str, json: &str) -> io::Result<()> {
        if self.json {
            self.key(key)?;
            return self.w.write_all(json.as_bytes());
        }
        self.w.write_all(text.as_bytes())
    }

    /// A list of words under `key`, in JSON only.
    pub fn words(&mut self, key: &str, words: &[&str]) -> io::Result<()> {
        self.array(key)?;
        for word in words {
            self.item(word)?;
        }
        self.end_array()
    }

    /// An element of a list of words, in JSON only.
    pub fn item(&mut self, word: &str) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        self.separate()?;
        self.json_str(word)
    }

    /// Text that JSON does not have.
    pub fn text(&mut self, text: impl Display) -> io::Result<()> {
        if self.json { Ok(()) } else { write!(self.w, "{text}") }
    }

    /// Coloured text that JSON does not have.
    pub fn painted(&mut self, text: impl Display, paint: Paint) -> io::Result<()> {
        if self.json { Ok(()) } else { self.paint(text, paint) }
    }

    /// A number that text does not have.
    pub fn json_num(&mut self, key: &str, value: u64) -> io::Result<()> {
        if self.json { self.num(key, "", value, "") } else { Ok(()) }
    }

    /// A word that text does not have.
    pub fn json_word(&mut self, key: &str, value: impl Display) -> io::Result<()> {
        if self.json { self.str(key, "", value, "", Paint::Plain) } else { Ok(()) }
    }

    /// A line break within an object: `\` with `-o`.
    pub fn newline(&mut self) -> io::Result<()> {
        self.text(if self.oneline { "\\" } else { "\n" })
    }

    fn paint(&mut self, value: impl Display, paint: Paint) -> io::Result<()> {
        if self.color && paint != Paint::Plain {
            let style = paint.style();
            write!(self.w, "{style}{value}{style:#}")
        } else {
            write!(self.w, "{value}")
        }
    }

    fn separate(&mut self) -> io::Result<()> {
        if self.comma {
            self.w.write_all(b",")?;
        }
        self.comma = true;
        Ok(())
    }

    fn open(&mut self, bracket: &str) -> io::Result<()> {
        self.w.write_all(bracket.as_bytes())?;
        self.depth += 1;
        self.comma = false;
        if self.pretty && bracket == "[" {
            self.w.write_all(b" ")?;
        }
        Ok(())
    }

    fn close_array(&mut self) -> io::Result<()> {
        if self.pretty && self.comma {
            self.w.write_all(b" ")?;
        }
        self.depth = self.depth.saturating_sub(1);
        self.comma = true;
        self.w.write_all(b"]")
    }

    fn key(&mut self, key: &str) -> io::Result<()> {
        self.separate()?;
        self.eol()?;
        self.json_str(key)?;
        self.w.write_all(if self.pretty { b": " } else { b":" })
    }

    fn eol(&mut self) -> io::Result<()> {
        if !self.pretty {
            return Ok(());
        }
        self.w.write_all(b"\n")?;
        for _ in 0..self.depth {
            self.w.write_all(b"    ")?;
        }
        Ok(())
    }

    fn json_str(&mut self, text: &str) -> io::Result<()> {
        self.w.write_all(b"\"")?;
        for c in text.chars() {
            match c {
                '"' => self.w.write_all(b"\\\"")?,
                '\\' => self.w.write_all(b"\\\\")?,
                '\n' => self.w.write_all(b"\\n")?,
                '\t' => self.w.write_all(b"\\t")?,
                '\r' => self.w.write_all(b"\\r")?,
                c if (c as u32) < 0x20 => write!(self.w, "\\u{:04x}", c as u32)?,
                c => write!(self.w, "{c}")?,
            }
        }
        self.w.write_all(b"\"")
    }
}
